"""The Tendermint core: one pure step function from inputs to effects.

What it decides: which input is worth filing away, and what a crash leaves to be done. The rules of
the protocol are in `rules.py`. What it never does: read a clock, sign, verify, store, send, log.
Total over peer input: what is stale, doubled, out of range or from the wrong sender yields nothing
or an accusation and changes nothing. Misuse by the shell raises InvariantError.
Source: arXiv 1807.04938, Algorithm 1; architecture section 5.
"""

from typing import assert_never

from consensus.events import (
    Accuse,
    BlockBuilt,
    BlockChecked,
    BroadcastStatus,
    BuildBlock,
    CheckBlock,
    Effect,
    Input,
    MessageReceived,
    PeerStatus,
    SetTimer,
    Sign,
    StartHeight,
    Status,
    Step,
    TimerFired,
    TimerId,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.height_state import HeightState
from consensus.messages import NO_ROUND, Proposal, Signed, Vote, VoteKind
from consensus.next_height import NextHeight
from consensus.resending import Resending
from consensus.rules import (
    adopt,
    cast,
    propose,
    recall,
    set_timer,
    settle,
    start_round,
    wants_block,
)
from consensus.timeouts import Timeouts
from consensus.vote_book import VoteBook
from ledger import limits
from ledger.errors import invariant
from ledger.ids import BlockHash, Height, Round


class Core:
    """One validator's (or observer's) consensus state; the shell owns it and calls `step`."""

    __slots__ = ("_next", "_resending", "_state", "_timeouts")

    def __init__(self, timeouts: Timeouts) -> None:
        self._timeouts = timeouts
        self._state = _before_genesis(timeouts)
        self._resending = Resending()
        self._next = NextHeight(Height(1))

    @property
    def status(self) -> Status:
        """Where this core stands."""
        return Status(self._state.height, self._state.round, self._state.step)

    @property
    def locked(self) -> tuple[Round, BlockHash | None]:
        """Round and value of the lock; (-1, None) without one."""
        return self._state.locked_round, self._state.locked_value

    @property
    def valid(self) -> tuple[Round, BlockHash | None]:
        """Round and value that this node would re-propose; (-1, None) without one."""
        return self._state.valid_round, self._state.valid_value

    @property
    def held_messages(self) -> int:
        """How many messages are kept, the next height's included: the memory in use."""
        return len(self._state.votes) + len(self._state.proposals) + len(self._next)

    def step(self, event: Input) -> list[Effect]:
        """Apply one input and return what the shell must do, in order.

        Raises: InvariantError when the shell breaks the contract of `events.py`.
        """
        match event:
            case MessageReceived():
                self._receive(event.signed)
            case TimerFired():
                self._fire(event.timer)
            case BlockChecked():
                self._take_verdict(event)
            case BlockBuilt():
                self._take_block(event)
            case PeerStatus():
                return self._resending.answer(self._state, event)
            case WorkAvailable():
                if event.height == self._state.height and self._state.step is Step.IDLE:
                    self._wake()
            case StartHeight():
                self._start_height(event)
            case _:
                assert_never(event)
        return self._take_effects()

    def resume(self) -> list[Effect]:
        """What is still to be done after the log was replayed with its effects suppressed.

        Re-emits what a crash may have swallowed: timers of the current step, checks without a
        verdict, a block to build, messages never signed, a decision never made durable. All of it
        is safe to do twice but `Sign`, which is emitted only for what the log shows was not signed.
        """
        state = self._state
        if state.decision is not None:
            return [state.decision]
        if not state.is_running:
            return []
        self._set_status_timer()
        if state.step is Step.PROPOSE:
            set_timer(state, TimerKind.PROPOSE)
        if state.step is Step.PREVOTE and state.prevote_timer_set:
            set_timer(state, TimerKind.PREVOTE)
        if state.precommit_timer_set:
            set_timer(state, TimerKind.PRECOMMIT)
        state.effects += [Sign(message) for message in state.unsigned.values()]
        state.effects += [
            CheckBlock(state.height, round_number, value)
            for round_number, value in state.proposals.unanswered()
        ]
        if wants_block(state):
            state.effects.append(BuildBlock(state.height, state.round))
        state.effects.append(BroadcastStatus(state.height, state.round, state.step))
        return self._take_effects()

    def _take_effects(self) -> list[Effect]:
        effects = self._state.effects
        if effects:
            self._state.effects = []
        return effects

    def _start_height(self, event: StartHeight) -> None:
        invariant(event.height > self._state.height, "heights only grow")
        invariant(0 < event.validator_count <= limits.VALIDATORS, "validator count out of range")
        named = event.proposers if event.me is None else (*event.proposers, event.me)
        in_range = all(0 <= index < event.validator_count for index in named)
        invariant(event.proposers and in_range, "no proposers, or an index out of range")
        waiting = self._next.take() if event.height == self._next.height else []
        self._state = HeightState(event, self._timeouts, VoteBook(event.validator_count))
        if event.adopted is not None:
            adopt(self._state, event.adopted)
        self._resending = Resending()
        self._next = NextHeight(Height(event.height + 1))
        for signed in waiting:
            self._receive(signed)

    def _wake(self) -> None:
        """Leave the idle step: the first round (0 but after a release) and the status timer."""
        self._set_status_timer()
        start_round(self._state, self._state.round)
        settle(self._state)

    def _set_status_timer(self) -> None:
        timer = TimerId(self._state.height, Round(0), TimerKind.STATUS)
        self._state.effects.append(SetTimer(timer, self._timeouts.status_ms))

    def _receive(self, signed: Signed) -> None:
        state, message = self._state, signed.message
        if message.height != state.height:
            if message.height == self._next.height:
                self._next.add(signed)
            return
        if state.step is Step.DECIDED or state.refuses(message):
            return
        may_advance = state.votes.note(message.sender, message.round)
        if may_advance and message.round > state.round + 1:
            self._advance()
        is_return = message.sender == state.start.me and message.round > state.round
        # Bound: rounds after the next are known only by `note` above; re-sending brings them again.
        if state.decision is not None or (message.round > state.round + 1 and not is_return):
            return
        if not state.keeps(message):
            return
        if isinstance(message, Proposal):
            may_advance |= self._file_proposal(message, signed)
        else:
            may_advance |= self._file_vote(message, signed)
        if is_return:
            self._return_to(message.round)
        elif may_advance:
            self._advance()

    def _return_to(self, round_number: Round) -> None:
        """Enter the round of an own message whose reasons are lost: this node had been there.

        In an earlier round it could now vote against what it signs for since.
        """
        if self._state.step is Step.IDLE:
            self._set_status_timer()
        start_round(self._state, round_number)
        settle(self._state)

    def _advance(self) -> None:
        """Let the rules run; f + 1 voters or a proposal start an idle height first."""
        if self._state.step is Step.IDLE:
            self._wake()
        else:
            settle(self._state)

    def _file_proposal(self, proposal: Proposal, signed: Signed) -> bool:
        """Keep a proposal; whether it may start the height or enable a rule."""
        state = self._state
        is_new, evidence = state.proposals.add(proposal, signed)
        if evidence is not None:
            state.effects.append(Accuse(evidence))
        if is_new and proposal.sender == state.start.me:
            recall(state, proposal)
        if is_new and state.proposals.ask(proposal):
            state.effects.append(CheckBlock(state.height, proposal.round, proposal.value))
        return is_new

    def _file_vote(self, vote: Vote, signed: Signed) -> bool:
        """Keep a vote; whether it may enable a rule: by a quorum or, being ours, by a step."""
        state = self._state
        is_proposed = state.proposals.has_value(vote.round, vote.value)
        added = state.votes.add(vote, signed, is_proposed=is_proposed)
        if added.evidence is not None:
            state.effects.append(Accuse(added.evidence))
        is_own = vote.sender == state.start.me
        if is_own:
            recall(state, vote)
        return (added.made_quorum or is_own) and state.step is not Step.IDLE

    def _fire(self, timer: TimerId) -> None:
        state = self._state
        if timer.height != state.height or not state.is_running:
            return
        if timer.kind is TimerKind.STATUS:
            self._resending.tick()
            state.effects.append(BroadcastStatus(state.height, state.round, state.step))
            self._set_status_timer()
            return
        if timer.round != state.round:
            return
        if timer.kind is TimerKind.PROPOSE and state.step is Step.PROPOSE:
            cast(state, VoteKind.PREVOTE, None)  # L57
        elif timer.kind is TimerKind.PREVOTE and state.step is Step.PREVOTE:
            cast(state, VoteKind.PRECOMMIT, None)  # L61
        elif timer.kind is TimerKind.PRECOMMIT:
            start_round(state, Round(state.round + 1))  # L65
        settle(state)

    def _take_verdict(self, event: BlockChecked) -> None:
        state = self._state
        if event.height != state.height or not state.is_running:
            return
        if state.proposals.judge(event.round, event.value, event.verdict):
            settle(state)

    def _take_block(self, event: BlockBuilt) -> None:
        state = self._state
        if (event.height, event.round) != (state.height, state.round) or not wants_block(state):
            return
        state.proposals.accept(event.round, event.value, Verdict.VALID)
        propose(state, event.value, NO_ROUND)


def _before_genesis(timeouts: Timeouts) -> HeightState:
    """The state before the first `StartHeight`: height 0, which nobody can vote in."""
    nothing = StartHeight(Height(0), 0, None, ())
    state = HeightState(nothing, timeouts, VoteBook(0))
    state.step = Step.DECIDED
    return state
