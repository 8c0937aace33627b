"""The sparse Merkle tree of a namespace's state: one root for all values, and for all absences.

What it decides: the root after a set of writes, and what lies on the way to a key. What it never
does: touch a disk; nodes are read and written through a port.
A key stands at the 256 bits of its hash, most significant first. An empty subtree is 32 zero bytes,
a subtree with one key is that key's leaf whatever its height, any other is the hash of its halves.
So the root depends on the pairs of key and value alone, not on the order in which they came. Four
levels at a time are one node of 16 children, which is what a store keeps.
Source: Gao, Hu, Wu, "Jellyfish Merkle Tree" (2021); research consensus-reliability section 3.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import msgspec

from ledger.errors import Reason, Rejected
from ledger.merkle import LEAF, NODE, Digest

EMPTY = bytes(32)
KEY_TAG = b"kl.state-key\0"
LEAF_TAG = LEAF + b"kl.state-leaf\0"
DEPTH = 256
"""Bits of a place: no way is longer."""

_DIGITS = "0123456789abcdef"
CHILDREN = 16

T = TypeVar("T")


class Leaf(msgspec.Struct, frozen=True, gc=False):
    """One key: its place in the tree, the digest of its value, and the hash of both."""

    place: str
    """The hash of the key as 64 hexadecimal digits, one for each node on the way."""
    value: bytes
    hash: bytes


Child = Leaf | bytes | None
"""What stands below a node: a lone key, the root of a node with more keys, or nothing."""


class TreeNode:
    """Four levels of the tree: cell 1 is the root, cell n stands over the cells 2n and 2n + 1.

    The cells from 16 on are the children.
    """

    __slots__ = ("cells",)

    def __init__(self) -> None:
        self.cells: list[Child] = [None] * (2 * CHILDREN)


class NodeReader(Protocol):
    """Where the nodes of one tree are found, each by the digits of its place."""

    def get(self, place: str, /) -> TreeNode:
        """A node that was put before."""
        ...


class NodeStore(NodeReader, Protocol):
    """Where the nodes of one tree are kept."""

    def put(self, place: str, node: TreeNode, /) -> None:
        """Keep a new or changed node."""
        ...

    def drop(self, place: str, /) -> None:
        """Forget the node of a place, if there is one: fewer than two keys are left there."""
        ...


class KeptNodes:
    """The nodes of a small tree in memory; implements `NodeStore`."""

    def __init__(self) -> None:
        self.nodes: dict[str, TreeNode] = {}

    def get(self, place: str, /) -> TreeNode:
        """A node that was put."""
        return self.nodes[place]

    def put(self, place: str, node: TreeNode, /) -> None:
        """Keep a node."""
        self.nodes[place] = node

    def drop(self, place: str, /) -> None:
        """Forget a node."""
        self.nodes.pop(place, None)


Change = tuple[str, bytes | None]
"""The place of a key and the digest of its new value; None deletes."""


def place_of(digest: Digest, key: bytes) -> str:
    """Where a key stands."""
    return digest(KEY_TAG + key).hex()


def make_leaf(digest: Digest, place: str, value: bytes) -> Leaf:
    """The leaf of the key at a place, with the 32-byte digest of its value."""
    return Leaf(place, value, digest(LEAF_TAG + bytes.fromhex(place) + value))


def hash_of(child: Child) -> bytes:
    """The 32 bytes that stand for a child in the hash above it."""
    if child is None:
        return EMPTY
    return child.hash if isinstance(child, Leaf) else child


def joined(digest: Digest, left: Child, right: Child) -> Child:
    """What stands over two children: the one that is there if it is a lone key, else a hash."""
    if right is None and not isinstance(left, bytes):
        return left
    if left is None and not isinstance(right, bytes):
        return right
    return digest(NODE + hash_of(left) + hash_of(right))


class SparseTree:
    """One tree over its store. `root` is all that has to be remembered beside the nodes."""

    __slots__ = ("_digest", "_store", "root")

    def __init__(self, digest: Digest, store: NodeStore, root: Child = None) -> None:
        self._digest = digest
        self._store = store
        self.root = root

    @property
    def root_hash(self) -> bytes:
        """The 32 bytes that commit to all keys and values."""
        return hash_of(self.root)

    def update(self, changes: Sequence[Change]) -> None:
        """Apply changes that ascend by place, one for each key.

        Cost: about 12 hashes for each change in a tree of a million keys.
        Raises: Rejected(MALFORMED) when the store holds another tree.
        """
        if changes:
            self.root = self._child("", self.root, changes)

    def _child(self, place: str, child: Child, changes: Sequence[Change]) -> Child:
        """What stands at `place` after the changes below it."""
        if isinstance(child, bytes):
            return self._changed(place, _node(self._store, place, child), changes)
        first, value = changes[0]
        if len(changes) == 1 and (child is None or child.place == first):
            return None if value is None else make_leaf(self._digest, first, value)
        leaves = [make_leaf(self._digest, key, new) for key, new in changes if new is not None]
        if child is not None and all(key != child.place for key, _ in changes):
            leaves.append(child)
            leaves.sort(key=_place)
        return self.grown(place, leaves)

    def grown(self, place: str, leaves: Sequence[Leaf]) -> Child:
        """What stands at `place` over these leaves alone, which ascend; `root` stays as it is."""
        if len(leaves) < 2:
            return leaves[0] if leaves else None
        node = TreeNode()
        for digit, part in _by_digit(leaves, len(place), _place):
            node.cells[CHILDREN + digit] = self.grown(place + _DIGITS[digit], part)
        return self._settled(place, node, range(CHILDREN, 2 * CHILDREN))

    def _changed(self, place: str, node: TreeNode, changes: Sequence[Change]) -> Child:
        cells, depth = node.cells, len(place)
        changed: list[int] = []
        for digit, part in _by_digit(changes, depth, _changed_place):
            cell = CHILDREN + digit
            cells[cell] = self._child(place + _DIGITS[digit], cells[cell], part)
            changed.append(cell)
        return self._settled(place, node, changed)

    def _settled(self, place: str, node: TreeNode, changed: Sequence[int]) -> Child:
        """Hash over changed children; a node with less than two keys gives way to what it holds."""
        cells, digest = node.cells, self._digest
        level = changed
        while level[0] > 1:
            above: list[int] = []
            last = 0
            for cell in level:
                parent = cell >> 1
                if parent == last:
                    continue
                last = parent
                above.append(parent)
                left, right = cells[2 * parent], cells[2 * parent + 1]
                # The likely case written out: these lines run ten times for each change.
                if type(left) is bytes and type(right) is bytes:
                    cells[parent] = digest(NODE + left + right)
                else:
                    cells[parent] = joined(digest, left, right)
            level = above
        root = cells[1]
        if isinstance(root, bytes):
            self._store.put(place, node)
        else:
            self._store.drop(place)
        return root


def way(nodes: NodeReader, root: Child, place: str) -> tuple[Leaf | None, list[bytes]]:
    """The leaf at the end of the way to a place, if any, and the siblings from the root down.

    The leaf is that of another key when the place holds none but a lone neighbour. The end has
    as many bits in common with the place as there are siblings.
    Raises: Rejected(MALFORMED) when these are nodes of another tree.
    """
    siblings: list[bytes] = []
    child, depth = root, 0
    while isinstance(child, bytes):
        cells, cell = _node(nodes, place[:depth], child).cells, 1
        digit = int(place[depth], 16)
        for bit in (8, 4, 2, 1):
            cell = 2 * cell + (digit & bit != 0)
            siblings.append(hash_of(cells[cell ^ 1]))
            child = cells[cell]
            if not isinstance(child, bytes):
                break
        depth += 1
    return child, siblings


def _node(nodes: NodeReader, place: str, root: bytes) -> TreeNode:
    node = nodes.get(place)
    if node.cells[1] != root:
        raise Rejected(Reason.MALFORMED, "a node is not the one that stands there", place=place)
    return node


def _place(leaf: Leaf) -> str:
    return leaf.place


def _changed_place(change: Change) -> str:
    return change[0]


def _by_digit(
    items: Sequence[T], depth: int, place: Callable[[T], str]
) -> Iterator[tuple[int, Sequence[T]]]:
    """Runs of ascending items that share the digit at `depth`, with that digit."""
    start, first = 0, place(items[0])[depth]
    for index in range(1, len(items)):
        digit = place(items[index])[depth]
        if digit != first:
            yield int(first, 16), items[start:index]
            start, first = index, digit
    yield int(first, 16), items[start:]
