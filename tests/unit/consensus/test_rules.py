"""Algorithm 1 line by line: (description, inputs, effects of the last input)."""

import pytest

from consensus.core import Core
from consensus.events import (
    BlockBuilt,
    BuildBlock,
    Decide,
    Sign,
    Status,
    Step,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.height_state import HeightState
from consensus.messages import CommitCertificate
from consensus.rules import settle
from consensus.vote_book import VoteBook
from tests.unit.consensus.builders import (
    FAR,
    HEIGHT,
    TIMEOUTS,
    A,
    B,
    check,
    checked,
    drive,
    feed,
    fired,
    got,
    messages_signed,
    precommit,
    precommits,
    prevote,
    prevotes,
    proposal,
    proposed,
    running,
    signed,
    skip_to,
    start,
    timer,
)

PROPOSE, PREVOTE, PRECOMMIT = TimerKind.PROPOSE, TimerKind.PREVOTE, TimerKind.PRECOMMIT
LOCKED_A = [*proposed(A), got(prevote(1, A)), *prevotes(A, 0, 2)]
"""Validator 1 prevoted A, locked it in round 0 and asked to precommit it."""


def decided(value, round_number, *senders):
    signatures = tuple(
        (sender, signed(precommit(sender, value, round_number)).signature) for sender in senders
    )
    certificate = CommitCertificate(HEIGHT, round_number, value, signatures)
    return Decide(HEIGHT, round_number, value, certificate)


TABLE = [
    ("L22 a valid fresh proposal is prevoted", proposed(A), [Sign(prevote(1, A))]),
    (
        "L22 an untimely fresh proposal is answered with nil",
        proposed(A, verdict=Verdict.UNTIMELY),
        [Sign(prevote(1, None))],
    ),
    (
        "L22 an invalid proposal is answered with nil",
        proposed(A, verdict=Verdict.INVALID),
        [Sign(prevote(1, None))],
    ),
    ("L22 a proposal without a verdict waits", [got(proposal(A))], [check(A)]),
    (
        "L22 a locked validator prevotes nil for another fresh block",
        [*LOCKED_A, *skip_to(2), *proposed(B, 2)],
        [Sign(prevote(1, None, 2))],
    ),
    (
        "L22 a locked validator prevotes its own locked value when proposed afresh",
        [*LOCKED_A, *skip_to(2), *proposed(A, 2)],
        [Sign(prevote(1, A, 2))],
    ),
    (
        "L28 a re-proposal with its prevote quorum is prevoted with its valid round",
        [*prevotes(A, 0, 2, 3), *skip_to(2), *proposed(A, 2, 0)],
        [Sign(prevote(1, A, 2, 0))],
    ),
    (
        "L28 an untimely re-proposal is prevoted: its time was judged when it was fresh",
        [*prevotes(A, 0, 2, 3), *skip_to(2), *proposed(A, 2, 0, Verdict.UNTIMELY)],
        [Sign(prevote(1, A, 2, 0))],
    ),
    (
        "L28 an invalid re-proposal is answered with nil",
        [*prevotes(A, 0, 2, 3), *skip_to(2), *proposed(A, 2, 0, Verdict.INVALID)],
        [Sign(prevote(1, None, 2))],
    ),
    (
        "L28 a re-proposal without its prevote quorum waits",
        [*prevotes(A, 0, 2), *skip_to(2), *proposed(A, 2, 0)],
        [],
    ),
    (
        "L28 the quorum that completes later lets the re-proposal be prevoted",
        [*prevotes(A, 0, 2), *skip_to(2), *proposed(A, 2, 0), got(prevote(3, A))],
        [Sign(prevote(1, A, 2, 0))],
    ),
    (
        "L28 a quorum after the own lock unlocks",
        [
            *LOCKED_A,
            *skip_to(2),
            *prevotes(B, 0, 2, 3, round_number=1),
            got(proposal(B, 2, 1)),
            checked(B, round_number=2),
        ],
        [Sign(prevote(1, B, 2, 1))],
    ),
    (
        "L28 a quorum before the own lock does not unlock",
        [
            *prevotes(B, 0, 2, 3),
            *skip_to(2),
            *proposed(A, 2),
            *prevotes(A, 0, 2, round_number=2),
            got(prevote(1, A, 2)),
            *precommits(None, 0, 2, 3, round_number=2),
            fired(PRECOMMIT, 2),
            *proposed(B, 3, 0),
        ],
        [Sign(prevote(1, None, 3))],
    ),
    (
        "L34 a quorum of any prevotes starts the prevote timer",
        [fired(PROPOSE), *prevotes(A, 0, 2), got(prevote(1, None))],
        [timer(PREVOTE)],
    ),
    (
        "L34 fires once a round",
        [fired(PROPOSE), *prevotes(A, 0, 2), got(prevote(1, None)), got(prevote(3, None))],
        [],
    ),
    (
        "L36 a quorum of prevotes for a known block is locked and precommitted",
        [*proposed(A), got(prevote(1, A)), *prevotes(A, 0, 2)],
        [Sign(precommit(1, A))],
    ),
    (
        "L36 an untimely block with a quorum is precommitted",
        [*proposed(A, verdict=Verdict.UNTIMELY), got(prevote(1, None)), *prevotes(A, 0, 2, 3)],
        [Sign(precommit(1, A))],
    ),
    (
        "L36 an invalid block with a quorum is not",
        [*proposed(A, verdict=Verdict.INVALID), got(prevote(1, None)), *prevotes(A, 0, 2, 3)],
        [],
    ),
    (
        "L36 a verdict after the quorum lets the block be precommitted",
        [fired(PROPOSE), *prevotes(A, 0, 2, 3), got(proposal(A)), checked(A)],
        [Sign(precommit(1, A))],
    ),
    (
        "L22 and L36 a verdict after the quorum prevotes and precommits in one step",
        [*prevotes(A, 0, 2, 3), *proposed(A)],
        [Sign(prevote(1, A)), Sign(precommit(1, A))],
    ),
    (
        "L44 a quorum of nil prevotes is answered with a nil precommit",
        [fired(PROPOSE), got(prevote(1, None)), *prevotes(None, 0, 2)],
        [Sign(precommit(1, None))],
    ),
    (
        "L47 a quorum of any precommits starts the precommit timer at any step",
        [*precommits(A, 0, 2), *precommits(None, 3)],
        [timer(PRECOMMIT)],
    ),
    ("L47 fires once a round", [*precommits(A, 0, 2), *precommits(None, 3, 1)], []),
    (
        "L49 a quorum of precommits for a known block decides at step propose",
        [got(proposal(A)), *precommits(A, 0, 2, 3), checked(A)],
        [decided(A, 0, 0, 2, 3)],
    ),
    (
        "L49 the certificate holds every valid precommit, ascending",
        [*proposed(A), *precommits(A, 3, 2), *precommits(None, 1), *precommits(A, 0)],
        [decided(A, 0, 0, 2, 3)],
    ),
    (
        "L49 late precommits of an earlier round decide",
        [*precommits(A, 0, 2), fired(PRECOMMIT), *proposed(A), got(precommit(3, A))],
        [decided(A, 0, 0, 2, 3)],
    ),
    (
        "L49 an untimely block with a quorum of precommits is decided",
        [*precommits(A, 0, 2, 3), *proposed(A, verdict=Verdict.UNTIMELY)],
        [decided(A, 0, 0, 2, 3)],
    ),
    (
        "L49 an invalid block is never decided",
        [*proposed(A, verdict=Verdict.INVALID), *precommits(A, 0, 2, 3)],
        [timer(PRECOMMIT)],
    ),
    (
        "L49 a quorum of nil precommits decides nothing",
        [*proposed(A), *precommits(None, 0, 2, 3)],
        [timer(PRECOMMIT)],
    ),
    (
        "L55 f + 1 validators in a later round pull this one there",
        [got(prevote(0, None, 7)), got(precommit(3, None, 5))],
        [timer(PROPOSE, 5), BuildBlock(HEIGHT, 5)],
    ),
    ("L55 one validator does not", [got(prevote(0, None, 7)), got(precommit(0, None, 5))], []),
    ("L57 the propose timer prevotes nil", [fired(PROPOSE)], [Sign(prevote(1, None))]),
    ("L57 not after the step", [*proposed(A), fired(PROPOSE)], []),
    ("L57 not for another round", [fired(PROPOSE, 1)], []),
    (
        "L61 the prevote timer precommits nil",
        [fired(PROPOSE), fired(PREVOTE)],
        [Sign(precommit(1, None))],
    ),
    ("L61 not before the step", [fired(PREVOTE)], []),
    (
        "L65 the precommit timer starts the next round at any step",
        [fired(PRECOMMIT)],
        [timer(PROPOSE, 1), BuildBlock(HEIGHT, 1)],
    ),
    ("L65 not for an earlier round", [fired(PRECOMMIT), fired(PRECOMMIT)], []),
]


@pytest.mark.parametrize(
    ("inputs", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE]
)
def test_each_line_of_the_paper(inputs, expected):
    assert feed(running(), *inputs) == expected


def test_l11_the_proposer_of_round_zero_builds_a_block_and_proposes_it():
    core = Core(TIMEOUTS)
    feed(core, start(me=0))

    assert feed(core, WorkAvailable(HEIGHT))[1:] == [timer(PROPOSE), BuildBlock(HEIGHT, 0)]
    assert feed(core, BlockBuilt(HEIGHT, 0, A)) == [Sign(proposal(A))]
    assert feed(core, got(proposal(A))) == [Sign(prevote(0, A))]


def test_l11_a_block_built_too_late_is_not_proposed():
    core = running(me=0)

    assert feed(core, fired(PROPOSE), BlockBuilt(HEIGHT, 0, A)) == []


def test_l16_the_proposer_proposes_its_valid_value_not_its_locked_one():
    core = running()
    drive(core, *LOCKED_A[:2], *prevotes(A, 0, 2))
    assert core.locked == (0, A)
    # In round 2 it precommits nil, then sees the quorum for B: that is valid, A stays locked.
    drive(core, *precommits(None, 0, 2, 3), fired(PRECOMMIT))
    drive(core, fired(PROPOSE, 1), *precommits(None, 0, 2, 3, round_number=1), fired(PRECOMMIT, 1))
    drive(core, *proposed(B, 2), fired(PREVOTE, 2))
    drive(core, *prevotes(B, 0, 2, 3, round_number=2))
    assert (core.locked, core.valid) == ((0, A), (2, B))

    for number in (2, 3):
        drive(core, *precommits(None, 0, 2, 3, round_number=number), fired(PRECOMMIT, number))
    effects = drive(core, *precommits(None, 0, 2, 3, round_number=4), fired(PRECOMMIT, 4))

    assert core.status == Status(HEIGHT, 5, Step.PREVOTE)
    assert messages_signed(effects) == [proposal(B, 5, 2), prevote(1, B, 5, 2)]


def test_l42_a_node_at_precommit_updates_the_valid_value_without_locking():
    core = running()
    effects = drive(core, *proposed(A), fired(PREVOTE), *prevotes(A, 0, 2))

    assert messages_signed(effects) == [prevote(1, A), precommit(1, None)]
    assert (core.locked, core.valid) == ((-1, None), (0, A))


def test_l42_a_quorum_of_a_past_round_makes_its_block_valid_but_does_not_lock():
    """A locked node may be demoted, so others propose what it cannot (simulation seed 1787)."""
    core = running()
    effects = drive(core, *proposed(A), *skip_to(1), *prevotes(A, 0, 2))

    assert core.status == Status(HEIGHT, 1, Step.PREVOTE)
    assert (core.locked, core.valid) == ((-1, None), (0, A))
    assert messages_signed(effects) == [
        prevote(1, A),
        proposal(A, 1, 0),
        prevote(1, A, 1, 0),
    ]
    assert feed(core, BlockBuilt(HEIGHT, 1, B)) == []


def test_l16_a_quorum_of_the_round_just_left_is_newer_than_the_valid_value():
    """At step propose L36 is not enabled yet, so the quorum counts when the round is left."""
    core = running()
    drive(core, *LOCKED_A[:2], *prevotes(A, 0, 2), *skip_to(3), *proposed(B, 3))
    drive(core, *precommits(None, 0, 2, 3, round_number=3), fired(PRECOMMIT, 3))
    drive(core, *prevotes(B, 0, 2, 3, round_number=4))
    assert core.status == Status(HEIGHT, 4, Step.PROPOSE)
    assert core.valid == (0, A)

    effects = drive(core, *precommits(None, 0, 2, 3, round_number=4), fired(PRECOMMIT, 4))

    assert messages_signed(effects) == [proposal(B, 5, 4), prevote(1, B, 5, 4)]


def test_deciding_beats_skipping_a_round():
    """Malachite #1483. Both rules are enabled at once; no single input does that for n = 4."""
    state = HeightState(start(), TIMEOUTS, VoteBook(4), step=Step.PROPOSE)
    state.proposals.add(proposal(A), signed(proposal(A)))
    state.proposals.accept(0, A, Verdict.VALID)
    for sender in (0, 2, 3):
        vote = precommit(sender, A)
        state.votes.add(vote, signed(vote), is_proposed=True)
        state.votes.note(sender, 9)

    settle(state)

    assert state.effects == [decided(A, 0, 0, 2, 3)]


def test_a_late_proposal_completes_a_decision():
    core = running()

    effects = feed(core, *precommits(A, 0, 2, 3), *skip_to(2)[-1:], *proposed(A))

    assert effects == [decided(A, 0, 0, 2, 3)]


def test_a_value_known_from_another_round_can_be_locked_without_that_rounds_proposal():
    core = running()
    feed(core, *proposed(A), *skip_to(1), fired(PROPOSE, 1))

    effects = feed(core, *prevotes(A, 0, 2, 3, round_number=1))

    assert effects == [Sign(precommit(1, A, 1))]


def test_a_height_is_decided_once():
    core = running()
    feed(core, *proposed(A), *precommits(A, 0, 2, 3))

    assert feed(core, *precommits(A, 1)) == []
    assert feed(core, fired(PRECOMMIT)) == []
    assert core.status == Status(HEIGHT, 0, Step.DECIDED)


def test_a_lone_validator_decides_alone():
    core = Core(TIMEOUTS)
    effects = drive(core, start(me=0, count=1), WorkAvailable(HEIGHT), BlockBuilt(HEIGHT, 0, A))

    assert messages_signed(effects) == [proposal(A, sender=0), prevote(0, A), precommit(0, A)]
    assert effects[-1] == decided(A, 0, 0)


def test_timeouts_grow_without_bound():
    assert [TIMEOUTS.after_ms(PROPOSE, number) for number in (0, 1, 100)] == [1_000, 1_500, 51_000]
    assert TIMEOUTS.after_ms(PRECOMMIT, FAR) == 500 + 500 * FAR
    assert TIMEOUTS.after_ms(TimerKind.STATUS, 7) == 1_000
