"""Mutants of what survives a crash: signing, logging, replaying, resuming, quarantine.

The shell of S1 stands for `node/driver.py` and `node/wal.py`; it has the same order of steps.
"""

from collections.abc import Callable

from consensus.core import Core
from consensus.events import CheckBlock, Effect, SetTimer, Sign
from tests.mutants.of_rules import S1, SOLO
from tests.mutants.patching import Change, Mutant
from tests.simulation.replica import Replica


def _resume_without(kind: type[Effect]) -> list[Change]:
    resume = Core.resume

    def mutated(self: Core) -> list[Effect]:
        return [effect for effect in resume(self) if not isinstance(effect, kind)]

    return [(Core, "resume", mutated)]


def _replayed(order: Callable[[list], list]) -> list[Change]:
    """The log in another order."""
    return [(Replica, "remembered", lambda _self, entries: order(list(entries)))]


def _in_pairs_swapped(entries: list) -> list:
    swapped = [entries[number ^ 1] for number in range(len(entries) // 2 * 2)]
    return swapped + entries[len(swapped) :]


def _without_sync() -> list[Change]:
    from tests.simulation import log

    return [(Replica, "make_durable", lambda self, own: self.log.append(own, log.VOTE))]


def _sent_before_logged() -> list[Change]:
    sign = Replica._sign

    def mutated(self: Replica, message) -> None:
        late: list = []
        self.make_durable = late.append
        try:
            sign(self, message)
        finally:
            del self.make_durable
        self._point()
        for own in late:
            self.make_durable(own)

    return [(Replica, "_sign", mutated)]


def _height_ended_before_block() -> list[Change]:
    append = Replica._append

    def mutated(self: Replica, decided) -> None:
        from tests.simulation.log import Ended

        self.log.end_height(Ended(len(self.chain.blocks) + 1, self.voting_from))
        self.log.sync()
        self._point()
        append(self, decided)

    return [(Replica, "_append", mutated)]


def _damage_cut_off() -> list[Change]:
    from tests.simulation import log

    return [(log, "_search", lambda _data, _damaged: iter(()))]


def _short_quarantine() -> list[Change]:
    """It ends with the first answers, at the height in progress."""
    from tests.simulation import quarantine

    right = quarantine.voting_from

    def mutated(*facts) -> int | None:
        first = right(*facts)
        return None if first is None else first - 2

    return [(quarantine, "voting_from", mutated)]


MUTANTS = (
    Mutant("restart without the log", (S1,), lambda: [(Replica, "remembered", lambda *_: [])]),
    Mutant("nothing resumed", (S1,), lambda: [(Core, "resume", lambda _: [])]),
    Mutant("resume without timers", (S1,), lambda: _resume_without(SetTimer)),
    Mutant("resume without signatures", (SOLO,), lambda: _resume_without(Sign)),
    Mutant("resume without checks", (SOLO,), lambda: _resume_without(CheckBlock)),
    Mutant("sent without sync", (S1,), _without_sync),
    Mutant("sent before logged", (S1,), _sent_before_logged),
    Mutant("log replayed in pairs swapped", (S1,), lambda: _replayed(_in_pairs_swapped)),
    Mutant("height ended before its block", (S1,), _height_ended_before_block),
    Mutant("lost history cut off", (S1,), _damage_cut_off),
    Mutant("quarantine ignored", (S1,), lambda: [(Replica, "quarantined_until", lambda _: 0)]),
    Mutant("quarantine two heights short", (S1,), _short_quarantine),
)
