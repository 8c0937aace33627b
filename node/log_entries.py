"""What stands in the write-ahead log, and what a node believes of one that it finds.

What it decides: what a log remembers. Its beginning without a gap is believed as it stands. What
lies behind a torn end is not, but for what binds this node: a flipped bit may have hit an input
that was synced together with our own vote behind it, and that vote has left (decision 0031). Where
that is not enough to know all that this node signed, history is lost.
What it never does: touch a file.
Source: decisions 0022 and 0031.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum, unique
from typing import Annotated, cast

from msgspec import Meta

from ledger.batch import GENESIS_BATCH
from ledger.codec import Record, Schema
from ledger.errors import KanglianError, Rejected
from ledger.store.port import Place
from node import wire
from node.limits import LOG_RECORD_BYTES
from node.log_records import Found, is_history_lost, record_at, records_behind


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


class LogMended(Record, frozen=True, tag=9):
    """The end of a log that was written anew to keep what stood behind a torn end.

    It vouches for all before it: what was kept has no reasons left from which a replay could ask
    for it again, so damage there is a loss.
    """


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
    | LogMended
)
# A union is a type to msgspec, if not to the type checker.
ENTRY: Schema[Entry] = Schema(cast("type[Entry]", Entry), max_bytes=LOG_RECORD_BYTES)


class LogDamagedError(KanglianError):
    """History is missing from the write-ahead log; the node must go into quarantine."""


@dataclass(slots=True)
class Recovered:
    """What a log remembers: the last ended height and every entry after it.

    `release` is kept until its height has ended; it is not among `entries`. `is_mended`: some
    entries were kept from behind a torn end, without the inputs that led to them.
    """

    ended: EndedHeight | None = None
    entries: list[Entry] = field(default_factory=list[Entry])
    release: LoggedRelease | None = None
    is_mended: bool = False

    def take(self, entry: Entry) -> None:
        """Add the next entry of the log."""
        match entry:
            case EndedHeight(height):
                self.ended = entry
                self.entries = []
                self.is_mended = False
                if self.release is not None and self.release.height <= height:
                    self.release = None
            case LoggedRelease():
                self.release = entry
            case LogMended():
                self.is_mended = True
            case _:
                self.entries.append(entry)

    def all_entries(self) -> list[Entry]:
        """A log that remembers just this."""
        beginning = [entry for entry in (self.ended, self.release) if entry is not None]
        return [*beginning, *self.entries, *([LogMended()] if self.is_mended else [])]

    def own_batches(self) -> tuple[int, bytes]:
        """The number of this node's next batch, and the digest of the one before it."""
        ended = self.ended or EndedHeight(0, 0, GENESIS_BATCH)
        sequence, previous = ended.own_sequence, ended.own_previous
        for entry in self.entries:
            if isinstance(entry, LoggedBatch) and entry.own_sequence >= sequence:
                sequence, previous = entry.own_sequence + 1, entry.digest
        return sequence, previous

    def keep(self, later: Iterable[Entry]) -> bool:
        """Take what binds this node of the entries that stand behind a torn end, if anything does.

        With it comes where batches lie, for a vote says "I hold all of it". Inputs of peers come
        again. A release and the end of a height are not believed here: both could end a
        quarantine, and what they say is known without them.
        Raises: LogDamagedError.
        """
        kept = [entry for entry in later if isinstance(entry, LoggedBatch) or is_own(entry)]
        if not any(is_own(entry) for entry in kept):
            return False
        if self.ended is None:
            raise LogDamagedError("and does not say any more where it began")
        for entry in kept:
            self._reach(entry)
            self.take(entry)
        self.is_mended = True
        return True

    def _reach(self, own: Entry) -> None:
        """Stand at the height of an own message: whoever signed there held the block below.

        The end of that height is the newest whose record may be missing: each is durable before
        the next block is. A change of `voting_from` or `memory` is synced by itself, so it stood
        in front.
        """
        height, ended = _height_of(own), self.ended
        if height is None or ended is None:
            return
        if not 1 <= height - ended.height <= 2:
            raise LogDamagedError("and an own message behind it is out of place")
        if height == ended.height + 2:
            sequence, previous = self.own_batches()
            self.take(EndedHeight(height - 1, sequence, previous, ended.voting_from, ended.memory))


def is_own(entry: Entry) -> bool:
    """Whether an entry is a message or a batch of this node: it may have left."""
    match entry:
        case LoggedVote(own=own) | LoggedProposal(own=own):
            return own
        case LoggedBatch(own_sequence=sequence):
            return sequence >= 0
        case _:
            return False


def _height_of(own: Entry) -> int | None:
    """The height of an own message; None of a batch. Raises: LogDamagedError."""
    try:
        match own:
            case LoggedVote(message):
                return wire.VOTE.decode(message).height
            case LoggedProposal(message):
                return wire.PROPOSAL.decode(message).height
            case _:
                return None
    except Rejected as refusal:
        raise LogDamagedError(f"and an own message behind it is none: {refusal}") from refusal


def entries_of(data: bytes) -> Iterator[tuple[int, Entry]]:
    """Intact entries from the start of a log, each with the offset behind it."""
    offset = 0
    while (found := record_at(data, offset)) is not None:
        entry = _decoded(found)
        if entry is None:
            return
        offset = found.behind
        yield offset, entry


def _decoded(record: Found) -> Entry | None:
    try:
        return ENTRY.decode(record.payload)
    except Rejected:
        return None


@dataclass(slots=True)
class Reading:
    """What the bytes of a log say.

    `intact`: where the beginning without a gap ends. `loss`: why that is not all there was, or "".
    `has_kept`: whether something from behind the gap was added.
    """

    recovered: Recovered
    intact: int
    loss: str = ""
    has_kept: bool = False


def read(data: bytes) -> Reading:
    """Read a whole log, whatever became of it."""
    found = Reading(Recovered(), 0)
    for behind, entry in entries_of(data):
        found.intact = behind
        found.recovered.take(entry)
    later = records_behind(data, found.intact)
    if is_history_lost(data, found.intact, later):
        found.loss = "where it was written for certain"
        return found
    entries = [entry for record in later if (entry := _decoded(record)) is not None]
    try:
        found.has_kept = found.recovered.keep(entries)
    except LogDamagedError as damage:
        found.loss = str(damage)
    return found
