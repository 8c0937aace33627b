"""The sparse Merkle tree against its definition, written down once more without any cleverness."""

from random import Random

import pytest

from ledger.codec import Schema, encode
from ledger.errors import Reason, Rejected
from ledger.merkle import NODE
from ledger.sparse import DEPTH, EMPTY, SparseTree, TreeNode, make_leaf, place_of
from ledger.sparse_proof import OtherLeaf, StatePath, prove, root_of_path
from tests.unit.ledger.worlds import SUITE

PATH = Schema(StatePath, max_bytes=16_384)
digest = SUITE.digest


class MemoryNodes(dict[str, TreeNode]):
    """Nodes in memory. A node that is absent is a KeyError: no caller may ask for one."""

    get = dict.__getitem__
    put = dict.__setitem__

    def drop(self, place):
        self.pop(place, None)


def tree_of(pairs):
    tree = SparseTree(digest, MemoryNodes())
    tree.update(sorted(pairs.items()))
    return tree


def defined_root(pairs, depth=0):
    """The definition: nothing, a lone leaf, or two halves."""
    if not pairs:
        return EMPTY
    if len(pairs) == 1:
        ((place, value),) = pairs.items()
        return make_leaf(digest, place, value).hash
    halves = [{}, {}]
    for place, value in pairs.items():
        halves[int(place, 16) >> DEPTH - 1 - depth & 1][place] = value
    left, right = (defined_root(half, depth + 1) for half in halves)
    if not all(halves) and len(halves[0] or halves[1]) == 1:
        return left if halves[0] else right
    return digest(NODE + left + right)


def some_place(number, *, shared=0):
    """A place; the first `shared` digits are the same for all numbers."""
    place = place_of(digest, number.to_bytes(4, "big"))
    return "5" * shared + place[shared:]


def value_of(number):
    return digest(b"value %d" % number)


@pytest.mark.parametrize("shared", [0, 1, 7, 40, 62])
@pytest.mark.parametrize("seed", range(6))
def test_batches_of_writes_and_deletions_lead_to_the_defined_root(seed, shared):
    random, pairs = Random(seed), {}
    tree = SparseTree(digest, MemoryNodes())
    for _ in range(8):
        batch = {}
        for _ in range(random.randint(1, 25)):
            place = some_place(random.randint(0, 50), shared=shared)
            batch[place] = None if random.random() < 0.4 else value_of(random.randint(0, 9))
        for place, value in batch.items():
            if value is None:
                pairs.pop(place, None)
            else:
                pairs[place] = value
        tree.update(sorted(batch.items()))
        assert tree.root_hash == defined_root(pairs)
        # Nothing is left behind, or missing: the nodes are those of a tree made at once.
        assert tree._store.keys() == tree_of(pairs)._store.keys()


def test_deleting_what_was_added_leads_back_to_the_root_before():
    pairs = {some_place(number): value_of(number) for number in range(40)}
    tree = tree_of(pairs)
    before = tree.root_hash
    tree.update(sorted((some_place(number), value_of(number)) for number in range(40, 90)))
    assert tree.root_hash != before
    tree.update(sorted((some_place(number), None) for number in range(40, 90)))
    assert tree.root_hash == before


def test_the_empty_tree_and_no_change_cost_nothing():
    tree = SparseTree(digest, MemoryNodes())
    tree.update([])
    tree.update([(some_place(1), None)])
    assert (tree.root, tree.root_hash, tree._store) == (None, EMPTY, {})


def test_only_nodes_on_the_way_to_a_change_are_read_and_written():
    tree = tree_of({some_place(number): value_of(number) for number in range(2_000)})
    touched = []

    class Watched(MemoryNodes):
        def put(self, place, node):
            touched.append(place)
            self[place] = node

    place = some_place(7)
    watched = SparseTree(digest, Watched(tree._store), tree.root)
    watched.update([(place, value_of(1))])
    assert touched
    assert all(place.startswith(one) for one in touched)


def small_tree():
    return tree_of({some_place(number): value_of(number) for number in range(60)})


@pytest.mark.parametrize("shared", [0, 5, 62])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 60])
def test_every_key_has_a_path_and_so_has_every_absence(count, shared):
    pairs = {some_place(number, shared=shared): value_of(number) for number in range(count)}
    tree = tree_of(pairs)
    for number in range(count + 60):
        place = some_place(number, shared=shared)
        value, path = prove(tree._store, tree.root, place)
        assert value == pairs.get(place)
        assert PATH.decode(encode(path)) == path
        assert root_of_path(digest, place, value, path) == tree.root_hash


def leads_to(root, place, value, path):
    try:
        return root_of_path(digest, place, value, path) == root
    except Rejected as refusal:
        return refusal.reason is not Reason.BAD_PROOF  # another reason is as bad as success


def test_no_path_shows_another_value_or_an_absence_that_is_none():
    tree = small_tree()
    for number in range(60):
        place = some_place(number)
        value, path = prove(tree._store, tree.root, place)
        assert not leads_to(tree.root_hash, place, value_of(number + 1), path)
        assert not leads_to(tree.root_hash, place, None, path)
        assert not leads_to(tree.root_hash, some_place(number + 100), value, path)


def test_no_absence_turns_into_a_value():
    tree = small_tree()
    for number in range(60, 160):
        place = some_place(number)
        value, path = prove(tree._store, tree.root, place)
        assert value is None
        assert not leads_to(tree.root_hash, place, value_of(number), path)
        if path.other is not None:
            assert not leads_to(tree.root_hash, place, path.other.value, path)
            there = path.other.place.hex()
            assert not leads_to(tree.root_hash, there, None, path)


def altered(path):
    """Every path that differs in one place."""
    levels, empty, siblings, other = path.levels, path.empty, path.siblings, path.other
    for change in (-1, 1, 8):
        if 0 <= levels + change <= DEPTH:
            yield StatePath(levels + change, empty, siblings, other)
    for index in range(len(empty) * 8):
        flipped = bytearray(empty)
        flipped[index // 8] ^= 128 >> index % 8
        yield StatePath(levels, bytes(flipped), siblings, other)
    yield StatePath(levels, empty + b"\0", siblings, other)
    for index, sibling in enumerate(siblings):
        rest = siblings[:index], siblings[index + 1 :]
        yield StatePath(levels, empty, (*rest[0], *rest[1]), other)
        yield StatePath(levels, empty, (*rest[0], sibling, sibling, *rest[1]), other)
        yield StatePath(levels, empty, (*rest[0], digest(sibling), *rest[1]), other)
        yield StatePath(levels, empty, (*rest[0], EMPTY, *rest[1]), other)
    for first, second in zip(range(len(siblings)), range(1, len(siblings)), strict=False):
        swapped = list(siblings)
        swapped[first], swapped[second] = swapped[second], swapped[first]
        yield StatePath(levels, empty, tuple(swapped), other)
    if other is None:
        yield StatePath(levels, empty, siblings, OtherLeaf(bytes(32), bytes(32)))
    else:
        yield StatePath(levels, empty, siblings, None)
        yield StatePath(levels, empty, siblings, OtherLeaf(digest(other.place), other.value))
        yield StatePath(levels, empty, siblings, OtherLeaf(other.place, digest(other.value)))


def test_every_altered_path_leads_elsewhere_or_is_refused():
    tree = small_tree()
    seen = 0
    for number in range(30, 90):
        place = some_place(number)
        value, path = prove(tree._store, tree.root, place)
        for one in altered(path):
            assert not leads_to(tree.root_hash, place, value, one)
            seen += 1
    assert seen > 1_000


def test_an_empty_sibling_has_one_form():
    """A sibling of zeros beside its bit would be a second path to the same root."""
    places = [some_place(number, shared=5) for number in range(2)]
    tree = tree_of(dict.fromkeys(places, value_of(0)))
    value, path = prove(tree._store, tree.root, places[0])
    assert path.empty != bytes(len(path.empty))
    spelled = StatePath(
        path.levels,
        bytes(len(path.empty)),
        (EMPTY,) * (path.levels - len(path.siblings)) + path.siblings,
        None,
    )
    with pytest.raises(Rejected) as caught:
        root_of_path(digest, places[0], value, spelled)
    assert caught.value.reason is Reason.BAD_PROOF


def test_a_lone_key_elsewhere_shows_no_absence():
    """Its leaf must share every bit of the way with the place that is asked for."""
    one, other = some_place(1), some_place(2)
    tree = tree_of({one: value_of(1), other: value_of(2)})
    _, path = prove(tree._store, tree.root, other)
    claimed = StatePath(
        path.levels, path.empty, path.siblings, OtherLeaf(bytes.fromhex(one), value_of(1))
    )
    with pytest.raises(Rejected) as caught:
        root_of_path(digest, other, None, claimed)
    assert caught.value.reason is Reason.BAD_PROOF
