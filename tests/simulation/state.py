"""What a simulated node executes: the real state trees, over a store written block by block.

A block writes what its nonce says: a map key or none, entries of a log or none, in one of two
namespaces, and the entry of the block in the log of each namespace it touches. A store is durable
with the block's end, as in `node/executor.py`; a process that starts makes its trees anew from it.
"""

from dataclasses import dataclass
from hashlib import sha256

from ledger.codec import encode
from ledger.errors import invariant
from ledger.proofs.log import Run, read_run
from ledger.state import Overlay, WriteSet
from ledger.state_proof import StateProof, prove_log_head, prove_value
from ledger.state_root import BLOCKS_LOG, BlockEntry
from ledger.state_tree import StateTree
from ledger.steps import finish
from tests.unit.ledger.memory_trees import MemoryTrees

NAMESPACES = (b"emr\0\0", b"trial\0\1")
KEYS = 8
LOG = b"visits"
NOTHING = WriteSet((), ())


@dataclass(frozen=True, slots=True)
class Touched:
    """What a nonce asks a block to do in one namespace; `value` None deletes the key."""

    namespace: bytes
    key: bytes | None
    value: bytes | None
    entries: int


@dataclass(frozen=True, slots=True)
class Shown:
    """What a node proves of one namespace after one height, in answer to a client."""

    key: StateProof
    blocks: StateProof
    newest: Run | None


def touched_by(nonce: int) -> list[Touched]:
    """What a block does. Four in nine are empty, as most blocks of a quiet network are."""
    found: list[Touched] = []
    for number, namespace in enumerate(NAMESPACES):
        bits = nonce >> 16 * number
        if bits % 3:
            continue
        has_key, is_deleted = bits >> 2 & 3 != 0, bits >> 4 & 3 == 0
        key = b"key%d" % (bits >> 6 & KEYS - 1) if has_key else None
        value = None if is_deleted or not has_key else b"value %d" % nonce
        found.append(Touched(namespace, key, value, bits >> 10 & 3))
    return found


class State:
    """The executed state of one node."""

    def __init__(self) -> None:
        self._store = MemoryTrees()
        self._tree = StateTree(_digest, self._store)
        self.root: bytes = b""
        self.height = -1
        self.held_from = 0
        self._apply(0, NOTHING)

    def restart(self) -> None:
        """The process is new: it reads its store, and can prove no height before the newest."""
        self._tree = StateTree(_digest, self._store)
        self.held_from = self.height

    def execute(self, height: int, nonce: int, value: bytes) -> None:
        """Run the next block."""
        invariant(height == self.height + 1, "blocks execute in order, once")
        overlay = Overlay(self._store)
        for item in touched_by(nonce):
            if item.key is not None:
                overlay.put(item.namespace + item.key, item.value)
            for number in range(item.entries):
                overlay.append(item.namespace + LOG, b"%d" % number, value)
            entry = self.block_entry(height, item, value)
            overlay.append(item.namespace + BLOCKS_LOG, height.to_bytes(8, "big"), encode(entry))
        overlay.keep()
        self._apply(height, overlay.write_set())

    def block_entry(self, height: int, item: Touched, value: bytes) -> BlockEntry:
        """What stands in the log of a namespace about a block."""
        results = sha256(b"results" + value).digest()
        return BlockEntry(height, item.entries + 1, value, item.entries + 1, results)

    def _apply(self, height: int, writes: WriteSet) -> None:
        changes = self._tree.apply(height, writes)
        self._store.commit(height, writes, changes)
        self.height, self.root = height, changes.state_root

    def show(self, height: int, namespace: bytes, key: bytes) -> Shown:
        """Proofs of a height that is still held: a key, how many blocks there were, the newest."""
        view, log = self._tree.view(height), self._store.log(namespace + BLOCKS_LOG)
        tip = view.log_tip(namespace + BLOCKS_LOG)
        newest = None
        if tip is not None:
            count = tip.frontier.count
            newest = finish(read_run(log, _digest, tip.head(_digest), count - 1, count))
        return Shown(
            prove_value(view, _digest, namespace, key),
            prove_log_head(view, _digest, namespace, BLOCKS_LOG),
            newest,
        )


def _digest(data: bytes, /) -> bytes:
    return sha256(data).digest()
