"""The rules that make a block the next one of a chain, in one page.

A header is derived, not believed: everything in it but proposer and time follows from the blocks
before and from its batches. So a validator derives the header it expects and compares.
Source: architecture sections 2, 3 and 5.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ledger import limits
from ledger.batch import Batch, block_order
from ledger.block import (
    Demotion,
    Header,
    batches_root,
    certificate_hash,
    empty_root,
)
from ledger.errors import Reason, Rejected
from ledger.ids import BlockHash, Hash
from ledger.transaction import Chain
from ledger.validators import ValidatorSet


@dataclass(frozen=True, slots=True)
class Tip:
    """The newest executed block, as the next header needs it. Height 0 is genesis."""

    height: int
    block_hash: BlockHash
    time: int
    state_root: Hash
    receipts_root: Hash
    replay_root: Hash
    history_root: Hash
    must_follow: bool


@dataclass(frozen=True, slots=True)
class Choice:
    """What is free in a header (proposer, time) and what consensus derives (demotions)."""

    proposer: int
    time: int
    demotions: tuple[Demotion, ...]


def derive_header(
    chain: Chain,
    tip: Tip,
    validators: ValidatorSet,
    next_validators: ValidatorSet,
    certificate: bytes,
    batches: Sequence[Batch],
    choice: Choice,
) -> Header:
    """The only valid header after `tip` for these batches and this choice.

    `validators` rule its height, `next_validators` the one after.
    """
    suite = chain.suite
    empty = empty_root(suite)
    return Header(
        version=limits.PROTOCOL_VERSION,
        group=chain.group,
        height=tip.height + 1,
        previous_hash=tip.block_hash,
        time=choice.time,
        proposer=choice.proposer,
        validators_hash=validators.hash(suite),
        next_validators_hash=next_validators.hash(suite),
        topology_hash=validators.topology_hash(suite),
        batches_root=batches_root(batches, suite),
        stamps_root=empty,
        certificate_hash=certificate_hash(certificate, suite),
        demotions=choice.demotions,
        state_root=tip.state_root,
        receipts_root=tip.receipts_root,
        messages_root=empty,
        replay_root=tip.replay_root,
        history_root=tip.history_root,
    )


def check_header(expected: Header, header: Header) -> None:
    """Compare a header with the derived one, and name the first field that differs.

    Raises: Rejected(BAD_BLOCK).
    """
    if header == expected:
        return
    for name in Header.__struct_fields__:
        if getattr(header, name) != getattr(expected, name):
            raise Rejected(Reason.BAD_BLOCK, rule=name, height=header.height)


def check_contents(tip: Tip, header: Header, batches: Sequence[Batch], heartbeat_ms: int) -> None:
    """The rules about time and batches that a derived header does not express.

    Raises: Rejected(BAD_BLOCK).
    """
    if header.time <= tip.time:
        raise Rejected(Reason.BAD_BLOCK, rule="time must grow", time=header.time)
    if not batches and not tip.must_follow and header.time < tip.time + heartbeat_ms:
        raise Rejected(Reason.BAD_BLOCK, rule="empty block without need")
    if any(low >= high for low, high in pairwise(map(block_order, batches))):
        raise Rejected(Reason.BAD_BLOCK, rule="batches out of order, or one stands twice")
    if sum(len(batch.wire) for batch in batches) > limits.BLOCK_BYTES:
        raise Rejected(Reason.BAD_BLOCK, rule="bodies above the block limit")
    latest = header.time + limits.REPLAY_WINDOW_MS
    for batch in batches:
        if batch.valid_until_max > latest:
            raise Rejected(Reason.BAD_BLOCK, rule="a transaction is valid too far ahead")
