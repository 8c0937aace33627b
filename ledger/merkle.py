"""Merkle trees of RFC 6962 with a root that binds the number of entries.

What it decides: roots, inclusion and consistency of ordered lists of entries.
Every tree of the chain is this tree. What its entries mean is kept apart by a tag at the front of
each entry; leaves and inner nodes are kept apart by one byte, as in the RFC.
A signed structure never holds a bare tree head but the *sized root* H(0x02 || count || head): the
shape of a path depends on the count, so a proof with a wrong count must not lead to the root.
Source: RFC 6962 section 2.1; RFC 9162 sections 2.1.3.2 and 2.1.4.2 (verification).
"""

from collections.abc import Callable, Generator, Iterable, Sequence

from ledger import limits
from ledger.errors import Reason, Rejected
from ledger.steps import finish

Digest = Callable[[bytes], bytes]

LEAF = b"\x00"
NODE = b"\x01"
SIZED = b"\x02"
STEP_HASHES = 512
"""Hashes between two looks at an event loop, for who has one: about 0.5 ms."""


def leaf_hash(digest: Digest, entry: bytes) -> bytes:
    """The hash of one entry as a leaf."""
    return digest(LEAF + entry)


def sized_root(digest: Digest, count: int, head: bytes) -> bytes:
    """The 32 bytes that stand in signed structures: count (8 bytes, big-endian) and tree head."""
    return digest(SIZED + count.to_bytes(8, "big") + head)


def tree_head(digest: Digest, leaves: Sequence[bytes]) -> bytes:
    """The RFC 6962 head of leaf hashes, H("") for none.  Cost: len(leaves) - 1 hashes.

    Pairing neighbours level by level and carrying an odd last node up unchanged gives exactly the
    RFC's split at the largest power of two.
    """
    if not leaves:
        return digest(b"")
    level = leaves
    while len(level) > 1:
        paired = [
            digest(NODE + left + right)
            for left, right in zip(level[0::2], level[1::2], strict=False)
        ]
        if len(level) % 2:
            paired.append(level[-1])
        level = paired
    return level[0]


def root_of_leaves(digest: Digest, leaves: Sequence[bytes]) -> bytes:
    """The sized root of leaf hashes."""
    return sized_root(digest, len(leaves), tree_head(digest, leaves))


def root_of_entries(digest: Digest, entries: Sequence[bytes]) -> bytes:
    """The sized root of entries."""
    return root_of_leaves(digest, [digest(LEAF + entry) for entry in entries])


def inclusion_path(digest: Digest, leaves: Sequence[bytes], index: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf `index` up to the head.  Cost: len(leaves) - 1 hashes."""
    return path_in(finish(_levels(digest, list(leaves))), index)


def root_steps(digest: Digest, entries: Iterable[bytes]) -> Generator[None, None, bytes]:
    """The sized root of entries, found in steps of at most STEP_HASHES hashes."""
    return root_over(digest, (yield from tree_steps(digest, entries)))


def tree_steps(
    digest: Digest, entries: Iterable[bytes]
) -> Generator[None, None, list[list[bytes]]]:
    """The hashes of the tree of entries, leaves first, level by level, in steps as `root_steps`."""
    leaves: list[bytes] = []
    for entry in entries:
        leaves.append(digest(LEAF + entry))
        if len(leaves) % STEP_HASHES == 0:
            yield
    return (yield from _levels(digest, leaves))


def root_over(digest: Digest, levels: Sequence[Sequence[bytes]]) -> bytes:
    """The sized root of a tree from its levels."""
    head = levels[-1][0] if levels[0] else digest(b"")
    return sized_root(digest, len(levels[0]), head)


def path_in(levels: Sequence[Sequence[bytes]], index: int) -> tuple[bytes, ...]:
    """The sibling hashes from leaf `index` up to the head, from the levels of a tree."""
    path: list[bytes] = []
    for level in levels:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        index //= 2
    return tuple(path)


def _levels(digest: Digest, leaves: list[bytes]) -> Generator[None, None, list[list[bytes]]]:
    """All levels over leaf hashes, paired as in `tree_head`."""
    levels = [leaves]
    while len(level := levels[-1]) > 1:
        above: list[bytes] = []
        for start in range(0, len(level) - 1, 2 * STEP_HASHES):
            stop = start + 2 * STEP_HASHES
            lefts, rights = level[start:stop:2], level[start + 1 : stop : 2]
            pairs = zip(lefts, rights, strict=False)
            above += [digest(NODE + left + right) for left, right in pairs]
            yield
        if len(level) % 2:
            above.append(level[-1])
        levels.append(above)
    return levels


def head_from_path(
    digest: Digest, leaf: bytes, index: int, count: int, path: Sequence[bytes]
) -> bytes:
    """The tree head that a path leads to; every step of the path is used exactly once.

    Raises: Rejected(BAD_PROOF) for an index outside the tree or a path of the wrong length.
    Source: RFC 9162 section 2.1.3.2.
    """
    if not 0 <= index < count or len(path) > limits.PROOF_PATH:
        raise Rejected(Reason.BAD_PROOF, "index outside the tree", index=index, count=count)
    node, last, steps = leaf, count - 1, iter(path)
    for sibling in steps:
        if last == 0:
            raise Rejected(Reason.BAD_PROOF, "path is too long", steps=len(path))
        if index % 2 == 1 or index == last:
            node = digest(NODE + sibling + node)
            # A right-most node without sibling was carried up: skip the levels it rose.
            while index % 2 == 0 and index:
                index //= 2
                last //= 2
        else:
            node = digest(NODE + node + sibling)
        index //= 2
        last //= 2
    if last != 0:
        raise Rejected(Reason.BAD_PROOF, "path is too short", steps=len(path))
    return node


def root_from_path(
    digest: Digest, entry: bytes, index: int, count: int, path: Sequence[bytes]
) -> bytes:
    """The sized root under which `entry` stands at `index` of `count`, if the path is true.

    Raises: Rejected(BAD_PROOF).
    """
    head = head_from_path(digest, digest(LEAF + entry), index, count, path)
    return sized_root(digest, count, head)
