"""A run of consecutive entries of a log: which they are, where they stand, and nothing between.

What it decides: the head that a run and the nodes beside it lead to. The nodes are the heads of the
largest subtrees without an entry of the run, from left to right, so a run of any length has at most
two for each level. A run of no entries is the head of the whole log, as its only node.
What it never does: bind the head to a size that somebody signed; the caller does.
Source: RFC 6962 section 2.1 (where a tree splits); docs/proofs.md section 3.
"""

from collections.abc import Generator, Iterator, Sequence

from ledger import limits
from ledger.errors import Reason, Rejected, invariant
from ledger.history import NodeReader, range_head, split_point
from ledger.merkle import NODE, Digest

RUN_NODES = 2 * limits.PROOF_PATH
"""One on each side of the run for each level."""
STEP_NODES = 8
"""Nodes between two looks at an event loop: each is read in up to 0.1 ms."""


def run_nodes(
    reader: NodeReader, digest: Digest, first: int, stop: int, size: int
) -> Generator[None, None, tuple[bytes, ...]]:
    """The nodes beside the entries [first, stop) of a log of `size`, in steps.

    Cost: O(log size) steps of O(log size) nodes.
    """
    invariant(0 <= first <= stop <= size and size > 0, "the run is not in the log")
    nodes: list[bytes] = []
    waiting = [(0, size)]
    while waiting:
        start, end = waiting.pop()
        if end <= first or start >= stop or first == stop:
            nodes.append(range_head(reader, digest, start, end))
            if len(nodes) % STEP_NODES == 0:
                yield
        elif end - start > 1:
            split = split_point(start, end)
            waiting += [(split, end), (start, split)]
    return tuple(nodes)


def head_of_run(
    digest: Digest, leaves: Sequence[bytes], first: int, size: int, nodes: Sequence[bytes]
) -> bytes:
    """The bare head of a log of `size` whose leaves from `first` on are these.

    Every node is used exactly once. Raises: Rejected(BAD_PROOF).
    Cost: a hash for each leaf and node.
    """
    if first + len(leaves) > size or (first and not leaves) or len(nodes) > RUN_NODES:
        raise Rejected(Reason.BAD_PROOF, "the run is not in the log", first=first, count=size)
    rest = iter(nodes)
    head = _head(digest, leaves, first, 0, size, rest)
    if next(rest, None) is not None:
        raise Rejected(Reason.BAD_PROOF, "nodes are left over", nodes=len(nodes))
    return head


def _head(
    digest: Digest,
    leaves: Sequence[bytes],
    first: int,
    start: int,
    end: int,
    nodes: Iterator[bytes],
) -> bytes:
    if end <= first or start >= first + len(leaves):
        node = next(nodes, None)
        if node is None:
            raise Rejected(Reason.BAD_PROOF, "a node is missing", start=start, end=end)
        return node
    if end - start == 1:
        return leaves[start - first]
    split = split_point(start, end)
    left = _head(digest, leaves, first, start, split, nodes)
    return digest(NODE + left + _head(digest, leaves, first, split, end, nodes))
