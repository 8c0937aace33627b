"""One link: coalesced writes, back-pressure, heartbeat, and every way in which it ends."""

from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from ledger.errors import InvariantError, PeerProtocolError
from ledger.ids import Height, TimestampMs
from p2p.frames import FrameKind, FrameReader, encode_frame
from p2p.hello import RemoteNode
from p2p.peer import Direction, Peer
from p2p.transport import Connection
from tests.unit.p2p.memory_transport import TestNode

BOB = TestNode(2)
PING = FrameKind.PING


class CountingStream(trio.abc.Stream):
    """Counts the writes that reach a stream."""

    def __init__(self, inner: trio.abc.Stream) -> None:
        self.inner = inner
        self.writes: list[int] = []

    async def send_all(self, data) -> None:
        self.writes.append(len(data))
        await self.inner.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        await self.inner.wait_send_all_might_not_block()

    async def receive_some(self, max_bytes=None) -> bytes:
        return await self.inner.receive_some(max_bytes)

    async def aclose(self) -> None:
        await self.inner.aclose()


async def ignore(peer: Peer, frames: list[tuple[FrameKind, bytes]]) -> None:
    await trio.lowlevel.checkpoint()


def make_peer(stream: trio.abc.Stream, on_frames=ignore) -> Peer:
    connection = Connection(stream, BOB.certificate, "far", 1)
    remote = RemoteNode(BOB.address, BOB.public_key, "master", Height(7))
    return Peer(connection, remote, Direction.INBOUND, TimestampMs(5), on_frames)


@asynccontextmanager
async def running(peer: Peer):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(peer.run)
        yield
        nursery.cancel_scope.cancel()


def simulate(main: Callable[[], Awaitable[None]]) -> None:
    """Run with a clock that jumps over every wait."""

    async def bounded() -> None:
        with trio.fail_after(1_000):
            await main()

    trio.run(bounded, clock=trio.testing.MockClock(autojump_threshold=0))


async def read_frames(
    stream: trio.abc.Stream, count: int, *, with_pings: bool = False
) -> list[tuple[FrameKind, bytes]]:
    reader, frames = FrameReader(), []
    while len(frames) < count:
        data = await stream.receive_some(65_536)
        frames += [frame for frame in reader.feed(data) if with_pings or frame[0] is not PING]
    return frames


def test_messages_queued_together_leave_in_one_write() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        stream = CountingStream(ours)
        peer = make_peer(stream)
        async with running(peer):
            await trio.testing.wait_all_tasks_blocked()
            stream.writes.clear()
            votes = [(FrameKind.VOTE, b"%d" % number) for number in range(100)]
            assert all(peer.send(*vote) for vote in votes)
            assert await read_frames(theirs, 100) == votes
            assert stream.writes == [sum(len(encode_frame(*vote)) for vote in votes)]

    simulate(main)


def test_a_shared_frame_is_sent_without_being_encoded_again() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        async with running(peer):
            assert peer.send_frame(FrameKind.VOTE, encode_frame(FrameKind.VOTE, b"once"))
            assert await read_frames(theirs, 1) == [(FrameKind.VOTE, b"once")]

    simulate(main)


def test_a_large_frame_is_sent_in_slices_and_arrives_whole() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        stream = CountingStream(ours)
        peer = make_peer(stream)
        block = bytes(range(256)) * 4 * 1_024
        async with running(peer):
            peer.send(FrameKind.BATCH, block)
            assert await read_frames(theirs, 1) == [(FrameKind.BATCH, block)]
        assert max(stream.writes) == 256 * 1_024
        assert peer.info.sent_bytes == sum(stream.writes)

    simulate(main)


def test_frames_of_one_read_come_in_one_call_and_reading_waits_for_the_handler() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        calls: list[list[tuple[FrameKind, bytes]]] = []
        may_go_on = trio.Event()

        async def on_frames(_, frames) -> None:
            calls.append(frames)
            await may_go_on.wait()

        async with running(make_peer(ours, on_frames)):
            vote = encode_frame(FrameKind.VOTE, b"v")
            await theirs.send_all(vote * 3)
            await trio.testing.wait_all_tasks_blocked()
            await theirs.send_all(vote * 2)
            await trio.testing.wait_all_tasks_blocked()
            assert [len(frames) for frames in calls] == [3]
            may_go_on.set()
            await trio.testing.wait_all_tasks_blocked()
            assert [len(frames) for frames in calls] == [3, 2]

    simulate(main)


def test_pings_are_answered_and_never_reach_the_handler() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        seen: list[tuple[FrameKind, bytes]] = []

        async def on_frames(_, frames) -> None:
            seen.extend(frames)
            await trio.lowlevel.checkpoint()

        async with running(make_peer(ours, on_frames)):
            pings = [encode_frame(PING, b"%08d" % number) for number in range(1_000)]
            await theirs.send_all(b"".join(pings) + encode_frame(FrameKind.VOTE, b"v"))
            answers = await read_frames(theirs, 1)
            await trio.testing.wait_all_tasks_blocked()
        assert answers == [(FrameKind.PONG, b"00000999")]
        assert seen == [(FrameKind.VOTE, b"v")]

    simulate(main)


def test_the_round_trip_is_measured_by_the_answer_to_the_last_ping() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        async with running(peer):
            [(_, token)] = await read_frames(theirs, 1, with_pings=True)
            await theirs.send_all(encode_frame(FrameKind.PONG, b"another!"))
            await trio.sleep(0.05)
            assert peer.info.round_trip_ms is None
            await theirs.send_all(encode_frame(FrameKind.PONG, token))
            await trio.testing.wait_all_tasks_blocked()
            assert peer.info.round_trip_ms == 50

    simulate(main)


def test_an_idle_link_wakes_only_for_its_ping() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        async with running(make_peer(ours)):
            began_at = trio.current_time()
            for expected_s in (0, 10, 20):
                await read_frames(theirs, 1, with_pings=True)
                assert round(trio.current_time() - began_at, 3) == expected_s

    simulate(main)


def test_a_silent_peer_is_dead_after_thirty_seconds() -> None:
    async def main() -> None:
        ours, _theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        began_at = trio.current_time()
        await peer.run()
        assert peer.close_reason == "silent for too long"
        assert round(trio.current_time() - began_at, 3) == 30

    simulate(main)


def test_a_handler_that_takes_a_minute_does_not_make_its_peer_look_dead() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()

        async def on_frames(_, __) -> None:
            await trio.sleep(60)

        peer = make_peer(ours, on_frames)
        async with running(peer):
            await theirs.send_all(encode_frame(FrameKind.VOTE, b"v"))
            await trio.sleep(85)
            assert peer.close_reason is None
            await peer.closed.wait()
            assert peer.close_reason == "silent for too long"

    simulate(main)


def test_a_slow_reader_is_dropped_after_ten_seconds() -> None:
    async def main() -> None:
        ours, _theirs = trio.testing.lockstep_stream_pair()
        peer = make_peer(ours)
        began_at = trio.current_time()
        peer.send(FrameKind.VOTE, b"v")
        await peer.run()
        assert peer.close_reason == "slow reader: nothing sent within the time-out"
        assert round(trio.current_time() - began_at, 3) == 10
        assert not peer.send(FrameKind.VOTE, b"v")

    simulate(main)


def test_what_begins_to_be_sent_later_has_its_ten_seconds_too() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        peer = make_peer(ours)
        began_at = trio.current_time()
        async with running(peer):
            await theirs.receive_some(100)  # the first ping
            await trio.sleep(7)
            peer.send(FrameKind.VOTE, b"v")
            await peer.closed.wait()
        assert peer.close_reason == "slow reader: nothing sent within the time-out"
        assert round(trio.current_time() - began_at, 3) == 17

    simulate(main)


def test_a_reader_that_is_slow_but_alive_is_kept() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.lockstep_stream_pair()
        peer = make_peer(ours)
        block = bytes(1024 * 1024)
        peer.send(FrameKind.BATCH, block)
        async with running(peer):
            received, reader = [], FrameReader()
            while not received:
                await trio.sleep(6)
                data = await theirs.receive_some(256 * 1024)
                received = [frame for frame in reader.feed(data) if frame[0] is not PING]
                await theirs.send_all(encode_frame(FrameKind.STATUS, b""))
            assert received == [(FrameKind.BATCH, block)]

    simulate(main)


def test_the_end_of_the_stream_ends_the_link() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        theirs.send_stream.close()
        await peer.run()
        assert (peer.close_reason, peer.fault) == ("closed by the peer", None)
        assert peer.closed.is_set()
        with pytest.raises(trio.ClosedResourceError):
            await ours.send_all(b"x")

    simulate(main)


def test_garbage_is_a_fault_of_the_peer() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        await theirs.send_all(b"GET / HTTP/1.1\r\n\r\n")
        await peer.run()
        assert isinstance(peer.fault, PeerProtocolError)
        assert peer.close_reason == f"protocol error: {peer.fault}"

    simulate(main)


def test_a_handler_that_finds_the_peer_at_fault_ends_the_link() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()

        async def on_frames(_, __) -> None:
            await trio.lowlevel.checkpoint()
            raise PeerProtocolError("bad vote")

        peer = make_peer(ours, on_frames)
        await theirs.send_all(encode_frame(FrameKind.VOTE, b"v"))
        await peer.run()
        assert str(peer.fault) == "bad vote"

    simulate(main)


def test_our_own_error_in_the_handler_is_never_swallowed() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()

        async def on_frames(_, __) -> None:
            await trio.lowlevel.checkpoint()
            raise InvariantError("two blocks at one height")

        peer = make_peer(ours, on_frames)
        await theirs.send_all(encode_frame(FrameKind.VOTE, b"v"))
        with pytest.RaisesGroup(InvariantError):
            await peer.run()
        assert peer.closed.is_set()

    simulate(main)


def test_nothing_is_handed_over_after_close() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        seen: list[bytes] = []

        async def on_frames(peer, frames) -> None:
            seen.extend(payload for _, payload in frames)
            peer.close("enough")
            await trio.lowlevel.checkpoint()

        peer = make_peer(ours, on_frames)
        await theirs.send_all(encode_frame(FrameKind.VOTE, b"1"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.run)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(trio.BrokenResourceError):
                await theirs.send_all(encode_frame(FrameKind.VOTE, b"2"))
        assert seen == [b"1"]
        assert peer.close_reason == "enough"

    simulate(main)


def test_what_arrives_in_the_moment_of_closing_is_not_handed_over() -> None:
    async def main() -> None:
        ours, _theirs = trio.testing.memory_stream_pair()
        seen: list[object] = []

        class ClosingStream(CountingStream):
            async def receive_some(self, max_bytes=None) -> bytes:
                await trio.lowlevel.checkpoint()
                peer.close("banned")
                return encode_frame(FrameKind.VOTE, b"late")

        async def on_frames(_, frames) -> None:
            seen.extend(frames)
            await trio.lowlevel.checkpoint()

        peer = make_peer(ClosingStream(ours), on_frames)
        await peer.run()
        assert (seen, peer.close_reason) == ([], "banned")

    simulate(main)


def test_cancelling_the_link_closes_the_stream() -> None:
    async def main() -> None:
        ours, theirs = trio.testing.memory_stream_pair()
        peer = make_peer(ours)
        async with running(peer):
            await trio.testing.wait_all_tasks_blocked()
        assert peer.closed.is_set()
        assert peer.close_reason == "shutting down"
        await read_frames(theirs, 1, with_pings=True)
        assert await theirs.receive_some() == b""

    simulate(main)
