"""A computer with one node: its disk outlives the node, which dies at any await and starts again.

The node is `node.node.RunningNode` as it serves; everything it takes from the machine is simulated.
Two deaths. A cancelled process: its tasks unwind, everything it wrote stays. A power cut: nothing
it does from that moment on reaches the disk or the network, and of what was not synced the cut
keeps all, nothing or some sectors.
"""

import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from ledger.addresses import AddressKind, encode_text
from ledger.crypto.keys import KeyType, public_key
from ledger.ids import Address
from ledger.limits import MIB
from ledger.store.bodies import BodyFiles
from ledger.store.results import StateStore
from node.config import NodeConfig, NodeSection, P2pSection, PeerAddress, RpcSection, TlsSection
from node.joining import SnapshotJoin, may_join
from node.keystore import LoadedKey, PublicHalf
from node.node import RunningNode
from node.ports import Ports
from p2p.transport import Transport
from tests.crash.disk import DATA, History, Image, OpenFile, RecordingDisk, RecordingStore, Wreck
from tests.unit.node_core.chains import (
    GENESIS,
    NEWCOMERS,
    NODE_SECRETS,
    TIME,
    VALIDATORS,
    node_name,
)

from .network import PORT, host_of
from .scheduler import OWNER

FOLDER = Path("/simulated/data")
NOWHERE = Path("/simulated/nowhere")
LOG = FOLDER / "consensus.wal"
BODIES = FOLDER / "bodies"
NAMES = (
    *(Address(member.address) for member in VALIDATORS.members),
    *(node_name(name) for name in NEWCOMERS),
)
"""The validators of genesis, then nodes that may be voted in."""
KEPT = tuple(DATA)


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


class Store(RecordingStore):
    """Implements `ledger.store.port.KeyValueStore`; each write is whole and durable at once."""

    is_open = False

    def close(self) -> None:
        self.is_open = False


class Followed(History):
    """A history that is not kept: the wreck follows it."""

    def __init__(self, wreck: Wreck) -> None:
        super().__init__()
        self.wreck = wreck

    def add(self, *operation: Any) -> None:
        self.wreck.follow(operation)


class Storage:
    """The files and pairs of a machine, as a power cut left them or empty."""

    def __init__(self, image: Image | None = None) -> None:
        self.wreck = Wreck()
        history = Followed(self.wreck)
        self.files = Disk(history, None if image is None else image.files)
        self.blocks, self.state = Store(history, "blocks"), Store(history, "state")
        for name, store in ({} if image is None else image.stores).items():
            target = self.blocks if name == "blocks" else self.state
            target.write(list(store.scan(b"", b"\xff" * 64, reverse=False)))

    @property
    def left_open(self) -> list[Any]:
        """What a process has not closed."""
        stores = [store.name for store in (self.blocks, self.state) if store.is_open]
        return self.files.open_files + stores


class MachineClock:
    """Implements `node.clock.Clock`: trio's time from TIME on, shifted by what people set."""

    def __init__(self, skew_ms: int) -> None:
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return TIME + 1_000 + self.skew_ms + round(trio.current_time() * 1_000)


@dataclass
class Usage:
    """Implements `node.disk_space.Usage`."""

    total: int = 10_240 * MIB
    free: int = 10_240 * MIB


def config_of(index: int, nodes: int) -> NodeConfig:
    """The configuration of one of so many nodes; those beyond genesis wait to be voted in."""
    peers = tuple(
        PeerAddress(encode_text(AddressKind.NODE, NAMES[other]), host_of(other), PORT)
        for other in range(nodes)
        if other != index
    )
    is_joining = index >= len(VALIDATORS.members)
    return NodeConfig(
        node=NodeSection(host_of(index), NOWHERE, FOLDER, NOWHERE, joining=is_joining),
        tls=TlsSection(NOWHERE, NOWHERE, NOWHERE),
        p2p=P2pSection(host_of(index), PORT, peers),
        rpc=RpcSection("nowhere", PORT),
    )


def key_of(address: Address) -> LoadedKey:
    """The key of a node."""
    secret, kind = NODE_SECRETS[address], KeyType.SECP256K1
    text = encode_text(AddressKind.NODE, address)
    return LoadedKey(secret, PublicHalf(AddressKind.NODE, kind, public_key(kind, secret), text))


class Machine:
    """One node and its disk."""

    def __init__(
        self,
        index: int,
        config: NodeConfig,
        clock: MachineClock,
        rng: random.Random,
        watch: Callable[["Machine"], None],
    ) -> None:
        """`watch` is called with every new node, before it runs."""
        self.index = index
        self.address = NAMES[index]
        self.clock = clock
        self.usage = Usage()
        self.storage = Storage()
        self.transport: Transport | None = None
        self.streams: list[Any] = []
        self.listeners: list[Any] = []
        self.node: RunningNode | None = None
        self.is_up = False
        self.is_doomed = False
        """Whether its death is planned already."""
        self.life = 0
        self.ended = trio.Event()
        self.config = config
        self._rng = rng
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

    def _open(self) -> Ports:
        """As a new process does it."""
        storage = self.storage
        storage.blocks.is_open = storage.state.is_open = True
        return Ports(
            clock=self.clock,
            transport=self.transport,
            state=storage.state,
            blocks=storage.blocks,
            bodies=BodyFiles(BODIES, storage.files),
            disk=storage.files,
            usage=lambda _folder: self.usage,
            jitter=self._rng.random,
            random_bytes=self._rng.randbytes,
        )

    async def _make(self) -> RunningNode:
        """The node, once it has joined from a snapshot if it is to; as `rpc/daemon.py` does it."""
        ports, key, is_ready = self._open(), key_of(self.address), False
        try:
            if may_join(self.config, ports):
                await SnapshotJoin(self.config, GENESIS, key, ports).run()
            is_ready = True
        finally:
            if not is_ready:
                ports.close()
        return RunningNode(self.config, GENESIS, key, ports)

    async def live(self, changed: Callable[["Machine"], None]) -> None:
        """One life: open, run, die; `changed` is called when the node is up and when it is not."""
        OWNER.set(self.index)
        self.life += 1
        try:
            with self._scope:
                self.node = node = await self._make()
                self._watch(self)
                async with trio.open_nursery() as nursery:
                    await nursery.start(node.run)
                    self._nursery, self.is_up = nursery, True
                    changed(self)
        finally:
            self.is_up = False
            changed(self)
            self._end()
            self.ended.set()

    def _end(self) -> None:
        if self._image is not None:
            self.storage = Storage(self._image)
        left = [*self.storage.left_open, *self.streams, *self.listeners]
        if left:
            raise AssertionError(f"node {self.index} left {left} open")
        self.node = None

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
        self._image = self.storage.wreck.image(kept, names=names)
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

    @property
    def has_power(self) -> bool:
        """Whether it answers those who call, if only to say that nobody listens."""
        return not self._is_muted

    @property
    def state(self) -> StateStore:
        """What it has executed, whether its node runs or not."""
        return StateStore(self.storage.state)

    @property
    def tip(self) -> Any:
        """Its newest executed block, None before it was started."""
        return self.state.tip

    def jump(self, by_ms: int) -> None:
        """The clock of the machine is set."""
        self.clock.skew_ms += by_ms
