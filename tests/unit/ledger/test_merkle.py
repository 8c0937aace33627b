"""Trees are those of RFC 6962; the sized root binds the number of entries."""

from hashlib import sha256

import pymerkle
import pytest

from ledger.errors import Reason, Rejected
from ledger.merkle import (
    head_from_path,
    inclusion_path,
    leaf_hash,
    root_from_path,
    root_of_entries,
    root_of_leaves,
    sized_root,
    tree_head,
)

LAST = 70
ENTRIES = [b"entry %d" % number for number in range(LAST)]


def digest(data: bytes) -> bytes:
    return sha256(data).digest()


LEAVES = [leaf_hash(digest, entry) for entry in ENTRIES]
ORACLE = pymerkle.InmemoryTree.init_from_entries(ENTRIES, algorithm="sha256")


def refused(index: int, count: int, path: tuple[bytes, ...], root: bytes) -> bool:
    """Whether this place and path lead elsewhere or nowhere."""
    try:
        return root_from_path(digest, ENTRIES[index % LAST], index, count, path) != root
    except Rejected as refusal:
        return refusal.reason is Reason.BAD_PROOF


def test_heads_and_paths_are_those_of_the_oracle_for_every_size_and_place():
    for size in range(LAST + 1):
        head = ORACLE.get_root(size)
        assert tree_head(digest, LEAVES[:size]) == head
        for index in range(size):
            path = inclusion_path(digest, LEAVES[:size], index)
            # The oracle counts from one and puts the leaf itself in front.
            assert list(path) == ORACLE.prove_inclusion(index + 1, size).path[1:]
            assert head_from_path(digest, LEAVES[index], index, size, path) == head


def test_the_sized_root_is_a_tagged_hash_of_count_and_head():
    head = tree_head(digest, LEAVES[:5])
    expected = digest(b"\x02" + (5).to_bytes(8, "big") + head)
    assert sized_root(digest, 5, head) == expected
    assert root_of_leaves(digest, LEAVES[:5]) == expected
    assert root_of_entries(digest, ENTRIES[:5]) == expected


def test_the_root_of_nothing_is_defined():
    assert root_of_entries(digest, ()) == digest(b"\x02" + bytes(8) + digest(b""))


def test_a_wrong_index_count_or_path_never_leads_to_the_root():
    for size in range(1, 20):
        root = root_of_leaves(digest, LEAVES[:size])
        for index in range(size):
            path = inclusion_path(digest, LEAVES[:size], index)
            assert not refused(index, size, path, root)
            for other in range(-1, size + 2):
                if other != index:
                    assert refused(other, size, path, root)
                    leaf = LEAVES[index]
                    try:
                        head = head_from_path(digest, leaf, other, size, path)
                    except Rejected:
                        continue
                    assert sized_root(digest, size, head) != root
            for count in (0, size - 1, size + 1, 2 * size, 2**63 - 1):
                assert refused(index, count, path, root)
            assert refused(index, size, (*path, bytes(32)), root)
            assert refused(index, size, (bytes(32), *path), root)
            for place in range(len(path)):
                assert refused(index, size, path[:place] + path[place + 1 :], root)
                assert refused(index, size, path[: place + 1] + path[place:], root)
                assert refused(index, size, (*path[:place], bytes(32), *path[place + 1 :]), root)


def test_a_path_without_end_is_refused_before_any_hash():
    with pytest.raises(Rejected) as caught:
        head_from_path(digest, LEAVES[0], 0, 2**63 - 1, [bytes(32)] * 64)
    assert caught.value.reason is Reason.BAD_PROOF


def test_an_inner_node_does_not_pass_for_an_entry():
    inner = LEAVES[0] + LEAVES[1]
    root = root_of_entries(digest, ENTRIES[:2])
    assert root_from_path(digest, inner, 0, 1, ()) != root
    assert head_from_path(digest, leaf_hash(digest, inner), 0, 1, ()) != tree_head(
        digest, LEAVES[:2]
    )


def test_the_order_of_entries_matters():
    assert root_of_entries(digest, ENTRIES[:3]) != root_of_entries(digest, ENTRIES[2::-1])
