"""The replay window: ids that were executed and could still be sent again.

What it decides: which ids a node remembers, and the root by which a header commits to them.
An id is remembered until its `valid_until` has passed; after that the expiry rule refuses it. An id
fixes its body and so its `valid_until`, therefore one span of ten seconds is enough to look in, and
whole spans are forgotten at once.
The committed window holds the entries of the blocks whose span reaches into the last 600 seconds.
That is all a node must be given to refuse what the others refuse, because an id whose span lasts
was executed at most 600 seconds before its end.
Source: docs/format.md section 8; architecture section 3 ("Replay window");
docs/decisions/0028-replay-root.md.
"""

from collections import deque
from collections.abc import Sequence

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.history import EMPTY_FRONTIER, Frontier
from ledger.ids import Bytes32, Count, Hash, Level, TransactionId
from ledger.merkle import Digest, leaf_hash, root_of_leaves

SPAN_MS = 10_000
"""Both windows forget in steps of this; it divides the 600 seconds."""
ENTRIES_TAG = b"kl.replay-entries\0"
BLOCK_TAG = b"kl.replay-block\0"
SPAN_TAG = b"kl.replay-span\0"
NAMESPACE_TAG = b"kl.replay-namespace\0"
NO_NAMESPACE = ("", 0)
"""Where transactions stand that name no namespace of the chain: those names are not bounded."""

ReplayEntry = tuple[TransactionId, int, bool]
"""Id, `valid_until` and whether the transaction succeeded. A tuple: there is one for each."""


class NamespaceEntries(Record, frozen=True):
    """What one block added to the window of one namespace: the encoded list of its entries."""

    module: str
    level: Level
    count: Count
    entries: bytes


class ReplayBlock(Record, frozen=True):
    """What one block added to the window; namespaces ascending, none empty."""

    height: int
    time: int
    namespaces: tuple[NamespaceEntries, ...]


ENTRIES = Schema(list[tuple[Bytes32, Count, bool]], max_bytes=limits.BLOCK_BYTES)


def replay_block(
    height: int, time: int, entries: dict[tuple[str, int], list[ReplayEntry]]
) -> ReplayBlock:
    """The record of a block's entries, which stand in execution order."""
    return ReplayBlock(
        height,
        time,
        tuple(
            NamespaceEntries(module, level, len(found), encode(found))
            for (module, level), found in sorted(entries.items())
        ),
    )


class ReplayWindow:
    """Ids by the span of their expiry, with whether the transaction succeeded."""

    __slots__ = ("_spans",)

    def __init__(self) -> None:
        self._spans: dict[int, dict[TransactionId, bool]] = {}

    def seen(self, transaction_id: TransactionId, valid_until: int) -> bool:
        """Whether this id was executed before."""
        span = self._spans.get(valid_until // SPAN_MS)
        return span is not None and transaction_id in span

    def record(self, transaction_id: TransactionId, valid_until: int, *, succeeded: bool) -> None:
        """Remember an executed id."""
        number = valid_until // SPAN_MS
        span = self._spans.get(number)
        if span is None:
            span = self._spans[number] = {}
        span[transaction_id] = succeeded

    def restore(self, block: ReplayBlock, time_ms: int) -> None:
        """Remember what a block added, as far as it still counts at `time_ms`.

        Raises: Rejected(MALFORMED | NON_CANONICAL).
        """
        oldest = time_ms // SPAN_MS
        for namespace in block.namespaces:
            for transaction_id, valid_until, succeeded in ENTRIES.decode(namespace.entries):
                if valid_until // SPAN_MS >= oldest:
                    self.record(TransactionId(transaction_id), valid_until, succeeded=succeeded)

    def succeeded(self, transaction_id: TransactionId) -> bool:
        """Whether an id within the window was executed with success; used by `after`."""
        return any(span.get(transaction_id, False) for span in self._spans.values())

    def advance(self, time_ms: int) -> None:
        """Forget spans that lie wholly before `time_ms`, the time of the newest block."""
        oldest = time_ms // SPAN_MS
        for span in [number for number in self._spans if number < oldest]:
            del self._spans[span]

    def __len__(self) -> int:
        return sum(len(span) for span in self._spans.values())


class _NamespaceWindow:
    """The spans of one namespace: their leaves, and the growing tree of the newest."""

    __slots__ = ("blocks", "leaves", "numbers")

    def __init__(self) -> None:
        self.numbers: deque[int] = deque()
        self.leaves: deque[bytes] = deque()
        self.blocks: Frontier = EMPTY_FRONTIER

    def add(self, digest: Digest, span: int, entry: bytes) -> None:
        if not self.numbers or self.numbers[-1] != span:
            self.numbers.append(span)
            self.leaves.append(b"")
            self.blocks = EMPTY_FRONTIER
        self.blocks, _ = self.blocks.append(digest, entry)
        root = self.blocks.sized_root(digest)
        self.leaves[-1] = leaf_hash(digest, SPAN_TAG + encode((span, root)))

    def drop(self, oldest: int) -> bool:
        """Forget the spans before `oldest`; whether there were any."""
        before = len(self.numbers)
        while self.numbers and self.numbers[0] < oldest:
            self.numbers.popleft()
            self.leaves.popleft()
        return len(self.numbers) < before


class CommittedWindow:
    """The root over the entries of the last 600 seconds, and which blocks hold them."""

    __slots__ = ("_blocks", "_leaves", "_namespaces", "_suite")

    def __init__(self, suite: CryptoSuite) -> None:
        self._suite = suite
        self._namespaces: dict[tuple[str, int], _NamespaceWindow] = {}
        self._leaves: dict[tuple[str, int], bytes] = {}
        self._blocks: deque[tuple[int, int]] = deque()

    def add(self, block: ReplayBlock) -> tuple[int, ...]:
        """Take the next block, empty or not; the heights of those whose entries left.

        Cost: per namespace of the block about 65 hashes, whatever the number of entries, and one
        hash over the entries.
        """
        digest = self._suite.digest
        added = [
            (item.module, item.level, item.count, digest(ENTRIES_TAG + item.entries))
            for item in block.namespaces
        ]
        return self.add_digests(block.height, block.time, added)

    def add_digests(
        self, height: int, time: int, added: Sequence[tuple[str, int, int, bytes]]
    ) -> tuple[int, ...]:
        """The same from module, level, number and hash of the entries of each namespace."""
        digest, span = self._suite.digest, time // SPAN_MS
        for module, level, count, entries in added:
            key = (module, level)
            window = self._namespaces.get(key)
            if window is None:
                window = self._namespaces[key] = _NamespaceWindow()
            window.add(digest, span, BLOCK_TAG + encode((height, count, entries)))
            self._leaves.pop(key, None)
        if added:
            self._blocks.append((span, height))
        return self._advance(time)

    def _advance(self, time_ms: int) -> tuple[int, ...]:
        oldest = (time_ms - limits.REPLAY_WINDOW_MS) // SPAN_MS
        gone: list[int] = []
        while self._blocks and self._blocks[0][0] < oldest:
            gone.append(self._blocks.popleft()[1])
        if gone:
            for key in list(self._namespaces):
                window = self._namespaces[key]
                if window.drop(oldest):
                    self._leaves.pop(key, None)
                if not window.numbers:
                    del self._namespaces[key]
        return tuple(gone)

    def root(self) -> Hash:
        """What the next header holds."""
        digest, leaves = self._suite.digest, self._leaves
        for (module, level), window in self._namespaces.items():
            if (module, level) not in leaves:
                entry = (module, level, root_of_leaves(digest, tuple(window.leaves)))
                leaves[module, level] = leaf_hash(digest, NAMESPACE_TAG + encode(entry))
        return Hash(root_of_leaves(digest, [leaves[key] for key in sorted(leaves)]))
