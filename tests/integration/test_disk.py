"""The disk port on the operating system, and what the stores make of its failures."""

import errno
from pathlib import Path

import pytest

from ledger.errors import UnavailableError
from ledger.store.bodies import BodyFiles
from ledger.store.disk import OPERATING_SYSTEM_DISK, OperatingSystemDisk, OperatingSystemFile


def test_a_file_is_written_anywhere_and_read_back(tmp_path):
    file = OPERATING_SYSTEM_DISK.create(tmp_path / "a")
    file.write(b"later", 10)
    file.write(b"first", 0)
    file.sync()
    assert (file.size(), file.read(99, 0)) == (15, b"first\0\0\0\0\0later")
    assert (file.read(3, 11), file.read(9, 15)) == (b"ate", b"")
    file.truncate(5)
    assert file.read(99, 0) == b"first"
    file.close()
    again = OPERATING_SYSTEM_DISK.open(tmp_path / "a", writing=False)
    with pytest.raises(OSError, match="Bad file descriptor"):
        again.write(b"x", 0)
    again.close()


def test_reserved_room_reads_as_zeros_and_nothing_written_is_lost(tmp_path):
    file = OPERATING_SYSTEM_DISK.create(tmp_path / "a")
    file.write(b"data", 0)
    file.reserve(8_192)
    assert (file.size(), file.read(6, 0)) == (8_192, b"data\0\0")
    file.close()


def test_a_new_file_is_private_and_never_an_old_one(tmp_path):
    OPERATING_SYSTEM_DISK.create(tmp_path / "a").close()
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError):
        OPERATING_SYSTEM_DISK.create(tmp_path / "a")


def test_names_are_listed_replaced_and_removed(tmp_path):
    for name in "bca":
        OPERATING_SYSTEM_DISK.create(tmp_path / name).close()
    OPERATING_SYSTEM_DISK.replace(tmp_path / "c", tmp_path / "a")
    OPERATING_SYSTEM_DISK.remove(tmp_path / "b")
    OPERATING_SYSTEM_DISK.sync_folder(tmp_path)
    assert OPERATING_SYSTEM_DISK.names(tmp_path) == ["a"]
    assert not OPERATING_SYSTEM_DISK.exists(tmp_path / "c")


def test_every_new_folder_is_durable_in_the_one_above(tmp_path):
    class Counting(OperatingSystemDisk):
        synced: list[Path]

        def sync_folder(self, folder):
            self.synced.append(folder)
            super().sync_folder(folder)

    disk = Counting()
    disk.synced = []
    disk.create_folder(tmp_path / "a" / "b")
    disk.create_folder(tmp_path / "a" / "b")
    assert disk.synced == [tmp_path, tmp_path / "a"]


def test_a_write_that_is_cut_short_is_a_full_disk():
    file = OPERATING_SYSTEM_DISK.open(Path("/dev/full"), writing=True)
    with pytest.raises(OSError, match=r"(?i)space|short") as full:
        file.write(b"data", 0)
    assert full.value.errno == errno.ENOSPC
    file.close()


def test_a_failed_sync_of_bodies_is_final(tmp_path):
    """The system may have dropped the pages, and the next sync would not say so."""

    class Broken(OperatingSystemFile):
        fails = True

        def sync(self):
            if self.fails:
                self.fails = False
                raise OSError(errno.EIO, "input/output error")

    files = BodyFiles(tmp_path)
    files._writer = Broken(files._writer._descriptor)
    files.append(b"body")
    for _ in range(2):
        with pytest.raises(UnavailableError):
            files.sync()
    files.close()
