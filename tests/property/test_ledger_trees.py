"""Trees of any size agree with the oracle, and two ways of growing agree with each other."""

from hashlib import sha256

import pymerkle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.errors import Reason, Rejected
from ledger.history import (
    EMPTY_FRONTIER,
    Frontier,
    TreeHead,
    consistency_path,
    tree_head,
    verify_consistency,
)
from ledger.history import inclusion_path as history_path
from ledger.merkle import (
    head_from_path,
    inclusion_path,
    leaf_hash,
    root_from_path,
    root_of_entries,
)
from ledger.merkle import tree_head as head_of_leaves


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


class Nodes:
    """A node store in memory."""

    def __init__(self, entries: list[bytes]) -> None:
        self.hashes: dict[tuple[int, int], bytes] = {}
        self.frontier: Frontier = EMPTY_FRONTIER
        for entry in entries:
            self.frontier, nodes = self.frontier.append(digest, entry)
            self.hashes |= {(node.level, node.index): node.hash for node in nodes}

    def get(self, level: int, index: int, /) -> bytes:
        return self.hashes[level, index]


LARGE = [b"%d" % number for number in range(1_100)]
NODES = Nodes(LARGE)
ORACLE = pymerkle.InmemoryTree.init_from_entries(LARGE, algorithm="sha256")


@given(st.lists(st.binary(max_size=8), max_size=300))
def test_both_trees_have_the_head_of_the_oracle(entries):
    expected = pymerkle.InmemoryTree.init_from_entries(entries, algorithm="sha256").get_root()
    assert head_of_leaves(digest, [leaf_hash(digest, entry) for entry in entries]) == expected
    assert Nodes(entries).frontier.head(digest) == TreeHead(len(entries), expected)


@given(st.integers(1, len(LARGE)), st.data())
def test_inclusion_paths_of_the_log_and_of_the_list_are_those_of_the_oracle(size, data):
    index = data.draw(st.integers(0, size - 1))
    path = history_path(NODES, digest, index, size)
    assert list(path) == ORACLE.prove_inclusion(index + 1, size).path[1:]
    leaves = [leaf_hash(digest, entry) for entry in LARGE[:size]]
    assert inclusion_path(digest, leaves, index) == path
    assert head_from_path(digest, leaves[index], index, size, path) == ORACLE.get_root(size)


@given(st.integers(1, len(LARGE)), st.data())
def test_consistency_verifies_between_the_heads_of_the_oracle_and_no_others(new_size, data):
    old_size = data.draw(st.integers(1, new_size))
    path = consistency_path(NODES, digest, old_size, new_size)
    old = TreeHead(old_size, ORACLE.get_root(old_size))
    new = TreeHead(new_size, ORACLE.get_root(new_size))
    assert tree_head(NODES, digest, old_size) == old
    verify_consistency(digest, old, new, path)
    other_size = data.draw(st.integers(1, len(LARGE)).filter(lambda size: size != old_size))
    other = TreeHead(old_size, ORACLE.get_root(other_size))
    with pytest.raises(Rejected):
        verify_consistency(digest, other, new, path)


@settings(max_examples=300)
@given(
    st.lists(st.binary(max_size=4), min_size=1, max_size=40, unique=True),
    st.data(),
)
def test_no_other_entry_place_or_path_leads_to_a_root(entries, data):
    root = root_of_entries(digest, entries)
    leaves = [leaf_hash(digest, entry) for entry in entries]
    index = data.draw(st.integers(0, len(entries) - 1))
    path = list(inclusion_path(digest, leaves, index))
    claim = [entries[index], index, len(entries), path]
    change = data.draw(st.sampled_from(["entry", "index", "count", "drop", "add", "step"]))
    if change == "entry":
        claim[0] += b"!"
    elif change == "index":
        claim[1] = data.draw(st.integers(-1, 50).filter(lambda number: number != index))
    elif change == "count":
        claim[2] = data.draw(st.integers(0, 99).filter(lambda number: number != len(entries)))
    elif change == "add" or not path:
        path.insert(data.draw(st.integers(0, len(path))), bytes(32))
    else:
        place = data.draw(st.integers(0, len(path) - 1))
        path[place : place + 1] = [] if change == "drop" else [bytes(32)]
    try:
        found = root_from_path(digest, *claim)
    except Rejected as refused:
        assert refused.reason is Reason.BAD_PROOF  # noqa: PT017 - either way of refusing is right
        return
    assert found != root
