"""The wires between machines: bytes arrive late and in pieces; links are cut, torn and refused.

Implements `p2p.transport.Transport` over streams in memory, with the manners of TCP: in order, with
a window, refused where nobody listens, silent where a link is cut or a machine has no power. What
TLS would prove is given: each end sees the certificate of the machine at the other end.
"""

import random
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Any, Protocol

import trio

from ledger.errors import PeerProtocolError, UnavailableError
from ledger.ids import Address
from p2p.hello import CertificateIdentity, node_uri
from p2p.transport import Connection, Listening

WINDOW_BYTES = 64 * 1024
"""What may be under way in one direction; whoever sends more waits."""
RETRY_S = 1.0
"""After so long a machine that hears nothing tries to connect again, as TCP does."""
PORT = 1


class Computer(Protocol):
    """What a wire needs to know of the machine at its end."""

    index: int
    streams: list[Any]
    listeners: list[Any]

    @property
    def speaks(self) -> bool:
        """Whether what it sends leaves it."""
        ...

    @property
    def has_power(self) -> bool:
        """Whether it answers at all."""
        ...


def host_of(index: int) -> str:
    """The host name of a machine."""
    return f"node-{index}"


def certificate_of(address: Address) -> CertificateIdentity:
    """The certificate that a node would have."""
    return CertificateIdentity(sha256(b"spki" + address).digest(), (node_uri(address),))


class Weather:
    """What the network does at present; a seed changes it."""

    def __init__(self) -> None:
        self.delay_s = (0.002, 0.008)
        self.split = 0.02
        """The share of writes that arrive in several pieces."""
        self.cut: set[tuple[int, int]] = set()


class Waiter:
    """Somebody waits until a moment that may come nearer."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    async def wait(self, until: float) -> None:
        self._scope = trio.CancelScope(deadline=until)
        with self._scope:
            await trio.sleep_forever()

    def wake(self, at: float = 0.0) -> None:
        """At this moment, or at once."""
        self._scope.deadline = min(self._scope.deadline, at)


class Pipe:
    """Bytes on their way in one direction."""

    def __init__(self) -> None:
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._last = 0.0
        self.size = 0
        self.end_at = float("inf")
        self.is_dropped = False
        self.reader, self.writer = Waiter(), Waiter()

    def push(self, piece: bytes, delay_s: float) -> None:
        if self.is_dropped:
            return
        self._last = max(self._last, trio.current_time() + delay_s)
        self._pieces.append((self._last, piece))
        self.size += len(piece)
        if len(self._pieces) == 1:
            self.reader.wake(self._last)

    def end(self, delay_s: float) -> None:
        """Nothing follows."""
        self.end_at = max(self._last, trio.current_time() + delay_s)
        self.reader.wake(self.due_at)

    def tear(self, rng: random.Random) -> None:
        """Lose what has not arrived, but maybe for the first bytes of it."""
        now = trio.current_time()
        kept = [piece for piece in self._pieces if piece[0] <= now]
        if len(kept) < len(self._pieces):
            following = self._pieces[len(kept)][1]
            kept.append((now, following[: rng.randrange(len(following))]))
        self._pieces = deque(piece for piece in kept if piece[1])
        self.notify()

    def drop(self) -> None:
        """Nobody will read what is sent from now on."""
        self.is_dropped = True
        self.writer.wake()

    def notify(self) -> None:
        """Whoever waits looks again."""
        self.reader.wake()
        self.writer.wake()

    @property
    def due_at(self) -> float:
        """When the next bytes, or the end, arrive."""
        return self._pieces[0][0] if self._pieces else self.end_at

    @property
    def is_full(self) -> bool:
        return self.size > WINDOW_BYTES and not self.is_dropped

    @property
    def has_bytes(self) -> bool:
        return bool(self._pieces)

    def take(self, most: int) -> bytes:
        """Bytes that have arrived; none when they are at their end."""
        if not self._pieces:
            return b""
        arrived, piece = self._pieces.popleft()
        if len(piece) > most:
            self._pieces.appendleft((arrived, piece[most:]))
            piece = piece[:most]
        self.size -= len(piece)
        self.writer.wake()
        return piece


class Wire:
    """A connection: two pipes between two ends; a stranger has no machine."""

    def __init__(self, network: "Network", dialler: Computer | None, listener: Computer) -> None:
        self.network = network
        self.machines = (dialler, listener)
        self.is_torn = False
        there, back = Pipe(), Pipe()
        self.pipes = (there, back)
        self.ends = (End(self, dialler, back, there), End(self, listener, there, back))
        network.wires.append(self)

    @property
    def is_cut(self) -> bool:
        return self.network.is_cut(*self.machines)

    def tear(self) -> None:
        """The connection is reset, in the middle of whatever was under way."""
        self.is_torn = True
        for pipe in self.pipes:
            pipe.tear(self.network.rng)

    def pieces(self, data: bytes) -> Iterator[tuple[bytes, float]]:
        """What is sent at once and how long each piece of it takes."""
        rng, weather = self.network.rng, self.network.weather
        while data:
            cut = min(len(data), WINDOW_BYTES)
            if rng.random() < weather.split:
                cut = rng.randint(1, cut)
            yield data[:cut], rng.uniform(*weather.delay_s)
            data = data[cut:]

    def forget(self) -> None:
        """Both ends were closed."""
        if all(end.is_closed for end in self.ends):
            self.network.wires.remove(self)


class End(trio.abc.Stream):
    """One end of a wire, held by one machine."""

    def __init__(self, wire: Wire, owner: Computer | None, incoming: Pipe, outgoing: Pipe) -> None:
        self.wire, self.owner = wire, owner
        self.incoming, self.outgoing = incoming, outgoing
        self.certificate: CertificateIdentity | None = None
        """What the other end showed."""
        self.is_closed = False
        if owner is not None:
            owner.streams.append(self)

    @property
    def is_with_stranger(self) -> bool:
        """Whether no machine is at the other end."""
        return None in self.wire.machines

    def _check(self) -> None:
        if self.is_closed:
            raise trio.ClosedResourceError("this end is closed")
        if self.wire.is_torn and not self.incoming.has_bytes:
            raise trio.BrokenResourceError("connection reset")

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        await trio.lowlevel.checkpoint()
        for piece, delay_s in self.wire.pieces(bytes(data)):
            self._check()
            while self.outgoing.is_full and not self.wire.is_torn:
                await self.outgoing.writer.wait(float("inf"))
                self._check()
            if self.wire.is_torn:
                raise trio.BrokenResourceError("connection reset")
            if self.owner is None or self.owner.speaks:
                self.wire.network.note_bytes(self, piece)
                self.outgoing.push(piece, delay_s)

    async def wait_send_all_might_not_block(self) -> None:
        await trio.lowlevel.checkpoint()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        pipe, has_waited = self.incoming, False
        while True:
            self._check()
            is_held = self.wire.is_cut and not self.wire.is_torn
            due_at = float("inf") if is_held else pipe.due_at
            if due_at > trio.current_time():
                await pipe.reader.wait(due_at)
            elif has_waited:
                return pipe.take(max_bytes or WINDOW_BYTES)
            else:
                await trio.lowlevel.checkpoint()
            has_waited = True

    def hang_up(self) -> None:
        """Close this end; a machine without power does not say so to the other one."""
        if self.is_closed:
            return
        self.is_closed = True
        if self.owner is not None:
            self.owner.streams.remove(self)
        if self.owner is None or self.owner.speaks:
            self.outgoing.end(self.wire.network.rng.uniform(*self.wire.network.weather.delay_s))
            self.incoming.drop()
        self.wire.forget()

    async def aclose(self) -> None:
        self.hang_up()
        await trio.lowlevel.checkpoint()


class Listener(trio.abc.Listener[End]):
    """Accepts what others dial."""

    def __init__(self, network: "Network", owner: Computer) -> None:
        self._network, self._owner = network, owner
        self.queue, self._arrivals = trio.open_memory_channel[End](16)
        owner.listeners.append(self)

    async def accept(self) -> End:
        return await self._arrivals.receive()

    async def aclose(self) -> None:
        if self in self._owner.listeners:
            self._owner.listeners.remove(self)
            del self._network.listeners[self._owner.index]
            while self._arrivals.statistics().current_buffer_used:
                self._arrivals.receive_nowait().hang_up()
            self._arrivals.close()
        await trio.lowlevel.checkpoint()


class MachineTransport:
    """Implements `p2p.transport.Transport` for one machine, or for a stranger."""

    def __init__(
        self, network: "Network", owner: Computer | None, certificate: CertificateIdentity
    ) -> None:
        self._network, self._owner = network, owner
        self.own_certificate = certificate

    async def listen(self, host: str, port: int) -> Listening:
        await trio.lowlevel.checkpoint()
        if self._owner is None or host != host_of(self._owner.index):
            raise UnavailableError(f"cannot listen on {host}:{port}")
        listener = Listener(self._network, self._owner)
        self._network.listeners[self._owner.index] = listener, self.own_certificate
        return Listening([listener], port)

    async def secure(self, stream: trio.abc.Stream) -> Connection:
        assert isinstance(stream, End)
        try:
            await self._network.pause()
        except BaseException:
            await trio.aclose_forcefully(stream)
            raise
        if stream.wire.is_torn or stream.certificate is None:
            await trio.aclose_forcefully(stream)
            raise PeerProtocolError("TLS handshake failed: connection reset")
        return Connection(stream, stream.certificate, "caller", 0)

    async def dial(self, host: str, port: int) -> Connection:
        target = self._network.at(host)
        await self._network.pause()
        while self._network.is_cut(self._owner, target) or not target.has_power:
            await trio.sleep(RETRY_S)
        if target.index not in self._network.listeners:
            raise UnavailableError(f"cannot reach {host}:{port}: refused")
        listener, certificate = self._network.listeners[target.index]
        ours, theirs = Wire(self._network, self._owner, target).ends
        ours.certificate, theirs.certificate = certificate, self.own_certificate
        try:
            listener.queue.send_nowait(theirs)
            await self._network.pause()
        except trio.WouldBlock:
            theirs.hang_up()
            await trio.aclose_forcefully(ours)
            raise UnavailableError(f"cannot reach {host}:{port}: too many callers") from None
        except BaseException:
            await trio.aclose_forcefully(ours)
            raise
        return Connection(ours, certificate, host, port)


class Network:
    """All wires, and what happens to them."""

    def __init__(self, machines: Sequence[Computer], rng: random.Random, note: Any) -> None:
        """`note` is told what leaves a machine."""
        self.weather = Weather()
        self.wires: list[Wire] = []
        self.listeners: dict[int, tuple[Listener, CertificateIdentity]] = {}
        self.rng = rng
        self._machines = machines
        self._note = note

    def at(self, host: str) -> Computer:
        """The machine of a host name."""
        return self._machines[int(host.removeprefix(host_of(0)[:-1]))]

    async def pause(self) -> None:
        """One way through the network."""
        await trio.sleep(self.rng.uniform(*self.weather.delay_s))

    def note_bytes(self, end: End, piece: bytes) -> None:
        names = [None if one is None else one.index for one in end.wire.machines]
        self._note("bytes", names, end is end.wire.ends[0], len(piece), zlib.crc32(piece))

    def is_cut(self, one: Computer | None, other: Computer | None) -> bool:
        """Whether nothing comes through between two machines."""
        if one is None or other is None or not self.weather.cut:
            return False
        return (min(one.index, other.index), max(one.index, other.index)) in self.weather.cut

    def cut(self, pair: tuple[int, int]) -> None:
        """Nothing comes through between two machines until `heal`; nobody is told."""
        self.weather.cut.add(pair)

    def heal(self) -> None:
        """Nothing is cut; what was held back goes on."""
        self.weather.cut.clear()
        for wire in self.wires:
            for pipe in wire.pipes:
                pipe.notify()

    def tear(self, share: float) -> None:
        """Reset a share of all connections."""
        for wire in list(self.wires):
            if self.rng.random() < share:
                wire.tear()

    def rebooted(self, machine: Computer) -> None:
        """A machine has power again and knows nothing of its old connections."""
        for wire in list(self.wires):
            if any(one is machine for one in wire.machines):
                wire.tear()
