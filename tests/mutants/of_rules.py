"""Mutants of Algorithm 1: its rules, their guards and their effects. Lines as in arXiv 1807.04938.

That L49 comes before L55 is no mutant here: no single input enables both (f + 1 voters of a round
are noted before a quorum of them is there), so the wrong order cannot be told from the right one.
A unit test holds the order for the day on which that changes.
"""

from dataclasses import replace

from consensus import rules
from consensus.core import Core
from consensus.events import Step, Verdict
from consensus.height_state import HeightState
from consensus.messages import NO_ROUND, CommitCertificate, Proposal, VoteKind
from consensus.proposal_book import ProposalBook
from consensus.timeouts import Timeouts
from consensus.vote_book import VoteBook
from tests.mutants.patching import Change, Mutant, after_each_step, function, rule

S1, SOLO, TWINS, BYZZFUZZ = "s1", "solo", "twins", "byzzfuzz"
FOREVER = 10**9


def _forget_lock(state, _before) -> None:
    state.locked_value, state.locked_round = None, NO_ROUND


def _forget_lock_and_valid(state, before) -> None:
    _forget_lock(state, before)
    state.valid_value, state.valid_round = None, NO_ROUND


def _forget_valid(state, _before) -> None:
    state.valid_value, state.valid_round = None, NO_ROUND


def _keep_first_lock(state, before) -> None:
    if before[0] != NO_ROUND and state.locked_round > before[0] and state.is_running:
        state.locked_round, state.locked_value = before


def _l28(*, unlocks: bool) -> list[Change]:
    """L28 with a lock that any quorum opens, or none: the rule sees another lock than there is."""

    def prevote_again(state: HeightState) -> bool:
        lock = state.locked_round, state.locked_value
        if unlocks:
            state.locked_round = NO_ROUND
        elif state.locked_value is not None:
            state.locked_round = FOREVER
        try:
            return rules.prevote_again(state)
        finally:
            state.locked_round, state.locked_value = lock

    return rule(rules.prevote_again, prevote_again)


def _decide_in_current_round() -> list[Change]:
    def decide(state: HeightState) -> bool:
        value = state.votes.precommit_winners.get(state.round)
        if value is None or not state.proposals.is_acceptable(value):
            return False
        return rules.decide(state)

    return rule(rules.decide, decide)


def _decide_at_precommit() -> list[Change]:
    def decide(state: HeightState) -> bool:
        return state.step is Step.PRECOMMIT and rules.decide(state)

    return rule(rules.decide, decide)


def _drop_old_precommits() -> list[Change]:
    receive = Core._receive

    def mutated(self: Core, signed) -> None:
        message, state = signed.message, self._state
        is_old = message.height == state.height and message.round < state.round
        if not (is_old and getattr(message, "kind", None) is VoteKind.PRECOMMIT):
            receive(self, signed)

    return [(Core, "_receive", mutated)]


def _lock_only_at(*, step: Step) -> list[Change]:
    def lock(state: HeightState) -> bool:
        return state.step is step and rules.lock(state)

    return rule(rules.lock, lock)


def _lock_after_precommit() -> list[Change]:
    """L36 without its step: a lock without the precommit that tells of it."""

    def lock(state: HeightState) -> bool:
        fired = rules.lock(state)
        if fired:
            state.locked_value, state.locked_round = state.valid_value, state.valid_round
        return fired

    return rule(rules.lock, lock)


def _propose_locked() -> list[Change]:
    propose = rules.propose

    def mutated(state, value, valid_round) -> None:
        if state.locked_value is not None:
            value, valid_round = state.locked_value, state.locked_round
        propose(state, value, valid_round)

    return function("propose", mutated)


def _propose_without_valid_round() -> list[Change]:
    propose = rules.propose
    return function("propose", lambda state, value, _: propose(state, value, NO_ROUND))


def _keep_flag(name: str) -> list[Change]:
    """A timer that was set in one round is never set again."""
    start_round = rules.start_round

    def mutated(state, round_number) -> None:
        flag = getattr(state, name)
        start_round(state, round_number)
        setattr(state, name, flag)

    return function("start_round", mutated)


def _precommit_timer_at_its_step() -> list[Change]:
    def set_precommit_timer(state: HeightState) -> bool:
        return state.step is Step.PRECOMMIT and rules.set_precommit_timer(state)

    return rule(rules.set_precommit_timer, set_precommit_timer)


def _skip_at(extra: int) -> list[Change]:
    """L55 with f + 1 + extra validators."""
    start = VoteBook.__init__

    def mutated(self: VoteBook, validator_count: int) -> None:
        start(self, validator_count)
        self._faults = max(0, self._faults + extra)

    return [(VoteBook, "__init__", mutated)]


def _judged_as(verdict: Verdict, other: Verdict) -> list[Change]:
    """One verdict is taken for another."""
    accept = ProposalBook.accept

    def mutated(self, round_number, value, found) -> None:
        accept(self, round_number, value, other if found is verdict else found)

    return [(ProposalBook, "accept", mutated)]


def _timeliness_at_precommit() -> list[Change]:
    """A block that this node found late is good for nothing, though a quorum found it timely."""

    def is_acceptable(self: ProposalBook, value) -> bool:
        return any(
            held == value and verdict is Verdict.VALID
            for (_, held), verdict in self._verdicts.items()
        )

    return [(ProposalBook, "is_acceptable", is_acceptable)]


def _any_proposer() -> list[Change]:
    refuses = HeightState.refuses

    def mutated(self: HeightState, message) -> bool:
        if isinstance(message, Proposal) and 0 <= message.sender < self.start.validator_count:
            message = replace(message, sender=self.proposer(message.round))
        return refuses(self, message)

    return [(HeightState, "refuses", mutated)]


def _next_proposer() -> list[Change]:
    right = HeightState.proposer
    return [(HeightState, "proposer", lambda self, number: right(self, number + 1))]


def _recall_nothing() -> list[Change]:
    def recall(state, own) -> None:
        state.unsigned.pop(rules.slot_of(own), None)

    return function("recall", recall)


def _first_signers_only() -> list[Change]:
    """A certificate of the first f + 1 signers."""
    decide = rules.decide

    def mutated(state: HeightState) -> bool:
        if not decide(state):
            return False
        full = state.decision.certificate
        few = full.signatures[: (state.start.validator_count - 1) // 3 + 1]
        short = CommitCertificate(full.height, full.round, full.value, few)
        state.decision = replace(state.decision, certificate=short)
        state.effects[-1] = state.decision
        return True

    return rule(rules.decide, mutated)


MUTANTS = (
    Mutant("no lock", (S1,), lambda: after_each_step(_forget_lock)),
    Mutant("no lock, no valid value", (S1,), lambda: after_each_step(_forget_lock_and_valid)),
    Mutant("valid value forgotten", (SOLO,), lambda: after_each_step(_forget_valid)),
    Mutant("lock not updated", (SOLO,), lambda: after_each_step(_keep_first_lock)),
    Mutant("lock without precommit", (SOLO,), _lock_after_precommit),
    Mutant("unlock at any quorum (L28)", (SOLO,), lambda: _l28(unlocks=True)),
    Mutant("never unlock (L28)", (SOLO,), lambda: _l28(unlocks=False)),
    Mutant(
        "quorum of a re-proposal not checked (L28)",
        (SOLO,),
        lambda: [(VoteBook, "has_prevote_quorum", lambda _book, _round, _value: True)],
    ),
    Mutant("decide in the current round only (L49)", (SOLO,), _decide_in_current_round),
    Mutant("decide at precommit only (L49)", (SOLO,), _decide_at_precommit),
    Mutant("late precommits not counted (L49)", (SOLO,), _drop_old_precommits),
    Mutant("valid not set at precommit (L42)", (SOLO,), lambda: _lock_only_at(step=Step.PREVOTE)),
    Mutant("valid of past rounds not adopted (L42)", (SOLO,), lambda: rule(rules.adopt_valid)),
    Mutant("no precommit on nil (L44)", (SOLO,), lambda: rule(rules.precommit_nil)),
    Mutant("the locked value is re-proposed (L16)", (SOLO,), _propose_locked),
    Mutant("proposals without valid round (L19)", (S1,), _propose_without_valid_round),
    Mutant("no round skip (L55)", (SOLO,), lambda: rule(rules.skip_round)),
    Mutant("round skip at f (L55)", (S1,), lambda: _skip_at(-1)),
    Mutant("round skip at 2f + 1 (L55)", (SOLO,), lambda: _skip_at(1)),
    Mutant("no prevote timer (L34)", (S1,), lambda: rule(rules.set_prevote_timer)),
    Mutant("prevote timer once a height (L34)", (S1,), lambda: _keep_flag("prevote_timer_set")),
    Mutant("no precommit timer (L47)", (S1,), lambda: rule(rules.set_precommit_timer)),
    Mutant("precommit timer once a height (L47)", (S1,), lambda: _keep_flag("precommit_timer_set")),
    Mutant("precommit timer at its step only (L47)", (SOLO,), _precommit_timer_at_its_step),
    Mutant(
        "timeouts do not grow",
        (S1,),
        lambda: [(Timeouts, "after_ms", lambda _self, _kind, _round: 60)],
    ),
    Mutant("validity ignored (L22)", (S1,), lambda: _judged_as(Verdict.INVALID, Verdict.VALID)),
    Mutant(
        "timeliness ignored (L22)", (SOLO,), lambda: _judged_as(Verdict.UNTIMELY, Verdict.VALID)
    ),
    Mutant("timeliness at precommit (L36)", (SOLO,), _timeliness_at_precommit),
    Mutant("anybody's proposals accepted", (SOLO,), _any_proposer),
    Mutant("proposer off by one", (SOLO,), _next_proposer),
    Mutant("own votes not recalled", (TWINS,), _recall_nothing),
    Mutant("certificates of f + 1", (S1,), _first_signers_only),
)
