"""What the ledger needs of a disk: an ordered map with atomic writes, and a pile of bodies."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from ledger.codec import Record


class Place(Record, frozen=True):
    """Where a body lies: segment number, offset and length in bytes; and its CRC-32."""

    segment: int
    offset: int
    length: int
    checksum: int


Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""


class KeyValueStore(Protocol):
    """Keys in byte order. A write is all or nothing and durable when `write` returns."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key.

        Raises: StoreDamagedError.
        """
        ...

    def write(self, writes: Sequence[Write], /) -> None:
        """Apply all writes at once.

        Raises: UnavailableError when the disk refuses.
        """
        ...

    def scan(self, start: bytes, stop: bytes, /, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, ascending or descending."""
        ...

    def snapshot(self) -> "KeyValueStore":
        """What the store holds now, for reading, whatever is written later; `write` is refused.

        It must be closed before the store is.
        """
        ...

    def close(self) -> None:
        """Release the store; it may not be used after."""
        ...


class Bodies(Protocol):
    """Byte strings that are written once and found by place."""

    def append(self, body: bytes, /) -> Place:
        """Write a body; it is durable after the next `sync`.

        Raises: UnavailableError when the disk refuses.
        """
        ...

    def sync(self) -> None:
        """Make every appended body durable.

        Raises: UnavailableError.
        """
        ...

    def drop_before(self, segment: int, /) -> None:
        """Delete the segments before one.

        Raises: UnavailableError.
        """
        ...

    def read(self, place: Place, /) -> bytes | None:
        """The bytes at a place; None when they are cut off or not those that were written."""
        ...

    def close(self) -> None:
        """Release the files."""
        ...
