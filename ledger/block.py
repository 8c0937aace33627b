"""Blocks: a header that commits to everything, the certificate of the block before, batch digests.

What it decides: the bytes of headers and blocks, their hashes, and the roots a header must hold for
given batches. Whether a header is the right one for a chain is `ledger/chain.py`.
Header fields whose machinery comes with a later protocol version carry the empty root
(`stamps_root`, `messages_root`).
Source: docs/format.md section 6; architecture section 3.
"""

from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.batch import Batch
from ledger.codec import Record, Schema, encode
from ledger.crypto.suite import CryptoSuite
from ledger.ids import BlockHash, Bytes32, Count, Level, Name
from ledger.merkle import root_of_entries

HEADER_TAG = b"kl.header\0"
NAMESPACE_TAG = b"kl.namespace\0"
NAMESPACE_BATCH_TAG = b"kl.namespace-batch\0"
NAMESPACE_RECEIPTS_TAG = b"kl.namespace-receipts\0"


DEMOTION_STRIKES = 10
"""Caps the delay at 1,024 blocks: a validator that is repaired is never shut out for days."""


class Demotion(Record, frozen=True):
    """A validator that does not propose: `until` 0 waits to see its precommit, else a height.

    Each strike doubles the delay before it proposes again; the rules are in consensus/proposer.py.
    """

    validator: Annotated[int, Meta(ge=0, lt=limits.VALIDATORS)]
    strikes: Annotated[int, Meta(ge=1, le=DEMOTION_STRIKES)]
    until: Count

    def excludes_at(self, height: int) -> bool:
        """Whether the validator may not propose at `height`."""
        return self.until == 0 or height < self.until


class Header(Record, frozen=True):
    """What validators sign by its hash. The last five roots speak of the block before."""

    version: Annotated[int, Meta(ge=0, le=255)]
    group: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    height: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    previous_hash: Bytes32
    time: Count
    proposer: Annotated[int, Meta(ge=0, lt=limits.VALIDATORS)]
    validators_hash: Bytes32
    next_validators_hash: Bytes32
    topology_hash: Bytes32
    batches_root: Bytes32
    stamps_root: Bytes32
    certificate_hash: Bytes32
    demotions: Annotated[tuple[Demotion, ...], Meta(max_length=limits.VALIDATORS)]
    state_root: Bytes32
    receipts_root: Bytes32
    messages_root: Bytes32
    replay_root: Bytes32
    history_root: Bytes32


class Block(Record, frozen=True):
    """A header's bytes, the previous block's certificate bytes (empty at height 1), its batches."""

    header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]
    batches: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.BLOCK_BATCHES)]


class NamespaceBatch(Record, frozen=True):
    """One batch's share of a namespace in a block."""

    batch: Bytes32
    count: Count
    root: Bytes32


class NamespaceShare(Record, frozen=True):
    """One namespace of a block: its transactions in all, and the root over `NamespaceBatch`."""

    module: Name
    level: Level
    count: Count
    root: Bytes32


class NamespaceReceipts(Record, frozen=True):
    """One namespace of a block: its receipts and the sized root over them."""

    module: Name
    level: Level
    count: Count
    root: Bytes32


HEADER = Schema(Header, max_bytes=limits.HEADER_BYTES)
BLOCK = Schema(Block, max_bytes=limits.BLOCK_RECORD_BYTES)


def block_hash(header: bytes, suite: CryptoSuite) -> BlockHash:
    """The hash of a header's canonical bytes, which names the block."""
    return BlockHash(suite.digest(HEADER_TAG + header))


def empty_root(suite: CryptoSuite) -> bytes:
    """The sized root of no entries: the defined value of fields that are not in use yet."""
    return root_of_entries(suite.digest, ())


def certificate_hash(certificate: bytes, suite: CryptoSuite) -> bytes:
    """What a header holds of the certificate of the block before."""
    return suite.digest(b"kl.certificate\0" + certificate)


def namespace_batches(batches: Sequence[Batch]) -> dict[tuple[str, int], list[NamespaceBatch]]:
    """Every namespace's batches in block order; namespaces in ascending order."""
    shares: dict[tuple[str, int], list[NamespaceBatch]] = {}
    for batch in batches:
        for summary in batch.header.namespaces:
            share = NamespaceBatch(batch=batch.digest, count=summary.count, root=summary.root)
            shares.setdefault((summary.module, summary.level), []).append(share)
    return dict(sorted(shares.items()))


def namespace_shares(
    shares: dict[tuple[str, int], list[NamespaceBatch]], suite: CryptoSuite
) -> tuple[NamespaceShare, ...]:
    """The leaves of a block's batches root."""
    return tuple(
        NamespaceShare(
            module=module,
            level=level,
            count=sum(share.count for share in items),
            root=root_of_entries(suite.digest, [NAMESPACE_BATCH_TAG + encode(i) for i in items]),
        )
        for (module, level), items in shares.items()
    )


def batches_root(batches: Sequence[Batch], suite: CryptoSuite) -> bytes:
    """The header field for these batches in this order."""
    shares = namespace_shares(namespace_batches(batches), suite)
    return root_of_entries(suite.digest, [NAMESPACE_TAG + encode(share) for share in shares])


def receipts_root(namespaces: Sequence[NamespaceReceipts], suite: CryptoSuite) -> bytes:
    """The header field for the receipts of the block before; namespaces ascending."""
    entries = [NAMESPACE_RECEIPTS_TAG + encode(item) for item in namespaces]
    return root_of_entries(suite.digest, entries)
