"""The watermark of a nearly full disk."""

import pytest
import trio
from trio.testing import MockClock

from ledger.errors import Reason, UnavailableError
from ledger.limits import MIB
from node.disk_space import MARK_BYTES, RETRY_MS, DiskSpace
from node.driver_parts import SpaceReturned
from p2p.frames import FrameKind
from tests.unit.node_core.chains import LocalChain, make_transaction, register
from tests.unit.node_core.memory_network import MemoryNode, running, until

SMALL, LARGE = 10_240 * MIB, 10_240_000 * MIB


def test_the_mark_is_five_percent_of_a_small_disk_and_two_gibibytes_of_a_large_one():
    for total, mark in ((SMALL, 512 * MIB), (LARGE, MARK_BYTES)):
        above, below = DiskSpace(), DiskSpace()
        assert (above.measure(mark, total), above.is_low) == (False, False)
        assert (below.measure(mark - 1, total), below.is_low) == (True, True)


def test_space_returns_a_quarter_above_the_mark_so_that_nothing_flaps():
    space = DiskSpace()
    space.measure(0, SMALL)
    assert (space.measure(640 * MIB - 1, SMALL), space.is_low) == (False, True)
    assert (space.measure(640 * MIB, SMALL), space.is_low) == (True, False)


def test_a_client_is_told_why_and_when_to_try_again():
    space = DiskSpace()
    assert space.refusal is None
    space.measure(0, SMALL)
    assert space.refusal.reason is Reason.DISK_LOW
    assert space.refusal.facts == {"retry_after_ms": RETRY_MS}


def test_a_folder_is_watched_and_a_lost_one_stops_the_node(tmp_path):
    async def main():
        space = DiskSpace(is_low=True)
        with trio.move_on_after(1):
            await space.watch(tmp_path, returned.set)
        assert not space.is_low
        with pytest.raises(UnavailableError):
            await space.watch(tmp_path / "gone", returned.set)

    returned = trio.Event()
    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert returned.is_set()


def votes(node):
    return len(node.of_kind(FrameKind.VOTE)) + len(node.of_kind(FrameKind.PROPOSAL))


def test_a_node_without_room_is_silent_and_follows_and_comes_back_by_itself(tmp_path):
    async def main():
        nodes = [MemoryNode(n, LocalChain(), tmp_path / f"{n}.wal") for n in range(4)]
        low = nodes[3]
        async with running(*nodes):
            low.space.is_low = True
            for number in range(3):
                nodes[0].admit([make_transaction(register(number), number, is_signed=True)])
                await until(lambda n=number: low.disk.tip.operations == n + 1)
            assert votes(low) == 0
            low.space.is_low = False
            low.driver.post(SpaceReturned())
            nodes[0].admit([make_transaction(register(9), 9, is_signed=True)])
            await until(lambda: votes(low) > 0)
        assert {node.blamed == [] for node in nodes} == {True}

    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_vote_withheld_in_the_round_in_progress_is_given_when_space_returns(tmp_path):
    """With two of four nodes silent nothing is decided; one that comes back makes the quorum."""

    async def main():
        nodes = [MemoryNode(n, LocalChain(), tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            for low in nodes[2:]:
                low.space.is_low = True
            nodes[0].admit([make_transaction(register(1), 1, is_signed=True)])
            await trio.sleep(20)
            assert [node.height for node in nodes] == [0] * 4
            nodes[3].space.is_low = False
            nodes[3].driver.post(SpaceReturned())
            await until(lambda: all(node.height >= 1 for node in nodes))

    trio.run(main, clock=MockClock(autojump_threshold=0))
