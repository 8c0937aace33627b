"""The store ports in memory, for tests and simulation."""

import zlib
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from ledger.store.port import Place, Write


class MemoryStore:
    """An ordered map; "durable" as long as the object lives."""

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key."""
        return self._values.get(key)

    def write(self, writes: Sequence[Write], /) -> None:
        """Apply all writes at once."""
        for key, value in writes:
            if value is None:
                if self._values.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self._values:
                    insort(self._keys, key)
                self._values[key] = value

    def scan(self, start: bytes, stop: bytes, /, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop."""
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, stop)]
        for key in reversed(keys) if reverse else keys:
            yield key, self._values[key]

    def snapshot(self) -> "MemoryStore":
        """A copy.  Cost: O(pairs)."""
        copy = MemoryStore()
        copy._values, copy._keys = dict(self._values), list(self._keys)
        return copy

    def close(self) -> None:
        """Nothing to release."""


class MemoryBodies:
    """Bodies in a list; the segment number is the index."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    def append(self, body: bytes, /) -> Place:
        """Keep a body."""
        self._bodies.append(body)
        return Place(len(self._bodies) - 1, 0, len(body), zlib.crc32(body))

    def sync(self) -> None:
        """Nothing to do."""

    def drop_before(self, segment: int, /) -> None:
        """Forget the bodies before one."""
        self._bodies[:segment] = [b""] * min(segment, len(self._bodies))

    def read(self, place: Place, /) -> bytes | None:
        """The body at a place, unless it is not the one that was written."""
        body = self._bodies[place.segment][place.offset : place.offset + place.length]
        is_whole = len(body) == place.length and zlib.crc32(body) == place.checksum
        return body if is_whole else None

    def close(self) -> None:
        """Nothing to release."""
