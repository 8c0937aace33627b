"""One encoding per value: the shortest msgpack form, held against another library."""

import msgpack
import pytest

from ledger.codec import Record, Schema, encode
from ledger.errors import Reason, Rejected


class Sample(Record, frozen=True):
    number: int
    text: str
    data: bytes
    items: tuple[int, ...]
    maybe: bool | None


SCHEMA = Schema(Sample, max_bytes=1_000)
GOOD = Sample(7, "health 健康", b"\x00\xff", (1, 300), None)
RAW = [7, "health 健康", b"\x00\xff", [1, 300], None]


def refusal(data: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        SCHEMA.decode(data)
    return caught.value.reason


def test_the_canonical_form_is_that_of_the_msgpack_library():
    assert encode(GOOD) == msgpack.packb(RAW)
    assert SCHEMA.decode(msgpack.packb(RAW)) == GOOD


@pytest.mark.parametrize(
    "data",
    [
        b"\xcc\x07",
        b"\xcd\x00\x07",
        b"\xce\x00\x00\x00\x07",
        b"\xcf" + bytes(7) + b"\x07",
        b"\xd0\x07",
        b"\xd1\x00\x07",
        b"\xd2\x00\x00\x00\x07",
        b"\xd3" + bytes(7) + b"\x07",
    ],
)
def test_a_longer_integer_is_refused(data):
    wire = msgpack.packb(RAW).replace(b"\x95\x07", b"\x95" + data)
    assert refusal(wire) is Reason.NON_CANONICAL


def test_longer_arrays_strings_and_byte_strings_are_refused():
    wire = msgpack.packb(RAW)
    for short, longer in (
        (b"\x95\x07", b"\xdc\x00\x05\x07"),
        (b"\x95\x07", b"\xdd\x00\x00\x00\x05\x07"),
        (b"\xadhealth", b"\xd9\x0dhealth"),
        (b"\xadhealth", b"\xda\x00\x0dhealth"),
        (b"\xc4\x02\x00\xff", b"\xc5\x00\x02\x00\xff"),
        (b"\x92\x01\xcd", b"\xdc\x00\x02\x01\xcd"),
    ):
        assert short in wire
        assert refusal(wire.replace(short, longer)) is Reason.NON_CANONICAL


@pytest.mark.parametrize(
    "raw",
    [
        RAW[:4],
        [*RAW, None],
        [7.0, *RAW[1:]],
        [True, *RAW[1:]],
        ["7", *RAW[1:]],
        [7, b"health", *RAW[2:]],
        [7, "health", "data", *RAW[3:]],
        [*RAW[:3], [1.5], None],
        [*RAW[:3], None, None],
        [*RAW[:4], 0],
        {"number": 7},
        None,
    ],
    ids=str,
)
def test_another_shape_is_refused(raw):
    assert refusal(msgpack.packb(raw)) is Reason.MALFORMED


def test_trailing_missing_and_broken_bytes_are_refused():
    wire = msgpack.packb(RAW)
    for data in (b"", wire[:-1], wire + b"\0", b"\xc1", b"\x95", b"\x91" * 900):
        assert refusal(data) is Reason.MALFORMED
    assert refusal(wire.replace("健".encode(), b"\xff\xfe\xfd")) is Reason.MALFORMED


def test_the_size_limit_is_judged_first():
    assert refusal(bytes(1_001)) is Reason.TOO_LARGE
