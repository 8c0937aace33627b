"""How a node of a sparse tree is kept: its children, and none of the hashes that follow from them.

Two bits for each child, there and alone, then the children in order: a lone key as its place and
the digest of its value, a subtree as its root. The levels in between are hashed anew when a node is
read: half the bytes on disk for up to 14 hashes (docs/decisions/0033-sparse-tree.md).
"""

from struct import Struct

from ledger.errors import Reason, Rejected
from ledger.merkle import Digest
from ledger.sparse import CHILDREN, Child, Leaf, TreeNode, joined, make_leaf

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
        return make_leaf(digest, data[:_HASH].hex(), data[_HASH:])
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
        if child is not None:
            present |= 1
            alone |= isinstance(child, Leaf)
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
    cells, bit = node.cells, 1 << CHILDREN - 1
    for cell in range(CHILDREN, 2 * CHILDREN):
        if present & bit:
            size = _LEAF if alone & bit else _HASH
            cells[cell] = decode_child(digest, data[at : at + size])
            at += size
        bit >>= 1
    for cell in range(CHILDREN - 1, 0, -1):
        cells[cell] = joined(digest, cells[2 * cell], cells[2 * cell + 1])
    return node
