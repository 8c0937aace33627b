"""The scrub: reads everything a node stores once more and compares it with what headers commit to.

What it decides: whether the records of a height are those of which its header, and the next one,
hold roots. Everything is covered: chain of headers, certificates, places and bodies of batches;
receipts; where ids stand; map values, log entries and log keys, through the write set and its state
root; the trees of namespaces and of logs; nodes of the history. Of the tip only what `getinfo`
counts is under no root.
What it never does: repair, or write at all.
Work comes in slices of about a millisecond, so that consensus is not kept waiting.
Source: research consensus-reliability section 6.3; docs/decisions/0029-damaged-stores.md.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass

from ledger.batch import (
    BATCH_HEADER,
    Batch,
    batch_digest,
    decode_batch,
    namespace_order,
    summarise,
)
from ledger.block import (
    BLOCK,
    HEADER,
    Block,
    Header,
    NamespaceReceipts,
    batches_root,
    block_hash,
    certificate_hash,
    receipts_root,
)
from ledger.codec import encode
from ledger.errors import Reason, Rejected, Store, StoreDamagedError
from ledger.history import Frontier, history_entry, tree_head
from ledger.ids import BatchDigest, TransactionId
from ledger.merkle import NODE, leaf_hash
from ledger.merkle import sized_root as sized
from ledger.merkle import tree_head as head_of
from ledger.receipts import RECEIPT, RECEIPT_TAG, Receipt, Status
from ledger.state import LogWrite, WriteSet
from ledger.state_root import (
    LOG,
    MAP,
    LogTip,
    log_leaves,
    log_place,
    map_place,
    namespace_of,
    state_root,
    value_digest,
    writes_root,
)
from ledger.state_tree import proved_digest
from ledger.store.blocks import BlockStore
from ledger.store.results import HistoryNodes, Locator, NamespaceResult, StateStore, pack_rows
from ledger.transaction import Chain, Transaction, operation_ids, parse_transaction
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, Certificate, verify_certificate
from node.limits import SCRUB_HASHES, SCRUB_TRANSACTIONS, SCRUB_VALUES
from node.scrub_beginning import Beginning


@dataclass(frozen=True, slots=True)
class _Committed:
    """What is committed to about a height: by the next header, or by the newest state."""

    state_root: bytes
    receipts_root: bytes
    history_root: bytes


class Scrub:
    """The checks of one node's stores."""

    def __init__(
        self,
        chain: Chain,
        blocks: BlockStore,
        state: StateStore,
        validators_at: Callable[[int], ValidatorSet],
    ) -> None:
        self._chain = chain
        self._validators_at = validators_at
        self._digest = chain.suite.digest
        self._blocks = blocks
        self._state = state
        self._beginning = Beginning(chain, blocks, state, validators_at)

    @property
    def height(self) -> int:
        """The newest height that can be checked."""
        tip = self._state.tip
        return -1 if tip is None else tip.height

    def check(self, height: int) -> Iterator[None]:
        """Check all that is stored about an executed height, 0 for genesis, slice by slice.

        Of pruned heights there are header and history, and below the origin there is nothing.
        Raises: StoreDamagedError.
        """
        store, found = Store.BLOCKS, None
        origin, began = self._blocks.origin, self._state.beginning
        if height < origin:
            return
        try:
            if height <= began and began:
                committed = self._committed(height)
                # Pruning goes on between two slices, and this record is the first to go.
                stored = self._state.writes(height) if height == began else None
                if height > origin or not height:
                    yield from self._pruned(height, committed)
                if stored is not None:
                    roots = committed.state_root, committed.history_root
                    yield from self._beginning.check(height, stored, *roots)
                return
            if height:
                found = _, _, certificate = self._block(height)
                yield
                verify_certificate(certificate, self._validators_at(height), self._chain)
                yield
            committed = self._committed(height)
            store = Store.STATE
            yield from self._receipts(height, committed)
            yield from self._writes(height, committed)
            self._history(height, committed)
            if found is not None:
                store = Store.BODIES
                yield from self._bodies(height, found[0], found[1])
        except (Rejected, StoreDamagedError) as error:
            if began < height <= self._state.beginning:
                return  # it was pruned between two slices
            if isinstance(error, StoreDamagedError):
                raise
            raise StoreDamagedError(store, f"height {height}", str(error)) from error

    def _pruned(self, height: int, committed: _Committed) -> Iterator[None]:
        """What is left of a block: its header, linked and certified, and its place in history."""
        decided = self._blocks.decided(height)
        if height:
            if decided is None:
                raise _damaged(Store.BLOCKS, height, "the header is missing")
            header, name = HEADER.decode(decided.header), self._name(height)
            certificate = CERTIFICATE.decode(decided.certificate)
            is_same = (
                header.height == height
                and header.previous_hash == self._name(height - 1)
                and (certificate.height, certificate.block_hash) == (height, name)
                and self._blocks.height_of(name) == height
            )
            _require(is_same, Store.BLOCKS, height, "the header is another")
            verify_certificate(certificate, self._validators_at(height), self._chain)
        yield
        self._history(height, committed)

    def _header(self, height: int) -> bytes | None:
        decided = self._blocks.decided(height)
        return None if decided is None else decided.header

    def _name(self, height: int) -> bytes:
        """The hash of the block of a height."""
        header = self._header(height) if height else None
        return block_hash(header, self._chain.suite) if header else self._chain.genesis_hash

    def _block(self, height: int) -> tuple[Block, Header, Certificate]:
        """The block of a height: linked to the one before, certified, found by its hash."""
        stored = self._blocks.block(height)
        if stored is None:
            raise _damaged(Store.BLOCKS, height, "the block is missing")
        block = BLOCK.decode(stored.block)
        header = HEADER.decode(block.header)
        name = block_hash(block.header, self._chain.suite)
        certificate = CERTIFICATE.decode(stored.certificate)
        for holds, problem in (
            (header.height == height, "the block is of another height"),
            (
                header.previous_hash == self._name(height - 1),
                "the block does not follow the one before",
            ),
            (
                header.certificate_hash == certificate_hash(block.certificate, self._chain.suite),
                "the block holds another certificate than its header says",
            ),
            (
                (certificate.height, certificate.block_hash) == (height, name),
                "the certificate is of another block",
            ),
            (self._blocks.height_of(name) == height, "the block is not found by its hash"),
        ):
            _require(holds, Store.BLOCKS, height, problem)
        return block, header, certificate

    def _committed(self, height: int) -> _Committed:
        following = self._header(height + 1)
        if following is not None:
            header = HEADER.decode(following)
            return _Committed(header.state_root, header.receipts_root, header.history_root)
        tip = self._state.tip
        if tip is None or tip.height != height:
            raise _damaged(Store.BLOCKS, height + 1, "the block is missing")
        is_same = tip.block_hash == self._name(height)
        _require(is_same, Store.STATE, height, "the tip is of another block")
        history = tip.history.sized_root(self._digest)
        return _Committed(tip.state_root, tip.receipts_root, history)

    def _bodies(self, height: int, block: Block, header: Header) -> Iterator[None]:
        """Every batch is the one that the header commits to, and its ids are found."""
        batches: list[Batch] = []
        receipts = _Receipts(self._state.receipts(height))
        for number, digest in enumerate(block.batches):
            wire = self._blocks.batch(digest)
            if wire is None:
                raise _damaged(Store.BLOCKS, height, "the place of a batch is missing")
            yield
            signed = decode_batch(wire)
            found = batch_digest(signed.header, self._chain.suite)
            _require(found == digest, Store.BODIES, height, "a body is of another batch")
            yield
            transactions: list[Transaction] = []
            for start in range(0, len(signed.transactions), SCRUB_TRANSACTIONS):
                for data in signed.transactions[start : start + SCRUB_TRANSACTIONS]:
                    transaction = parse_transaction(data, self._chain)
                    self._ids((height, number, len(transactions)), transaction, receipts)
                    transactions.append(transaction)
                yield
            summary = summarise(transactions, self._chain.suite)
            fields = BATCH_HEADER.decode(signed.header)
            _require(summary == fields.namespaces, Store.BODIES, height, "a body lost its content")
            batches.append(Batch(wire, fields, signed.signature, BatchDigest(digest), (), 0))
            yield
        root = batches_root(batches, self._chain.suite)
        _require(root == header.batches_root, Store.BLOCKS, height, "it orders other batches")

    def _ids(
        self, here: tuple[int, int, int], transaction: Transaction, receipts: "_Receipts"
    ) -> None:
        """A transaction's ids are found where they were executed first.

        Only a duplicate, or one that was expired, may have been executed before; if that was before
        the beginning of the stores, it is found nowhere.
        """
        first, found = receipts.take(transaction)
        was_before = found[0].status in (Status.DUPLICATE, Status.EXPIRED)
        ids = operation_ids(transaction, self._chain.suite)
        expected = {
            any_id: Locator(*here, index, first + index) for index, any_id in enumerate(ids)
        }
        expected.setdefault(transaction.id, Locator(*here, 0, first))
        for any_id, locator in expected.items():
            stored = self._state.locate(any_id)
            is_found = stored == locator or (was_before and self._was_before(stored, here, any_id))
            _require(is_found, Store.STATE, here[0], f"id {any_id.hex()} is not found in its place")

    def _was_before(
        self, stored: Locator | None, here: tuple[int, int, int], any_id: TransactionId
    ) -> bool:
        if stored is None or stored.height < self._blocks.first:
            return self._state.beginning > 0
        return self._holds(stored, here, any_id)

    def _holds(self, locator: Locator, here: tuple[int, int, int], any_id: TransactionId) -> bool:
        """Whether an id stands at an earlier place."""
        stored = self._blocks.block(locator.height)
        place = (locator.height, locator.batch, locator.transaction)
        if stored is None or place >= here:
            return False
        digests = BLOCK.decode(stored.block).batches
        wire = self._blocks.batch(digests[locator.batch]) if locator.batch < len(digests) else None
        wires = () if wire is None else decode_batch(wire).transactions
        if locator.transaction >= len(wires):
            return False
        transaction = parse_transaction(wires[locator.transaction], self._chain)
        results = self._state.receipts(locator.height)
        key = namespace_order(transaction)
        own = [result.receipts for result in results if (result.module, result.level) == key]
        receipt = own[0][locator.receipt] if own and locator.receipt < len(own[0]) else b""
        ids = operation_ids(transaction, self._chain.suite)
        operation = ids[locator.operation] if locator.operation < len(ids) else b""
        is_whole = any_id == transaction.id and locator.operation == 0
        return (
            (is_whole or operation == any_id)
            and receipt != b""
            and RECEIPT.decode(receipt).id == operation
        )

    def _receipts(self, height: int, committed: _Committed) -> Iterator[None]:
        summaries: list[NamespaceReceipts] = []
        for result in self._state.receipts(height):
            root = yield from self._root(RECEIPT_TAG, result.receipts)
            count = len(result.receipts)
            summaries.append(NamespaceReceipts(result.module, result.level, count, root))
        root = receipts_root(summaries, self._chain.suite)
        is_same = root == committed.receipts_root
        _require(is_same, Store.STATE, height, "receipts are not those of the next header")

    def _root(self, tag: bytes, entries: Sequence[bytes]) -> Generator[None, None, bytes]:
        """The sized root of entries, in slices: a slice is a whole subtree of the tree."""
        heads: list[bytes] = []
        for start in range(0, len(entries), SCRUB_HASHES):
            part = entries[start : start + SCRUB_HASHES]
            heads.append(head_of(self._digest, [leaf_hash(self._digest, tag + e) for e in part]))
            yield
        return sized(self._digest, len(entries), head_of(self._digest, heads))

    def _writes(self, height: int, committed: _Committed) -> Iterator[None]:
        """The write set leads to the state root, and what it wrote is still there."""
        stored = self._state.writes(height)
        logs: list[LogWrite] = []
        leaves: dict[bytes, list[bytes]] = {}
        for log, first in stored.logs:
            write = self._state.log_write(log, first)
            if write is None:
                raise _damaged(Store.STATE, height, "what it appended is missing")
            logs.append(write)
            leaves[log] = []
            for start in range(0, len(write.entries), SCRUB_HASHES):
                part = write.entries[start : start + SCRUB_HASHES]
                leaves[log] += log_leaves(self._digest, part)
                yield
        found = writes_root(self._digest, WriteSet(stored.maps, tuple(logs)), leaves)
        root = state_root(self._digest, stored.namespaces_root, found)
        is_same = found == stored.writes_root and root == committed.state_root
        _require(is_same, Store.STATE, height, "writes are not those of the next header")
        yield
        for start in range(0, len(stored.maps), SCRUB_VALUES):
            for key, value in stored.maps[start : start + SCRUB_VALUES]:
                self._map_value(height, key, value)
            yield
        for write in logs:
            yield from self._log_nodes(height, write, leaves[write.log])
            yield from self._log_keys(height, write)

    def _map_value(self, height: int, key: bytes, value: bytes | None) -> None:
        newest = self._state.map_value(key)
        is_held = newest is not None and newest.height >= height
        if newest is not None and newest.height > height:
            later = self._state.writes(newest.height).maps
            is_held = any(written == key for written, _ in later)
        elif newest is not None:
            is_held = newest.value == value and self._is_in_tree(key, value)
        _require(is_held, Store.STATE, height, f"the value of {key.hex()} is not what it wrote")
        namespace, path = _split(key)
        is_placed = self._is_placed(namespace, MAP, path, map_place(self._digest, path))
        _require(is_placed, Store.STATE, height, f"the place of {key.hex()} is of another key")

    def _is_in_tree(self, key: bytes, value: bytes | None) -> bool:
        namespace, path = _split(key)
        place = map_place(self._digest, path)
        held = proved_digest(self._digest, self._state, namespace, place)
        return held == (None if value is None else value_digest(self._digest, value))

    def _is_placed(self, namespace: bytes, kind: bytes, path: bytes, place: str) -> bool:
        return self._state.path_at(namespace, place) == kind + path

    def _log_nodes(self, height: int, write: LogWrite, leaves: Sequence[bytes]) -> Iterator[None]:
        """The nodes of the log's tree that the block completed, and those on their left."""
        first, log = write.first_sequence, write.log
        levels = [level for level in range(first.bit_length()) if first >> level & 1]
        peaks = [self._state.log_node(log, level, (first >> level) - 1) for level in levels]
        frontier, rows = Frontier(first, tuple(reversed(peaks))), list[list[bytes]]()
        for start in range(0, len(leaves), SCRUB_HASHES):
            part = leaves[start : start + SCRUB_HASHES]
            frontier, found = frontier.extend(self._digest, part)
            rows += ([] for _ in found[len(rows) :])
            for row, more in zip(rows, found, strict=False):
                row.extend(more)
            yield
        is_same = self._state.log_nodes(log, first) == pack_rows(rows)
        _require(is_same, Store.STATE, height, "the tree of a log has other nodes")
        tip = self._state.log_tip(log)
        if tip is None or frontier.count < tip.frontier.count:
            return
        namespace, path = _split(log)
        place = log_place(self._digest, path)
        is_placed = self._is_placed(namespace, LOG, path, place)
        _require(is_placed, Store.STATE, height, f"the place of {log.hex()} is of another log")
        head = value_digest(self._digest, encode(LogTip(height, frontier).head(self._digest)))
        is_same = (
            tip == LogTip(height, frontier)
            and proved_digest(self._digest, self._state, namespace, place) == head
        )
        _require(is_same, Store.STATE, height, "the head of a log is another")

    def _log_keys(self, height: int, write: LogWrite) -> Iterator[None]:
        first, count = write.first_sequence, len(write.entries)
        behind, total = first + count, self._state.log_count(write.log)
        has_more = self._state.log_write(write.log, behind) is not None
        is_counted = total > behind if has_more else total == behind
        _require(is_counted, Store.STATE, height, "a log has another count of entries")
        for start in range(0, count, SCRUB_TRANSACTIONS):
            for index in range(start, min(start + SCRUB_TRANSACTIONS, count)):
                key = write.entries[index].key
                is_found = self._state.has_log_key(write.log, key, first + index)
                _require(is_found, Store.STATE, height, f"entry {first + index} has no key")
            yield

    def _history(self, height: int, committed: _Committed) -> None:
        """The nodes that the height completed, and the root over all heights up to it."""
        nodes, digest = HistoryNodes(self._state), self._digest
        node = leaf_hash(digest, history_entry(self._name(height)))
        level, index = 0, height
        while True:
            is_same = nodes.get(level, index) == node
            _require(is_same, Store.STATE, height, f"history node {level}/{index} is another")
            if not index & 1:
                break
            node = digest(NODE + nodes.get(level, index - 1) + node)
            level, index = level + 1, index >> 1
        root = tree_head(nodes, digest, height + 1).sized_root(digest)
        is_same = root == committed.history_root
        _require(is_same, Store.STATE, height, "history is not that of the next header")


class _Receipts:
    """The receipts of a height, handed out in the order of transactions."""

    def __init__(self, results: Sequence[NamespaceResult]) -> None:
        self._results = {(result.module, result.level): result.receipts for result in results}
        self._taken: dict[tuple[str, int], int] = {}

    def take(self, transaction: Transaction) -> tuple[int, list[Receipt]]:
        """The receipts of the next transaction and the position of the first.

        Raises: Rejected(MALFORMED) when there are too few.
        """
        key, count = namespace_order(transaction), len(transaction.operations)
        first = self._taken.get(key, 0)
        self._taken[key] = first + count
        found = self._results.get(key, ())[first : first + count]
        if len(found) < count:
            raise Rejected(Reason.MALFORMED, "receipts are missing")
        return first, [RECEIPT.decode(item) for item in found]


def _split(key: bytes) -> tuple[bytes, bytes]:
    namespace = namespace_of(key)
    return namespace, key[len(namespace) :]


def _damaged(store: Store, height: int, problem: str) -> StoreDamagedError:
    return StoreDamagedError(store, f"height {height}", problem)


def _require(holds: object, store: Store, height: int, problem: str) -> None:
    if not holds:
        raise _damaged(store, height, problem)
