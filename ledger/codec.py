"""Canonical bytes: msgpack arrays, positional, one encoding per value.

What it decides: whether bytes are the canonical encoding of a value of a given type.
What it never does: guess, repair or accept a second form.
The canonical form is the shortest msgpack form of every integer, string, byte string and array.
It is enforced by decoding against the schema and comparing the re-encoding byte for byte.
Source: msgpack specification (2013-08); docs/format.md section 1; docs/decisions/0002-codec.md.
"""

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

    __slots__ = ("_decode", "_max_bytes", "_name")

    def __init__(self, kind: type[T], *, max_bytes: int) -> None:
        self._decode = msgspec.msgpack.Decoder(kind).decode
        self._max_bytes = max_bytes
        self._name = getattr(kind, "__name__", str(kind))

    def decode(self, data: bytes) -> T:
        """The value whose canonical encoding is `data`.

        Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL).  Cost: O(len(data)).
        """
        if len(data) > self._max_bytes:
            raise Rejected(
                Reason.TOO_LARGE, self._name, payload_bytes=len(data), limit_bytes=self._max_bytes
            )
        try:
            value = self._decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(Reason.MALFORMED, f"{self._name}: {error}") from None
        if encode(value) != data:
            raise Rejected(Reason.NON_CANONICAL, self._name)
        return value
