"""Whatever peers send in whatever order: no exception, bounded memory, one signature a slot."""

from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.events import BlockBuilt, PeerStatus, TimerKind, Verdict, WorkAvailable
from consensus.height_state import slot_of
from consensus.messages import Proposal, Vote, VoteKind
from consensus.next_height import MESSAGES_PER_KIND
from tests.unit.consensus.builders import (
    HEIGHT,
    A,
    B,
    C,
    checked,
    drive,
    fired,
    got,
    messages_signed,
    running,
)

ME = 1
VALUES = st.sampled_from([A, B, C])
ROUNDS = st.integers(0, 4) | st.sampled_from([-1, 2**31, 2**63])
VALID_ROUNDS = st.integers(-2, 4)
SENDERS = st.sampled_from([0, 2, 3, 0, 2, 3, -1, 4])
HEIGHTS = st.sampled_from([HEIGHT] * 8 + [HEIGHT - 1, HEIGHT + 1, HEIGHT + 2])
VOTES = st.builds(
    Vote,
    kind=st.sampled_from(VoteKind),
    height=HEIGHTS,
    round=ROUNDS,
    value=st.none() | VALUES,
    valid_round=st.just(-1) | VALID_ROUNDS,
    sender=SENDERS,
)
PROPOSALS = st.integers(0, 4).flatmap(
    lambda number: st.builds(
        Proposal,
        height=HEIGHTS,
        round=st.just(number),
        value=VALUES,
        valid_round=VALID_ROUNDS,
        sender=st.sampled_from([(HEIGHT + number) % 4, 3]).filter(lambda sender: sender != ME),
    )
)
EVENTS = st.one_of(
    VOTES.map(got),
    VOTES.map(got),
    PROPOSALS.map(got),
    st.builds(checked, VALUES, st.sampled_from(Verdict), st.integers(0, 4)),
    st.builds(fired, st.sampled_from(TimerKind), st.integers(0, 4)),
    st.builds(PeerStatus, st.binary(max_size=2), HEIGHTS, ROUNDS, st.integers(-1, 9)),
    st.builds(BlockBuilt, st.just(HEIGHT), st.integers(0, 4), VALUES),
    st.builds(WorkAvailable, HEIGHTS),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(EVENTS, max_size=80))
def test_no_input_of_peers_breaks_the_core(events):
    core = running(ME)

    signed = messages_signed(drive(core, *events))

    slots = [slot_of(message) for message in signed]
    assert len(set(slots)) == len(slots)
    assert slots == sorted(slots)
    rounds_kept = 7
    assert core.held_messages <= rounds_kept * (2 + 8 * 4) + 3 * 4 * MESSAGES_PER_KIND


@settings(max_examples=100, deadline=None)
@given(st.lists(EVENTS, max_size=60))
def test_the_same_inputs_give_the_same_effects(events):
    first, second = running(ME), running(ME)

    assert [first.step(event) for event in events] == [second.step(event) for event in events]
    assert first.resume() == second.resume()
