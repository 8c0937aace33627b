"""Block sync: claims trigger questions and nothing else; liars and silent peers cost little."""

import trio
from trio.testing import MockClock

from ledger.ids import Address
from node.limits import REQUEST_TIMEOUT_MS
from node.sync import BlockSync, ClaimDropped, serve
from node.wire import BLOCK_REQUEST, BlockRequest, BlockResponse
from p2p.frames import FrameKind

from .chains import LocalChain, make_batch, make_transaction, register

HONEST, SILENT, LIAR = (Address(bytes([number]) * 32) for number in (3, 2, 1))


class World:
    """A height that grows as answers are applied; peers answer or do not."""

    faults = 0

    def __init__(self, tip=10):
        self.height, self.tip, self.asked, self.dropped = 0, tip, [], []
        self.sync = BlockSync(
            height=lambda: self.height, faults=self.faults, send=self._send, deliver=self._deliver
        )

    def _send(self, peer, kind, payload):
        assert kind is FrameKind.BLOCK_REQUEST
        request = BLOCK_REQUEST.decode(payload)
        self.asked.append((peer, request.start))
        if peer == HONEST:
            self.nursery.start_soon(self._answer, peer, request.start)
        return True

    async def _answer(self, peer, start):
        await trio.sleep(0.01)
        assert await self.sync.receive(peer, BlockResponse(start, ()))

    def _deliver(self, answer):
        if isinstance(answer, ClaimDropped):
            self.dropped.append(answer.peer)
            return
        self.height = min(self.tip, self.height + 4)
        answer.applied.set()

    async def run(self, seconds):
        async with trio.open_nursery() as self.nursery:
            self.nursery.start_soon(self.sync.run)
            await trio.sleep(seconds)
            self.nursery.cancel_scope.cancel()


def play(main):
    trio.run(main, clock=MockClock(autojump_threshold=0))


def test_a_node_asks_until_it_has_what_a_peer_has():
    async def main():
        world = World()
        world.sync.note(HONEST, 10)
        assert world.sync.is_behind
        await world.run(2)
        assert world.asked == [(HONEST, 1), (HONEST, 5), (HONEST, 9)]
        assert (world.height, world.sync.is_behind) == (10, False)

    play(main)


def test_one_block_behind_is_ordinary():
    async def main():
        world = World(tip=1)
        world.sync.note(HONEST, 1)
        assert not world.sync.is_behind
        await world.run(0.2)
        assert world.asked == []

    play(main)


def test_a_silent_peer_is_left_for_another():
    async def main():
        world = World()
        world.sync.note(SILENT, 10)
        world.sync.note(HONEST, 10)
        await world.run(REQUEST_TIMEOUT_MS / 1_000 + 2)
        assert world.asked[0] == (SILENT, 1)
        assert {peer for peer, _ in world.asked[1:]} == {HONEST}
        assert world.height == 10

    play(main)


def test_a_claim_that_leads_nowhere_is_dropped_and_not_heard_again_at_once():
    async def main():
        world = World(tip=0)
        world.sync.note(LIAR, 2**63 - 2)
        await world.run(20)
        assert [peer for peer, _ in world.asked] == [LIAR] * 3
        assert world.dropped == [LIAR]
        world.sync.note(LIAR, 2**63 - 2)
        assert (world.sync.best, world.sync.is_behind) == (0, False)

    play(main)


def test_answers_that_nobody_asked_for_are_not_taken():
    async def main():
        world = World()
        assert not await world.sync.receive(HONEST, BlockResponse(1, ()))
        world.sync.note(SILENT, 10)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.run, 1)
            await trio.sleep(0.5)
            assert not await world.sync.receive(HONEST, BlockResponse(1, ()))
            assert not await world.sync.receive(SILENT, BlockResponse(2, ()))
        assert world.height == 0

    play(main)


def test_a_lost_link_takes_its_claim_along():
    async def main():
        world = World()
        world.sync.note(HONEST, 10)
        world.sync.forget(HONEST)
        assert (world.sync.best, world.sync.tip_of(HONEST)) == (0, 0)

    play(main)


def test_a_node_serves_what_it_has_and_nothing_beyond():
    chain = LocalChain()
    for number in range(1, 4):
        chain.decide(make_batch([make_transaction(register(number), number)], sequence=number))
    whole = serve(chain.blocks, BlockRequest(1, 64))
    assert (whole.start, len(whole.blocks)) == (1, 3)
    assert serve(chain.blocks, BlockRequest(3, 64)).blocks == whole.blocks[2:]
    assert serve(chain.blocks, BlockRequest(1, 2)).blocks == whole.blocks[:2]
    assert serve(chain.blocks, BlockRequest(4, 64)).blocks == ()
    assert serve(chain.blocks, BlockRequest(2**63 - 1, 64)).blocks == ()


def test_one_liar_does_not_make_a_node_of_four_think_it_lags():
    async def main():
        world = World()
        world.sync._faults = 1
        world.sync.note(LIAR, 10**9)
        assert not world.sync.is_behind
        world.sync.note(HONEST, 10)
        assert world.sync.is_behind

    play(main)
