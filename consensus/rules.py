"""Algorithm 1 of Tendermint as rules in a fixed order, fired until none applies.

What it decides: every vote, lock, decision and change of round. What it never does: look at raw
input; `core.py` files input away and then calls `settle`.
Each rule returns whether it fired. The order is part of the protocol of this node, live and in
replay: to decide (L49) comes before skipping a round (L55), and what ends a step (L22-L44) before
what merely sets a timer (L34, L47). See malachite #1483 for what a wrong order costs.

Three readings of the paper. L36 and L49 ask for the round's proposal; here any proposal of the
height that made the value known will do, because the quorum alone proves the round. A proposer sets
the propose timer too, so that a block that is never built does not stall its own node. And L42
holds for past rounds as well: the paper counts on a locked node to propose its value in its turn,
but here that node may be demoted (`proposer.py`), so whoever learns of its prevote quorum takes the
value over. That is safe, since voters check the quorum of a re-proposal themselves.
Source: arXiv 1807.04938, Algorithm 1, line numbers below; malachite core-driver/src/mux.rs.
"""

from collections.abc import Callable

from consensus.events import (
    Adopted,
    BuildBlock,
    Decide,
    SetTimer,
    Sign,
    Step,
    TimerId,
    TimerKind,
    Verdict,
)
from consensus.height_state import HeightState, slot_of
from consensus.messages import (
    NO_ROUND,
    CommitCertificate,
    Message,
    Proposal,
    Vote,
    VoteKind,
)
from ledger.errors import invariant
from ledger.ids import BlockHash, Round

Rule = Callable[[HeightState], bool]


def settle(state: HeightState) -> None:
    """Fire rules by priority until none applies. Ends: each rule fires at most once a round."""
    while state.is_running and any(rule(state) for rule in RULES):
        pass


def start_round(state: HeightState, round_number: Round) -> None:
    """L11-L21: enter a round; propose the valid value, never the locked one, or a new block."""
    state.round = round_number
    state.step = Step.PROPOSE
    state.prevote_timer_set = False
    state.precommit_timer_set = False
    state.unsigned.clear()
    adopt_newest(state)  # A round left at step propose may have had a quorum.
    kept = (state.locked_round, state.valid_round)
    state.votes.forget_before(state.oldest_round(), kept)
    state.proposals.forget_before(state.oldest_round(), kept)
    set_timer(state, TimerKind.PROPOSE)  # L21
    recall_votes(state)  # Who voted in the round before it was entered proposes nothing in it.
    if state.valid_value is None:
        if wants_block(state):
            state.effects.append(BuildBlock(state.height, round_number))  # L18
    elif state.step is Step.PROPOSE and may_propose(state):
        propose(state, state.valid_value, state.valid_round)  # L16


def adopt(state: HeightState, adopted: Adopted) -> None:
    """Stand where a release puts a node without memory: locked, and in a round new to it.

    The valid value is not set: `adopt_valid` does it once the quorum and the block are known.
    """
    is_locked = adopted.locked_value is not None
    is_past = NO_ROUND < adopted.locked_round <= adopted.after_round
    is_sound = is_past if is_locked else adopted.locked_round == NO_ROUND
    invariant(is_sound, "an adopted lock has a value and a round that is over")
    state.locked_value, state.locked_round = adopted.locked_value, adopted.locked_round
    state.round = Round(adopted.after_round + 1)


def may_propose(state: HeightState) -> bool:
    """Whether this node is the round's proposer and has not signed a proposal for it."""
    me = state.start.me
    return (
        me is not None
        and state.proposer(state.round) == me
        and not state.proposals.in_round(state.round)
        and (state.round, 0) not in state.unsigned
    )


def wants_block(state: HeightState) -> bool:
    """Whether a new block is what this node should propose now."""
    return state.step is Step.PROPOSE and state.valid_value is None and may_propose(state)


def propose(state: HeightState, value: BlockHash, valid_round: Round) -> None:
    """L19: ask for the signature of a proposal."""
    me = state.start.me
    if me is not None:
        sign(state, Proposal(state.height, state.round, value, valid_round, me))


def cast(
    state: HeightState, kind: VoteKind, value: BlockHash | None, valid_round: int = NO_ROUND
) -> None:
    """Vote and enter the next step. An observer only takes the step."""
    state.step = Step.PREVOTE if kind is VoteKind.PREVOTE else Step.PRECOMMIT
    me = state.start.me
    if me is not None:
        sign(state, Vote(kind, state.height, state.round, value, valid_round, me))


def sign(state: HeightState, message: Message) -> None:
    """Ask for a signature and remember that until the signed message comes back."""
    state.unsigned[slot_of(message)] = message
    state.effects.append(Sign(message))


def set_timer(state: HeightState, kind: TimerKind) -> None:
    """Start a timer of the current round."""
    after_ms = state.timeouts.after_ms(kind, state.round)
    state.effects.append(SetTimer(TimerId(state.height, state.round, kind), after_ms))


def recall_votes(state: HeightState) -> None:
    """Adopt own votes that the book already holds for the round just entered."""
    me = state.start.me
    if me is None:
        return
    for kind in VoteKind:
        vote = state.votes.vote_of(me, kind, state.round)
        if vote is not None:
            recall(state, vote)


def recall(state: HeightState, own: Message) -> None:
    """Treat an own signed message as a fact, whether this core remembers asking for it or not.

    In normal operation this only notes that the signature came back. A node that lost a part of its
    log learns here, from what the log kept or from peers that pass its own votes on, that it may
    not vote again in that step and what it is locked on.
    """
    state.unsigned.pop(slot_of(own), None)
    if isinstance(own, Proposal):
        return
    if own.round == state.round and state.is_running:
        reached = Step.PREVOTE if own.kind is VoteKind.PREVOTE else Step.PRECOMMIT
        state.step = max(state.step, reached)
    if own.kind is VoteKind.PRECOMMIT and own.value is not None and own.round > state.locked_round:
        state.locked_value, state.locked_round = own.value, own.round


def decide(state: HeightState) -> bool:
    """L49: a quorum precommitted an acceptable block, in any round, at any step."""
    for round_number, value in state.votes.precommit_winners.items():
        tally = state.votes.tally(VoteKind.PRECOMMIT, round_number)
        if tally is not None and state.proposals.is_acceptable(value):
            signatures = tally.signatures_for(value)
            certificate = CommitCertificate(state.height, round_number, value, signatures)
            state.step = Step.DECIDED
            state.decision = Decide(state.height, round_number, value, certificate)
            state.effects.append(state.decision)
            return True
    return False


def skip_round(state: HeightState) -> bool:
    """L55: f + 1 validators, one of them correct, are in a later round."""
    if state.votes.reached <= state.round:
        return False
    start_round(state, state.votes.reached)
    return True


def adopt_valid(state: HeightState) -> bool:
    """L42 for past rounds: the newest block that a quorum is known to have prevoted is valid.

    A proposer that has not proposed yet does so now: a fresh block could not unlock anybody.
    """
    if not adopt_newest(state):
        return False
    if state.valid_value is not None and state.step is Step.PROPOSE and may_propose(state):
        propose(state, state.valid_value, state.valid_round)
    return True


def adopt_newest(state: HeightState) -> bool:
    """Hold the newest block with a prevote quorum in a past round valid; whether it is news."""
    newest = max(
        (
            round_number
            for round_number, value in state.votes.prevote_winners.items()
            if state.valid_round < round_number < state.round
            and state.proposals.is_acceptable(value)
        ),
        default=None,
    )
    if newest is None:
        return False
    state.valid_value, state.valid_round = state.votes.prevote_winners[newest], newest
    return True


def prevote_fresh(state: HeightState) -> bool:
    """L22: prevote a fresh proposal if it is valid, timely, and no other block is locked."""
    if state.step is not Step.PROPOSE:
        return False
    for proposal in state.proposals.in_round(state.round):
        verdict = state.proposals.verdict(state.round, proposal.value)
        if proposal.valid_round == NO_ROUND and verdict is not None:
            is_free = state.locked_round == NO_ROUND or state.locked_value == proposal.value
            is_good = verdict is Verdict.VALID and is_free
            cast(state, VoteKind.PREVOTE, proposal.value if is_good else None)
            return True
    return False


def prevote_again(state: HeightState) -> bool:
    """L28: prevote a re-proposal that a quorum prevoted at or after the own lock."""
    if state.step is not Step.PROPOSE:
        return False
    for proposal in state.proposals.in_round(state.round):
        value, valid_round = proposal.value, proposal.valid_round
        if valid_round == NO_ROUND or not state.votes.has_prevote_quorum(valid_round, value):
            continue
        is_acceptable = state.proposals.is_acceptable(value)
        if not is_acceptable and state.proposals.verdict(state.round, value) is None:
            continue
        if is_acceptable and (state.locked_round <= valid_round or state.locked_value == value):
            cast(state, VoteKind.PREVOTE, value, valid_round)
        else:
            cast(state, VoteKind.PREVOTE, None)
        return True
    return False


def lock(state: HeightState) -> bool:
    """L36: a quorum prevoted an acceptable block in this round: lock it, or only note it valid."""
    if state.step < Step.PREVOTE or state.valid_round == state.round:
        return False
    tally = state.votes.tally(VoteKind.PREVOTE, state.round)
    for value in () if tally is None else tally.winners:
        if value is None or not state.proposals.is_acceptable(value):
            continue
        if state.step is Step.PREVOTE:
            state.locked_value, state.locked_round = value, state.round
            cast(state, VoteKind.PRECOMMIT, value)
        state.valid_value, state.valid_round = value, state.round  # L42, at either step
        return True
    return False


def precommit_nil(state: HeightState) -> bool:
    """L44: a quorum prevoted nil in this round."""
    if state.step is not Step.PREVOTE:
        return False
    tally = state.votes.tally(VoteKind.PREVOTE, state.round)
    if tally is None or None not in tally.winners:
        return False
    cast(state, VoteKind.PRECOMMIT, None)
    return True


def set_prevote_timer(state: HeightState) -> bool:
    """L34: a quorum prevoted, for whatever, for the first time in this round."""
    if state.prevote_timer_set or state.step is not Step.PREVOTE:
        return False
    tally = state.votes.tally(VoteKind.PREVOTE, state.round)
    if tally is None or not tally.has_any_quorum:
        return False
    state.prevote_timer_set = True
    set_timer(state, TimerKind.PREVOTE)
    return True


def set_precommit_timer(state: HeightState) -> bool:
    """L47: a quorum precommitted, for whatever, for the first time in this round."""
    if state.precommit_timer_set:
        return False
    tally = state.votes.tally(VoteKind.PRECOMMIT, state.round)
    if tally is None or not tally.has_any_quorum:
        return False
    state.precommit_timer_set = True
    set_timer(state, TimerKind.PRECOMMIT)
    return True


RULES: tuple[Rule, ...] = (
    decide,
    skip_round,
    adopt_valid,
    prevote_fresh,
    prevote_again,
    lock,
    precommit_nil,
    set_prevote_timer,
    set_precommit_timer,
)
