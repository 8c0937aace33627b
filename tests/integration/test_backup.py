"""Backups of real stores: made of a node that stands or runs, restored, interrupted, refused."""

import os
import shutil
import socket
import threading
from contextlib import ExitStack, suppress
from types import SimpleNamespace

import msgspec
import pytest
import trio

from ledger.errors import Reason, Rejected, StoreDamagedError, UnavailableError
from ledger.store import archive_files
from ledger.store.blocks import BlockStore
from node import backup_channel, restore
from node.backup import create_backup
from node.backup_channel import BackupChannel
from node.damage import MARK_FILE as DAMAGE_FILE
from node.folder_lock import FolderInUseError, locked
from node.limits import BACKUP_STREAMS
from node.log_entries import Memory
from node.quarantine import gate_of
from node.restore import Watch, restore_backup, verify_backup
from node.restore_mark import MARK_FILE, refuse_unfinished
from node.wal import WriteAheadLog
from tests.integration.real_chains import DiskChain, grow, numbered_batch
from tests.unit.node_core.chains import CHAIN, GENESIS, VALIDATORS, facts

HEIGHTS = 8
NOW_MS = 1_760_000_000_000


def quiet(_done, _total):
    """Progress nobody watches."""


WATCH = Watch(quiet, quiet, quiet)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(archive_files, "CHUNK_BYTES", 20_000)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    folder = tmp_path_factory.mktemp("original") / "data"
    grow(folder, 1, 4)
    grow(folder, 5, HEIGHTS)
    return folder


@pytest.fixture
def data(original, tmp_path):
    shutil.copytree(original, tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture(scope="module")
def backup(original, tmp_path_factory):
    folder = tmp_path_factory.mktemp("kept")
    shutil.copytree(original, folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive_files, "CHUNK_BYTES", 20_000)
        create_backup(folder / "backup", folder / "data", GENESIS, NOW_MS, quiet)
    return folder / "backup"


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def started(data):
    """What the chain says that a node finds when it starts on a folder."""
    refuse_unfinished(data)
    with DiskChain(data) as chain:
        return facts(chain)


# ---- create -----------------------------------------------------------------------------------


def test_a_backup_of_a_stopped_node_leads_to_its_state(data, tmp_path):
    seen = []
    folder = tmp_path / "deep" / "backup"
    made = create_backup(folder, data, GENESIS, NOW_MS, lambda *step: seen.append(step))
    assert (made.height, made.created_ms, len(made.chunks) > 1) == (HEIGHTS, NOW_MS, True)
    assert seen == [(height, HEIGHTS) for height in range(1, HEIGHTS + 1)]
    found = verify_backup(folder, GENESIS, WATCH)
    with DiskChain(data) as chain:
        assert found.tip == chain.writer.tip
        assert (found.transactions, found.operations) == (80, 80)
        assert found.validators == VALIDATORS


def test_nothing_but_decided_blocks_is_in_a_backup(data, tmp_path):
    secrets = {name: os.urandom(32) for name in ("consensus.wal", "node.json", "evidence.json")}
    for name, secret in secrets.items():
        (data / name).write_bytes(secret)
    create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    kept = b"".join(content(tmp_path / "b").values())
    assert not any(secret in kept or secret.hex().encode() in kept for secret in secrets.values())
    assert str(tmp_path).encode() not in kept


def test_a_folder_without_a_chain_or_with_a_damaged_one_gives_no_backup(data, tmp_path):
    with pytest.raises(UnavailableError, match="there is no chain in"):
        create_backup(tmp_path / "b", tmp_path / "nowhere", GENESIS, NOW_MS, quiet)
    (data / DAMAGE_FILE).write_text('{"store":"state","where":"x","problem":"rotten"}')
    with pytest.raises(StoreDamagedError, match="rotten"):
        create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    assert not (tmp_path / "b").exists()


def test_a_body_that_rots_ends_a_backup_by_its_name(data, tmp_path):
    victim = max((data / "bodies").iterdir(), key=lambda path: path.stat().st_size)
    changed = bytearray(victim.read_bytes())
    changed[len(changed) // 2] ^= 1
    victim.write_bytes(changed)
    with pytest.raises(StoreDamagedError, match="rotten"):
        create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    with pytest.raises(Rejected) as refusal:
        verify_backup(tmp_path / "b", GENESIS, WATCH)
    assert refusal.value.reason == Reason.HALF_FINISHED


def test_a_disk_without_room_is_refused_before_anything_is_written(
    data, backup, tmp_path, monkeypatch
):
    usage = SimpleNamespace(total=1 << 40, used=0, free=1 << 20)
    monkeypatch.setattr("node.backup.shutil.disk_usage", lambda _folder: usage)
    for attempt in (
        lambda: create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet),
        lambda: verify_backup(backup, GENESIS, WATCH),
        lambda: restore_backup(backup, tmp_path / "new", GENESIS, NOW_MS, WATCH),
    ):
        with pytest.raises(UnavailableError, match="has 1 MiB left"):
            attempt()
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "in-use.lock"]


# ---- create, of a node that runs --------------------------------------------------------------


class Running:
    """The channel of a running node, in a thread that owns the folder; use it as a context."""

    def __init__(self, data, height=HEIGHTS):
        self.data, self.height = data, height
        self.failure = None
        self._opened = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self._thread.start()
        assert self._opened.wait(20)
        return self

    def __exit__(self, *_):
        with suppress(trio.RunFinishedError):
            self._token.run_sync_soon(self._scope.cancel)
        self._thread.join(20)

    def _run(self):
        with locked(self.data), DiskChain(self.data) as chain:
            try:
                trio.run(self._serve, chain.blocks)
            except* StoreDamagedError as group:
                self.failure = group

    async def _serve(self, blocks):
        self._token = trio.lowlevel.current_trio_token()
        channel = BackupChannel(self.data, CHAIN, blocks, lambda: self.height)
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            await nursery.start(channel.run)
            self._opened.set()


def slowly(monkeypatch, pause_ms):
    """A node that sends one record and rests."""
    monkeypatch.setattr(backup_channel, "BACKUP_STEP_BYTES", 1)
    monkeypatch.setattr(backup_channel, "BACKUP_PAUSE_MS", pause_ms)


def test_a_running_node_gives_the_same_bytes_as_a_stopped_one(data, backup, tmp_path):
    with Running(data):
        for number in range(2):
            create_backup(tmp_path / str(number), data, GENESIS, NOW_MS, quiet)
            assert content(tmp_path / str(number)) == content(backup)


def test_a_running_node_gives_what_it_has_executed_by_then(data, tmp_path):
    with Running(data, height=5):
        made = create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    assert made.height == 5
    assert verify_backup(tmp_path / "b", GENESIS, WATCH).tip.height == 5


def test_records_larger_than_a_step_and_many_small_blocks_arrive_whole(
    data, backup, tmp_path, monkeypatch
):
    monkeypatch.setattr(backup_channel, "BACKUP_STEP_BYTES", 500)
    monkeypatch.setattr(backup_channel, "BACKUP_STEP_BLOCKS", 3)
    with Running(data):
        create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    assert content(tmp_path / "b") == content(backup)


def test_only_the_user_of_the_node_is_served(data, tmp_path, monkeypatch):
    with Running(data):
        monkeypatch.setattr(backup_channel, "_ROOT", -1)
        monkeypatch.setattr(os, "geteuid", lambda: 4_242)
        with pytest.raises(UnavailableError, match="serves others or another user"):
            create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
    assert not (tmp_path / "b").exists()


def test_a_channel_that_another_user_holds_is_not_believed(data, tmp_path, monkeypatch):
    with Running(data):
        monkeypatch.setattr(backup_channel, "_user_of", lambda _credentials: 4_242)
        with pytest.raises(UnavailableError, match="does not own the folder"):
            create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)


def test_no_more_backups_than_the_limit_run_at_once(data, tmp_path, monkeypatch):
    slowly(monkeypatch, 10_000)
    with Running(data), ExitStack() as held:
        for _ in range(BACKUP_STREAMS):
            link = held.enter_context(socket.socket(socket.AF_UNIX))
            link.connect(backup_channel.channel_name(data))
            assert link.recv(1)
        with pytest.raises(UnavailableError, match="it serves others"):
            create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)


class Pruned(Running):
    """It begins later."""

    async def _serve(self, blocks):
        blocks.first = 4
        await super()._serve(blocks)


def test_a_node_without_its_first_blocks_is_refused(data, tmp_path, monkeypatch):
    opened = BlockStore.__init__

    def open_pruned(blocks, *stores):
        opened(blocks, *stores)
        blocks.first = 4

    with Pruned(data), pytest.raises(Rejected, match=r"pruned: .*whole chain.*lowest=4"):
        create_backup(tmp_path / "running", data, GENESIS, NOW_MS, quiet)
    monkeypatch.setattr(BlockStore, "__init__", open_pruned)
    with pytest.raises(Rejected, match=r"pruned: .*whole chain.*lowest=4"):
        create_backup(tmp_path / "stopped", data, GENESIS, NOW_MS, quiet)


def test_a_node_of_another_chain_is_refused(data, tmp_path):
    other = msgspec.structs.replace(GENESIS, chain_name="Another")
    with Running(data), pytest.raises(Rejected) as refusal:
        create_backup(tmp_path / "b", data, other, NOW_MS, quiet)
    assert refusal.value.reason == Reason.WRONG_CHAIN


def test_a_process_that_uses_the_folder_but_offers_no_backup_is_named(data, tmp_path):
    with locked(data), pytest.raises(UnavailableError, match="offers no backup"):
        create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)


def test_a_node_that_stops_in_the_middle_leaves_a_half_finished_backup(data, tmp_path, monkeypatch):
    slowly(monkeypatch, 100)
    running = Running(data)

    def stop(done, _total):
        if done == 3:
            running.__exit__()

    running.__enter__()
    with pytest.raises(UnavailableError, match="the node ended the backup"):
        create_backup(tmp_path / "b", data, GENESIS, NOW_MS, stop)
    with pytest.raises(Rejected) as refusal:
        verify_backup(tmp_path / "b", GENESIS, WATCH)
    assert refusal.value.reason == Reason.HALF_FINISHED


def test_damage_that_a_backup_finds_stops_the_node(data, tmp_path):
    victim = max((data / "bodies").iterdir(), key=lambda path: path.stat().st_size)
    changed = bytearray(victim.read_bytes())
    changed[len(changed) // 2] ^= 1
    victim.write_bytes(changed)
    with Running(data) as running:
        with pytest.raises(UnavailableError, match="the node ended the backup"):
            create_backup(tmp_path / "b", data, GENESIS, NOW_MS, quiet)
        running._thread.join(20)
    assert running.failure is not None


# ---- restore ----------------------------------------------------------------------------------


def test_a_restored_node_has_the_same_state_and_starts_in_quarantine(backup, data, tmp_path):
    new = tmp_path / "new"
    found = restore_backup(backup, new, GENESIS, NOW_MS, WATCH)
    assert found.manifest.height == HEIGHTS
    assert sorted(path.name for path in new.iterdir()) == [
        "blocks",
        "bodies",
        "consensus.wal",
        "in-use.lock",
        "state",
    ]
    with DiskChain(data) as chain:
        expected = facts(chain)
    log = WriteAheadLog(new / "consensus.wal")
    with DiskChain(new, log) as chain:
        assert facts(chain) == expected
        chain.decide(numbered_batch(HEIGHTS + 1))
    ended = log.recovered.ended
    log.close()
    assert (ended.height, ended.memory, ended.voting_from) == (HEIGHTS, Memory.LOST, 0)
    me = VALIDATORS.members[0].address
    gate = gate_of(me, log.recovered)
    for other in VALIDATORS.members[1:]:
        gate.hear(other.address, HEIGHTS + 3)
    assert not gate.may_vote(HEIGHTS + 1)
    assert gate.try_open(HEIGHTS + 3, VALIDATORS)
    assert [gate.may_vote(HEIGHTS + 3 + ahead) for ahead in (1, 4, 5)] == [False, False, True]


@pytest.mark.parametrize("held", ["blocks", "bodies", "state", "consensus.wal", DAMAGE_FILE])
def test_a_data_folder_that_holds_a_chain_is_left_as_it_is(backup, tmp_path, held):
    new = tmp_path / "new"
    new.mkdir()
    (new / held).write_text("precious")
    with pytest.raises(Rejected, match=held) as refusal:
        restore_backup(backup, new, GENESIS, NOW_MS, WATCH)
    assert refusal.value.reason == Reason.OCCUPIED
    assert (new / held).read_text() == "precious"
    assert sorted(path.name for path in new.iterdir()) == sorted([held, "in-use.lock"])


def test_a_running_node_is_not_restored(backup, data):
    with locked(data), pytest.raises(FolderInUseError):
        restore_backup(backup, data, GENESIS, NOW_MS, WATCH)


def test_another_chain_or_a_bad_backup_touches_nothing(backup, tmp_path):
    other = msgspec.structs.replace(GENESIS, chain_name="Another")
    with pytest.raises(Rejected) as refusal:
        restore_backup(backup, tmp_path / "new", other, NOW_MS, WATCH)
    assert refusal.value.reason == Reason.WRONG_CHAIN
    shutil.copytree(backup, tmp_path / "bad")
    (tmp_path / "bad/00000002.chunk").write_bytes(b"")
    with pytest.raises(Rejected, match=r"00000002\.chunk"):
        restore_backup(tmp_path / "bad", tmp_path / "new", GENESIS, NOW_MS, WATCH)
    assert not (tmp_path / "new").exists()


class Stop(Exception):
    """The process ends here."""


def stopping_at(step):
    """A watch that ends the restore at a step of blocks or of heights read back."""
    taken = 0

    def advance(_done, _total):
        nonlocal taken
        taken += 1
        if taken == step:
            raise Stop

    return Watch(quiet, advance, advance)


def test_a_restore_that_ends_anywhere_is_refused_until_it_is_done_again(backup, data, tmp_path):
    """Blocks executed, then heights read back: 0 to 8."""
    with DiskChain(data) as chain:
        expected = facts(chain)
    for step in range(1, 2 * HEIGHTS + 2):
        new = tmp_path / str(step)
        with pytest.raises(Stop):
            restore_backup(backup, new, GENESIS, NOW_MS, stopping_at(step))
        with pytest.raises(Rejected, match="was interrupted") as refusal:
            started(new)
        assert refusal.value.reason == Reason.HALF_FINISHED
        with pytest.raises(Rejected, match="was interrupted"):
            create_backup(tmp_path / "never", new, GENESIS, NOW_MS, quiet)
        restore_backup(backup, new, GENESIS, NOW_MS, WATCH)
        assert started(new) == expected


@pytest.mark.parametrize("last", ["scrub_stores", "open_log", "unmark"])
def test_a_restore_that_ends_before_its_last_steps_is_refused_as_well(
    backup, tmp_path, monkeypatch, last
):
    def stop(*_):
        raise Stop

    with monkeypatch.context() as patch:
        patch.setattr(restore, last, stop)
        with pytest.raises(Stop):
            restore_backup(backup, tmp_path / "new", GENESIS, NOW_MS, WATCH)
    with pytest.raises(Rejected, match="was interrupted"):
        started(tmp_path / "new")
    restore_backup(backup, tmp_path / "new", GENESIS, NOW_MS, WATCH)
    assert started(tmp_path / "new")[0].height == HEIGHTS


def test_an_interrupted_restore_goes_on_where_it_ended_and_with_its_own_backup_alone(
    backup, data, tmp_path
):
    new = tmp_path / "new"
    with pytest.raises(Stop):
        restore_backup(backup, new, GENESIS, NOW_MS, stopping_at(5))
    create_backup(tmp_path / "later", data, GENESIS, NOW_MS + 1, quiet)
    with pytest.raises(Rejected, match="another backup") as refusal:
        restore_backup(tmp_path / "later", new, GENESIS, NOW_MS, WATCH)
    assert refusal.value.reason == Reason.OCCUPIED
    seen = []
    watch = Watch(quiet, lambda done, _total: seen.append(done), quiet)
    restore_backup(backup, new, GENESIS, NOW_MS, watch)
    assert seen == [6, 7, 8]


@pytest.mark.parametrize("store", ["blocks", "bodies", "state"])
def test_what_a_power_cut_took_of_an_interrupted_restore_is_found(backup, tmp_path, store):
    """Nothing is synced before the end, so a power cut may take any part of it."""
    new = tmp_path / "new"
    with pytest.raises(Stop):
        restore_backup(backup, new, GENESIS, NOW_MS, stopping_at(6))
    shutil.rmtree(new / store)
    with pytest.raises(Rejected, match=f"does not hold what was restored .{store}") as refusal:
        restore_backup(backup, new, GENESIS, NOW_MS, WATCH)
    assert refusal.value.reason == Reason.HALF_FINISHED
    with pytest.raises(Rejected, match="was interrupted"):
        started(new)


def test_a_mark_of_a_restore_that_cannot_be_read_counts(backup, tmp_path):
    new = tmp_path / "new"
    new.mkdir()
    (new / MARK_FILE).write_bytes(b"{")
    with pytest.raises(Rejected, match="was interrupted"):
        refuse_unfinished(new)
    with pytest.raises(Rejected, match="another backup"):
        restore_backup(backup, new, GENESIS, NOW_MS, WATCH)
