"""The watermark of a nearly full disk."""

import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Vote, VoteKind
from ledger.errors import Reason, UnavailableError
from ledger.ids import Height, Round, ValidatorIndex
from ledger.limits import MIB
from node import wire
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


def test_a_vote_waits_behind_the_withheld_ones_and_all_are_given_in_their_order(tmp_path):
    """Space may return between two votes of a round, before the driver has heard of it."""

    def vote(kind):
        return Vote(kind, Height(1), Round(0), None, -1, ValidatorIndex(0))

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await node.hear_everybody()
            node.space.is_low = True
            node.driver._sign_and_send(vote(VoteKind.PREVOTE))
            node.space.is_low = False
            node.driver._sign_and_send(vote(VoteKind.PRECOMMIT))
            assert votes(node) == 0
            node.driver.post(SpaceReturned())
            await until(lambda: votes(node) == 2)
            given = [wire.VOTE.decode(item).kind for item in node.of_kind(FrameKind.VOTE)]
            nursery.cancel_scope.cancel()
        assert given == [VoteKind.PREVOTE, VoteKind.PRECOMMIT]

    trio.run(main, clock=MockClock(autojump_threshold=0))
