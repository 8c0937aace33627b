"""The mempool: transactions admitted here that no executed block holds yet.

It remembers each of them until it is executed or the chain's time has passed its `valid_until`, and
hands the ones without a batch to the batch maker: those of the system module first, the others in
order of arrival. Bounded by count and bytes, in all, for a sender and for a namespace; the last
tenth is kept for the system module. What has no room is refused by name: an admitted transaction is
never dropped for another.
Source: docs/decisions/0027-admission.md; research consensus-reliability section 6.1.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from contracts.interface import SYSTEM_MODULE
from ledger.batch import namespace_order
from ledger.errors import Reason, Rejected
from ledger.ids import TransactionId
from ledger.limits import BATCH_NAMESPACES
from ledger.transaction import Transaction
from node import limits


class _Share:
    """What one sender or one namespace holds of the pool."""

    __slots__ = ("size", "transactions")

    def __init__(self) -> None:
        self.transactions = 0
        self.size = 0


class Mempool:
    """Admitted transactions by id, and the queues of those that wait for a batch."""

    def __init__(self) -> None:
        self._urgent: deque[Transaction] = deque()
        self._waiting: deque[Transaction] = deque()
        self._known: dict[TransactionId, Transaction] = {}
        # By account, by account and system module, by (module, level): keys that never meet.
        self._shares: dict[object, _Share] = {}
        self._all = _Share()
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return len(self._known)

    def __contains__(self, transaction_id: TransactionId) -> bool:
        return transaction_id in self._known

    @property
    def waiting(self) -> int:
        """How many transactions wait for a batch."""
        return len(self._waiting) + len(self._urgent)

    def claim(self, transaction: Transaction) -> None:
        """Set room aside before any signature is checked; `keep` or `release` must follow.

        Raises: Rejected(POOL_FULL | NAMESPACE_LIMIT | SENDER_LIMIT), with `retry_after_ms`.
        """
        body, size, everything = transaction.body, len(transaction.wire), self._all
        is_system = body.module == SYSTEM_MODULE
        count, count_bytes = limits.POOL_TRANSACTIONS, limits.POOL_BYTES
        if not is_system:
            count -= limits.POOL_RESERVE_TRANSACTIONS
            count_bytes -= limits.POOL_RESERVE_BYTES
        if everything.transactions >= count or everything.size + size > count_bytes:
            raise _refusal(Reason.POOL_FULL, everything)
        share = self._share((body.module, body.level))
        if (
            share.transactions >= limits.POOL_TRANSACTIONS_PER_NAMESPACE
            or share.size + size > limits.POOL_BYTES_PER_NAMESPACE
        ):
            raise _refusal(Reason.NAMESPACE_LIMIT, share)
        own = self._share((body.account, SYSTEM_MODULE) if is_system else body.account)
        count = limits.POOL_TRANSACTIONS_PER_SENDER
        if is_system:
            count = limits.POOL_SYSTEM_TRANSACTIONS_PER_SENDER
        if own.transactions >= count or own.size + size > limits.POOL_BYTES_PER_SENDER:
            raise _refusal(Reason.SENDER_LIMIT, own)
        everything.transactions += 1
        everything.size += size
        share.transactions += 1
        share.size += size
        own.transactions += 1
        own.size += size

    def _share(self, key: object) -> _Share:
        share = self._shares.get(key)
        if share is None:
            share = self._shares[key] = _Share()
        return share

    def release(self, transaction: Transaction) -> None:
        """Give back the room of a claim that came to nothing."""
        size = len(transaction.wire)
        self._all.transactions -= 1
        self._all.size -= size
        for key in _keys(transaction):
            share = self._shares[key]
            share.transactions -= 1
            share.size -= size
            if not share.transactions:
                del self._shares[key]

    def keep(self, transaction: Transaction) -> None:
        """Admit a checked transaction that has a claim; a known id gives the claim back."""
        if transaction.id in self._known:
            self.release(transaction)
            return
        self._known[transaction.id] = transaction
        self.waiting_bytes += len(transaction.wire)
        is_system = transaction.body.module == SYSTEM_MODULE
        (self._urgent if is_system else self._waiting).append(transaction)

    def add(self, transaction: Transaction) -> None:
        """Admit a checked transaction whether or not there is room."""
        size = len(transaction.wire)
        for share in (self._all, *map(self._share, _keys(transaction))):
            share.transactions += 1
            share.size += size
        self.keep(transaction)

    def take(self, *, count: int, size: int) -> list[Transaction]:
        """The next waiting transactions: at most `count`, about `size` bytes, one batch's worth.

        Those that another node's batch brought on chain meanwhile are passed over.
        """
        taken: list[Transaction] = []
        namespaces: dict[tuple[str, int], None] = {}
        room = size
        while len(taken) < count and (queue := self._urgent or self._waiting):
            transaction = queue[0]
            length = len(transaction.wire)
            if transaction.id in self._known:
                namespaces[namespace_order(transaction)] = None
                if taken and (length > room or len(namespaces) > BATCH_NAMESPACES):
                    break
                room -= length
                taken.append(transaction)
            self.waiting_bytes -= length
            queue.popleft()
        return taken

    def remove(self, transactions: Iterable[Transaction]) -> None:
        """Forget executed transactions, of which only some were admitted here."""
        known = self._known
        for executed in transactions:
            if executed.id in known:
                self.release(known.pop(executed.id))

    def expire(self, chain_time_ms: int) -> Iterator[int]:
        """Forget what no later block can execute; after each slice, how many that were.

        Only the time of the newest block says so: by a clock of our own a transaction could be
        called expired and stand in a block a moment later.  Cost: one look at each, in slices.
        """
        known = list(self._known.values())
        for start in range(0, len(known), limits.SLICE_EXPIRY):
            expired = [
                transaction
                for transaction in known[start : start + limits.SLICE_EXPIRY]
                if transaction.body.valid_until < chain_time_ms and transaction.id in self._known
            ]
            self.remove(expired)
            yield len(expired)


def _keys(transaction: Transaction) -> tuple[object, object]:
    """The shares of a namespace and of a sender; an account has one more in the system module."""
    body = transaction.body
    is_system = body.module == SYSTEM_MODULE
    sender = (body.account, SYSTEM_MODULE) if is_system else body.account
    return (body.module, body.level), sender


def _refusal(reason: Reason, share: _Share) -> Rejected:
    return Rejected(
        reason,
        transactions=share.transactions,
        payload_bytes=share.size,
        retry_after_ms=limits.POOL_RETRY_MS,
    )
