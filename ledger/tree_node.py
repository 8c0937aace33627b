"""How a node of a sparse tree is kept: its children, and none of the hashes that follow from them.

Two bits for each child, there and alone, then the children in order: a lone key as its place and
the digest of its value, a subtree as its root. The levels in between are hashed anew when a node is
read: half the bytes on disk for up to 14 hashes (docs/decisions/0033-sparse-tree.md).
"""

from functools import lru_cache
from struct import Struct

from ledger.errors import Reason, Rejected
from ledger.merkle import NODE, Digest
from ledger.sparse import CHILDREN, LEAF_TAG, Child, Leaf, TreeNode, joined

_HEAD = Struct(">HH")
_HASH = 32
_LEAF = 64


def encode_child(child: Child) -> bytes:
    """A child by itself: the root of a tree. Nothing is empty."""
    if child is None:
        return b""
    return bytes.fromhex(child.place) + child.value if isinstance(child, Leaf) else child


def decode_child(digest: Digest, data: bytes) -> Child:
    """What `encode_child` made. Raises: Rejected(MALFORMED)."""
    if len(data) == _LEAF:
        return _leaf(digest, data)
    if len(data) not in (0, _HASH):
        raise Rejected(Reason.MALFORMED, "the root of a tree", size=len(data))
    return data or None


def encode_node(node: TreeNode) -> bytes:
    """A node as bytes."""
    present = alone = 0
    parts: list[bytes] = []
    for child in node.cells[CHILDREN:]:
        present <<= 1
        alone <<= 1
        if type(child) is bytes:
            present |= 1
            parts.append(child)
        elif child is not None:
            present |= 1
            alone |= 1
            parts.append(encode_child(child))
    return _HEAD.pack(present, alone) + b"".join(parts)


def decode_node(digest: Digest, data: bytes) -> TreeNode:
    """The node of its bytes, with all hashes within it. Raises: Rejected(MALFORMED)."""
    if len(data) < _HEAD.size:
        raise Rejected(Reason.MALFORMED, "a node of a tree", size=len(data))
    present, alone = _HEAD.unpack_from(data)
    if len(data) != _HEAD.size + _HASH * (present.bit_count() + (present & alone).bit_count()):
        raise Rejected(Reason.MALFORMED, "a node of a tree", size=len(data))
    node, at = TreeNode(), _HEAD.size
    cells = node.cells
    for cell in _cells(present):
        if alone >> 2 * CHILDREN - 1 - cell & 1:
            cells[cell] = _leaf(digest, data[at : at + _LEAF])
            at += _LEAF
        else:
            cells[cell] = data[at : at + _HASH]
            at += _HASH
    for cell in range(CHILDREN - 1, 0, -1):
        left, right = cells[2 * cell], cells[2 * cell + 1]
        # The likely cases written out: these lines run fifteen times for each node that is read.
        if type(left) is bytes and type(right) is bytes:
            cells[cell] = digest(NODE + left + right)
        elif left is not None or right is not None:
            cells[cell] = joined(digest, left, right)
    return node


@lru_cache(maxsize=1 << CHILDREN)
def _cells(present: int) -> tuple[int, ...]:
    """The cells of the children that are there, first bit first."""
    last = 2 * CHILDREN - 1
    return tuple(cell for cell in range(CHILDREN, last + 1) if present >> last - cell & 1)


def _leaf(digest: Digest, data: bytes) -> Leaf:
    return Leaf(data[:_HASH].hex(), data[_HASH:], digest(LEAF_TAG + data))
