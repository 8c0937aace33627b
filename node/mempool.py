"""The mempool: transactions admitted here that no executed block holds yet.

It remembers each of them until it is executed or expired, and hands the ones without a batch to the
batch maker in order of arrival. Bounded by count, bytes and sender; a full pool refuses by name.
"""

from collections import deque

from ledger.batch import namespace_order
from ledger.errors import Reason, Rejected
from ledger.ids import TransactionId
from ledger.limits import BATCH_NAMESPACES
from ledger.transaction import Transaction
from node import limits


class Mempool:
    """Admitted transactions by id, and the queue of those that wait for a batch."""

    def __init__(self) -> None:
        self._waiting: deque[Transaction] = deque()
        self._known: dict[TransactionId, Transaction] = {}
        self._by_sender: dict[bytes, int] = {}
        self._bytes = 0
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, transaction_id: TransactionId) -> bool:
        return transaction_id in self._known

    @property
    def waiting(self) -> int:
        """How many transactions wait for a batch."""
        return len(self._waiting)

    def check_room(self, sender: bytes, size: int) -> None:
        """Refuse before any signature is checked when there is no room.

        Raises: Rejected(POOL_FULL | SENDER_LIMIT).
        """
        if len(self._known) >= limits.POOL_TRANSACTIONS or self._bytes + size > limits.POOL_BYTES:
            raise Rejected(Reason.POOL_FULL, transactions=len(self._known), retry_after_ms=500)
        count = self._by_sender.get(sender, 0)
        if count >= limits.POOL_TRANSACTIONS_PER_SENDER:
            raise Rejected(Reason.SENDER_LIMIT, transactions=count, retry_after_ms=500)

    def add(self, transaction: Transaction) -> None:
        """Admit a checked transaction; a known id changes nothing."""
        if transaction.id in self._known:
            return
        self._known[transaction.id] = transaction
        sender = transaction.body.account
        self._by_sender[sender] = self._by_sender.get(sender, 0) + 1
        size = len(transaction.wire)
        self._bytes += size
        self.waiting_bytes += size
        self._waiting.append(transaction)

    def take(self, *, count: int, size: int) -> list[Transaction]:
        """The oldest waiting transactions: at most `count`, about `size` bytes, one batch's worth.

        Those that another node's batch brought on chain meanwhile are passed over.
        """
        taken: list[Transaction] = []
        namespaces: dict[tuple[str, int], None] = {}
        room = size
        while self._waiting and len(taken) < count:
            transaction = self._waiting[0]
            length = len(transaction.wire)
            if transaction.id in self._known:
                namespaces[namespace_order(transaction)] = None
                if taken and (length > room or len(namespaces) > BATCH_NAMESPACES):
                    break
                room -= length
                taken.append(transaction)
            self.waiting_bytes -= length
            self._waiting.popleft()
        return taken

    def remove(self, transaction_id: TransactionId) -> None:
        """Forget an executed transaction, if it was admitted here."""
        transaction = self._known.pop(transaction_id, None)
        if transaction is None:
            return
        self._bytes -= len(transaction.wire)
        sender = transaction.body.account
        count = self._by_sender[sender] - 1
        if count:
            self._by_sender[sender] = count
        else:
            del self._by_sender[sender]

    def expire(self, time_ms: int) -> int:
        """Forget transactions whose `valid_until` has passed; returns how many."""
        expired = [
            transaction
            for transaction in self._known.values()
            if transaction.body.valid_until < time_ms
        ]
        if expired:
            gone = frozenset(transaction.id for transaction in expired)
            kept = [item for item in self._waiting if item.id not in gone]
            self._waiting = deque(kept)
            self.waiting_bytes = sum(len(item.wire) for item in kept)
            for transaction in expired:
                self.remove(transaction.id)
        return len(expired)
