"""The write-ahead log on a real disk: torn tails, damage, rotation."""

import os
from pathlib import Path

import pytest

from ledger.errors import UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK
from ledger.store.port import Place
from node import limits, wal
from node.wal import (
    EndedHeight,
    LogDamagedError,
    LoggedBatch,
    LoggedProposal,
    LoggedTimer,
    LoggedVote,
    LoggedWork,
    WriteAheadLog,
    set_aside,
)

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


def written(path, entries=(ENDED, *ENTRIES)):
    """Write a log; the offsets behind its records."""
    log, offsets = WriteAheadLog(path), []
    for entry in entries:
        log.append(entry)
        log.sync()
        offsets.append(path.stat().st_size)
    log.close()
    return offsets


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
    data = path.read_bytes()
    for length in range(len(data) + 1):
        path.write_bytes(data[:length])
        whole = sum(offset <= length for offset in offsets)
        expected = (ENDED, ENTRIES[: whole - 1]) if whole else (None, [])
        assert recovered(path) == expected, length
        assert path.stat().st_size == (offsets[whole - 1] if whole else 0), length


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
    data = path.read_bytes()
    for position in range(offsets[-2]):
        damaged = bytearray(data)
        damaged[position] ^= 0x01
        path.write_bytes(damaged)
        with pytest.raises(LogDamagedError):
            WriteAheadLog(path)
        assert path.read_bytes() == bytes(damaged), position


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
    assert path.stat().st_size < 2_000
    assert recovered(path) == (EndedHeight(5, 5, bytes(32)), [LoggedWork(6)])


def test_a_log_that_only_follows_does_not_grow_in_memory(path, monkeypatch):
    monkeypatch.setattr(wal, "LOG_BUFFER_BYTES", 500)
    log = WriteAheadLog(path)
    for height in range(1, 50):
        log.append(LoggedVote(b"vote" * 30, own=False))
        log.end_height(EndedHeight(height, 1, bytes(32)))
    assert path.stat().st_size > 49 * 120 - 1_000
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
