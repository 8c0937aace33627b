"""Damaged stores, offline and on the operator's word: a full scrub, and new stores for old ones.

What it decides: what must be true before a node may start with less than it had.
*State* is made anew from the node's own blocks: each is verified and executed, and what comes out
must be what the next header says. It takes the place of the old one only when it is complete.
*Blocks* are made anew from peers: blocks, bodies and state are set aside, and the write-ahead log
gets the one record that makes this legal: "ended at height 0, voting from three above the last
height that ended here". Without that record a node whose blocks are gone is refused, and with it it
is in quarantine until past anything it may have signed.
What it never does: repair, or delete. What was there is set aside as evidence.
Source: research consensus-reliability sections 1.5 and 6.3; docs/decisions/0029-damaged-stores.md.
"""

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from ledger.batch import GENESIS_BATCH
from ledger.errors import Rejected, Store, StoreDamagedError, UnavailableError
from ledger.genesis import Genesis, chain_of, genesis_validators
from ledger.membership import ValidatorHistory
from ledger.store.blocks import BlockStore
from ledger.store.bodies import BodyFiles
from ledger.store.leveldb import LevelStore, is_in_use
from ledger.store.results import StateStore
from node.chain_writer import ChainWriter
from node.damage import MARK_FILE, lift
from node.executor import DecidedBlock, Executor
from node.limits import QUARANTINE_HEIGHTS, WATCHED_HEIGHTS
from node.log_entries import EndedHeight, LogDamagedError
from node.scrub import Scrub
from node.stages import StageClock
from node.wal import WriteAheadLog

_FRESH = "state.rebuilding"
_LOG = "consensus.wal"
Advance = Callable[[int, int], None]
"""Told after each height: how many of how many are done."""


class Rebuilt(NamedTuple):
    """What a rebuild left: up to which height the new store reaches, where the old one is."""

    store: str
    height: int
    set_aside: str
    voting_from: int


def scrub_stores(data_dir: Path, genesis: Genesis, advance: Advance) -> int:
    """Check every record of a stopped node; returns the newest height.

    The mark of damage is taken away when nothing is found.
    Raises: StoreDamagedError, UnavailableError when the node runs.
    """
    _require_folders(data_dir, tuple(Store))
    with _stores(data_dir, data_dir / Store.STATE) as (blocks, state):
        if state.tip is None or state.tip.height < blocks.height - 1:
            problem = f"blocks end at {blocks.height}: state is lost"
            raise StoreDamagedError(Store.STATE, "its tip", problem)
        Executor(genesis, state, StageClock())  # It compares the replay window with its root.
        history = ValidatorHistory(genesis, state.get)
        scrub = Scrub(chain_of(genesis), blocks, state, history.at)
        for height in range(scrub.height + 1):
            for _ in scrub.check(height):
                pass
            advance(height + 1, scrub.height + 1)
    lift(data_dir)
    return scrub.height


async def rebuild_state(data_dir: Path, genesis: Genesis, advance: Advance) -> Rebuilt:
    """Execute the own blocks from genesis on. It goes on where it was interrupted.

    Raises: StoreDamagedError when the blocks are damaged as well, UnavailableError when the node
    runs.
    """
    _refuse_running(data_dir)
    _require_folders(data_dir, (Store.BLOCKS, Store.BODIES))
    fresh = data_dir / _FRESH
    with _stores(data_dir, fresh) as (blocks, state):
        if blocks.first > 1:
            raise UnavailableError(
                f"the blocks here begin at {blocks.first}, so the state cannot be executed anew; "
                "rebuild the blocks instead (--store blocks), and the node fetches both from peers"
            )
        executor = Executor(genesis, state, StageClock())
        writer = ChainWriter(genesis, blocks, executor, StageClock())
        for height in range(executor.state_tip.height + 1, blocks.height + 1):
            block = writer.read_block(height)
            _check_next(writer, block)
            await executor.execute(block)
            advance(height, blocks.height)
        height = blocks.height
    aside = _set_aside(data_dir, (Store.STATE, MARK_FILE))
    fresh.rename(data_dir / Store.STATE)
    _sync_folder(data_dir)
    return Rebuilt(Store.STATE, height, str(aside), 0)


def rebuild_blocks(data_dir: Path, genesis: Genesis) -> Rebuilt:
    """Set the stores aside; the node fetches all blocks from its peers when it starts.

    Raises: UnavailableError when the node runs, or has no peers.
    """
    _refuse_running(data_dir)
    if len(genesis_validators(genesis).members) == 1:
        raise UnavailableError(
            "this chain has one master, so there is nobody to fetch blocks from; move the data "
            "folder away and run `kanglian backup restore`"
        )
    voting_from = _begin_quarantine(data_dir / _LOG)
    aside = _set_aside(data_dir, (Store.BLOCKS, Store.BODIES, Store.STATE, _FRESH, MARK_FILE))
    return Rebuilt(Store.BLOCKS, 0, str(aside), voting_from)


@contextmanager
def _stores(data_dir: Path, state_dir: Path) -> Generator[tuple[BlockStore, StateStore]]:
    level = LevelStore(data_dir / Store.BLOCKS)
    try:
        state_level = LevelStore(state_dir)
        try:
            bodies = BodyFiles(data_dir / Store.BODIES)
            try:
                yield BlockStore(level, bodies), StateStore(state_level)
            finally:
                bodies.close()
        finally:
            state_level.close()
    finally:
        level.close()


def _refuse_running(data_dir: Path) -> None:
    for store in (Store.BLOCKS, Store.STATE):
        if is_in_use(data_dir / store):
            raise UnavailableError(f"a node is using {data_dir}; stop it first")


def _require_folders(data_dir: Path, stores: tuple[Store, ...]) -> None:
    """Opening would make an empty store of one that is gone."""
    for store in stores:
        if not (data_dir / store).is_dir():
            raise StoreDamagedError(store, str(data_dir / store), "the folder is missing")


def _check_next(writer: ChainWriter, block: DecidedBlock) -> None:
    """A stored block is certified and says what its predecessors' execution found out.

    Raises: StoreDamagedError.
    """
    tip, header = writer.tip, block.header
    where = f"height {tip.height + 1}"
    try:
        writer.verify_decision(block.block, block.certificate)
    except Rejected as refusal:
        raise StoreDamagedError(Store.BLOCKS, where, str(refusal)) from refusal
    for name, expected in (
        ("height", tip.height + 1),
        ("previous_hash", tip.block_hash),
        ("state_root", tip.state_root),
        ("receipts_root", tip.receipts_root),
        ("replay_root", tip.replay_root),
        ("history_root", tip.history_root),
    ):
        if getattr(header, name) != expected:
            problem = f"the header's {name} is not that of the blocks before"
            raise StoreDamagedError(Store.BLOCKS, where, problem)


def _begin_quarantine(path: Path) -> int:
    """Make the loss of blocks legal in the log; from which height on the node may vote.

    A log that is missing or damaged stays: then the start begins a quarantine of its own.
    Raises: UnavailableError.
    """
    if not path.exists():
        return 0
    try:
        log = WriteAheadLog(path)
    except LogDamagedError:
        return 0
    try:
        ended = log.recovered.ended or EndedHeight(0, 0, GENESIS_BATCH)
        sequence, previous = log.recovered.own_batches()
        # As in `node/quarantine.py`: own signatures up to QUARANTINE_HEIGHTS above are of the past.
        may_have_signed = ended.height + QUARANTINE_HEIGHTS
        voting_from = max(ended.voting_from, may_have_signed + WATCHED_HEIGHTS + 1)
        log.end_height(EndedHeight(0, sequence, previous, voting_from, ended.memory))
        log.sync()
    finally:
        log.close()
    return voting_from


def _set_aside(data_dir: Path, names: tuple[str, ...]) -> Path:
    """Move what is there into a folder of its own, durably."""
    number = 1
    while (aside := data_dir / f"damaged-{number}").exists():
        number += 1
    try:
        aside.mkdir()
        for name in names:
            if (data_dir / name).exists():
                (data_dir / name).rename(aside / name)
        _sync_folder(aside)
        _sync_folder(data_dir)
    except OSError as error:
        raise UnavailableError(f"cannot set stores aside in {aside}: {error}") from error
    return aside


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
