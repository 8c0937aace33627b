"""The replay window: ids that were executed and could still be sent again.

An id is remembered until its `valid_until` has passed; after that the expiry rule refuses it. An id
fixes its body and so its `valid_until`, therefore one bucket of ten seconds is enough to look in,
and whole buckets are forgotten at once.
Source: architecture section 3 ("Replay window").
"""

from ledger.ids import TransactionId

BUCKET_MS = 10_000


class ReplayWindow:
    """Ids by expiry, with whether the transaction succeeded."""

    __slots__ = ("_buckets",)

    def __init__(self) -> None:
        self._buckets: dict[int, dict[TransactionId, bool]] = {}

    def seen(self, transaction_id: TransactionId, valid_until: int) -> bool:
        """Whether this id was executed before."""
        bucket = self._buckets.get(valid_until // BUCKET_MS)
        return bucket is not None and transaction_id in bucket

    def record(self, transaction_id: TransactionId, valid_until: int, *, succeeded: bool) -> None:
        """Remember an executed id."""
        number = valid_until // BUCKET_MS
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = {}
        bucket[transaction_id] = succeeded

    def succeeded(self, transaction_id: TransactionId) -> bool:
        """Whether an id within the window was executed with success; used by `after`."""
        return any(bucket.get(transaction_id, False) for bucket in self._buckets.values())

    def advance(self, time_ms: int) -> None:
        """Forget buckets that lie wholly before `time_ms`, the time of the newest block."""
        oldest = time_ms // BUCKET_MS
        for bucket in [number for number in self._buckets if number < oldest]:
            del self._buckets[bucket]

    def __len__(self) -> int:
        return sum(len(bucket) for bucket in self._buckets.values())
