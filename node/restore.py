"""A backup is verified, and becomes a node's stores, by the rules of sync.

What it decides: whether a backup is what its chain decided. Every file is compared with the
manifest; then each block goes through what a block from a peer goes through: its certificate is
verified against the validators of its height, which the blocks before it lead to, and it is
executed, so that every root of the next header is derived again. A backup is a peer that stands
still: nothing in it is believed.
What a restored node may do: it begins like one that lost its log, in quarantine, and never signs
where it may have signed before (node/quarantine.py).
What it never does: write into a data folder that holds a chain, or leave one that looks whole when
it is not (node/restore_mark.py).
Source: docs/backup.md; docs/decisions/0022-what-a-node-remembers.md, 0026, 0037.
"""

import tempfile
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from ledger.batch import parse_batch
from ledger.block import BLOCK, HEADER
from ledger.chain import Tip
from ledger.errors import Reason, Rejected, Store, StoreDamagedError, UnavailableError
from ledger.genesis import Genesis, chain_of
from ledger.store.archive import (
    MANIFEST_FILE,
    ArchivedBlock,
    Chunk,
    Manifest,
    bad_backup,
    check_chain,
    check_link,
)
from ledger.store.archive_files import check_chunk, read_chunk, read_manifest
from ledger.store.blocks import BlockStore
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from ledger.store.results import StateStore
from ledger.validators import ValidatorSet
from node.backup import Advance, require_room
from node.chain_writer import ChainWriter
from node.damage import MARK_FILE as DAMAGE_FILE
from node.executor import Executor
from node.folder_lock import locked
from node.quarantine import open_log
from node.rebuild import scrub_stores
from node.restore_mark import mark, restoring, unmark
from node.stages import StageClock
from node.stopped import LOG_FILE
from node.synced import FetchedBlock, append_synced, check_author

STORED_PER_BYTE = 4
"""What stores take of the disk for a byte of a backup, at most; see docs/backup.md."""
_OF_A_CHAIN = (*Store, LOG_FILE, DAMAGE_FILE)


@dataclass(frozen=True, slots=True)
class Verified:
    """What the blocks of a backup lead to: the tip, and who validates its height and the next."""

    manifest: Manifest
    tip: Tip
    transactions: int
    operations: int
    validators: ValidatorSet
    next_validators: ValidatorSet


@dataclass(frozen=True, slots=True)
class Watch:
    """Who is told how far it is: files compared, blocks executed, heights scrubbed."""

    files: Advance
    blocks: Advance
    heights: Advance


def open_backup(folder: Path, genesis: Genesis, advance: Advance) -> Manifest:
    """The manifest of a whole backup of this chain: every file is what was written.

    Raises: Rejected(HALF_FINISHED | WRONG_CHAIN | BAD_BACKUP), UnavailableError.
    """
    manifest = read_manifest(folder)
    check_chain(manifest, chain_of(genesis))
    for number, chunk in enumerate(manifest.chunks, 1):
        check_chunk(folder, chunk)
        advance(number, len(manifest.chunks))
    return manifest


def verify_backup(folder: Path, genesis: Genesis, watch: Watch) -> Verified:
    """Derive everything in a backup again, on stores that are forgotten.

    Raises: Rejected naming the file and height, UnavailableError when there is no room for it.
    """
    manifest = open_backup(folder, genesis, watch.files)
    with tempfile.TemporaryDirectory(prefix="kanglian-verify-") as name:
        scratch = Path(name)
        require_room(scratch, STORED_PER_BYTE * manifest.size)
        with _stores(scratch) as (blocks, state):
            return trio.run(replay, folder, manifest, genesis, blocks, state, watch.blocks)


def restore_backup(
    folder: Path, data_dir: Path, genesis: Genesis, now_ms: int, watch: Watch
) -> Verified:
    """Make the data folder of a node from a backup; the node starts in quarantine.

    A restore that was interrupted goes on where it ended.
    Raises: what `verify_backup` raises; Rejected(OCCUPIED), FolderInUseError;
    Rejected(HALF_FINISHED) when the disk does not hold what was written: a power cut may take any
    part of a restore.
    """
    manifest = open_backup(folder, genesis, watch.files)
    with locked(data_dir):
        _refuse_occupied(data_dir, manifest)
        require_room(data_dir, STORED_PER_BYTE * manifest.size)
        mark(data_dir, manifest.sha256)
        try:
            with _stores(data_dir) as (blocks, state):
                found = trio.run(replay, folder, manifest, genesis, blocks, state, watch.blocks)
            scrub_stores(data_dir, genesis, watch.heights)
        except StoreDamagedError as error:
            raise Rejected(
                Reason.HALF_FINISHED,
                f"the disk does not hold what was restored ({error.store}: {error.where}: "
                f"{error.problem}); move the data folder away and restore again",
                folder=str(data_dir),
            ) from error
        # Its log says that memory is lost: the node cannot know what it signed after the backup.
        open_log(data_dir / LOG_FILE, manifest.height, now_ms).close()
        try:
            unmark(data_dir)
        except OSError as error:
            raise UnavailableError(f"cannot finish the restore into {data_dir}: {error}") from error
    return found


def _refuse_occupied(data_dir: Path, manifest: Manifest) -> None:
    before = restoring(data_dir)
    if before == manifest.sha256:
        return
    held = [name for name in _OF_A_CHAIN if (data_dir / name).exists()]
    if before is not None or held:
        detail = (
            "a restore of another backup was interrupted here; move the folder away"
            if before is not None
            else "the data folder holds a chain already; move it away and keep it"
        )
        holds = str(held[0]) if held else "the mark of a restore"
        raise Rejected(Reason.OCCUPIED, detail, folder=str(data_dir), holds=holds)


async def replay(
    folder: Path,
    manifest: Manifest,
    genesis: Genesis,
    blocks: BlockStore,
    state: StateStore,
    advance: Advance,
) -> Verified:
    """Append every block of a backup behind what the stores hold of it already.

    Raises: Rejected naming file and height; InvariantError when a certified block contradicts the
    blocks before it.
    """
    executor = Executor(genesis, state, StageClock())
    writer = ChainWriter(genesis, blocks, executor, StageClock())
    await writer.recover(None, _without_log)
    for chunk in manifest.chunks:
        if chunk.last_height > writer.tip.height:
            await _append_chunk(folder, chunk, writer, lambda done: advance(done, manifest.height))
    _check_tip(writer, manifest)
    tip, counted = writer.tip, executor.state_tip
    return Verified(
        manifest,
        tip,
        counted.transactions,
        counted.operations,
        writer.validators_at(tip.height),
        writer.validators_at(tip.height + 1),
    )


async def _append_chunk(
    folder: Path, chunk: Chunk, writer: ChainWriter, advance: Callable[[int], None]
) -> None:
    try:
        for height, archived in enumerate(read_chunk(folder, chunk), chunk.first_height):
            if height > writer.tip.height:
                check_link(archived, height, writer.tip.block_hash, writer.chain)
                await append_synced(writer, [_fetched(archived, writer)], _without_log)
                advance(height)
    except Rejected as refusal:
        at_height = writer.tip.height + 1
        raise bad_backup(str(refusal), file=chunk.file, at_height=at_height) from refusal


def _fetched(archived: ArchivedBlock, writer: ChainWriter) -> FetchedBlock:
    """The block as sync takes it from a peer: parsed, and the signatures of its authors checked."""
    block = BLOCK.decode(archived.stored.block)
    batches = tuple(parse_batch(wire, writer.chain) for wire in archived.batches)
    for batch in batches:
        check_author(batch, writer)
    return FetchedBlock(block, HEADER.decode(block.header), archived.stored.certificate, batches)


def _check_tip(writer: ChainWriter, manifest: Manifest) -> None:
    """The manifest says of the newest block what the blocks say."""
    stored = writer.blocks.block(writer.tip.height)
    found = (
        writer.tip.height,
        writer.tip.block_hash.hex(),
        "" if stored is None else BLOCK.decode(stored.block).header.hex(),
        "" if stored is None else stored.certificate.hex(),
    )
    told = (manifest.height, manifest.block_hash, manifest.header, manifest.certificate)
    if found != told:
        raise bad_backup("the manifest tells of another newest block", file=MANIFEST_FILE)


def _without_log(_height: int) -> None:
    """Nobody signs meanwhile, so there is no log to keep."""


class _Bodies:
    """Bodies that are synced once, at the end: what a crash leaves before is marked unfinished."""

    def __init__(self, files: BodyFiles) -> None:
        self._files = files
        self.append = files.append
        self.read = files.read
        self.close = files.close
        self.drop_before = files.drop_before

    def sync(self) -> None:
        """Later."""


@contextmanager
def _stores(folder: Path) -> Generator[tuple[BlockStore, StateStore]]:
    """Stores that sync nothing until they are closed, and are durable once they were opened again.

    A sync for each block takes longer than its execution.
    """
    with ExitStack() as stack:
        level = LevelStore(folder / Store.BLOCKS, syncs=False)
        stack.callback(level.close)
        bodies = BodyFiles(folder / Store.BODIES)
        stack.callback(bodies.close)
        state = StateStore(LevelStore(folder / Store.STATE, syncs=False))
        stack.callback(state.close)
        yield BlockStore(level, _Bodies(bodies)), state
        bodies.sync()
