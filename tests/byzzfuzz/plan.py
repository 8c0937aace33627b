"""Small-scope faults: a few messages of one node are changed by little, a few rounds are cut.

A plan is drawn from a seed. Random bytes would be refused at the door; a message that is wrong by
one round or carries a value that was seen before goes deep into the rules.
Source: ByzzFuzz, PACMPL 7 OOPSLA1:101.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from consensus.messages import NO_ROUND, Message, Proposal, Vote, VoteKind

FAULTY_ROUNDS = 4
"""Faults belong to rounds 0 .. FAULTY_ROUNDS - 1 of each height."""
BAD_BLOCK = b"a block that no check accepts".ljust(32)


@dataclass(frozen=True, slots=True)
class Lie:
    """The Byzantine node's message of (round, kind) is told otherwise to some."""

    round: int
    kind: int
    victims: tuple[int, ...]
    trick: str
    is_added: bool
    """Whether the victims get the true message as well."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Messages of a round that cross between cells are lost; `kinds` 0 is proposals."""

    round: int
    cells: tuple[int, ...]
    kinds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a run draws before it starts. Probabilities are per check of a block."""

    seed: int
    validators: int
    byzantine: int
    lies: tuple[Lie, ...]
    cuts: tuple[Cut, ...]
    untimely: float
    slow_check: float


def draw(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(seed ^ 0xB1227)
    validators = rng.choice((4, 4, 4, 7))
    byzantine = rng.randrange(validators)
    others = [node for node in range(validators) if node != byzantine]
    lies = tuple(
        Lie(
            round=rng.randrange(FAULTY_ROUNDS),
            kind=rng.choice((0, VoteKind.PREVOTE, VoteKind.PRECOMMIT)),
            victims=tuple(sorted(rng.sample(others, rng.randint(1, len(others))))),
            trick=rng.choice(tuple(TRICKS)),
            is_added=rng.random() < 0.3,
        )
        for _ in range(rng.randint(0, 6))
    )
    cuts = tuple(
        Cut(
            round=rng.randrange(FAULTY_ROUNDS),
            cells=tuple(rng.randrange(rng.choice((2, 2, 3))) for _ in range(validators)),
            kinds=rng.choice(((0, 1, 2), (0,), (1,), (2,), (1, 2))),
        )
        for _ in range(rng.randint(0, 5))
    )
    return Plan(
        seed,
        validators,
        byzantine,
        lies,
        cuts,
        untimely=rng.choice((0.0, 0.0, 0.1)),
        slow_check=rng.choice((0.0, 0.0, 0.2)),
    )


@dataclass(frozen=True, slots=True)
class Memory:
    """What the Byzantine node may reuse: values it saw, messages it sent; in order."""

    values: list[bytes]
    sent: list[Message]


Trick = Callable[[random.Random, Message, Memory], Message | None]


def _round_up(_rng: random.Random, message: Message, _memory: Memory) -> Message:
    return replace(message, round=message.round + 1)


def _round_down(_rng: random.Random, message: Message, _memory: Memory) -> Message:
    valid_round = min(message.valid_round, message.round - 2)
    return replace(message, round=max(0, message.round - 1), valid_round=max(-1, valid_round))


def _another_value(rng: random.Random, message: Message, memory: Memory) -> Message | None:
    values = [value for value in memory.values if value != message.value]
    if not values:
        return None
    return replace(message, value=rng.choice(values), valid_round=_valid_round(rng, message))


def _nil(_rng: random.Random, message: Message, _memory: Memory) -> Message | None:
    return None if isinstance(message, Proposal) else replace(message, value=None, valid_round=-1)


def _other_valid_round(rng: random.Random, message: Message, _memory: Memory) -> Message:
    return replace(message, valid_round=_valid_round(rng, message))


def _valid_round(rng: random.Random, message: Message) -> int:
    is_precommit = isinstance(message, Vote) and message.kind is VoteKind.PRECOMMIT
    if is_precommit or message.value is None or rng.random() < 0.3:
        return NO_ROUND
    near = message.valid_round + rng.choice((-1, 1))
    return near if near >= NO_ROUND else message.round - 1


def _bad_block(_rng: random.Random, message: Message, _memory: Memory) -> Message:
    return replace(message, value=BAD_BLOCK, valid_round=NO_ROUND)


def _other_kind(_rng: random.Random, message: Message, _memory: Memory) -> Message | None:
    if isinstance(message, Proposal):
        return None
    other = VoteKind.PREVOTE if message.kind is VoteKind.PRECOMMIT else VoteKind.PRECOMMIT
    return replace(message, kind=other, valid_round=NO_ROUND)


def _old(rng: random.Random, message: Message, memory: Memory) -> Message | None:
    old = [sent for sent in memory.sent if sent.height <= message.height]
    return rng.choice(old) if old else None


def _silence(_rng: random.Random, _message: Message, _memory: Memory) -> None:
    return None


TRICKS: dict[str, Trick] = {
    "round + 1": _round_up,
    "round - 1": _round_down,
    "another value": _another_value,
    "nil": _nil,
    "valid round": _other_valid_round,
    "bad block": _bad_block,
    "other kind": _other_kind,
    "old": _old,
    "silence": _silence,
}
