"""Which scenarios there are: a number names a partition and a leader for each of three rounds.

Five instances: validators 0, 1, 2 and two copies of validator 3 that share its key. Of the 52 ways
to divide five instances, the 41 with at most three cells are used (1 + 15 + 25, the Stirling
numbers of the second kind). The other 11 have four or five cells and so no cell with three
different keys: nobody in them can do anything but wait, as in many of the 41.
Each of the four validators leads in turn, so a round has 164 choices and a script 164 ** 3 =
4,410,944. The first round is the most significant digit: neighbours share their first rounds.
Source: arXiv 2004.10617 section 3; research consensus-reliability section 4.5.
"""

from dataclasses import dataclass
from functools import cache

VALIDATORS = 4
INSTANCES = 5
TWIN = 3
"""The validator that runs twice, as instances 3 and 4."""
ROUNDS = 3
MOST_CELLS = 3

Partition = tuple[int, ...]
"""The cell of each instance; cells are numbered by their first member."""


def validator_of(instance: int) -> int:
    """Whose key an instance signs with."""
    return min(instance, TWIN)


@cache
def partitions() -> tuple[Partition, ...]:
    """All ways to divide the instances among at most MOST_CELLS cells, in lexicographic order."""
    growing: list[Partition] = [()]
    for _ in range(INSTANCES):
        growing = [
            (*partial, cell)
            for partial in growing
            for cell in range(min(max(partial, default=-1) + 2, MOST_CELLS))
        ]
    return tuple(growing)


@dataclass(frozen=True, slots=True)
class Round:
    """What the script says of one round."""

    partition: Partition
    leader: int

    def __str__(self) -> str:
        names = ("0", "1", "2", "3", "3'")
        cells = (
            "".join(name for name, cell in zip(names, self.partition, strict=True) if cell == index)
            for index in range(max(self.partition) + 1)
        )
        return f"{'|'.join(cells)} led by {self.leader}"


@cache
def choices() -> tuple[Round, ...]:
    """The 164 choices for a round."""
    return tuple(
        Round(partition, leader) for partition in partitions() for leader in range(VALIDATORS)
    )


TOTAL = len(choices()) ** ROUNDS


def script_of(number: int) -> tuple[int, ...]:
    """The choices of scenario `number`, as indexes, first round first."""
    base = len(choices())
    return tuple(number // base**power % base for power in reversed(range(ROUNDS)))


def describe(number: int) -> str:
    """A scenario in words."""
    return "; ".join(str(choices()[choice]) for choice in script_of(number))
