"""Trees in steps: the same roots and paths as at once, and no step does too much."""

import pytest

from ledger.merkle import (
    STEP_HASHES,
    inclusion_path,
    leaf_hash,
    path_in,
    root_from_path,
    root_of_entries,
    root_over,
    tree_steps,
)
from tests.unit.ledger.worlds import SUITE

SIZES = [0, 1, 2, 3, 5, 8, 1_000, STEP_HASHES, STEP_HASHES + 1, 2 * STEP_HASHES + 3, 5_000]


def taken(count):
    """The levels, and the most hashes between two steps."""
    made = 0

    def digest(data):
        nonlocal made
        made += 1
        return SUITE.digest(data)

    steps, most = tree_steps(digest, (n.to_bytes(4, "big") for n in range(count))), 0
    while True:
        made = 0
        try:
            next(steps)
        except StopIteration as end:
            return end.value, max(most, made)
        most = max(most, made)


@pytest.mark.parametrize("count", SIZES)
def test_a_tree_in_steps_is_the_tree(count):
    entries = [n.to_bytes(4, "big") for n in range(count)]
    leaves = [leaf_hash(SUITE.digest, entry) for entry in entries]
    root = root_of_entries(SUITE.digest, entries)
    levels, most = taken(count)
    assert root_over(SUITE.digest, levels) == root
    assert most <= 2 * STEP_HASHES
    for index in {0, count // 2, max(0, count - 1)}:
        path = path_in(levels, index)
        assert path == inclusion_path(SUITE.digest, leaves, index)
        if count:
            entry = entries[index]
            assert root_from_path(SUITE.digest, entry, index, count, path) == root
