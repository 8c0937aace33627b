"""The past under a trusted header: old headers, and an older history, without retired keys.

What it decides: whether an old header stands in the history that a trusted header commits to, and
whether one trusted history is the beginning of another. Header h commits to the hashes of heights
0 to h - 1, so size and index are heights and neither is taken from a proof. What it never does:
believe the sets of an old header; it is known, and vouches for nothing.
Source: RFC 6962 section 2.1; docs/format.md section 8; docs/decisions/0035-light-client.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.block import HEADER, Header, block_hash
from ledger.codec import Record, Schema
from ledger.errors import Reason, Rejected
from ledger.history import (
    NodeReader,
    TreeHead,
    consistency_path,
    history_entry,
    inclusion_path,
    tree_head,
    verify_consistency,
)
from ledger.ids import BlockHash, Bytes32
from ledger.light.trust import TrustedHeader
from ledger.merkle import Digest, root_from_path
from ledger.transaction import Chain

OLD_HEADER_BYTES = 8 * limits.KIB
"""A header and a path of 63 hashes with 34 bytes each."""
EXTENSION_BYTES = 4 * limits.KIB
"""Two heads and a path of 64 hashes with 34 bytes each."""


class OldHeader(Record, frozen=True):
    """An old header, and the siblings from its hash up to the head of a history."""

    header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROOF_PATH)]


class HistoryExtension(Record, frozen=True):
    """The bare heads of two histories, and the nodes that show the old one to begin the new one."""

    old_head: Bytes32
    new_head: Bytes32
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROOF_PATH + 1)]


OLD_HEADER = Schema(OldHeader, max_bytes=OLD_HEADER_BYTES)
HISTORY_EXTENSION = Schema(HistoryExtension, max_bytes=EXTENSION_BYTES)


@dataclass(frozen=True, slots=True)
class KnownHeader:
    """A header that the chain decided long ago; nothing newer can be taken on from it."""

    header: Header
    hash: BlockHash


def prove_old_header(
    header: bytes, reader: NodeReader, digest: Digest, trusted_height: int
) -> OldHeader:
    """The proof that a header stands in the history of the header at `trusted_height`.

    Cost: O(log height) steps of O(log height) nodes.
    """
    index = HEADER.decode(header).height
    return OldHeader(header, inclusion_path(reader, digest, index, trusted_height))


def verify_old_header(proof: OldHeader, trusted: TrustedHeader, chain: Chain) -> KnownHeader:
    """Check that the history of a trusted header holds an older one.

    The trust period does not matter: what was believed in time commits to its past for ever.
    Raises: Rejected.  Cost: one hash for each step.
    """
    return known_header(proof.header, proof.path, trusted.height, _history_root(trusted), chain)


def known_header(
    data: bytes, path: Sequence[bytes], size: int, history_root: bytes, chain: Chain
) -> KnownHeader:
    """The header of these bytes, which stands in the history of `size` heights with this root.

    Raises: Rejected.  Cost: one hash for each step.
    """
    header, found = HEADER.decode(data), block_hash(data, chain.suite)
    entry = history_entry(found)
    if root_from_path(chain.suite.digest, entry, header.height, size, path) != history_root:
        raise Rejected(Reason.BAD_PROOF, "not in the history", height=header.height)
    return KnownHeader(header, found)


def prove_extension(
    reader: NodeReader, digest: Digest, old_height: int, new_height: int
) -> HistoryExtension:
    """The proof that the history of header `old_height` is the beginning of a later one.

    Cost: O(log height) steps of O(log height) nodes.
    """
    return HistoryExtension(
        tree_head(reader, digest, old_height).head,
        tree_head(reader, digest, new_height).head,
        consistency_path(reader, digest, old_height, new_height),
    )


def verify_extension(
    proof: HistoryExtension, old: TrustedHeader, new: TrustedHeader, chain: Chain
) -> None:
    """Check that the history of one trusted header is the beginning of that of another.

    Raises: Rejected(BAD_PROOF).  Cost: two hashes for each step.
    """
    digest = chain.suite.digest
    before = TreeHead(old.height, proof.old_head)
    after = TreeHead(new.height, proof.new_head)
    for head, trusted in ((before, old), (after, new)):
        if head.sized_root(digest) != _history_root(trusted):
            raise Rejected(Reason.BAD_PROOF, "the head of another history", height=trusted.height)
    verify_consistency(digest, before, after, proof.path)


def _history_root(trusted: TrustedHeader) -> bytes:
    if trusted.header is None:
        raise Rejected(Reason.BAD_PROOF, "nothing comes before genesis")
    return trusted.header.history_root
