"""Everything a core knows about the height it works on. Mutable, and changed by `rules.py` alone.

Names follow the paper: round_p, step_p, lockedValue_p, lockedRound_p, validValue_p, validRound_p.
Bounds: rounds up to the next one are kept in full, PAST_ROUNDS back; beyond the next round only how
far each validator is (see `VoteBook.note`).
"""

from dataclasses import dataclass, field

from consensus.events import Decide, Effect, StartHeight, Step
from consensus.messages import NO_ROUND, Message, Proposal, Vote, VoteKind
from consensus.proposal_book import ProposalBook
from consensus.proposer import proposer
from consensus.timeouts import Timeouts
from consensus.vote_book import VoteBook
from ledger.ids import BlockHash, Height, Round, ValidatorIndex

PAST_ROUNDS = 100
"""Rounds kept behind the current one: round 100 alone lasts minutes, and n = 15 stays < 1 MB."""
FIRST_ROUND = Round(0)

Slot = tuple[Round, int]
"""Where a validator may sign once: round, and 0 for the proposal or the kind of vote."""


def slot_of(message: Message) -> Slot:
    """The slot a message fills; also the order in which they are signed."""
    return message.round, message.kind if isinstance(message, Vote) else 0


@dataclass(slots=True)
class HeightState:
    """One height. `effects` collects what the current input causes."""

    start: StartHeight
    timeouts: Timeouts
    votes: VoteBook
    proposals: ProposalBook = field(default_factory=ProposalBook)
    round: Round = FIRST_ROUND
    step: Step = Step.IDLE
    locked_value: BlockHash | None = None
    locked_round: Round = NO_ROUND
    valid_value: BlockHash | None = None
    valid_round: Round = NO_ROUND
    prevote_timer_set: bool = False
    precommit_timer_set: bool = False
    unsigned: dict[Slot, Message] = field(default_factory=dict[Slot, Message])
    """Own messages of this round that were asked for by `Sign` and have not come back."""
    decision: Decide | None = None
    effects: list[Effect] = field(default_factory=list[Effect])

    @property
    def height(self) -> Height:
        """The height that is being decided."""
        return self.start.height

    @property
    def is_running(self) -> bool:
        """Whether rounds are under way: started and not decided."""
        return Step.IDLE < self.step < Step.DECIDED

    def proposer(self, round_number: Round) -> ValidatorIndex:
        """The proposer of a round of this height."""
        return proposer(self.start.height, round_number, self.start.proposers)

    def oldest_round(self) -> int:
        """The oldest round that is kept apart from the locked and the valid one."""
        return self.round - PAST_ROUNDS

    def keeps(self, message: Message) -> bool:
        """Whether a message's round is not too old to be kept."""
        return message.round >= self.oldest_round() or message.round in (
            self.locked_round,
            self.valid_round,
        )

    def refuses(self, message: Message) -> bool:
        """Whether no correct validator could have sent this: a field out of range, a wrong sender.

        T-05: every integer may be anything.
        """
        if not 0 <= message.sender < self.start.validator_count or message.round < 0:
            return True
        if isinstance(message, Proposal):
            is_proposer = message.sender == self.proposer(message.round)
            return not (is_proposer and NO_ROUND <= message.valid_round < message.round)
        if message.valid_round == NO_ROUND:
            return False
        is_prevote = message.kind is VoteKind.PREVOTE and message.value is not None
        return not (is_prevote and 0 <= message.valid_round < message.round)
