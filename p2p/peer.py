"""One accepted link: a writer, a reader and a heartbeat, until it ends.

What it decides: when bytes leave, and when a link is dead.
What it never does: reconnect, judge payloads, or make its caller wait: `send` queues or drops.
One writer task owns the sending side, because a cancelled `send_all` leaves a TLS stream broken;
so whatever goes wrong while sending closes the link. Back-pressure is TCP's: the reader awaits the
handler, and reads on only after it returned and the peer's budgets allow it (p2p/metering.py).
Source: trio documentation of SSLStream.send_all (cancellation).
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum, unique

import trio

from ledger.errors import PeerProtocolError
from ledger.ids import Address, TimestampMs
from ledger.limits import KIB
from p2p.frames import Frame, FrameKind, FrameReader, encode_frame
from p2p.hello import CertificateIdentity, RemoteNode
from p2p.metering import Meter
from p2p.queues import OutboundQueues
from p2p.transport import Connection

READ_BYTES = 256 * KIB
"""Most plain text handed over at once."""
SLICE_BYTES = 256 * KIB
"""One send, which must pass within SEND_TIMEOUT_S: 210 kbit/s is the slowest useful line."""
SEND_TIMEOUT_S = 10.0
"""A peer that takes nothing for so long will not keep up; it pulls what it missed later."""
PING_INTERVAL_S = 10.0
"""Often enough to keep firewalls' tables and the round-trip figure fresh; free otherwise."""
SILENCE_LIMIT_S = 30.0
"""Three pings unanswered: the machine or the way to it is gone."""

_TOKEN_BYTES = 8


@unique
class Direction(StrEnum):
    """Who dialled."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A link as operators see it; byte counts are frames as sent and received, without TLS."""

    address: Address
    role: str
    host: str
    port: int
    direction: Direction
    connected_since_ms: TimestampMs
    sent_bytes: int
    received_bytes: int
    dropped_frames: int
    throttled_ms: int
    certificate_expires_ms: TimestampMs | None
    round_trip_ms: int | None


class Peer:
    """A link to a node that proved its address. Made by the network, used by its handler."""

    __slots__ = (
        "_close_reason",
        "_connected_since_ms",
        "_connection",
        "_heard_at",
        "_is_handling",
        "_is_writer_parked",
        "_meter",
        "_on_frames",
        "_ping_sent_at",
        "_ping_token",
        "_queues",
        "_received_bytes",
        "_round_trip_ms",
        "_scope",
        "_sending_since",
        "_sent_bytes",
        "_writer_lot",
        "closed",
        "direction",
        "fault",
        "is_slow",
        "remote",
    )

    def __init__(
        self,
        connection: Connection,
        remote: RemoteNode,
        direction: Direction,
        connected_since_ms: TimestampMs,
        on_frames: Callable[["Peer", list[Frame]], Awaitable[None]],
    ) -> None:
        """Wrap a stream whose hello is done; `run` moves its bytes."""
        self.remote = remote
        self.direction = direction
        self.closed = trio.Event()
        self.fault: PeerProtocolError | None = None
        self.is_slow = False
        self._connection = connection
        self._connected_since_ms = connected_since_ms
        self._on_frames = on_frames
        self._queues = OutboundQueues()
        self._meter = Meter(trio.current_time())
        self._scope = trio.CancelScope()
        self._close_reason: str | None = None
        self._writer_lot = trio.lowlevel.ParkingLot()
        self._is_writer_parked = False
        self._is_handling = False
        self._heard_at = trio.current_time()
        self._ping_token = 0
        self._ping_sent_at = 0.0
        self._round_trip_ms: int | None = None
        self._sending_since: float | None = None
        self._sent_bytes = 0
        self._received_bytes = 0

    @property
    def address(self) -> Address:
        """The address that the peer proved."""
        return self.remote.address

    @property
    def certificate(self) -> CertificateIdentity:
        """What the peer's TLS certificate says."""
        return self._connection.certificate

    @property
    def throttled_s(self) -> float:
        """For how long this peer was not read, because of its budgets."""
        return self._meter.throttled_s

    @property
    def close_reason(self) -> str | None:
        """Why the link ends or ended, None while it is well."""
        return self._close_reason

    @property
    def info(self) -> PeerInfo:
        """The link in figures."""
        return PeerInfo(
            address=self.remote.address,
            role=self.remote.role,
            host=self._connection.host,
            port=self._connection.port,
            direction=self.direction,
            connected_since_ms=self._connected_since_ms,
            sent_bytes=self._sent_bytes,
            received_bytes=self._received_bytes,
            dropped_frames=self._queues.dropped,
            throttled_ms=round(self._meter.throttled_s * 1_000),
            certificate_expires_ms=self._connection.certificate.expires_ms,
            round_trip_ms=self._round_trip_ms,
        )

    def send(self, kind: FrameKind, payload: bytes) -> bool:
        """Queue a message; never waits. False: dropped, the queue of its class is full.

        Raises: LocalProtocolError when the payload is over the limit of its kind.
        """
        return self.send_frame(kind, encode_frame(kind, payload))

    def send_frame(self, kind: FrameKind, frame: bytes) -> bool:
        """Queue an encoded frame that other peers may share; otherwise as `send`."""
        if self._close_reason is not None:
            return False
        is_queued = self._queues.push(kind, frame)
        if self._is_writer_parked:
            self._is_writer_parked = False
            self._writer_lot.unpark()
        return is_queued

    @property
    def is_streaming(self) -> bool:
        """Whether batches wait for this peer's line."""
        return self._queues.is_streaming

    def holds_batch(self, wire: bytes) -> bool:
        """Whether a batch waits for this peer's line already: it need not be sent again."""
        return self._queues.holds_batch(wire)

    def take_lossy(self) -> bool:
        """Whether consensus frames to this peer were dropped since the last call: re-send state."""
        return self._queues.take_lossy()

    def demote(self, *, is_demoted: bool) -> None:
        """Read little from this peer, or as much as from any."""
        self._meter.demote(is_demoted=is_demoted)

    def charge_signatures(self, count: int) -> None:
        """Count signatures that are checked because of this peer; it may be read later for it."""
        self._meter.take_signatures(count)

    def charge_served(self, size_bytes: int) -> None:
        """Count an answer that this peer asked for."""
        self._meter.take_served(size_bytes)

    def close(self, reason: str) -> None:
        """End the link; the first reason stands. Nothing is handed to the handler any more."""
        if self._close_reason is None:
            self._close_reason = reason
            self._scope.cancel()

    async def run(self) -> None:
        """Move bytes until the link ends, then close it; `close_reason` and `fault` tell why.

        Raises only what the handler raises, PeerProtocolError excepted: that ends this link alone.
        """
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write)
                    nursery.start_soon(self._watch_sends)
                    nursery.start_soon(self._keep_alive)
                    await self._read()
        finally:
            self.close("shutting down")
            try:
                await trio.aclose_forcefully(self._connection.stream)
            finally:
                self.closed.set()

    async def _read(self) -> None:
        reader = FrameReader()
        receive_some = self._connection.stream.receive_some
        try:
            while True:
                data = await receive_some(READ_BYTES)
                if not data:
                    self.close("closed by the peer")
                    return
                self._received_bytes += len(data)
                self._heard_at = trio.current_time()
                frames = reader.feed(data)
                self._meter.take_read(len(data), len(frames))
                frames = self._without_control(frames)
                if frames and self._close_reason is None:
                    await self._hand_over(frames)
                pause_s = self._meter.pause_s(trio.current_time())
                if pause_s:
                    await self._hold(pause_s)
        except trio.BrokenResourceError as error:
            self.close(f"connection lost: {error.__cause__ or error}")
        except PeerProtocolError as error:
            self.fault = error
            self.close(f"protocol error: {error}")

    async def _hand_over(self, frames: list[Frame]) -> None:
        self._is_handling = True
        await self._on_frames(self, frames)
        # While we worked we did not listen: that silence was ours.
        self._is_handling = False
        self._heard_at = trio.current_time()

    async def _hold(self, pause_s: float) -> None:
        """Read nothing: TCP tells the peer to slow down."""
        self._is_handling = True
        await trio.sleep(pause_s)
        self._is_handling = False
        self._heard_at = trio.current_time()

    def _without_control(self, frames: list[Frame]) -> list[Frame]:
        """The frames that are not ours to answer."""
        # Written out: a generator here costs more than everything else in the reader.
        for kind, _ in frames:
            if kind is FrameKind.PING or kind is FrameKind.PONG:
                break
        else:
            return frames
        pings = [payload for kind, payload in frames if kind is FrameKind.PING]
        if pings:
            # A flood of pings in one read earns one answer.
            self.send(FrameKind.PONG, pings[-1])
        for kind, payload in frames:
            if kind is FrameKind.PONG:
                self._take_pong(payload)
        return [frame for frame in frames if frame[0] not in (FrameKind.PING, FrameKind.PONG)]

    def _take_pong(self, payload: bytes) -> None:
        if payload == self._ping_token.to_bytes(_TOKEN_BYTES, "big"):
            self._round_trip_ms = round((trio.current_time() - self._ping_sent_at) * 1_000)

    async def _write(self) -> None:
        queues = self._queues
        while True:
            if queues.is_empty:
                self._is_writer_parked = True
                await self._writer_lot.park()
            frames = queues.take()
            data = frames[0] if len(frames) == 1 else b"".join(frames)
            if not await self._send(data):
                return

    async def _send(self, data: bytes) -> bool:
        """Send in slices, which `_watch_sends` times; False means that the link is closing."""
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            piece = view[start : start + SLICE_BYTES]
            self._sending_since = trio.current_time()
            try:
                await self._connection.stream.send_all(piece)
            except trio.BrokenResourceError as error:
                self.close(f"connection lost: {error.__cause__ or error}")
                return False
            self._sent_bytes += len(piece)
        self._sending_since = None
        return True

    async def _watch_sends(self) -> None:
        """End the link when one slice is not sent within the time-out.

        One watch for all of them: a deadline of its own costs more than encrypting a vote.
        """
        while True:
            now = trio.current_time()
            due = (now if self._sending_since is None else self._sending_since) + SEND_TIMEOUT_S
            if now >= due:
                self.is_slow = True
                self.close("slow reader: nothing sent within the time-out")
            # What begins to be sent meanwhile is not due earlier.
            await trio.sleep_until(due)

    async def _keep_alive(self) -> None:
        """Ping now, for a first round trip, and then at every interval; notice a dead peer."""
        while True:
            self._ping_token += 1
            self._ping_sent_at = trio.current_time()
            self.send(FrameKind.PING, self._ping_token.to_bytes(_TOKEN_BYTES, "big"))
            await trio.sleep(PING_INTERVAL_S)
            silence_s = trio.current_time() - self._heard_at
            if silence_s >= SILENCE_LIMIT_S and not self._is_handling:
                self.close("silent for too long")
