"""Bugs of other ledgers' stores that this one must not have: T-24, T-29, T-30, T-32.

Source: research consensus-reliability section 1.9, the list of peers' bugs.
"""

import random
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from ledger.errors import InvariantError, StoreDamagedError, UnavailableError
from ledger.store.memory import MemoryStore
from ledger.store.port import KeyValueStore
from node.rebuild import scrub_stores
from node.synced import append_synced
from tests.integration.real_chains import DiskChain, grow, numbered_batch
from tests.unit.node_core.chains import GENESIS, LocalChain, facts, fetched

ROOT = Path(__file__).parents[2]
LENGTH = 9


def decided(count=LENGTH):
    """A chain, and its blocks as a peer serves them."""
    chain = LocalChain()
    for number in range(1, count + 1):
        chain.decide(numbered_batch(number))
    items = fetched(chain, *range(1, count + 1))
    return chain, items


# ---- T-24: SmartBFT #553, #560, #570, Fabric #5076: a block delivered twice panics ---------------


@pytest.mark.parametrize("seed", range(12))
def test_t24_blocks_delivered_twice_late_and_across_restarts_are_applied_once(seed):
    whole, items = decided()
    generator, chain, heard = random.Random(seed), LocalChain(), []
    chain.writer.on_block(lambda block: heard.append(block.header.height))
    while chain.tip.height < LENGTH:
        first = generator.randrange(max(0, chain.tip.height - 3), chain.tip.height + 1)
        part = items[first : first + generator.randrange(1, 5)]
        doubled = [item for item in part for _ in range(generator.choice((1, 1, 2)))]
        before = chain.tip.height
        applied = trio.run(append_synced, chain.writer, doubled, lambda _height: None)
        assert applied == chain.tip.height - before
        if generator.random() < 0.3:
            chain.restart()
            chain.writer.on_block(lambda block: heard.append(block.header.height))
    assert heard == list(range(1, LENGTH + 1))
    assert facts(chain) == facts(whole)


def test_t24_a_block_that_consensus_decides_again_is_a_broken_promise_and_changes_nothing():
    chain, _ = decided(3)
    before = facts(chain), list(chain.block_data.scan(b"", b"\xff" * 40, reverse=False))
    for height in (1, 2, 3):
        found = chain.writer.read_block(height)
        with pytest.raises(InvariantError, match="in order, once"):
            trio.run(chain.writer.append, found.block, found.certificate, found.batches, [], print)
        with pytest.raises(InvariantError, match="in order, once"):
            trio.run(chain.executor.execute, found)
    after = facts(chain), list(chain.block_data.scan(b"", b"\xff" * 40, reverse=False))
    assert after == before


# ---- T-29: Fabric #4162: a full disk leaves a half-written index and a crash loop ----------------


FILLER = """
import resource, signal, sys
from pathlib import Path
from ledger.errors import UnavailableError
from ledger.store.leveldb import LevelStore
from tests.integration.real_chains import DiskChain, numbered_batch

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
try:
    with DiskChain(Path(sys.argv[1])) as chain:
        while True:
            chain.decide(numbered_batch(chain.tip.height + 1))
            print(chain.tip.height, flush=True)
except UnavailableError as error:
    print("UNAVAILABLE", error)
    failed = LevelStore(Path(sys.argv[1]) / "probe")
    try:
        failed.write([(b"large", bytes(int(sys.argv[2])))])
    except UnavailableError:
        try:
            failed.write([(b"small", b"")])
        except UnavailableError as again:
            print("STILL", again)
"""


def fill(folder, limit_bytes):
    """Decide blocks in a process that may not write longer files; the height it last told."""
    done = subprocess.run(
        [sys.executable, "-c", FILLER, str(folder), str(limit_bytes)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    *told, reason, again = done.stdout.splitlines()
    assert reason.startswith("UNAVAILABLE"), done.stdout
    assert again.startswith("STILL"), done.stdout
    assert "failed before and is not written again" in again
    return int(told[-1]) if told else 0


@pytest.mark.parametrize("limit_bytes", [30_000, 45_000, 60_000, 77_777])
def test_t29_a_full_disk_stops_the_node_and_loses_nothing_that_was_told(tmp_path, limit_bytes):
    told = fill(tmp_path, limit_bytes)
    assert told > 0
    # As long as the disk is full a start ends by name again, wherever it comes to.
    told = max(told, fill(tmp_path, limit_bytes))
    with DiskChain(tmp_path) as chain:
        assert told <= chain.tip.height <= told + 1
        chain.decide(numbered_batch(chain.tip.height + 1))
        expected = facts(chain)
        height = chain.tip.height
    scrub_stores(tmp_path, GENESIS, lambda _done, _total: None)
    whole = LocalChain()
    for number in range(1, height + 1):
        whole.decide(numbered_batch(number))
    assert facts(whole) == expected


# ---- T-30: malachite #1411: an error while writing leaves the writer in between ------------------


class FailingStore(MemoryStore):
    """A disk whose write number `failing` fails, before or after it reached the platter."""

    def __init__(self):
        super().__init__()
        self.count = 0
        self.failing = -1
        self.is_applied = False

    def write(self, writes, /):
        self.count += 1
        if self.count == self.failing:
            if self.is_applied:
                super().write(writes)
            raise UnavailableError("input/output error")
        assert self.count < self.failing or self.failing < 0, "written after a failure"
        super().write(writes)


class FailingChain(LocalChain):
    def __init__(self):
        self.failing_stores: list[KeyValueStore] = []
        super().__init__()
        self.block_data, self.state_data = FailingStore(), FailingStore()
        self.open()


@pytest.mark.parametrize("is_applied", [False, True])
@pytest.mark.parametrize("name", ["block_data", "state_data"])
@pytest.mark.parametrize("failing", range(1, 7))
def test_t30_a_write_error_at_any_height_stops_there_and_a_restart_goes_on(
    name, failing, is_applied
):
    whole, items = decided(5)
    chain = FailingChain()
    store = getattr(chain, name)
    store.failing, store.is_applied = store.count + failing, is_applied
    if failing <= 5:
        with pytest.raises(UnavailableError, match="input/output"):
            trio.run(append_synced, chain.writer, items, lambda _height: None)
        assert (chain.block_data.count, chain.state_data.count) == (
            failing,
            failing + (name == "state_data"),
        )
    store.failing = -1
    chain.restart()
    trio.run(append_synced, chain.writer, items, lambda _height: None)
    assert facts(chain) == facts(whole)


# ---- T-32: Jepsen on Tendermint 0.10.2: truncated logs lose data, the state differs unseen -------


@pytest.mark.parametrize("store", ["blocks", "state"])
@pytest.mark.parametrize("eighths", range(8))
def test_t32_a_truncated_log_never_makes_a_shorter_chain(tmp_path, store, eighths):
    grow(tmp_path, 1, 8)
    with DiskChain(tmp_path) as chain:
        expected = facts(chain)
    grow(tmp_path, 9, 16)
    log = max((tmp_path / store).glob("*.log"), key=lambda path: path.stat().st_size)
    with log.open("r+b") as file:
        file.truncate(log.stat().st_size * eighths // 8)
    named = None
    try:
        with DiskChain(tmp_path) as chain:
            assert chain.tip.height == 16
            assert facts(chain)[1][:8] == expected[1]
    except StoreDamagedError as damage:
        named = damage.store
    # Seven eighths of the state may be all but its last block: then that is executed again.
    assert named == store or (store, eighths, named) == ("state", 7, None)


def test_t32_a_state_that_differs_is_seen_before_it_is_built_on():
    """The next header holds the roots of this state, so nobody votes for a block upon it."""
    whole, items = decided(4)
    chain = LocalChain()
    trio.run(append_synced, chain.writer, items[:2], lambda _height: None)
    tip = chain.state_data.get(b"t")
    root = chain.tip.state_root
    chain.state_data.write([(b"t", tip.replace(root, bytes(32)))])
    chain.restart()
    with pytest.raises(InvariantError, match="contradicts this node's state: bad_block"):
        trio.run(append_synced, chain.writer, items[2:], lambda _height: None)
    assert (chain.tip.height, whole.tip.height) == (2, 4)
