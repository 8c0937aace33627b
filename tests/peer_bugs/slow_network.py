"""Whole nodes joined by the real network layer over in-memory lines of a given speed.

Real hellos, frames, queues, budgets and back-pressure; only TLS and sockets are missing. A line is
one direction of one link: it takes the time its bytes need, and what waits, waits in the queues of
the sender, as behind a socket with a small buffer.
"""

from contextlib import asynccontextmanager

import trio

from ledger.ids import Address, GroupId, Height, PublicKey, TimestampMs
from p2p.frames import FrameKind
from p2p.hello import CertificateIdentity, HelloIdentity, node_uri
from p2p.network import Network, NetworkConfig, PeerAddress, Surroundings
from p2p.scoring import Offence
from p2p.transport import Connection
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, VALIDATORS, LocalChain
from tests.unit.node_core.memory_network import NAMES, MemoryNode
from tests.unit.p2p.memory_transport import MemoryTransport, MemoryWorld, RecordingLog

KEYS = {Address(member.address): PublicKey(member.key) for member in VALIDATORS.members}
RECORD_BYTES = 16 * 1024


class SlowLine(trio.abc.Stream):
    """A stream whose sending side has a bandwidth."""

    def __init__(self, inner: trio.abc.Stream, bytes_per_second: float) -> None:
        self._inner, self._rate = inner, bytes_per_second

    async def send_all(self, data) -> None:
        view = memoryview(data)
        for start in range(0, len(view), RECORD_BYTES):
            piece = view[start : start + RECORD_BYTES]
            await trio.sleep(len(piece) / self._rate)
            await self._inner.send_all(piece)

    async def wait_send_all_might_not_block(self) -> None:
        await self._inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None) -> bytes:
        return await self._inner.receive_some(RECORD_BYTES)

    async def aclose(self) -> None:
        await self._inner.aclose()


class SlowTransport(MemoryTransport):
    """The memory transport over slow lines."""

    def __init__(self, world: MemoryWorld, certificate: CertificateIdentity, rate: float) -> None:
        super().__init__(world, certificate)
        self._rate = rate

    async def secure(self, stream: trio.abc.Stream) -> Connection:
        return self._slow(await super().secure(stream))

    async def dial(self, host: str, port: int) -> Connection:
        return self._slow(await super().dial(host, port))

    def _slow(self, link: Connection) -> Connection:
        stream = SlowLine(link.stream, self._rate)
        return Connection(stream, link.certificate, link.host, link.port)


class LinkedNode(MemoryNode):
    """A memory node whose links are those of a real `Network`."""

    def __init__(self, index: int, world: MemoryWorld, path, rate: float) -> None:
        super().__init__(index, LocalChain(), path)
        certificate = CertificateIdentity(SUITE.digest(self.address), (node_uri(self.address),))
        others = [number for number in range(4) if number != index]
        config = NetworkConfig(
            f"node {index}", 1, tuple(PeerAddress(NAMES[n], f"node {n}", 1) for n in others)
        )
        self.network_log = RecordingLog()
        self.network = Network(
            config,
            HelloIdentity(
                genesis_hash=CHAIN.genesis_hash,
                group=GroupId(CHAIN.group),
                address=self.address,
                role="master",
                digest=SUITE.digest,
                sign=self.sign,
                verify=SUITE.verify,
                is_allowed=KEYS.get,
                is_revoked=lambda _key: False,
            ),
            SlowTransport(world, certificate, rate),
            self.router,
            Surroundings(
                now_ms=lambda: TimestampMs(self.clock.now_ms()),
                height=lambda: Height(self.height),
                jitter=lambda: (1 + index) / 5,
                random_bytes=self._random_bytes,
                voters=lambda: NAMES,
            ),
            self.network_log,
        )

    def _random_bytes(self, size: int) -> bytes:
        self._draws = getattr(self, "_draws", 0) + 1
        return SUITE.digest(self.address + self._draws.to_bytes(8, "big"))[:size]

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        return self.network.broadcast(kind, payload)

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        return self.network.send(address, kind, payload)

    def blame(self, address: Address, offence: Offence, detail: str) -> None:
        super().blame(address, offence, detail)
        self.network.blame(address, offence, detail)


@asynccontextmanager
async def linked(path, rate: float):
    """Four validators, every two of them linked by lines of `rate` bytes a second."""
    world = MemoryWorld()
    nodes = [LinkedNode(index, world, path / f"{index}.wal", rate) for index in range(4)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            await nursery.start(node.run)
            await nursery.start(node.network.run)
        with trio.fail_after(60):
            while any(len(node.network.peers) < 3 for node in nodes):
                await trio.sleep(0.1)
        yield nodes
        nursery.cancel_scope.cancel()
