"""The state root after random blocks against its definition, made anew from all writes."""

from random import Random

import pytest

from ledger.codec import encode
from ledger.errors import StoreDamagedError
from ledger.merkle import root_of_entries
from ledger.state import LogEntry, LogWrite, WriteSet, namespace_prefix
from ledger.state_tree import StateTree, proved_digest
from tests.unit.ledger.memory_trees import MemoryTrees
from tests.unit.ledger.test_sparse import defined_root
from tests.unit.ledger.worlds import SUITE

digest = SUITE.digest
NAMESPACES = [namespace_prefix(*name) for name in (("emr", 0), ("emr", 3), ("trial", 0))]


class Definition:
    """All values and entries, and docs/format.md section 8 in its simplest form."""

    def __init__(self):
        self.maps, self.logs, self.heights = {}, {}, {}

    def apply(self, height, writes):
        self.maps.update(writes.maps)
        for write in writes.logs:
            self.logs.setdefault(write.log, []).extend(write.entries)
            self.heights[write.log] = height

    def tree(self, namespace):
        pairs = {}
        for key, value in self.maps.items():
            if key.startswith(namespace) and value is not None:
                place = digest(b"kl.state-key\0\0" + key[len(namespace) :]).hex()
                pairs[place] = digest(b"kl.state-value\0" + value)
        for log, entries in self.logs.items():
            if log.startswith(namespace):
                root = root_of_entries(digest, [b"kl.log-entry\0" + encode(one) for one in entries])
                head = encode((len(entries), self.heights[log], root))
                place = digest(b"kl.state-key\0\1" + log[len(namespace) :]).hex()
                pairs[place] = digest(b"kl.state-value\0" + head)
        return defined_root(pairs)

    def root(self, writes):
        roots = {}
        for namespace in NAMESPACES:
            if (root := self.tree(namespace)) != bytes(32):
                roots[digest(b"kl.state-key\0" + namespace).hex()] = root
        return digest(b"kl.state\0" + defined_root(roots) + self.written(writes))

    def written(self, writes):
        entries = []
        for namespace in NAMESPACES:
            cut = len(namespace)
            maps = [(key[cut:], value) for key, value in writes.maps if key.startswith(namespace)]
            logs = []
            for write in writes.logs:
                if write.log.startswith(namespace):
                    leaves = b"".join(
                        digest(b"\0kl.log-entry\0" + encode(entry)) for entry in write.entries
                    )
                    appended = digest(b"kl.appended\0" + leaves)
                    first, count = write.first_sequence, len(write.entries)
                    logs.append((write.log[cut:], first, count, appended))
            if maps or logs:
                name = (namespace[:-2].decode(), namespace[-1])
                inner = digest(b"kl.writes\0" + encode((maps, logs)))
                entries.append(b"kl.namespace-writes\0" + encode((*name, inner)))
        return root_of_entries(digest, entries)


def random_writes(random, definition):
    maps, logs = {}, []
    for _ in range(random.randint(0, 12)):
        key = random.choice(NAMESPACES) + b"contract\0map\0%d" % random.randint(0, 40)
        maps[key] = None if random.random() < 0.3 else b"value %d" % random.randint(0, 5)
    for log in sorted({random.choice(NAMESPACES) + b"contract\0log" for _ in range(2)}):
        entries = [LogEntry(b"k", b"%d" % number) for number in range(random.randint(1, 9))]
        logs.append(LogWrite(log, len(definition.logs.get(log, ())), tuple(entries)))
    if random.random() < 0.2:
        maps, logs = {}, []
    return WriteSet(tuple(sorted(maps.items())), tuple(logs))


@pytest.mark.parametrize("seed", range(8))
def test_random_blocks_lead_to_the_defined_root_also_after_restarts(seed):
    random, store, definition = Random(seed), MemoryTrees(), Definition()
    tree = StateTree(digest, store)
    for height in range(30):
        writes = random_writes(random, definition)
        changes = tree.apply(height, writes)
        definition.apply(height, writes)
        assert changes.state_root == definition.root(writes)
        store.commit(height, writes, changes)
        if random.random() < 0.2:
            tree = StateTree(digest, store)
    for namespace in NAMESPACES:
        kept = {place for name, place in store.nodes if name == namespace}
        assert all(place[:-1] in kept for place in kept if place), (
            "no node is left without one above"
        )
    for key, value in definition.maps.items():
        cut = key.index(b"\0") + 2
        place = digest(b"kl.state-key\0\0" + key[cut:]).hex()
        expected = None if value is None else digest(b"kl.state-value\0" + value)
        assert proved_digest(digest, store, key[:cut], place) == expected


def test_an_empty_block_changes_what_was_written_and_nothing_else():
    store, writes = MemoryTrees(), WriteSet(((NAMESPACES[0] + b"c\0m\0k", b"v"),), ())
    tree = StateTree(digest, store)
    first, second = tree.apply(0, writes), tree.apply(1, WriteSet((), ()))
    assert first.namespaces_root == second.namespaces_root
    assert second.writes_root == root_of_entries(digest, ())
    assert first.state_root != second.state_root
    assert [*second.nodes, *second.roots, *second.logs] == []


@pytest.mark.parametrize("damage", ["lost", "short", "another"])
def test_a_damaged_node_is_named_before_a_root_follows_from_it(damage):
    store = MemoryTrees()
    maps = [(NAMESPACES[0] + b"c\0m\0%d" % number, b"v") for number in range(40)]
    writes = WriteSet(tuple(sorted(maps)), ())
    store.commit(0, writes, StateTree(digest, store).apply(0, writes))
    root, *others = sorted(store.nodes)
    match damage:
        case "lost":
            del store.nodes[root]
        case "short":
            store.nodes[root] = store.nodes[root][:-1]
        case "another":
            store.nodes[root] = store.nodes[others[0]]
    with pytest.raises(StoreDamagedError, match="the store state is damaged"):
        StateTree(digest, store).apply(1, writes)


def test_roots_that_are_not_those_of_the_newest_block_are_refused():
    store = MemoryTrees()
    writes = WriteSet(((NAMESPACES[0] + b"c\0m\0k", b"v"),), ())
    store.commit(0, writes, StateTree(digest, store).apply(0, writes))
    store.roots.clear()
    with pytest.raises(StoreDamagedError, match="height 0"):
        StateTree(digest, store)
