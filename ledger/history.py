"""The history of block hashes: an append-only RFC 6962 log that grows by O(1) nodes.

What it decides: the root after each block, and paths that show inclusion and consistency. The
frontier (one peak per set bit of the count) is all that appending needs; complete nodes never
change, so a store may keep them for ever. What it never does: touch a disk; nodes are read through
a port.
Source: RFC 6962 sections 2.1.1 and 2.1.2; RFC 9162 section 2.1.4.2 (verification); docs/format.md
section 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Protocol

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema
from ledger.errors import Reason, Rejected, invariant
from ledger.ids import Bytes32, Count
from ledger.merkle import LEAF, NODE, Digest, sized_root

HISTORY_TAG = b"kl.history\0"
FRONTIER_BYTES = 4 * limits.KIB
"""63 peaks of 34 bytes and a count."""


@dataclass(frozen=True, slots=True)
class Node:
    """A complete subtree: it covers the entries [index << level, (index + 1) << level)."""

    level: int
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True)
class TreeHead:
    """The size of a log and its bare RFC 6962 head."""

    size: int
    head: bytes

    def sized_root(self, digest: Digest) -> bytes:
        """What a block header holds as its history root."""
        return sized_root(digest, self.size, self.head)


class NodeReader(Protocol):
    """Where the complete nodes of a log are kept."""

    def get(self, level: int, index: int, /) -> bytes:
        """The 32-byte hash of a complete node that was appended before."""
        ...


class Frontier(Record, frozen=True):
    """A log's count and the heads of its complete subtrees, largest (leftmost) first."""

    count: Count
    peaks: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROOF_PATH)]

    def append(self, digest: Digest, entry: bytes) -> tuple["Frontier", tuple[Node, ...]]:
        """The frontier with one more entry, and the nodes that became complete, lowest first.

        Cost: one hash for the leaf and one for each trailing set bit of the count.
        """
        grown, rows = self.extend(digest, [digest(LEAF + entry)])
        nodes = (Node(level, self.count >> level, row[0]) for level, row in enumerate(rows))
        return grown, tuple(nodes)

    def extend(
        self, digest: Digest, leaves: Sequence[bytes]
    ) -> tuple["Frontier", list[Sequence[bytes]]]:
        """The frontier with more leaf hashes, and for each level the nodes that became complete.

        The first of the row of level l has the index `count >> l`; rows that would be empty are
        left out.  Cost: less than one hash for each leaf.
        """
        # Peaks by level, smallest first: one for each set bit of the count.
        levels = [level for level in range(self.count.bit_length()) if self.count >> level & 1]
        peaks = dict(zip(levels, reversed(self.peaks), strict=True))
        rows: list[Sequence[bytes]] = []
        row, level = leaves, 0
        while row:
            rows.append(row)
            # A peak is a finished subtree on the left: it pairs with the first new node.
            left = peaks.pop(level, None)
            whole = row if left is None else [left, *row]
            if len(whole) % 2:
                peaks[level] = whole[-1]
            pairs = zip(whole[0::2], whole[1::2], strict=False)
            row = [digest(NODE + one + other) for one, other in pairs]
            level += 1
        ordered = tuple(peaks[level] for level in sorted(peaks, reverse=True))
        return Frontier(self.count + len(leaves), ordered), rows

    def head(self, digest: Digest) -> TreeHead:
        """The head of the log.  Cost: one hash less than there are peaks."""
        return TreeHead(self.count, _fold(digest, self.peaks))

    def sized_root(self, digest: Digest) -> bytes:
        """What a block header holds as its history root."""
        return self.head(digest).sized_root(digest)


EMPTY_FRONTIER = Frontier(0, ())
_FRONTIER = Schema(Frontier, max_bytes=FRONTIER_BYTES)


def history_entry(block_hash: bytes) -> bytes:
    """The entry of one block."""
    return HISTORY_TAG + block_hash


def restore_frontier(data: bytes) -> Frontier:
    """The frontier of its canonical bytes.

    Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL).
    """
    frontier = _FRONTIER.decode(data)
    if len(frontier.peaks) != frontier.count.bit_count():
        raise Rejected(Reason.MALFORMED, "peaks are not those of the count", count=frontier.count)
    return frontier


def tree_head(reader: NodeReader, digest: Digest, size: int) -> TreeHead:
    """The head the log had at `size` entries.  Cost: O(log size) nodes."""
    invariant(size >= 0, "a log has no negative size")
    return TreeHead(size, range_head(reader, digest, 0, size))


def inclusion_path(reader: NodeReader, digest: Digest, index: int, size: int) -> tuple[bytes, ...]:
    """The siblings from entry `index` up to the head at `size`; `merkle` verifies it.

    Cost: O(log size) steps of O(log size) nodes on the right edge.  Source: RFC 6962 2.1.1.
    """
    return path_to_node(reader, digest, 0, index, size)


def path_to_node(
    reader: NodeReader, digest: Digest, level: int, index: int, size: int
) -> tuple[bytes, ...]:
    """The same from the node of a level that begins with entry `index << level`.

    The last node of a level may be incomplete; its head takes the place of its hash.
    """
    invariant(0 <= index << level < size, "the entry is not in the log")
    first = index << level
    path: list[bytes] = []
    start, end = 0, size
    while end - start > 1 << level:
        split = split_point(start, end)
        if first < split:
            path.append(range_head(reader, digest, split, end))
            end = split
        else:
            path.append(range_head(reader, digest, start, split))
            start = split
    return tuple(reversed(path))


def consistency_path(
    reader: NodeReader, digest: Digest, old_size: int, new_size: int
) -> tuple[bytes, ...]:
    """The nodes that show the log of `old_size` to be the beginning of that of `new_size`.

    Empty for equal sizes and for an empty old log.  Source: RFC 6962 section 2.1.2.
    """
    invariant(0 <= old_size <= new_size, "a log does not shrink")
    if old_size in (0, new_size):
        return ()
    path: list[bytes] = []
    start, end = 0, new_size
    while end != old_size:
        split = split_point(start, end)
        if old_size <= split:
            path.append(range_head(reader, digest, split, end))
            end = split
        else:
            path.append(range_head(reader, digest, start, split))
            start = split
    if start:
        # The verifier knows the old head; only a subtree of it must be told.
        path.append(range_head(reader, digest, start, end))
    return tuple(reversed(path))


def verify_consistency(digest: Digest, old: TreeHead, new: TreeHead, path: Sequence[bytes]) -> None:
    """Check that the log of head `old` is the beginning of the log of head `new`.

    Every step of the path is used exactly once. The caller binds both heads to signed sized roots.
    Raises: Rejected(BAD_PROOF).  Source: RFC 9162 section 2.1.4.2.
    """
    if old.size == 0:
        if old.head != digest(b"") or path or (new.size == 0 and new.head != old.head):
            raise Rejected(Reason.BAD_PROOF, "an empty log has one head and no path")
        return
    if extended_head(digest, old, new.size, path) != new.head:
        raise Rejected(Reason.BAD_PROOF, "the path leads to another head")


def extended_head(digest: Digest, old: TreeHead, size: int, path: Sequence[bytes]) -> bytes:
    """The head of the log of `size` entries that begins with the log of `old`, if a path is true.

    `old` has at least one entry. Raises: Rejected(BAD_PROOF), also where the path leads to another
    old head.  Source: RFC 9162 section 2.1.4.2.
    """
    if not 0 < old.size <= size or len(path) > limits.PROOF_PATH + 1:
        raise Rejected(Reason.BAD_PROOF, "a log does not shrink", old=old.size, new=size)
    if old.size == size:
        if path:
            raise Rejected(Reason.BAD_PROOF, "equal sizes have no path", steps=len(path))
        return old.head
    # An old log of 2**k entries is itself a node of the new tree, and its head opens the path.
    steps = [old.head, *path] if old.size.bit_count() == 1 else list(path)
    if not steps:
        raise Rejected(Reason.BAD_PROOF, "path is too short", steps=0)
    old_last, new_last = old.size - 1, size - 1
    while old_last & 1:
        old_last, new_last = old_last >> 1, new_last >> 1
    old_head = new_head = steps[0]
    for step in steps[1:]:
        if new_last == 0:
            raise Rejected(Reason.BAD_PROOF, "path is too long", steps=len(path))
        if old_last & 1 or old_last == new_last:
            old_head = digest(NODE + step + old_head)
            new_head = digest(NODE + step + new_head)
            while old_last and not old_last & 1:
                old_last, new_last = old_last >> 1, new_last >> 1
        else:
            new_head = digest(NODE + new_head + step)
        old_last, new_last = old_last >> 1, new_last >> 1
    if new_last != 0:
        raise Rejected(Reason.BAD_PROOF, "path is too short", steps=len(path))
    if old_head != old.head:
        raise Rejected(Reason.BAD_PROOF, "the path leads to another old head")
    return new_head


def split_point(start: int, end: int) -> int:
    """Where a tree over the entries [start, end) splits, end - start > 1.  Source: RFC 6962 2.1."""
    # The left part has the largest power of two of entries that is below the whole.
    return start + (1 << (end - start - 1).bit_length() - 1)


def range_head(reader: NodeReader, digest: Digest, start: int, end: int) -> bytes:
    """The bare head over the entries [start, end), a range that splits lead to.

    Cost: O(log (end - start)) nodes.
    """
    # Every range that a split yields starts at a multiple of each power of two it is made of.
    peaks: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        peaks.append(reader.get(level, start >> level))
        start += 1 << level
    return _fold(digest, peaks)


def _fold(digest: Digest, peaks: Sequence[bytes]) -> bytes:
    if not peaks:
        return digest(b"")
    head = peaks[-1]
    for peak in reversed(peaks[:-1]):
        head = digest(NODE + peak + head)
    return head
