"""Making a backup of a node, whether it runs or not.

What it decides: where the blocks come from. A node that runs hands them over itself
(node/backup_channel.py), for only it may read its stores; of one that does not, the folder is
locked and read here. Both write the same bytes.
What it never does: read a key, the log, or anything but decided blocks.
Source: docs/backup.md; docs/decisions/0037-backup.md.
"""

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from ledger.errors import Store, UnavailableError
from ledger.genesis import Genesis, chain_of
from ledger.limits import MIB
from ledger.store.archive import ArchivedBlock, Manifest, block_records
from ledger.store.archive_files import ArchiveWriter
from ledger.store.blocks import STORED_BLOCK, BlockStore
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore
from ledger.transaction import Chain
from node.backup_channel import BlockSource, blocks_from_node, require_all
from node.damage import refuse_marked
from node.folder_lock import FolderInUseError, locked
from node.restore_mark import refuse_unfinished

SPARE_BYTES = 64 * MIB
"""What is left free beside a backup or restored stores, so that the machine goes on."""
Advance = Callable[[int, int], None]
"""Told how many of how many are done."""


def create_backup(
    folder: Path, data_dir: Path, genesis: Genesis, now_ms: int, advance: Advance
) -> Manifest:
    """Write a backup of the node of this data folder up to its newest block.

    Raises: Rejected(OCCUPIED | BAD_BACKUP | HALF_FINISHED), UnavailableError, StoreDamagedError.
    What is left of one that fails has no manifest, and is refused.
    """
    chain = chain_of(genesis)
    with _block_source(data_dir, chain) as source:
        writer = ArchiveWriter(folder, chain)
        require_room(folder, _size_of(data_dir))
        for archived in source.blocks:
            writer.add(archived)
            advance(writer.height, source.height)
        if writer.height != source.height:
            raise UnavailableError(f"the node ended at block {writer.height}; try again")
        return writer.finish(genesis.chain_name, now_ms)


def require_room(folder: Path, needed_bytes: int) -> None:
    """Raises: UnavailableError when the disk of a folder has not so much left."""
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise UnavailableError(f"cannot measure the disk of {folder}: {error}") from error
    if free < needed_bytes + SPARE_BYTES:
        raise UnavailableError(
            f"the disk of {folder} has {free // MIB} MiB left, and this may take "
            f"{(needed_bytes + SPARE_BYTES) // MIB} MiB; make room or name another folder"
        )


@contextmanager
def _block_source(data_dir: Path, chain: Chain) -> Generator[BlockSource]:
    if not (data_dir / Store.BLOCKS).is_dir():
        raise UnavailableError(f"there is no chain in {data_dir}; check data_dir")
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(data_dir))
            is_running = False
        except FolderInUseError:
            is_running = True
        if is_running:
            yield stack.enter_context(blocks_from_node(data_dir, chain))
            return
        refuse_marked(data_dir)
        refuse_unfinished(data_dir)
        level = LevelStore(data_dir / Store.BLOCKS)
        stack.callback(level.close)
        bodies = BodyFiles(data_dir / Store.BODIES)
        stack.callback(bodies.close)
        blocks = BlockStore(level, bodies)
        require_all(blocks.first)
        yield BlockSource(blocks.height, stored_blocks(blocks, blocks.height))


def stored_blocks(blocks: BlockStore, height: int) -> Iterator[ArchivedBlock]:
    """All blocks of a store up to a height.

    Raises: StoreDamagedError, Rejected(BAD_BACKUP) when the store begins later.
    """
    for number in range(1, height + 1):
        records = block_records(blocks, number)
        yield ArchivedBlock(STORED_BLOCK.decode(next(records)), tuple(records))


def _size_of(data_dir: Path) -> int:
    """The bytes that blocks and bodies take: a backup of them takes no more."""
    size = 0
    for store in (Store.BLOCKS, Store.BODIES):
        for path in (data_dir / store).iterdir():
            try:
                size += path.stat().st_size
            except FileNotFoundError:
                continue  # LevelDB has merged it into another one meanwhile
    return size
