"""What state proves: every value, absence, head and entry, at each height that is held."""

from dataclasses import dataclass, replace
from random import Random

import msgspec
import pytest

from ledger.codec import encode
from ledger.errors import Rejected, UnavailableError
from ledger.history import EMPTY_FRONTIER
from ledger.merkle import root_of_entries
from ledger.proofs.log import head_of, read_run
from ledger.sparse_proof import OtherLeaf, StatePath
from ledger.state import LogEntry, WriteSet, namespace_prefix
from ledger.state_proof import (
    STATE_PROOF,
    prove_log_head,
    prove_value,
    verify_log_head,
    verify_value,
)
from ledger.state_root import LogHead
from ledger.state_tree import VERSIONS, StateTree
from ledger.steps import finish
from tests.unit.ledger.memory_trees import MemoryLog, MemoryTrees
from tests.unit.ledger.test_state_tree import NAMESPACES, Definition, random_writes
from tests.unit.ledger.worlds import SUITE

digest = SUITE.digest
NOWHERE = namespace_prefix("nowhere", 0)
LOG = b"contract\0log"


@dataclass
class Moment:
    """The state after one height, by definition."""

    root: bytes
    maps: dict
    logs: dict


@dataclass
class World:
    tree: StateTree
    store: MemoryTrees
    moments: list


def world(seed, heights=24):
    random, store, definition, moments = Random(seed), MemoryTrees(), Definition(), []
    tree = StateTree(digest, store)
    for height in range(heights):
        writes = random_writes(random, definition)
        changes = tree.apply(height, writes)
        definition.apply(height, writes)
        store.commit(height, writes, changes)
        logs = {log: list(entries) for log, entries in definition.logs.items()}
        moments.append(Moment(changes.state_root, dict(definition.maps), logs))
    return World(tree, store, moments)


@pytest.fixture(scope="module", params=range(3))
def any_world(request):
    return world(request.param)


def keys(moment):
    paths = {key[key.index(b"\0") + 2 :] for key in moment.maps}
    return [(name, path) for name in (*NAMESPACES, NOWHERE) for path in sorted(paths)]


def test_every_key_has_its_value_or_none_at_each_height_that_is_held(any_world):
    newest = len(any_world.moments) - 1
    for height in range(newest - VERSIONS + 1, newest + 1):
        moment, view = any_world.moments[height], any_world.tree.view(height)
        for namespace, path in keys(moment):
            proof = prove_value(view, digest, namespace, path)
            assert STATE_PROOF.decode(encode(proof)) == proof
            found = verify_value(proof, digest, moment.root, namespace, path)
            assert found == moment.maps.get(namespace + path)


def test_every_entry_and_count_of_a_log_at_each_height_that_is_held(any_world):
    newest = len(any_world.moments) - 1
    for height in range(newest - VERSIONS + 1, newest + 1):
        moment, view = any_world.moments[height], any_world.tree.view(height)
        for namespace in (*NAMESPACES, NOWHERE):
            entries = moment.logs.get(namespace + LOG, [])
            proof = prove_log_head(view, digest, namespace, LOG)
            head = verify_log_head(proof, digest, moment.root, namespace, LOG)
            assert (head.count if head else 0) == len(entries)
            if head is None:
                continue
            for first in range(0, len(entries), 7):
                log, stop = any_world.store.log(namespace + LOG), min(first + 4, len(entries))
                run = finish(read_run(log, digest, head, first, stop))
                assert run.entries == tuple(entries[first:stop])
                assert head_of(run, digest) == head


def test_a_height_that_is_not_held_is_named(any_world):
    newest = len(any_world.moments) - 1
    for height in (newest + 1, newest - VERSIONS, -1):
        with pytest.raises(UnavailableError, match=f"height {height} "):
            any_world.tree.view(height)


def test_after_a_restart_the_newest_state_can_be_proved_and_that_before_an_empty_block():
    made = world(1, heights=6)
    nothing = WriteSet((), ())
    made.store.commit(6, nothing, made.tree.apply(6, nothing))
    made.store.newest.insert(0, (5, *made.store.written[5]))
    tree = StateTree(digest, made.store)
    namespace, path = keys(made.moments[5])[0]
    proof = prove_value(tree.view(5), digest, namespace, path)
    verify_value(proof, digest, made.moments[5].root, namespace, path)
    with pytest.raises(UnavailableError):
        tree.view(4)


def mutants(path: StatePath):
    """Every small change of a way that is still a StatePath."""
    yield msgspec.structs.replace(path, levels=path.levels + 1)
    if path.levels:
        yield msgspec.structs.replace(path, levels=path.levels - 1)
    for index, sibling in enumerate(path.siblings):
        rest = path.siblings[:index] + path.siblings[index + 1 :]
        changed = bytes([sibling[0] ^ 1]) + sibling[1:]
        yield msgspec.structs.replace(path, siblings=rest)
        yield msgspec.structs.replace(path, siblings=(*rest[:index], changed, *rest[index:]))
        yield msgspec.structs.replace(
            path, siblings=(*rest[:index], sibling, sibling, *rest[index:])
        )
    for bit in range(8 * len(path.empty)):
        flipped = bytearray(path.empty)
        flipped[bit // 8] ^= 0x80 >> bit % 8
        yield msgspec.structs.replace(path, empty=bytes(flipped))
    yield msgspec.structs.replace(path, siblings=(*path.siblings, bytes(range(32))))
    if path.other is None:
        yield msgspec.structs.replace(path, other=OtherLeaf(bytes(range(32)), bytes(range(32))))
    else:
        yield msgspec.structs.replace(path, other=None)
        other = OtherLeaf(path.other.place, bytes(range(32)))
        yield msgspec.structs.replace(path, other=other)


def test_no_changed_proof_is_believed(any_world):
    moment, view = any_world.moments[-1], any_world.tree.view(len(any_world.moments) - 1)
    tried = 0
    for namespace, path in keys(moment)[::9]:
        proof = prove_value(view, digest, namespace, path)
        changed = [msgspec.structs.replace(proof, state=way) for way in mutants(proof.state)]
        changed += [
            msgspec.structs.replace(proof, namespaces=way) for way in mutants(proof.namespaces)
        ]
        changed += [
            msgspec.structs.replace(proof, writes_root=bytes(32)),
            msgspec.structs.replace(proof, value=b"another"),
            msgspec.structs.replace(proof, value=None if proof.value else b""),
        ]
        for mutant in changed:
            tried += 1
            with pytest.raises(Rejected):
                verify_value(mutant, digest, moment.root, namespace, path)
        for wrong in ((NAMESPACES[0] + b"x", path), (namespace, path + b"x")):
            # Another question has another answer: only an absence may hold for both.
            try:
                assert verify_value(proof, digest, moment.root, *wrong) is None
            except Rejected:
                continue
    assert tried > 200


def test_no_changed_run_leads_to_the_head():
    entries = tuple(LogEntry(b"key", b"%d" % number) for number in range(9))
    leaves = [digest(b"\0kl.log-entry\0" + encode(entry)) for entry in entries]
    for count in range(1, 10):
        nodes = EMPTY_FRONTIER.extend(digest, leaves[:count])[1]
        reader = MemoryLog()
        reader.entries = list(entries)
        reader.nodes = {(at, i): node for at, row in enumerate(nodes) for i, node in enumerate(row)}
        root = root_of_entries(
            digest, [b"kl.log-entry\0" + encode(entry) for entry in entries[:count]]
        )
        head = LogHead(count, 3, root)
        for first in range(count):
            for stop in (
                (0, *range(first + 1, count + 1)) if not first else range(first + 1, count + 1)
            ):
                run = finish(read_run(reader, digest, head, first, stop))
                assert head_of(run, digest) == head
                for changed in changed_runs(run):
                    try:
                        assert head_of(changed, digest) != head
                    except Rejected:
                        continue


def changed_runs(run):
    """Every entry and node left out, repeated, exchanged; every count wrong."""
    for name, other in (("entries", LogEntry(b"key", b"x")), ("nodes", bytes(32))):
        items = getattr(run, name)
        yield replace(run, **{name: (*items, other)})
        yield replace(run, **{name: (other, *items)})
        for at, item in enumerate(items):
            yield replace(run, **{name: items[:at] + items[at + 1 :]})
            yield replace(run, **{name: (*items[:at], item, *items[at:])})
            yield replace(run, **{name: (*items[:at], other, *items[at + 1 :])})
        for at in range(len(items) - 1):
            swapped = (*items[:at], items[at + 1], items[at], *items[at + 2 :])
            if swapped != items:
                yield replace(run, **{name: swapped})
    for step in (1, -1, 2):
        for name in ("count", "first"):
            if getattr(run, name) + step >= (name == "count"):
                yield replace(run, **{name: getattr(run, name) + step})


def test_the_root_of_a_log_is_that_of_its_entries(any_world):
    moment, view = any_world.moments[-1], any_world.tree.view(len(any_world.moments) - 1)
    for log, entries in moment.logs.items():
        namespace = log[: log.index(b"\0") + 2]
        proof = prove_log_head(view, digest, namespace, log[len(namespace) :])
        head = verify_log_head(proof, digest, moment.root, namespace, log[len(namespace) :])
        assert head.root == root_of_entries(
            digest, [b"kl.log-entry\0" + encode(entry) for entry in entries]
        )
