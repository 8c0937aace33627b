"""What a log keeps that stands behind a torn end: a vote that left is never forgotten."""

import pytest

from ledger.codec import encode
from ledger.store.port import Place
from node import wal, wire
from node.log_entries import (
    EndedHeight,
    LogDamagedError,
    LoggedBatch,
    LoggedBuilt,
    LoggedChecked,
    LoggedProposal,
    LoggedRelease,
    LoggedTimer,
    LoggedVote,
    LoggedWork,
    Memory,
    entries_of,
    read,
)
from node.quarantine import open_log
from node.wal import WriteAheadLog, read_log
from tests.crash.disk import History, RecordingDisk
from tests.crash.machine import LOG
from tests.crash.run import images_of

HIT = 17
"""This byte of a record lies in its payload, however short it is."""
VALUE, SIGNATURE = b"v" * 32, b"s" * 64
ENDED = EndedHeight(6, 41, bytes(32), 3)
BATCH = LoggedBatch(b"d" * 32, Place(1, 0, 480, 7), -1)
OWN_BATCH = LoggedBatch(b"o" * 32, Place(1, 480, 480, 7), 57)


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    """So that a disk in memory is fast."""
    monkeypatch.setattr(wal, "LOG_RESERVE_BYTES", 1_024)


def vote(sender, height, round_number=0, kind=1, own=False):
    message = wire.VoteMessage(kind, height, round_number, VALUE, -1, sender, SIGNATURE)
    return LoggedVote(encode(message), own)


def proposal(height, own):
    message = wire.ProposalMessage(height, 0, VALUE, -1, 2, SIGNATURE, b"block" * 20)
    return LoggedProposal(encode(message), own)


def inputs(height):
    """What a node logs before it votes, none of it synced by itself."""
    return [
        LoggedWork(height),
        proposal(height, own=False),
        BATCH,
        LoggedChecked(height, 0, VALUE, 0),
        LoggedTimer(height, 0, 2),
        vote(1, height),
    ]


OWN = {
    "a vote": [*inputs(7), vote(0, 7, own=True)],
    "a proposal": [LoggedBuilt(7, 0, VALUE, b"block" * 20), proposal(7, own=True)],
    "a batch": [*inputs(7), OWN_BATCH],
    "a vote of the next height": [
        *inputs(7),
        EndedHeight(7, 42, b"p" * 32, 3),
        *inputs(8),
        vote(0, 8, own=True),
    ],
}
every_own = pytest.mark.parametrize("batch", OWN.values(), ids=OWN)


def written(*batches):
    """The bytes of a log whose records were synced together as given, and where each one ends."""
    disk = RecordingDisk(History())
    log = WriteAheadLog(LOG, disk)
    for batch in batches:
        for entry in batch:
            log.append(entry)
        log.sync()
    data = bytes(disk.data[0])
    ends = [behind for behind, _ in entries_of(data)]
    return data[: ends[-1]], ends


def flips(data, start, stop):
    for position in range(start, stop):
        for mask in (0x01, 0x80, 0xFF):
            damaged = bytearray(data)
            damaged[position] ^= mask
            yield position, bytes(damaged) + bytes(4_096)


def opened(data):
    """What a log of these bytes remembers, and the machine that opened it."""
    history = History()
    disk = RecordingDisk(history, {LOG: data})
    return WriteAheadLog(LOG, disk).recovered, disk


def remembers(recovered, own):
    if isinstance(own, LoggedBatch):
        return recovered.own_batches()[0] > own.own_sequence
    return own in recovered.entries


@every_own
def test_what_left_is_remembered_whichever_byte_of_what_was_synced_with_it_is_hit(batch):
    data, ends = written([ENDED], batch)
    kept = 0
    for position, damaged in flips(data, ends[0], ends[-2]):
        try:
            recovered, disk = opened(damaged)
        except LogDamagedError:
            continue
        assert remembers(recovered, batch[-1]), position
        kept += 1
        again, _ = opened(bytes(disk.data[disk.numbers[LOG]]))
        assert again == recovered, position
    assert kept > (ends[-2] - ends[0]) * 2


@every_own
def test_a_statement_of_the_stopped_node_says_the_same_as_the_node_finds(batch):
    data, ends = written([ENDED], batch)
    for position, damaged in flips(data, ends[0], ends[-2]):
        said, is_whole = read_log(LOG, RecordingDisk(History(), {LOG: damaged}))
        try:
            recovered, _ = opened(damaged)
        except LogDamagedError:
            assert not is_whole, position
        else:
            assert (said, is_whole) == (recovered, True), position


@every_own
def test_a_crash_at_any_moment_of_writing_the_log_anew_forgets_nothing(batch):
    data, ends = written([ENDED], batch)
    for behind in ends[:-2]:
        damaged = bytearray(data)
        damaged[behind + HIT] ^= 0x10
        recovered, disk = opened(bytes(damaged))
        assert recovered.is_mended
        images = list(images_of(disk.history))
        assert len(images) > 5
        for place, image in images:
            again, _ = opened(image.files[LOG])
            assert again == recovered, (behind, place)


@every_own
def test_a_log_that_was_written_anew_vouches_for_what_it_kept(batch):
    """What was kept has no reasons left that could bring it back."""
    data, ends = written([ENDED], batch)
    damaged = bytearray(data)
    damaged[ends[0] + HIT] ^= 0x10
    recovered, disk = opened(bytes(damaged))
    anew = bytes(disk.data[disk.numbers[LOG]]).rstrip(b"\0")
    last = [behind for behind, _ in entries_of(anew)][-2]
    for position, twice in flips(anew, 0, last):
        with pytest.raises(LogDamagedError):
            opened(twice)
        assert read(twice).loss, position
    for position, twice in flips(anew, last, len(anew)):
        try:
            assert remembers(opened(twice)[0], batch[-1]), position
        except LogDamagedError:
            continue
    assert remembers(recovered, batch[-1])


def damaged_log(*batches, hit):
    """A log in which record `hit` is damaged."""
    data, ends = written(*batches)
    damaged = bytearray(data)
    damaged[ends[hit - 1] + HIT] ^= 0x10
    return bytes(damaged)


def test_a_torn_end_without_anything_of_ours_is_cut_off_as_ever():
    torn = [*inputs(7), EndedHeight(7, 42, bytes(32)), vote(1, 8)]
    recovered, disk = opened(damaged_log([ENDED], torn, hit=2))
    assert (recovered.ended, recovered.entries) == (ENDED, [torn[0]])
    assert not recovered.is_mended
    assert [one[0] for one in disk.history.operations].count("create") == 0


def test_inputs_of_peers_behind_a_torn_end_come_again_and_are_not_kept():
    recovered, _ = opened(damaged_log([ENDED], OWN["a vote"], hit=2))
    assert recovered.entries == [LoggedWork(7), BATCH, vote(0, 7, own=True)]


def test_a_vote_whose_height_lost_its_record_implies_that_the_height_below_has_ended():
    """Whoever votes at 8 holds block 7; its number of batches is what stood in the log."""
    torn = [*inputs(7), OWN_BATCH, EndedHeight(7, 58, b"o" * 32, 3), vote(0, 8, own=True)]
    for hit in range(1, len(torn)):
        if hit == 7:
            continue  # The batch itself: then the clock guards its number.
        recovered, _ = opened(damaged_log([ENDED], torn, hit=hit))
        expected = EndedHeight(7, 58, b"o" * 32, 3)
        assert (recovered.ended, recovered.entries) == (expected, [vote(0, 8, own=True)]), hit


def test_a_log_goes_on_behind_what_was_kept(tmp_path):
    path = tmp_path / "consensus.wal"
    path.write_bytes(damaged_log([ENDED], OWN["a vote"], hit=2))
    log = open_log(path, 6, 77)
    found = list(log.recovered.entries)
    log.append(LoggedTimer(7, 0, 3))
    log.sync()
    log.close()
    log = open_log(path, 6, 77)
    log.end_height(EndedHeight(7, 60, bytes(32)))
    log.sync()
    log.close()
    assert log.recovered.entries == [*found, LoggedTimer(7, 0, 3)]
    assert not opened(path.read_bytes())[0].is_mended


@pytest.mark.parametrize(
    "lie",
    [
        EndedHeight(9, 1, bytes(32), 0, Memory.COMPLETE),
        LoggedRelease(7, 0, -1, None, b"", ()),
    ],
    ids=["the end of a height", "a release"],
)
def test_nothing_behind_a_torn_end_ends_a_quarantine(lie):
    """A peer could have put such a record into the bytes of a proposal."""
    before = EndedHeight(6, 41, bytes(32), 30)
    recovered, _ = opened(damaged_log([before], [*inputs(7), lie, vote(0, 7, own=True)], hit=2))
    assert (recovered.ended, recovered.release) == (before, None)


@pytest.mark.parametrize(
    "strange",
    [vote(0, 6, own=True), vote(0, 9, own=True), LoggedVote(b"no vote", own=True)],
    ids=["of an ended height", "of a height beyond the next", "that is none"],
)
def test_an_own_message_that_cannot_stand_there_makes_the_log_refuse(strange):
    damaged = damaged_log([ENDED], [*inputs(7), strange], hit=2)
    with pytest.raises(LogDamagedError):
        opened(damaged)
    assert not read_log(LOG, RecordingDisk(History(), {LOG: damaged}))[1]


def test_a_log_without_its_beginning_refuses_whatever_follows():
    data, ends = written([ENDED, *OWN["a vote"]])
    for _, damaged in flips(data, 0, ends[0]):
        with pytest.raises(LogDamagedError):
            opened(damaged)
