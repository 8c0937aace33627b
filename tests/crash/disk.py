"""A disk that remembers every operation, and what a crash after any of them may leave of it.

Written data is certain after a sync of the file, a name after a sync of its folder. Until then a
crash may leave all, nothing, or any sectors of 512 bytes; what is missing of a longer file reads as
zeros. The key-value stores keep their contract (a write is whole and durable when it returns), so
each write is one operation.
Source: research consensus-reliability section 4.2, "Simulated disk"; ALICE (OSDI 2014).
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ledger.store.memory import MemoryStore

SECTOR = 512


@dataclass
class History:
    """What one machine did, in order: operations of its disk, and what others saw of it."""

    operations: list[tuple[Any, ...]] = field(default_factory=list)

    def add(self, *operation: Any) -> None:
        self.operations.append(operation)


class OpenFile:
    """Implements `ledger.store.disk.File`."""

    def __init__(self, history: History, number: int, data: bytearray) -> None:
        self.history, self.number, self.data = history, number, data

    def read(self, length, offset):
        return bytes(self.data[offset : offset + length])

    def write(self, data, offset):
        self.history.add("write", self.number, offset, bytes(data))
        _write(self.data, offset, data)

    def reserve(self, length):
        if length > len(self.data):
            self.truncate(length)

    def truncate(self, length):
        self.history.add("resize", self.number, length)
        _resize(self.data, length)

    def size(self):
        return len(self.data)

    def sync(self):
        self.history.add("sync", self.number)

    def close(self):
        pass


class RecordingDisk:
    """Implements `ledger.store.disk.Disk` in memory, on the files that a crash left."""

    def __init__(self, history: History, files: dict[Path, bytes] | None = None) -> None:
        self.history = history
        self.numbers: dict[Path, int] = {}
        self.data: list[bytearray] = []
        for path, content in (files or {}).items():
            history.add("found", path, self._add(path, content), content)

    def _add(self, path, content):
        self.numbers[path] = len(self.data)
        self.data.append(bytearray(content))
        return self.numbers[path]

    def create_folder(self, folder):
        pass

    def names(self, folder):
        return sorted(path.name for path in self.numbers if path.parent == folder)

    def exists(self, path):
        return path in self.numbers

    def create(self, path):
        if path in self.numbers:
            raise OSError(errno.EEXIST, str(path))
        self.history.add("create", path, self._add(path, b""))
        return self.open(path, writing=True)

    def open(self, path, *, writing):
        if path not in self.numbers:
            raise OSError(errno.ENOENT, str(path))
        number = self.numbers[path]
        return OpenFile(self.history, number, self.data[number])

    def replace(self, source, target):
        self.numbers[target] = self.numbers.pop(source)
        self.history.add("replace", source, target)

    def remove(self, path):
        del self.numbers[path]
        self.history.add("remove", path)

    def sync_folder(self, folder):
        self.history.add("sync_folder", folder)


class RecordingStore(MemoryStore):
    """A key-value store whose writes stand in the history."""

    def __init__(self, history: History, name: str) -> None:
        super().__init__()
        self.history, self.name = history, name

    def write(self, writes):
        self.history.add("store", self.name, tuple(writes))
        super().write(writes)


Keeps = Callable[[int, int], bool]
"""Whether a crash keeps sector `index` of `count` pending ones."""

DATA: dict[str, Keeps] = {
    "all": lambda _index, _count: True,
    "nothing": lambda _index, _count: False,
    "first half": lambda index, count: 2 * index < count,
    "second half": lambda index, count: 2 * index >= count,
    "every other": lambda index, _count: index % 2 == 0,
    "but the first": lambda index, _count: index > 0,
}
"""What a crash keeps of unsynced data."""


@dataclass
class Image:
    """What a crash left, and what the world knew by then."""

    files: dict[Path, bytes]
    stores: dict[str, MemoryStore]
    seen: list[tuple[Any, ...]]
    """What others saw: ("sent", kind, payload), ("told", height, block hash, state root)."""


@dataclass
class _Inode:
    certain: bytearray
    now: bytearray
    pending: list[tuple[Any, ...]] = field(default_factory=list)


class Wreck:
    """Follows a history and makes the images of a crash at this point of it."""

    def __init__(self) -> None:
        self._inodes: dict[int, _Inode] = {}
        self._certain: dict[Path, int] = {}
        self._now: dict[Path, int] = {}
        self._stores: dict[str, dict[bytes, bytes]] = {}
        self._seen: list[tuple[Any, ...]] = []

    def follow(self, operation: tuple[Any, ...]) -> None:
        match operation:
            case ("found", path, number, content):
                self._inodes[number] = _Inode(bytearray(content), bytearray(content))
                self._certain[path] = self._now[path] = number
            case ("create", path, number):
                self._inodes[number] = _Inode(bytearray(), bytearray())
                self._now[path] = number
            case ("write", number, offset, data):
                self._inodes[number].pending.append(("write", offset, data))
                _write(self._inodes[number].now, offset, data)
            case ("resize", number, length):
                self._inodes[number].pending.append(("resize", length))
                _resize(self._inodes[number].now, length)
            case ("sync", number):
                inode = self._inodes[number]
                inode.certain, inode.pending = bytearray(inode.now), []
            case ("replace", source, target):
                self._now[target] = self._now.pop(source)
            case ("remove", path):
                del self._now[path]
            case ("sync_folder", folder):
                kept = {path: n for path, n in self._certain.items() if path.parent != folder}
                synced = {path: n for path, n in self._now.items() if path.parent == folder}
                self._certain = kept | synced
            case ("store", name, writes):
                store = self._stores.setdefault(name, {})
                for key, value in writes:
                    if value is None:
                        store.pop(key, None)
                    else:
                        store[key] = value
            case _:
                self._seen.append(operation)

    @property
    def is_pending(self) -> bool:
        """Whether anything is uncertain."""
        return self._now != self._certain or any(one.pending for one in self._inodes.values())

    def image(self, kept: str, *, names: bool) -> Image:
        """One of the images that a crash here may leave; `names`: unsynced names are kept."""
        files = {
            path: _torn(self._inodes[number], DATA[kept])
            for path, number in (self._now if names else self._certain).items()
        }
        stores = {}
        for name, pairs in self._stores.items():
            stores[name] = MemoryStore()
            stores[name].write(list(pairs.items()))
        return Image(files, stores, list(self._seen))


def _torn(inode: _Inode, keeps: Keeps) -> bytes:
    data = bytearray(inode.certain)
    touched = sorted(
        {
            sector
            for change in inode.pending
            if change[0] == "write"
            for sector in range(change[1] // SECTOR, (change[1] + len(change[2]) - 1) // SECTOR + 1)
        }
    )
    if not touched:
        return bytes(inode.now if keeps(0, 1) else data)
    for index, sector in enumerate(touched):
        if keeps(index, len(touched)):
            _write(data, sector * SECTOR, inode.now[sector * SECTOR : (sector + 1) * SECTOR])
    return bytes(data)


def _write(target: bytearray, offset: int, data: bytes) -> None:
    if len(target) < offset:
        target.extend(bytes(offset - len(target)))
    target[offset : offset + len(data)] = data


def _resize(target: bytearray, length: int) -> None:
    if length < len(target):
        del target[length:]
    else:
        target.extend(bytes(length - len(target)))
