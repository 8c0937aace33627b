"""World state: typed `Map`s and append-only `Log`s, the overlay of a block, and its write set.

What it decides: what a read sees while a block executes, and what a failed operation leaves behind
(nothing). What it never does: touch a disk.
A key is `namespace prefix || path`, so every namespace is a range of its own.
Source: docs/format.md section 8; architecture section 8.
"""

from typing import Generic, Protocol, TypeVar

import msgspec

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.errors import invariant

V = TypeVar("V")


class LogEntry(Record, frozen=True):
    """One entry: the key under which it is found again, and its bytes."""

    key: bytes
    data: bytes


class LogWrite(Record, frozen=True):
    """What one block appends to one log."""

    log: bytes
    first_sequence: int
    entries: tuple[LogEntry, ...]


class WriteSet(Record, frozen=True):
    """All that one block changes; keys and logs ascending, so it has one form."""

    maps: tuple[tuple[bytes, bytes | None], ...]
    logs: tuple[LogWrite, ...]


class StateReader(Protocol):
    """Committed state."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a map key."""
        ...

    def log_count(self, log: bytes, /) -> int:
        """How many entries a log has."""
        ...

    def log_entry(self, log: bytes, sequence: int, /) -> LogEntry | None:
        """The entry at a position."""
        ...

    def log_find(self, log: bytes, key: bytes, after: int, limit: int, /) -> list[int]:
        """Ascending positions greater than `after` of entries with this key."""
        ...


class Overlay:
    """The writes of a block in progress over committed state; reads see them.

    Writes of one operation are pending until `keep` or `drop`: a failed operation leaves nothing.
    """

    __slots__ = ("_kept", "_logs", "_marks", "_pending", "_reader")

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._kept: dict[bytes, bytes | None] = {}
        self._pending: dict[bytes, bytes | None] = {}
        self._logs: dict[bytes, tuple[int, list[LogEntry]]] = {}
        self._marks: list[list[LogEntry]] = []

    def get(self, key: bytes) -> bytes | None:
        """The newest value of a map key, pending writes included."""
        if key in self._pending:
            return self._pending[key]
        if key in self._kept:
            return self._kept[key]
        return self._reader.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a map key; None deletes."""
        self._pending[key] = value

    def append(self, log: bytes, key: bytes, data: bytes) -> int:
        """Append to a log and return the position of the entry."""
        found = self._logs.get(log)
        if found is None:
            found = self._logs[log] = (self._reader.log_count(log), [])
        first, entries = found
        entries.append(LogEntry(key, data))
        self._marks.append(entries)
        return first + len(entries) - 1

    def log_count(self, log: bytes) -> int:
        """How many entries a log has, pending ones included."""
        found = self._logs.get(log)
        return self._reader.log_count(log) if found is None else found[0] + len(found[1])

    def log_entry(self, log: bytes, sequence: int) -> LogEntry | None:
        """The entry at a position, pending ones included."""
        found = self._logs.get(log)
        if found is None or sequence < found[0]:
            return self._reader.log_entry(log, sequence)
        first, entries = found
        return entries[sequence - first] if sequence - first < len(entries) else None

    def log_find(self, log: bytes, key: bytes, after: int, limit: int) -> list[int]:
        """Ascending positions above `after` of entries with this key, pending ones included."""
        found = self._reader.log_find(log, key, after, limit)
        first, entries = self._logs.get(log) or (0, [])
        fresh = [
            first + index
            for index, entry in enumerate(entries)
            if entry.key == key and first + index > after
        ]
        return (found + fresh)[:limit]

    def keep(self) -> None:
        """Make the pending writes of an operation part of the block."""
        if self._pending:
            self._kept.update(self._pending)
            self._pending.clear()
        self._marks.clear()

    def drop(self) -> None:
        """Forget the pending writes of an operation."""
        self._pending.clear()
        # Appends of one operation are the newest of their logs, so popping undoes them exactly.
        for entries in reversed(self._marks):
            entries.pop()
        self._marks.clear()

    def write_set(self) -> WriteSet:
        """Everything kept, in its one form."""
        invariant(not self._pending and not self._marks, "an operation is neither kept nor dropped")
        return WriteSet(
            maps=tuple(sorted(self._kept.items())),
            logs=tuple(
                LogWrite(log, first, tuple(entries))
                for log, (first, entries) in sorted(self._logs.items())
                if entries
            ),
        )


def namespace_prefix(module: str, level: int) -> bytes:
    """Where the keys of a namespace begin; names hold no zero byte, so prefixes are disjoint."""
    return module.encode() + b"\0" + bytes([level])


class Map(msgspec.Struct, Generic[V], frozen=True, gc=False):
    """A typed map of one contract in one namespace."""

    _overlay: Overlay
    _prefix: bytes
    _schema: Schema[V]

    def get(self, key: bytes) -> V | None:
        """The value of a key."""
        data = self._overlay.get(self._prefix + key)
        return None if data is None else self._schema.decode(data)

    def put(self, key: bytes, value: V) -> None:
        """Set the value of a key."""
        invariant(len(key) <= limits.MAP_KEY_BYTES, "map key too long")
        self._overlay.put(self._prefix + key, encode(value))

    def delete(self, key: bytes) -> None:
        """Remove a key."""
        self._overlay.put(self._prefix + key, None)


class Log(msgspec.Struct, Generic[V], frozen=True, gc=False):
    """A typed append-only log of one contract in one namespace; entries are found by a key."""

    _overlay: Overlay
    _log: bytes
    _schema: Schema[V]

    def append(self, key: bytes, entry: V) -> int:
        """Append an entry and return its position."""
        return self._overlay.append(self._log, key, encode(entry))

    def get(self, sequence: int) -> V | None:
        """The entry at a position."""
        entry = self._overlay.log_entry(self._log, sequence)
        return None if entry is None else self._schema.decode(entry.data)

    def find(self, key: bytes, after: int, limit: int) -> list[tuple[int, V]]:
        """Entries with this key at positions above `after`, oldest first."""
        positions = self._overlay.log_find(self._log, key, after, limit)
        entries = [
            (position, self._overlay.log_entry(self._log, position)) for position in positions
        ]
        return [(position, self._schema.decode(entry.data)) for position, entry in entries if entry]

    def count(self) -> int:
        """How many entries there are."""
        return self._overlay.log_count(self._log)
