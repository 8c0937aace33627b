"""How much room the data folder has, and what a node stops doing before there is none.

What it decides: whether the disk is low. Below the mark a node takes no transactions and enters no
new round: a clean silence, which the others bear like any fault. It goes on serving reads and
following the chain, and takes part again when there is room, with a quarter more than the mark, so
that it does not flap. The mark is 5% of the disk, but never more than 2 GiB: that is minutes of
full load, and room for LevelDB to compact.
Source: research consensus-reliability section 6.3; decision 0022.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog
import trio

from ledger.errors import Reason, Rejected, UnavailableError
from ledger.limits import MIB

MARK_BYTES = 2_048 * MIB
MARK_PERCENT = 5
POLL_S = 2.0
"""At full load a node writes some 20 MB in this time."""
RETRY_MS = 30_000
"""What a refused client is told: space returns when somebody makes room, not within seconds."""

_log = structlog.get_logger("disk")


class Usage(Protocol):
    """How full a disk is, in bytes."""

    @property
    def total(self) -> int:
        """All of it."""
        ...

    @property
    def free(self) -> int:
        """What this process may still write."""
        ...


@dataclass(slots=True)
class DiskSpace:
    """Whether there is room; changed by `watch` alone."""

    is_low: bool = False

    def measure(self, free_bytes: int, total_bytes: int) -> bool:
        """Take a reading; whether it changed the answer."""
        mark = min(MARK_BYTES, total_bytes * MARK_PERCENT // 100)
        if self.is_low:
            mark += mark // 4
        was_low, self.is_low = self.is_low, free_bytes < mark
        return self.is_low != was_low

    @property
    def refusal(self) -> Rejected | None:
        """What a client is told instead of having its transaction admitted."""
        if not self.is_low:
            return None
        return Rejected(
            Reason.DISK_LOW,
            "this node's disk is nearly full and it only serves reads; use another node",
            retry_after_ms=RETRY_MS,
        )

    async def watch(
        self,
        folder: Path,
        on_room: Callable[[], None],
        usage: Callable[[Path], Usage] = shutil.disk_usage,
    ) -> None:
        """Measure the folder's disk until cancelled; `on_room` is called when space returns.

        Raises: UnavailableError when the disk cannot be asked.
        """
        while True:
            try:
                found = usage(folder)
            except OSError as error:
                raise UnavailableError(f"cannot measure the disk of {folder}: {error}") from error
            if self.measure(found.free, found.total):
                report = _log.error if self.is_low else _log.info
                report("disk_low" if self.is_low else "disk_has_room", free_bytes=found.free)
                if not self.is_low:
                    on_room()
            await trio.sleep(POLL_S)
