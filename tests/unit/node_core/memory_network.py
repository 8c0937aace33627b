"""Whole nodes without sockets: real driver, router, sync and log, a fake network, trio's clock.

A node's disk (stores and the log file) outlives the node, so that it can be shut down at any moment
and opened again. Frames go through `encode_frame`, so its limits hold here as on a wire.
"""

from collections.abc import Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from consensus.core import Core
from consensus.messages import Evidence
from consensus.timeouts import Timeouts
from ledger.codec import encode
from ledger.errors import PeerProtocolError
from ledger.ids import Address
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk
from ledger.transaction import Transaction
from node import wire
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
from node.snapshots import Snapshots
from node.stages import StageClock
from node.sync import BlockSync
from node.wal import WriteAheadLog
from p2p.frames import FrameKind, FrameReader, encode_frame
from p2p.scoring import Offence
from tests.unit.ledger.worlds import SUITE

from .chains import (
    NEWCOMERS,
    NODE_SECRETS,
    PARAMETERS,
    TIME,
    VALIDATORS,
    LocalChain,
    node_name,
)

OPENED: list[WriteAheadLog] = []
"""Logs of nodes that did not run to their end; the fixture closes them."""
NAMES = (
    *(Address(member.address) for member in VALIDATORS.members),
    *(node_name(name) for name in NEWCOMERS),
)
"""The validators of genesis, then nodes that may be voted in."""


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
        self.signatures = 0
        self.served_bytes = 0

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        frame = encode_frame(kind, payload)
        for found, data in FrameReader().feed(frame):
            self._deliver(found, data)
        return True

    is_streaming = False

    def holds_batch(self, wire: bytes) -> bool:
        return False

    def take_lossy(self) -> bool:
        return False

    def charge_signatures(self, count: int) -> None:
        self.signatures += count

    def charge_served(self, size_bytes: int) -> None:
        self.served_bytes += size_bytes


class ServingPeer(MemoryPeer):
    """A link whose other end has blocks from height 1 on and batches, and answers at once.

    A liar overrides `blocks_for` or `batch_for`. Like the network it ends the link at an error.
    """

    def __init__(self, node, address, blocks=(), batches=(), at_once=64):
        super().__init__(address, self._take)
        self.node, self.at_once = node, at_once
        self.asked: list[tuple[FrameKind, object]] = []
        self.told: list[tuple[FrameKind, bytes]] = []
        self.answered = 0
        self.error: PeerProtocolError | None = None
        self.blocks = [wire.SyncedBlock(encode(block), proof) for block, proof in blocks]
        self.batches = {batch.digest: batch.wire for batch in batches}
        node.peers[address] = self
        node.router.on_connected(self)

    @classmethod
    def of(cls, node, address, chain, **options):
        """The other end has all of a chain."""
        stored = [chain.writer.read_block(height) for height in range(1, chain.tip.height + 1)]
        blocks = [(one.block, one.certificate) for one in stored]
        batches = [batch for one in stored for batch in one.batches]
        return cls(node, address, blocks, batches, **options)

    def blocks_for(self, request):
        """The payload that answers a question for blocks; None is silence."""
        found = tuple(self.blocks[request.start - 1 :][: min(self.at_once, request.count)])
        return wire.answer(request.number, encode(wire.BlockResponse(len(self.blocks), found)))

    def batch_for(self, request):
        """The payload that answers a question for a batch; None is silence."""
        return wire.answer(request.number, self.batches.get(request.digest, b""))

    def _take(self, kind, payload):
        if kind is FrameKind.BATCH_REQUEST:
            request = wire.BATCH_REQUEST.decode(payload)
            self.asked.append((kind, request.digest))
            self.deliver(FrameKind.BATCH_RESPONSE, self.batch_for(request))
        elif kind is FrameKind.BLOCK_REQUEST:
            request = wire.BLOCK_REQUEST.decode(payload)
            self.asked.append((kind, request.start))
            self.deliver(FrameKind.BLOCK_RESPONSE, self.blocks_for(request))
        else:
            self.told.append((kind, payload))

    def deliver(self, kind, payload):
        """Send a frame, soon."""
        if payload is not None:
            trio.lowlevel.spawn_system_task(self._deliver_now, kind, payload)

    async def _deliver_now(self, kind, payload):
        await trio.sleep(0.001)
        if self.error is not None:
            return
        try:
            await self.node.router.on_frames(self, [(kind, payload)])
        except PeerProtocolError as error:
            self.error = error
            self.node.blame(self.address, getattr(error, "offence", Offence.MALFORMED), str(error))
            self.node.peers.pop(self.address, None)
            self.node.router.on_disconnected(self)
        self.answered += 1


class MemoryNode:
    """One node; make it and `run` it inside trio."""

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
        self.blamed: list[tuple[Address, Offence]] = []
        self.accused: list[Evidence] = []
        self.on_accused: Callable[[Evidence], None] = lambda _evidence: None
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
        core, parts = Core(Timeouts()), self._collaborators(stages)
        self.driver = ConsensusDriver(core, self.log, parts, self.address)
        self.sync = BlockSync(
            writer=self.writer,
            pool=self.pool,
            send=self.send,
            deliver=self.driver.post,
            blame=self.blame,
        )
        self.driver.is_behind = lambda: self.sync.is_behind
        self.snapshots = Snapshots(self.writer, self.disk.state_data, self.clock)
        self.router = Router(
            driver=self.driver,
            writer=self.writer,
            candidates=self.candidates,
            pool=self.pool,
            admission=self.admission,
            sync=self.sync,
            snapshots=self.snapshots,
            clock=self.clock,
            stages=stages,
            metrics=self.metrics,
            blame=self.blame,
        )
        self.writer.on_block(self._on_block)

    def _collaborators(self, stages: StageClock) -> Collaborators:
        return Collaborators(
            writer=self.writer,
            candidates=self.candidates,
            pool=self.pool,
            maker=self.maker,
            links=self,
            clock=self.clock,
            stages=stages,
            metrics=self.metrics,
            sign=self.sign,
            accuse=self._accuse,
            space=self.space,
        )

    @property
    def height(self) -> int:
        return self.disk.executor.state_tip.height

    def sign(self, digest: bytes):
        return SUITE.sign(NODE_SECRETS[self.address], digest)

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

    async def hear_everybody(self, tip=0):
        """All others say which block they have, so that this node takes part."""
        for name in NAMES[1:4]:
            self.driver.hear(name, tip)
        await until(lambda: self.driver._gate.is_open)

    def _accuse(self, evidence: Evidence) -> None:
        self.accused.append(evidence)
        self.on_accused(evidence)

    def _publish(self, batch) -> None:
        self.broadcast(FrameKind.BATCH, batch.wire)
        self.driver.post(BatchArrived())

    def _on_block(self, block) -> None:
        for batch in block.batches:
            self.mempool.remove(batch.transactions)
        self.pool.remove([batch.digest for batch in block.batches])
        self.maker.notify()

    # What the driver needs of the network.

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        self.sent.append((kind, payload))
        for peer in list(self.peers.values()):
            peer.send(kind, payload)
        return len(self.peers)

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        peer = self.peers.get(address)
        return peer is not None and peer.send(kind, payload)

    def blame(self, address: Address, offence: Offence, detail: str) -> None:
        self.blamed.append((address, offence))

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
