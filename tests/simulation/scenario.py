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
PRECISION_MS = 500
MESSAGE_DELAY_MS = 2_000
"""What genesis sets: how far clocks may differ, how old a fresh block may be in round 0."""
GOOD_CLOCK_MS = 100
"""How far a clock that is kept in time may be off."""
BAD_CLOCK_MS = 10_000


@dataclass(frozen=True, slots=True)
class Scenario:
    """Probabilities are per message; `*_every_ms` are mean intervals, 0 for never.

    Nodes are named by identity: the validators of genesis, then the spares, which may become
    validators. At most f of them, together, are faulty: `adversaries` lie; of `twins` two instances
    run; `forgetful` nodes lose what they synced, or run from a backup that nobody declared;
    `damaged` ones lose or damage their data so that they can know it, and must stay safe.
    """

    seed: int
    validators: int
    adversaries: tuple[int, ...] = ()
    loss: float = 0.0
    late: float = 0.0
    late_mean_ms: int = 1_000
    duplicate: float = 0.0
    replay: float = 0.0
    partition_every_ms: int = 0
    crash_every_ms: int = 0
    slow_body: float = 0.0
    idle_mean_ms: int = 100
    missed_work: float = 0.0
    spares: int = 0
    twins: tuple[int, ...] = ()
    forgetful: tuple[int, ...] = ()
    damaged: tuple[int, ...] = ()
    clog_every_ms: int = 0
    pause_every_ms: int = 0
    clock_every_ms: int = 0
    disk_every_ms: int = 0
    damage_every_ms: int = 0
    change_every_ms: int = 0
    skewed: float = 0.0
    drift_ppm: int = 0

    @property
    def identities(self) -> int:
        """How many nodes there are, spares included."""
        return self.validators + self.spares

    @property
    def instances(self) -> int:
        """How many nodes run: a twin runs twice."""
        return self.identities + len(self.twins)

    @property
    def has_good_clocks(self) -> bool:
        """Whether every wall clock is kept in time throughout."""
        return not self.skewed and not self.clock_every_ms

    @property
    def faulty(self) -> tuple[int, ...]:
        """All identities that count among the f."""
        return (*self.adversaries, *self.twins, *self.forgetful, *self.damaged)

    @property
    def correct(self) -> tuple[int, ...]:
        """The identities that must keep every promise of safety: the damaged ones too."""
        excused = (*self.adversaries, *self.twins, *self.forgetful)
        return tuple(node for node in range(self.identities) if node not in excused)

    def identity(self, instance: int) -> int:
        """Whose key an instance holds."""
        return instance if instance < self.identities else self.twins[instance - self.identities]


def draw(seed: int) -> Scenario:
    """The scenario of a seed. Small networks are drawn most: they are cheap and fork as well."""
    rng = random.Random(seed)
    validators = rng.choices((1, 4, 7, 10), weights=(3, 65, 21, 11))[0]
    faults = faults_of(validators)
    count = rng.randint(1, faults) if faults and rng.random() < 0.75 else 0
    roles: tuple[list[int], ...] = ([], [], [], [])
    for node in sorted(rng.sample(range(validators), count)):
        rng.choices(roles, weights=(9, 2, 2, 3))[0].append(node)
    adversaries, twins, forgetful, damaged = map(tuple, roles)
    has_changes = validators > 1 and rng.random() < 0.4
    return Scenario(
        seed=seed,
        validators=validators,
        adversaries=adversaries,
        loss=rng.choice((0.0, 0.01, 0.05, 0.1, 0.2, 0.3)),
        late=rng.choice((0.0, 0.1, 0.1, 0.2)),
        late_mean_ms=rng.choice((1_000, 2_000, 3_000)),
        duplicate=rng.choice((0.0, 0.02, 0.1)),
        replay=rng.choice((0.0, 0.01, 0.05)),
        partition_every_ms=rng.choice((0, 3_000, 8_000, 15_000)),
        crash_every_ms=rng.choice((0, 2_000, 5_000, 12_000)),
        slow_body=rng.choice((0.0, 0.05, 0.3)),
        idle_mean_ms=rng.choice((0, 500, 1_500)) + 80 * validators,
        missed_work=rng.choice((0.0, 0.1, 0.5)),
        spares=rng.randint(1, 2) if has_changes else 0,
        twins=twins,
        forgetful=forgetful,
        damaged=damaged,
        clog_every_ms=rng.choice((0, 0, 4_000, 10_000)),
        pause_every_ms=rng.choice((0, 0, 3_000, 10_000)),
        clock_every_ms=rng.choice((0, 0, 2_000, 8_000)),
        disk_every_ms=rng.choice((0, 0, 4_000, 10_000)),
        damage_every_ms=rng.choice((2_000, 6_000)) if damaged or forgetful else 0,
        change_every_ms=rng.choice((1_500, 4_000, 8_000)) if has_changes else 0,
        skewed=rng.choice((0.0, 0.0, 0.3, 1.0)),
        drift_ppm=rng.choice((0, 100, 500)),
    )
