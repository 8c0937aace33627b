"""The network of one group: listens, dials, greets, and keeps one link to every known node.

What it decides: which links live (one per address, none to the banned) and when to dial again.
What it never does: read a payload, or fall because of a peer. Only the handler's own errors, and
a port that cannot be had, leave `run`.
Duplicates: both ends dial. Of two links the one dialled by the smaller address stays, so both ends
choose the same without a word; of two dialled by the same side the newer one stays, because a node
that dials again has lost the older one.
Source: architecture sections 4 and 6.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import trio

from ledger.errors import PeerProtocolError, UnavailableError
from ledger.ids import Address, Height, TimestampMs
from p2p.backoff import Backoff
from p2p.frames import HELLO_LIMITS, Frame, FrameKind, FrameReader, encode_frame
from p2p.hello import NONCE_BYTES, Handshake, HelloIdentity, LinkFacts, RemoteNode
from p2p.peer import Direction, Peer, PeerInfo
from p2p.transport import Connection, Transport, remote_name

HALF_OPEN_LINKS = 64
"""Inbound links whose hello is not done: twice the nodes of a large network restarting at once."""
HELLO_TIMEOUT_S = 5.0
"""Connect, TLS and hello: four round trips and about 5 ms of CPU; five seconds suit any line."""
STABLE_LINK_S = 15.0
"""A link that held longer than any failed dial lasts: the next loss is a new story."""
FAULT_PAUSE_S = 10.0
"""How long a node that broke the protocol stays away: a bug there must not spin here."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """Where a known node listens."""

    address: Address
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class NetworkConfig:
    """Where we listen (port 0: any) and whom we dial; others on the allow-list may dial us."""

    host: str
    port: int
    peers: tuple[PeerAddress, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the network takes from the world besides streams, so that a simulator can give it.

    `now_ms` is wall time; `height` our committed height, told in the hello; `jitter` gives numbers
    in [0, 1); `random_bytes(n)` must be unpredictable.
    """

    now_ms: Callable[[], TimestampMs]
    height: Callable[[], Height]
    jitter: Callable[[], float]
    random_bytes: Callable[[int], bytes]


class Log(Protocol):
    """A structlog-like logger. Neither keys nor payloads are ever given to it."""

    def info(self, event: str, **facts: object) -> object:
        """Something of the ordinary course."""
        ...

    def warning(self, event: str, **facts: object) -> object:
        """Something an operator should look at."""
        ...


class FrameHandler(Protocol):
    """What the node does with links. `on_disconnected` follows every `on_connected`, once."""

    def on_connected(self, peer: Peer) -> None:
        """A link to `peer.address` is up; earlier links to it are over. `peer.send` works."""
        ...

    def on_disconnected(self, peer: Peer) -> None:
        """The link is over; what was queued is lost."""
        ...

    async def on_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """Take what arrived in one read; not reading on until this returns is the back-pressure.

        Cancelled at its next checkpoint when the link ends meanwhile.
        Raises: PeerProtocolError to close this link and keep the node away for a while.
        """
        ...


class Network:
    """The links of this node. All methods belong to the trio thread."""

    def __init__(
        self,
        config: NetworkConfig,
        identity: HelloIdentity,
        transport: Transport,
        handler: FrameHandler,
        surroundings: Surroundings,
        log: Log,
    ) -> None:
        """Nothing happens before `run`."""
        self._config = config
        self._identity = identity
        self._transport = transport
        self._handler = handler
        self._surroundings = surroundings
        self._log = log
        self._links: dict[Address, Peer] = {}
        self._banned_until: dict[Address, float] = {}
        self._half_open = 0

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and dial until cancelled; started with the port that is listened on.

        Raises: UnavailableError when the port cannot be had; whatever the handler raises.
        """
        listening = await self._transport.listen(self._config.host, self._config.port)
        async with trio.open_nursery() as nursery:
            for known in self._config.peers:
                if known.address != self._identity.address:
                    nursery.start_soon(self._keep_connected, known)
            task_status.started(listening.port)
            await trio.serve_listeners(self._welcome, list(listening.listeners))

    @property
    def peers(self) -> tuple[PeerInfo, ...]:
        """The living links, by address."""
        return tuple(self._links[address].info for address in sorted(self._links))

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        """Queue a message for one node; False: no link, or its queue is full. Never waits."""
        peer = self._links.get(address)
        return peer is not None and peer.send(kind, payload)

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        """Queue a message for every linked node, encoded once; how many took it. Never waits."""
        frame = encode_frame(kind, payload)
        taken = 0
        for peer in self._links.values():
            taken += peer.send_frame(kind, frame)
        return taken

    def ban(self, address: Address, seconds: float, reason: str) -> None:
        """Close the link to a node and refuse new ones for so long; a longer ban stands.

        The caller minds that enough masters stay connected; here is no knowledge of roles.
        """
        now = trio.current_time()
        self._banned_until = {
            banned: until for banned, until in self._banned_until.items() if until > now
        }
        until = max(now + seconds, self._banned_until.get(address, now))
        self._banned_until[address] = until
        self._log.warning("peer_banned", peer=address.hex(), seconds=seconds, reason=reason)
        peer = self._links.get(address)
        if peer is not None:
            peer.close(f"banned: {reason}")

    async def _keep_connected(self, known: PeerAddress) -> None:
        """Dial a known node whenever there is no link to it; sleeps without polling otherwise."""
        backoff = Backoff(self._surroundings.jitter)
        while True:
            began_at = trio.current_time()
            while (peer := self._links.get(known.address)) is not None:
                await peer.closed.wait()
            await trio.sleep_until(self._banned_until.get(known.address, 0.0))
            await self._dial(known)
            if trio.current_time() - began_at > STABLE_LINK_S:
                backoff.reset()
            await trio.sleep(backoff.next_delay_s())

    async def _dial(self, known: PeerAddress) -> None:
        """One attempt, and the life of the link if it succeeds."""
        try:
            with trio.fail_after(HELLO_TIMEOUT_S):
                connection = await self._transport.dial(known.host, known.port)
                remote = await self._greet(connection, known.address)
        except (PeerProtocolError, UnavailableError, trio.TooSlowError) as error:
            self._log.info(
                "dial_failed",
                peer=known.address.hex(),
                host=known.host,
                port=known.port,
                reason=_describe(error),
            )
            return
        await self._live(connection, remote, Direction.OUTBOUND)

    async def _welcome(self, stream: trio.abc.Stream) -> None:
        """An inbound stream: greet it within limits, and its life if it is accepted."""
        host, port = remote_name(stream)
        if self._half_open >= HALF_OPEN_LINKS:
            reason = "too many half-open links"
            self._log.warning("inbound_refused", host=host, port=port, reason=reason)
            await trio.aclose_forcefully(stream)
            return
        self._half_open += 1
        try:
            with trio.fail_after(HELLO_TIMEOUT_S):
                connection = await self._transport.secure(stream)
                remote = await self._greet(connection, expected=None)
        except (PeerProtocolError, trio.TooSlowError) as error:
            self._log.info("inbound_refused", host=host, port=port, reason=_describe(error))
            return
        finally:
            self._half_open -= 1
        await self._live(connection, remote, Direction.INBOUND)

    async def _greet(self, connection: Connection, expected: Address | None) -> RemoteNode:
        """Exchange the hello; closes the stream unless the node is accepted."""
        facts = LinkFacts(self._transport.own_certificate, connection.certificate, expected)
        handshake = Handshake(
            self._identity,
            facts,
            nonce=self._surroundings.random_bytes(NONCE_BYTES),
            height=self._surroundings.height(),
        )
        try:
            remote = await shake_hands(connection.stream, handshake)
            self._refuse_banned(remote.address)
        except BaseException:
            await trio.aclose_forcefully(connection.stream)
            raise
        return remote

    def _refuse_banned(self, address: Address) -> None:
        if self._banned_until.get(address, 0.0) > trio.current_time():
            raise PeerProtocolError(f"{address.hex()} is banned")

    async def _live(self, connection: Connection, remote: RemoteNode, direction: Direction) -> None:
        """The life of an accepted link, from registration to farewell."""
        now_ms = self._surroundings.now_ms()
        peer = Peer(connection, remote, direction, now_ms, self._handler.on_frames)
        if not self._register(peer):
            await trio.aclose_forcefully(connection.stream)
            return
        self._log.info("peer_connected", peer=peer.address.hex(), direction=str(direction))
        try:
            self._handler.on_connected(peer)
            await peer.run()
        finally:
            # No checkpoint since peer.closed was set: whoever waits for it finds the link gone.
            self._forget(peer)
        if peer.fault is not None:
            self.ban(remote.address, FAULT_PAUSE_S, str(peer.fault))

    def _register(self, peer: Peer) -> bool:
        """Make this the link to its node; False when an older link has the better right."""
        older = self._links.get(peer.address)
        if older is not None:
            if older.close_reason is None and self._is_preferred(older, peer):
                return False
            older.close("replaced by a newer link")
            self._forget(older)
        self._links[peer.address] = peer
        return True

    def _is_preferred(self, older: Peer, newer: Peer) -> bool:
        """Whether `older` was dialled by the smaller address and `newer` by the larger one."""
        is_ours_smaller = self._identity.address < newer.address
        preferred = Direction.OUTBOUND if is_ours_smaller else Direction.INBOUND
        return older.direction is preferred and newer.direction is not preferred

    def _forget(self, peer: Peer) -> None:
        """Say farewell, once, whichever of replacement and end comes first."""
        if self._links.get(peer.address) is not peer:
            return
        del self._links[peer.address]
        self._log.info("peer_disconnected", peer=peer.address.hex(), reason=peer.close_reason)
        self._handler.on_disconnected(peer)


async def shake_hands(stream: trio.abc.Stream, handshake: Handshake) -> RemoteNode:
    """Run a handshake over a stream; reads not one byte beyond it.

    Raises: PeerProtocolError when the peer is refused, leaves, or sends anything else.
    """
    reader = FrameReader(HELLO_LIMITS)
    try:
        await stream.send_all(encode_frame(*handshake.opening))
        while handshake.remote is None:
            data = await stream.receive_some(reader.missing_bytes)
            if not data:
                raise PeerProtocolError("the peer closed the link during the hello")
            for kind, payload in reader.feed(data):
                answer = handshake.receive(kind, payload)
                if answer is not None:
                    await stream.send_all(encode_frame(*answer))
    except trio.BrokenResourceError as error:
        raise PeerProtocolError(f"link lost during the hello: {error.__cause__ or error}") from None
    return handshake.remote


def _describe(error: BaseException) -> str:
    return "no hello within the deadline" if isinstance(error, trio.TooSlowError) else str(error)
