"""The log of a simulated node: records with length and checksum on a simulated disk.

The rules are those of `node/wal.py`; a record's payload is a number that stands for the entry, as
long as a real one. Every record says up to where the log was synced when it was written: damage
before such a place is lost history; damage behind all of them is taken for the end that no sync had
covered, and is left out. But a message of the node's own behind that damage is kept: a flipped bit
may have hit what was synced together with it, and the core knows what to do with an own message
whose reasons are lost. If the own message itself is hit, its reasons are intact, and the replay
asks for the same one again.
"""

import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from consensus.events import Input, MessageReceived
from consensus.messages import Proposal
from tests.simulation.chain import Body
from tests.simulation.disk import SimulatedDisk

FOLDER = Path("data")
LOG = FOLDER / "log"
FRESH = FOLDER / "log.new"
ASIDE = FOLDER / "log.damaged"
ROTATE_BYTES = 16 * 1024
"""Small, so that logs are renamed all the time."""
BUFFER_BYTES = 2 * 1024
_HEAD = struct.Struct(">III")
_OFFSET = struct.Struct(">I")
_TOKEN_BYTES = 8
SHORT, VOTE, PROPOSAL = 3, 20, 50
"""How often a payload repeats its token: as long as a timer, a vote, a proposal with its block."""
_LENGTHS = tuple(tokens * _TOKEN_BYTES for tokens in (SHORT, VOTE, PROPOSAL))


class DamagedLogError(Exception):
    """History is missing: the node must not vote where it may have voted."""


class Ended(NamedTuple):
    """The block of this height is durable; the node votes from `voting_from` on."""

    height: int
    voting_from: int


class Logged(NamedTuple):
    """An input of the core, with the block that came with it."""

    event: Input
    body: Body | None
    is_own: bool


class Seal(NamedTuple):
    """Says nothing but what every record says: all before it was synced."""


SEAL = Seal()
Entry = Ended | Logged | Seal


@dataclass(slots=True)
class Remembered:
    """The last ended height and every input after it."""

    ended: Ended
    entries: list[Logged] = field(default_factory=list[Logged])


class Log:
    """A log that one node owns. `entries` is where the payloads of a run point to."""

    __slots__ = ("_buffer", "_buffered", "_disk", "_entries", "_file", "_size", "_synced", "found")

    def __init__(self, disk: SimulatedDisk, entries: list[Entry]) -> None:
        """Open the log and read what it remembers.

        Raises: DamagedLogError when history is lost, the file included; OSError.
        """
        self._disk = disk
        self._entries = entries
        self._buffer: list[bytes] = []
        self._buffered = 0
        if not disk.exists(LOG):
            raise DamagedLogError("the log is missing")
        self._file = disk.open(LOG)
        data = self._file.read(self._file.size(), 0)
        self._size = self._synced = 0
        self.found = self._recover(data)

    def _recover(self, data: bytes) -> Remembered:
        read = list(_records(data, 0))
        end = read[-1].end if read else 0
        behind = list(_search(data, end))
        if is_lost(behind, end):
            raise DamagedLogError(f"damaged at byte {end} and known to be synced after it")
        entries = [self._entries[record.token] for record in read]
        lost = [self._entries[record.token] for record in behind]
        adopted = [entry for entry in lost if isinstance(entry, Logged) and is_adopted(entry)]
        found: Remembered | None = None
        for entry in [*entries, *adopted]:
            if isinstance(entry, Ended):
                found = Remembered(entry)
            elif found is not None and isinstance(entry, Logged):
                found.entries.append(entry)
        if found is None:
            raise DamagedLogError("the log does not say where it begins")
        self._size = end
        if end < len(data):
            self._begin_anew(found)
        self.sync()
        return found

    def _begin_anew(self, found: Remembered) -> None:
        """Another log takes the name at once: to cut this one off could lose what is adopted."""
        create(self._disk, self._entries, found.ended, found.entries)
        self._file = self._disk.open(LOG)
        self._size = self._synced = self._file.size()

    def append(self, entry: Entry, tokens: int = SHORT) -> None:
        """Add an entry to the next sync."""
        token = len(self._entries)
        self._entries.append(entry)
        payload = token.to_bytes(_TOKEN_BYTES, "big") * tokens
        self._buffer.append(_record(payload, self._synced))
        self._buffered += _HEAD.size + len(payload)
        if self._buffered > BUFFER_BYTES:
            self.write()

    def append_own(self, entry: Logged) -> None:
        """Add a message of the node's own, and make it durable."""
        self.append(entry, _tokens(entry))
        self.sync()

    def write(self) -> None:
        """Hand what is appended to the operating system."""
        if self._buffer:
            data = b"".join(self._buffer)
            self._file.write(data, self._size)
            self._size += len(data)
            self._buffer.clear()
            self._buffered = 0

    def sync(self) -> None:
        """Make everything appended durable. Raises: OSError, which is final."""
        self.write()
        self._file.sync()
        self._synced = self._size

    def end_height(self, ended: Ended) -> None:
        """Record that a block is durable; a large log starts anew here."""
        self.append(ended)
        if self._size > ROTATE_BYTES:
            self.sync()
            self._begin_anew(Remembered(ended))

    def end_before(self, ended: Ended, kept: Sequence[Logged]) -> None:
        """Record an ended height where own messages of the next one are kept: it is in front.

        Behind them it would end their height as well, and the next start would forget them.
        """
        if kept:
            self._begin_anew(Remembered(ended, list(kept)))
        else:
            self.end_height(ended)


def is_lost(behind: Sequence["_Record"], damaged: int) -> bool:
    """Whether a record behind a damaged place shows that the place had been synced."""
    return any(record.synced > damaged for record in behind)


def is_adopted(entry: Logged) -> bool:
    """Whether an input behind the damage is kept: what this node signed binds it."""
    return entry.is_own


def create(
    disk: SimulatedDisk, entries: list[Entry], ended: Ended, rest: Sequence[Logged] = ()
) -> None:
    """Begin a log that says where it begins, durable under its name when this returns.

    It has its name only once it is synced, so every record knows those before it to be synced. What
    is adopted has no reasons any more that could bring it back, so a last record vouches for it.
    """
    data = b""
    for entry in (ended, *rest, *([SEAL] if rest else [])):
        token = len(entries)
        entries.append(entry)
        data += _record(token.to_bytes(_TOKEN_BYTES, "big") * _tokens(entry), len(data))
    if disk.exists(FRESH):
        disk.remove(FRESH)
    file = disk.create(FRESH)
    file.write(data, 0)
    file.sync()
    disk.replace(FRESH, LOG)
    disk.sync_folder(FOLDER)


def _tokens(entry: Entry) -> int:
    """How long the record of an entry is."""
    if not isinstance(entry, Logged) or not isinstance(entry.event, MessageReceived):
        return SHORT
    return PROPOSAL if isinstance(entry.event.signed.message, Proposal) else VOTE


def set_aside(disk: SimulatedDisk) -> None:
    """Rename a damaged log; the evidence is kept."""
    if disk.exists(LOG):
        disk.replace(LOG, ASIDE)


def _record(payload: bytes, synced: int) -> bytes:
    """Head and payload; the checksum covers both. As a start value alone, `synced` would not do:
    one flip there and one in the payload could cancel.
    """
    checksum = zlib.crc32(payload, zlib.crc32(_OFFSET.pack(synced)))
    return _HEAD.pack(len(payload), checksum, synced) + payload


class _Record(NamedTuple):
    end: int
    synced: int
    token: int


def _record_at(data: bytes, offset: int) -> _Record | None:
    if offset + _HEAD.size > len(data):
        return None
    length, checksum, synced = _HEAD.unpack_from(data, offset)
    start = offset + _HEAD.size
    if length not in _LENGTHS or start + length > len(data):
        return None
    payload = data[start : start + length]
    if zlib.crc32(payload, zlib.crc32(_OFFSET.pack(synced))) != checksum:
        return None
    return _Record(start + length, synced, int.from_bytes(payload[:_TOKEN_BYTES], "big"))


def _records(data: bytes, offset: int) -> Iterator[_Record]:
    """Intact records without a gap."""
    while (record := _record_at(data, offset)) is not None:
        yield record
        offset = record.end


def _search(data: bytes, damaged: int) -> Iterator[_Record]:
    """Intact records behind a damaged place."""
    offset = damaged + 1
    while offset + _HEAD.size < len(data):
        record = _record_at(data, offset)
        if record is None:
            offset += 1
        else:
            yield record
            offset = record.end
