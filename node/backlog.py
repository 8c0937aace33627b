"""Whether this node is behind with work that was ordered or spread, so that it must not take more.

Admission closes while batches pile up before execution or before verification: a client is then
told to come back, instead of being promised a block that nobody gets to.
Source: research consensus-reliability section 1.9, T-13.
"""

from collections.abc import Callable

from ledger.errors import Reason, Rejected
from node import limits
from node.batches import BatchPool


class Backlog:
    """The work between admission and execution."""

    def __init__(self, pool: BatchPool, unverified_bytes: Callable[[], int]) -> None:
        self._pool = pool
        self._unverified_bytes = unverified_bytes

    def check(self) -> None:
        """Refuse while there is too much.

        Raises: Rejected(BEHIND) with `retry_after_ms`.
        """
        pool = self._pool
        if pool.held_transactions >= limits.BACKLOG_TRANSACTIONS:
            _refuse("transactions wait for execution", pool.held_transactions)
        if pool.held_bytes >= limits.BACKLOG_BYTES:
            _refuse("bytes wait for execution", pool.held_bytes)
        unverified_bytes = self._unverified_bytes()
        if unverified_bytes >= limits.BACKLOG_UNVERIFIED_BYTES:
            _refuse("bytes wait for verification", unverified_bytes)


def _refuse(what: str, count: int) -> None:
    raise Rejected(Reason.BEHIND, what, count=count, retry_after_ms=limits.BACKLOG_RETRY_MS)
