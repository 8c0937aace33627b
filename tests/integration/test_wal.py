"""The write-ahead log on a real disk: torn tails, damage, rotation."""

import errno
import os
from pathlib import Path

import pytest

from ledger.errors import UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK, OperatingSystemFile
from ledger.store.port import Place
from node import limits, wal
from node.log_entries import (
    EndedHeight,
    LogDamagedError,
    LoggedBatch,
    LoggedProposal,
    LoggedRelease,
    LoggedTimer,
    LoggedVote,
    LoggedWork,
    entries_of,
)
from node.wal import WriteAheadLog, set_aside

ENDED = EndedHeight(6, 41, bytes(32))
ENTRIES = [
    LoggedWork(7),
    LoggedBatch(bytes(32), Place(1, 0, 480, 7), 41),
    LoggedProposal(b"proposal" * 20, own=True),
    LoggedVote(b"vote" * 30, own=True),
    LoggedVote(b"vote" * 30, own=False),
    LoggedTimer(7, 0, 2),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "data" / "consensus.wal"


def content(path):
    """The bytes of a log without the room that is reserved behind them."""
    data = path.read_bytes()
    ends = [behind for behind, _ in entries_of(data)]
    return data[: ends[-1] if ends else 0]


def written(path, entries=(ENDED, *ENTRIES)):
    """Write a log, every record synced; the offsets behind its records."""
    log = WriteAheadLog(path)
    for entry in entries:
        log.append(entry)
        log.sync()
    log.close()
    return [behind for behind, _ in entries_of(path.read_bytes())]


def recovered(path):
    log = WriteAheadLog(path)
    log.close()
    return log.recovered.ended, log.recovered.entries


def test_a_new_log_remembers_nothing(path):
    log = WriteAheadLog(path)
    assert (log.is_new, log.recovered.ended, log.recovered.entries) == (True, None, [])
    log.close()


def test_entries_since_the_last_ended_height_come_back_in_order(path):
    written(path, [EndedHeight(5, 40, bytes(32)), LoggedWork(6), ENDED, *ENTRIES])
    assert recovered(path) == (ENDED, ENTRIES)


def test_what_was_appended_and_not_synced_is_not_promised(path):
    written(path)
    log = WriteAheadLog(path)
    log.append(LoggedWork(8))
    log.close()
    assert recovered(path) == (ENDED, ENTRIES)


def test_a_tail_torn_at_any_byte_leaves_every_whole_record(path):
    offsets = written(path)
    data = content(path)
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = sum(offset <= length for offset in offsets)
        expected = (ENDED, ENTRIES[: whole - 1]) if whole else (None, [])
        assert recovered(path) == expected, length
        assert len(content(path)) == (offsets[whole - 1] if whole else 0), length


def test_a_log_goes_on_behind_a_torn_tail(path):
    offsets = written(path)
    os.truncate(path, offsets[-1] - 3)
    log = WriteAheadLog(path)
    log.append(LoggedWork(9))
    log.sync()
    log.close()
    assert recovered(path) == (ENDED, [*ENTRIES[:-1], LoggedWork(9)])


def test_a_tail_of_zeros_is_torn(path):
    written(path)
    with path.open("ab") as file:
        file.write(bytes(4_096))
    assert recovered(path) == (ENDED, ENTRIES)


def test_damage_at_any_byte_before_the_last_record_is_refused(path):
    offsets = written(path)
    data = content(path)
    for position in range(offsets[-2]):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(LogDamagedError):
            WriteAheadLog(path)
        assert path.read_bytes() == bytes(damaged), position


def unsynced(path, count=3):
    """A log of one synced record and some that were written but never synced."""
    log = WriteAheadLog(path)
    log.append(ENDED)
    log.sync()
    for number in range(count):
        log.append(LoggedVote(bytes([number]) * 700, own=False))
    log._write()
    log.close()
    return [behind for behind, _ in entries_of(path.read_bytes())]


def test_parts_of_an_unsynced_tail_in_any_order_are_torn_and_nothing_more(path):
    """A disk may keep a later sector of them and lose an earlier one: nobody counted on either."""
    offsets = unsynced(path)
    data = path.read_bytes()
    for sector in range(offsets[0] // 512 + 1, offsets[-1] // 512 + 1):
        hole = bytearray(data)
        hole[sector * 512 : (sector + 1) * 512] = bytes(512)
        path.write_bytes(hole)
        ended, entries = recovered(path)
        whole = sum(offset <= sector * 512 for offset in offsets)
        assert (ended, len(entries)) == (ENDED, whole - 1), sector


def test_a_length_that_no_crash_can_leave_is_damage_even_at_the_very_end(path):
    """Malachite 14ccb3eb: a corrupted length was taken for a torn tail."""
    offsets = written(path)
    data = bytearray(path.read_bytes())
    data[offsets[-2]] = 0x7F
    path.write_bytes(data)
    with pytest.raises(LogDamagedError):
        WriteAheadLog(path)


def test_a_record_in_another_place_is_none(path):
    """Blocks of a file that were once another place of it, or bytes that a peer made us write."""
    offsets = written(path)
    data = path.read_bytes()
    moved = data[: offsets[0]] + data[offsets[1] : offsets[-1]]
    path.write_bytes(moved)
    assert recovered(path) == (ENDED, [])


def test_room_is_reserved_ahead_so_that_a_full_disk_takes_the_last_votes(path):
    class FullDisk(OperatingSystemFile):
        def reserve(self, length):
            raise OSError(errno.ENOSPC, "full")

    log = WriteAheadLog(path)
    reserved = path.stat().st_size
    log._file = FullDisk(log._file._descriptor)
    big = LoggedProposal(bytes(limits.LOG_RECORD_BYTES - 64), own=True)
    for _ in range(20):
        log.append(big)
        log.sync()
    assert reserved == limits.LOG_RESERVE_BYTES
    assert path.stat().st_size == reserved
    log.close()


def test_a_log_that_failed_takes_nothing_more(path):
    """A second sync would say that all is well: the system has forgotten the pages."""

    class Broken(OperatingSystemFile):
        fails = True

        def sync(self):
            if self.fails:
                self.fails = False
                raise OSError(errno.EIO, "input/output error")

    log = WriteAheadLog(path)
    log._file = Broken(log._file._descriptor)
    log.append(LoggedWork(1))
    for _ in range(2):
        with pytest.raises(UnavailableError):
            log.sync()


def test_a_rotation_that_a_crash_cut_short_leaves_the_old_log(path):
    written(path)
    path.with_suffix(".new").write_bytes(b"half")
    assert recovered(path) == (ENDED, ENTRIES)
    assert not path.with_suffix(".new").exists()


def test_a_release_is_remembered_until_its_height_has_ended(path, monkeypatch):
    release = LoggedRelease(9, 4, -1, None, b"", ())
    written(path, [ENDED, release, EndedHeight(7, 1, bytes(32))])
    monkeypatch.setattr(wal, "LOG_ROTATE_BYTES", 10)
    log = WriteAheadLog(path)
    log.end_height(EndedHeight(8, 1, bytes(32)))
    log.close()
    log = WriteAheadLog(path)
    assert (log.recovered.ended.height, log.recovered.release) == (8, release)
    log.end_height(EndedHeight(9, 1, bytes(32)))
    log.close()
    log = WriteAheadLog(path)
    log.close()
    assert (log.recovered.ended.height, log.recovered.release) == (9, None)


@pytest.mark.parametrize("size", [1_000, 66_000, limits.LOG_RECORD_BYTES - 64])
def test_damage_in_a_record_of_any_size_is_refused(path, size):
    offsets = written(path, [ENDED, LoggedProposal(bytes(size), own=False), LoggedWork(7)])
    data = bytearray(path.read_bytes())
    data[offsets[0] + size // 2] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(LogDamagedError):
        WriteAheadLog(path)


def test_a_damaged_log_is_set_aside_under_a_free_name(path):
    written(path)
    first = set_aside(path)
    written(path)
    second = set_aside(path)
    assert [first.name, second.name] == ["consensus.damaged-1", "consensus.damaged-2"]
    log = WriteAheadLog(path)
    log.close()
    assert log.is_new


def test_a_large_log_starts_anew_at_the_end_of_a_height(path, monkeypatch):
    monkeypatch.setattr(wal, "LOG_ROTATE_BYTES", 1_000)
    log = WriteAheadLog(path)
    for height in range(1, 6):
        for entry in ENTRIES:
            log.append(entry)
        log.sync()
        log.end_height(EndedHeight(height, height, bytes(32)))
    log.append(LoggedWork(6))
    log.sync()
    log.close()
    assert len(content(path)) < 2_000
    assert recovered(path) == (EndedHeight(5, 5, bytes(32)), [LoggedWork(6)])


def test_a_log_that_only_follows_does_not_grow_in_memory(path, monkeypatch):
    monkeypatch.setattr(wal, "LOG_BUFFER_BYTES", 500)
    log = WriteAheadLog(path)
    for height in range(1, 50):
        log.append(LoggedVote(b"vote" * 30, own=False))
        log.end_height(EndedHeight(height, 1, bytes(32)))
    assert len(content(path)) > 49 * 120 - 1_000
    log.close()


def test_a_log_in_an_unusable_place_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        WriteAheadLog(tmp_path / "file" / "consensus.wal")


def test_a_full_disk_stops_the_log(path):
    log = WriteAheadLog(path)
    log._file.close()
    log._file = OPERATING_SYSTEM_DISK.open(Path("/dev/full"), writing=True)
    log.append(LoggedWork(1))
    with pytest.raises(UnavailableError):
        log.sync()
    log.close()
