"""The proposals of one height and what the shell found of their blocks.

What it decides: which proposals are kept (two a round, to prove an equivocation), which values may
be voted for. What it never does: count votes or look into a block.
Timeliness is a matter of one proposal at one moment, validity of the value: a verdict is kept by
round and value, and a value that was VALID or UNTIMELY in any round is acceptable in all.
Source: arXiv 1807.04938 Algorithm 1; cometbft #2221 (timeliness belongs to the prevote alone).
"""

from consensus.events import Verdict
from consensus.messages import NO_ROUND, Evidence, Proposal, Signed
from ledger.ids import BlockHash, Round

PROPOSALS_PER_ROUND = 2
"""The first, and one more: what it takes to convict the proposer and to follow either half."""

_Entry = tuple[Proposal, Signed]


class ProposalBook:
    """All proposals of one height."""

    __slots__ = ("_acceptable", "_accused", "_rounds", "_verdicts")

    def __init__(self) -> None:
        self._rounds: dict[Round, list[_Entry]] = {}
        self._verdicts: dict[tuple[Round, BlockHash], Verdict | None] = {}
        self._acceptable: set[BlockHash] = set()
        self._accused: set[Round] = set()

    def add(self, proposal: Proposal, signed: Signed) -> tuple[bool, Evidence | None]:
        """Keep a proposal of the right proposer; (whether it is new and kept, whom it convicts)."""
        entries = self._rounds.setdefault(proposal.round, [])
        if any(held == proposal for held, _ in entries):
            return False, None
        evidence = None
        if entries and proposal.round not in self._accused:
            self._accused.add(proposal.round)
            evidence = Evidence(entries[0][1], signed)
        if len(entries) == PROPOSALS_PER_ROUND:
            return False, evidence
        entries.append((proposal, signed))
        return True, evidence

    def ask(self, proposal: Proposal) -> bool:
        """Whether the shell must check this new proposal; remembers that it was asked."""
        key = (proposal.round, proposal.value)
        is_known = proposal.valid_round != NO_ROUND and proposal.value in self._acceptable
        if is_known or key in self._verdicts:
            return False
        self._verdicts[key] = None
        return True

    def judge(self, round_number: Round, value: BlockHash, verdict: Verdict) -> bool:
        """Take the answer to a check; False if nobody asked or it was answered before."""
        key = (round_number, value)
        if key not in self._verdicts or self._verdicts[key] is not None:
            return False
        self.accept(round_number, value, verdict)
        return True

    def accept(self, round_number: Round, value: BlockHash, verdict: Verdict) -> None:
        """Record a verdict, asked for or not: this node's own block is valid from the start."""
        self._verdicts[round_number, value] = verdict
        if verdict is not Verdict.INVALID:
            self._acceptable.add(value)

    def verdict(self, round_number: Round, value: BlockHash) -> Verdict | None:
        """What is known of a value as proposed in a round; None while the check is under way."""
        return self._verdicts.get((round_number, value))

    def is_acceptable(self, value: BlockHash) -> bool:
        """Whether a check of any round found the value valid, timely or not."""
        return value in self._acceptable

    def has_value(self, round_number: Round, value: BlockHash | None) -> bool:
        """Whether a kept proposal of the round carries the value."""
        entries = self._rounds.get(round_number)
        return entries is not None and any(held.value == value for held, _ in entries)

    def in_round(self, round_number: Round) -> list[Proposal]:
        """The kept proposals of a round in order of arrival."""
        return [held for held, _ in self._rounds.get(round_number, ())]

    def signed_in(self, round_number: Round) -> list[Signed]:
        """The kept proposals of a round with signatures, in order of arrival."""
        return [signed for _, signed in self._rounds.get(round_number, ())]

    def unanswered(self) -> list[tuple[Round, BlockHash]]:
        """Checks that are under way, in the order in which they were asked for."""
        return [key for key, verdict in self._verdicts.items() if verdict is None]

    def forget_before(self, oldest: int, kept: tuple[int, ...]) -> None:
        """Drop rounds before `oldest` except those in `kept`, and values only they knew.

        A value that comes back in a later proposal is simply checked again.
        """
        dropped = [number for number in self._rounds if number < oldest and number not in kept]
        if not dropped:
            return
        for round_number in dropped:
            del self._rounds[round_number]
            self._accused.discard(round_number)
        self._verdicts = {
            key: verdict for key, verdict in self._verdicts.items() if key[0] in self._rounds
        }
        self._acceptable = {
            value
            for (_, value), verdict in self._verdicts.items()
            if verdict in (Verdict.VALID, Verdict.UNTIMELY)
        }

    def __len__(self) -> int:
        return sum(len(entries) for entries in self._rounds.values())
