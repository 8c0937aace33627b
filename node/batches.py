"""Verified batches that no block orders yet, in order of arrival.

A proposer selects from here; a validator looks here for what a proposal refers to. Memory is
bounded: what does not fit is not kept and will be pulled when a proposal needs it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ledger import limits as protocol
from ledger.batch import Batch
from ledger.ids import BatchDigest
from ledger.store.port import Bodies, Place
from node import limits


@dataclass(slots=True)
class _Pending:
    batch: Batch
    place: Place
    since_ms: int


class BatchPool:
    """Pending batches by digest; each body is on disk once, at its place."""

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._pending: dict[BatchDigest, _Pending] = {}
        self.held_bytes = 0
        self.held_transactions = 0
        self.arriving: dict[BatchDigest, None] = {}
        """Digests that are here but not verified yet: nobody needs to be asked for them."""

    def __len__(self) -> int:
        return len(self._pending)

    def __contains__(self, digest: BatchDigest) -> bool:
        return digest in self._pending

    def get(self, digest: BatchDigest) -> Batch | None:
        """A pending batch."""
        pending = self._pending.get(digest)
        return None if pending is None else pending.batch

    def add(self, batch: Batch, now_ms: int, *, needed: bool = False) -> bool:
        """Keep a verified batch; one that a proposal needs is kept even when the pool is full."""
        if batch.digest in self._pending:
            return True
        if not needed and self.held_bytes + len(batch.wire) > limits.PENDING_BATCH_BYTES:
            return False
        self._hold(batch, self._bodies.append(batch.wire), now_ms)
        return True

    def _hold(self, batch: Batch, place: Place, now_ms: int) -> None:
        self._pending[batch.digest] = _Pending(batch, place, now_ms)
        self.held_bytes += len(batch.wire)
        self.held_transactions += len(batch.transactions)

    def body(self, place: Place) -> bytes | None:
        """The bytes at a place, or None when they were never synced."""
        return self._bodies.read(place)

    def restore(self, batch: Batch, place: Place, now_ms: int) -> None:
        """Take back a batch whose body is on disk already."""
        if batch.digest not in self._pending:
            self._hold(batch, place, now_ms)

    def sync(self) -> None:
        """Make the bodies of all batches durable."""
        self._bodies.sync()

    @property
    def first_segment(self) -> int | None:
        """The lowest segment in which the body of a pending batch lies."""
        return min((pending.place.segment for pending in self._pending.values()), default=None)

    def place(self, digest: BatchDigest) -> Place:
        """Where the body of a pending batch lies."""
        return self._pending[digest].place

    def select(self, block_time: int) -> list[Batch]:
        """What a proposer puts into a block of this time: the oldest that fit its limits."""
        latest = block_time + protocol.REPLAY_WINDOW_MS
        selected: list[Batch] = []
        size = transactions = operations = 0
        for pending in self._pending.values():
            batch = pending.batch
            if batch.valid_until_max > latest:
                continue
            size += len(batch.wire)
            transactions += len(batch.transactions)
            operations += sum(len(transaction.operations) for transaction in batch.transactions)
            too_much = (
                size > protocol.BLOCK_BYTES
                or transactions > limits.BLOCK_TRANSACTIONS
                or operations > limits.BLOCK_OPERATIONS
                or len(selected) == protocol.BLOCK_BATCHES
            )
            if selected and too_much:
                break
            selected.append(batch)
        return selected

    @property
    def transactions(self) -> int:
        """How many transactions wait for a block; counts no further than one block holds."""
        return min(self.held_transactions, limits.BLOCK_TRANSACTIONS)

    def remove(self, digests: Sequence[bytes]) -> None:
        """Forget batches that a decided block orders."""
        for digest in digests:
            self._forget(BatchDigest(digest))

    def expire(self, time_ms: int, in_use: Collection[BatchDigest]) -> int:
        """Forget batches in which every transaction has expired; returns how many.

        What a proposed block orders stays: it may be decided, and its receipts will say expired.
        """
        gone = [
            digest
            for digest, pending in self._pending.items()
            if pending.batch.valid_until_max < time_ms and digest not in in_use
        ]
        for digest in gone:
            self._forget(digest)
        return len(gone)

    def overdue(self, now_ms: int) -> list[Batch]:
        """Batches that wait suspiciously long, up to one rebroadcast."""
        found: list[Batch] = []
        size = 0
        for pending in self._pending.values():
            if now_ms - pending.since_ms < limits.REBROADCAST_MS:
                break
            size += len(pending.batch.wire)
            if found and size > limits.REBROADCAST_BYTES:
                break
            found.append(pending.batch)
        return found

    def _forget(self, digest: BatchDigest) -> None:
        pending = self._pending.pop(digest, None)
        if pending is not None:
            self.held_bytes -= len(pending.batch.wire)
            self.held_transactions -= len(pending.batch.transactions)
