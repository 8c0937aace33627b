"""The snapshots that a running node serves: which heights it holds, and answers out of them.

What it decides: which views of the state store are open. One of the newest height and one of the
height before it always are, since a header certifies a state only when the next block is there; of
these, every SNAPSHOT_INTERVAL heights one is kept, so that all nodes have the same; and one when
somebody asks and none is kept. What it never does: check an answer; who asks does.
Serving takes at most half of the time: it rests as long as it worked.
Source: docs/decisions/0039-snapshots.md.
"""

from dataclasses import dataclass

import trio

from ledger.snapshot import Item, Kind
from ledger.store.port import KeyValueStore
from ledger.store.results import StateStore
from ledger.store.snapshot_source import SnapshotSource
from node import limits
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.executor import DecidedBlock
from node.wire import SnapshotPart, SnapshotRequest


@dataclass(slots=True, eq=False)
class _View:
    """An open view of the state after a height."""

    height: int
    store: KeyValueStore
    taken_ms: int
    source: SnapshotSource | None = None
    window: bytes = b""
    used_ms: int = 0
    readers: int = 0


class Snapshots:
    """The views of one state store. `close` before the store."""

    def __init__(self, writer: ChainWriter, store: KeyValueStore, clock: Clock) -> None:
        self._writer = writer
        self._store = store
        self._clock = clock
        self._kept: list[_View] = []
        self._before: _View | None = None
        self._newest = self._open()
        self._last: tuple[int, Item, bytes] | None = None
        self._turn = trio.Lock()
        writer.on_block(self._on_block)

    @property
    def heights(self) -> list[int]:
        """The heights that are served, ascending."""
        return [view.height for view in self._kept]

    def _open(self) -> _View:
        height = self._writer.tip.height
        return _View(height, self._store.snapshot(), self._clock.now_ms())

    def _on_block(self, _block: DecidedBlock) -> None:
        before, self._before = self._before, self._newest
        self._newest = self._open()
        if before is not None and before not in self._kept:
            before.store.close()
        if self._before.height % limits.SNAPSHOT_INTERVAL == 0:
            self._keep(self._before)

    def _keep(self, view: _View) -> None:
        """Serve a height from now on, and none that is too old or one too many."""
        if not view.height:
            return  # genesis needs no snapshot
        view.used_ms = self._clock.now_ms()
        self._kept.append(view)
        self._forget()

    def _forget(self) -> None:
        now = self._clock.now_ms()
        for view in list(self._kept):
            if now - view.taken_ms > limits.SNAPSHOT_AGE_MS and not view.readers:
                self._drop(view)
        while len(self._kept) > limits.SNAPSHOT_VIEWS:
            idle = [view for view in self._kept[:-1] if not view.readers]
            if not idle:
                return
            unused = [one for one in idle if now - one.used_ms > limits.SNAPSHOT_IN_USE_MS]
            self._drop((unused or idle)[0])

    def _drop(self, view: _View) -> None:
        self._kept.remove(view)
        if view is not self._before:
            view.store.close()

    async def part(self, request: SnapshotRequest) -> SnapshotPart:
        """What is asked for, a part of it at most; nothing when it is not here.

        Raises: StoreDamagedError.
        """
        view = self._find(request.height)
        if view is None:
            return SnapshotPart(request.height, 0, b"")
        view.used_ms = self._clock.now_ms()
        view.readers += 1
        try:
            async with self._turn:
                data = await self._item(view, request.item)
        finally:
            view.readers -= 1
        end = request.offset + limits.SNAPSHOT_PART_BYTES
        return SnapshotPart(view.height, len(data), data[request.offset : end])

    def _find(self, height: int) -> _View | None:
        self._forget()
        if not height and not self._kept and self._before is not None:
            self._keep(self._before)
        known = [view for view in self._kept if height in (0, view.height)]
        return known[-1] if known else None

    async def _item(self, view: _View, item: Item) -> bytes:
        """An item, one at a time whoever asks.

        The last one is remembered, because a large one is asked for part by part, and so is the
        window, which is the dearest.
        """
        is_window = item.kind == Kind.WINDOW
        if is_window and view.window:
            return view.window
        if self._last is not None and self._last[:2] == (view.height, item):
            return self._last[2]
        if view.source is None:
            writer = self._writer
            state = StateStore(view.store)
            view.source = SnapshotSource(
                writer.chain.suite.digest, state, writer.blocks, writer.history
            )
        steps = view.source.item(item)
        while True:
            began = trio.current_time()
            try:
                next(steps)
            except StopIteration as end:
                data = end.value or b""
                break
            await trio.sleep(trio.current_time() - began)
        if is_window:
            view.window = data
        else:
            self._last = (view.height, item, data)
        return data

    def close(self) -> None:
        """Close all views; nothing is served any more."""
        views = {id(view): view for view in (*self._kept, self._before, self._newest) if view}
        for view in views.values():
            view.store.close()
        self._kept, self._before = [], None
