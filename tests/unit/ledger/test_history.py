"""The history log grows by complete nodes only, and its paths are those of RFC 6962."""

from hashlib import sha256

import pymerkle
import pytest

from ledger.codec import encode
from ledger.errors import InvariantError, Reason, Rejected
from ledger.history import (
    EMPTY_FRONTIER,
    HISTORY_TAG,
    Frontier,
    Node,
    TreeHead,
    consistency_path,
    history_entry,
    inclusion_path,
    restore_frontier,
    tree_head,
    verify_consistency,
)
from ledger.merkle import head_from_path, leaf_hash, sized_root

LAST = 70


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


class Nodes:
    """A node store in memory."""

    def __init__(self) -> None:
        self.hashes: dict[tuple[int, int], bytes] = {}

    def add(self, nodes: tuple[Node, ...]) -> None:
        for node in nodes:
            assert (node.level, node.index) not in self.hashes, "a node is written once"
            self.hashes[node.level, node.index] = node.hash

    def get(self, level: int, index: int, /) -> bytes:
        return self.hashes[level, index]


def entry(number: int) -> bytes:
    return history_entry(digest(b"block %d" % number))


def grow(size: int) -> tuple[Nodes, list[Frontier], pymerkle.InmemoryTree]:
    nodes, frontiers, oracle = Nodes(), [EMPTY_FRONTIER], pymerkle.InmemoryTree("sha256")
    for number in range(size):
        frontier, complete = frontiers[-1].append(digest, entry(number))
        nodes.add(complete)
        frontiers.append(frontier)
        oracle.append_entry(entry(number))
    return nodes, frontiers, oracle


NODES, FRONTIERS, ORACLE = grow(LAST)
HEADS = [ORACLE.get_root(size) for size in range(LAST + 1)]


def rfc_consistency(old: int, entries: list[bytes], *, whole: bool = True) -> list[bytes]:
    """SUBPROOF of RFC 6962 section 2.1.2, word by word."""
    if old == len(entries):
        return [] if whole else [mth(entries)]
    split = 1
    while split * 2 < len(entries):
        split *= 2
    if old <= split:
        return [*rfc_consistency(old, entries[:split], whole=whole), mth(entries[split:])]
    return [*rfc_consistency(old - split, entries[split:], whole=False), mth(entries[:split])]


def mth(entries: list[bytes]) -> bytes:
    """The Merkle tree hash by the oracle."""
    return pymerkle.InmemoryTree.init_from_entries(entries, algorithm="sha256").get_root()


def test_an_entry_is_a_tagged_block_hash():
    assert history_entry(b"h" * 32) == b"kl.history\0" + b"h" * 32
    assert HISTORY_TAG == b"kl.history\0"


def test_the_head_at_every_size_is_that_of_the_oracle():
    for size in range(LAST + 1):
        assert FRONTIERS[size].head(digest) == TreeHead(size, HEADS[size])
        assert tree_head(NODES, digest, size) == TreeHead(size, HEADS[size])
        assert FRONTIERS[size].sized_root(digest) == sized_root(digest, size, HEADS[size])


def test_a_frontier_comes_back_from_its_bytes_and_grows_on():
    for size in range(LAST):
        restored = restore_frontier(encode(FRONTIERS[size]))
        assert restored == FRONTIERS[size]
        assert restored.append(digest, entry(size))[0] == FRONTIERS[size + 1]


def test_a_frontier_whose_peaks_are_not_those_of_its_count_is_refused():
    for count, peaks in ((0, 1), (1, 0), (3, 1), (4, 2)):
        with pytest.raises(Rejected) as caught:
            restore_frontier(encode(Frontier(count, (bytes(32),) * peaks)))
        assert caught.value.reason is Reason.MALFORMED


def test_appending_writes_one_node_more_than_the_count_has_trailing_ones():
    for size in range(LAST):
        _, nodes = FRONTIERS[size].append(digest, entry(size))
        ones = (size ^ (size + 1)).bit_length()
        assert [(node.level, node.index) for node in nodes] == [
            (level, size >> level) for level in range(ones)
        ]


def test_inclusion_paths_are_those_of_the_oracle_for_every_size():
    for size in range(1, LAST + 1):
        for index in range(size):
            path = inclusion_path(NODES, digest, index, size)
            # The oracle counts from one and puts the leaf itself in front.
            assert list(path) == ORACLE.prove_inclusion(index + 1, size).path[1:]
            leaf = leaf_hash(digest, entry(index))
            assert head_from_path(digest, leaf, index, size, path) == HEADS[size]


def test_consistency_paths_are_those_of_the_rfc_and_verify_for_every_pair_of_sizes():
    entries = [entry(number) for number in range(LAST)]
    for new in range(1, LAST + 1):
        for old in range(new + 1):
            path = consistency_path(NODES, digest, old, new)
            if old and new < 34:
                assert list(path) == rfc_consistency(old, entries[:new])
            verify_consistency(digest, TreeHead(old, HEADS[old]), TreeHead(new, HEADS[new]), path)


def bad(old: TreeHead, new: TreeHead, path: tuple[bytes, ...]) -> bool:
    try:
        verify_consistency(digest, old, new, path)
    except Rejected as refused:
        return refused.reason is Reason.BAD_PROOF
    return False


def test_a_consistency_path_that_is_cut_extended_or_changed_is_refused():
    for new in range(1, 34):
        for old in range(1, new + 1):
            path = consistency_path(NODES, digest, old, new)
            before, after = TreeHead(old, HEADS[old]), TreeHead(new, HEADS[new])
            assert bad(before, after, (*path, bytes(32)))
            assert bad(before, after, (bytes(32), *path))
            assert bad(TreeHead(old, bytes(32)), after, path)
            assert bad(before, TreeHead(new, bytes(32)), path)
            for place in range(len(path)):
                assert bad(before, after, path[:place] + path[place + 1 :])
                assert bad(before, after, path[: place + 1] + path[place:])
                assert bad(before, after, (*path[:place], bytes(32), *path[place + 1 :]))


def join(left: bytes, right: bytes) -> bytes:
    return digest(b"\x01" + left + right)


def test_a_path_of_the_wrong_length_is_refused_even_when_the_heads_are_made_to_fit():
    a, b, c, d = (digest(b"step %d" % number) for number in range(4))
    old, new = join(c, a), join(c, join(a, b))
    verify_consistency(digest, TreeHead(3, old), TreeHead(4, new), (a, b, c))
    assert bad(TreeHead(3, join(d, old)), TreeHead(4, join(d, new)), (a, b, c, d))
    verify_consistency(digest, TreeHead(3, old), TreeHead(8, join(new, d)), (a, b, c, d))
    assert bad(TreeHead(3, old), TreeHead(8, new), (a, b, c))
    assert bad(TreeHead(3, old), TreeHead(4, new), ())
    assert bad(TreeHead(6, join(b, a)), TreeHead(5, join(b, a)), (a, b))
    assert bad(TreeHead(3, old), TreeHead(2**63 - 1, new), (a,) * 65)


def test_a_rewritten_log_is_not_consistent():
    other = Nodes()
    frontier = EMPTY_FRONTIER
    for number in range(20):
        number_or_forgery = 999 if number == 5 else number
        frontier, complete = frontier.append(digest, entry(number_or_forgery))
        other.add(complete)
    path = consistency_path(other, digest, 10, 20)
    assert bad(TreeHead(10, HEADS[10]), frontier.head(digest), path)


def test_a_log_that_shrinks_is_refused():
    assert bad(TreeHead(5, HEADS[5]), TreeHead(4, HEADS[4]), ())
    assert bad(TreeHead(-1, HEADS[0]), TreeHead(4, HEADS[4]), ())


def test_an_empty_log_begins_every_log_but_only_with_its_own_head():
    empty = TreeHead(0, digest(b""))
    for size in (0, 1, 9):
        verify_consistency(digest, empty, TreeHead(size, HEADS[size]), ())
    assert bad(TreeHead(0, bytes(32)), TreeHead(9, HEADS[9]), ())
    assert bad(empty, TreeHead(9, HEADS[9]), (bytes(32),))
    assert bad(empty, TreeHead(0, bytes(32)), ())


def test_asking_for_a_path_outside_the_log_is_our_own_fault():
    for index, size in ((3, 3), (-1, 3), (0, 0)):
        with pytest.raises(InvariantError):
            inclusion_path(NODES, digest, index, size)
    for old, new in ((4, 3), (-1, 3)):
        with pytest.raises(InvariantError):
            consistency_path(NODES, digest, old, new)
    with pytest.raises(InvariantError):
        tree_head(NODES, digest, -1)
