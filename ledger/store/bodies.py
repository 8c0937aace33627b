"""Batch bodies: append-only segment files, each body written exactly once.

Bodies are most of what a node writes. They are appended when a batch is verified, synced before a
vote that answers for them, and from then on only referred to by place: by the write-ahead log and
by the block store. A place holds the checksum of its body: what is torn, cut off or rotten is never
returned.
Source: docs/decisions/0015-batch-bodies.md.
"""

import zlib
from pathlib import Path

from ledger.errors import StoreDamagedError, UnavailableError, invariant
from ledger.limits import MIB
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk, File
from ledger.store.port import Place

SEGMENT_BYTES = 256 * MIB
"""A few minutes at full load; small enough to archive or prune one by one."""
_SUFFIX = ".bodies"


class BodyFiles:
    """The segments of one node. One process owns them."""

    def __init__(self, folder: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> None:
        """Open or create the folder; appending goes on in a new segment.

        Raises: UnavailableError.
        """
        self._folder = folder
        self._disk = disk
        self._readers: dict[int, File] = {}
        self._is_broken = False
        try:
            disk.create_folder(folder)
            names = disk.names(folder)
            numbers = [int(Path(name).stem) for name in names if name.endswith(_SUFFIX)]
        except (OSError, ValueError) as error:
            raise UnavailableError(f"cannot open the bodies in {folder}: {error}") from error
        # A fresh segment: a torn tail of the old one can never be appended to.
        self._segment = max(numbers, default=0)
        self._start_segment()

    def _start_segment(self) -> None:
        self._segment += 1
        self._offset = 0
        self._synced = 0
        path = self._path(self._segment)
        try:
            self._writer = self._disk.create(path)
            self._disk.sync_folder(self._folder)
        except OSError as error:
            raise UnavailableError(f"cannot create {path}: {error}") from error

    def append(self, body: bytes) -> Place:
        """Write a body; it is durable after the next `sync`.

        Raises: UnavailableError when the disk refuses.
        """
        if self._offset >= SEGMENT_BYTES:
            self.sync()
            self._writer.close()
            self._start_segment()
        try:
            self._writer.write(body, self._offset)
        except OSError as error:
            raise UnavailableError(f"cannot write bodies in {self._folder}: {error}") from error
        place = Place(self._segment, self._offset, len(body), zlib.crc32(body))
        self._offset += len(body)
        return place

    def sync(self) -> None:
        """Make every appended body durable. A failure is final.

        Raises: UnavailableError.
        """
        if self._synced == self._offset:
            return
        if self._is_broken:
            raise UnavailableError(f"a sync of the bodies in {self._folder} has failed before")
        try:
            self._writer.sync()
        except OSError as error:
            self._is_broken = True  # a second try would not speak of the pages of the first
            raise UnavailableError(f"cannot sync bodies in {self._folder}: {error}") from error
        self._synced = self._offset

    def drop_before(self, segment: int) -> None:
        """Delete the segments before one; never the one that is written.

        Raises: UnavailableError.
        """
        invariant(segment <= self._segment, "the segment that is written stays")
        try:
            numbers = [int(Path(name).stem) for name in self._disk.names(self._folder)]
            for number in sorted(number for number in numbers if number < segment):
                reader = self._readers.pop(number, None)
                if reader is not None:
                    reader.close()
                self._disk.remove(self._path(number))
        except (OSError, ValueError) as error:
            raise UnavailableError(f"cannot delete bodies in {self._folder}: {error}") from error

    def read(self, place: Place) -> bytes | None:
        """The bytes at a place; None when they are cut off or not those that were written.

        Raises: StoreDamagedError when the segment is not there.
        """
        reader = self._readers.get(place.segment)
        if reader is None:
            path = self._path(place.segment)
            try:
                reader = self._readers[place.segment] = self._disk.open(path, writing=False)
            except OSError as error:
                raise StoreDamagedError("bodies", path.name, f"it is gone ({error})") from error
        body = reader.read(place.length, place.offset)
        return body if zlib.crc32(body) == place.checksum else None

    def close(self) -> None:
        """Close all files."""
        self._writer.close()
        for reader in self._readers.values():
            reader.close()
        self._readers.clear()

    def _path(self, segment: int) -> Path:
        return self._folder / f"{segment:08d}{_SUFFIX}"
