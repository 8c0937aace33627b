"""Demotion as a pure function of the chain."""

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.proposer import (
    PAROLE_BLOCKS,
    carried,
    eligible,
    next_demotions,
    proposer,
)
from consensus.vote_book import faults_of
from ledger.block import DEMOTION_STRIKES, Demotion

FOUR = (0, 1, 2, 3)
SEVEN = tuple(range(7))


def demote(previous, *, height=10, round_number=0, voters=(), proposers=SEVEN, count=7):
    return next_demotions(
        previous,
        height=height,
        round_number=round_number,
        voters=voters,
        proposers=proposers,
        validator_count=count,
    )


def test_proposers_take_turns_over_heights_and_rounds():
    assert [proposer(height, 0, FOUR) for height in range(5)] == [0, 1, 2, 3, 0]
    assert [proposer(4, number, (0, 2, 3)) for number in range(4)] == [2, 3, 0, 2]


def test_a_block_of_round_zero_demotes_nobody():
    assert demote(()) == ()


def test_each_proposer_of_a_skipped_round_is_demoted_in_order():
    assert demote((), height=10, round_number=2) == (Demotion(3, 1, 0), Demotion(4, 1, 0))


def test_a_proposer_of_several_skipped_rounds_is_demoted_once():
    assert demote((), height=4, round_number=9, proposers=(0, 5), count=7) == (
        Demotion(0, 1, 0),
        Demotion(5, 1, 0),
    )


def test_a_demoted_validator_does_not_propose_until_it_is_seen():
    waiting = (Demotion(2, 1, 0),)

    assert demote(waiting, height=500, voters=(0, 1, 3, 4, 5)) == waiting
    assert eligible(7, waiting, 10_000) == (0, 1, 3, 4, 5, 6)


def test_a_precommit_in_a_later_certificate_ends_the_waiting_after_a_doubling_delay():
    seen = demote((Demotion(2, 3, 0),), height=20, voters=(0, 1, 2, 3, 4))

    assert seen == (Demotion(2, 3, 28),)
    assert 2 not in eligible(7, seen, 27)
    assert 2 in eligible(7, seen, 28)


def test_the_precommit_in_the_demoting_certificate_itself_does_not_count():
    assert demote((), height=10, round_number=1, voters=SEVEN) == (Demotion(3, 1, 0),)


def test_a_failure_on_parole_costs_one_more_strike_and_goes_to_the_end():
    previous = (Demotion(3, 2, 9), Demotion(5, 1, 0))

    assert demote(previous, round_number=1) == (Demotion(5, 1, 0), Demotion(3, 3, 0))


def test_strikes_are_capped():
    assert demote((Demotion(3, DEMOTION_STRIKES, 9),), round_number=1) == (
        Demotion(3, DEMOTION_STRIKES, 0),
    )


def test_parole_ends_after_its_blocks():
    entry = (Demotion(2, 4, 30),)

    assert demote(entry, height=30 + PAROLE_BLOCKS - 1) == entry
    assert demote(entry, height=30 + PAROLE_BLOCKS) == ()


def test_the_oldest_exclusion_goes_on_parole_when_more_than_f_would_be_excluded():
    previous = (Demotion(1, 2, 0), Demotion(2, 1, 0))

    demoted = demote(previous, height=10, round_number=1)

    assert demoted == (Demotion(1, 2, 12), Demotion(2, 1, 0), Demotion(3, 1, 0))
    assert eligible(7, demoted, 12) == (0, 1, 4, 5, 6)


def test_few_validators_are_never_excluded():
    assert eligible(3, demote((), round_number=2, proposers=(0, 1, 2), count=3), 12) == (0, 1, 2)
    assert eligible(1, (Demotion(0, 1, 0),), 5) == (0,)


def test_entries_of_members_that_do_not_exist_are_dropped():
    assert demote((Demotion(6, 1, 0),), count=4, proposers=FOUR) == ()


def test_a_huge_round_costs_one_pass_over_the_proposers():
    demoted = demote((), round_number=2**31)

    assert len(demoted) == 7
    assert len(eligible(7, demoted, 12)) == 5


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 16),
    rounds=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**16 - 1)), max_size=40),
)
def test_a_correct_majority_always_may_propose(count, rounds):
    before, current = (), ()
    for height, (round_number, voter_bits) in enumerate(rounds, start=1):
        voters = [index for index in range(count) if voter_bits >> index & 1]
        ruling = eligible(count, before, height)
        assert len(ruling) >= count - faults_of(count) > 0
        assert len({entry.validator for entry in current}) == len(current) <= count
        before, current = (
            current,
            next_demotions(
                current,
                height=height,
                round_number=round_number,
                voters=voters,
                proposers=ruling,
                validator_count=count,
            ),
        )


def _timeouts_paid(dead: frozenset[int], blocks: int, count: int = 7) -> int:
    """Rounds lost over many blocks when some validators never propose or vote."""
    lists = {0: (), 1: ()}
    paid = 0
    for height in range(1, blocks):
        ruling = eligible(count, lists[height - 1], height)
        round_number = 0
        while proposer(height, round_number, ruling) in dead:
            round_number += 1
        paid += round_number
        lists[height + 1] = next_demotions(
            lists[height],
            height=height,
            round_number=round_number,
            voters=[index for index in range(count) if index not in dead],
            proposers=ruling,
            validator_count=count,
        )
    return paid


def test_a_dead_proposer_costs_one_timeout_and_not_one_every_nth_block():
    assert _timeouts_paid(frozenset(), 1_000) == 0
    assert _timeouts_paid(frozenset({3}), 1_000) <= 2
    assert _timeouts_paid(frozenset({2, 3}), 1_000) <= 4


def test_entries_follow_their_validators_into_another_set_and_leavers_fall_out():
    entries = (Demotion(3, 2, 40), Demotion(1, 1, 0), Demotion(0, 5, 0))
    before, after = (b"b", b"d", b"f", b"h"), (b"a", b"b", b"c", b"h")

    assert carried(entries, before, after) == (Demotion(3, 2, 40), Demotion(1, 5, 0))
    assert carried(entries, before, before) == entries
    assert carried(entries, before, ()) == ()


@given(
    st.lists(st.binary(min_size=1, max_size=1), min_size=1, max_size=9, unique=True),
    st.lists(st.binary(min_size=1, max_size=1), min_size=1, max_size=9, unique=True),
    st.data(),
)
def test_carrying_over_keeps_order_and_names(before, after, data):
    before, after = sorted(before), sorted(after)
    indexes = data.draw(st.lists(st.integers(0, len(before) - 1), unique=True))
    entries = tuple(Demotion(index, 1, place) for place, index in enumerate(indexes))
    found = carried(entries, before, after)
    named = [(before[entry.validator], entry.until) for entry in entries]
    assert [(after[entry.validator], entry.until) for entry in found] == [
        item for item in named if item[0] in after
    ]
    count = len(after)
    assert len(eligible(count, found, 100)) >= count - faults_of(count)
