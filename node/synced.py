"""Appending blocks that peers decided: verified by their certificates, executed like our own.

A quorum's precommits vouch for the transactions' signatures; the header is derived again from our
own state, so a block that leads elsewhere is found at once.
"""

from collections.abc import Callable, Sequence

from ledger.batch import parse_batch
from ledger.block import BLOCK, HEADER
from ledger.errors import InvariantError, Reason, Rejected
from node.chain_writer import ChainWriter
from node.wire import SyncedBlock


async def append_synced(
    writer: ChainWriter, blocks: Sequence[SyncedBlock], end_height: Callable[[int], None]
) -> int:
    """Append consecutive blocks from the tip on; returns how many.

    Blocks at or below the tip are skipped: consensus may have been faster.
    Raises: Rejected at the first block that is wrong; those before it stay.
    """
    appended = 0
    for item in blocks:
        block = BLOCK.decode(item.block)
        header = HEADER.decode(block.header)
        if header.height <= writer.tip.height:
            continue
        writer.verify_decision(block, item.certificate)
        batches = tuple(parse_batch(wire, writer.chain) for wire in item.batches)
        if tuple(batch.digest for batch in batches) != block.batches:
            raise Rejected(Reason.BAD_BLOCK, rule="batches of another block", height=header.height)
        try:
            writer.check_block(block, header, batches)
        except Rejected as refusal:
            # A quorum decided it, so it is our state that is wrong, or more than f of them are.
            raise InvariantError(
                f"block {header.height} was decided but contradicts this node's state: {refusal}"
            ) from refusal
        places = [writer.blocks.bodies.append(wire) for wire in item.batches]
        await writer.append(block, item.certificate, batches, places, end_height)
        appended += 1
    return appended
