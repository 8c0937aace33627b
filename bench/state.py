"""What authenticated state costs: `python -m bench.state [--keys N]` prints CPU in us and in V.

A namespace with N keys through LevelDB, in blocks of 5,000 changed keys; a log in blocks of as many
entries; proofs of a value made and checked. One V is calibrated in between.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from itertools import islice
from pathlib import Path

from bench.calibration import Calibration
from ledger.codec import encode
from ledger.crypto.suites import INTERNATIONAL as SUITE
from ledger.history import EMPTY_FRONTIER
from ledger.replay import ReplayBlock
from ledger.state import LogEntry, LogWrite, WriteSet, namespace_prefix
from ledger.state_proof import prove_value, verify_value
from ledger.state_tree import StateTree, TreeChanges
from ledger.store.leveldb import LevelStore
from ledger.store.results import BlockResults, StateStore, StateTip

KEYS = 1_000_000
BLOCK = 5_000
BLOCKS = 20
PROOFS = 2_000
NAMESPACE = namespace_prefix("consent", 0)
LOG = NAMESPACE + b"consent\0log"


class _Chain:
    """State through a store, block after block; remembers the CPU of tree and store apart."""

    def __init__(self, folder: Path) -> None:
        self.store = StateStore(LevelStore(folder))
        self.tree = StateTree(SUITE.digest, self.store)
        self.height = -1
        self.state_root = b""
        self.tree_us = self.store_us = 0.0

    def write(self, writes: WriteSet) -> None:
        self.height += 1
        start = time.process_time_ns()
        changes = self.tree.apply(self.height, writes)
        middle = time.process_time_ns()
        self.store.commit(results_of(self.height, writes, changes))
        self.tree_us += (middle - start) / 1_000
        self.store_us += (time.process_time_ns() - middle) / 1_000
        self.state_root = changes.state_root


def results_of(
    height: int, writes: WriteSet, changes: TreeChanges, replay_root: bytes = bytes(32)
) -> BlockResults:
    """What a block without transactions leaves that wrote this."""
    nothing = bytes(32)
    tip = StateTip(
        height=height,
        block_hash=nothing,
        time=1,
        state_root=changes.state_root,
        receipts_root=nothing,
        replay_root=replay_root,
        history=EMPTY_FRONTIER,
        must_follow=False,
        transactions=0,
        operations=0,
    )
    return BlockResults(tip, writes, (), (), changes, (), ReplayBlock(height, 1, ()))


def _key(number: int) -> bytes:
    return NAMESPACE + b"consent\0given\0" + sha256(number.to_bytes(8, "big")).digest()


def _some(number: int, keys: int) -> int:
    """Any of the keys, the same in each run."""
    return int.from_bytes(sha256(b"some %d" % number).digest()[:8], "big") % keys


def _maps(numbers: Iterator[int], value: bytes) -> Iterator[WriteSet]:
    while block := {_key(number) for number in islice(numbers, BLOCK)}:
        yield WriteSet(tuple((key, value) for key in sorted(block)), ())


def _logs() -> Iterator[WriteSet]:
    for first in range(0, BLOCK * BLOCKS, BLOCK):
        entries = tuple(
            LogEntry(number.to_bytes(8, "big"), encode(sha256(b"%d" % number).digest() * 4))
            for number in range(first, first + BLOCK)
        )
        yield WriteSet((), (LogWrite(LOG, first, entries),))


def _measured(
    chain: _Chain, blocks: Iterator[WriteSet], calibration: Calibration
) -> tuple[float, float]:
    """CPU of tree and of store for each key or entry, in us."""
    chain.tree_us = chain.store_us = 0.0
    count = 0
    for writes in blocks:
        calibration.sample()
        chain.write(writes)
        count += len(writes.maps) + sum(len(write.entries) for write in writes.logs)
    return chain.tree_us / count, chain.store_us / count


def _each_us(work: Callable[[bytes], object], keys: list[bytes]) -> float:
    start = time.process_time_ns()
    for key in keys:
        work(key)
    return (time.process_time_ns() - start) / 1_000 / len(keys)


def main() -> None:
    """Fill, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=KEYS)
    keys: int = parser.parse_args().keys
    calibration = Calibration()
    with tempfile.TemporaryDirectory(prefix="kanglian-state-") as folder:
        chain = _Chain(Path(folder))
        for writes in _maps(iter(range(keys)), b"v" * 100):
            chain.write(writes)
        print(f"{keys} keys, {chain.height + 1} blocks")
        numbers = (_some(number, keys) for number in range(BLOCK * BLOCKS))
        changed = _measured(chain, _maps(numbers, b"w" * 100), calibration)
        appended = _measured(chain, _logs(), calibration)
        view = chain.tree.view(chain.height)
        paths = [_key(_some(number, keys))[len(NAMESPACE) :] for number in range(PROOFS)]
        digest = SUITE.digest
        proofs = {path: prove_value(view, digest, NAMESPACE, path) for path in paths}
        made_us = _each_us(lambda path: prove_value(view, digest, NAMESPACE, path), paths)
        checked_us = _each_us(
            lambda path: verify_value(proofs[path], digest, chain.state_root, NAMESPACE, path),
            paths,
        )
        size = sum(len(encode(proof)) for proof in islice(proofs.values(), 100)) / 100
    v_us = calibration.v_us
    print(f"V {v_us:.1f} us")
    for what, cost_us in (
        ("changed key, tree", changed[0]),
        ("changed key, store", changed[1]),
        ("log entry, tree", appended[0]),
        ("log entry, store", appended[1]),
        ("proof made", made_us),
        ("proof checked, without signatures", checked_us),
    ):
        print(f"{what:34} {cost_us:7.1f} us {cost_us / v_us:6.2f} V")
    print(f"a proof has {size:.0f} bytes")


if __name__ == "__main__":
    main()
