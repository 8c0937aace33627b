"""From which height on this node may vote: the one place that knows what it may have signed before.

What it decides. A node opens its gate when it has heard a quorum of validators, itself included,
and holds every block that they had at that moment. Then it knows
- whether it began without its memory: then it votes only above anything it may have signed;
- whether its signature stands in certificates that its log cannot explain (an old copy of the data
  folder, or another instance with its key): then it does not vote until DUPLICATE_HEIGHTS newer
  certificates are free of it.
Why `newest + QUARANTINE_HEIGHTS`: who signed at S had decided S - 1, so a quorum precommitted S - 1
and the correct ones of it hold certificate S - 2; one of those is among any quorum that is heard.
What it never does: read messages, write the log, stop the node; the driver does.
Source: research consensus-reliability section 1.5; cometbft ADR-051; decision 0022.
"""

from dataclasses import dataclass, field
from pathlib import Path

import structlog

from consensus.events import Adopted
from ledger.batch import GENESIS_BATCH
from ledger.errors import InvariantError
from ledger.ids import Address, BlockHash, Round
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk
from ledger.validators import ValidatorSet
from node.limits import DUPLICATE_HEIGHTS, QUARANTINE_HEIGHTS, WATCHED_HEIGHTS
from node.log_entries import EndedHeight, LogDamagedError, LoggedRelease, Memory, Recovered
from node.wal import WriteAheadLog, set_aside

_log = structlog.get_logger("quarantine")


class DuplicateInstanceError(InvariantError):
    """This node's key is in use where this node does not use it: it must not go on."""

    def __init__(self, evidence: str, voting_from: int) -> None:
        super().__init__(
            f"{evidence}. Either another instance runs with the same key, or this data folder is "
            f"an old copy. The node stops and will not vote before height {voting_from}; make sure "
            "that no other instance runs, then start it again"
        )


@dataclass(slots=True)
class VotingGate:
    """What a node knows of its own past. Closed until its peers were heard."""

    me: Address
    voting_from: int
    memory: Memory
    explained_until: int
    """Own signatures at or below this height are of the past, whatever they say."""
    release: LoggedRelease | None = None
    is_open: bool = False
    _tips: dict[Address, int] = field(default_factory=dict[Address, int])
    _suspect: int = 0

    def hear(self, peer: Address, tip: int) -> None:
        """A validator says which block it has; its first word since the start counts."""
        if not self.is_open:
            self._tips.setdefault(peer, tip)

    def drop_claim(self, peer: Address) -> None:
        """A peer could not show what it claimed to have."""
        self._tips[peer] = 0

    def suspect(self, height: int) -> None:
        """A signature of this node at this height cannot be explained."""
        self._suspect = max(self._suspect, height)

    def try_open(self, height: int, validators: ValidatorSet) -> bool:
        """Open if enough was heard; `height` is the newest block held. True at the moment of it."""
        if self.is_open:
            return False
        others = [item.address for item in validators.members if item.address != self.me]
        heard = [tip for peer in others if (tip := self._tips.get(Address(peer))) is not None]
        is_voter = len(others) < len(validators.members)
        if len(heard) + is_voter < validators.quorum or max(heard, default=0) > height:
            return False
        self.is_open = True
        if len(validators.members) > 1:
            self._judge(height)
        else:
            self.voting_from = 0  # nobody to contradict
        self.memory = Memory.COMPLETE
        return True

    def _judge(self, newest: int) -> None:
        is_blank = self.memory is Memory.LOST or (self.memory is Memory.NEW and newest > 0)
        if self.release is not None and self.release.height > newest:
            self.voting_from = self.release.height
        elif is_blank or self._suspect:
            self.quarantine(newest)

    def quarantine(self, newest: int) -> None:
        """Do not vote until what may have been signed is past; `newest` is the newest block."""
        may_have_signed = newest + QUARANTINE_HEIGHTS
        self.explained_until = max(self.explained_until, may_have_signed)
        self.voting_from = max(self.voting_from, may_have_signed + WATCHED_HEIGHTS + 1)
        if self._suspect:
            self.voting_from = max(self.voting_from, self._suspect + DUPLICATE_HEIGHTS + 1)

    def may_vote(self, height: int) -> bool:
        """Whether this node signs at a height."""
        return self.is_open and height >= self.voting_from

    def adopted(self, height: int) -> Adopted | None:
        """What a release imposes at a height."""
        release = self.release
        if release is None or release.height != height or not self.may_vote(height):
            return None
        value = None if release.locked_value is None else BlockHash(release.locked_value)
        return Adopted(Round(release.after_round), Round(release.locked_round), value)

    def is_past(self, height: int, round_number: int) -> bool:
        """Whether an own signature here may stem from what this node no longer remembers."""
        if not self.is_open and self.memory is not Memory.COMPLETE:
            return True  # how far the past reaches is known when the gate opens
        release = self.release
        if release is not None and height == release.height:
            return round_number <= release.after_round
        return height <= self.explained_until


def gate_of(me: Address, recovered: Recovered) -> VotingGate:
    """The gate of a node that starts with this log."""
    ended = recovered.ended
    if ended is None:
        return VotingGate(me, 0, Memory.COMPLETE, 0, recovered.release)
    watched = ended.voting_from - 1 - WATCHED_HEIGHTS
    explained = max(ended.height, watched)
    return VotingGate(me, ended.voting_from, ended.memory, explained, recovered.release)


def open_log(
    path: Path, height: int, now_ms: int, disk: Disk = OPERATING_SYSTEM_DISK
) -> WriteAheadLog:
    """The log of a node whose blocks end at `height`; one without a beginning gets it.

    A damaged log is set aside and a new one says that memory is lost.
    Raises: UnavailableError.
    """
    is_lost = height > 0
    try:
        log = WriteAheadLog(path, disk)
    except LogDamagedError as error:
        _log.error("log_damaged", file=str(set_aside(path, disk)), detail=str(error))
        log = WriteAheadLog(path, disk)
        is_lost = True
    if log.recovered.is_mended:
        _log.warning("log_mended", file=str(path), entries=len(log.recovered.entries))
    if log.is_blank:
        is_lost = is_lost or bool(log.recovered.entries)
        memory = Memory.LOST if is_lost else Memory.NEW
        # A new log counts its batches from the clock, which is above every number used before.
        log.begin(EndedHeight(height, now_ms, GENESIS_BATCH, 0, memory))
    return log
