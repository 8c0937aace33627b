"""Scores: what an offence costs, how it is forgotten, and who is demoted instead of banned."""

import pytest

from ledger.ids import Address
from p2p.scoring import BAN_S, POINTS, Offence, Scores, Standing, can_be_spared

BOB, CAROL = Address(b"b" * 32), Address(b"c" * 32)
GOOD, DEMOTED, BANNED = Standing.GOOD, Standing.DEMOTED, Standing.BANNED


def test_every_offence_has_its_price() -> None:
    assert {offence.value: POINTS[offence] for offence in Offence} == {
        "invalid_signature": 100.0,
        "malformed": 50.0,
        "flood": 50.0,
        "unrequested": 20.0,
        "fruitless": 20.0,
        "false_snapshot": 100.0,
        "stale": 1.0,
    }


def test_an_invalid_signature_bans_for_ten_minutes_and_nobody_else() -> None:
    scores = Scores()
    assert scores.charge(BOB, Offence.INVALID_SIGNATURE, 5.0, can_be_spared=True) is BANNED
    assert (scores.standing(BOB, 5.0), scores.standing(CAROL, 5.0)) == (BANNED, GOOD)
    assert scores.standing(BOB, 5.0 + BAN_S - 0.1) is BANNED
    assert scores.standing(BOB, 5.0 + BAN_S) is GOOD
    assert scores.score(BOB, 5.0 + BAN_S) == 0


def test_a_change_is_told_once() -> None:
    scores = Scores()
    told = [
        scores.charge(BOB, Offence.INVALID_SIGNATURE, 0.0, can_be_spared=True) for _ in range(3)
    ]
    assert told == [BANNED, None, None]


def test_a_score_loses_a_hundredth_each_second() -> None:
    scores = Scores()
    scores.charge(BOB, Offence.MALFORMED, 0.0, can_be_spared=True)
    assert [scores.score(BOB, seconds) for seconds in (0, 1, 69, 200)] == [-50, -50, -25, -7]


def test_offences_add_up_until_they_ban() -> None:
    scores = Scores()
    told = [
        scores.charge(BOB, Offence.UNREQUESTED, second, can_be_spared=True)
        for second in range(0, 60, 10)
    ]
    assert told == [None] * 6
    assert scores.charge(BOB, Offence.UNREQUESTED, 60.0, can_be_spared=True) is BANNED


def test_lateness_alone_never_bans_and_never_mends_a_score() -> None:
    scores = Scores()
    told = [scores.charge(BOB, Offence.STALE, 0.0, can_be_spared=True) for _ in range(10_000)]
    assert set(told) == {None}
    assert scores.score(BOB, 0.0) == -50
    scores.charge(BOB, Offence.UNREQUESTED, 0.0, can_be_spared=True)
    scores.charge(BOB, Offence.STALE, 0.0, can_be_spared=True)
    assert scores.score(BOB, 0.0) == -70


def test_a_node_that_cannot_be_spared_is_demoted_until_half_is_forgotten() -> None:
    scores = Scores()
    assert scores.charge(BOB, Offence.INVALID_SIGNATURE, 0.0, can_be_spared=False) is DEMOTED
    assert scores.charge(BOB, Offence.MALFORMED, 0.0, can_be_spared=False) is None
    assert (scores.standing(BOB, 60.0), scores.standing(BOB, 120.0)) == (DEMOTED, GOOD)


def test_a_demoted_node_is_banned_for_the_next_offence_once_it_can_be_spared() -> None:
    scores = Scores()
    scores.charge(BOB, Offence.INVALID_SIGNATURE, 0.0, can_be_spared=False)
    assert scores.charge(BOB, Offence.INVALID_SIGNATURE, 1.0, can_be_spared=True) is BANNED


def test_no_flood_of_offences_makes_a_demotion_last_longer_than_140_seconds() -> None:
    scores = Scores()
    for _ in range(10_000):
        scores.charge(BOB, Offence.INVALID_SIGNATURE, 0.0, can_be_spared=False)
    assert (scores.standing(BOB, 137.0), scores.standing(BOB, 140.0)) == (DEMOTED, GOOD)


def test_restoring_tells_each_node_once_and_forgets_what_decayed() -> None:
    scores = Scores()
    scores.charge(BOB, Offence.INVALID_SIGNATURE, 0.0, can_be_spared=True)
    scores.charge(CAROL, Offence.UNREQUESTED, 0.0, can_be_spared=True)
    assert scores.restore(100.0) == []
    assert scores.restore(600.0) == [BOB]
    assert scores.restore(601.0) == []
    assert scores._records == {}


VOTERS = [Address(bytes([number]) * 32) for number in range(4)]


@pytest.mark.parametrize(
    ("linked", "expected"),
    [
        (VOTERS[1:], True),  # two others and this node remain: three of four
        (VOTERS[1:3], False),
        (VOTERS[1:2], False),
        (VOTERS[2:], True),  # it is away already, and the others suffice
        (VOTERS[3:], False),
    ],
)
def test_a_voter_is_spared_only_where_a_quorum_stays_in_reach(linked, expected) -> None:
    assert can_be_spared(VOTERS[1], VOTERS[0], linked, VOTERS) is expected


def test_all_correct_voters_linked_every_traitor_of_seven_can_be_banned() -> None:
    voters = [Address(bytes([number]) * 32) for number in range(7)]
    linked = voters[1:]
    for traitor in (voters[5], voters[6]):
        assert can_be_spared(traitor, voters[0], linked, voters)
        linked.remove(traitor)
    assert not can_be_spared(voters[4], voters[0], linked, voters)


def test_who_does_not_vote_can_always_be_spared() -> None:
    assert can_be_spared(BOB, VOTERS[0], [], VOTERS)
    assert can_be_spared(BOB, CAROL, [], [])


def test_an_observer_needs_a_quorum_of_others() -> None:
    assert can_be_spared(VOTERS[0], BOB, VOTERS, VOTERS)
    assert not can_be_spared(VOTERS[0], BOB, VOTERS[:3], VOTERS)
