"""When a certificate's end is worth a warning: 30, 7 and 1 days before, once each.

What it decides: whether a step was passed. What it never does: read a clock or log.
"""

from ledger.ids import TimestampMs

WARNING_DAYS = (30, 7, 1)
"""A month to order a certificate, a week to press, a day to act."""
_DAY_MS = 86_400_000


class ExpiryWatch:
    """Which steps were announced, by certificate; a renewed certificate begins anew."""

    __slots__ = ("_announced",)

    def __init__(self) -> None:
        self._announced: dict[bytes, int] = {}

    def due(
        self, public_key_hash: bytes, expires_ms: TimestampMs | None, now_ms: int
    ) -> int | None:
        """Whole days that are left, when a step was passed since the last call; else None."""
        if expires_ms is None:
            return None
        left_ms = expires_ms - now_ms
        passed = [days for days in WARNING_DAYS if left_ms <= days * _DAY_MS]
        if not passed or self._announced.get(public_key_hash) == passed[-1]:
            return None
        self._announced[public_key_hash] = passed[-1]
        return max(0, left_ms // _DAY_MS)
