"""How much of this node one peer may use: token buckets over bytes, frames, signatures, answers.

What it decides: how long to stop reading from a peer that used up its budget. What it never does:
read a clock, wait, or drop anything: stopping to read is felt by the sender as back-pressure of
TCP, and nothing is lost. Only a peer that keeps its budget empty for a whole minute is at fault.
Every bound is at least twice what the busiest correct peer does; docs/decisions/0026 derives them.
"""

from dataclasses import dataclass
from typing import Final

from ledger.limits import KIB, MIB

DEMOTED_SHARE: Final = 1 / 16
"""A demoted peer's part of every rate: still 250 frames a second, and consensus needs 50."""


@dataclass(frozen=True, slots=True)
class Budget:
    """A rate per second, and how much of it may come at once."""

    rate: float
    burst: float


READ_BYTES = Budget(rate=32 * MIB, burst=64 * MIB)
"""5,000 transactions of 1 KB a second through one peer are 5 MB/s; a node that lags takes at most
what it can execute, about 10 MB/s. The burst holds two full queues of blocks and batches."""
READ_FRAMES = Budget(rate=4_000, burst=8_000)
"""Ten blocks a second are 50 frames of one peer, 5 MB/s of batches 320 reads of a TLS record.
The burst is four times all that a peer's queues can hold."""
SIGNATURES = Budget(rate=12_000, burst=48_000)
"""One core verifies at most about 20,000 a second, and 10,400 transactions is what a node can do
at all. The burst is more than two blocks of 8 MiB of registrations."""
SERVED_BYTES = Budget(rate=16 * MIB, burst=32 * MIB)
"""Three times a full load of 5 MB/s, so a peer that lags catches up; four blocks at once."""
REQUEST_BYTES = 16 * KIB
"""What a question costs whatever the answer: 1,024 a second, a correct peer asks below 300."""


class Allowance:
    """One token bucket for rare events that are refused, not delayed, beyond it."""

    __slots__ = ("_at_s", "_budget", "_left")

    def __init__(self, budget: Budget, now_s: float) -> None:
        self._budget = budget
        self._left = float(budget.burst)
        self._at_s = now_s

    def take(self, now_s: float) -> bool:
        """Whether one more event is within the budget."""
        gained = (now_s - self._at_s) * self._budget.rate
        self._left = min(self._left + gained, float(self._budget.burst))
        self._at_s = now_s
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class Meter:
    """The budgets of one peer. Cost: about half a microsecond for every read."""

    __slots__ = ("_at_s", "_left", "_share", "throttled_s")

    def __init__(self, now_s: float) -> None:
        self._at_s = now_s
        self._left = [float(budget.burst) for budget in _BUDGETS]
        self._share = 1.0
        self.throttled_s = 0.0
        """Seconds for which this peer was not read because of its budgets."""

    def demote(self, *, is_demoted: bool) -> None:
        """Give a small share of every rate, or all of it again."""
        self._share = DEMOTED_SHARE if is_demoted else 1.0

    def take_read(self, size_bytes: int, frames: int) -> None:
        """Count one read; a read that completes no frame counts as one."""
        left = self._left
        left[0] -= size_bytes
        left[1] -= frames or 1

    def take_signatures(self, count: int) -> None:
        """Count signatures that this node checks because of the peer."""
        self._left[2] -= count

    def take_served(self, size_bytes: int) -> None:
        """Count an answer that the peer asked for."""
        self._left[3] -= REQUEST_BYTES + size_bytes

    def pause_s(self, now_s: float) -> float:
        """How long to read no further, so that no budget is in debt; mostly 0."""
        gained_s = (now_s - self._at_s) * self._share
        self._at_s = now_s
        left = self._left
        debt_s = 0.0
        for index, (rate, burst) in enumerate(_RATES):
            amount = left[index] + gained_s * rate
            if amount > burst:
                amount = burst
            elif amount < 0.0:
                debt_s = max(debt_s, -amount / rate)
            left[index] = amount
        if not debt_s:
            return 0.0
        pause_s = debt_s / self._share
        self.throttled_s += pause_s
        return pause_s


_BUDGETS = (READ_BYTES, READ_FRAMES, SIGNATURES, SERVED_BYTES)
_RATES = tuple((float(budget.rate), float(budget.burst)) for budget in _BUDGETS)
