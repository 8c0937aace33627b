"""What the ledger needs of a disk: an ordered map with atomic, durable batches."""

from collections.abc import Iterator, Sequence
from typing import Protocol

Write = tuple[bytes, bytes | None]
"""A key and its new value; None deletes."""


class KeyValueStore(Protocol):
    """Keys in byte order. A write is all or nothing and durable when `write` returns."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key.

        Raises: InvariantError when the store is damaged.
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

    def close(self) -> None:
        """Release the store; it may not be used after."""
        ...
