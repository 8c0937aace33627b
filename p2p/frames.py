"""Frames: how the byte stream of one link is cut into messages.

What it decides: the kinds of messages, how large each may be, and where one ends.
What it never does: read a payload, touch a socket, or wait.
A frame is a u32 big-endian length of (kind byte and payload), the kind byte, the payload. Kind and
length are judged from these first five bytes, so a lying peer cannot make us buffer anything.
Source: the sans-IO form of h11; sizes from ledger/limits.py.
"""

from collections.abc import Mapping
from enum import IntEnum, unique
from struct import Struct
from types import MappingProxyType

from ledger.errors import LocalProtocolError, PeerProtocolError
from ledger.limits import BATCH_BYTES, BLOCK_RECORD_BYTES, KIB, MIB

Frame = tuple["FrameKind", bytes]

_HEAD = Struct(">IB")
_LENGTH_BYTES = 4
_HEAD_BYTES = _HEAD.size


@unique
class FrameKind(IntEnum):
    """The kind byte. Numbers are part of the wire format and are never reused."""

    HELLO = 1
    HELLO_PROOF = 2
    STATUS = 3
    BATCH = 4
    BATCH_REQUEST = 5
    BATCH_RESPONSE = 6
    PROPOSAL = 7
    VOTE = 8
    BLOCK_REQUEST = 9
    BLOCK_RESPONSE = 10
    PING = 11
    PONG = 12
    MESSAGES = 13
    SNAPSHOT_REQUEST = 14
    SNAPSHOT_RESPONSE = 15


# Payload bytes of the two frames that a peer may send before we know who it is.
HELLO_LIMITS: Mapping[FrameKind, int] = MappingProxyType(
    {
        # About 150 bytes; room for names, still nothing to a node with 64 half-open links.
        FrameKind.HELLO: 4 * KIB,
        # One signature.
        FrameKind.HELLO_PROOF: 4 * KIB,
    }
)

# Payload bytes of the frames of an accepted link.
LINK_LIMITS: Mapping[FrameKind, int] = MappingProxyType(
    {
        # Heights, rounds and a bitmap of votes held.
        FrameKind.STATUS: 16 * KIB,
        # A full batch, and head room for its author's signature and stamp.
        FrameKind.BATCH: BATCH_BYTES + 64 * KIB,
        # A number and a digest: one batch for each question keeps the links fair.
        FrameKind.BATCH_REQUEST: 64,
        # The number of the question and a batch, or nothing.
        FrameKind.BATCH_RESPONSE: BATCH_BYTES + 64 * KIB,
        # A block record as the ledger bounds it, and the proposer's round and signature.
        FrameKind.PROPOSAL: BLOCK_RECORD_BYTES + 16 * KIB,
        # About 150 bytes.
        FrameKind.VOTE: 512,
        # A number and a short range of heights.
        FrameKind.BLOCK_REQUEST: 64,
        # Records and certificates of blocks, up to 512 KiB and one more; bodies are pulled apart.
        FrameKind.BLOCK_RESPONSE: 512 * KIB + BLOCK_RECORD_BYTES + 32 * KIB,
        # A token of ours that comes back.
        FrameKind.PING: 8,
        FrameKind.PONG: 8,
        # Votes and proposals of one height sent again: 128 votes and 10 proposals.
        FrameKind.MESSAGES: 1 * MIB,
        # A number, a height, and which item: the name of a log is the longest part.
        FrameKind.SNAPSHOT_REQUEST: 2 * KIB,
        # A part of an item: 0.2 s at 10 Mbit/s, so that votes are not kept waiting.
        FrameKind.SNAPSHOT_RESPONSE: 256 * KIB + KIB,
    }
)

FRAME_LIMITS: Mapping[FrameKind, int] = MappingProxyType({**HELLO_LIMITS, **LINK_LIMITS})
"""Largest payload of every kind, in bytes."""

# Indexed by the kind byte (0 is no kind): hashing an enum member costs more than the look-up.
_LIMIT_BY_NUMBER = (0, *(FRAME_LIMITS[kind] for kind in FrameKind))


def encode_frame(kind: FrameKind, payload: bytes) -> bytes:
    """The frame as bytes, made once and shared by every peer it goes to.

    Raises: LocalProtocolError when the payload is over the limit of its kind.
    """
    if len(payload) > _LIMIT_BY_NUMBER[kind]:
        raise LocalProtocolError(
            f"{kind.name} of {len(payload)} bytes is over its limit of {FRAME_LIMITS[kind]}"
        )
    return _HEAD.pack(1 + len(payload), kind) + payload


class FrameReader:
    """Cuts a byte stream into frames, however it was split on the way. Cost: linear in the bytes.

    Buffers at most one unfinished frame within its limit. It is spent after an error: every later
    `feed` raises again, so a link that broke the protocol cannot recover by accident.
    """

    __slots__ = ("_buffer", "_limits", "_needed")

    def __init__(self, limits: Mapping[FrameKind, int] = LINK_LIMITS) -> None:
        """Accept the kinds of `limits`, each up to its payload bytes."""
        self._limits = {int(kind): (kind, limit) for kind, limit in limits.items()}
        self._buffer = bytearray()
        self._needed = _HEAD_BYTES

    @property
    def missing_bytes(self) -> int:
        """How many more bytes may be read before the next frame could be exceeded; at least 1."""
        return self._needed - len(self._buffer)

    def feed(self, data: bytes | bytearray) -> list[Frame]:
        """The frames that `data` completes, in order.

        Raises: PeerProtocolError for an unknown or unexpected kind and for a length of zero or
        over the limit of its kind. Frames completed by the same call are lost with it.
        """
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        if len(buffer) < self._needed:
            return frames
        # The first frame that was waiting ends in `data`, so what is left over afterwards came
        # with this call: no byte is moved twice, and the whole stays linear.
        start = 0
        with memoryview(buffer) as view:
            while len(buffer) - start >= _HEAD_BYTES:
                kind, end = self._judge(view, start)
                if end > len(buffer):
                    self._needed = end - start
                    break
                frames.append((kind, bytes(view[start + _HEAD_BYTES : end])))
                start = end
            else:
                self._needed = _HEAD_BYTES
        del buffer[:start]
        return frames

    def _judge(self, view: memoryview, start: int) -> tuple[FrameKind, int]:
        """The kind of the frame at `start` and where it ends."""
        length, number = _HEAD.unpack_from(view, start)
        known = self._limits.get(number)
        if known is None:
            raise PeerProtocolError(f"frame kind {number} is unknown or not expected now")
        kind, limit = known
        if not 1 <= length <= 1 + limit:
            raise PeerProtocolError(
                f"{kind.name} frame of length {length}, allowed are 1 to {1 + limit}"
            )
        return kind, start + _LENGTH_BYTES + length
