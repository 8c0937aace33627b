"""What state proves: every value, absence, head and entry, at each height that is held."""

from dataclasses import dataclass
from random import Random

import msgspec
import pytest

from ledger.codec import encode
from ledger.errors import Rejected, UnavailableError
from ledger.merkle import root_of_entries
from ledger.sparse_proof import OtherLeaf, StatePath
from ledger.state import LogEntry, WriteSet, namespace_prefix
from ledger.state_proof import (
    ENTRY_PROOF,
    STATE_PROOF,
    prove_entry,
    prove_log_head,
    prove_value,
    verify_entry,
    verify_log_head,
    verify_value,
)
from ledger.state_tree import VERSIONS, StateTree
from tests.unit.ledger.memory_trees import MemoryTrees
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
            for index in range(0, len(entries), 7):
                entry_proof = prove_entry(
                    view, digest, namespace, LOG, any_world.store.log(namespace + LOG), index
                )
                assert ENTRY_PROOF.decode(encode(entry_proof)) == entry_proof
                found = verify_entry(entry_proof, digest, moment.root, namespace, LOG)
                assert found == (index, entries[index])
            with pytest.raises(Rejected, match="no such entry"):
                log = any_world.store.log(namespace + LOG)
                prove_entry(view, digest, namespace, LOG, log, len(entries))


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


def test_an_entry_cannot_be_moved_or_exchanged(any_world):
    moment, view = any_world.moments[-1], any_world.tree.view(len(any_world.moments) - 1)
    namespace = next(name for name in NAMESPACES if name + LOG in moment.logs)
    log = any_world.store.log(namespace + LOG)
    proof = prove_entry(view, digest, namespace, LOG, log, 3)
    head = proof.head.value
    replaced = [
        {"entry": LogEntry(proof.entry.key, b"another")},
        {"entry": LogEntry(b"another", proof.entry.data)},
        {"index": 2},
        {"index": len(moment.logs[namespace + LOG])},
        {"path": proof.path[1:]},
        {"path": (*proof.path, bytes(32))},
        {"head": msgspec.structs.replace(proof.head, value=head[:-1] + bytes([head[-1] ^ 1]))},
        {"head": msgspec.structs.replace(proof.head, value=None)},
    ]
    for change in replaced:
        with pytest.raises(Rejected):
            mutant = msgspec.structs.replace(proof, **change)
            verify_entry(mutant, digest, moment.root, namespace, LOG)


def test_the_root_of_a_log_is_that_of_its_entries(any_world):
    moment, view = any_world.moments[-1], any_world.tree.view(len(any_world.moments) - 1)
    for log, entries in moment.logs.items():
        namespace = log[: log.index(b"\0") + 2]
        proof = prove_log_head(view, digest, namespace, log[len(namespace) :])
        head = verify_log_head(proof, digest, moment.root, namespace, log[len(namespace) :])
        assert head.root == root_of_entries(
            digest, [b"kl.log-entry\0" + encode(entry) for entry in entries]
        )
