"""The network of one group: listens, dials, greets, and keeps one link to every known node.

What it decides: which links live (one per address, none to the banned or no longer admitted) and
when to dial again. A node that cannot be spared, because a quorum of voters would be out of reach
without it, is demoted instead of banned: its link stays, with a small budget (p2p/metering.py).
What it never does: read a payload, or fall because of a peer. Only the handler's own errors, and
a port that cannot be had, leave `run`.
Duplicates: both ends dial. Of two links the one dialled by the smaller address stays, so both ends
choose the same without a word; of two dialled by the same side the newer one stays, because a node
that dials again has lost the older one.
Source: architecture sections 4 and 6; research consensus-reliability section 5.
"""

from collections.abc import Callable, Collection, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ledger.errors import PeerProtocolError, UnavailableError
from ledger.ids import Address, Height, TimestampMs
from p2p.backoff import Backoff
from p2p.expiry import ExpiryWatch
from p2p.frames import HELLO_LIMITS, Frame, FrameKind, FrameReader, encode_frame
from p2p.hello import (
    NONCE_BYTES,
    CertificateIdentity,
    Handshake,
    HelloIdentity,
    HelloRefusal,
    HelloRefusedError,
    LinkFacts,
    RemoteNode,
    node_uri,
)
from p2p.peer import Direction, Peer, PeerInfo
from p2p.scoring import BAN_S, Offence, PeerOffenceError, Scores, Standing, can_be_spared
from p2p.transport import Connection, Transport, remote_name

HALF_OPEN_LINKS = 64
"""Inbound links whose hello is not done: twice the nodes of a large network restarting at once."""
HELLO_TIMEOUT_S = 5.0
"""Connect, TLS and hello: four round trips and about 5 ms of CPU; five seconds suit any line."""
STABLE_LINK_S = 15.0
"""A link that held longer than any failed dial lasts: the next loss is a new story."""
LINKS = 256
"""Living links in all: 128 validators, and as many nodes that only follow."""
CONNECTIONS_PER_NODE = 2
"""A living link and a hello, or two hellos at once when both ends dial."""
FAULT_PAUSE_S = 10.0
"""How long a node that broke the protocol stays away: a bug there must not spin here."""
SPARED_PAUSE_S = 1.0
"""The same for a node without which no quorum is in reach."""
SLOW_PAUSE_S = (1.0, 60.0)
"""First and largest pause after a peer read too slowly, with jitter."""
SLOW_MEMORY_S = 600.0
"""A peer that read well for so long begins with the shortest pause again."""
WATCH_S = 60.0
"""How often standings and certificates are looked over."""


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
    in [0, 1); `random_bytes(n)` must be unpredictable; `voters` are the nodes of which a quorum has
    to stay in reach, none where nobody votes.
    """

    now_ms: Callable[[], TimestampMs]
    height: Callable[[], Height]
    jitter: Callable[[], float]
    random_bytes: Callable[[int], bytes]
    voters: Callable[[], Collection[Address]] = tuple


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
        self._scores = Scores()
        self._away_until: dict[Address, float] = {}
        self._slow: dict[Address, tuple[Backoff, float]] = {}
        self._half_open = 0
        self._greeting: dict[str, int] = {}
        self._nonces: set[bytes] = set()
        self._expiry = ExpiryWatch()
        self._twin_listeners: list[Callable[[str, int], None]] = []

    async def run(self, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        """Listen and dial until cancelled; started with the port that is listened on.

        Raises: UnavailableError when the port cannot be had; whatever the handler raises.
        """
        listening = await self._transport.listen(self._config.host, self._config.port)
        async with trio.open_nursery() as nursery:
            for known in self._config.peers:
                if known.address != self._identity.address:
                    nursery.start_soon(self._keep_connected, known)
            nursery.start_soon(self._watch)
            task_status.started(listening.port)
            await trio.serve_listeners(self._welcome, list(listening.listeners))

    @property
    def own_expires_ms(self) -> TimestampMs | None:
        """When our own TLS certificate ends."""
        return self._transport.own_certificate.expires_ms

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

    def on_twin(self, listener: Callable[[str, int], None]) -> None:
        """Call `listener` with host and port when another process proves to be this node.

        What it raises leaves `run`: two running copies of one key are a reason to stop.
        """
        self._twin_listeners.append(listener)

    def blame(self, address: Address, offence: Offence, detail: str) -> None:
        """Count an offence of a node; it may be banned or demoted for it."""
        now = trio.current_time()
        standing = self._scores.charge(
            address, offence, now, can_be_spared=self._can_be_spared(address)
        )
        if standing is None:
            return
        peer = self._links.get(address)
        if standing is Standing.BANNED:
            self.ban(address, BAN_S, f"{offence}: {detail}")
        elif peer is not None:
            peer.demote(is_demoted=True)
        if standing is Standing.DEMOTED:
            self._log.warning("peer_demoted", peer=address.hex(), reason=f"{offence}: {detail}")

    def score(self, address: Address) -> int:
        """0 or less: what is known against a node and not yet forgotten."""
        return self._scores.score(address, trio.current_time())

    def standing(self, address: Address) -> Standing:
        """What a node may do here."""
        return self._scores.standing(address, trio.current_time())

    def ban(self, address: Address, seconds: float, reason: str) -> None:
        """Close the link to a node and refuse new ones for so long; a longer ban stands."""
        self._log.warning("peer_banned", peer=address.hex(), seconds=seconds, reason=reason)
        self._keep_away(address, seconds)
        peer = self._links.get(address)
        if peer is not None:
            peer.close(f"banned: {reason}")

    def enforce_admission(self) -> None:
        """End the links of nodes not allowed any more, with another key or a revoked certificate.

        Call it whenever the answers of `HelloIdentity` change.
        """
        for peer in list(self._links.values()):
            refusal = self._find_refusal(peer.remote, peer.certificate)
            if refusal is not None:
                self._log.warning("peer_expelled", peer=peer.address.hex(), reason=str(refusal))
                peer.close(f"no longer admitted: {refusal}")

    def _find_refusal(
        self, remote: RemoteNode, certificate: CertificateIdentity
    ) -> HelloRefusal | None:
        if self._identity.is_revoked(certificate.public_key_hash):
            return HelloRefusal.REVOKED
        if self._identity.is_allowed(remote.address) != remote.key:
            return HelloRefusal.NOT_ALLOWED
        return None

    def _can_be_spared(self, address: Address) -> bool:
        voters = self._surroundings.voters()
        # A link that is ending is no link: of two offenders in one moment the second would go too.
        linked = [known for known, peer in self._links.items() if peer.close_reason is None]
        return can_be_spared(address, self._identity.address, linked, voters)

    def _keep_away(self, address: Address, seconds: float) -> None:
        now = trio.current_time()
        self._away_until = {
            known: until for known, until in self._away_until.items() if until > now
        }
        self._away_until[address] = max(now + seconds, self._away_until.get(address, now))

    async def _watch(self) -> None:
        """Once a minute: end bans that are over, blame floods, warn of certificates that end."""
        throttled: dict[Peer, float] = {}
        while True:
            self._warn_of_expiry(self._transport.own_certificate, self._identity.address)
            for peer in list(self._links.values()):
                self._warn_of_expiry(peer.certificate, peer.address)
            await trio.sleep(WATCH_S)
            for address in self._scores.restore(trio.current_time()):
                self._log.info("peer_restored", peer=address.hex())
                if address in self._links:
                    self._links[address].demote(is_demoted=False)
            before, throttled = throttled, {}
            for peer in list(self._links.values()):
                throttled[peer] = peer.throttled_s
                if peer.throttled_s - before.get(peer, 0.0) > WATCH_S / 2:
                    self.blame(peer.address, Offence.FLOOD, "over its budget for a minute")

    def _warn_of_expiry(self, certificate: CertificateIdentity, address: Address) -> None:
        days = self._expiry.due(
            certificate.public_key_hash, certificate.expires_ms, self._surroundings.now_ms()
        )
        if days is not None:
            is_own = address == self._identity.address
            self._log.warning("certificate_expires", node=address.hex(), own=is_own, days=days)

    async def _keep_connected(self, known: PeerAddress) -> None:
        """Dial a known node whenever there is no link to it; sleeps without polling otherwise."""
        backoff = Backoff(self._surroundings.jitter)
        while True:
            began_at = trio.current_time()
            while (peer := self._links.get(known.address)) is not None:
                await peer.closed.wait()
            await trio.sleep_until(self._away_until.get(known.address, 0.0))
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
        if self._half_open >= HALF_OPEN_LINKS or len(self._links) >= LINKS:
            kind = "half-open" if self._half_open >= HALF_OPEN_LINKS else "living"
            reason = f"too many {kind} links"
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
        nonce = self._surroundings.random_bytes(NONCE_BYTES)
        handshake = Handshake(
            self._identity,
            facts,
            nonce=nonce,
            height=self._surroundings.height(),
            nonces=self._nonces,
        )
        self._nonces.add(nonce)
        try:
            with self._counted(connection.certificate):
                remote = await shake_hands(connection.stream, handshake)
            self._refuse_away(remote.address)
        except HelloRefusedError as error:
            await trio.aclose_forcefully(connection.stream)
            if error.refusal is HelloRefusal.TWIN:
                self._report_twin(connection)
            raise
        except BaseException:
            await trio.aclose_forcefully(connection.stream)
            raise
        finally:
            self._nonces.discard(nonce)
        return remote

    @contextmanager
    def _counted(self, certificate: CertificateIdentity) -> Generator[None]:
        """Refuse a node's third connection. Only its certificate names it before the hello."""
        uri = certificate.uris[0] if certificate.uris else ""
        living = sum(node_uri(address) == uri for address in self._links)
        greeting = self._greeting.get(uri, 0)
        if living + greeting >= CONNECTIONS_PER_NODE:
            raise PeerProtocolError(f"too many connections of {uri}")
        self._greeting[uri] = greeting + 1
        try:
            yield
        finally:
            self._greeting[uri] -= 1
            if not self._greeting[uri]:
                del self._greeting[uri]

    def _report_twin(self, connection: Connection) -> None:
        self._log.warning("twin_seen", host=connection.host, port=connection.port)
        for listener in self._twin_listeners:
            listener(connection.host, connection.port)

    def _refuse_away(self, address: Address) -> None:
        if self._away_until.get(address, 0.0) > trio.current_time():
            raise PeerProtocolError(f"{address.hex()} is banned or paused")

    async def _live(self, connection: Connection, remote: RemoteNode, direction: Direction) -> None:
        """The life of an accepted link, from registration to farewell."""
        now_ms = self._surroundings.now_ms()
        peer = Peer(connection, remote, direction, now_ms, self._handler.on_frames)
        # Admission may have changed during the hello.
        refusal = self._find_refusal(remote, connection.certificate)
        if refusal is not None or not self._register(peer):
            await trio.aclose_forcefully(connection.stream)
            return
        self._log.info("peer_connected", peer=peer.address.hex(), direction=str(direction))
        self._warn_of_expiry(connection.certificate, peer.address)
        peer.demote(is_demoted=self.standing(peer.address) is Standing.DEMOTED)
        try:
            self._handler.on_connected(peer)
            await peer.run()
        finally:
            # No checkpoint since peer.closed was set: whoever waits for it finds the link gone.
            self._forget(peer)
        self._judge_end(peer)

    def _judge_end(self, peer: Peer) -> None:
        """What the way in which a link ended costs the peer."""
        address, fault = peer.address, peer.fault
        if fault is not None:
            is_named = isinstance(fault, PeerOffenceError)
            offence = fault.offence if is_named else Offence.MALFORMED
            self._log.info("peer_fault", peer=address.hex(), reason=str(fault))
            self.blame(address, offence, str(fault))
            pause_s = FAULT_PAUSE_S if self._can_be_spared(address) else SPARED_PAUSE_S
            self._keep_away(address, pause_s)
        elif peer.is_slow:
            now = trio.current_time()
            backoff, last = self._slow.get(address, (None, 0.0))
            if backoff is None or now - last > SLOW_MEMORY_S:
                backoff = Backoff(self._surroundings.jitter, *SLOW_PAUSE_S)
            self._slow[address] = backoff, now
            self._keep_away(address, backoff.next_delay_s())

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
