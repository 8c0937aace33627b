"""Mistakes in durability, planted one at a time: crash enumeration must see each.

Each takes pytest's monkeypatch and spoils one order or one sync of the real code.
"""

from collections.abc import Callable
from typing import Any

from consensus.events import TimerFired
from ledger.block import HEADER, block_hash
from ledger.store.blocks import StoredBlock
from node import journal, log_entries, log_records, wal
from node.batch_maker import BatchMaker
from node.batches import BatchPool
from node.chain_writer import ChainWriter
from node.driver import ConsensusDriver
from node.executor import DecidedBlock
from node.log_entries import Recovered
from node.wal import WriteAheadLog
from tests.crash.disk import OpenFile, RecordingDisk
from tests.crash.machine import FOLDER, LOG
from tests.unit.ledger.worlds import SUITE

Plant = Callable[[Any], None]


def messages_leave_without_a_sync(patch):
    def keep(driver, signed):
        kind, payload = journal.encode_signed(signed, driver._parts.candidates)
        driver._log.append(journal.own_entry(kind, payload))

    patch.setattr(ConsensusDriver, "_keep", keep)


def messages_leave_before_they_are_logged(patch):
    sign = ConsensusDriver._sign_and_send

    def late(driver, message):
        waiting = []
        with_keep = driver._keep
        driver._keep = waiting.append
        sign(driver, message)
        driver._keep = with_keep
        for signed in waiting:
            with_keep(signed)

    patch.setattr(ConsensusDriver, "_sign_and_send", late)


def bodies_are_not_synced_before_a_vote(patch):
    patch.setattr(BatchPool, "sync", lambda _pool: None)


def the_folder_is_not_synced_after_a_rotation(patch):
    sync_folder = RecordingDisk.sync_folder

    def forgetful(disk, folder):
        if disk.history.operations[-1][0] != "replace":
            sync_folder(disk, folder)

    patch.setattr(RecordingDisk, "sync_folder", forgetful)


def a_new_log_is_not_synced_before_it_takes_the_name(patch):
    sync = OpenFile.sync

    def forgetful(file):
        kinds = [operation[:2] for operation in file.history.operations[-2:]]
        if ("create", LOG.with_suffix(".new")) not in kinds:
            sync(file)

    patch.setattr(OpenFile, "sync", forgetful)


def the_folder_is_not_synced_when_a_log_is_made(patch):
    _no_folder_sync(patch, FOLDER)


def the_folder_is_not_synced_when_a_segment_is_made(patch):
    _no_folder_sync(patch, FOLDER / "bodies")


def _no_folder_sync(patch, spoiled):
    sync_folder = RecordingDisk.sync_folder

    def forgetful(disk, folder):
        if folder != spoiled or disk.history.operations[-1][0] == "replace":
            sync_folder(disk, folder)

    patch.setattr(RecordingDisk, "sync_folder", forgetful)


def _append_in_order(*steps):
    """`ChainWriter.append` with its steps in another order."""

    async def append(writer, block, certificate, batches, places, end_height):
        header = HEADER.decode(block.header)
        digest = block_hash(block.header, SUITE)
        decided = DecidedBlock(block, header, digest, certificate, tuple(batches))
        stored = StoredBlock(wal.encode(block), certificate)
        found = [(batch.digest, place) for batch, place in zip(batches, places, strict=True)]
        for step in steps:
            match step:
                case "block":
                    writer.blocks.append(header.height, digest, stored, found)
                case "end":
                    end_height(header.height)
                case "sync":
                    writer.log_under_test.sync()
                case "state":
                    await writer.executor.execute(decided)
                case "tell":
                    for listener in writer._listeners:
                        listener(decided)
        writer.certificate = certificate
        writer._demotions_before, writer._demotions = writer._demotions, header.demotions

    return append


def a_height_ends_before_its_block_is_durable(patch):
    create = ConsensusDriver.__init__

    def make(driver, core, log, parts, *rest):
        create(driver, core, log, parts, *rest)
        parts.writer.log_under_test = log

    patch.setattr(ConsensusDriver, "__init__", make)
    patch.setattr(ChainWriter, "append", _append_in_order("end", "sync", "block", "state", "tell"))


def state_is_durable_before_its_block(patch):
    patch.setattr(ChainWriter, "append", _append_in_order("state", "block", "end", "tell"))


def clients_are_told_before_the_block_is_durable(patch):
    patch.setattr(ChainWriter, "append", _append_in_order("tell", "block", "end", "state"))


def a_block_becomes_durable_before_the_end_of_the_last_height(patch):
    patch.setattr(WriteAheadLog, "sync_ended", lambda _log: None)


def own_batches_leave_without_a_sync(patch):
    make = BatchMaker._make

    class Lazy:
        def __init__(self, log):
            self.append = log.append

        def sync(self):
            pass

    patch.setattr(BatchMaker, "_make", lambda maker, log, taken: make(maker, Lazy(log), taken))


def timers_are_not_logged(patch):
    record = journal.record

    def forgetful(log, event, candidates):
        if not isinstance(event, TimerFired):
            record(log, event, candidates)

    patch.setattr(journal, "record", forgetful)


def early_messages_are_not_logged(patch):
    end = ConsensusDriver.end_height

    def forgetful(driver, height):
        driver._early.clear()
        end(driver, height)

    patch.setattr(ConsensusDriver, "end_height", forgetful)


def the_signer_forgets_what_the_log_brings_back(patch):
    patch.setattr(journal, "own_messages", lambda _entries: iter(()))
    patch.setattr(journal, "replay", _replay_without_own(journal.replay))


def _replay_without_own(replay):
    def forgetful(entries, *rest):
        kept = [entry for entry in entries if not getattr(entry, "own", False)]
        return replay(kept, *rest)

    return forgetful


def checksums_are_not_checked(patch):
    patch.setattr(log_records.zlib, "crc32", lambda _data, _start=0: 0)


def a_replayed_check_is_trusted_without_its_bodies(patch):
    patch.setattr(journal, "_lacks_bodies", lambda _event, _candidates: False)


def what_stands_behind_a_torn_end_is_forgotten(patch):
    patch.setattr(Recovered, "keep", lambda _recovered, _later: False)


def a_torn_end_is_cut_off_before_what_is_kept_is_durable(patch):
    begin = WriteAheadLog._begin_anew

    def cut_first(log, entries):
        file = log._file
        file.truncate(log_entries.read(file.read(file.size(), 0)).intact)
        file.sync()
        begin(log, entries)

    patch.setattr(WriteAheadLog, "_begin_anew", cut_first)


ALL: tuple[Plant, ...] = (
    messages_leave_without_a_sync,
    messages_leave_before_they_are_logged,
    bodies_are_not_synced_before_a_vote,
    the_folder_is_not_synced_after_a_rotation,
    a_new_log_is_not_synced_before_it_takes_the_name,
    the_folder_is_not_synced_when_a_log_is_made,
    the_folder_is_not_synced_when_a_segment_is_made,
    a_height_ends_before_its_block_is_durable,
    state_is_durable_before_its_block,
    clients_are_told_before_the_block_is_durable,
    a_block_becomes_durable_before_the_end_of_the_last_height,
    own_batches_leave_without_a_sync,
    timers_are_not_logged,
    early_messages_are_not_logged,
    the_signer_forgets_what_the_log_brings_back,
    checksums_are_not_checked,
    a_replayed_check_is_trusted_without_its_bodies,
    what_stands_behind_a_torn_end_is_forgotten,
    a_torn_end_is_cut_off_before_what_is_kept_is_durable,
)
