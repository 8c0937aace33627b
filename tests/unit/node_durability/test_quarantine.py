"""The gate: who may vote from when, by what a log remembers and what peers say."""

import pytest

from consensus.events import Adopted
from ledger.batch import GENESIS_BATCH
from ledger.ids import Address, BlockHash, Round
from node.limits import DUPLICATE_HEIGHTS, QUARANTINE_HEIGHTS, WATCHED_HEIGHTS
from node.log_entries import EndedHeight, LoggedRelease, LoggedWork, Memory, Recovered
from node.quarantine import gate_of, open_log
from node.wal import WriteAheadLog
from tests.unit.node_core.chains import VALIDATORS
from tests.unit.node_core.memory_network import NAMES

ALONE = type(VALIDATORS)(VALIDATORS.members[:1])
BEYOND = QUARANTINE_HEIGHTS + WATCHED_HEIGHTS + 1


def gate(memory=Memory.COMPLETE, height=5, voting_from=0, release=None):
    ended = EndedHeight(height, 0, GENESIS_BATCH, voting_from, memory)
    return gate_of(NAMES[0], Recovered(ended, [], release))


def opened(one, height, *tips):
    """The gate after these tips of other validators, in order."""
    for peer, tip in zip(NAMES[1:], tips, strict=False):
        one.hear(peer, tip)
    return one.try_open(height, VALIDATORS)


def test_a_gate_stays_closed_until_a_quorum_with_this_node_was_heard():
    one = gate()
    assert [opened(one, 5), opened(one, 5, 5), opened(one, 5, 5, 5)] == [False, False, True]
    assert (one.may_vote(6), one.voting_from) == (True, 0)


def test_strangers_and_this_node_itself_do_not_count():
    one = gate()
    for number in range(5):
        one.hear(Address(bytes([number]) * 32), 5)
    one.hear(NAMES[0], 5)
    assert not one.try_open(5, VALIDATORS)


def test_a_node_that_lags_does_not_vote_before_it_has_what_was_claimed_when_it_started():
    one = gate()
    assert not opened(one, 5, 9, 5)
    one.hear(NAMES[1], 20)  # Only its first word counts: the chain goes on meanwhile.
    assert [one.try_open(8, VALIDATORS), one.try_open(9, VALIDATORS)] == [False, True]
    assert one.may_vote(10)


def test_a_claim_that_leads_nowhere_does_not_keep_a_node_out():
    one = gate()
    assert not opened(one, 5, 2**40, 5)
    one.drop_claim(NAMES[1])
    assert one.try_open(5, VALIDATORS)


def test_a_closed_gate_lets_nobody_vote():
    assert not gate().may_vote(1_000)


@pytest.mark.parametrize(("own", "tips"), [(5, (5, 4)), (9, (9, 9)), (9, (0, 0))])
def test_a_node_without_memory_waits_beyond_the_newest_certificate_of_its_peers(own, tips):
    one = gate(Memory.LOST)
    assert opened(one, own, *tips)
    assert one.voting_from == own + BEYOND
    assert [one.may_vote(own + BEYOND - 1), one.may_vote(own + BEYOND)] == [False, True]


def test_a_new_node_of_a_new_chain_votes_at_once_and_one_that_finds_a_chain_does_not():
    born, late = gate(Memory.NEW, height=0), gate(Memory.NEW, height=0)
    assert opened(born, 0, 0, 0)
    assert not opened(late, 0, 3, 0)
    assert late.try_open(3, VALIDATORS)
    assert (born.voting_from, late.voting_from) == (0, 3 + BEYOND)


def test_a_lone_node_has_nobody_to_contradict():
    one = gate(Memory.LOST)
    assert one.try_open(5, ALONE)
    assert one.may_vote(6)


def test_a_quarantine_outlives_a_restart():
    one = gate(height=7, voting_from=12)
    assert opened(one, 7, 7, 7)
    assert (one.voting_from, one.may_vote(11), one.may_vote(12)) == (12, False, True)


@pytest.mark.parametrize("found", [6, 9])
def test_an_own_signature_that_cannot_be_explained_bars_as_many_heights_as_are_looked_at(found):
    """T-14: the very last block counts, and so does the first one that leaves the window."""
    one = gate()
    one.suspect(found)
    assert opened(one, 9, 9, 9)
    bar = found + DUPLICATE_HEIGHTS
    assert [one.may_vote(bar), one.may_vote(bar + 1)] == [False, True]


@pytest.mark.parametrize(
    ("memory", "newest", "past"), [(Memory.COMPLETE, 9, 5), (Memory.LOST, 9, 11)]
)
def test_what_may_have_been_signed_before_is_of_the_past(memory, newest, past):
    one = gate(memory)
    assert opened(one, newest, newest, newest)
    assert [one.is_past(past, 0), one.is_past(past + 1, 0)] == [True, False]


def test_a_node_that_knows_of_its_loss_does_not_wonder_at_its_old_signatures():
    one = gate(Memory.LOST)
    assert one.is_past(1_000, 0)
    assert opened(one, 9, 9, 9)
    assert not one.is_past(1_000, 0)


def test_a_released_node_votes_at_the_height_of_its_release():
    release = LoggedRelease(6, 3, -1, None, b"", ())
    one = gate(Memory.LOST, release=release)
    assert opened(one, 5, 5, 5)
    assert (one.voting_from, one.may_vote(6)) == (6, True)
    assert [one.is_past(6, 3), one.is_past(6, 4)] == [True, False]


def test_a_released_node_hands_its_core_the_whole_lock_at_that_height_alone():
    one = gate(Memory.LOST, release=LoggedRelease(6, 3, 2, b"v" * 32, b"", ()))
    assert one.adopted(6) is None
    assert opened(one, 5, 5, 5)
    assert [one.adopted(5), one.adopted(6), one.adopted(7)] == [
        None,
        Adopted(Round(3), Round(2), BlockHash(b"v" * 32)),
        None,
    ]


def test_a_release_that_the_chain_has_passed_releases_nobody():
    one = gate(Memory.LOST, release=LoggedRelease(6, 3, -1, None, b"", ()))
    assert not opened(one, 5, 6, 6)
    assert one.try_open(6, VALIDATORS)
    assert one.voting_from == 6 + BEYOND


def opened_log(path, height):
    log = open_log(path, height, 77)
    log.close()
    return log.recovered.ended


def test_a_new_log_begins_with_what_it_does_not_know(tmp_path):
    new, lost = opened_log(tmp_path / "a.wal", 0), opened_log(tmp_path / "b.wal", 4)
    assert new == EndedHeight(0, 77, GENESIS_BATCH, 0, Memory.NEW)
    assert lost == EndedHeight(4, 77, GENESIS_BATCH, 0, Memory.LOST)
    assert opened_log(tmp_path / "b.wal", 4) == lost


def test_a_log_emptied_beside_a_chain_is_a_lost_one(tmp_path):
    path = tmp_path / "a.wal"
    path.write_bytes(b"")
    assert opened_log(path, 4).memory is Memory.LOST


def test_a_log_whose_beginning_is_missing_is_a_lost_one(tmp_path):
    path = tmp_path / "a.wal"
    log = WriteAheadLog(path)
    log.append(LoggedWork(1))
    log.sync()
    log.close()
    assert opened_log(path, 0).memory is Memory.LOST


def test_a_damaged_log_is_set_aside_and_its_successor_says_that_memory_is_lost(tmp_path):
    path = tmp_path / "a.wal"
    log = WriteAheadLog(path)
    for entry in (EndedHeight(0, 0, GENESIS_BATCH), LoggedWork(1), LoggedWork(1)):
        log.append(entry)
        log.sync()
    log.close()
    data = bytearray(path.read_bytes())
    data[30] ^= 1
    path.write_bytes(data)
    assert opened_log(path, 0).memory is Memory.LOST
    assert (tmp_path / "a.damaged-1").read_bytes() == bytes(data)
