"""Frames: cut the same way however the stream was split, and judged by their head."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import LocalProtocolError, PeerProtocolError
from p2p.frames import (
    FRAME_LIMITS,
    HELLO_LIMITS,
    LINK_LIMITS,
    FrameKind,
    FrameReader,
    encode_frame,
)

LINK_KINDS = sorted(LINK_LIMITS)


def head(length: int, kind: int) -> bytes:
    return length.to_bytes(4, "big") + bytes([kind])


@st.composite
def frames(draw: st.DrawFn) -> list[tuple[FrameKind, bytes]]:
    kinds = draw(st.lists(st.sampled_from(LINK_KINDS), max_size=8))
    return [(kind, draw(st.binary(max_size=min(600, LINK_LIMITS[kind])))) for kind in kinds]


def test_a_frame_is_length_kind_and_payload() -> None:
    assert encode_frame(FrameKind.VOTE, b"abc") == b"\x00\x00\x00\x04\x08abc"


@given(frames(), st.data())
def test_any_split_of_the_stream_gives_the_same_frames(sent, data) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in sent)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    reader = FrameReader()
    received = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += reader.feed(stream[start:end])
    assert received == sent
    assert reader.missing_bytes == 5


@given(frames())
def test_one_byte_at_a_time_gives_the_same_frames(sent) -> None:
    reader = FrameReader()
    stream = b"".join(encode_frame(kind, payload) for kind, payload in sent)
    received = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert received == sent


@given(frames())
def test_reading_only_what_is_missing_never_reads_past_a_frame(sent) -> None:
    stream = b"".join(encode_frame(kind, payload) for kind, payload in sent)
    for frame in sent:
        reader = FrameReader()
        received = []
        while not received:
            size = reader.missing_bytes
            received = reader.feed(stream[:size])
            stream = stream[size:]
        assert received == [frame]
    assert stream == b""


@given(st.lists(st.binary(max_size=200), max_size=10))
def test_garbage_raises_only_peer_protocol_error(pieces) -> None:
    reader = FrameReader()
    try:
        for piece in pieces:
            for kind, payload in reader.feed(piece):
                assert len(payload) <= LINK_LIMITS[kind]
    except PeerProtocolError:
        with pytest.raises(PeerProtocolError):
            reader.feed(b"")


@pytest.mark.parametrize("kind", LINK_KINDS)
def test_a_payload_at_the_limit_passes_and_one_byte_more_is_refused_by_its_head(kind) -> None:
    limit = LINK_LIMITS[kind]
    payload = bytes(limit)
    assert FrameReader().feed(encode_frame(kind, payload)) == [(kind, payload)]
    with pytest.raises(PeerProtocolError, match=f"{kind.name} frame of length {limit + 2}"):
        FrameReader().feed(head(limit + 2, kind))


@pytest.mark.parametrize("kind", list(FrameKind))
def test_we_never_encode_a_payload_over_its_limit(kind) -> None:
    with pytest.raises(LocalProtocolError, match=kind.name):
        encode_frame(kind, bytes(FRAME_LIMITS[kind] + 1))


def test_a_length_of_zero_is_refused() -> None:
    with pytest.raises(PeerProtocolError, match="length 0"):
        FrameReader().feed(head(0, FrameKind.VOTE))


@pytest.mark.parametrize("kind", [0, 16, 255])
def test_an_unknown_kind_is_refused(kind) -> None:
    with pytest.raises(PeerProtocolError, match=f"frame kind {kind} is unknown"):
        FrameReader().feed(head(1, kind))


def test_hello_frames_are_refused_on_a_link_and_all_others_before_it() -> None:
    for kind in FrameKind:
        limits = LINK_LIMITS if kind in HELLO_LIMITS else HELLO_LIMITS
        with pytest.raises(PeerProtocolError, match="not expected now"):
            FrameReader(limits).feed(encode_frame(kind, b""))


def test_a_reader_is_spent_after_an_error() -> None:
    reader = FrameReader()
    with pytest.raises(PeerProtocolError):
        reader.feed(head(0, FrameKind.VOTE))
    with pytest.raises(PeerProtocolError):
        reader.feed(encode_frame(FrameKind.VOTE, b"fine"))


def test_a_large_frame_in_many_pieces_arrives_whole() -> None:
    payload = bytes(range(256)) * 4 * 1024
    stream = encode_frame(FrameKind.BATCH, payload) + encode_frame(FrameKind.VOTE, b"next")
    reader = FrameReader()
    received = []
    for start in range(0, len(stream), 1_000):
        received += reader.feed(stream[start : start + 1_000])
    assert received == [(FrameKind.BATCH, payload), (FrameKind.VOTE, b"next")]
