"""Queues: what goes first, and what is lost when there is no room."""

from p2p.frames import FrameKind, encode_frame
from p2p.queues import QUEUE_LIMITS, TRAFFIC, WRITE_BYTES, OutboundQueues, Traffic

MIB = 1024 * 1024


def frame(kind: FrameKind, number: int, size: int = 4) -> bytes:
    return encode_frame(kind, number.to_bytes(size, "big"))


def drain(queues: OutboundQueues) -> list[bytes]:
    taken = []
    while not queues.is_empty:
        taken += queues.take()
    return taken


def test_every_kind_belongs_to_a_class() -> None:
    assert set(TRAFFIC) == set(FrameKind)
    assert set(QUEUE_LIMITS) == set(Traffic)


def test_consensus_goes_first_then_batches_and_blocks_by_turns() -> None:
    queues = OutboundQueues()
    sync = [frame(FrameKind.BLOCK_RESPONSE, number) for number in range(2)]
    batches = [frame(FrameKind.BATCH, number) for number in range(3)]
    votes = [frame(FrameKind.VOTE, number) for number in range(2)]
    for kind, queued in (
        (FrameKind.BLOCK_RESPONSE, sync),
        (FrameKind.BATCH, batches),
        (FrameKind.VOTE, votes),
    ):
        assert all(queues.push(kind, item) for item in queued)
    assert queues.take() == [*votes, batches[0], sync[0], batches[1], sync[1], batches[2]]
    assert queues.is_empty


def test_a_write_stops_at_its_size_and_a_vote_overtakes_what_remains() -> None:
    queues = OutboundQueues()
    batches = [frame(FrameKind.BATCH, number, size=WRITE_BYTES // 2) for number in range(4)]
    for batch in batches:
        queues.push(FrameKind.BATCH, batch)
    assert queues.take() == batches[:2]
    vote = frame(FrameKind.VOTE, 9)
    queues.push(FrameKind.VOTE, vote)
    assert queues.take() == [vote, *batches[2:4]]


def test_a_frame_larger_than_a_write_goes_alone() -> None:
    queues = OutboundQueues()
    blocks = [frame(FrameKind.BATCH_RESPONSE, number, size=2 * WRITE_BYTES) for number in range(2)]
    for block in blocks:
        queues.push(FrameKind.BATCH_RESPONSE, block)
    assert queues.take() == [blocks[0]]
    assert queues.take() == [blocks[1]]


def test_a_full_write_ends_in_the_middle_of_consensus_and_of_a_turn() -> None:
    queues = OutboundQueues()
    messages = [frame(FrameKind.MESSAGES, number, size=WRITE_BYTES) for number in range(2)]
    batch = frame(FrameKind.BATCH, 1, size=WRITE_BYTES)
    block = frame(FrameKind.BLOCK_RESPONSE, 1)
    for item in messages:
        queues.push(FrameKind.MESSAGES, item)
    queues.push(FrameKind.BATCH, batch)
    queues.push(FrameKind.BLOCK_RESPONSE, block)
    assert [queues.take() for _ in range(4)] == [[messages[0]], [messages[1]], [batch], [block]]


def test_a_full_consensus_queue_drops_the_oldest_and_is_lossy_once() -> None:
    queues = OutboundQueues()
    votes = [frame(FrameKind.VOTE, number) for number in range(1_026)]
    assert [queues.push(FrameKind.VOTE, vote) for vote in votes[:1_024]] == [True] * 1_024
    assert not queues.take_lossy()
    assert queues.push(FrameKind.VOTE, votes[1_024])
    assert queues.push(FrameKind.VOTE, votes[1_025])
    assert queues.take_lossy()
    assert not queues.take_lossy()
    assert queues.dropped == 2
    assert drain(queues) == votes[2:]


def test_votes_are_dropped_before_proposals_and_questions() -> None:
    queues = OutboundQueues()
    kinds = [FrameKind.PROPOSAL, FrameKind.BATCH_REQUEST, *[FrameKind.VOTE] * 1_022]
    frames = [frame(kind, number) for number, kind in enumerate(kinds)]
    for kind, item in zip(kinds, frames, strict=True):
        assert queues.push(kind, item)
    newest = frame(FrameKind.STATUS, 9)
    assert queues.push(FrameKind.STATUS, newest)
    assert drain(queues) == [*frames[:2], *frames[3:], newest]


def test_a_batch_that_waits_is_found_whatever_kind_of_frame_carries_it() -> None:
    queues = OutboundQueues()
    queues.push(FrameKind.BATCH, encode_frame(FrameKind.BATCH, b"one"))
    queues.push(FrameKind.BATCH_RESPONSE, encode_frame(FrameKind.BATCH_RESPONSE, b"12345678two"))
    found = [queues.holds_batch(wire) for wire in (b"one", b"two", b"three")]
    assert (found, queues.is_streaming) == ([True, True, False], True)
    queues.take()
    assert not queues.holds_batch(b"one")
    assert not queues.is_streaming


def test_the_consensus_queue_is_bounded_in_bytes_too() -> None:
    queues = OutboundQueues()
    messages = [frame(FrameKind.MESSAGES, number, size=MIB) for number in range(16)]
    for item in messages:
        assert queues.push(FrameKind.MESSAGES, item)
    # 15 frames of 1 MiB and five bytes fit into 16 MiB, the sixteenth pushed the first one out.
    assert queues.take_lossy()
    assert drain(queues) == messages[1:]


def test_a_full_batch_queue_drops_the_new_batch_and_is_not_lossy() -> None:
    queues = OutboundQueues()
    batches = [frame(FrameKind.BATCH, number) for number in range(257)]
    taken = [queues.push(FrameKind.BATCH, batch) for batch in batches]
    assert taken == [True] * 256 + [False]
    assert not queues.take_lossy()
    assert queues.dropped == 1
    assert drain(queues) == batches[:256]


def test_batches_and_blocks_are_bounded_in_bytes() -> None:
    queues = OutboundQueues()
    item = frame(FrameKind.BATCH_RESPONSE, 1, size=MIB)
    taken = [queues.push(FrameKind.BATCH_RESPONSE, item) for _ in range(33)]
    assert taken == [True] * 31 + [False] * 2


def test_a_full_sync_queue_leaves_room_for_votes_and_batches() -> None:
    queues = OutboundQueues()
    request = frame(FrameKind.BLOCK_REQUEST, 1)
    assert [queues.push(FrameKind.BLOCK_REQUEST, request) for _ in range(17)] == [True] * 16 + [
        False
    ]
    assert queues.push(FrameKind.VOTE, frame(FrameKind.VOTE, 1))
    assert queues.push(FrameKind.BATCH, frame(FrameKind.BATCH, 1))


def test_room_comes_back_when_frames_leave() -> None:
    queues = OutboundQueues()
    item = frame(FrameKind.BATCH, 1, size=MIB)
    while queues.push(FrameKind.BATCH, item):
        pass
    queues.take()
    assert queues.push(FrameKind.BATCH, item)
    assert not queues.push(FrameKind.BATCH, item)
