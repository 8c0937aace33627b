"""A disk that is as bad as the contract of the file operations allows.

Written bytes survive a power cut for certain only after `File.sync`; until then any 512-byte part
of them may be there or not. A created or renamed name survives for certain only after
`Disk.sync_folder`; names change in order, as in a file system with a journal. The end of the
process alone loses nothing that was written. Beyond that contract: a lying disk forgets to sync,
space runs out, a sync fails, a bit flips.
"""

import errno
import random
from pathlib import Path

SECTOR = 512


class SimulatedFile:
    """An open file; all handles of a file are this one object."""

    __slots__ = ("_disk", "_durable", "_pending", "data")

    def __init__(self, disk: "SimulatedDisk") -> None:
        self._disk = disk
        self.data = bytearray()
        self._durable = bytearray()
        self._pending: list[tuple[int, bytes]] = []

    def read(self, length: int, offset: int, /) -> bytes:
        """What the operating system sees."""
        return bytes(self.data[offset : offset + length])

    def write(self, data: bytes, offset: int, /) -> None:
        """Keep for the next sync. Raises: OSError when the disk is full."""
        if self._disk.is_full:
            raise OSError(errno.ENOSPC, "no space left")
        _put(self.data, data, offset)
        self._pending.append((offset, data))

    def size(self) -> int:
        """The length in bytes."""
        return len(self.data)

    def sync(self) -> None:
        """Make everything written durable, unless the disk lies. Raises: OSError when it fails."""
        if self._disk.fails_sync:
            raise OSError(errno.EIO, "input/output error")
        if self._disk.lies():
            return
        for offset, data in self._pending:
            _put(self._durable, data, offset)
        self._pending.clear()

    def lose(self, rng: random.Random) -> None:
        """A power cut: some of what was not synced is gone, sector by sector."""
        pieces = [piece for offset, data in self._pending for piece in _pieces(offset, data)]
        kind = rng.random()
        if kind < 0.4:
            del pieces[rng.randint(0, len(pieces)) :]
        elif kind < 0.9:
            share = rng.random()
            pieces = [piece for piece in pieces if rng.random() < share]
        for offset, data in pieces:
            _put(self._durable, data, offset)
        self._pending.clear()
        self.data = bytearray(self._durable)

    def flip(self, position: int, bit: int) -> None:
        """Change one bit for good."""
        self.data[position] ^= 1 << bit
        if position < len(self._durable):
            self._durable[position] = self.data[position]

    def copy_for(self, disk: "SimulatedDisk") -> "SimulatedFile":
        """The durable content as a file of its own: a backup."""
        twin = SimulatedFile(disk)
        twin.data = bytearray(self._durable)
        twin._durable = bytearray(self._durable)
        return twin


def _put(target: bytearray, data: bytes, offset: int) -> None:
    if offset > len(target):
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


def _pieces(offset: int, data: bytes) -> list[tuple[int, bytes]]:
    """A write cut at the borders of sectors."""
    first = SECTOR - offset % SECTOR
    starts = [0, *range(first, len(data), SECTOR)]
    ends = [*starts[1:], len(data)]
    return [(offset + start, data[start:end]) for start, end in zip(starts, ends, strict=True)]


class SimulatedDisk:
    """The names of one node's files."""

    def __init__(self, rng: random.Random, lying: float = 0.0) -> None:
        """`lying` is the share of syncs that do nothing."""
        self._rng = rng
        self._lying = lying
        self.is_full = False
        self.fails_sync = False
        self._names: dict[Path, SimulatedFile] = {}
        self._durable: dict[Path, SimulatedFile] = {}
        self._pending: list[tuple[Path, Path | None, SimulatedFile | None]] = []

    def lies(self) -> bool:
        """Whether this sync does nothing."""
        return self._lying > 0 and self._rng.random() < self._lying

    def exists(self, path: Path, /) -> bool:
        """Whether there is a file of this name."""
        return path in self._names

    def create(self, path: Path, /) -> SimulatedFile:
        """A new file. Raises: OSError if the name is taken."""
        if path in self._names:
            raise FileExistsError(path)
        file = SimulatedFile(self)
        self._change(path, None, file)
        return file

    def open(self, path: Path, /) -> SimulatedFile:
        """An existing file. Raises: OSError."""
        if path not in self._names:
            raise FileNotFoundError(path)
        return self._names[path]

    def replace(self, source: Path, target: Path, /) -> None:
        """Rename."""
        self._change(target, source, self._names[source])

    def remove(self, path: Path, /) -> None:
        """Unlink."""
        self._change(path, None, None)

    def sync_folder(self, folder: Path, /) -> None:
        """Make names durable, unless the disk lies."""
        if self.fails_sync:
            raise OSError(errno.EIO, "input/output error")
        if not self.lies():
            self._durable = dict(self._names)
            self._pending.clear()

    def _change(self, target: Path, source: Path | None, file: SimulatedFile | None) -> None:
        change = (target, source, file)
        _rename(self._names, *change)
        self._pending.append(change)

    def cut_power(self) -> None:
        """Keep the first of the pending names, and of each file what its sectors kept."""
        rng = self._rng
        for change in self._pending[: rng.randint(0, len(self._pending))]:
            _rename(self._durable, *change)
        self._pending.clear()
        self._names = dict(self._durable)
        for file in self._names.values():
            file.lose(rng)

    def lose(self, path: Path) -> None:
        """A file is gone for good."""
        self._names.pop(path, None)
        self._durable.pop(path, None)

    def copy(self) -> "SimulatedDisk":
        """A backup of what is durable."""
        twin = SimulatedDisk(self._rng, self._lying)
        twin._durable = {path: file.copy_for(twin) for path, file in self._durable.items()}
        twin._names = dict(twin._durable)
        return twin


def _rename(
    names: dict[Path, SimulatedFile],
    target: Path,
    source: Path | None,
    file: SimulatedFile | None,
) -> None:
    if source is not None:
        names.pop(source, None)
    if file is None:
        names.pop(target, None)
    else:
        names[target] = file
