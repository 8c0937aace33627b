"""Positions in Merkle trees as a document shows them, and the way from a receipt to its header.

What it decides: which root an entry and its position lead to. What it never does: judge that root.

    receipt -> receipts of its namespace -> receipts root of the next header

Source: docs/format.md sections 1.3 and 7.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.block import NAMESPACE_RECEIPTS_TAG, NamespaceReceipts
from ledger.codec import Document, encode
from ledger.data_index import Hex32
from ledger.errors import invariant
from ledger.merkle import (
    LEAF,
    Digest,
    inclusion_path,
    path_in,
    root_from_path,
    root_over,
    tree_steps,
)
from ledger.receipts import RECEIPT_TAG

JSON_INT_MAX = 2**53 - 1
"""Integers of a document stay exact in every JSON reader (RFC 8259 section 6)."""

JsonCount = Annotated[int, Meta(ge=0, le=JSON_INT_MAX)]
Namespace = tuple[str, int]


class Position(Document, frozen=True):
    """Where an entry stands in a Merkle tree: index of count, and the siblings from it upwards."""

    index: JsonCount
    count: JsonCount
    path: Annotated[tuple[Hex32, ...], Meta(max_length=limits.PROOF_PATH)]

    def hashes(self) -> tuple[bytes, ...]:
        """The path as bytes."""
        return tuple(bytes.fromhex(item) for item in self.path)


@dataclass(frozen=True, slots=True)
class ReceiptPlace:
    """Where a receipt stands: in its namespace, and its namespace under the receipts root."""

    receipt: bytes
    in_namespace: Position
    in_block: Position


def root_above(digest: Digest, entry: bytes, position: Position) -> bytes:
    """The sized root that an entry and its position lead to.

    Raises: Rejected(BAD_PROOF).
    """
    return root_from_path(digest, entry, position.index, position.count, position.hashes())


def position_of_leaf(digest: Digest, leaves: Sequence[bytes], index: int) -> Position:
    """The position of a leaf hash."""
    path = inclusion_path(digest, leaves, index)
    return Position(index=index, count=len(leaves), path=tuple(item.hex() for item in path))


def position_of_entry(digest: Digest, entries: Sequence[bytes], index: int) -> Position:
    """The position of an entry."""
    return position_of_leaf(digest, [digest(LEAF + entry) for entry in entries], index)


def namespace_results_root(digest: Digest, place: ReceiptPlace) -> bytes:
    """The sized root over the receipts of the namespace that a receipt stands in.

    Raises: Rejected(BAD_PROOF).
    """
    return root_above(digest, RECEIPT_TAG + place.receipt, place.in_namespace)


def receipts_root_above(digest: Digest, namespace: Namespace, place: ReceiptPlace) -> bytes:
    """The receipts root that a receipt of a namespace leads to.

    Raises: Rejected(BAD_PROOF).
    """
    module, level = namespace
    share = NamespaceReceipts(
        module=module,
        level=level,
        count=place.in_namespace.count,
        root=namespace_results_root(digest, place),
    )
    return root_above(digest, NAMESPACE_RECEIPTS_TAG + encode(share), place.in_block)


@dataclass(frozen=True, slots=True)
class ReceiptTrees:
    """The receipts of a block and the trees over them, to find the place of any of them."""

    receipts: Mapping[Namespace, Sequence[bytes]]
    levels: Mapping[Namespace, Sequence[Sequence[bytes]]]
    entries: Sequence[bytes]

    def place(self, digest: Digest, namespace: Namespace, index: int) -> ReceiptPlace:
        """The place of a receipt.  Cost: a hash for each namespace."""
        own = self.receipts.get(namespace, ())
        invariant(0 <= index < len(own), "a receipt is missing")
        path = path_in(self.levels[namespace], index)
        return ReceiptPlace(
            receipt=own[index],
            in_namespace=Position(index, len(own), tuple(item.hex() for item in path)),
            in_block=position_of_entry(
                digest, self.entries, sorted(self.receipts).index(namespace)
            ),
        )


def receipt_trees_steps(
    digest: Digest, receipts: Mapping[Namespace, Sequence[bytes]]
) -> Generator[None, None, ReceiptTrees]:
    """The trees over all receipts of a block, in steps of about a millisecond.

    `receipts` holds those of every namespace of the block in execution order.
    """
    levels: dict[Namespace, Sequence[Sequence[bytes]]] = {}
    entries: list[bytes] = []
    for (module, level), items in sorted(receipts.items()):
        tree = yield from tree_steps(digest, (RECEIPT_TAG + item for item in items))
        levels[module, level] = tree
        root = root_over(digest, tree)
        share = NamespaceReceipts(module=module, level=level, count=len(items), root=root)
        entries.append(NAMESPACE_RECEIPTS_TAG + encode(share))
    return ReceiptTrees(receipts, levels, entries)
