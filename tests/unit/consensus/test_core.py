"""What the core refuses, bounds, buffers, re-sends and re-emits."""

import pytest

from consensus.core import Core
from consensus.events import (
    Accuse,
    BlockBuilt,
    BlockChecked,
    BroadcastStatus,
    BuildBlock,
    CheckBlock,
    Decide,
    PeerStatus,
    SendTo,
    SetTimer,
    Sign,
    StartHeight,
    Status,
    Step,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.height_state import PAST_ROUNDS
from consensus.messages import Evidence, Proposal, Vote, VoteKind
from consensus.next_height import MESSAGES_PER_KIND
from ledger.errors import InvariantError
from tests.unit.consensus.builders import (
    FAR,
    HEIGHT,
    TIMEOUTS,
    A,
    B,
    C,
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
STATUS = timer(TimerKind.STATUS)

REFUSED = [
    ("a vote of an earlier height", prevote(0, A, height=HEIGHT - 1)),
    ("a vote two heights ahead", prevote(0, A, height=HEIGHT + 2)),
    ("a sender below the range", prevote(-1, A)),
    ("a sender above the range", prevote(4, A)),
    ("a sender far above the range", prevote(2**63, A)),
    ("a negative round", prevote(0, A, -1)),
    ("a proposal of the wrong sender", proposal(A, sender=2)),
    ("a proposal of a negative round", proposal(A, -4, sender=0)),
    ("a valid round that is the round", proposal(A, 0, 0)),
    ("a valid round after the round", proposal(A, 0, 2**63)),
    ("a valid round below none", proposal(A, 0, -2)),
    ("a prevote justified by its own round", prevote(0, A, 0, 0)),
    ("a prevote justified by no possible round", prevote(0, A, 0, -2)),
    ("a nil prevote with a justification", prevote(0, None, 1, 0)),
    ("a precommit with a justification", Vote(VoteKind.PRECOMMIT, HEIGHT, 1, A, 0, 0)),
]


@pytest.mark.parametrize("message", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_a_refused_message_changes_nothing(message):
    core, untouched = running(), running()

    assert feed(core, got(message)) == []
    assert core.held_messages == 0
    rest = [*proposed(A), *prevotes(A, 0, 2, 3), *precommits(A, 0, 2, 3)]
    assert [core.step(event) for event in rest] == [untouched.step(event) for event in rest]


def test_a_copy_changes_nothing():
    core = running()
    feed(core, *proposed(A), got(prevote(0, A)), got(precommit(0, A)))
    held = core.held_messages

    assert drive(core, got(proposal(A)), got(prevote(0, A)), got(precommit(0, A))) == []
    assert core.held_messages == held


def test_stale_answers_change_nothing():
    core = running(me=0)

    assert feed(core, BlockBuilt(HEIGHT, 1, A)) == []
    assert feed(core, BlockBuilt(HEIGHT - 1, 0, A)) == []
    assert feed(core, checked(A)) == []
    assert feed(core, fired(PROPOSE, height=HEIGHT - 1)) == []
    assert feed(core, WorkAvailable(HEIGHT)) == []


def test_the_second_verdict_on_a_proposal_is_ignored():
    core = running()
    feed(core, *proposed(A, verdict=Verdict.INVALID))

    assert feed(core, checked(A), *prevotes(A, 0, 2, 3)) == [timer(PREVOTE)]


@pytest.mark.parametrize(
    "event",
    [
        start(height=HEIGHT),
        start(height=HEIGHT - 1),
        StartHeight(HEIGHT + 1, 4, None, ()),
        StartHeight(HEIGHT + 1, 0, None, (0,)),
        StartHeight(HEIGHT + 1, 129, None, (0,)),
        StartHeight(HEIGHT + 1, 4, 4, (0,)),
        StartHeight(HEIGHT + 1, 4, 0, (4,)),
    ],
)
def test_misuse_by_the_shell_stops_the_node(event):
    with pytest.raises(InvariantError):
        running().step(event)


def test_an_idle_height_has_no_timers_and_says_nothing():
    core = Core(TIMEOUTS)

    assert feed(core, start()) == []
    assert feed(core, fired(TimerKind.STATUS)) == []
    assert feed(core, got(prevote(0, A))) == []
    assert core.resume() == []
    assert core.status == Status(HEIGHT, 0, Step.IDLE)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        ([WorkAvailable(HEIGHT)], [STATUS, timer(PROPOSE)]),
        ([got(proposal(A))], [check(A), STATUS, timer(PROPOSE)]),
        ([got(prevote(0, A)), got(precommit(2, None))], [STATUS, timer(PROPOSE)]),
        ([WorkAvailable(HEIGHT + 1)], []),
        ([got(prevote(0, A)), got(precommit(0, None))], []),
    ],
    ids=["work", "a proposal", "f + 1 voters", "work of another height", "one voter"],
)
def test_what_leaves_the_idle_step(inputs, expected):
    core = Core(TIMEOUTS)
    feed(core, start())

    assert feed(core, *inputs) == expected


def test_votes_seen_while_idle_count_once_the_height_runs():
    core = Core(TIMEOUTS)
    feed(core, start(), got(prevote(3, A)))

    effects = feed(core, *proposed(A), got(prevote(1, A)), got(prevote(0, A)))

    assert effects == [Sign(precommit(1, A))]


def test_an_equivocating_voter_is_accused_once():
    core = running()
    feed(core, *proposed(A), got(prevote(3, A)))
    evidence = Evidence(signed(prevote(3, A)), signed(prevote(3, None)))

    assert feed(core, got(prevote(3, None))) == [Accuse(evidence)]
    assert feed(core, got(prevote(3, B))) == []
    assert feed(core, got(prevote(3, None))) == []


def test_two_votes_that_differ_only_in_the_valid_round_are_evidence_and_count_once():
    core = running()
    feed(core, *skip_to(2), *proposed(A, 2), got(prevote(3, A, 2)))

    again = feed(core, got(prevote(3, A, 2, 1)))

    assert again == [Accuse(Evidence(signed(prevote(3, A, 2)), signed(prevote(3, A, 2, 1))))]
    assert feed(core, got(prevote(0, A, 2))) == []
    assert core.locked == (-1, None)


def test_a_conflicting_vote_for_a_proposed_value_still_counts():
    """The liveness example of `consensus/vote_book.py`."""
    core = running()
    feed(core, *proposed(A), got(prevote(3, None)), got(prevote(1, A)), got(prevote(0, A)))

    effects = feed(core, got(prevote(3, A)))

    assert effects[1:] == [Sign(precommit(1, A))]


def test_a_conflicting_vote_for_a_value_nobody_proposed_is_not_kept():
    core = running()
    feed(core, *proposed(A), got(prevote(3, A)))
    held = core.held_messages

    feed(core, got(prevote(3, C)), got(prevote(3, B)))

    assert core.held_messages == held


def test_an_equivocator_is_one_voter_of_any_quorum():
    core = running()
    feed(core, fired(PROPOSE), got(prevote(1, None)))

    effects = feed(core, got(proposal(A)), got(prevote(3, A)), got(prevote(3, None)))

    assert timer(PREVOTE) not in effects
    assert feed(core, got(prevote(2, A))) == [timer(PREVOTE)]


def test_an_equivocating_proposer_is_accused_once_and_two_proposals_are_kept():
    core = running()
    feed(core, got(proposal(A)))
    evidence = Evidence(signed(proposal(A)), signed(proposal(B)))

    assert feed(core, got(proposal(B))) == [Accuse(evidence), check(B)]
    assert feed(core, got(proposal(C))) == []
    assert core.held_messages == 2
    assert feed(core, checked(B)) == [Sign(prevote(1, B))]


def test_t05_every_integer_may_be_anything():
    core = running()
    odd = (-(2**63), -1, 0, 1, 3, 4, 2**31, 2**63)
    for number in odd:
        for other in odd:
            sender = 2 if 0 <= number < 4 else number
            feed(core, got(prevote(sender, A, other)), got(prevote(2, A, number, other)))
            feed(core, got(precommit(2, A, other, height=number)))
            feed(core, got(proposal(A, number, other, sender=2)))
            feed(core, PeerStatus(b"peer", number, other, number))
            feed(core, PeerStatus(b"peer", HEIGHT, other, number))
            feed(core, fired(PROPOSE, number, height=other), checked(A, round_number=number))
    assert core.status.round == 0


def test_t10_a_peer_that_always_claims_to_lag_gets_one_answer_an_interval():
    core = running()
    feed(core, *proposed(A), got(prevote(0, A)))
    lagging = PeerStatus(b"peer", HEIGHT, 0, Step.PROPOSE)
    answer = [SendTo(b"peer", (signed(proposal(A)), signed(prevote(0, A))))]

    assert [core.step(lagging) for _ in range(4)] == [answer, [], [], []]
    feed(core, fired(TimerKind.STATUS))
    assert core.step(lagging) == answer


def test_t15_f_peers_at_a_huge_round_move_nobody():
    core = running()

    assert drive(core, got(prevote(3, A, FAR)), got(precommit(3, A, FAR + 1))) == []
    assert core.status == Status(HEIGHT, 0, Step.PROPOSE)
    assert core.held_messages == 0


def test_t15_a_validator_at_a_huge_round_does_not_raise_the_round_others_agree_on():
    core = running()
    feed(core, got(prevote(3, A, FAR)), got(prevote(0, A, 6)))

    assert core.status.round == 6


def test_t16_a_proposal_of_a_far_round_is_not_stored_and_blocks_nothing():
    core = running()

    assert feed(core, got(proposal(B, 10_000))) == []
    assert core.held_messages == 0
    assert feed(core, *proposed(A)) == [Sign(prevote(1, A))]


def test_t19_an_observer_follows_but_never_signs():
    core = running(me=None)

    effects = drive(core, *proposed(A), *prevotes(A, 0, 2, 3))
    effects += drive(core, fired(PROPOSE), fired(PREVOTE), *precommits(A, 0, 2, 3))

    assert messages_signed(effects) == []
    assert [type(effect) for effect in effects[-1:]] == [Decide]


def test_t19_statuses_move_no_round():
    core = running()
    for peer in (b"0", b"2", b"3"):
        feed(core, PeerStatus(peer, HEIGHT, 5, Step.PRECOMMIT))

    assert core.status == Status(HEIGHT, 0, Step.PROPOSE)


def test_messages_of_the_next_height_are_kept_and_replayed():
    core = running(me=2)
    feed(core, *[got(prevote(sender, B, height=5)) for sender in (0, 1, 3)])
    feed(core, got(proposal(B, height=5)))

    effects = feed(core, start(me=2, height=5))

    assert [type(effect) for effect in effects] == [SetTimer, SetTimer, CheckBlock]
    assert feed(core, BlockChecked(5, 0, B, Verdict.VALID)) == [
        Sign(Vote(VoteKind.PREVOTE, 5, 0, B, -1, 2)),
        Sign(Vote(VoteKind.PRECOMMIT, 5, 0, B, -1, 2)),
    ]


def test_the_buffer_of_the_next_height_is_bounded_per_sender_and_kind():
    core = running()
    for number in range(100):
        feed(core, got(prevote(3, A, number, height=5)), got(precommit(3, A, number, height=5)))
        feed(core, got(prevote(FAR, A, number, height=5)))

    assert core.held_messages == 2 * MESSAGES_PER_KIND
    feed(core, got(prevote(2, A, height=5)), got(prevote(2, A, height=5)))
    assert core.held_messages == 2 * MESSAGES_PER_KIND + 1


def test_a_jump_over_a_height_drops_the_buffer():
    core = running()
    feed(core, got(prevote(0, A, height=5)), got(prevote(2, A, height=5)))

    assert feed(core, start(height=9)) == []
    assert core.held_messages == 0


def test_only_the_last_rounds_and_the_locked_one_are_kept():
    core = running()
    feed(core, *proposed(A), got(prevote(1, A)), *prevotes(A, 0, 2))
    assert core.locked == (0, A)
    feed(core, *skip_to(3 * PAST_ROUNDS))

    per_round, locked_round, window = 3, 1 + 3 + 3, PAST_ROUNDS
    assert core.held_messages == locked_round + per_round * window
    feed(core, got(prevote(3, None, 7)))
    assert core.held_messages == locked_round + per_round * window
    feed(core, got(prevote(3, A)))
    assert core.held_messages == locked_round + per_round * window + 1


def test_the_status_timer_broadcasts_and_starts_again():
    core = running()

    assert feed(core, fired(TimerKind.STATUS)) == [
        BroadcastStatus(HEIGHT, 0, Step.PROPOSE),
        STATUS,
    ]


@pytest.mark.parametrize(
    ("status", "count"),
    [
        (PeerStatus(b"peer", HEIGHT, 0, Step.PREVOTE), 2),
        (PeerStatus(b"peer", HEIGHT, 2, Step.PROPOSE), 2),
        (PeerStatus(b"peer", HEIGHT, 0, Step.PROPOSE), 0),
        (PeerStatus(b"peer", HEIGHT - 1, 0, Step.PREVOTE), 0),
        (PeerStatus(b"peer", HEIGHT + 1, 0, Step.PREVOTE), 0),
        (PeerStatus(b"peer", HEIGHT, 0, Step.DECIDED), 0),
    ],
    ids=["step differs", "round differs", "alike", "lower", "higher", "has decided"],
)
def test_who_is_sent_stored_messages(status, count):
    core = running()
    feed(core, got(proposal(A)), got(prevote(0, A)))

    sent = [len(effect.messages) for effect in feed(core, status)]

    assert sum(sent) == count


def test_a_peer_that_does_not_move_is_sent_stored_messages():
    core = running()
    feed(core, got(proposal(A)), got(prevote(0, A)))
    alike = PeerStatus(b"peer", HEIGHT, 0, Step.PROPOSE)

    assert feed(core, alike) == []
    assert feed(core, alike) == [SendTo(b"peer", (signed(proposal(A)), signed(prevote(0, A))))]


def test_stored_messages_of_the_rounds_that_matter_are_sent_in_order():
    core = running()
    feed(core, *proposed(A), got(prevote(1, A)), *prevotes(A, 2, 0), *skip_to(2))
    feed(core, got(prevote(0, None, 2)))

    (effect,) = feed(core, PeerStatus(b"peer", HEIGHT, 2, Step.PRECOMMIT))

    locked = [proposal(A), prevote(0, A), prevote(1, A), prevote(2, A)]
    nil = [precommit(sender, None) for sender in (0, 2, 3)]
    assert effect == SendTo(b"peer", tuple(map(signed, [*locked, *nil, prevote(0, None, 2)])))


def test_an_idle_node_tells_a_running_peer_so_and_passes_on_what_it_has():
    core = Core(TIMEOUTS)
    feed(core, start(), got(prevote(0, A)))
    idle = BroadcastStatus(HEIGHT, 0, Step.IDLE)

    effects = feed(core, PeerStatus(b"peer", HEIGHT, 3, Step.PREVOTE))

    assert effects == [SendTo(b"peer", (signed(prevote(0, A)),)), idle]
    assert feed(core, PeerStatus(b"peer", HEIGHT, 0, Step.IDLE)) == []


def replayed(*events) -> Core:
    core = Core(TIMEOUTS)
    feed(core, start(), WorkAvailable(HEIGHT), *events)
    return core


RESUMED = [
    ("at propose", [], [STATUS, timer(PROPOSE)]),
    ("with a check under way", [got(proposal(A))], [STATUS, timer(PROPOSE), check(A)]),
    ("with an unsigned vote", proposed(A), [STATUS, Sign(prevote(1, A))]),
    ("with a signed vote", [*proposed(A), got(prevote(1, A))], [STATUS]),
    (
        "with the prevote timer running",
        [fired(PROPOSE), got(prevote(1, None)), *prevotes(A, 0, 2)],
        [STATUS, timer(PREVOTE)],
    ),
    (
        "with two unsigned votes",
        [*prevotes(A, 0, 2, 3), *proposed(A)],
        [STATUS, Sign(prevote(1, A)), Sign(precommit(1, A))],
    ),
    (
        "with the precommit timer running",
        precommits(None, 0, 2, 3),
        [STATUS, timer(PROPOSE), timer(PRECOMMIT)],
    ),
    (
        "with a block to build",
        skip_to(1),
        [STATUS, timer(PROPOSE, 1), BuildBlock(HEIGHT, 1)],
    ),
    (
        "with an unsigned proposal",
        [*skip_to(1), BlockBuilt(HEIGHT, 1, B)],
        [STATUS, timer(PROPOSE, 1), Sign(proposal(B, 1))],
    ),
]


@pytest.mark.parametrize(
    ("events", "expected"), [row[1:] for row in RESUMED], ids=[row[0] for row in RESUMED]
)
def test_resume_re_emits_what_a_crash_may_have_swallowed(events, expected):
    core = replayed(*events)
    status = core.status

    assert core.resume() == [*expected, BroadcastStatus(HEIGHT, status.round, status.step)]


def test_resume_re_emits_a_decision_that_was_not_made_durable():
    core = replayed(*proposed(A), *precommits(A, 0, 2, 3))

    (effect,) = core.resume()

    assert (type(effect), effect.value) == (Decide, A)
    assert core.resume() == [effect]


def test_an_own_vote_that_peers_pass_on_is_adopted_and_not_signed_again():
    """A node that lost its log learns from others what it said."""
    core = running()

    effects = drive(core, got(prevote(1, A)), got(precommit(1, A)), *proposed(B))

    assert messages_signed(effects) == []
    assert core.locked == (0, A)
    assert core.status == Status(HEIGHT, 0, Step.PRECOMMIT)


@pytest.mark.parametrize("later", [1, 5, FAR])
def test_an_own_vote_of_a_later_round_takes_the_core_there_at_once(later):
    """It had been there. In round 0 it could still lock what it has voted against since."""
    core = running()

    assert feed(core, got(prevote(1, A, later))) == [timer(PROPOSE, later)]
    assert core.status == Status(HEIGHT, later, Step.PREVOTE)
    assert messages_signed(drive(core, *proposed(B), *prevotes(B, 0, 2, 3))) == []
    assert core.locked == (-1, None)


def test_an_own_precommit_of_a_later_round_locks_the_core_there():
    core = running()

    feed(core, got(precommit(1, A, 7)))

    assert (core.status, core.locked) == (Status(HEIGHT, 7, Step.PRECOMMIT), (7, A))


def test_an_own_vote_of_a_later_round_begins_a_height_that_waits_for_work():
    core = Core(TIMEOUTS)
    feed(core, start(1))

    assert feed(core, got(prevote(1, A, 2))) == [STATUS, timer(PROPOSE, 2)]
    assert core.status == Status(HEIGHT, 2, Step.PREVOTE)


def test_an_own_vote_of_the_first_round_counts_when_the_height_begins():
    core = Core(TIMEOUTS)
    feed(core, start(1), got(prevote(1, A)))

    effects = drive(core, WorkAvailable(HEIGHT), *proposed(B))

    assert messages_signed(effects) == []
    assert core.status == Status(HEIGHT, 0, Step.PREVOTE)


@pytest.mark.parametrize("own", [proposal(A, 1), prevote(1, A, 1)], ids=["proposal", "prevote"])
def test_who_has_spoken_in_a_later_round_proposes_nothing_in_it(own):
    """Node 1 leads round 1 and holds A valid, so that it would propose it again at once."""
    core = running()
    drive(core, *proposed(A), *prevotes(A, 0, 2, 3))
    assert core.valid == (0, A)

    effects = drive(core, got(own), BlockBuilt(HEIGHT, 1, B))

    assert [one for one in messages_signed(effects) if isinstance(one, Proposal)] == []
    assert core.status.round == 1


def test_the_first_height_can_be_buffered_before_the_core_is_started():
    core = Core(TIMEOUTS)

    assert core.status == Status(0, 0, Step.DECIDED)
    assert feed(core, got(prevote(0, A, height=1)), WorkAvailable(0), fired(PROPOSE)) == []
    assert core.resume() == []
    assert core.held_messages == 1
