"""A LevelDB folder with a hole is never opened: what is there is a beginning of what was."""

import shutil

import plyvel
import pytest

from ledger.errors import StoreDamagedError
from ledger.store.leveldb import LevelStore

BATCHES = 60
ROWS = 40


def rows_of(batch):
    return [(b"key %06d" % (batch * ROWS + row), b"%d" % row * 60) for row in range(ROWS)]


def write(folder, first, last, **options):
    """Synced batches, with tables so small that there are several of them and several edits."""
    settings = {"compression": None, "write_buffer_size": 65_536, "max_file_size": 2**20}
    database = plyvel.DB(str(folder), create_if_missing=True, **{**settings, **options})
    for batch in range(first, last):
        with database.write_batch(transaction=True, sync=True) as writing:
            for key, value in rows_of(batch):
                writing.put(key, value)
    database.close()


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "store"
    write(folder, 0, BATCHES)
    assert len(list(folder.glob("*.ldb"))) > 1
    return folder


def batches_in(folder):
    """How many batches a store holds from the first on; None when it was refused."""
    try:
        store = LevelStore(folder)
    except StoreDamagedError:
        return None
    try:
        found = list(store.scan(b"", b"\xff", reverse=False))
    finally:
        store.close()
    assert found == [row for batch in range(len(found) // ROWS) for row in rows_of(batch)]
    return len(found) // ROWS


def test_an_untouched_folder_is_whole(original, tmp_path):
    shutil.copytree(original, tmp_path / "store")
    assert batches_in(tmp_path / "store") == BATCHES


def test_a_descriptor_that_is_cut_anywhere_is_refused_or_harmless(original, tmp_path):
    (manifest,) = original.glob("MANIFEST-*")
    outcomes = set()
    for kept in range(0, manifest.stat().st_size, 37):
        folder = tmp_path / f"store{kept}"
        shutil.copytree(original, folder)
        with (folder / manifest.name).open("r+b") as file:
            file.truncate(kept)
        outcomes.add(batches_in(folder))
        shutil.rmtree(folder)
    # A torn last edit may be one that only merged tables: then nothing is missing.
    assert None in outcomes
    assert outcomes <= {None, BATCHES}


def test_any_file_that_is_missing_or_has_another_length_is_refused(original, tmp_path):
    names = [
        path.name for path in original.iterdir() if path.name not in {"LOCK", "LOG", "LOG.old"}
    ]
    for name in names:
        for kept in (None, 0, 10):
            if name.endswith(".log") and kept is not None:
                continue  # A torn end of the newest log: the comparison of heights sees it.
            folder = tmp_path / f"{name}{kept}"
            shutil.copytree(original, folder)
            (folder / name).unlink()
            if kept is not None:
                (folder / name).write_bytes((original / name).read_bytes()[:kept])
            before = {path.name: path.read_bytes() for path in folder.iterdir()}
            assert batches_in(folder) is None, (name, kept)
            assert before == {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_newest_log_that_is_cut_loses_its_end_alone(original, tmp_path):
    (log,) = original.glob("*.log")
    found = []
    for kept in range(0, log.stat().st_size, 997):
        folder = tmp_path / f"store{kept}"
        shutil.copytree(original, folder)
        with (folder / log.name).open("r+b") as file:
            file.truncate(kept)
        found.append(batches_in(folder))
    assert found == sorted(found)
    assert found[0] < BATCHES


def test_an_older_log_that_is_cut_is_refused(tmp_path):
    """A crash while a table was written leaves two logs; the older one must be whole."""
    folder, later = tmp_path / "store", tmp_path / "later"
    write(folder, 0, 3, write_buffer_size=2**20)
    (older,) = folder.glob("*.log")
    shutil.copytree(folder, later)
    write(later, 3, 6, write_buffer_size=2**20)
    (newer,) = later.glob("*.log")
    shutil.copy(newer, folder / newer.name)
    shutil.copytree(folder, tmp_path / "both")
    assert batches_in(tmp_path / "both") == 6
    content = older.read_bytes()
    for kept in (0, len(content) // 3, len(content) - 1):
        older.write_bytes(content[:kept])
        with pytest.raises(StoreDamagedError, match=f"{older.name}: writes .* are missing"):
            LevelStore(folder)
        assert (folder / newer.name).read_bytes() == newer.read_bytes()
