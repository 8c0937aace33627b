"""The state store: world state and what execution found out, one synced write per block.

Keys: `m` map values with the height that wrote them, `c` tips of logs, `l` log entries and `g`
nodes of their tree by first position of their block, `k` log positions by key, `z` roots and `a`
nodes of the trees of namespaces, `p` paths by their places in those trees, `r` receipts and `s`
writes by height, `w` entries of the replay window by height, `i` where an operation stands, `y`
nodes of the history log, `f` beginning, `t` tip, `v` format; `j` marks of a join in progress
(ledger/store/joined.py).
The tip is inside the same write, so a block is executed wholly or not at all.
With `s`, and a deleted key kept as an empty `m`, every record can be compared with a root that a
header holds: docs/decisions/0029-damaged-stores.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.errors import Store, StoreDamagedError, UnavailableError, invariant
from ledger.history import Frontier, Node
from ledger.ids import Hash, TransactionId
from ledger.replay import ReplayBlock
from ledger.state import LogEntry, LogWrite, WriteSet
from ledger.state_root import LOG_TIP, LogTip
from ledger.state_tree import VERSIONS, GrownLog, TreeChanges
from ledger.store.port import KeyValueStore, Write

TIP = b"t"
"""The key of the tip: a store that has it is whole."""
_FORMAT = b"v"
_BEGINNING = b"f"
JOINING = b"j"
"""With what the keys of a join in progress begin."""
_FORMAT_NUMBER = b"3"
"""Raised whenever records of an older node would be misread."""
_FIRST = bytes(8)
_LAST = b"\xff" * 8
_COUNT_BYTES = 4
_DIGITS = 64
# One block's appends to one log, or its receipts: bounded by the block, four times over for codec.
_RESULT_BYTES = 4 * limits.BLOCK_BYTES
# Accounts above all: who signs often is looked up for every transaction. About 4 MB.
_CACHED_VALUES = 16_384


class StateTip(Record, frozen=True):
    """What the next header and `getinfo` need of the newest executed block."""

    height: int
    block_hash: bytes
    time: int
    state_root: bytes
    receipts_root: bytes
    replay_root: bytes
    history: Frontier
    must_follow: bool
    transactions: int
    operations: int


class Locator(Record, frozen=True):
    """Where an operation stands: block, batch in it, transaction in that, operation, receipt."""

    height: int
    batch: int
    transaction: int
    operation: int
    receipt: int


class NamespaceResult(Record, frozen=True):
    """The encoded receipts of one namespace of a block, in execution order."""

    module: str
    level: int
    receipts: tuple[bytes, ...]


class StoredValue(Record, frozen=True):
    """A map value and the height that wrote it; None when that height deleted the key."""

    height: int
    value: bytes | None


class StoredWrites(Record, frozen=True):
    """What one block wrote: its map writes, and where its appends begin in which logs.

    With both parts of the state root that it led to.
    """

    maps: tuple[tuple[bytes, bytes | None], ...]
    logs: tuple[tuple[bytes, int], ...]
    namespaces_root: bytes
    writes_root: bytes


@dataclass(frozen=True, slots=True)
class BlockResults:
    """What the execution of one block found out; `forgotten` blocks left the replay window."""

    tip: StateTip
    writes: WriteSet
    receipts: tuple[NamespaceResult, ...]
    located: Sequence[tuple[TransactionId, Locator]]
    tree: TreeChanges
    history: Sequence[Node]
    replay: ReplayBlock
    forgotten: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class CompletedNodes:
    """The nodes of a log's tree that one block completed, as `pack_rows` made them."""

    first_sequence: int
    packed: bytes

    @property
    def stop(self) -> int:
        """The position behind the last one that the block wrote."""
        return self.first_sequence + int.from_bytes(self.packed[:_COUNT_BYTES], "big")

    def node(self, level: int, index: int) -> bytes:
        """A node whose last entry the block wrote; empty when it is missing."""
        first, stop = self.first_sequence, self.stop
        before = sum((stop >> lower) - (first >> lower) for lower in range(level))
        at = _COUNT_BYTES + 32 * (before + index - (first >> level))
        return self.packed[at : at + 32]


_STATE_TIP = Schema(StateTip, max_bytes=8 * limits.KIB)
_LOCATOR = Schema(Locator, max_bytes=64)
_RESULTS = Schema(tuple[NamespaceResult, ...], max_bytes=_RESULT_BYTES)
_LOG_WRITE = Schema(LogWrite, max_bytes=_RESULT_BYTES)
VALUE = Schema(StoredValue, max_bytes=limits.MAP_VALUE_BYTES + 32)
_WRITES = Schema(StoredWrites, max_bytes=_RESULT_BYTES)
_REPLAY = Schema(ReplayBlock, max_bytes=_RESULT_BYTES)


class StateStore:
    """Committed state; implements `ledger.state.StateReader`."""

    def __init__(self, store: KeyValueStore) -> None:
        """Open what was committed.

        Raises: StoreDamagedError when there are records but no tip: this is no new store;
            UnavailableError when another version of Kanglian wrote it, or a join is not finished.
        """
        self._store = store
        self._cache: dict[bytes, bytes | None] = {}
        data = store.get(TIP)
        if data is None:
            if store.get(JOINING) is not None:
                raise UnavailableError(
                    "this node began to join from a snapshot and is not done; start it with "
                    "`snapshot = true` in the table [sync] of its configuration, and it goes on"
                )
            for _ in store.scan(b"", b"\xff", reverse=False):
                raise StoreDamagedError(Store.STATE, "the tip", "it is missing")
        elif (number := store.get(_FORMAT)) != _FORMAT_NUMBER:
            raise UnavailableError(
                f"the state store has format {(number or b'1').decode()}, and this version reads "
                f"format {_FORMAT_NUMBER.decode()} alone: the chain needs the version that wrote it"
            )
        self.tip = None if data is None else _STATE_TIP.decode(data)
        begins = store.get(_BEGINNING)
        self.beginning = 0 if begins is None else int.from_bytes(begins, "big")
        """Up to this height what each block wrote is not kept: 0, or that of a snapshot or pruning.

        The values of the state are, and the roots that the block of this height led to.
        """

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a map key; the most used ones are held in memory."""
        try:
            return self._cache[key]
        except KeyError:
            stored = self.map_value(key)
            value = None if stored is None else stored.value
        if len(self._cache) >= _CACHED_VALUES:
            self._cache.clear()
        self._cache[key] = value
        return value

    def value_keys(self, after: bytes, most: int) -> list[bytes]:
        """The next map keys that were ever written, ascending, behind one of them."""
        return self._keys(b"m", after, most)

    def logs(self, after: bytes, most: int) -> list[bytes]:
        """The next names of logs, ascending, behind one of them."""
        return self._keys(b"c", after, most)

    def _keys(self, kind: bytes, after: bytes, most: int) -> list[bytes]:
        start = kind + after + b"\0" if after else kind
        stop = bytes([kind[0] + 1])
        pairs = islice(self._store.scan(start, stop, reverse=False), most)
        return [key[1:] for key, _ in pairs]

    def places(self, after: bytes, most: int) -> list[tuple[bytes, bytes, bytes]]:
        """The next places: their key, behind which to go on; the namespace; what stands there."""
        keys = self._keys(b"p", after, most)
        return [(key, key[:-_DIGITS], self._store.get(b"p" + key) or b"") for key in keys]

    def map_value(self, key: bytes) -> StoredValue | None:
        """The newest write of a map key, deletions included; never from memory."""
        data = self._store.get(b"m" + key)
        return None if data is None else VALUE.decode(data)

    def written_roots(self) -> list[tuple[int, bytes, bytes]]:
        """Of the newest heights that did not change the state after the first of them."""
        found: list[tuple[int, bytes, bytes]] = []
        newest = -1 if self.tip is None else self.tip.height
        for height in range(newest, self.beginning - 1, -1):
            stored = self.writes(height)
            found.insert(0, (height, stored.namespaces_root, stored.writes_root))
            if stored.maps or stored.logs or len(found) == VERSIONS:
                break
        return found

    def tree_roots(self) -> Iterator[tuple[bytes, bytes]]:
        """The encoded roots of the trees of all namespaces that have been written to."""
        for key, data in self._store.scan(b"z", b"{", reverse=False):
            yield key[1:], data

    def tree_root(self, namespace: bytes, /) -> bytes:
        """The encoded root of the tree of a namespace, empty when there is none."""
        return self._store.get(b"z" + namespace) or b""

    def tree_node(self, namespace: bytes, place: str, /) -> bytes | None:
        """An encoded node of a namespace's tree."""
        return self._store.get(node_key(namespace, place))

    def placed(self, namespace: bytes, place: str) -> Iterator[bytes]:
        """What ever stood at the places that begin with these digits, ascending by place.

        One byte for a map key or a log, and its path; the key may be deleted since.
        """
        first = b"p" + namespace + place.encode()
        for _, data in self._store.scan(first, first + b"g", reverse=False):
            yield data

    def path_at(self, namespace: bytes, place: str) -> bytes | None:
        """The same of one place."""
        return self._store.get(place_key(namespace, place))

    def log_tip(self, log: bytes, /) -> LogTip | None:
        """What a log grows from; None before its first entry."""
        data = self._store.get(b"c" + log)
        return None if data is None else LOG_TIP.decode(data)

    def log_count(self, log: bytes, /) -> int:
        """How many entries a log has."""
        tip = self.log_tip(log)
        return 0 if tip is None else tip.frontier.count

    def log_node(self, log: bytes, level: int, index: int) -> bytes:
        """The hash of a complete subtree of a log.

        Raises: StoreDamagedError when it is missing.
        """
        # A node is complete with its last entry, and is kept with the block that appended that.
        if found := self.log_nodes_holding(log, (index + 1 << level) - 1).node(level, index):
            return found
        where = f"node {level}/{index} of log {log.hex()}"
        raise StoreDamagedError(Store.STATE, where, "it is missing")

    def log_nodes_holding(self, log: bytes, sequence: int) -> "CompletedNodes":
        """The nodes that the block completed which wrote a position.

        Raises: StoreDamagedError when they are missing.
        """
        prefix = b"g" + log
        stop = prefix + (sequence + 1).to_bytes(8, "big")
        for key, data in self._store.scan(prefix + _FIRST, stop, reverse=True):
            return CompletedNodes(int.from_bytes(key[-8:], "big"), data)
        where = f"the nodes of position {sequence} of log {log.hex()}"
        raise StoreDamagedError(Store.STATE, where, "they are missing")

    def log_nodes(self, log: bytes, first_sequence: int) -> bytes | None:
        """The nodes that one block completed in a log, as `pack_rows` made them."""
        return self._store.get(b"g" + log + first_sequence.to_bytes(8, "big"))

    def log_entry(self, log: bytes, sequence: int, /) -> LogEntry | None:
        """The entry at a position."""
        if not 0 <= sequence < self.log_count(log):
            return None
        write = self.log_write_holding(log, sequence)
        return write.entries[sequence - write.first_sequence]

    def log_write_holding(self, log: bytes, sequence: int) -> LogWrite:
        """The appends of the block that wrote a position below the count.

        They are the newest of those that begin at or before it.
        Raises: StoreDamagedError when they are missing.
        """
        prefix = b"l" + log
        stop = prefix + (sequence + 1).to_bytes(8, "big")
        for _, data in self._store.scan(prefix + _FIRST, stop, reverse=True):
            write = _LOG_WRITE.decode(data)
            if sequence < write.first_sequence + len(write.entries):
                return write
            break
        where = f"entry {sequence} of log {log.hex()}"
        raise StoreDamagedError(Store.STATE, where, "it is counted but missing")

    def log_find(self, log: bytes, key: bytes, after: int, limit: int, /) -> list[int]:
        """Ascending positions above `after` of entries with this key."""
        prefix = b"k" + log + key
        found: list[int] = []
        start = prefix + (after + 1).to_bytes(8, "big")
        for position, _ in self._store.scan(start, prefix + _LAST, reverse=False):
            if len(found) == limit:
                break
            if len(position) == len(prefix) + 8:
                found.append(int.from_bytes(position[-8:], "big"))
        return found

    def log_write(self, log: bytes, first_sequence: int) -> LogWrite | None:
        """What one block appended to a log, by the first position."""
        data = self._store.get(b"l" + log + first_sequence.to_bytes(8, "big"))
        return None if data is None else _LOG_WRITE.decode(data)

    def has_log_key(self, log: bytes, key: bytes, sequence: int) -> bool:
        """Whether an entry is found by its key."""
        return self._store.get(b"k" + log + key + sequence.to_bytes(8, "big")) is not None

    def writes(self, height: int) -> StoredWrites:
        """What a block wrote, and the roots that it led to.

        Raises: StoreDamagedError when it is missing.
        """
        data = self._store.get(b"s" + height.to_bytes(8, "big"))
        if data is None:
            raise StoreDamagedError(Store.STATE, f"height {height}", "its writes are missing")
        return _WRITES.decode(data)

    def replay_blocks(self) -> Iterator[ReplayBlock]:
        """What each block of the committed replay window added to it, oldest first."""
        for _, data in self._store.scan(b"w" + _FIRST, b"w" + _LAST, reverse=False):
            yield _REPLAY.decode(data)

    def replay_block(self, height: int) -> ReplayBlock | None:
        """What one block of the window added to it."""
        data = self._store.get(b"w" + height.to_bytes(8, "big"))
        return None if data is None else _REPLAY.decode(data)

    def locate(self, operation_id: bytes) -> Locator | None:
        """Where an operation or transaction id stands."""
        data = self._store.get(b"i" + operation_id)
        return None if data is None else _LOCATOR.decode(data)

    def receipts(self, height: int) -> tuple[NamespaceResult, ...]:
        """All receipts of an executed block, namespaces ascending."""
        data = self._store.get(b"r" + height.to_bytes(8, "big"))
        return () if data is None else _RESULTS.decode(data)

    def history_node(self, level: int, index: int) -> Hash:
        """The hash of a complete subtree of the history log.

        Raises: StoreDamagedError when it is missing.
        """
        data = self._store.get(history_key(level, index))
        if data is None:
            raise StoreDamagedError(Store.STATE, f"history node {level}/{index}", "it is missing")
        return Hash(data)

    def commit(self, done: BlockResults) -> None:
        """Make one executed block durable, all or nothing. Heights have no gaps."""
        tip = done.tip
        expected = 0 if self.tip is None else self.tip.height + 1
        invariant(tip.height == expected, f"state {tip.height} does not follow {expected - 1}")
        height = tip.height.to_bytes(8, "big")
        maps, logs = done.writes.maps, done.writes.logs
        batch: list[Write] = [
            (b"m" + key, encode(StoredValue(tip.height, value))) for key, value in maps
        ]
        for write, grown in zip(logs, done.tree.logs, strict=True):
            batch.extend(log_writes(write, grown))
        batch += [(node_key(name, place), node) for name, place, node in done.tree.nodes]
        batch += [(b"z" + name, root) for name, root in done.tree.roots]
        batch += [(place_key(name, place), path) for name, place, path in done.tree.placed]
        batch += [(b"i" + operation_id, encode(locator)) for operation_id, locator in done.located]
        batch += [(history_key(node.level, node.index), node.hash) for node in done.history]
        firsts = tuple((write.log, write.first_sequence) for write in logs)
        roots = done.tree.namespaces_root, done.tree.writes_root
        batch.append((b"s" + height, encode(StoredWrites(maps, firsts, *roots))))
        if done.receipts:
            batch.append((b"r" + height, encode(done.receipts)))
        if done.replay.namespaces:
            batch.append((b"w" + height, encode(done.replay)))
        batch += [(b"w" + gone.to_bytes(8, "big"), None) for gone in done.forgotten]
        if self.tip is None:
            batch.append((_FORMAT, _FORMAT_NUMBER))
        batch.append((TIP, encode(tip)))
        self._store.write(batch)
        for key, value in maps:
            if key in self._cache:
                self._cache[key] = value
        self.tip = tip

    def prune(self, beginning: int) -> None:
        """Forget in one write what the blocks up to a height wrote, and their receipts.

        Where their ids stand is kept, so that who asks is told that the block was pruned.
        """
        writes: list[Write] = []
        for height in range(self.beginning, beginning):
            writes.append((b"s" + height.to_bytes(8, "big"), None))
            writes.append((b"r" + (height + 1).to_bytes(8, "big"), None))
        writes.append((_BEGINNING, beginning.to_bytes(8, "big")))
        self._store.write(writes)
        self.beginning = beginning

    def close(self) -> None:
        """Release the store."""
        self._store.close()


class HistoryNodes:
    """The history of block hashes as a store keeps it; implements `ledger.history.NodeReader`."""

    def __init__(self, state: StateStore) -> None:
        self._state = state

    def get(self, level: int, index: int, /) -> bytes:
        """The hash of a complete node. Raises: StoreDamagedError."""
        return self._state.history_node(level, index)


def first_writes(beginning: int, tip: StateTip) -> list[Write]:
    """What makes records that are complete a store which begins with a height."""
    begins = beginning.to_bytes(8, "big")
    return [(_BEGINNING, begins), (_FORMAT, _FORMAT_NUMBER), (TIP, encode(tip))]


def history_key(level: int, index: int) -> bytes:
    """Where a node of the history stands."""
    return b"y" + bytes([level]) + index.to_bytes(8, "big")


def pack_rows(rows: Sequence[Sequence[bytes]]) -> bytes:
    """The number of entries, and the nodes that they completed, level by level."""
    return len(rows[0]).to_bytes(_COUNT_BYTES, "big") + b"".join(chain.from_iterable(rows))


def node_key(namespace: bytes, place: str) -> bytes:
    """Where a node of a namespace's tree stands."""
    return b"a" + namespace + place.encode()


def place_key(namespace: bytes, place: str) -> bytes:
    """Where the path of a place stands."""
    return b"p" + namespace + place.encode()


def log_writes(write: LogWrite, grown: GrownLog) -> list[Write]:
    """What the store keeps of entries that were appended to a log."""
    first, log = write.first_sequence, write.log
    start = first.to_bytes(8, "big")
    writes: list[Write] = [
        (b"c" + log, encode(grown.tip)),
        (b"l" + log + start, encode(write)),
        (b"g" + log + start, pack_rows(grown.rows)),
    ]
    prefix = b"k" + log
    writes += [
        (prefix + entry.key + position.to_bytes(8, "big"), b"")
        for position, entry in enumerate(write.entries, first)
    ]
    return writes
