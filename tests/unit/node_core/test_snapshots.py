"""Which snapshots a running node serves, and what a peer that asks gets."""

import pytest
import trio

from ledger.snapshot import HEAD, Item, Kind
from node import limits
from node.snapshots import Snapshots
from node.wire import SnapshotPart, SnapshotRequest
from tests.unit.node_core.chains import LocalChain, make_transaction, register

HEAD_ITEM = Item(int(Kind.HEAD))
WINDOW_ITEM = Item(int(Kind.WINDOW))


class Clock:
    """Implements `node.clock.Clock`."""

    ms = 1_000_000

    def now_ms(self):
        return self.ms


class Counted:
    """A store that counts its open views."""

    def __init__(self, store):
        self.store, self.views = store, []

    def snapshot(self):
        view = self.store.snapshot()
        self.views.append(view)
        view.close = lambda: self.views.remove(view)
        return view


class Served:
    """A chain whose snapshots are served."""

    def __init__(self):
        self.chain = LocalChain()
        self.clock, self.store = Clock(), Counted(self.chain.state_data)
        self.snapshots = Snapshots(self.chain.writer, self.store, self.clock)
        self.number = 0

    def grow(self, blocks):
        for _ in range(blocks):
            self.number += 1
            self.chain.run(make_transaction(register(self.number), self.number))

    def ask(self, item=HEAD_ITEM, height=0, offset=0):
        return trio.run(self.snapshots.part, SnapshotRequest(1, height, item, offset))

    def offered(self):
        part = self.ask()
        return HEAD.decode(part.data).history.count - 1 if part.data else None


@pytest.fixture(autouse=True)
def every_ten_heights(monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOT_INTERVAL", 10)


def test_a_node_serves_the_height_before_its_tip_when_it_is_asked_first():
    served = Served()
    assert served.offered() is None
    served.grow(1)
    assert served.offered() is None  # genesis needs no snapshot
    served.grow(3)
    assert served.offered() == 3
    served.grow(2)
    assert served.offered() == 3
    assert served.ask(height=3).size == served.ask().size
    assert served.ask(height=4) == SnapshotPart(4, 0, b"")
    assert served.ask(Item(int(Kind.SUBTREE), b"emr", "0"), 3) == SnapshotPart(3, 0, b"")


def test_every_interval_one_height_is_kept_and_few_are_open():
    served = Served()
    served.grow(11)
    assert served.snapshots.heights == [10]
    served.grow(35)
    assert served.snapshots.heights == [20, 30, 40]
    assert len(served.store.views) == 3 + 2
    assert served.offered() == 40
    served.snapshots.close()
    assert served.store.views == []
    assert served.ask() == SnapshotPart(0, 0, b"")


def test_one_that_is_in_use_is_let_go_last_and_none_lives_for_ever():
    served = Served()
    served.grow(31)
    served.clock.ms += limits.SNAPSHOT_IN_USE_MS + 1
    assert served.ask(height=10).size > 0
    served.grow(10)
    assert served.snapshots.heights == [10, 30, 40]
    served.clock.ms += limits.SNAPSHOT_AGE_MS - limits.SNAPSHOT_IN_USE_MS
    assert served.ask(height=10).size == 0
    served.grow(10)
    assert served.snapshots.heights == [40, 50]


def test_a_large_item_comes_in_parts(monkeypatch):
    monkeypatch.setattr(limits, "SNAPSHOT_PART_BYTES", 100)
    served = Served()
    served.grow(5)
    for item in (HEAD_ITEM, WINDOW_ITEM):
        data, size = b"", 1
        while len(data) < size:
            part = served.ask(item, offset=len(data))
            assert 0 < len(part.data) <= 100
            data, size = data + part.data, part.size
        assert len(data) == size > 100
        assert served.ask(item, offset=size).data == b""


def test_what_comes_later_does_not_change_what_is_served():
    served = Served()
    served.grow(5)
    before = served.ask(WINDOW_ITEM)
    fresh = Served()
    fresh.grow(5)
    assert fresh.ask().height == 4
    fresh.grow(4)
    assert fresh.ask(WINDOW_ITEM, 4) == before


def test_a_view_is_not_closed_while_it_is_read():
    served = Served()
    served.grow(11)

    async def main():
        async with trio.open_nursery() as nursery:
            nursery.start_soon(served.snapshots.part, SnapshotRequest(1, 10, WINDOW_ITEM, 0))
            (view,) = served.snapshots._kept
            while not view.readers:
                await trio.lowlevel.checkpoint()
            served.clock.ms += limits.SNAPSHOT_AGE_MS + 1
            assert served.snapshots._find(10) is view
            assert served.snapshots.heights == [10]

    trio.run(main)
    assert served.ask(height=10).size == 0
