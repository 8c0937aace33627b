"""What one run is like: every knob is drawn from the seed, so a seed is a whole test case."""

import random
from dataclasses import dataclass

from consensus.timeouts import Timeouts
from consensus.vote_book import faults_of

FAULTS_END_MS = 40_000
"""Until here the network and the machines misbehave; after it every correct node must progress."""
RUN_MS = 60_000
LINK_MS = (5, 50)
"""Shortest and longest ordinary delay of a link."""
TIMEOUTS = Timeouts()


@dataclass(frozen=True, slots=True)
class Scenario:
    """Probabilities are per message; `*_every_ms` are mean intervals, 0 for never."""

    seed: int
    validators: int
    adversaries: tuple[int, ...]
    loss: float
    late: float
    late_mean_ms: int
    duplicate: float
    replay: float
    partition_every_ms: int
    crash_every_ms: int
    untimely: float
    slow_body: float
    idle_mean_ms: int
    missed_work: float

    @property
    def correct(self) -> tuple[int, ...]:
        """The indexes of all nodes that follow the protocol."""
        return tuple(node for node in range(self.validators) if node not in self.adversaries)


def draw(seed: int) -> Scenario:
    """The scenario of a seed. Small networks are drawn most: they are cheap and fork as well."""
    rng = random.Random(seed)
    validators = rng.choices((1, 4, 7, 10), weights=(3, 57, 25, 15))[0]
    faults = faults_of(validators)
    count = rng.randint(1, faults) if faults and rng.random() < 0.5 else 0
    return Scenario(
        seed=seed,
        validators=validators,
        adversaries=tuple(sorted(rng.sample(range(validators), count))),
        loss=rng.choice((0.0, 0.01, 0.05, 0.1, 0.2, 0.3)),
        late=rng.choice((0.0, 0.1, 0.1, 0.2)),
        late_mean_ms=rng.choice((1_000, 2_000, 3_000)),
        duplicate=rng.choice((0.0, 0.02, 0.1)),
        replay=rng.choice((0.0, 0.01, 0.05)),
        partition_every_ms=rng.choice((0, 3_000, 8_000, 15_000)),
        crash_every_ms=rng.choice((0, 2_000, 5_000, 12_000)),
        untimely=rng.choice((0.0, 0.02, 0.2)),
        slow_body=rng.choice((0.0, 0.05, 0.3)),
        idle_mean_ms=rng.choice((0, 500, 1_500)) + 80 * validators,
        missed_work=rng.choice((0.0, 0.1, 0.5)),
    )
