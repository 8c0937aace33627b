"""Parsing a batch without holding the event loop: the same result as at once, in short steps."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager

import trio

from ledger.batch import Batch, SignedBatch, check_batch_header, seal_batch
from ledger.transaction import Chain, Transaction, operations_steps, parse_transaction
from node import limits
from node.steps import in_steps


async def parse_in_steps(
    wire: bytes, signed: SignedBatch, chain: Chain, measure: AbstractContextManager[None]
) -> Batch:
    """What `check_batch` gives; `measure` is entered around every step, none of which awaits.

    Raises: as `ledger.batch.parse_batch`.
    """
    with measure:
        header = check_batch_header(signed, chain)
    transactions: list[Transaction] = []
    for part in slices(signed.transactions, limits.SLICE_DECODED):
        with measure:
            transactions += [
                parse_transaction(item, chain, defers_operations=True) for item in part
            ]
        await trio.lowlevel.checkpoint()
    for envelope in (item for item in transactions if item.is_envelope):
        await in_steps(operations_steps(envelope, chain))
    with measure:
        return seal_batch(wire, signed, header, tuple(transactions), chain)


def slices(wires: Sequence[bytes], count: int) -> Iterator[Sequence[bytes]]:
    """Slices of at most `count` items and about SLICE_BYTES, in order."""
    start = size = 0
    for index, wire in enumerate(wires):
        size += len(wire)
        if index > start and (index - start == count or size > limits.SLICE_BYTES):
            yield wires[start:index]
            start, size = index, len(wire)
    if start < len(wires):
        yield wires[start:]
