"""Proofs from the history: an old header, or an older history, under a certified header.

What it decides: whether an older header stands in the history that a certified header commits to,
and whether that history begins with an older one. Header h commits to the hashes of heights 0 to
h - 1, so index and size of the newer tree are heights and stand in no document. Neither needs the
keys of the old validators. What it never does: believe what a header says because it is old.
Source: docs/proofs.md sections 10 and 11; RFC 6962 section 2.1; docs/format.md section 8.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ledger import limits
from ledger.block import HEADER, Header
from ledger.codec import Document
from ledger.data_index import Hex32
from ledger.errors import Reason, Rejected
from ledger.history import (
    NodeReader,
    TreeHead,
    consistency_path,
    extended_head,
    inclusion_path,
    tree_head,
)
from ledger.ids import BlockHash
from ledger.light.history import known_header
from ledger.merkle import Digest
from ledger.proofs.anchor import Anchor, Certified, Trust, verify_anchor
from ledger.proofs.log import JsonSize
from ledger.succession import Hex, check_header_chain

HEADER_FORMAT = "kanglian-header/1"
HISTORY_FORMAT = "kanglian-history/1"


class HeaderDocument(Document, frozen=True):
    """The document of an old header: `path` leads from its hash to the head of the history."""

    anchor: Anchor
    format: Literal["kanglian-header/1"]
    header: Hex
    path: Annotated[tuple[Hex32, ...], Meta(max_length=limits.PROOF_PATH)]


class HistoryDocument(Document, frozen=True):
    """The document of an older history: its size and bare head, and what leads to the newer one."""

    anchor: Anchor
    format: Literal["kanglian-history/1"]
    head: Hex32
    path: Annotated[tuple[Hex32, ...], Meta(max_length=limits.PROOF_PATH + 1)]
    size: JsonSize


@dataclass(frozen=True, slots=True)
class HeaderFact:
    """The chain decided this header, which the history of the certified one holds."""

    certified: Certified
    header: Header
    hash: BlockHash


@dataclass(frozen=True, slots=True)
class HistoryFact:
    """The history of the certified header begins with the one of this size and sized root.

    The header of height `size` holds that root.
    """

    certified: Certified
    size: int
    root: bytes


def prove_header(
    header: bytes, reader: NodeReader, digest: Digest, anchor: Anchor
) -> HeaderDocument:
    """The document of an old header under the header of an anchor.

    Cost: O(log height) steps of O(log height) nodes.
    """
    index = HEADER.decode(header).height
    path = inclusion_path(reader, digest, index, _height(anchor))
    return HeaderDocument(anchor, HEADER_FORMAT, header.hex(), tuple(item.hex() for item in path))


def prove_history(size: int, reader: NodeReader, digest: Digest, anchor: Anchor) -> HistoryDocument:
    """The document of the history of `size` heights, from 1 to the height of the anchor.

    Cost: O(log height) steps of O(log height) nodes.
    """
    head = tree_head(reader, digest, size).head
    path = consistency_path(reader, digest, size, _height(anchor))
    return HistoryDocument(
        anchor, HISTORY_FORMAT, head.hex(), tuple(item.hex() for item in path), size
    )


def verify_header(document: HeaderDocument, trust: Trust) -> HeaderFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, and a hash for each step.
    """
    certified, chain = verify_anchor(document.anchor, trust), trust.chain
    path = tuple(bytes.fromhex(item) for item in document.path)
    above = certified.header
    known = known_header(
        bytes.fromhex(document.header), path, above.height, above.history_root, chain
    )
    check_header_chain(known.header, chain)
    return HeaderFact(certified, known.header, known.hash)


def verify_history(document: HistoryDocument, trust: Trust) -> HistoryFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, and two hashes for each step.
    """
    certified, digest = verify_anchor(document.anchor, trust), trust.chain.suite.digest
    old = TreeHead(document.size, bytes.fromhex(document.head))
    path = tuple(bytes.fromhex(item) for item in document.path)
    size = certified.header.height
    new = TreeHead(size, extended_head(digest, old, size, path))
    if new.sized_root(digest) != certified.header.history_root:
        raise Rejected(Reason.BAD_PROOF, "not the beginning of the history", size=old.size)
    return HistoryFact(certified, old.size, old.sized_root(digest))


def _height(anchor: Anchor) -> int:
    return HEADER.decode(bytes.fromhex(anchor.header)).height
