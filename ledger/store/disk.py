"""The file operations that durability rests on, as a port, and the real ones.

What a crash may leave is part of the contract, so that a simulated disk can be exactly as bad:
written bytes survive for certain only after `File.sync`, and until then any 512-byte part of them
may be there or not; a created, renamed or removed name survives for certain only after
`Disk.sync_folder`. A failed `sync` is final: the system may have dropped the pages, so nobody may
ask again and believe the answer.
Source: architecture section 5; research consensus-reliability sections 1.5 and 6.3.
"""

import errno
import os
from pathlib import Path
from typing import Protocol

_PRIVATE = 0o600


class File(Protocol):
    """An open file. Every method may raise OSError."""

    def read(self, length: int, offset: int, /) -> bytes:
        """Up to `length` bytes from `offset`; fewer at the end of the file."""
        ...

    def write(self, data: bytes, offset: int, /) -> None:
        """Write all of `data` at `offset`."""
        ...

    def reserve(self, length: int, /) -> None:
        """Make room for a file of `length` bytes; what was never written reads as zeros."""
        ...

    def truncate(self, length: int, /) -> None:
        """Cut the file off."""
        ...

    def size(self) -> int:
        """The length in bytes, reserved room included."""
        ...

    def sync(self) -> None:
        """Make everything written to this file durable; not its name."""
        ...

    def close(self) -> None:
        """Release the file; what was not synced may or may not survive."""
        ...


class Disk(Protocol):
    """The names of files. Every method may raise OSError."""

    def create_folder(self, folder: Path, /) -> None:
        """Create a folder and its parents, unless it is there; durable when this returns."""
        ...

    def names(self, folder: Path, /) -> list[str]:
        """The names in a folder, sorted."""
        ...

    def exists(self, path: Path, /) -> bool:
        """Whether there is a file of this name."""
        ...

    def create(self, path: Path, /) -> File:
        """A new file, private to the owner; an existing one is an error."""
        ...

    def open(self, path: Path, /, *, writing: bool) -> File:
        """An existing file."""
        ...

    def replace(self, source: Path, target: Path, /) -> None:
        """Give `source` the name `target`, whatever had it before."""
        ...

    def remove(self, path: Path, /) -> None:
        """Remove a file."""
        ...

    def sync_folder(self, folder: Path, /) -> None:
        """Make the names in a folder durable."""
        ...


class OperatingSystemFile:
    """A file of the operating system."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def read(self, length: int, offset: int, /) -> bytes:
        """Up to `length` bytes from `offset`."""
        return os.pread(self._descriptor, length, offset)

    def write(self, data: bytes, offset: int, /) -> None:
        """Write all of `data`; a short write means that the disk is full."""
        if os.pwrite(self._descriptor, data, offset) != len(data):
            raise OSError(errno.ENOSPC, "short write")

    def reserve(self, length: int, /) -> None:
        """Allocate blocks, so that writing there cannot fail for lack of space."""
        os.posix_fallocate(self._descriptor, 0, length)

    def truncate(self, length: int, /) -> None:
        """Cut the file off."""
        os.ftruncate(self._descriptor, length)

    def size(self) -> int:
        """The length in bytes."""
        return os.fstat(self._descriptor).st_size

    def sync(self) -> None:
        """Data, and what of the metadata is needed to read it back."""
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        """Release the descriptor."""
        os.close(self._descriptor)


class OperatingSystemDisk:
    """The file system of the operating system."""

    def create_folder(self, folder: Path, /) -> None:
        """Create a folder and its parents, each durable in the one above."""
        missing = [one for one in (folder, *folder.parents) if not one.exists()]
        for one in reversed(missing):
            one.mkdir(exist_ok=True)
            self.sync_folder(one.parent)

    def names(self, folder: Path, /) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(path.name for path in folder.iterdir())

    def exists(self, path: Path, /) -> bool:
        """Whether there is a file of this name."""
        return path.exists()

    def create(self, path: Path, /) -> OperatingSystemFile:
        """A new file, private to the owner."""
        return OperatingSystemFile(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, _PRIVATE))

    def open(self, path: Path, /, *, writing: bool) -> OperatingSystemFile:
        """An existing file."""
        return OperatingSystemFile(os.open(path, os.O_RDWR if writing else os.O_RDONLY))

    def replace(self, source: Path, target: Path, /) -> None:
        """Rename."""
        source.replace(target)

    def remove(self, path: Path, /) -> None:
        """Unlink."""
        path.unlink()

    def sync_folder(self, folder: Path, /) -> None:
        """Sync the directory itself."""
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


OPERATING_SYSTEM_DISK = OperatingSystemDisk()
