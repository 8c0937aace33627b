"""The write-ahead log of consensus: what was processed is durable before anything that follows.

Every input of the core is appended before it is applied; a message of our own is appended with its
signature and synced before it is sent. After a crash the inputs since the last ended height are
replayed through the same core.
Each record says how much of the log was durable when it was made (`node/log_records.py`). So damage
can be told from what a crash leaves: a tail that nobody counted on is torn and cut off, in whatever
order the disk wrote its parts; but where a later record says that the damaged place had been
durable, or where a length is none that a crash can leave, history is lost: the log refuses, and
the node must not vote where it may have voted (quarantine).
What binds this node and stands intact behind a torn end is kept: a flipped bit may have hit an
input that was synced together with our vote behind it, and that vote has left (decision 0031).
Room is reserved ahead, so that the last vote can be written when the disk is full.
Source: architecture section 5; research consensus-reliability sections 1.5 and 6.3; decisions 0022
and 0031.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

from ledger.codec import encode
from ledger.errors import UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk, File
from node.limits import LOG_BUFFER_BYTES, LOG_RESERVE_BYTES, LOG_ROTATE_BYTES
from node.log_entries import EndedHeight, Entry, LogDamagedError, Recovered, read
from node.log_records import HEAD_BYTES, make_record


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
        """Read what is there, cut off or mend a torn end, make sure of the rest."""
        length = file.size()
        found = read(file.read(length, 0))
        self.recovered = found.recovered
        if found.loss:
            raise LogDamagedError(
                f"{self.path} is damaged at byte {found.intact}, {found.loss}; "
                "the node will not vote until it is safely past what it may have signed"
            )
        if found.has_kept:
            self._begin_anew(self.recovered.all_entries())
            return
        if found.intact < length:
            file.truncate(found.intact)
        file.sync()
        self._disk.sync_folder(self.path.parent)
        self._size = self._durable = self._reserved = found.intact
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
        self._buffer.append(make_record(payload, place, self._durable))
        self._buffered_bytes += HEAD_BYTES + len(payload)

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
        kept = Recovered(ended, release=self.recovered.release)
        kept.take(ended)
        try:
            self._begin_anew(kept.all_entries())
        except OSError as error:
            raise self._failed(error) from error

    def _begin_anew(self, entries: Sequence[Entry]) -> None:
        """Give the name to another log, which holds these entries.

        It has the name only once it is synced, so every record of it may say that those before it
        are durable. Raises: OSError.
        """
        records: list[bytes] = []
        size = 0
        for entry in entries:
            records.append(make_record(encode(entry), size, size))
            size += len(records[-1])
        fresh = self.path.with_suffix(".new")
        file = self._disk.create(fresh)
        file.write(b"".join(records), 0)
        file.sync()
        self.close()
        self._file = file
        self._disk.replace(fresh, self.path)
        self._disk.sync_folder(self.path.parent)
        self._size = self._durable = self._reserved = size
        self._reserve()

    def _forget_rotation(self) -> None:
        """A crash came before a new log had its name: the old one holds everything."""
        fresh = self.path.with_suffix(".new")
        if self._disk.exists(fresh):
            self._disk.remove(fresh)


def read_log(path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> tuple[Recovered, bool]:
    """What can be read of a stopped node's log, and whether that is all there was.

    Changes nothing, and answers what the node would find. Raises: UnavailableError.
    """
    if not disk.exists(path):
        return Recovered(), False
    try:
        file = disk.open(path, writing=False)
        data = file.read(file.size(), 0)
        file.close()
    except OSError as error:
        raise UnavailableError(f"cannot read the log {path}: {error}") from error
    found = read(data)
    return found.recovered, found.recovered.ended is not None and not found.loss


def set_aside(path: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> Path:
    """Rename a damaged log so that a new one can start; the evidence is kept."""
    number = 1
    while disk.exists(aside := path.with_suffix(f".damaged-{number}")):
        number += 1
    disk.replace(path, aside)
    disk.sync_folder(path.parent)
    return aside
