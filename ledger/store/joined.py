"""A state store that is filled from a snapshot: checked pieces in, the tip last.

What it decides: which pieces are here already, so that an interrupted join goes on; and that a
store is no state before it is whole: keys that begin with `j` mark a join in progress, and the one
write that adds the tip takes them away. What it never does: check a piece (ledger/snapshot.py).
Marks: `j` the head, `js` subtrees with the logs in them, `jw` entries of the replay window.
Source: docs/decisions/0039-snapshots.md.
"""

from collections.abc import Sequence
from itertools import islice

from ledger.block import empty_root
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import invariant
from ledger.history import EMPTY_FRONTIER, history_entry
from ledger.ids import GenesisHash
from ledger.limits import MIB
from ledger.membership import is_pending
from ledger.merkle import leaf_hash
from ledger.replay import ReplayBlock
from ledger.snapshot import RUN_ENTRIES, SUBTREE_BYTES, Base, Subtree
from ledger.sparse import Child
from ledger.state import LogEntry, LogWrite
from ledger.state_root import LOG, LOG_TIP, MAP, LogHead, LogTip
from ledger.state_tree import GrownLog
from ledger.store.port import KeyValueStore, Write
from ledger.store.results import (
    JOINING,
    TIP,
    VALUE,
    StateTip,
    StoredValue,
    StoredWrites,
    first_writes,
    history_key,
    log_writes,
    node_key,
    place_key,
)
from ledger.tree_node import encode_child, encode_node

_SUBTREE = JOINING + b"s"
_ENTRIES = JOINING + b"w"
_LAST = JOINING + b"\xff"
_END = b"\xff" * 64
# So much waits for one synced write: about 40 ms each, a hundred times for a million keys.
_WRITE_BYTES = 2 * MIB
_WIPED = 5_000


class FoundLog(Record, frozen=True):
    """A log and its head, as a subtree showed them."""

    log: bytes
    head: LogHead


_LOGS = Schema(tuple[FoundLog, ...], max_bytes=2 * SUBTREE_BYTES)


class JoinedState:
    """The state store of a node that joins."""

    def __init__(self, store: KeyValueStore, suite: CryptoSuite) -> None:
        """`store` holds nothing, or a join that was begun."""
        invariant(store.get(TIP) is None, "a state that is whole is not joined again")
        self._store = store
        self._suite = suite
        self._waiting: list[Write] = []
        self._waiting_bytes = 0

    @property
    def head(self) -> bytes | None:
        """The head of the snapshot that was begun and is not done."""
        return self._store.get(JOINING)

    def begin(self, base: Base) -> None:
        """Go on with this snapshot, or forget another one and begin with it.

        Raises: UnavailableError.
        """
        if self.head == base.encoded:
            return
        self._waiting, self._waiting_bytes = [], 0
        # The mark goes first and comes first: there is never a record without it.
        self._store.write([(JOINING, b"")])
        after = b""
        while keys := self._some_keys(after):
            self._store.write([(key, None) for key in keys if key != JOINING])
            after = keys[-1] + b"\0"
        self._store.write([(JOINING, base.encoded)])

    def _some_keys(self, start: bytes) -> list[bytes]:
        # Each time from where the last one ended: what is deleted is not passed over again.
        return [key for key, _ in islice(self._store.scan(start, _END, reverse=False), _WIPED)]

    def logs_below(self, namespace: bytes, place: str) -> Sequence[FoundLog] | None:
        """The logs of a subtree whose leaves are here; None when it is not here."""
        data = self._store.get(_SUBTREE + place_key(namespace, place))
        return None if data is None else _LOGS.decode(data)

    def put_subtree(
        self, namespace: bytes, place: str, found: Subtree, height: int
    ) -> Sequence[FoundLog]:
        """Keep a checked subtree; the logs in it."""
        logs = tuple(FoundLog(namespace + path, head) for _, path, head in found.logs)
        writes: list[Write] = [
            (node_key(namespace, where), encode_node(node)) for where, node in found.nodes.items()
        ]
        for where, path, value in found.values:
            writes.append((b"m" + namespace + path, encode(StoredValue(height, value))))
            writes.append((place_key(namespace, where), MAP + path))
        writes += [(place_key(namespace, where), LOG + path) for where, path, _ in found.logs]
        if not found.children:
            writes.append((_SUBTREE + place_key(namespace, place), encode(logs)))
        self._keep(writes)
        return logs

    def put_run(
        self, log: FoundLog, tip: LogTip | None, entries: Sequence[LogEntry], leaves: list[bytes]
    ) -> LogTip:
        """Keep the next run of a log, of which `tip` is here; its new tip."""
        before = EMPTY_FRONTIER if tip is None else tip.frontier
        first = before.count
        invariant(first % RUN_ENTRIES == 0, "runs follow one another")
        frontier, rows = before.extend(self._suite.digest, leaves)
        grown = GrownLog(log.log, LogTip(log.head.height, frontier), first, rows)
        self._keep(log_writes(LogWrite(log.log, first, tuple(entries)), grown))
        return grown.tip

    def tip_of(self, log: bytes) -> LogTip | None:
        """What a log that is here in part goes on from."""
        data = self._store.get(b"c" + log)
        return None if data is None else LOG_TIP.decode(data)

    def has_entries(self, height: int) -> bool:
        """Whether the entries of a block of the replay window are here."""
        return self._store.get(_ENTRIES + height.to_bytes(8, "big")) is not None

    def put_entries(self, block: ReplayBlock) -> None:
        """Keep what a block added to the replay window."""
        height = block.height.to_bytes(8, "big")
        self._keep([(b"w" + height, encode(block)), (_ENTRIES + height, b"")])

    def _keep(self, writes: Sequence[Write]) -> None:
        self._waiting += writes
        self._waiting_bytes += sum(len(key) + len(value or b"") for key, value in writes)
        if self._waiting_bytes > _WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """Make everything durable that was put."""
        if self._waiting:
            self._store.write(self._waiting)
        self._waiting, self._waiting_bytes = [], 0

    def finish(
        self, base: Base, roots: Sequence[tuple[bytes, Child]], genesis_hash: GenesisHash
    ) -> StateTip:
        """All pieces are here: make the store the state after the height, in one write."""
        self.flush()
        head, header, following = base.head, base.header, base.following
        has_batches = header.batches_root != empty_root(self._suite)
        tip = StateTip(
            height=base.height,
            block_hash=base.block_hash,
            time=header.time,
            state_root=following.state_root,
            receipts_root=following.receipts_root,
            replay_root=following.replay_root,
            history=head.history,
            must_follow=has_batches or is_pending(self._value, base.height),
            transactions=head.transactions,
            operations=head.operations,
        )
        writes: list[Write] = [(b"z" + name, encode_child(root)) for name, root in roots]
        writes.append(
            (history_key(0, 0), leaf_hash(self._suite.digest, history_entry(genesis_hash)))
        )
        count = head.history.count
        levels = [level for level in range(count.bit_length()) if count >> level & 1]
        writes += [
            (history_key(level, (count >> level) - 1), peak)
            for level, peak in zip(reversed(levels), head.history.peaks, strict=True)
        ]
        stored = StoredWrites((), (), head.namespaces_root, head.writes_root)
        writes.append((b"s" + base.height.to_bytes(8, "big"), encode(stored)))
        writes += [(key, None) for key, _ in self._store.scan(JOINING, _LAST, reverse=False)]
        writes += first_writes(base.height, tip)
        self._store.write(writes)
        return tip

    def _value(self, key: bytes) -> bytes | None:
        data = self._store.get(b"m" + key)
        return None if data is None else VALUE.decode(data).value
