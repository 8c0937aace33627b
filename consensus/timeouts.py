"""How long each step of a round waits.

Timeouts grow by `delta_ms` a round without bound: whatever the true delay of the network is, some
round is long enough. That is the liveness argument of Tendermint and must not be capped.
Source: arXiv 1807.04938 section III; the values come from genesis.
"""

from dataclasses import dataclass

from consensus.events import TimerKind
from ledger.ids import Round


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Durations in milliseconds; `delta_ms` is added once per round to all but `status_ms`."""

    propose_ms: int = 1_000
    prevote_ms: int = 500
    precommit_ms: int = 500
    delta_ms: int = 500
    status_ms: int = 1_000

    def after_ms(self, kind: TimerKind, round_number: Round) -> int:
        """The duration of a timer of `kind` in `round_number`."""
        match kind:
            case TimerKind.PROPOSE:
                return self.propose_ms + self.delta_ms * round_number
            case TimerKind.PREVOTE:
                return self.prevote_ms + self.delta_ms * round_number
            case TimerKind.PRECOMMIT:
                return self.precommit_ms + self.delta_ms * round_number
            case TimerKind.STATUS:
                return self.status_ms
