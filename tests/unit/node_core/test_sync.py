"""Block sync: claims trigger questions and nothing else; liars and silent peers cost little."""

import trio
from trio.testing import MockClock

from ledger.codec import encode
from node.limits import REQUEST_TIMEOUT_MS
from node.sync import serve
from node.wire import BlockRequest, BlockResponse, answer
from p2p.frames import FrameKind
from p2p.scoring import Offence

from .chains import LocalChain, facts, make_batch, make_transaction, register
from .memory_network import NAMES, MemoryNode, ServingPeer, until

HONEST, SILENT, LIAR = NAMES[3], NAMES[2], NAMES[1]
BLOCKS, BATCHES = FrameKind.BLOCK_REQUEST, FrameKind.BATCH_REQUEST


def chain_of(count):
    chain = LocalChain()
    for number in range(1, count + 1):
        chain.decide(make_batch([make_transaction(register(number), number)], sequence=number))
    return chain


class SilentPeer(ServingPeer):
    """Takes questions and never answers."""

    def blocks_for(self, request):
        return None

    def batch_for(self, request):
        return None


def play(main, path, seconds=200):
    """Run `main(node)` beside an empty node that is not linked to anybody yet."""

    async def bounded():
        node = MemoryNode(0, LocalChain(), path / "0.wal")
        with trio.fail_after(seconds):
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await main(node)
                nursery.cancel_scope.cancel()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def test_a_node_asks_until_it_has_what_a_peer_has(tmp_path):
    chain = chain_of(10)

    async def main(node):
        peer = ServingPeer.of(node, HONEST, chain, at_once=4)
        node.sync.note(HONEST, 10)
        await until(lambda: node.height == 10)
        assert [item for item in peer.asked if item[0] is BLOCKS] == [
            (BLOCKS, n) for n in (1, 5, 9)
        ]
        assert len([item for item in peer.asked if item[0] is BATCHES]) == 10
        assert (node.sync.target, node.sync.is_behind, node.blamed) == (10, False, [])
        assert facts(node.disk) == facts(chain)

    play(main, tmp_path)


def test_bodies_that_are_here_are_not_asked_for(tmp_path):
    chain = chain_of(1)

    async def main(node):
        [batch] = chain.writer.read_block(1).batches
        node.pool.add(batch, 0)
        peer = ServingPeer.of(node, HONEST, chain)
        node.sync.note(HONEST, 1)
        await until(lambda: node.height == 1)
        assert peer.asked == [(BLOCKS, 1)]

    play(main, tmp_path)


def test_one_block_behind_is_ordinary(tmp_path):
    chain = chain_of(1)

    async def main(node):
        peer = ServingPeer.of(node, HONEST, chain)
        node.sync.note(HONEST, 1)
        assert not node.sync.is_behind
        await trio.sleep(0.2)
        assert peer.asked == []

    play(main, tmp_path)


def test_a_silent_peer_is_left_for_another_and_not_blamed(tmp_path):
    chain = chain_of(3)

    async def main(node):
        silent = SilentPeer.of(node, SILENT, chain)
        honest = ServingPeer.of(node, HONEST, chain)
        node.sync.note(SILENT, 3)
        await trio.sleep(0.1)
        node.sync.note(HONEST, 3)
        await until(lambda: node.height == 3, 4 * REQUEST_TIMEOUT_MS / 1_000)
        assert silent.asked[0] == (BLOCKS, 1)
        assert (BLOCKS, 1) in honest.asked
        assert node.blamed == []

    play(main, tmp_path)


def test_a_claim_that_leads_nowhere_is_dropped_blamed_and_not_heard_again_at_once(tmp_path):
    async def main(node):
        liar = ServingPeer(node, LIAR)
        node.sync.note(LIAR, 2**63 - 2)
        await trio.sleep(20)
        assert liar.asked == [(BLOCKS, 1)] * 3
        assert node.blamed == [(LIAR, Offence.FRUITLESS)] * 3
        node.sync.note(LIAR, 2**63 - 2)
        assert (node.sync.best, node.sync.target, node.sync.is_behind) == (0, 0, False)

    play(main, tmp_path)


def test_a_lost_link_takes_its_claim_along(tmp_path):
    async def main(node):
        node.sync.note(HONEST, 10)
        node.sync.forget(HONEST)
        assert (node.sync.best, node.sync.tip_of(HONEST)) == (0, 0)

    play(main, tmp_path)


def test_one_liar_does_not_make_a_node_of_four_think_it_lags(tmp_path):
    async def main(node):
        node.sync.note(LIAR, 10**9)
        assert not node.sync.is_behind
        node.sync.note(HONEST, 10)
        assert node.sync.is_behind

    play(main, tmp_path)


def test_a_claim_that_rides_on_a_message_only_rises(tmp_path):
    async def main(node):
        node.sync.hint(HONEST, 10)
        node.sync.hint(HONEST, 4)
        assert (node.sync.tip_of(HONEST), node.blamed) == (10, [])
        node.sync.note(HONEST, 4)
        assert (node.sync.tip_of(HONEST), node.blamed) == (4, [(HONEST, Offence.FRUITLESS)])

    play(main, tmp_path)


def test_a_node_serves_what_it_has_and_nothing_beyond():
    chain = chain_of(3)
    whole = serve(chain.blocks, 3, BlockRequest(1, 1, 64))
    assert (whole.tip, len(whole.blocks)) == (3, 3)
    assert serve(chain.blocks, 3, BlockRequest(1, 3, 64)).blocks == whole.blocks[2:]
    assert serve(chain.blocks, 3, BlockRequest(1, 1, 2)).blocks == whole.blocks[:2]
    assert serve(chain.blocks, 3, BlockRequest(1, 4, 64)).blocks == ()
    assert serve(chain.blocks, 3, BlockRequest(1, 2**63 - 1, 64)).blocks == ()
    assert serve(chain.blocks, 2, BlockRequest(1, 1, 64)).blocks == whole.blocks[:2]


class YoungPeer(ServingPeer):
    """Holds its blocks from a height on: it joined from a snapshot, or pruned."""

    first = 4

    def blocks_for(self, request):
        if request.start >= self.first:
            return super().blocks_for(request)
        empty = BlockResponse(len(self.blocks), (), self.first)
        return answer(request.number, encode(empty))


def test_a_peer_that_says_where_it_begins_is_not_blamed_and_asked_once(tmp_path):
    chain = chain_of(6)

    async def main(node):
        young = YoungPeer.of(node, LIAR, chain)
        node.sync.note(LIAR, 6)
        await trio.sleep(15)
        assert young.asked == [(BLOCKS, 1)]
        assert (node.height, node.blamed) == (0, [])
        assert node.sync.tip_of(LIAR) == 6
        old = ServingPeer.of(node, HONEST, chain, at_once=3)
        node.sync.note(HONEST, 6)
        await until(lambda: node.height == 6)
        assert (BLOCKS, 1) in old.asked
        assert facts(node.disk) == facts(chain)

    play(main, tmp_path)
