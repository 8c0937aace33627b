"""The write-ahead log of consensus: what was processed is durable before anything that follows.

Every input of the core is appended before it is applied; a message of our own is appended with its
signature and synced before it is sent. After a crash the inputs since the last ended height are
replayed through the same core.
A record is `length (4) || durable (8) || CRC-32 (4) || canonical entry`. `durable` is how much of
the log was on the disk for certain when the record was made, and the checksum covers the record's
own place as well. So damage can be told from what a crash leaves: a tail that nobody counted on is
torn and cut off, in whatever order the disk wrote its parts; but where a later record says that
the damaged place had been durable, or where a length is none that a crash can leave, history is
lost: the log refuses, and the node must not vote where it may have voted (quarantine).
Room is reserved ahead, so that the last vote can be written when the disk is full.
Source: architecture section 5; research consensus-reliability sections 1.5 and 6.3; decision 0022.
"""

import errno
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum, unique
from pathlib import Path
from typing import Annotated, cast

from msgspec import Meta

from ledger.codec import Record, Schema, encode
from ledger.errors import KanglianError, Rejected, UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk, File
from ledger.store.port import Place
from node.limits import (
    LOG_BUFFER_BYTES,
    LOG_RECORD_BYTES,
    LOG_RESERVE_BYTES,
    LOG_ROTATE_BYTES,
)

_HEAD = struct.Struct(">IQI")
_CHECKED = struct.Struct(">QIQ")
# A head begins with a length below LOG_RECORD_BYTES: where to look for one behind damage.
_MAYBE_HEAD = re.compile(rb"\x00[\x00-\x02]")


@unique
class Memory(IntEnum):
    """What a log knows of what this node signed. Unless COMPLETE, peers must be heard first."""

    COMPLETE = 0
    """Everything at or above `voting_from`."""
    NEW = 1
    """Nothing, and so had the data folder: a new node, or one that lost all it had."""
    LOST = 2
    """Nothing, but this node has been here before."""


class EndedHeight(Record, frozen=True, tag=0):
    """The block of this height is durable; `own_*` tell where this node's own batches stand.

    `voting_from` is the height from which this node may vote: a quarantine outlives a restart.
    Every log begins with one, so that a log which lost its beginning is never taken for a new one.
    """

    height: int
    own_sequence: int
    own_previous: bytes
    voting_from: int = 0
    memory: Memory = Memory.COMPLETE


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


class LoggedRelease(Record, frozen=True, tag=8):
    """The operators released this node from quarantine at one height; see `node/release.py`.

    It votes there only after round `after_round`, locked on `locked_value` unless that is nil. The
    proposal and prevotes that justify the lock are signed wire messages.
    """

    height: int
    after_round: int
    locked_round: int
    locked_value: bytes | None
    proposal: bytes
    prevotes: Annotated[tuple[bytes, ...], Meta(max_length=256)]


Entry = (
    EndedHeight
    | LoggedVote
    | LoggedProposal
    | LoggedTimer
    | LoggedWork
    | LoggedBuilt
    | LoggedChecked
    | LoggedBatch
    | LoggedRelease
)
# A union is a type to msgspec, if not to the type checker.
_ENTRY: Schema[Entry] = Schema(cast("type[Entry]", Entry), max_bytes=LOG_RECORD_BYTES)


class LogDamagedError(KanglianError):
    """History is missing from the write-ahead log; the node must go into quarantine."""


@dataclass(slots=True)
class Recovered:
    """What a log remembers: the last ended height and every entry after it.

    `release` is kept until its height has ended; it is not among `entries`.
    """

    ended: EndedHeight | None = None
    entries: list[Entry] = field(default_factory=list[Entry])
    release: LoggedRelease | None = None

    def take(self, entry: Entry) -> None:
        """Add the next entry of the log."""
        match entry:
            case EndedHeight(height):
                self.ended = entry
                self.entries = []
                if self.release is not None and self.release.height <= height:
                    self.release = None
            case LoggedRelease():
                self.release = entry
            case _:
                self.entries.append(entry)


class WriteAheadLog:
    """An append-only file that one process owns. After a failure it takes nothing more."""

    def __init__(self, path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> None:
        """Open or create the log and read what it remembers.

        Raises: LogDamagedError, UnavailableError.
        """
        self.path = path
        self.recovered = Recovered()
        self._disk = disk
        self._file: File | None = None
        try:
            disk.create_folder(path.parent)
            self._forget_rotation()
            self.is_new = not disk.exists(path)
            self._file = disk.create(path) if self.is_new else disk.open(path, writing=True)
            self._open(self._file)
        except OSError as error:
            self.close()
            raise UnavailableError(f"cannot open the log {path}: {error}") from error
        except LogDamagedError:
            self.close()
            raise
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._has_ended = False

    def _open(self, file: File) -> None:
        """Read what is there, cut off a torn tail, make sure of the rest."""
        length = file.size()
        data = file.read(length, 0)
        intact = 0
        for behind, entry in entries_of(data):
            intact = behind
            self.recovered.take(entry)
        if _is_history_lost(data, intact):
            raise LogDamagedError(
                f"{self.path} is damaged at byte {intact}, where it was written for certain; "
                "the node will not vote until it is safely past what it may have signed"
            )
        if intact < length:
            file.truncate(intact)
        file.sync()
        self._disk.sync_folder(self.path.parent)
        self._size = self._durable = self._reserved = intact
        self._reserve()

    @property
    def is_blank(self) -> bool:
        """Whether it lacks the ended height with which every log begins."""
        return self.recovered.ended is None

    def begin(self, ended: EndedHeight) -> None:
        """Give a blank log its beginning, durable before anything is signed."""
        self.append(ended)
        self.sync()
        self.recovered = Recovered(ended)

    def append(self, entry: Entry) -> None:
        """Add an entry to the next `sync`."""
        payload = encode(entry)
        place = self._size + self._buffered_bytes
        self._buffer.append(_record(payload, place, self._durable))
        self._buffered_bytes += _HEAD.size + len(payload)

    def sync(self) -> None:
        """Make everything appended durable. A failure is final: the disk may have lost pages.

        Raises: UnavailableError.
        """
        file = self._usable()
        self._write()
        if self._durable == self._size:
            return
        try:
            file.sync()
        except OSError as error:
            raise self._failed(error) from error
        self._durable = self._size
        self._has_ended = False

    def sync_ended(self) -> None:
        """Make sure of the last ended height, before the next block becomes durable.

        So the log is never more than one height behind the blocks. A node that votes has synced
        anyway and pays nothing here.
        """
        if self._has_ended:
            self.sync()

    def end_height(self, ended: EndedHeight) -> None:
        """Record that a block is durable; a large log starts anew here.

        The record needs no sync of its own: it is ahead of the next vote in the file, and without
        it recovery sees the durable block and ends the height itself.
        """
        self.append(ended)
        self._has_ended = True
        if self._size > LOG_ROTATE_BYTES:
            self.sync()
            self._rotate(ended)
        elif self._buffered_bytes > LOG_BUFFER_BYTES:
            self._write()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _usable(self) -> File:
        if self._file is None:
            raise UnavailableError(f"the log {self.path} is closed")
        return self._file

    def _failed(self, error: OSError) -> UnavailableError:
        """Take nothing more: what a second try says about the first one's pages is not true."""
        self.close()
        return UnavailableError(f"cannot write the log {self.path}: {error}; the node stops")

    def _write(self) -> None:
        """Hand what is appended to the operating system."""
        file = self._usable()
        if not self._buffer:
            return
        data = b"".join(self._buffer)
        self._buffer.clear()
        self._buffered_bytes = 0
        try:
            file.write(data, self._size)
        except OSError as error:
            raise self._failed(error) from error
        self._size += len(data)
        self._reserve()

    def _reserve(self) -> None:
        """Keep room ahead. On a full disk what is left of it still takes the last votes."""
        if self._reserved - self._size > LOG_RESERVE_BYTES // 2:
            return
        try:
            self._usable().reserve(self._size + LOG_RESERVE_BYTES)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise self._failed(error) from error
            return
        self._reserved = self._size + LOG_RESERVE_BYTES

    def _rotate(self, ended: EndedHeight) -> None:
        """Begin again with the ended height, and a release that is still to come."""
        release = self.recovered.release
        kept: list[Entry] = [ended]
        if release is not None and release.height > ended.height:
            kept.append(release)
        data = b""
        for entry in kept:
            data += _record(encode(entry), len(data), 0)
        fresh = self.path.with_suffix(".new")
        try:
            file = self._disk.create(fresh)
            file.write(data, 0)
            file.sync()
            self.close()
            self._file = file
            self._disk.replace(fresh, self.path)
            self._disk.sync_folder(self.path.parent)
        except OSError as error:
            raise self._failed(error) from error
        self._size = self._durable = self._reserved = len(data)
        self._reserve()

    def _forget_rotation(self) -> None:
        """A crash came before a new log had its name: the old one holds everything."""
        fresh = self.path.with_suffix(".new")
        if self._disk.exists(fresh):
            self._disk.remove(fresh)


def read_log(path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> tuple[Recovered, bool]:
    """What can be read of a stopped node's log, and whether that is all there was.

    Changes nothing. Raises: UnavailableError.
    """
    recovered, intact = Recovered(), 0
    if not disk.exists(path):
        return recovered, False
    try:
        file = disk.open(path, writing=False)
        data = file.read(file.size(), 0)
        file.close()
    except OSError as error:
        raise UnavailableError(f"cannot read the log {path}: {error}") from error
    for behind, entry in entries_of(data):
        intact = behind
        recovered.take(entry)
    return recovered, recovered.ended is not None and not _is_history_lost(data, intact)


def set_aside(path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> Path:
    """Rename a damaged log so that a new one can start; the evidence is kept."""
    number = 1
    while disk.exists(aside := path.with_suffix(f".damaged-{number}")):
        number += 1
    disk.replace(path, aside)
    disk.sync_folder(path.parent)
    return aside


def entries_of(data: bytes) -> Iterator[tuple[int, Entry]]:
    """Intact entries from the start of a log, each with the offset behind it."""
    offset = 0
    while (found := _record_at(data, offset)) is not None:
        offset, _, payload = found
        try:
            entry = _ENTRY.decode(payload)
        except Rejected:
            return
        yield offset, entry


def _record(payload: bytes, place: int, durable: int) -> bytes:
    checked = zlib.crc32(payload, zlib.crc32(_CHECKED.pack(place, len(payload), durable)))
    return _HEAD.pack(len(payload), durable, checked) + payload


def _record_at(data: bytes, offset: int) -> tuple[int, int, bytes] | None:
    """(offset behind it, what was durable when it was made, payload) of the record at `offset`."""
    if offset + _HEAD.size > len(data):
        return None
    length, durable, checksum = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if not 0 < length <= LOG_RECORD_BYTES or start + length > len(data) or durable > offset:
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_CHECKED.pack(offset, length, durable))) != checksum:
        return None
    return start + length, durable, payload


def _is_history_lost(data: bytes, damaged: int) -> bool:
    """Whether what begins at `damaged` cannot be what a crash leaves of unsynced records."""
    end = len(data.rstrip(b"\0"))
    if damaged >= end:
        return False  # room that was reserved and never written
    # Parts of a head that did not reach the disk read as zeros: its length can only seem smaller.
    if int.from_bytes(data[damaged : damaged + 4], "big") > LOG_RECORD_BYTES:
        return True
    later = (_record_at(data, offset) for offset in _maybe_heads(data, damaged + 1, end))
    return any(record is not None and record[1] > damaged for record in later)


def _maybe_heads(data: bytes, start: int, end: int) -> Iterator[int]:
    """Places where a record may begin; they may overlap."""
    while (match := _MAYBE_HEAD.search(data, start, end)) is not None:
        start = match.start() + 1
        yield match.start()
