"""A LevelDB folder seen from outside, before LevelDB opens it.

What it decides: whether the files continue one another, and which files may hold a key. LevelDB
takes a truncated or missing log, and a truncated descriptor, for the ordinary end of a file: it
opens with a hole in the middle, and removes the tables that the rest of the descriptor named. Every
record carries a sequence number, so a hole can be seen beforehand.
What it never does: write, or read values. What a cut at the very end of the newest log took is seen
by comparing the stores with each other (node/chain_writer.py).
Source: LevelDB, doc/log_format.md and db/version_edit.cc.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from ledger.errors import KanglianError

_BLOCK_BYTES = 32_768
_HEAD = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_BATCH = struct.Struct("<QI")
# The internal part behind a user key in a table's range: sequence number and kind.
_INTERNAL_BYTES = 8
_SUFFIX = ".log"


class _Tag(IntEnum):
    COMPARATOR = 1
    LOG = 2
    NEXT_FILE = 3
    SEQUENCE = 4
    POINTER = 5
    DELETED_TABLE = 6
    NEW_TABLE = 7
    OLD_LOG = 9


class DescriptorError(KanglianError):
    """The files of a folder do not continue one another: `file`, and what is wrong with it."""

    def __init__(self, file: str, problem: str) -> None:
        self.file = file
        self.problem = problem
        super().__init__(f"{file}: {problem}")


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the folder: its length, and the range of its keys."""

    size_bytes: int
    smallest: bytes
    largest: bytes


@dataclass(slots=True)
class Descriptor:
    """What the edits of a MANIFEST add up to: oldest log, sequence number, tables."""

    file: str
    log: int = 0
    sequence: int = 0
    tables: dict[int, Table] = field(default_factory=dict[int, Table])

    def tables_with(self, key: bytes) -> list[str]:
        """The tables whose range holds a key: where a damaged value of it must lie."""
        return [
            _table_name(number)
            for number, table in sorted(self.tables.items())
            if table.smallest <= key <= table.largest
        ]


def read_descriptor(folder: Path) -> Descriptor:
    """The descriptor that CURRENT names.

    Raises: DescriptorError, OSError.
    """
    current = (folder / "CURRENT").read_bytes()
    name = current[:-1].decode("ascii", "replace")
    if current[-1:] != b"\n" or not name.startswith("MANIFEST-"):
        raise DescriptorError("CURRENT", "it names no descriptor")
    if not (folder / name).is_file():
        raise DescriptorError(name, "the file is missing")
    found = Descriptor(name)
    try:
        for edit in _records((folder / name).read_bytes()):
            _apply(found, edit)
    except (IndexError, ValueError) as error:
        raise DescriptorError(name, f"it cannot be read ({error})") from None
    return found


def check_continuity(folder: Path) -> None:
    """Refuse a folder whose tables are not whole, or whose logs do not go on where those end.

    Raises: DescriptorError naming the file, OSError.  Cost: one read of the newest logs.
    """
    found = read_descriptor(folder)
    for number, table in sorted(found.tables.items()):
        path = folder / _table_name(number)
        if not path.is_file():
            raise DescriptorError(path.name, "the file is missing")
        if (size := path.stat().st_size) != table.size_bytes:
            raise DescriptorError(path.name, f"it has {size} bytes, not {table.size_bytes}")
    logs = sorted(
        number for path in folder.glob(f"*{_SUFFIX}") if (number := int(path.stem)) >= found.log
    )
    if found.log and found.log not in logs:
        file = f"{found.log:06d}{_SUFFIX}"
        raise DescriptorError(file, f"the file is missing, or {found.file} is cut off")
    expected = found.sequence
    for index, number in enumerate(logs):
        file = f"{number:06d}{_SUFFIX}"
        for payload in _records((folder / file).read_bytes()):
            if len(payload) < _BATCH.size:
                raise DescriptorError(file, "a record is too short")
            sequence, count = _BATCH.unpack_from(payload)
            if sequence > expected + 1:
                cut = file if index == 0 else f"{logs[index - 1]:06d}{_SUFFIX}"
                raise DescriptorError(cut, f"writes {expected + 1} to {sequence - 1} are missing")
            expected = max(expected, sequence + count - 1)


def _table_name(number: int) -> str:
    return f"{number:06d}.ldb"


def _records(data: bytes) -> Iterator[bytes]:
    """The whole records of a log file; a torn end is left out, as LevelDB does."""
    offset, parts = 0, list[bytes]()
    while offset + _HEAD.size <= len(data):
        room = _BLOCK_BYTES - offset % _BLOCK_BYTES
        if room < _HEAD.size:
            offset += room
            continue
        _, length, kind = _HEAD.unpack_from(data, offset)
        start = offset + _HEAD.size
        if start + length > len(data) or kind not in (_FULL, _FIRST, _MIDDLE, _LAST):
            return
        offset = start + length
        if kind in (_FULL, _FIRST):
            parts.clear()
        parts.append(data[start:offset])
        if kind in (_FULL, _LAST):
            yield b"".join(parts)


def _apply(found: Descriptor, edit: bytes) -> None:
    at = 0

    def integer() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = edit[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def text() -> bytes:
        nonlocal at
        length = integer()
        at += length
        if at > len(edit):
            raise ValueError("a text is too short")
        return edit[at - length : at]

    while at < len(edit):
        match integer():
            case _Tag.COMPARATOR:
                text()
            case _Tag.LOG:
                found.log = integer()
            case _Tag.NEXT_FILE | _Tag.OLD_LOG:
                integer()
            case _Tag.SEQUENCE:
                found.sequence = integer()
            case _Tag.POINTER:
                integer()
                text()
            case _Tag.DELETED_TABLE:
                integer()
                found.tables.pop(integer(), None)
            case _Tag.NEW_TABLE:
                integer()
                number, size = integer(), integer()
                smallest, largest = text()[:-_INTERNAL_BYTES], text()[:-_INTERNAL_BYTES]
                found.tables[number] = Table(size, smallest, largest)
            case unknown:
                raise ValueError(f"unknown tag {unknown}")
