"""The simulated disk, log and clocks do what they promise, and no more."""

import errno
import random
from pathlib import Path

import pytest

from consensus.events import MessageReceived, WorkAvailable
from consensus.messages import Signed, Vote, VoteKind
from tests.simulation import log, quarantine
from tests.simulation.clock import NodeClock
from tests.simulation.disk import SECTOR, SimulatedDisk
from tests.simulation.log import DamagedLogError, Ended, Log, Logged

NAME, OTHER = Path("data/file"), Path("data/other")


def disk_of(seed=0, lying=0.0):
    return SimulatedDisk(random.Random(seed), lying)


def vote(round_number):
    message = Vote(VoteKind.PREVOTE, 1, round_number, None, -1, 0)
    return Logged(MessageReceived(Signed(message, b"")), None, True)


def work():
    return Logged(WorkAvailable(1), None, False)


def new_log():
    disk, entries = disk_of(), []
    log.create(disk, entries, Ended(0, 0))
    return disk, entries, Log(disk, entries)


# The disk


def test_a_power_cut_keeps_what_was_synced_and_any_part_of_the_rest():
    outcomes = set()
    for seed in range(60):
        disk = disk_of(seed)
        file = disk.create(NAME)
        file.write(b"a" * SECTOR, 0)
        file.sync()
        disk.sync_folder(NAME.parent)
        file.write(b"b" * 2 * SECTOR, SECTOR)
        disk.cut_power()
        data = disk.open(NAME).data
        assert data[:SECTOR] == b"a" * SECTOR
        outcomes.add(bytes(data[SECTOR::SECTOR]))

    assert outcomes == {b"", b"b", b"bb", b"\0b"}


def test_a_crash_of_the_process_loses_nothing_that_was_written():
    disk = disk_of()
    disk.create(NAME).write(b"abc", 0)

    assert disk.open(NAME).read(10, 0) == b"abc"


def test_a_created_name_survives_for_certain_once_the_folder_was_synced():
    survived = set()
    for seed in range(20):
        disk = disk_of(seed)
        disk.create(NAME).sync()
        disk.sync_folder(NAME.parent)
        disk.create(OTHER).sync()
        disk.cut_power()
        assert disk.exists(NAME)
        survived.add(disk.exists(OTHER))

    assert survived == {False, True}


def test_a_rename_is_wholly_there_or_not_at_all():
    for seed in range(20):
        disk = disk_of(seed)
        for name, data in ((NAME, b"old"), (OTHER, b"new")):
            file = disk.create(name)
            file.write(data, 0)
            file.sync()
        disk.sync_folder(NAME.parent)
        disk.replace(OTHER, NAME)
        disk.cut_power()
        assert (bytes(disk.open(NAME).data), disk.exists(OTHER)) in (
            (b"old", True),
            (b"new", False),
        )


def test_a_lying_disk_may_lose_what_it_said_was_synced():
    left = set()
    for seed in range(20):
        disk = disk_of(seed, lying=0.5)
        file = disk.create(NAME)
        file.write(b"abc", 0)
        file.sync()
        disk.sync_folder(NAME.parent)
        disk.cut_power()
        left.add(bytes(disk.open(NAME).data) if disk.exists(NAME) else None)

    assert left == {None, b"", b"abc"}


def test_a_full_or_failing_disk_says_so():
    disk = disk_of()
    file = disk.create(NAME)
    disk.is_full = disk.fails_sync = True

    for act, number in (
        (lambda: file.write(b"a", 0), errno.ENOSPC),
        (file.sync, errno.EIO),
        (lambda: disk.sync_folder(NAME.parent), errno.EIO),
    ):
        with pytest.raises(OSError) as raised:
            act()
        assert raised.value.errno == number


# The log


def test_a_log_remembers_what_came_after_its_last_ended_height():
    disk, entries, written = new_log()
    late = [work(), vote(0), work()]
    for entry in (work(), Ended(1, 7), *late):
        written.append(entry)
    written.sync()

    found = Log(disk, entries).found

    assert (found.ended, found.entries) == (Ended(1, 7), late)


def test_a_log_that_is_gone_or_has_no_beginning_is_damaged():
    disk, entries, _ = new_log()
    disk.open(log.LOG).flip(20, 0)
    with pytest.raises(DamagedLogError, match="does not say where it begins"):
        Log(disk, entries)

    disk.lose(log.LOG)
    with pytest.raises(DamagedLogError, match="missing"):
        Log(disk, entries)


def test_a_torn_end_is_left_out_and_does_not_come_back():
    disk, entries, written = new_log()
    kept, lost, after = vote(0), work(), work()
    written.append_own(kept)
    start = written._size
    for entry in (lost, after):
        written.append(entry)
    written.write()
    disk.open(log.LOG).flip(start, 7)

    assert Log(disk, entries).found.entries == [kept]
    assert Log(disk, entries).found.entries == [kept]


def test_damage_before_what_is_known_to_be_synced_is_lost_history():
    disk, entries, written = new_log()
    start = written._size
    written.append_own(vote(0))
    written.append_own(vote(1))

    disk.open(log.LOG).flip(start + 30, 3)

    with pytest.raises(DamagedLogError, match=f"damaged at byte {start}"):
        Log(disk, entries)


def test_an_own_message_behind_damage_of_its_own_sync_is_kept_through_a_power_cut():
    for seed in range(20):
        disk, entries, written = new_log()
        disk._rng = random.Random(seed)
        start, own = written._size, vote(0)
        written.append(work())
        written.append_own(own)
        disk.open(log.LOG).flip(start + 15, 3)

        assert Log(disk, entries).found.entries == [own]
        disk.cut_power()
        assert Log(disk, entries).found.entries == [own]


def test_what_was_adopted_is_not_lost_to_a_later_flip_either():
    """Simulation seed 23774: its reasons are gone, so no replay would ask for it again."""
    disk, entries, written = new_log()
    start, own = written._size, vote(0)
    written.append(work())
    written.append_own(own)
    disk.open(log.LOG).flip(start + 15, 3)
    assert Log(disk, entries).found.entries == [own]

    disk.open(log.LOG).flip(start + 15, 3)

    with pytest.raises(DamagedLogError, match="known to be synced"):
        Log(disk, entries)


def test_no_single_flipped_bit_hides_an_own_message_but_the_last():
    """The last one is asked for again by the replay, for its reasons are all there."""
    disk, entries, written = new_log()
    own = [vote(0), vote(1), vote(2)]
    for entry in own:
        written.append(work())
        written.append_own(entry)
    size = written._size

    for position in range(0, size, 3):
        disk.open(log.LOG).flip(position, position % 8)
        backup = disk.copy()
        try:
            found = Log(backup, entries).found.entries
        except DamagedLogError:
            found = own
        assert [entry for entry in found if entry.is_own][:2] == own[:2]
        disk.open(log.LOG).flip(position, position % 8)


def test_a_large_log_starts_anew_at_the_end_of_a_height():
    disk, entries, written = new_log()
    while written._size <= log.ROTATE_BYTES:
        written.append(vote(0), log.VOTE)
    written.end_height(Ended(1, 3))
    last = vote(1)
    written.append_own(last)

    found = Log(disk, entries).found

    assert (found.ended, found.entries) == (Ended(1, 3), [last])
    assert disk.open(log.LOG).size() < 1_000


# The clocks


def test_a_wall_clock_drifts_steps_and_stands_still():
    clock = NodeClock(1_000, 500)
    assert clock.now_ms(10_000) == 11_005

    clock.freeze(10_000, 13_000)
    assert clock.now_ms(10_000) == clock.now_ms(12_000) - 1 == 11_005
    assert clock.now_ms(20_000) == 20_000 - 3_000 + 10 + 1_000

    clock.set(-5_000)
    assert clock.now_ms(20_000) == 15_010


def test_a_timer_drifts_but_knows_no_steps():
    clock = NodeClock(0, 500)
    clock.set(9_000)

    assert clock.delay_ms(10_000) == 9_995
    assert NodeClock(0, -500).delay_ms(10_000) == 10_005


# Quarantine


def test_a_node_without_memory_waits_for_a_quorum_and_two_heights():
    members = (0, 1, 2, 3)

    assert quarantine.voting_from(3, members, {0: 9}, 9) is None
    assert quarantine.voting_from(3, members, {0: 9, 2: 10}, 9) is None
    assert quarantine.voting_from(3, members, {0: 9, 3: 9}, 9) is None
    assert quarantine.voting_from(3, members, {0: 9, 1: 3}, 9) == 11
    assert quarantine.voting_from(4, members, {0: 9, 1: 3}, 9) is None
