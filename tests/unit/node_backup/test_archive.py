"""A backup is whole or refused: every byte of it, every file, and what a crash leaves."""

import shutil

import msgspec
import pytest

from ledger.errors import Reason, Rejected
from ledger.store import archive_files
from ledger.store.archive import MANIFEST_FILE
from ledger.store.archive_files import check_chunk, read_manifest
from node.restore import open_backup
from tests.crash.disk import History, RecordingDisk
from tests.unit.node_core.chains import GENESIS, LocalChain

from .backups import CREATED_MS, grown, keep, quiet, replayed


@pytest.fixture(scope="module")
def chain():
    return grown(4)


@pytest.fixture(scope="module")
def small_chunks():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_files, "CHUNK_BYTES", 2_500)
        yield


@pytest.fixture(scope="module")
def original(chain, small_chunks, tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "backup"
    keep(chain, folder)
    return folder


@pytest.fixture
def backup(original, tmp_path):
    shutil.copytree(original, tmp_path / "backup")
    return tmp_path / "backup"


def test_a_backup_leads_to_the_same_state(chain, backup):
    found = replayed(backup)
    assert found.tip == chain.writer.tip
    assert (found.transactions, found.operations) == (6, 6)
    assert found.manifest == read_manifest(backup)
    assert found.manifest.created_ms == CREATED_MS


def test_chunks_hold_consecutive_heights_and_end_behind_their_size(original):
    chunks = read_manifest(original).chunks
    assert [(one.first_height, one.last_height, one.batches) for one in chunks] == [
        (1, 2, 2),
        (3, 4, 1),
    ]
    assert [one.size for one in chunks] == [(original / one.file).stat().st_size for one in chunks]
    assert sorted(path.name for path in original.iterdir()) == [
        "00000001.chunk",
        "00000002.chunk",
        MANIFEST_FILE,
    ]


def refused(folder):
    """How a backup is refused before anything in it is executed."""
    with pytest.raises(Rejected) as refusal:
        open_backup(folder, GENESIS, quiet)
    return refusal.value


def test_every_flipped_byte_of_every_file_is_refused_by_the_name_of_the_file(original):
    """In memory, for there are thousands."""
    files = {path: path.read_bytes() for path in sorted(original.iterdir())}
    disk = RecordingDisk(History(), files)
    for path, content in files.items():
        held = disk.data[disk.numbers[path]]
        for position in range(len(content)):
            held[position] ^= 1 << position % 8
            with pytest.raises(Rejected) as refusal:
                check_files(original, disk)
            assert refusal.value.reason == Reason.BAD_BACKUP
            assert refusal.value.facts == {"file": path.name}
            held[position] = content[position]
    check_files(original, disk)


def check_files(folder, disk):
    for chunk in read_manifest(folder, disk).chunks:
        check_chunk(folder, chunk, disk)


def test_a_file_that_is_cut_off_or_longer_anywhere_is_refused_by_its_name(backup):
    for path in sorted(backup.iterdir()):
        content = path.read_bytes()
        lengths = {0, 1, len(content) // 2, len(content) - 1}
        for changed in [content[:length] for length in sorted(lengths)] + [content + b"\0"]:
            path.write_bytes(changed)
            refusal = refused(backup)
            assert (refusal.reason, refusal.facts) == (Reason.BAD_BACKUP, {"file": path.name})
        path.write_bytes(content)


def test_a_missing_chunk_and_a_foreign_file_are_named(backup):
    (backup / "00000002.chunk").rename(backup / "00000003.chunk")
    assert str(refused(backup)) == "bad_backup: a file is missing: file=00000002.chunk"
    (backup / "00000003.chunk").rename(backup / "00000002.chunk")
    (backup / "manifest.unfinished").touch()
    assert refused(backup).facts == {"file": "manifest.unfinished"}


def test_chunks_in_another_order_are_refused(backup):
    first, second = backup / "00000001.chunk", backup / "00000002.chunk"
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)
    assert refused(backup).facts == {"file": "00000001.chunk"}


def test_a_backup_without_a_manifest_was_never_finished(backup):
    (backup / MANIFEST_FILE).unlink()
    assert refused(backup).reason == Reason.HALF_FINISHED


def test_a_backup_of_another_chain_is_refused(backup):
    other = msgspec.structs.replace(GENESIS, chain_name="Another")
    with pytest.raises(Rejected, match="A chain in memory") as refusal:
        open_backup(backup, other, quiet)
    assert refusal.value.reason == Reason.WRONG_CHAIN


def test_a_folder_that_holds_anything_is_not_written_into(chain, tmp_path):
    (tmp_path / "letters.txt").write_text("precious")
    with pytest.raises(Rejected, match=r"letters\.txt") as refusal:
        keep(chain, tmp_path)
    assert refusal.value.reason == Reason.OCCUPIED
    assert [path.name for path in tmp_path.iterdir()] == ["letters.txt"]


def test_a_chain_without_blocks_gives_no_backup(tmp_path):
    with pytest.raises(Rejected, match="no block yet"):
        keep(LocalChain(), tmp_path)
