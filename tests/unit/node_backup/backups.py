"""Small backups of the chain in memory, and restores of them without a disk of their own."""

import trio

from ledger.store.archive_files import ArchiveWriter
from ledger.store.disk import OPERATING_SYSTEM_DISK
from node.backup import stored_blocks
from node.restore import Watch, open_backup, replay
from tests.unit.node_core.chains import CHAIN, GENESIS, LocalChain, make_transaction, register

CREATED_MS = 1_760_000_000_000


def quiet(_done, _total):
    """Progress nobody watches."""


WATCH = Watch(quiet, quiet, quiet)


def grown(heights):
    """A chain of blocks with two registrations each, and an empty one at the end."""
    chain = LocalChain()
    for number in range(heights - 1):
        calls = [make_transaction(register(2 * number + n), 2 * number + n) for n in range(2)]
        chain.run(*calls)
    chain.decide()
    return chain


def keep(chain, folder, disk=OPERATING_SYSTEM_DISK):
    """A backup of a chain; its manifest."""
    writer = ArchiveWriter(folder, CHAIN, disk)
    for archived in stored_blocks(chain.blocks, chain.tip.height):
        writer.add(archived)
    return writer.finish(GENESIS.chain_name, CREATED_MS)


def replayed(folder, genesis=GENESIS, chain=None):
    """What `kanglian backup verify` finds, on stores in memory."""
    fresh = LocalChain() if chain is None else chain
    manifest = open_backup(folder, genesis, quiet)
    return trio.run(replay, folder, manifest, genesis, fresh.blocks, fresh.state, quiet)
