"""Appending blocks that peers decided: verified by their certificates, executed like our own.

A quorum's precommits vouch for the header. What came beside it (digests, batches, certificate of
the block before) is compared with what the header commits to, and is its sender's fault; the rest
of the header is derived again from our own state, so a block that leads elsewhere is found at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ledger.batch import Batch
from ledger.block import Block, Header, batches_root, certificate_hash
from ledger.errors import InvariantError, Reason, Rejected
from ledger.ids import Address
from node.chain_writer import ChainWriter


@dataclass(frozen=True, slots=True)
class FetchedBlock:
    """A decided block, a certificate for it, and the batches it orders."""

    block: Block
    header: Header
    certificate: bytes
    batches: tuple[Batch, ...]


async def append_synced(
    writer: ChainWriter, blocks: Sequence[FetchedBlock], end_height: Callable[[int], None]
) -> int:
    """Append consecutive blocks from the tip on; returns how many.

    Blocks at or below the tip are skipped: consensus may have been faster.
    Raises: Rejected at the first block that is wrong; those before it stay.
    """
    appended = 0
    for item in blocks:
        block, header = item.block, item.header
        if header.height <= writer.tip.height:
            continue
        writer.verify_decision(block, item.certificate)
        _check_attachments(item, writer)
        try:
            writer.check_block(block, header, item.batches)
        except Rejected as refusal:
            # A quorum decided it, so it is our state that is wrong, or more than f of them are.
            raise InvariantError(
                f"block {header.height} was decided but contradicts this node's state: {refusal}"
            ) from refusal
        places = [writer.blocks.bodies.append(batch.wire) for batch in item.batches]
        await writer.append(block, item.certificate, item.batches, places, end_height)
        appended += 1
    return appended


def _check_attachments(item: FetchedBlock, writer: ChainWriter) -> None:
    """What the certified header commits to is what came with it.

    Without this a liar could attach other digests or another certificate to a decided header, and
    this node would take the contradiction for its own. Raises: Rejected(BAD_BLOCK).
    """
    suite, header = writer.chain.suite, item.header
    if header.height != writer.tip.height + 1:
        raise Rejected(Reason.BAD_BLOCK, rule="contiguous heights", height=header.height)
    if certificate_hash(item.block.certificate, suite) != header.certificate_hash:
        raise Rejected(Reason.BAD_BLOCK, rule="certificate_hash", height=header.height)
    digests = tuple(batch.digest for batch in item.batches)
    if digests != item.block.batches or batches_root(item.batches, suite) != header.batches_root:
        raise Rejected(Reason.BAD_BLOCK, rule="batches_root", height=header.height)


def check_author(batch: Batch, writer: ChainWriter) -> None:
    """The author's signature, which neither digest nor certificate covers.

    It is kept and served to others, who would blame us for it. An author that votes no more cannot
    be checked; a quorum checked it when it did. Raises: Rejected(BAD_SIGNATURE).
    """
    validators = writer.validators_at(min(batch.header.anchor_height, writer.tip.height) + 1)
    index = validators.index_of(Address(batch.header.author))
    if index is None:
        return
    key = validators.members[index].key
    if not writer.chain.suite.verify(key, batch.digest, batch.signature):
        raise Rejected(Reason.BAD_SIGNATURE, "author of a batch", index=index)
