"""In-memory forms of the ports of p2p: streams, certificates, a handler and a log that remember."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from hashlib import sha256

import trio
import trio.testing

from ledger.crypto.suites import INTERNATIONAL
from ledger.errors import PeerProtocolError, UnavailableError
from ledger.ids import Address, GenesisHash, GroupId, Height, PublicKey, TimestampMs
from p2p.frames import Frame
from p2p.hello import CertificateIdentity, HelloIdentity, node_uri
from p2p.network import Network, NetworkConfig, PeerAddress, Surroundings
from p2p.peer import Peer
from p2p.transport import Connection, Listening

GENESIS = GenesisHash(sha256(b"genesis").digest())
GROUP = GroupId(1)


@dataclass(frozen=True)
class TestNode:
    """A node by its number: key, address and the certificate it would have."""

    __test__ = False
    number: int

    @property
    def secret(self) -> bytes:
        return sha256(b"secret %d" % self.number).digest()

    @property
    def public_key(self) -> PublicKey:
        return INTERNATIONAL.public_key(self.secret)

    @property
    def address(self) -> Address:
        """Ordered as the numbers are, so that tests can say who is smaller."""
        return Address(bytes([self.number]) + sha256(self.public_key).digest()[1:])

    @property
    def certificate(self) -> CertificateIdentity:
        return CertificateIdentity(sha256(b"spki %d" % self.number).digest(), (self.uri,))

    @property
    def uri(self) -> str:
        return node_uri(self.address)

    def identity(
        self,
        *allowed: "TestNode",
        genesis_hash: GenesisHash = GENESIS,
        revoked: Collection[bytes] = (),
    ) -> HelloIdentity:
        keys = {node.address: node.public_key for node in allowed}
        return HelloIdentity(
            genesis_hash=genesis_hash,
            group=GROUP,
            address=self.address,
            role="master",
            digest=INTERNATIONAL.digest,
            sign=lambda digest: INTERNATIONAL.sign(self.secret, digest),
            verify=INTERNATIONAL.verify,
            is_allowed=keys.get,
            is_revoked=revoked.__contains__,
        )


class MemoryListener(trio.abc.Listener):
    """Accepts the streams that `MemoryTransport.dial` makes."""

    def __init__(self, on_close: Callable[[], None]) -> None:
        self.send_channel, self._receive_channel = trio.open_memory_channel(16)
        self._on_close = on_close

    async def accept(self) -> trio.abc.Stream:
        return await self._receive_channel.receive()

    async def aclose(self) -> None:
        self._on_close()
        self._receive_channel.close()
        await trio.lowlevel.checkpoint()


@dataclass
class MemoryWorld:
    """Who listens where, and which certificate the caller of a stream showed."""

    listeners: dict[tuple[str, int], tuple[MemoryListener, CertificateIdentity]] = field(
        default_factory=dict
    )
    callers: dict[trio.abc.Stream, CertificateIdentity] = field(default_factory=dict)
    dials: list[tuple[str, int]] = field(default_factory=list)
    delay_s: float = 0.01


class MemoryTransport:
    """The transport port over `trio.testing` memory streams."""

    def __init__(self, world: MemoryWorld, certificate: CertificateIdentity) -> None:
        self._world = world
        self.own_certificate = certificate

    async def listen(self, host: str, port: int) -> Listening:
        await trio.lowlevel.checkpoint()
        if (host, port) in self._world.listeners:
            raise UnavailableError(f"cannot listen on {host}:{port}")
        listener = MemoryListener(lambda: self._world.listeners.pop((host, port), None))
        self._world.listeners[host, port] = listener, self.own_certificate
        return Listening([listener], port)

    async def secure(self, stream: trio.abc.Stream) -> Connection:
        await trio.lowlevel.checkpoint()
        certificate = self._world.callers.pop(stream, None)
        if certificate is None:
            raise PeerProtocolError("no certificate")
        return Connection(stream, certificate, "caller", 0)

    async def dial(self, host: str, port: int) -> Connection:
        self._world.dials.append((host, port))
        await trio.sleep(self._world.delay_s)
        if (host, port) not in self._world.listeners:
            raise UnavailableError(f"cannot reach {host}:{port}")
        listener, certificate = self._world.listeners[host, port]
        ours, theirs = trio.testing.memory_stream_pair()
        self._world.callers[theirs] = self.own_certificate
        listener.send_channel.send_nowait(theirs)
        return Connection(ours, certificate, host, port)


@dataclass
class RecordingHandler:
    """Remembers what happened; `react` may raise or wait in the handler's place."""

    react: Callable[[Peer, list[Frame]], object] | None = None
    connected: list[Address] = field(default_factory=list)
    disconnected: list[Address] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    frames: list[tuple[Address, Frame]] = field(default_factory=list)
    links: dict[Address, Peer] = field(default_factory=dict)
    changed: trio.Event = field(default_factory=trio.Event)

    def on_connected(self, peer: Peer) -> None:
        self.connected.append(peer.address)
        self.links[peer.address] = peer
        self._notify()

    def on_disconnected(self, peer: Peer) -> None:
        self.disconnected.append(peer.address)
        self.reasons.append(peer.close_reason)
        if self.links.get(peer.address) is peer:
            del self.links[peer.address]
        self._notify()

    async def on_frames(self, peer: Peer, frames: list[Frame]) -> None:
        self.frames.extend((peer.address, frame) for frame in frames)
        self._notify()
        if self.react is not None:
            self.react(peer, frames)
        await trio.lowlevel.checkpoint()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = trio.Event()

    async def until(self, condition: Callable[["RecordingHandler"], object]) -> None:
        """Wait, without polling, until something happened that makes `condition` true."""
        with trio.fail_after(30):
            while not condition(self):
                await self.changed.wait()


@dataclass
class RecordingLog:
    """A log that keeps its events."""

    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)
    changed: trio.Event = field(default_factory=trio.Event)

    def info(self, event: str, **facts: object) -> None:
        self.events.append((event, facts))
        self.changed.set()
        self.changed = trio.Event()

    def warning(self, event: str, **facts: object) -> None:
        self.info(event, **facts)

    async def until(self, event: str) -> None:
        """Wait for the first `event`."""
        with trio.fail_after(30):
            while not self.reasons(event):
                await self.changed.wait()

    def reasons(self, event: str) -> list[object]:
        return [facts.get("reason") for name, facts in self.events if name == event]


def surroundings(seed: bytes = b"") -> Surroundings:
    """Reproducible surroundings: fixed clock and height, middling jitter, counted nonces."""
    count = 0

    def random_bytes(size: int) -> bytes:
        nonlocal count
        count += 1
        return sha256(b"nonce %d" % count + seed).digest()[:size]

    return Surroundings(
        now_ms=lambda: TimestampMs(1_700_000_000_000),
        height=lambda: Height(7),
        jitter=lambda: 0.5,
        random_bytes=random_bytes,
    )


@dataclass
class MemoryNode:
    """A network in memory, listening at ("node <number>", 1)."""

    network: Network
    handler: RecordingHandler
    log: RecordingLog


def memory_node(
    world: MemoryWorld,
    node: TestNode,
    *,
    dials: tuple[TestNode, ...] = (),
    allowed: tuple[TestNode, ...] = (),
    certificate: CertificateIdentity | None = None,
) -> MemoryNode:
    """A node that dials `dials` and admits them and `allowed`."""
    config = NetworkConfig(
        host=f"node {node.number}",
        port=1,
        peers=tuple(PeerAddress(peer.address, f"node {peer.number}", 1) for peer in dials),
    )
    handler, log = RecordingHandler(), RecordingLog()
    network = Network(
        config,
        node.identity(*dials, *allowed),
        MemoryTransport(world, certificate or node.certificate),
        handler,
        surroundings(node.secret),
        log,
    )
    return MemoryNode(network, handler, log)
