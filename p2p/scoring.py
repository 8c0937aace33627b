"""What a peer's offences cost it: a score that decays, and the standing that follows from it.

What it decides: when a node is banned, and when it is only demoted because it cannot be spared.
What it never does: read a clock, close a link, or decide whose fault a message is; callers say.
Blame goes to whoever must have known better: the sender of a link for everything it must have
checked before passing it on (signatures, shapes), the signer besides where something is signed.
A late answer of a correct node is no offence, and lateness alone (STALE) never bans.
Source: research consensus-reliability section 5; the decay follows GossipSub v1.1 (P4, P7).
"""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum, unique
from types import MappingProxyType

from ledger.errors import PeerProtocolError
from ledger.ids import Address

BAN_SCORE = -100.0
"""One forged signature, or two malformed messages at once."""
BAN_S = 600.0
"""Long enough for an operator to look, short enough to heal by itself."""
RESTORE_SCORE = -50.0
"""A demoted node is as good as any again when half of what demoted it has decayed: 70 s."""
DECAY = 0.99
"""What a second leaves of a score: half is forgotten in 69 seconds."""
_FORGOTTEN = -0.5  # a score that prints as 0 needs no memory
_LOWEST_SCORE = -200.0  # what cannot be worse: a demotion ends 140 s after the last offence


@unique
class Offence(StrEnum):
    """What a correct node never does, STALE excepted. The value is the metric label."""

    INVALID_SIGNATURE = "invalid_signature"
    """A signature or certificate that does not verify, made or passed on."""
    MALFORMED = "malformed"
    """Bytes that are no frame or no canonical message, or that contradict themselves."""
    FLOOD = "flood"
    """Its budget was spent during more than half of a whole minute."""
    UNREQUESTED = "unrequested"
    """An answer to a question that this node did not ask it, or a second answer."""
    FRUITLESS = "fruitless"
    """A claim that led nowhere: it has not the block that it says it has."""
    FALSE_SNAPSHOT = "false_snapshot"
    """A part of a snapshot that is not what the chain's headers commit to."""
    STALE = "stale"
    """A message of a height that was left behind long ago."""


POINTS = MappingProxyType(
    {
        Offence.INVALID_SIGNATURE: 100.0,
        Offence.MALFORMED: 50.0,
        Offence.FLOOD: 50.0,
        Offence.UNREQUESTED: 20.0,
        Offence.FRUITLESS: 20.0,
        Offence.FALSE_SNAPSHOT: 100.0,
        Offence.STALE: 1.0,
    }
)
_STALE_FLOOR = -50.0  # a link that was clogged brings a thousand old votes at once: no ban for it


@unique
class Standing(StrEnum):
    """What a node may do here. A demoted one keeps its link, with a small budget, asked last."""

    GOOD = "good"
    DEMOTED = "demoted"
    BANNED = "banned"


class PeerOffenceError(PeerProtocolError):
    """A message ends its link; `offence` says what it costs."""

    def __init__(self, offence: Offence, detail: str) -> None:
        self.offence = offence
        super().__init__(detail)


@dataclass(slots=True)
class _Record:
    """One node's score as of `at_s`; `standing` is what was last reported."""

    score: float
    at_s: float
    standing: Standing = Standing.GOOD
    banned_until_s: float = 0.0


class Scores:
    """The scores of all nodes that ever offended; times are seconds of any one clock."""

    __slots__ = ("_records",)

    def __init__(self) -> None:
        self._records: dict[Address, _Record] = {}

    def charge(
        self, address: Address, offence: Offence, now_s: float, *, can_be_spared: bool
    ) -> Standing | None:
        """Count an offence; the new standing if it changed by it.

        A node that cannot be spared (see `can_be_spared`) is demoted where another is banned.
        """
        record = self._records.setdefault(address, _Record(0.0, now_s))
        score = _decayed(record, now_s)
        lowered = score - POINTS[offence]
        if offence is Offence.STALE:
            lowered = min(score, max(lowered, _STALE_FLOOR))
        record.score, record.at_s = max(lowered, _LOWEST_SCORE), now_s
        standing = _standing(record, now_s)
        if lowered > BAN_SCORE or standing is Standing.BANNED:
            return None
        if can_be_spared:
            record.standing, record.banned_until_s = Standing.BANNED, now_s + BAN_S
            return Standing.BANNED
        if standing is Standing.DEMOTED:
            return None
        record.standing = Standing.DEMOTED
        return Standing.DEMOTED

    def score(self, address: Address, now_s: float) -> int:
        """From 0 (nothing known against it) downwards."""
        record = self._records.get(address)
        return 0 if record is None else round(_decayed(record, now_s))

    def standing(self, address: Address, now_s: float) -> Standing:
        """What the node may do now."""
        record = self._records.get(address)
        return Standing.GOOD if record is None else _standing(record, now_s)

    def restore(self, now_s: float) -> list[Address]:
        """End bans and demotions that are over, forget decayed scores; whose standing is good."""
        restored: list[Address] = []
        for address, record in list(self._records.items()):
            standing = _standing(record, now_s)
            if standing is not record.standing:
                record.standing = standing
                restored.append(address)
            if standing is Standing.GOOD and _decayed(record, now_s) > _FORGOTTEN:
                del self._records[address]
        return restored


def _standing(record: _Record, now_s: float) -> Standing:
    is_over = (
        now_s >= record.banned_until_s
        if record.standing is Standing.BANNED
        else _decayed(record, now_s) > RESTORE_SCORE
    )
    return Standing.GOOD if is_over else record.standing


def _decayed(record: _Record, now_s: float) -> float:
    return record.score * DECAY ** (now_s - record.at_s)


def can_be_spared(
    address: Address, own: Address, linked: Collection[Address], voters: Collection[Address]
) -> bool:
    """Whether this node still reaches 2f + 1 of the voters, itself counted, without `address`.

    Only voters can be missed: nobody needs an observer to decide. Cost: O(voters).
    """
    if address not in voters:
        return True
    quorum = 2 * len(voters) // 3 + 1
    reached = [voter for voter in voters if voter == own or voter in linked]
    return len(reached) - (address in linked) >= quorum
