"""Every damage of a real store has a name, changes nothing, and is made good by a rebuild."""

import functools
import shutil

import msgspec
import pytest
import trio

from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import encode
from ledger.errors import KanglianError, StoreDamagedError, UnavailableError
from ledger.store.blocks import BlockStore, StoredBlock
from ledger.store.descriptor import DescriptorError, check_continuity, read_descriptor
from ledger.store.leveldb import LevelStore
from ledger.store.port import Place
from node.damage import MARK_FILE, marked
from node.log_entries import EndedHeight, LoggedBatch
from node.rebuild import rebuild_blocks, rebuild_state, scrub_stores
from node.wal import WriteAheadLog
from tests.integration.real_chains import DiskChain, grow, numbered_batch
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import GENESIS, certify, facts

HEIGHTS = 12


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A data folder of three lives, so that both stores have tables and a log."""
    folder = tmp_path_factory.mktemp("original") / "data"
    for first in (1, 5, 9):
        grow(folder, first, first + 3)
    return folder


@pytest.fixture(scope="module")
def expected(original, tmp_path_factory):
    copy = tmp_path_factory.mktemp("expected") / "data"
    shutil.copytree(original, copy)
    with DiskChain(copy) as chain:
        return facts(chain)


@pytest.fixture
def data(original, tmp_path):
    shutil.copytree(original, tmp_path / "data")
    return tmp_path / "data"


def quiet(_done, _total):
    """Progress nobody watches."""


def largest(folder, pattern):
    return max(folder.glob(pattern), key=lambda one: one.stat().st_size)


def flip(fraction):
    def damage(path):
        content = bytearray(path.read_bytes())
        content[int(len(content) * fraction)] ^= 0x10
        path.write_bytes(content)

    return damage


def cut(fraction):
    def damage(path):
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * fraction))

    return damage


def remove(path):
    path.unlink()


CASES = [
    (store, pattern, name, damage)
    for store in ("blocks", "state")
    for pattern in ("*.ldb", "*.log", "MANIFEST-*", "CURRENT")
    for name, damage in (
        ("a bit at the start", flip(0.0)),
        ("a bit in the middle", flip(0.5)),
        ("cut to nothing", cut(0.0)),
        ("cut in half", cut(0.5)),
        ("cut near the end", cut(0.9)),
        ("missing", remove),
    )
    # The last block of state alone is what a crash takes as well: it is executed again.
    if (store, pattern, name) != ("state", "*.log", "cut near the end")
] + [
    ("bodies", "*.bodies", name, damage)
    for name, damage in (
        ("a bit in the middle", flip(0.5)),
        ("cut to nothing", cut(0.0)),
        ("cut in half", cut(0.5)),
        ("missing", remove),
    )
]


def start_and_check(data):
    """A start, and a full scrub; what the chain says if neither found anything."""
    with DiskChain(data) as chain:
        found = facts(chain)
    scrub_stores(data, GENESIS, quiet)
    return found


@pytest.mark.parametrize(
    ("store", "pattern", "damage"),
    [(store, pattern, damage) for store, pattern, _, damage in CASES],
    ids=[f"{store} {pattern} {name}" for store, pattern, name, _ in CASES],
)
def test_damage_is_named_and_left_as_it_is(data, store, pattern, damage):
    victim = largest(data / store, pattern)
    damage(victim)
    left = victim.read_bytes() if victim.exists() else None
    with pytest.raises(StoreDamagedError) as stop:
        start_and_check(data)
    assert stop.value.rebuild == ("state" if store == "state" else "blocks")
    assert f"--store {stop.value.rebuild}" in str(stop.value)
    with pytest.raises(StoreDamagedError):
        start_and_check(data)
    # LevelDB takes a log that is cut for one that a crash tore, and begins another.
    if not (pattern == "*.log" and left is not None):
        assert (victim.read_bytes() if victim.exists() else None) == left


@pytest.mark.parametrize("store", ["blocks", "state"])
def test_a_descriptor_or_log_cut_anywhere_is_named_or_harmless(original, expected, store, tmp_path):
    """LevelDB opens most of these, some with a hole in the middle."""
    named = 0
    for pattern in ("MANIFEST-*", "*.log"):
        length = largest(original / store, pattern).stat().st_size
        for kept in range(0, length, max(1, length // 40)):
            data = tmp_path / f"{pattern[:1]}{kept}"
            shutil.copytree(original, data)
            with largest(data / store, pattern).open("r+b") as file:
                file.truncate(kept)
            try:
                assert start_and_check(data) == expected
            except StoreDamagedError:
                named += 1
            shutil.rmtree(data)
    assert named > 60


def test_a_whole_folder_that_is_gone_is_named(data):
    for store in ("blocks", "state"):
        (data / store).rename(data / "away")
        with pytest.raises(StoreDamagedError, match="lost") as stop:
            start_and_check(data)
        assert stop.value.store == store
        shutil.rmtree(data / store)
        (data / "away").rename(data / store)
    with pytest.raises(StoreDamagedError, match="folder is missing"):
        scrub_stores(data / "nowhere", GENESIS, quiet)


def test_damage_names_the_table_that_may_hold_the_key(tmp_path):
    folder = tmp_path / "store"
    for name in ("a", "b"):
        store = LevelStore(folder)
        store.write([(f"{name}{number}".encode(), bytes(100)) for number in range(10)])
        store.close()
    LevelStore(folder).close()
    first, second = sorted(folder.glob("*.ldb"))
    assert read_descriptor(folder).tables_with(b"a5") == [first.name]
    assert read_descriptor(folder).tables_with(b"b5") == [second.name]
    assert read_descriptor(folder).tables_with(b"c") == []
    flip(0.3)(second)
    store = LevelStore(folder)
    assert store.get(b"a5") == bytes(100)
    with pytest.raises(StoreDamagedError, match=f"the store store is damaged: {second.name}"):
        store.get(b"b5")
    with pytest.raises(StoreDamagedError, match="behind key"):
        list(store.scan(b"a", b"c", reverse=False))
    store.close()


def test_a_descriptor_that_is_no_descriptor_is_named(tmp_path):
    (tmp_path / "CURRENT").write_bytes(b"MANIFEST-000001\n")
    manifest = tmp_path / "MANIFEST-000001"
    for payload in (b"\x63", b"\x01\x7fshort", b"\x02\x80"):
        head = len(payload).to_bytes(2, "little") + b"\x01"
        manifest.write_bytes(bytes(4) + head + payload)
        with pytest.raises(DescriptorError, match="MANIFEST-000001"):
            check_continuity(tmp_path)


def test_the_state_is_rebuilt_from_the_own_blocks(data, expected):
    flip(0.5)(largest(data / "state", "*.ldb"))
    before = sorted(path.name for path in (data / "state").iterdir())
    seen = []
    done = trio.run(rebuild_state, data, GENESIS, lambda *step: seen.append(step))
    assert (done.store, done.height, done.voting_from) == ("state", HEIGHTS, 0)
    assert seen == [(height, HEIGHTS) for height in range(1, HEIGHTS + 1)]
    assert start_and_check(data) == expected
    assert sorted(path.name for path in (data / "damaged-1/state").iterdir()) == before


def test_an_interrupted_rebuild_leaves_the_old_state_and_goes_on(data, expected):
    shutil.rmtree(data / "state")

    def interrupt(done, _total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trio.run(rebuild_state, data, GENESIS, interrupt)
    with pytest.raises(StoreDamagedError, match="state is lost"):
        DiskChain(data)
    shutil.rmtree(data / "state")
    seen = []
    trio.run(rebuild_state, data, GENESIS, lambda done, _total: seen.append(done))
    assert seen == list(range(6, HEIGHTS + 1))
    assert start_and_check(data) == expected


def test_blocks_that_are_damaged_as_well_end_the_rebuild_of_state(data):
    flip(0.5)(largest(data / "bodies", "*.bodies"))
    with pytest.raises(StoreDamagedError) as stop:
        trio.run(rebuild_state, data, GENESIS, quiet)
    assert stop.value.store == "bodies"
    assert not (data / "damaged-1").exists()


@pytest.mark.parametrize("field", ["certificate", "state_root", "replay_root", "previous_hash"])
def test_a_state_is_not_rebuilt_from_a_block_that_nobody_decided_or_that_lies(data, field):
    """Where the header lies, the certificate is right: the header alone is against it."""
    height = 6
    store = LevelStore(data / "blocks")
    blocks = BlockStore(store, None)
    stored = blocks.block(height)
    block, certificate = BLOCK.decode(stored.block), certify(bytes(32), height)
    if field != "certificate":
        header = msgspec.structs.replace(HEADER.decode(block.header), **{field: bytes(32)})
        block = msgspec.structs.replace(block, header=encode(header))
        certificate = certify(block_hash(block.header, SUITE), height)
    forged = StoredBlock(encode(block), certificate)
    store.write([(b"h" + height.to_bytes(8, "big"), encode(forged))])
    store.close()
    with pytest.raises(StoreDamagedError, match=f"height {height}") as stop:
        trio.run(rebuild_state, data, GENESIS, quiet)
    assert stop.value.store == "blocks"


def write_log(data, *entries):
    log = WriteAheadLog(data / "consensus.wal")
    for entry in entries:
        log.append(entry)
    log.sync()
    log.close()


def test_lost_blocks_are_refused_until_the_log_says_that_they_may_be(data):
    digest = b"\x07" * 32
    own = LoggedBatch(digest, Place(1, 0, 1, 0), 8)
    write_log(data, EndedHeight(HEIGHTS, 7, bytes(32)), own)
    for store in ("blocks", "state", "bodies"):
        shutil.rmtree(data / store)

    def start():
        log = WriteAheadLog(data / "consensus.wal")
        try:
            with DiskChain(data, log) as chain:
                return chain.tip.height, log.recovered.ended, log.recovered.entries
        finally:
            log.close()

    with pytest.raises(StoreDamagedError, match="the log ended height 12: blocks are lost"):
        start()
    for _ in range(2):  # A second rebuild, after a first that was not finished, changes nothing.
        done = rebuild_blocks(data, GENESIS)
        assert (done.height, done.voting_from) == (0, HEIGHTS + 5)
        assert start() == (0, EndedHeight(0, 9, digest, HEIGHTS + 5), [])


def test_a_rebuild_of_blocks_sets_everything_aside(data):
    write_log(data, EndedHeight(HEIGHTS, 7, bytes(32)))
    before = {path.relative_to(data) for path in data.rglob("*") if path.is_file()}
    rebuild_blocks(data, GENESIS)
    aside = data / "damaged-1"
    after = {path.relative_to(aside) for path in aside.rglob("*") if path.is_file()}
    assert {path for path in before if path.name != "consensus.wal"} == after
    assert sorted(path.name for path in data.iterdir()) == ["consensus.wal", "damaged-1"]


def test_a_running_node_is_not_rebuilt(data):
    with DiskChain(data):
        for attempt in (
            functools.partial(rebuild_blocks, data, GENESIS),
            functools.partial(trio.run, rebuild_state, data, GENESIS, quiet),
            functools.partial(scrub_stores, data, GENESIS, quiet),
        ):
            with pytest.raises(UnavailableError):
                attempt()
    assert not (data / "damaged-1").exists()


def test_damage_found_while_running_is_remembered_until_it_is_made_good(data, expected):
    def find_damage():
        with marked(data):
            found = StoreDamagedError("state", "000005.ldb", "block checksum mismatch")
            raise ExceptionGroup("nursery", [ExceptionGroup("inner", [found])])

    with pytest.raises(ExceptionGroup):
        find_damage()
    with pytest.raises(StoreDamagedError, match=r"000005\.ldb: block checksum mismatch"):
        DiskChain(data)
    trio.run(rebuild_state, data, GENESIS, quiet)
    assert (data / "damaged-1" / MARK_FILE).exists()
    assert start_and_check(data) == expected


def test_a_clean_scrub_takes_the_mark_away_and_other_errors_leave_none(data):
    with pytest.raises(KanglianError), marked(data):
        raise UnavailableError("the disk is full")
    assert not (data / MARK_FILE).exists()
    (data / MARK_FILE).write_bytes(b"{")
    with pytest.raises(StoreDamagedError, match="cannot be read itself"):
        DiskChain(data)
    assert scrub_stores(data, GENESIS, quiet) == HEIGHTS
    with DiskChain(data) as chain:
        chain.decide(numbered_batch(HEIGHTS + 1))
