"""The scrub of a running node: which height is due, and how slowly it goes.

What it decides: the clock says which height is due, so that every record is read once in
SCRUB_CYCLE_MS, restarts or not, and nothing has to be remembered. What it never does: judge what it
reads (node/scrub.py). Damage ends the node, because nobody knows what else is wrong.
"""

import structlog
import trio

from ledger.errors import StoreDamagedError
from node.clock import Clock
from node.limits import SCRUB_CYCLE_MS, SCRUB_PAUSE_MS
from node.metrics import Metrics
from node.scrub import Scrub

_TICK_S = 1.0
# After a longer jump of the clock the heights between are left to the next cycle.
_CATCH_UP = 100
_log = structlog.get_logger("scrub")


class ScrubTask:
    """Walks through the stores at the clock's pace."""

    def __init__(self, scrub: Scrub, clock: Clock, metrics: Metrics) -> None:
        self._scrub = scrub
        self._clock = clock
        self._metrics = metrics

    async def run(self) -> None:
        """Until cancelled.

        Raises: StoreDamagedError.
        """
        checked = self._due() - 1
        while True:
            await trio.sleep(_TICK_S)
            due = self._due()
            first = checked + 1 if checked < due <= checked + _CATCH_UP else due
            if due != checked:
                for height in range(first, due + 1):
                    await self._check(height)
            checked = due

    def _due(self) -> int:
        elapsed = self._clock.now_ms() % SCRUB_CYCLE_MS
        return (self._scrub.height + 1) * elapsed // SCRUB_CYCLE_MS

    async def _check(self, height: int) -> None:
        try:
            for _ in self._scrub.check(height):
                await trio.sleep(SCRUB_PAUSE_MS / 1_000)
        except StoreDamagedError as error:
            _log.error("store_damaged", store=error.store, where=error.where, problem=error.problem)
            raise
        self._metrics.scrubbed.inc()
