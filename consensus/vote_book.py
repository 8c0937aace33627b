"""The votes of one height: who said what in which round, and which quorums that makes.

What it decides: quorums, conflicts, the round that f + 1 validators have reached.
What it never does: judge values, act, or store a vote twice.

Conflicting votes. The first vote of a validator always counts. A second, different one is evidence;
it counts as well if its value is nil or was proposed in that round. Otherwise one equivocator could
stop the rest. Example with n = 4: nodes 0 and 1 prevote A, node 2 prevotes nil, and the equivocator
3 sends its prevote for A to node 0 only, nil to the others. Node 0 sees a quorum and locks A. When
it re-proposes A, nodes 1 and 2 can follow only if they count 3's prevote for A, which node 0 passes
on, beside the nil they saw first; else node 0 stays locked and the others unconvinced for ever.
Counting a validator for two values is safe: two quorums share f + 1 validators, at most f of them
equivocate. "Any" quorums count senders once. At most four votes are kept per validator, round and
kind: the first, nil, and the two proposals a round may have. A conflicting vote that comes before
its proposal is not kept; re-sending brings it again.
Source: arXiv 1807.04938 Algorithm 1; research consensus-reliability section 1.2, point 7.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from consensus.messages import NO_ROUND, Evidence, Signed, Vote, VoteKind
from ledger.ids import BlockHash, Round, ValidatorIndex


def quorum_of(validator_count: int) -> int:
    """floor(2n / 3) + 1: two quorums share a correct member."""
    return 2 * validator_count // 3 + 1


def faults_of(validator_count: int) -> int:
    """How many of n validators may fail in any way: floor((n - 1) / 3)."""
    return (validator_count - 1) // 3


@dataclass(frozen=True, slots=True)
class Added:
    """What a vote changed: whether a quorum came into being, and whom it convicts."""

    made_quorum: bool = False
    evidence: Evidence | None = None


_NOTHING = Added()
_MADE_QUORUM = Added(made_quorum=True)


@dataclass(slots=True)
class Tally:
    """The votes of one round and kind."""

    quorum: int
    firsts: dict[ValidatorIndex, tuple[Vote, Signed]] = field(
        default_factory=dict[ValidatorIndex, tuple[Vote, Signed]]
    )
    others: list[tuple[Vote, Signed]] = field(default_factory=list[tuple[Vote, Signed]])
    counts: dict[BlockHash | None, int] = field(default_factory=dict[BlockHash | None, int])
    winners: list[BlockHash | None] = field(default_factory=list[BlockHash | None])
    accused: set[ValidatorIndex] = field(default_factory=set[ValidatorIndex])

    @property
    def has_any_quorum(self) -> bool:
        """Whether a quorum of distinct validators voted, for whatever."""
        return len(self.firsts) >= self.quorum

    def add(self, vote: Vote, signed: Signed, *, is_proposed: bool) -> Added:
        """Count a vote; `is_proposed` tells whether its round has a proposal of its value."""
        first = self.firsts.get(vote.sender)
        if first is not None:
            return self._add_conflicting(vote, signed, first, is_proposed=is_proposed)
        self.firsts[vote.sender] = (vote, signed)
        made_quorum = self._count(vote.value)
        return _MADE_QUORUM if made_quorum or len(self.firsts) == self.quorum else _NOTHING

    def _add_conflicting(
        self, vote: Vote, signed: Signed, first: tuple[Vote, Signed], *, is_proposed: bool
    ) -> Added:
        if first[0] == vote:
            return _NOTHING
        evidence = None
        if vote.sender not in self.accused:
            self.accused.add(vote.sender)
            evidence = Evidence(first[1], signed)
        may_count = vote.value is None or is_proposed
        if not may_count or vote.value in self._values_of(vote.sender):
            return Added(evidence=evidence)
        self.others.append((vote, signed))
        return Added(made_quorum=self._count(vote.value), evidence=evidence)

    def _count(self, value: BlockHash | None) -> bool:
        count = self.counts.get(value, 0) + 1
        self.counts[value] = count
        if count == self.quorum:
            self.winners.append(value)
            return True
        return False

    def _values_of(self, sender: ValidatorIndex) -> list[BlockHash | None]:
        return [vote.value for vote, _ in self._entries() if vote.sender == sender]

    def _entries(self) -> Iterator[tuple[Vote, Signed]]:
        yield from self.firsts.values()
        yield from self.others

    def __len__(self) -> int:
        return len(self.firsts) + len(self.others)

    def signed(self) -> list[Signed]:
        """Every kept vote, ascending by sender, in order of arrival for one sender."""
        ordered = sorted(self._entries(), key=lambda entry: entry[0].sender)
        return [signed for _, signed in ordered]

    def signatures_for(self, value: BlockHash) -> tuple[tuple[ValidatorIndex, bytes], ...]:
        """(sender, signature) of every kept vote for `value`, ascending."""
        return tuple(
            sorted(
                (vote.sender, signed.signature)
                for vote, signed in self._entries()
                if vote.value == value
            )
        )


class VoteBook:
    """All votes of one height."""

    __slots__ = (
        "_faults",
        "_highest",
        "_quorum",
        "_rounds",
        "precommit_winners",
        "prevote_winners",
        "reached",
    )

    def __init__(self, validator_count: int) -> None:
        self._quorum = quorum_of(validator_count)
        self._faults = faults_of(validator_count)
        self._rounds: dict[Round, tuple[Tally, Tally]] = {}
        self._highest: dict[ValidatorIndex, Round] = {}
        self.reached = NO_ROUND
        """The highest round that f + 1 validators have reached, one of them correct; else -1."""
        self.prevote_winners: dict[Round, BlockHash] = {}
        """The block that a quorum prevoted, by round."""
        self.precommit_winners: dict[Round, BlockHash] = {}
        """The block that a quorum precommitted, by round."""

    def note(self, sender: ValidatorIndex, round_number: Round) -> bool:
        """Remember how far a validator is; True if that raised `reached`.  Cost: O(n log n).

        This is all that is kept of rounds beyond the next, so far rounds cost one integer each.
        """
        if round_number <= self._highest.get(sender, NO_ROUND):
            return False
        self._highest[sender] = round_number
        if round_number <= self.reached or len(self._highest) <= self._faults:
            return False
        reached = sorted(self._highest.values(), reverse=True)[self._faults]
        if reached == self.reached:
            return False
        self.reached = reached
        return True

    def add(self, vote: Vote, signed: Signed, *, is_proposed: bool) -> Added:
        """Count a vote of a round that is kept in full."""
        tallies = self._rounds.get(vote.round)
        if tallies is None:
            tallies = (Tally(self._quorum), Tally(self._quorum))
            self._rounds[vote.round] = tallies
        is_prevote = vote.kind is VoteKind.PREVOTE
        tally = tallies[0] if is_prevote else tallies[1]
        added = tally.add(vote, signed, is_proposed=is_proposed)
        if added.made_quorum and vote.value is not None and vote.value in tally.winners:
            winners = self.prevote_winners if is_prevote else self.precommit_winners
            winners[vote.round] = vote.value
        return added

    def tally(self, kind: VoteKind, round_number: Round) -> Tally | None:
        """The votes of one round and kind, if there are any."""
        tallies = self._rounds.get(round_number)
        return None if tallies is None else tallies[kind - VoteKind.PREVOTE]

    def has_prevote_quorum(self, round_number: int, value: BlockHash) -> bool:
        """Whether a quorum prevoted `value` in a round."""
        tally = self.tally(VoteKind.PREVOTE, Round(round_number))
        return tally is not None and value in tally.winners

    def vote_of(self, sender: ValidatorIndex, kind: VoteKind, round_number: Round) -> Vote | None:
        """The first vote of a validator in a round."""
        tally = self.tally(kind, round_number)
        entry = None if tally is None else tally.firsts.get(sender)
        return None if entry is None else entry[0]

    def signed_in(self, round_number: Round) -> list[Signed]:
        """Every kept vote of a round: prevotes, then precommits, each ascending by sender."""
        tallies = self._rounds.get(round_number)
        return [] if tallies is None else tallies[0].signed() + tallies[1].signed()

    def forget_before(self, oldest: int, kept: tuple[int, ...]) -> None:
        """Drop rounds before `oldest` except those in `kept`."""
        for round_number in [number for number in self._rounds if number < oldest]:
            if round_number not in kept:
                del self._rounds[round_number]
                self.prevote_winners.pop(round_number, None)
                self.precommit_winners.pop(round_number, None)

    def __len__(self) -> int:
        return sum(len(tally) for tallies in self._rounds.values() for tally in tallies)
