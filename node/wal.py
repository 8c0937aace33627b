"""The write-ahead log of consensus: what was processed is durable before anything that follows.

Every input of the core is appended before it is applied; a message of our own is appended with its
signature and synced before it is sent. After a crash the inputs since the last ended height are
replayed through the same core.
A record is `length (4 bytes) || CRC-32 (4 bytes) || canonical entry`. A torn record at the very end
is what a crash leaves and is cut off. A damaged record that others follow means lost history: the
log refuses, and the node must not vote where it may have voted (quarantine).
Source: architecture section 5; research consensus-reliability section 1.5.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ledger.codec import Record, Schema, encode
from ledger.errors import KanglianError, Rejected, UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk, File
from ledger.store.port import Place
from node.limits import LOG_BUFFER_BYTES, LOG_RECORD_BYTES, LOG_ROTATE_BYTES

_HEAD = struct.Struct(">II")
# How far behind a damaged record a further intact one is looked for.
_SEARCH_BYTES = 256 * 1024


class EndedHeight(Record, frozen=True, tag=0):
    """The block of this height is durable; `own_*` tell where this node's own batches stand.

    `voting_from` is the height from which this node may vote: a quarantine outlives a restart.
    """

    height: int
    own_sequence: int
    own_previous: bytes
    voting_from: int = 0


class LoggedVote(Record, frozen=True, tag=1):
    """A verified vote; `own` when this node signed it."""

    message: bytes
    own: bool


class LoggedProposal(Record, frozen=True, tag=2):
    """A verified proposal with its block; `own` when this node signed it."""

    message: bytes
    own: bool


class LoggedTimer(Record, frozen=True, tag=3):
    """A timer that fired."""

    height: int
    round: int
    kind: int


class LoggedWork(Record, frozen=True, tag=4):
    """There was something to propose."""

    height: int


class LoggedBuilt(Record, frozen=True, tag=5):
    """A block this node built."""

    height: int
    round: int
    value: bytes
    block: bytes


class LoggedChecked(Record, frozen=True, tag=6):
    """The verdict on a proposed block."""

    height: int
    round: int
    value: bytes
    verdict: int


class LoggedBatch(Record, frozen=True, tag=7):
    """Where a batch lies that a block in progress orders, or one of our own (own_sequence >= 0)."""

    digest: bytes
    place: Place
    own_sequence: int


Entry = (
    EndedHeight
    | LoggedVote
    | LoggedProposal
    | LoggedTimer
    | LoggedWork
    | LoggedBuilt
    | LoggedChecked
    | LoggedBatch
)
# A union is a type to msgspec, if not to the type checker.
_ENTRY: Schema[Entry] = Schema(cast("type[Entry]", Entry), max_bytes=LOG_RECORD_BYTES)


class LogDamagedError(KanglianError):
    """History is missing from the write-ahead log; the node must go into quarantine."""


@dataclass(slots=True)
class Recovered:
    """What the log remembers: the last ended height and every entry after it."""

    ended: EndedHeight | None = None
    entries: list[Entry] = field(default_factory=list[Entry])


class WriteAheadLog:
    """An append-only file that one process owns."""

    def __init__(self, path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> None:
        """Open or create the log and read what it remembers.

        Raises: LogDamagedError, UnavailableError.
        """
        self._path = path
        self._disk = disk
        self.recovered = Recovered()
        self._file: File | None = None
        try:
            disk.create_folder(path.parent)
            self.is_new = not disk.exists(path)
            file = disk.create(path) if self.is_new else disk.open(path, writing=True)
            length = file.size()
            intact = self._recover(file.read(length, 0))
            if intact < length:
                file.truncate(intact)
            file.sync()
            disk.sync_folder(path.parent)
            self._file = file
        except OSError as error:
            raise UnavailableError(f"cannot open the log {path}: {error}") from error
        self._size = intact
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0

    def _recover(self, data: bytes) -> int:
        """Collect entries; the offset behind the last intact one."""
        end = 0
        for behind, entry in _entries(data):
            end = behind
            if isinstance(entry, EndedHeight):
                self.recovered = Recovered(entry)
            else:
                self.recovered.entries.append(entry)
        if end < len(data) and _is_followed(data, end):
            raise LogDamagedError(
                f"{self._path} is damaged at byte {end} and goes on after it; "
                "the node will not vote until it is safely past what it may have signed"
            )
        return end

    def append(self, entry: Entry) -> None:
        """Add an entry to the next `sync`."""
        payload = encode(entry)
        self._buffer.append(_HEAD.pack(len(payload), zlib.crc32(payload)))
        self._buffer.append(payload)
        self._buffered_bytes += len(payload)

    def sync(self) -> None:
        """Make everything appended durable. A failure is final: the disk may have lost pages.

        Raises: UnavailableError.
        """
        self._write()
        if self._file is None:
            return
        try:
            self._file.sync()
        except OSError as error:
            raise UnavailableError(f"cannot write the log {self._path}: {error}") from error

    def _write(self) -> None:
        """Hand what is appended to the operating system."""
        if not self._buffer or self._file is None:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        try:
            self._file.write(data, self._size)
        except OSError as error:
            raise UnavailableError(f"cannot write the log {self._path}: {error}") from error
        self._size += len(data)

    def end_height(self, ended: EndedHeight) -> None:
        """Record that a block is durable; a large log starts anew here.

        The record needs no sync of its own: it is ahead of the next vote in the file, and without
        it recovery sees the durable block and ends the height itself.
        """
        self.append(ended)
        if self._size > LOG_ROTATE_BYTES:
            self.sync()
            self._rotate(ended)
        elif self._buffered_bytes > LOG_BUFFER_BYTES:
            self._write()

    def _rotate(self, ended: EndedHeight) -> None:
        payload = encode(ended)
        fresh = self._path.with_suffix(".new")
        disk = self._disk
        if disk.exists(fresh):
            disk.remove(fresh)
        file = disk.create(fresh)
        file.write(_HEAD.pack(len(payload), zlib.crc32(payload)) + payload, 0)
        file.sync()
        self.close()
        disk.replace(fresh, self._path)
        disk.sync_folder(self._path.parent)
        self._file = file
        self._size = _HEAD.size + len(payload)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def set_aside(path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> Path:
    """Rename a damaged log so that a new one can start; the evidence is kept."""
    number = 1
    while disk.exists(aside := path.with_suffix(f".damaged-{number}")):
        number += 1
    disk.replace(path, aside)
    disk.sync_folder(path.parent)
    return aside


def _entries(data: bytes) -> Iterator[tuple[int, Entry]]:
    """Intact entries from the start, each with the offset behind it."""
    offset = 0
    while (entry := _entry_at(data, offset)) is not None:
        offset, value = entry
        yield offset, value


def _entry_at(data: bytes, offset: int) -> tuple[int, Entry] | None:
    if offset + _HEAD.size > len(data):
        return None
    length, checksum = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if not 0 < length <= LOG_RECORD_BYTES or start + length > len(data):
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload) != checksum:
        return None
    try:
        return start + length, _ENTRY.decode(payload)
    except Rejected:
        return None


def _is_followed(data: bytes, damaged: int) -> bool:
    last = min(len(data), damaged + _SEARCH_BYTES)
    return any(_entry_at(data, offset) is not None for offset in range(damaged + 1, last))
