"""The items of a snapshot, read from a view of a state store that no later block changes.

What it decides: how a tree is cut: a subtree with few keys is told whole, a larger one as its node.
What it never does: check what it reads; whoever asked does.
Source: docs/decisions/0039-snapshots.md.
"""

from collections.abc import Generator

from ledger.block import BLOCK
from ledger.codec import encode
from ledger.errors import Store, StoreDamagedError
from ledger.history import NodeReader, path_to_node
from ledger.light.trust import LightBlock
from ledger.membership import ValidatorHistory
from ledger.merkle import Digest
from ledger.replay import ENTRIES_TAG, SPAN_MS
from ledger.snapshot import (
    RUN_ENTRIES,
    RUN_LEVEL,
    SNAPSHOT_BYTES,
    SNAPSHOT_KEYS,
    Item,
    Kind,
    NamespaceRoot,
    PlacedValue,
    RunItem,
    SnapshotHead,
    SubtreeItem,
    WindowBlock,
    WindowEntries,
)
from ledger.state import LogEntry, LogWrite
from ledger.state_root import LOG
from ledger.store.blocks import BlockStore, DecidedHeader
from ledger.store.results import StateStore, StateTip

# So many times the keys of a subtree are looked at where most were deleted.
_DELETED = 4
_STEP_KEYS = 64
"""Keys looked up between two looks at an event loop: about 0.7 ms."""

Steps = Generator[None, None, bytes | None]


class SnapshotSource:
    """One view of the state after a height, for as long as the view is open."""

    def __init__(
        self, digest: Digest, state: StateStore, blocks: BlockStore, history: ValidatorHistory
    ) -> None:
        """`state` is over a view, the others are of the running node."""
        tip = state.tip
        if tip is None:
            raise StoreDamagedError(Store.STATE, "the tip", "a view has none")
        self._digest = digest
        self._state = state
        self._blocks = blocks
        self._history = history
        self._tip: StateTip = tip
        self._last: LogWrite | None = None

    @property
    def height(self) -> int:
        """The height whose state this is."""
        return self._tip.height

    def item(self, item: Item) -> Steps:
        """The bytes of an item, in steps; None when there is no such item.

        Raises: StoreDamagedError.
        """
        match Kind(item.kind):
            case Kind.HEAD:
                return self._head()
            case Kind.NAMESPACES:
                return self._namespaces()
            case Kind.SUBTREE:
                return self._subtree(item.name, item.place)
            case Kind.RUN:
                return self._run(item.name, item.index)
            case Kind.WINDOW:
                return self._window()
            case Kind.ENTRIES:
                return self._entries(item.index)

    def _head(self) -> Steps:
        height, blocks = self.height, self._blocks
        header, following = blocks.decided(height), blocks.block(height + 1)
        before = blocks.decided(height - 1)
        if header is None or following is None or (before is None and height > 1):
            return None
        block = BLOCK.decode(following.block)
        changes: list[LightBlock] = []
        for first in self._history.changes(height + 1):
            change = blocks.decided(first - 1)
            if change is None:
                raise StoreDamagedError(Store.BLOCKS, f"height {first - 1}", "no header is kept")
            changes.append(self._light(first - 1, change))
            yield
        stored = self._state.writes(height)
        head = SnapshotHead(
            changes=tuple(changes),
            before=b"" if before is None else before.header,
            header=header.header,
            certificate=block.certificate,
            following=self._light(height + 1, DecidedHeader(block.header, following.certificate)),
            namespaces_root=stored.namespaces_root,
            writes_root=stored.writes_root,
            history=self._tip.history,
            transactions=self._tip.transactions,
            operations=self._tip.operations,
        )
        return encode(head)

    def _light(self, height: int, decided: DecidedHeader) -> LightBlock:
        after = self._history.at(height + 1)
        is_change = after != self._history.at(height)
        return LightBlock(decided.header, decided.certificate, after.members if is_change else ())

    def _namespaces(self) -> Steps:
        yield
        found = [NamespaceRoot(name, root) for name, root in self._state.tree_roots() if root]
        return encode(found)

    def _subtree(self, namespace: bytes, place: str) -> Steps:
        if not self._state.tree_root(namespace):
            return None
        leaves: list[PlacedValue] = []
        size = 0
        for seen, path in enumerate(self._state.placed(namespace, place), 1):
            if seen % _STEP_KEYS == 0:
                yield
            value = self._value(namespace, path)
            if value is not None:  # else it was deleted
                leaves.append(PlacedValue(path, value))
                size += len(path) + len(value)
            is_much = max(len(leaves), seen // _DELETED) > SNAPSHOT_KEYS or size > SNAPSHOT_BYTES
            if len(leaves) > 1 and is_much:
                node = self._state.tree_node(namespace, place)
                return None if node is None else encode(SubtreeItem(node, ()))
        return encode(SubtreeItem(b"", tuple(leaves))) if leaves else None

    def _value(self, namespace: bytes, path: bytes) -> bytes | None:
        key = namespace + path[1:]
        if path[:1] == LOG:
            tip = self._state.log_tip(key)
            return None if tip is None else encode(tip.head(self._digest))
        stored = self._state.map_value(key)
        return None if stored is None else stored.value

    def _run(self, log: bytes, index: int) -> Steps:
        count, first = self._state.log_count(log), index * RUN_ENTRIES
        if first >= count:
            return None
        entries: list[LogEntry] = []
        stop = min(first + RUN_ENTRIES, count)
        while first < stop:
            write = self._write_at(log, first)
            entries += write.entries[first - write.first_sequence : stop - write.first_sequence]
            first = write.first_sequence + len(write.entries)
            yield
        path = path_to_node(_LogNodes(self._state, log), self._digest, RUN_LEVEL, index, count)
        return encode(RunItem(tuple(entries), path))

    def _write_at(self, log: bytes, position: int) -> LogWrite:
        """What a block appended around a position: many runs lie in what one block appended."""
        last = self._last
        behind = 0 if last is None else last.first_sequence + len(last.entries)
        if last is None or last.log != log or not last.first_sequence <= position < behind:
            last = self._last = self._state.log_write_holding(log, position)
        return last

    def _window(self) -> Steps:
        blocks: list[WindowBlock] = []
        for block in self._state.replay_blocks():
            added = [
                WindowEntries(
                    item.module,
                    item.level,
                    item.count,
                    self._digest(ENTRIES_TAG + item.entries),
                )
                for item in block.namespaces
            ]
            blocks.append(WindowBlock(block.height, block.time // SPAN_MS, tuple(added)))
            yield
        return encode(blocks)

    def _entries(self, height: int) -> Steps:
        yield
        block = self._state.replay_block(height)
        return None if block is None else encode(block.namespaces)


class _LogNodes(NodeReader):
    """The stored nodes of a log."""

    def __init__(self, state: StateStore, log: bytes) -> None:
        self._state = state
        self._log = log

    def get(self, level: int, index: int, /) -> bytes:
        return self._state.log_node(self._log, level, index)
