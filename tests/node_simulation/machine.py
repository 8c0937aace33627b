"""A computer with one node: its disk outlives the node, which dies at any await and starts again.

Two deaths. A cancelled process: its tasks unwind, everything it wrote stays. A power cut: nothing
it does from that moment on reaches the disk or the network, and of what was not synced the cut
keeps all, nothing or some sectors.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from ledger.store.bodies import BodyFiles
from tests.crash.disk import DATA, History, Image, OpenFile, RecordingDisk, RecordingStore, Wreck
from tests.unit.node_core.chains import LocalChain
from tests.unit.node_core.memory_network import NAMES, OPENED, MemoryNode

from .scheduler import OWNER

FOLDER = Path("data")
LOG = FOLDER / "consensus.wal"


class CountedFile(OpenFile):
    """Knows whether it was closed."""

    def __init__(self, disk: "Disk", file: OpenFile) -> None:
        super().__init__(file.history, file.number, file.data)
        self._disk = disk
        disk.open_files.append(self)

    def close(self) -> None:
        self._disk.open_files.remove(self)


class Disk(RecordingDisk):
    """Implements `ledger.store.disk.Disk`; counts what is open."""

    def __init__(self, history: History, files: dict[Path, bytes] | None = None) -> None:
        super().__init__(history, files)
        self.open_files: list[CountedFile] = []

    def open(self, path, *, writing):
        return CountedFile(self, super().open(path, writing=writing))


class Followed(History):
    """A history that is not kept: the wreck follows it."""

    def __init__(self, wreck: Wreck) -> None:
        super().__init__()
        self.wreck = wreck

    def add(self, *operation: Any) -> None:
        self.wreck.follow(operation)


class Chain(LocalChain):
    """The stores of a machine, on the files and pairs that a power cut left."""

    def __init__(self, image: Image | None = None) -> None:
        self.wreck = Wreck()
        history = Followed(self.wreck)
        self.files = Disk(history, None if image is None else image.files)
        super().__init__(BodyFiles(FOLDER / "bodies", self.files))
        self.block_data = RecordingStore(history, "blocks")
        self.state_data = RecordingStore(history, "state")
        for name, store in ({} if image is None else image.stores).items():
            target = self.block_data if name == "blocks" else self.state_data
            target.write(list(store.scan(b"", b"\xff" * 64, reverse=False)))
        self.open()

    def reopen(self) -> None:
        """As a new process opens them."""
        if self.bodies is None:
            self.bodies = BodyFiles(FOLDER / "bodies", self.files)

    def shut(self) -> None:
        """As the end of a process leaves them."""
        self.bodies.close()
        self.bodies = None


class Machine:
    """One node and its disk."""

    def __init__(self, index: int, skew_ms: int, watch: Callable[["Machine"], None]) -> None:
        """`watch` is called with every new node, before it runs."""
        self.index = index
        self.address = NAMES[index]
        self.skew_ms = skew_ms
        self.chain = Chain()
        self.node: MemoryNode | None = None
        self.is_up = False
        self.is_doomed = False
        """Whether its death is planned already."""
        self.life = 0
        self.ended = trio.Event()
        self._watch = watch
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._image: Image | None = None
        self._is_muted = False

    def renew(self) -> None:
        """Forget the last death; `live` follows."""
        self.ended, self._scope = trio.Event(), trio.CancelScope()
        self._is_muted, self._image = False, None
        self.is_doomed = False

    async def live(self, changed: Callable[["Machine"], None]) -> None:
        """One life: open, run, die; `changed` is called when the node is up and when it is not."""
        OWNER.set(self.index)
        self.life += 1
        self.chain.reopen()
        skew_ms = self.skew_ms + round(trio.current_time() * 1_000)
        self.node = node = MemoryNode(
            self.index, self.chain, LOG, skew_ms=skew_ms, files=self.chain.files
        )
        OPENED.remove(node.log)
        self._watch(self)
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(node.run)
                    nursery.start_soon(self._expire, node)
                    self._nursery, self.is_up = nursery, True
                    changed(self)
        finally:
            self.is_up = False
            changed(self)
            self._end(node)
            self.ended.set()

    def _end(self, node: MemoryNode) -> None:
        node.log.close()
        self.chain.shut()
        if self._image is not None:
            self.chain = Chain(self._image)
        elif self.chain.files.open_files:
            raise AssertionError(f"node {self.index} left {self.chain.files.open_files} open")
        self.node = None

    async def _expire(self, node: MemoryNode) -> None:
        """As `node.node` does once a second."""
        while True:
            await trio.sleep(1)
            for _ in node.mempool.expire(node.disk.tip.time):
                await trio.lowlevel.checkpoint()
            node.pool.expire(node.disk.tip.time, node.candidates.ordered)

    def spawn(self, work: Callable[..., Awaitable[None]], *arguments: Any) -> None:
        """Start a task of this node, which dies with it."""
        token = OWNER.set(self.index)
        self._nursery.start_soon(work, *arguments)
        OWNER.reset(token)

    def cancel(self) -> None:
        """The process is told to end."""
        self._scope.cancel()

    def cut_power(self, kept: str, *, names: bool) -> None:
        """Nothing that the node does from here on has happened."""
        self._image = self.chain.wreck.image(kept, names=names)
        self._is_muted = True
        self._scope.cancel()

    @property
    def is_dying(self) -> bool:
        """Whether it was told to end."""
        return self._scope.cancel_called

    @property
    def speaks(self) -> bool:
        """Whether what the node does can be seen outside."""
        return not self._is_muted

    def jump(self, by_ms: int) -> None:
        """The clock of the machine is set."""
        self.skew_ms += by_ms
        if self.node is not None:
            self.node.clock.skew_ms += by_ms


KEPT = tuple(DATA)
