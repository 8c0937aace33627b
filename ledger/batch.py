"""Batches: how transactions travel. A validator packs them once, signs the header, broadcasts.

What it decides: whether bytes are a batch whose header commits to exactly its transactions.
Consensus orders batch digests; a batch is valid iff its stateless checks hold, and what state or
time say about a transaction is a matter of its receipt.
Source: docs/format.md section 5; architecture section 3.
"""

from collections.abc import Sequence
from itertools import groupby, pairwise
from typing import Annotated

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import BatchDigest, Bytes32, Count, Level, Name, SignatureBytes
from ledger.merkle import root_of_leaves
from ledger.transaction import Chain, Transaction, parse_transaction

BATCH_TAG = b"kl.batch\0"
GENESIS_BATCH = BatchDigest(bytes(32))
"""The `previous` of an author's first batch."""


class NamespaceSummary(Record, frozen=True):
    """One namespace's share of a batch: count and sized root of its transactions."""

    module: Name
    level: Level
    count: Annotated[int, Meta(ge=1, le=limits.BATCH_TRANSACTIONS)]
    root: Bytes32


class BatchHeader(Record, frozen=True):
    """The signed part. `clock` is the author's hybrid logical clock (48-bit ms, 16-bit counter)."""

    version: Annotated[int, Meta(ge=0, le=255)]
    genesis_hash: Bytes32
    group: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    author: Bytes32
    sequence: Count
    previous: Bytes32
    clock: Count
    anchor_height: Count
    anchor_hash: Bytes32
    namespaces: Annotated[
        tuple[NamespaceSummary, ...], Meta(min_length=1, max_length=limits.BATCH_NAMESPACES)
    ]


class SignedBatch(Record, frozen=True):
    """The bytes on the wire: header bytes, the author's signature, transactions by namespace."""

    header: Annotated[bytes, Meta(max_length=limits.BATCH_HEADER_BYTES)]
    signature: SignatureBytes
    transactions: Annotated[
        tuple[bytes, ...], Meta(min_length=1, max_length=limits.BATCH_TRANSACTIONS)
    ]


_SIGNED = Schema(SignedBatch, max_bytes=limits.BATCH_BYTES)
BATCH_HEADER = Schema(BatchHeader, max_bytes=limits.BATCH_HEADER_BYTES)


class Batch(msgspec.Struct, frozen=True, eq=False):
    """A batch whose header matches its transactions; signatures are checked by the receiver."""

    wire: bytes
    header: BatchHeader
    signature: bytes
    digest: BatchDigest
    transactions: tuple[Transaction, ...]
    valid_until_max: int


def namespace_order(transaction: Transaction) -> tuple[str, int]:
    """The sort key that groups a batch by namespace."""
    return transaction.body.module, transaction.body.level


def block_order(batch: Batch) -> tuple[int, bytes, int, bytes]:
    """The sort key of batches in a block: the author's clock, author, sequence, digest.

    A header commits to batches by namespace, so only this rule fixes the order across namespaces,
    and with it what the block does.
    """
    header = batch.header
    return header.clock, header.author, header.sequence, batch.digest


def summarise(
    transactions: Sequence[Transaction], suite: CryptoSuite
) -> tuple[NamespaceSummary, ...]:
    """The namespace summaries of transactions that stand in namespace order."""
    summaries: list[NamespaceSummary] = []
    for (module, level), group in groupby(transactions, key=namespace_order):
        leaves = [transaction.leaf for transaction in group]
        root = root_of_leaves(suite.digest, leaves)
        summaries.append(NamespaceSummary(module=module, level=level, count=len(leaves), root=root))
    return tuple(summaries)


def batch_digest(header: bytes, suite: CryptoSuite) -> BatchDigest:
    """What the author signs and blocks refer to."""
    return BatchDigest(suite.digest(BATCH_TAG + header))


def decode_batch(wire: bytes) -> SignedBatch:
    """The outer record of a batch's bytes; neither header nor transactions are looked at.

    Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL).
    """
    return _SIGNED.decode(wire)


def build_batch(
    header: BatchHeader, signature: bytes, transactions: Sequence[Transaction]
) -> bytes:
    """The wire bytes of a batch whose transactions stand in namespace order."""
    return encode(
        SignedBatch(
            header=encode(header),
            signature=signature,
            transactions=tuple(transaction.wire for transaction in transactions),
        )
    )


def parse_batch(wire: bytes, chain: Chain) -> Batch:
    """The batch of canonical bytes; every transaction parsed, no signature checked yet.

    Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL | UNSUPPORTED_VERSION | WRONG_CHAIN |
        BAD_ENVELOPE | BAD_BATCH).
    """
    return check_batch(wire, decode_batch(wire), chain)


def check_batch(wire: bytes, signed: SignedBatch, chain: Chain) -> Batch:
    """The batch of bytes that are decoded already; see `parse_batch`."""
    header = check_batch_header(signed, chain)
    transactions = tuple([parse_transaction(item, chain) for item in signed.transactions])
    return seal_batch(wire, signed, header, transactions, chain)


def check_batch_header(signed: SignedBatch, chain: Chain) -> BatchHeader:
    """The header of a batch of this chain; its transactions are not looked at.

    Raises: as `parse_batch`.
    """
    header = BATCH_HEADER.decode(signed.header)
    if header.version != limits.PROTOCOL_VERSION:
        raise Rejected(Reason.UNSUPPORTED_VERSION, "batch", version=header.version)
    if header.genesis_hash != chain.genesis_hash or header.group != chain.group:
        raise Rejected(Reason.WRONG_CHAIN, "batch", group=header.group)
    return header


def seal_batch(
    wire: bytes,
    signed: SignedBatch,
    header: BatchHeader,
    transactions: tuple[Transaction, ...],
    chain: Chain,
) -> Batch:
    """The batch of a header and the parsed transactions beside it.

    Raises: Rejected(BAD_BATCH) unless the header commits to exactly these.
    """
    order = [(summary.module, summary.level) for summary in header.namespaces]
    if any(low >= high for low, high in pairwise(order)):
        raise Rejected(Reason.BAD_BATCH, "namespaces are not strictly ascending")
    if summarise(transactions, chain.suite) != header.namespaces:
        raise Rejected(Reason.BAD_BATCH, "transactions are not those of the header")
    return Batch(
        wire=wire,
        header=header,
        signature=signed.signature,
        digest=batch_digest(signed.header, chain.suite),
        transactions=transactions,
        valid_until_max=max(transaction.body.valid_until for transaction in transactions),
    )
