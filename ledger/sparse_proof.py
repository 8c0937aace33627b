"""Proofs from a sparse Merkle tree: that a key has a value, or that it has none.

What it decides: whether a path leads from what it claims to a root. Every bit of a path is used:
nothing can be added, left out or exchanged without another root. What it never does: ask a store.
Source: docs/decisions/0033-sparse-tree.md; T-33 of research consensus-reliability section 1.9.
"""

from typing import Annotated

from msgspec import Meta

from ledger.codec import Record
from ledger.errors import Reason, Rejected
from ledger.ids import Bytes32
from ledger.merkle import NODE, Digest
from ledger.sparse import DEPTH, EMPTY, Child, NodeReader, make_leaf, way


class OtherLeaf(Record, frozen=True):
    """A lone key that stands where the asked one would: the hash of the key and of its value."""

    place: Bytes32
    value: Bytes32


class StatePath(Record, frozen=True):
    """The way from the root of a tree to a key.

    `empty` has a bit for each level, the one below the root first, set where the sibling is an
    empty subtree; the last byte is filled with zeros. `siblings` are the others, root first.
    """

    levels: Annotated[int, Meta(ge=0, le=DEPTH)]
    empty: Annotated[bytes, Meta(max_length=DEPTH // 8)]
    siblings: Annotated[tuple[Bytes32, ...], Meta(max_length=DEPTH)]
    other: OtherLeaf | None


def prove(nodes: NodeReader, root: Child, place: str) -> tuple[bytes | None, StatePath]:
    """The digest of the value at a place, None when there is none, and the path that shows it.

    Raises: Rejected(MALFORMED) when these are nodes of another tree.
    """
    leaf, siblings = way(nodes, root, place)
    bits = sum(1 << DEPTH - 1 - level for level, item in enumerate(siblings) if item == EMPTY)
    path = StatePath(
        levels=len(siblings),
        empty=bits.to_bytes(DEPTH // 8, "big")[: _bytes_for(len(siblings))],
        siblings=tuple(item for item in siblings if item != EMPTY),
        other=None
        if leaf is None or leaf.place == place
        else OtherLeaf(bytes.fromhex(leaf.place), leaf.value),
    )
    return (leaf.value if leaf is not None and leaf.place == place else None), path


def root_of_path(digest: Digest, place: str, value: bytes | None, path: StatePath) -> bytes:
    """The root under which the key of `place` has this value digest, or none, if the path is true.

    Raises: Rejected(BAD_PROOF) for a path that no tree gives. Cost: a hash for each level.
    """
    bits = int(place, 16)
    node = _end(digest, place, value, path)
    empty = _empty_levels(path)
    siblings = list(path.siblings)
    if EMPTY in siblings:
        raise Rejected(Reason.BAD_PROOF, "an empty sibling is a bit, not a hash")
    for level in range(path.levels - 1, -1, -1):
        if empty >> DEPTH - 1 - level & 1:
            sibling = EMPTY
        elif siblings:
            sibling = siblings.pop()
        else:
            raise Rejected(Reason.BAD_PROOF, "a sibling is missing", levels=path.levels)
        is_right = bits >> DEPTH - 1 - level & 1
        node = digest(NODE + sibling + node) if is_right else digest(NODE + node + sibling)
    if siblings:
        raise Rejected(Reason.BAD_PROOF, "siblings are left over", left=len(siblings))
    return node


def _end(digest: Digest, place: str, value: bytes | None, path: StatePath) -> bytes:
    """What stands at the end of the way."""
    other = path.other
    if value is not None:
        if other is not None:
            raise Rejected(Reason.BAD_PROOF, "a value, and another key in its place")
        return make_leaf(digest, place, value).hash
    if other is None:
        return EMPTY
    apart = int(place, 16) ^ int.from_bytes(other.place, "big")
    if not apart or apart >> DEPTH - path.levels:
        raise Rejected(Reason.BAD_PROOF, "the other key does not stand in this place")
    return make_leaf(digest, other.place.hex(), other.value).hash


def _empty_levels(path: StatePath) -> int:
    """The bits of `empty`, the level below the root as the highest of 256."""
    if len(path.empty) != _bytes_for(path.levels):
        raise Rejected(Reason.BAD_PROOF, "one bit for each level", levels=path.levels)
    bits = int.from_bytes(path.empty.ljust(DEPTH // 8, b"\0"), "big")
    if bits & (1 << DEPTH - path.levels) - 1:
        raise Rejected(Reason.BAD_PROOF, "a bit beyond the last level")
    return bits


def _bytes_for(levels: int) -> int:
    return (levels + 7) // 8
