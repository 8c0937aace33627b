"""What joining from a snapshot costs: `python -m bench.snapshot [--keys N]`.

A state of N keys and half as many entries of a log in LevelDB is served item by item and checked
into another LevelDB, in one process. Their CPU time is taken apart, since several nodes serve
and one joins. Links are left out: a million keys are about 200 MB, two seconds of a gigabit line.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

from bench.state import results_of
from genesis.networks import development_network, read_genesis
from ledger.block import Header, empty_root
from ledger.codec import encode
from ledger.genesis import Genesis, chain_of
from ledger.history import EMPTY_FRONTIER
from ledger.ids import BlockHash
from ledger.light.trust import LightBlock
from ledger.membership import ValidatorHistory
from ledger.replay import CommittedWindow
from ledger.snapshot import Base, SnapshotHead
from ledger.state import LogEntry, LogWrite, WriteSet, namespace_prefix
from ledger.state_root import state_root
from ledger.state_tree import StateTree
from ledger.store.blocks import BlockStore
from ledger.store.join_plan import JoinPlan
from ledger.store.joined import JoinedState
from ledger.store.leveldb import LevelStore
from ledger.store.memory import MemoryBodies, MemoryStore
from ledger.store.results import StateStore
from ledger.store.snapshot_source import SnapshotSource, Steps
from ledger.transaction import Chain
from node.clock import SystemClock
from node.devnet import DevelopmentKeys

KEYS = 100_000
NAMESPACE = namespace_prefix("consent", 0)
LOG = NAMESPACE + b"consent\0log"
VALUE = b"v" * 100
BLOCK = 5_000

T = TypeVar("T")


def _blocks(keys: int) -> Iterator[WriteSet]:
    """All keys at once, then the entries in blocks."""
    names = (sha256(number.to_bytes(8, "big")).digest() for number in range(keys))
    ordered = sorted(NAMESPACE + b"consent\0given\0" + name for name in names)
    yield WriteSet(tuple((key, VALUE) for key in ordered), ())
    for first in range(0, keys // 2, BLOCK):
        entries = tuple(
            LogEntry(number.to_bytes(8, "big"), encode(sha256(b"%d" % number).digest() * 4))
            for number in range(first, min(first + BLOCK, keys // 2))
        )
        yield WriteSet((), (LogWrite(LOG, first, entries),))


def _fill(store: StateStore, chain: Chain, keys: int) -> Base:
    """A state, and the headers around its newest block, which nobody decided."""
    digest = chain.suite.digest
    nothing, empty = bytes(32), empty_root(chain.suite)
    replay_root = CommittedWindow(chain.suite).root()
    tree, newest = StateTree(digest, store), 0
    for height, writes in enumerate(_blocks(keys)):
        changes, newest = tree.apply(height, writes), height
        store.commit(results_of(height, writes, changes, replay_root))
    stored = store.writes(newest)
    roots = stored.namespaces_root, stored.writes_root
    header = Header(
        version=2,
        group=0,
        height=1,
        previous_hash=nothing,
        time=1,
        proposer=0,
        validators_hash=nothing,
        next_validators_hash=nothing,
        topology_hash=nothing,
        batches_root=empty,
        stamps_root=empty,
        certificate_hash=nothing,
        demotions=(),
        state_root=state_root(digest, *roots),
        receipts_root=empty,
        messages_root=empty,
        replay_root=replay_root,
        history_root=EMPTY_FRONTIER.sized_root(digest),
    )
    light = LightBlock(encode(header), b"", ())
    head = SnapshotHead((), b"", encode(header), b"", light, *roots, EMPTY_FRONTIER, 0, 0)
    return Base(head, encode(head), header, header, BlockHash(nothing))


class _Timer:
    """Adds up the CPU time of one kind of work, and remembers the longest stretch of it."""

    def __init__(self) -> None:
        self.total_s = self.longest_s = 0.0

    def run(self, work: Callable[[], T]) -> T:
        start = time.process_time()
        try:
            return work()
        finally:
            took = time.process_time() - start
            self.total_s += took
            self.longest_s = max(self.longest_s, took)


def _join(source: SnapshotSource, base: Base, target: LevelStore, chain: Chain) -> list[_Timer]:
    serving, joining = _Timer(), _Timer()
    plan = joining.run(lambda: JoinPlan(base, JoinedState(target, chain.suite), chain))
    while (item := plan.next_item()) is not None:
        data = _served(source.item(item), serving)
        joining.run(lambda item=item, data=data: plan.take(item, data))
    joining.run(plan.finish)
    print(f"{plan.taken} items")
    return [serving, joining]


def _served(steps: Steps, timer: _Timer) -> bytes:
    """An item, each of its steps timed."""
    while True:
        try:
            timer.run(lambda: next(steps))
        except StopIteration as end:
            return end.value or b""


def _genesis(folder: Path) -> Genesis:
    files = development_network(folder, DevelopmentKeys(), SystemClock().now_ms(), 1, 26_600)
    return read_genesis(files.genesis)


def main() -> None:
    """Fill, join, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=KEYS)
    keys: int = parser.parse_args().keys
    with tempfile.TemporaryDirectory(prefix="kanglian-snapshot-") as name:
        folder = Path(name)
        genesis = _genesis(folder / "network")
        chain = chain_of(genesis)
        with (
            closing(LevelStore(folder / "state")) as level,
            closing(LevelStore(folder / "joined")) as target,
        ):
            store = StateStore(level)
            base = _fill(store, chain, keys)
            print(f"{keys} keys and {keys // 2} log entries")
            with closing(level.snapshot()) as view:
                blocks = BlockStore(MemoryStore(), MemoryBodies())
                history = ValidatorHistory(genesis, store.get)
                source = SnapshotSource(chain.suite.digest, StateStore(view), blocks, history)
                timers = _join(source, base, target, chain)
            joined = StateTree(chain.suite.digest, StateStore(target))
            if joined.namespaces_root != base.head.namespaces_root:
                raise SystemExit("the joined state has another root")
    for what, timer in zip(("served", "joined"), timers, strict=True):
        million_s = timer.total_s * 1_000_000 / keys
        print(
            f"{what} in {timer.total_s:6.2f} s, {timer.total_s * 1e6 / keys:5.1f} us for each key "
            f"and half an entry; of a million keys {million_s:5.1f} s; "
            f"longest step {timer.longest_s * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
