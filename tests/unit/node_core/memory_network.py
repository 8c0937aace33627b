"""Whole nodes without sockets: real driver, router, sync and log, a fake network, trio's clock.

A node's disk (stores and the log file) outlives the node, so that it can be shut down at any moment
and opened again. Frames go through `encode_frame`, so its limits hold here as on a wire.
"""

from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from consensus.core import Core
from consensus.timeouts import Timeouts
from ledger.ids import Address, ValidatorIndex
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk
from ledger.transaction import Transaction
from node.admission import Admission
from node.batch_maker import BatchMaker, resumed_author
from node.batches import BatchPool
from node.candidates import Candidates
from node.disk_space import DiskSpace
from node.driver import ConsensusDriver
from node.driver_parts import BatchArrived, Collaborators
from node.mempool import Mempool
from node.metrics import Metrics
from node.quarantine import open_log
from node.router import Router
from node.stages import StageClock
from node.sync import BlockSync
from node.wal import WriteAheadLog
from p2p.frames import FrameKind, FrameReader, encode_frame
from tests.unit.ledger.worlds import SUITE

from .chains import PARAMETERS, TIME, VALIDATORS, LocalChain, secret_of

OPENED: list[WriteAheadLog] = []
"""Logs of nodes that did not run to their end; the fixture closes them."""
NAMES = tuple(Address(member.address) for member in VALIDATORS.members)


class TrioClock:
    """The wall clock of a test: trio's, from TIME on, shifted by `skew_ms`."""

    def __init__(self, skew_ms: int = 0) -> None:
        self._start = trio.current_time()
        self.skew_ms = skew_ms

    def now_ms(self) -> int:
        return TIME + 1_000 + self.skew_ms + round((trio.current_time() - self._start) * 1_000)


class MemoryPeer:
    """What a router sees of a link; frames go to `deliver`."""

    def __init__(self, address: Address, deliver: Callable[[FrameKind, bytes], None]) -> None:
        self.address = address
        self._deliver = deliver

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        frame = encode_frame(kind, payload)
        for found, data in FrameReader().feed(frame):
            self._deliver(found, data)
        return True


class MemoryNode:
    """One validator; make it and `run` it inside trio."""

    def __init__(
        self,
        index: int,
        disk: LocalChain,
        path: Path,
        *,
        skew_ms: int = 0,
        files: Disk = OPERATING_SYSTEM_DISK,
    ) -> None:
        self.index = index
        self.address = NAMES[index]
        self.disk = disk
        self.clock = TrioClock(skew_ms)
        self.sent: list[tuple[FrameKind, bytes]] = []
        self.banned: list[tuple[Address, str]] = []
        self.peers: dict[Address, MemoryPeer] = {}
        stages = StageClock()
        disk.open()
        self.writer = disk.writer
        self.metrics = Metrics(stages)
        self.mempool, self.space = Mempool(), DiskSpace()
        self.pool = BatchPool(disk.bodies)
        self.admission = Admission(disk.executor, self.mempool, self.clock, stages)
        self.log = open_log(path, disk.blocks.height, self.clock.now_ms(), files)
        OPENED.append(self.log)
        self.candidates = Candidates(self.writer, self.pool, PARAMETERS)
        self.maker = BatchMaker(
            address=self.address,
            sign=self.sign,
            mempool=self.mempool,
            pool=self.pool,
            writer=self.writer,
            clock=self.clock,
            stages=stages,
            publish=self._publish,
        )
        self.maker.resume(resumed_author(self.log.recovered, self.clock.now_ms()))
        parts = Collaborators(
            writer=self.writer,
            candidates=self.candidates,
            pool=self.pool,
            maker=self.maker,
            links=self,
            clock=self.clock,
            stages=stages,
            metrics=self.metrics,
            sign=self.sign,
            space=self.space,
        )
        core = Core(Timeouts())
        self.driver = ConsensusDriver(core, self.log, parts, ValidatorIndex(index))
        self.sync = BlockSync(
            height=lambda: self.height,
            faults=self.writer.validators.faults,
            send=self.send,
            deliver=self.driver.post,
        )
        self.router = Router(
            driver=self.driver,
            writer=self.writer,
            candidates=self.candidates,
            pool=self.pool,
            admission=self.admission,
            sync=self.sync,
            clock=self.clock,
            stages=stages,
            metrics=self.metrics,
            ban=self.ban,
        )
        self.writer.on_block(self._on_block)

    @property
    def height(self) -> int:
        return self.disk.executor.state_tip.height

    def sign(self, digest: bytes):
        return SUITE.sign(secret_of(self.index), digest)

    async def run(self, task_status=trio.TASK_STATUS_IGNORED) -> None:
        try:
            await self.writer.recover(self.log, self.driver.end_height)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.driver.run)
                nursery.start_soon(self.sync.run)
                nursery.start_soon(self.router.verify_batches)
                nursery.start_soon(self.maker.run, self.log)
                task_status.started()
        finally:
            self.log.close()

    def admit(self, transactions: Iterable[Transaction]) -> None:
        """Take transactions as if a client had sent them, without checking signatures again."""
        for transaction in transactions:
            self.mempool.add(transaction)
        self.maker.notify()

    def _publish(self, batch) -> None:
        self.broadcast(FrameKind.BATCH, batch.wire)
        self.driver.post(BatchArrived())

    def _on_block(self, block) -> None:
        for batch in block.batches:
            for transaction in batch.transactions:
                self.mempool.remove(transaction.id)
        self.pool.remove([batch.digest for batch in block.batches])

    # What the driver needs of the network.

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        self.sent.append((kind, payload))
        for peer in list(self.peers.values()):
            peer.send(kind, payload)
        return len(self.peers)

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        peer = self.peers.get(address)
        return peer is not None and peer.send(kind, payload)

    def ban(self, address: Address, seconds: float, reason: str) -> None:
        self.banned.append((address, reason))

    def of_kind(self, kind: FrameKind) -> list[bytes]:
        """What was broadcast of one kind, in order."""
        return [payload for found, payload in self.sent if found is kind]


async def wire_up(nursery: trio.Nursery, nodes: Iterable[MemoryNode]) -> None:
    """Link every two of these nodes, both ways, with 5 ms of delay, in order."""
    nodes = list(nodes)
    for one in nodes:
        for other in nodes:
            if one is not other:
                await nursery.start(_link, one, other)
    for one in nodes:
        for peer in one.peers.values():
            one.router.on_connected(peer)


async def _link(
    sender: MemoryNode, receiver: MemoryNode, task_status=trio.TASK_STATUS_IGNORED
) -> None:
    channel, frames = trio.open_memory_channel(10_000)
    sender.peers[receiver.address] = MemoryPeer(
        receiver.address, lambda kind, payload: channel.send_nowait((kind, payload))
    )
    back = MemoryPeer(
        sender.address, lambda kind, payload: receiver.send(sender.address, kind, payload)
    )
    task_status.started()
    async for frame in frames:
        await trio.sleep(0.005)
        await receiver.router.on_frames(back, [frame])


@asynccontextmanager
async def running(*nodes: MemoryNode):
    """Run and link these nodes; they are cut off, not asked, at the end."""
    async with trio.open_nursery() as nursery:
        for one in nodes:
            await nursery.start(one.run)
        await wire_up(nursery, nodes)
        yield nursery
        nursery.cancel_scope.cancel()


async def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait in trio's time."""
    with trio.fail_after(seconds):
        while not condition():
            await trio.sleep(0.01)
