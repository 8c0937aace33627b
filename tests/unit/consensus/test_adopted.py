"""A node released from quarantine: it takes over a lock and never votes in a round it may know."""

import dataclasses

import pytest

from consensus.core import Core
from consensus.events import Adopted, BuildBlock, Step, TimerKind, WorkAvailable
from consensus.messages import NO_ROUND
from ledger.errors import InvariantError
from ledger.ids import Height, Round

from .builders import (
    HEIGHT,
    TIMEOUTS,
    A,
    B,
    drive,
    feed,
    fired,
    got,
    messages_signed,
    precommits,
    prevote,
    prevotes,
    proposal,
    proposed,
    start,
)

LOCKED = Adopted(Round(4), Round(2), A)
FREE = Adopted(Round(4), NO_ROUND, None)


def released(adopted, me=1):
    core = Core(TIMEOUTS)
    feed(core, dataclasses.replace(start(me), adopted=adopted))
    return core


def awake(adopted, me=1):
    core = released(adopted, me)
    return core, drive(core, WorkAvailable(Height(HEIGHT)))


def test_it_begins_in_the_round_after_and_holds_the_lock():
    core, effects = awake(LOCKED, me=0)
    assert (core.status.round, core.status.step, core.locked) == (5, Step.PROPOSE, (2, A))
    assert messages_signed(effects) == []


@pytest.mark.parametrize("adopted", [LOCKED, FREE])
def test_it_signs_nothing_in_rounds_that_it_may_have_known(adopted):
    core = released(adopted)
    effects = drive(
        core,
        *[event for number in range(5) for event in proposed(A, number)],
        *[event for number in range(5) for event in prevotes(A, 0, 2, 3, round_number=number)],
        fired(TimerKind.PROPOSE, 4),
        fired(TimerKind.PREVOTE, 4),
        WorkAvailable(Height(HEIGHT)),
        fired(TimerKind.PROPOSE, 5),
    )
    signed = messages_signed(effects)
    assert signed
    assert {message.round for message in signed} == {5}


def test_it_prevotes_nil_for_a_fresh_block_that_is_not_its_lock():
    core, _ = awake(LOCKED)
    effects = drive(core, *proposed(B, 5))
    assert messages_signed(effects) == [prevote(1, None, 5)]


def test_it_prevotes_its_lock_when_it_is_proposed_again_with_the_quorum():
    core, _ = awake(LOCKED)
    effects = drive(core, *prevotes(A, 0, 2, 3, round_number=2), *proposed(A, 5, 2))
    assert messages_signed(effects) == [prevote(1, A, 5, 2)]


def test_a_later_quorum_unlocks_it_as_it_does_others():
    core, _ = awake(LOCKED)
    effects = drive(core, *prevotes(B, 0, 2, 3, round_number=3), *proposed(B, 5, 3))
    assert messages_signed(effects) == [prevote(1, B, 5, 3)]


def test_it_proposes_the_lock_once_it_holds_block_and_quorum():
    """Validator 1 leads round 5: first it waits for a block, then it has a better one."""
    core, effects = awake(LOCKED)
    assert BuildBlock(Height(HEIGHT), Round(5)) in effects
    effects = drive(core, *prevotes(A, 0, 2, 3, round_number=2), *proposed(A, 2))
    assert proposal(A, 5, 2, sender=1) in messages_signed(effects)


def test_a_decision_of_an_earlier_round_still_counts():
    core, _ = awake(LOCKED)
    drive(core, *proposed(A, 3), *precommits(A, 0, 2, 3, round_number=3))
    assert core.status.step is Step.DECIDED


def test_an_old_precommit_of_its_own_that_comes_back_locks_it():
    core, _ = awake(FREE)
    drive(core, *precommits(B, 1, round_number=3))
    assert core.locked == (3, B)


def test_the_next_height_begins_as_any_other():
    core, _ = awake(LOCKED)
    drive(core, start(height=HEIGHT + 1), WorkAvailable(Height(HEIGHT + 1)))
    assert (core.status.round, core.locked) == (0, (NO_ROUND, None))


@pytest.mark.parametrize(
    "adopted",
    [
        Adopted(Round(1), Round(2), A),
        Adopted(Round(4), NO_ROUND, A),
        Adopted(Round(4), Round(2), None),
    ],
)
def test_a_lock_that_cannot_be_is_refused(adopted):
    with pytest.raises(InvariantError):
        released(adopted)


def test_others_follow_f_plus_one_released_nodes_into_their_round():
    core = Core(TIMEOUTS)
    feed(core, start(0), WorkAvailable(Height(HEIGHT)))
    drive(core, *[got(prevote(sender, None, 5)) for sender in (1, 2)])
    assert core.status.round == 5
