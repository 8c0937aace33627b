"""One suite for every store: ordered, atomic, durable; and LevelDB never gives wrong data."""

import os
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import InvariantError, UnavailableError
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from ledger.store.memory import MemoryBodies, MemoryStore
from ledger.store.port import Place

PAIRS = [(f"key {number:04d}".encode(), bytes([number % 256]) * 100) for number in range(2_000)]
KEYS = st.binary(min_size=0, max_size=3)
BATCHES = st.lists(
    st.lists(st.tuples(KEYS, st.none() | st.binary(max_size=4)), max_size=8), max_size=5
)


@pytest.fixture(params=["memory", "level"])
def store(request, tmp_path):
    one = MemoryStore() if request.param == "memory" else LevelStore(tmp_path / "store")
    yield one
    one.close()


def scan(store, start, stop, *, reverse=False):
    return list(store.scan(start, stop, reverse=reverse))


def test_a_write_is_read_back_and_deleted(store):
    store.write([(b"a", b"1"), (b"b", b""), (b"c", b"3")])
    store.write([(b"a", b"2"), (b"c", None), (b"absent", None)])
    assert [store.get(key) for key in (b"a", b"b", b"c", b"absent")] == [b"2", b"", None, None]


def test_within_one_batch_the_last_write_of_a_key_holds(store):
    store.write([(b"a", b"1"), (b"a", None), (b"b", None), (b"b", b"2")])
    assert [store.get(b"a"), store.get(b"b")] == [None, b"2"]


@pytest.mark.parametrize(
    ("start", "stop", "expected"),
    [
        (b"a", b"c", [b"a", b"b"]),
        (b"a", b"b", [b"a"]),
        (b"b", b"b", []),
        (b"c", b"a", []),
        (b"", b"\xff", [b"a", b"b", b"c", b"c\x00"]),
        (b"bb", b"c\x00", [b"c"]),
        (b"c\x00", b"z", [b"c\x00"]),
        (b"d", b"z", []),
    ],
)
def test_a_scan_has_its_start_and_not_its_stop_in_both_directions(store, start, stop, expected):
    store.write([(key, key) for key in (b"c", b"a", b"c\x00", b"b")])
    pairs = [(key, key) for key in expected]
    assert scan(store, start, stop) == pairs
    assert scan(store, start, stop, reverse=True) == pairs[::-1]


def test_a_scan_may_be_left_early(store):
    store.write(PAIRS)
    assert next(iter(store.scan(b"", b"\xff", reverse=True))) == PAIRS[-1]
    assert next(iter(store.scan(b"", b"\xff", reverse=False))) == PAIRS[0]


@settings(max_examples=60, deadline=None)
@given(BATCHES, st.lists(st.tuples(KEYS, KEYS), max_size=4))
def test_both_stores_answer_alike(tmp_path_factory, batches, ranges):
    level = LevelStore(tmp_path_factory.mktemp("alike") / "store")
    memory = MemoryStore()
    try:
        for batch in batches:
            level.write(batch)
            memory.write(batch)
        for start, stop in [*ranges, (b"", b"\xff" * 4)]:
            for reverse in (False, True):
                found = scan(level, start, stop, reverse=reverse)
                assert found == scan(memory, start, stop, reverse=reverse)
    finally:
        level.close()


def test_what_was_written_is_there_after_opening_anew(tmp_path):
    first = LevelStore(tmp_path / "store")
    first.write(PAIRS)
    first.close()
    again = LevelStore(tmp_path / "store")
    assert scan(again, b"", b"\xff") == PAIRS
    again.close()


def test_a_folder_in_use_is_refused_with_advice(tmp_path):
    first = LevelStore(tmp_path / "store")
    with pytest.raises(UnavailableError, match="another node using this data folder"):
        LevelStore(tmp_path / "store")
    first.write([(b"a", b"1")])
    assert first.get(b"a") == b"1"
    first.close()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UnavailableError):
        LevelStore(tmp_path / "file" / "store")


def damaged(folder, suffix, position):
    """Flip one bit of the largest file with this suffix, at a fraction of its length."""
    path = max(folder.glob(f"*{suffix}"), key=lambda one: one.stat().st_size)
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * position), len(data) - 1)] ^= 0x10
    path.write_bytes(data)


@pytest.mark.parametrize("position", [0.0, 0.1, 0.35, 0.5, 0.77, 0.9, 0.999])
@pytest.mark.parametrize("suffix", [".log", ".ldb", "MANIFEST*"])
def test_a_flipped_bit_is_named_and_never_becomes_data(tmp_path, suffix, position):
    folder = tmp_path / "store"
    store = LevelStore(folder)
    store.write(PAIRS)
    store.close()
    if suffix == ".ldb":  # Opening moves the log into a table.
        LevelStore(folder).close()
    damaged(folder, suffix, position)
    read = []
    with pytest.raises(InvariantError, match="damaged"):
        again = LevelStore(folder)
        try:
            read += again.scan(b"", b"\xff", reverse=False)
            # A bit in an index or filter block harms no value; every value must then be right.
            read += [(key, again.get(key)) for key, _ in PAIRS]
            if read == [*PAIRS, *PAIRS]:
                raise InvariantError("damaged, but not where data is")
        finally:
            again.close()
    known = dict(PAIRS)
    assert all(known[key] == value for key, value in read)


@pytest.mark.parametrize("missing", ["CURRENT", "MANIFEST*", "*.ldb"])
def test_a_missing_file_is_refused_and_nothing_is_repaired(tmp_path, missing):
    folder = tmp_path / "store"
    store = LevelStore(folder)
    store.write(PAIRS)
    store.close()
    LevelStore(folder).close()
    (path,) = folder.glob(missing)
    path.unlink()
    with pytest.raises((InvariantError, UnavailableError)):
        again = LevelStore(folder)
        try:
            assert scan(again, b"", b"\xff") == PAIRS
        finally:
            again.close()


@pytest.fixture(params=["memory", "files"])
def bodies(request, tmp_path):
    one = MemoryBodies() if request.param == "memory" else BodyFiles(tmp_path / "bodies")
    yield one
    one.close()


def test_bodies_are_found_where_they_were_put(bodies):
    wires = [b"", b"one", b"two" * 1_000, b"one"]
    places = [bodies.append(wire) for wire in wires]
    assert [bodies.read(place) for place in places] == wires
    bodies.sync()
    assert [bodies.read(place) for place in places] == wires


def test_bodies_stay_across_openings_and_each_opening_begins_a_segment(tmp_path):
    first = BodyFiles(tmp_path)
    place = first.append(b"first")
    first.sync()
    first.close()
    second = BodyFiles(tmp_path)
    later = second.append(b"later")
    assert (second.read(place), second.read(later)) == (b"first", b"later")
    assert (place, later) == (
        Place(1, 0, 5, zlib.crc32(b"first")),
        Place(2, 0, 5, zlib.crc32(b"later")),
    )
    second.close()


def test_a_body_that_was_cut_off_is_not_found(tmp_path):
    first = BodyFiles(tmp_path)
    kept, cut = first.append(b"kept"), first.append(b"cut off")
    first.close()
    (path,) = tmp_path.glob("*.bodies")
    os.truncate(path, 8)
    again = BodyFiles(tmp_path)
    assert (again.read(kept), again.read(cut)) == (b"kept", None)
    again.close()


def test_a_segment_that_is_gone_is_named(tmp_path):
    first = BodyFiles(tmp_path)
    place = first.append(b"body")
    first.close()
    (path,) = tmp_path.glob("*.bodies")
    path.unlink()
    again = BodyFiles(tmp_path / "other")
    with pytest.raises(InvariantError, match="gone"):
        again.read(Place(9, 0, place.length, place.checksum))
    again.close()


def test_a_snapshot_shows_what_was_there(store):
    store.write([(b"a", b"1"), (b"b", b"2")])
    before = store.snapshot()
    store.write([(b"a", b"3"), (b"b", None), (b"c", b"4")])
    assert [before.get(key) for key in (b"a", b"b", b"c")] == [b"1", b"2", None]
    assert scan(before, b"", b"z") == [(b"a", b"1"), (b"b", b"2")]
    assert scan(before, b"", b"z", reverse=True) == [(b"b", b"2"), (b"a", b"1")]
    before.close()
    assert scan(store, b"", b"z") == [(b"a", b"3"), (b"c", b"4")]


def test_a_snapshot_is_not_written(tmp_path):
    store = LevelStore(tmp_path / "store")
    snapshot = store.snapshot()
    for forbidden in (lambda: snapshot.write([(b"a", b"1")]), snapshot.snapshot):
        with pytest.raises(InvariantError, match="a snapshot of a"):
            forbidden()
    snapshot.close()
    store.close()
