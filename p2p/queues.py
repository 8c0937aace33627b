"""The frames that wait to be sent to one peer, by class, each class with its bound.

What it decides: what goes first, and what is lost when a peer reads more slowly than we speak.
What it never does: wait, send, or look into a payload.
Votes first: a late vote costs a round, a late batch costs nothing, because it is pulled again.
"""

from collections import deque
from dataclasses import dataclass
from enum import IntEnum, unique

from ledger.limits import KIB, MIB
from p2p.frames import FrameKind

WRITE_BYTES = 256 * KIB
"""A write stops growing here: 0.2 s on a 10 Mbit/s line, and a new vote waits no longer, or as long
as one frame, of which the largest, a batch of 1 MiB, takes 0.9 s (docs/decisions/0026)."""


@unique
class Traffic(IntEnum):
    """The classes of frames, most urgent first."""

    CONSENSUS = 0
    BATCHES = 1
    SYNC = 2


@dataclass(frozen=True, slots=True)
class QueueLimit:
    """How much may wait."""

    frames: int
    size_bytes: int


# Requests for batches are small and hold up a vote: they travel with consensus.
TRAFFIC = {
    FrameKind.HELLO: Traffic.CONSENSUS,
    FrameKind.HELLO_PROOF: Traffic.CONSENSUS,
    FrameKind.STATUS: Traffic.CONSENSUS,
    FrameKind.BATCH: Traffic.BATCHES,
    FrameKind.BATCH_REQUEST: Traffic.CONSENSUS,
    FrameKind.BATCH_RESPONSE: Traffic.BATCHES,
    FrameKind.PROPOSAL: Traffic.CONSENSUS,
    FrameKind.VOTE: Traffic.CONSENSUS,
    FrameKind.BLOCK_REQUEST: Traffic.SYNC,
    FrameKind.BLOCK_RESPONSE: Traffic.SYNC,
    FrameKind.PING: Traffic.CONSENSUS,
    FrameKind.PONG: Traffic.CONSENSUS,
    FrameKind.MESSAGES: Traffic.CONSENSUS,
    FrameKind.SNAPSHOT_REQUEST: Traffic.SYNC,
    FrameKind.SNAPSHOT_RESPONSE: Traffic.SYNC,
}
_TRAFFIC_BY_NUMBER = (Traffic.SYNC, *(TRAFFIC[kind] for kind in FrameKind))

QUEUE_LIMITS = {
    # Four heights of votes of 128 validators; bytes for 1,024 votes or 200 full proposals.
    Traffic.CONSENSUS: QueueLimit(frames=1_024, size_bytes=16 * MIB),
    # Ten seconds of a 25 Mbit/s line; whoever is further behind pulls.
    Traffic.BATCHES: QueueLimit(frames=256, size_bytes=32 * MIB),
    # A peer has one question for blocks or four for a snapshot open, and we have as many; sixteen
    # are a peer that does not read.
    Traffic.SYNC: QueueLimit(frames=16, size_bytes=16 * MIB),
}


_KIND_OFFSET = 4  # behind the length


class _Queue:
    """One bounded class of frames."""

    __slots__ = ("frames", "limit", "size_bytes")

    def __init__(self, limit: QueueLimit) -> None:
        self.frames: deque[bytes] = deque()
        self.size_bytes = 0
        self.limit = limit

    def has_room(self, frame_bytes: int) -> bool:
        return (
            len(self.frames) < self.limit.frames
            and self.size_bytes + frame_bytes <= self.limit.size_bytes
        )

    def append(self, frame: bytes) -> None:
        self.frames.append(frame)
        self.size_bytes += len(frame)

    def popleft(self) -> bytes:
        frame = self.frames.popleft()
        self.size_bytes -= len(frame)
        return frame

    def drop_least(self) -> None:
        """Drop the oldest vote, which is the cheapest to get again, or else the oldest frame."""
        frames = self.frames
        for index, frame in enumerate(frames):
            if frame[_KIND_OFFSET] == FrameKind.VOTE:
                self.size_bytes -= len(frame)
                del frames[index]
                return
        self.popleft()


class OutboundQueues:
    """The three queues of one peer."""

    __slots__ = ("_batches", "_by_kind", "_consensus", "_is_lossy", "_sync", "dropped")

    def __init__(self) -> None:
        queues = {traffic: _Queue(limit) for traffic, limit in QUEUE_LIMITS.items()}
        self._consensus = queues[Traffic.CONSENSUS]
        self._batches = queues[Traffic.BATCHES]
        self._sync = queues[Traffic.SYNC]
        # Indexed by the kind byte (0 is no kind): hashing an enum member costs more than pushing.
        self._by_kind = tuple(queues[traffic] for traffic in _TRAFFIC_BY_NUMBER)
        self._is_lossy = False
        self.dropped = 0

    def push(self, kind: FrameKind, frame: bytes) -> bool:
        """Queue an encoded frame; False means that this frame was dropped.

        A full consensus queue drops its oldest votes, which are the least useful, and turns lossy:
        the peer has to be told again where we stand. A full queue of batches or blocks drops the
        new one, which is pulled later.
        """
        queue = self._by_kind[kind]
        if not queue.has_room(len(frame)):
            if queue is not self._consensus:
                self.dropped += 1
                return False
            self._is_lossy = True
            while not queue.has_room(len(frame)):
                queue.drop_least()
                self.dropped += 1
        queue.append(frame)
        return True

    def take_lossy(self) -> bool:
        """Whether consensus frames were dropped since the last call."""
        was_lossy, self._is_lossy = self._is_lossy, False
        return was_lossy

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._consensus.frames or self._batches.frames or self._sync.frames)

    @property
    def is_streaming(self) -> bool:
        """Whether batches wait, so that the line is busy with what the peer needs more."""
        return bool(self._batches.frames)

    def holds_batch(self, wire: bytes) -> bool:
        """Whether a batch waits to be sent already.  Cost: O(waiting batches)."""
        return any(frame.endswith(wire) for frame in self._batches.frames)

    def take(self) -> list[bytes]:
        """The frames of the next write: consensus first, then batches and blocks by turns.

        About WRITE_BYTES in all; the last frame may reach over.
        """
        taken: list[bytes] = []
        room_bytes = WRITE_BYTES
        consensus = self._consensus
        while consensus.frames and room_bytes > 0:
            frame = consensus.popleft()
            taken.append(frame)
            room_bytes -= len(frame)
        turns = (self._batches, self._sync)
        while room_bytes > 0 and (turns[0].frames or turns[1].frames):
            for queue in turns:
                if queue.frames and room_bytes > 0:
                    frame = queue.popleft()
                    taken.append(frame)
                    room_bytes -= len(frame)
        return taken
