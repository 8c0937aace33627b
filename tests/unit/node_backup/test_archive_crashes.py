"""A crash after any operation of the disk leaves a whole backup, or one that is refused by name."""

from pathlib import Path

import pytest

from ledger.errors import Reason, Rejected, UnavailableError
from ledger.store import archive_files
from ledger.store.archive import MANIFEST_FILE
from ledger.store.archive_files import check_chunk, read_manifest
from tests.crash.disk import DATA, History, OpenFile, RecordingDisk, Wreck

from .backups import grown, keep

FOLDER = Path("backup")


@pytest.fixture(autouse=True)
def _small_pieces(monkeypatch):
    monkeypatch.setattr(archive_files, "CHUNK_BYTES", 3_000)
    monkeypatch.setattr(archive_files, "_PIECE_BYTES", 700)


def found(files):
    """The manifest of what a crash left, or why it is refused."""
    disk = RecordingDisk(History(), files)
    try:
        manifest = read_manifest(FOLDER, disk)
        for chunk in manifest.chunks:
            check_chunk(FOLDER, chunk, disk)
    except Rejected as refusal:
        return refusal.reason
    return manifest


def test_a_crash_anywhere_leaves_a_whole_backup_or_a_half_finished_one():
    history, wreck = History(), Wreck()
    made = keep(grown(5), FOLDER, RecordingDisk(history))
    assert len(made.chunks) > 1
    images, whole = 0, 0
    for operation in history.operations:
        wreck.follow(operation)
        for kept in DATA:
            for names in (True, False):
                left = found(wreck.image(kept, names=names).files)
                assert left in (Reason.HALF_FINISHED, made)
                images, whole = images + 1, whole + (left == made)
    assert images > 200
    assert 0 < whole < images
    assert not wreck.is_pending, "what is reported as made is durable"


def test_the_manifest_is_the_last_name_and_all_others_are_durable_before():
    """A disk may keep one name and lose another: then the manifest would name what is gone."""
    history = History()
    keep(grown(5), FOLDER, RecordingDisk(history))
    done = [
        (item[0], *item[2:]) if item[0] == "replace" else item[:2] for item in history.operations
    ]
    chunk_names = [n for n, item in enumerate(done) if item[0] == "create"][-2]
    assert ("sync_folder", FOLDER) in done[chunk_names:-2]
    assert done[-2:] == [("replace", FOLDER / MANIFEST_FILE), ("sync_folder", FOLDER)]


class FullFile(OpenFile):
    def write(self, data, offset):
        if len(self.history.operations) > 6:
            raise OSError(28, "No space left on device")
        super().write(data, offset)


class FullDisk(RecordingDisk):
    def open(self, path, *, writing):
        file = super().open(path, writing=writing)
        return FullFile(file.history, file.number, file.data)


def test_a_disk_that_is_full_ends_the_backup_by_name():
    history = History()
    with pytest.raises(UnavailableError, match="No space left"):
        keep(grown(5), FOLDER, FullDisk(history))
    wreck = Wreck()
    for operation in history.operations:
        wreck.follow(operation)
    assert found(wreck.image("all", names=True).files) == Reason.HALF_FINISHED
