"""Canonical bytes: msgpack arrays, positional, one encoding per value.

What it decides: whether bytes are the canonical encoding of a value of a given type.
What it never does: guess, repair or accept a second form.
The canonical form is the shortest msgpack form of every integer, string, byte string and array.
It is enforced by decoding against the schema and comparing the re-encoding byte for byte.
Source: msgpack specification (2013-08); docs/format.md section 1; docs/decisions/0002-codec.md.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from ledger.errors import Reason, Rejected

T = TypeVar("T")

encode = msgspec.msgpack.Encoder().encode
"""Canonical bytes of a Record, tuple, list, int, str, bytes, bool or None; no floats, no maps."""


class Record(
    msgspec.Struct,
    array_like=True,
    frozen=True,
    gc=False,
    forbid_unknown_fields=True,
):
    """Base of every value that is signed, hashed, stored or sent: a positional array."""


class Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of values that people read and write as JSON objects with named members."""


class Schema(Generic[T]):
    """The strict decoder of one type, made once and used for every value of that type."""

    __slots__ = ("decode",)

    def __init__(self, kind: type[T], *, max_bytes: int) -> None:
        self.decode: Callable[[bytes], T] = _strict_decoder(kind, max_bytes)
        """The value whose canonical encoding the bytes are.

        Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL).  Cost: O(size).
        """


def _strict_decoder(kind: type[T], max_bytes: int) -> Callable[[bytes], T]:
    """A closure, because it runs three times for every transaction."""
    decode_loosely = msgspec.msgpack.Decoder(kind).decode
    name = getattr(kind, "__name__", str(kind))

    def decode(data: bytes) -> T:
        if len(data) > max_bytes:
            raise Rejected(Reason.TOO_LARGE, name, payload_bytes=len(data), limit_bytes=max_bytes)
        try:
            value = decode_loosely(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(Reason.MALFORMED, f"{name}: {error}") from None
        if encode(value) != data:
            raise Rejected(Reason.NON_CANONICAL, name)
        return value

    return decode
