"""Pulling batches: each from one peer at a time, and nothing that streams in anyway."""

import pytest
import trio
from trio.testing import MockClock

from ledger.batch import parse_batch
from node import limits
from node.fetching import BatchFetch, NotServedError
from node.requests import Requests
from node.wire import BATCH_REQUEST
from p2p.scoring import Offence, PeerOffenceError
from tests.unit.ledger.worlds import SUITE

from .chains import CHAIN, make_batch, make_transaction, register
from .memory_network import NAMES

ONE, TWO = NAMES[1], NAMES[2]
BATCH = [make_batch([make_transaction(register(n), n)], sequence=n) for n in range(12)]
DIGESTS = [batch.digest for batch in BATCH]


class World:
    """A fetch whose questions are recorded as (peer, index of the batch)."""

    def __init__(self):
        self.asked, self.numbers = [], {}
        self.fetch = BatchFetch(SUITE, self._send, lambda wire: parse_batch(wire, CHAIN))

    def _send(self, peer, _kind, payload):
        request = BATCH_REQUEST.decode(payload)
        index = DIGESTS.index(request.digest)
        self.asked.append((peer, index))
        self.numbers[peer, index] = request.number
        return True

    def answer(self, peer, index, wire=None):
        number = self.numbers[peer, index]
        return self.fetch.receive(peer, number, BATCH[index].wire if wire is None else wire)

    def run(self, main):
        async def bounded():
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fetch.run)
                await main()
                nursery.cancel_scope.cancel()

        trio.run(bounded, clock=MockClock(autojump_threshold=0))


def test_a_missing_batch_is_asked_of_one_peer_and_then_of_another():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.connect(TWO)
        world.fetch.want(DIGESTS[:1])
        await trio.sleep(1)
        assert len(world.asked) == 1
        await trio.sleep(3)
        assert sorted(world.asked) == sorted([(ONE, 0), (TWO, 0)])
        assert world.answer(*world.asked[0]) == DIGESTS[0]  # late, and welcome
        await trio.sleep(10)
        assert world.answer(*world.asked[1]) is None
        assert len(world.asked) == 2

    world.run(main)


def test_few_are_asked_of_one_peer_at_a_time():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.want(DIGESTS)
        await trio.sleep(0.1)
        assert world.asked == [(ONE, index) for index in range(limits.PULLS_PER_PEER)]
        world.answer(ONE, 0)
        world.fetch.want(DIGESTS[1:])
        await trio.sleep(1.5)  # the stream has to dry up first
        assert world.asked[limits.PULLS_PER_PEER :] == [(ONE, limits.PULLS_PER_PEER)]

    world.run(main)


def test_nothing_is_asked_for_while_batches_stream_in_unless_it_takes_too_long():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.note_arrived(DIGESTS[1])
        began = trio.current_time()
        world.fetch.want(DIGESTS[:1])
        while not world.asked:
            await trio.sleep(0.5)
            world.fetch.note_arrived(DIGESTS[1])
        assert 5 <= trio.current_time() - began <= 5.5

    world.run(main)


def test_what_arrives_by_broadcast_or_is_wanted_no_more_is_not_asked_for_again():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.want(DIGESTS[:2])
        await trio.sleep(0.1)
        world.fetch.note_arrived(DIGESTS[0])
        world.fetch.want([])
        await trio.sleep(60)
        assert world.asked == [(ONE, 0), (ONE, 1)]

    world.run(main)


def test_a_peer_that_has_it_not_is_asked_again_only_when_nobody_has_it():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.connect(TWO)
        world.fetch.want(DIGESTS[:1])
        await trio.sleep(0.1)
        first = world.asked[0][0]
        world.answer(first, 0, b"")
        await trio.sleep(0.1)
        second = world.asked[1][0]
        assert {first, second} == {ONE, TWO}
        world.answer(second, 0, b"")
        await trio.sleep(0.1)
        assert len(world.asked) == 2
        await trio.sleep(0.5)
        assert len(world.asked) == 3

    world.run(main)


@pytest.mark.parametrize("wire", [BATCH[1].wire, b"\xc0", BATCH[0].wire + b"\0"])
def test_another_batch_than_the_one_asked_for_is_malformed(wire):
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.want(DIGESTS[:1])
        await trio.sleep(0.1)
        with pytest.raises(PeerOffenceError) as caught:
            world.answer(ONE, 0, wire)
        assert caught.value.offence is Offence.MALFORMED

    world.run(main)


def test_a_second_answer_and_one_to_no_question_are_unrequested():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.want(DIGESTS[:1])
        await trio.sleep(0.1)
        world.answer(ONE, 0)
        for peer, number in ((ONE, world.numbers[ONE, 0]), (ONE, 99), (TWO, 1)):
            with pytest.raises(PeerOffenceError) as caught:
                world.fetch.receive(peer, number, BATCH[0].wire)
            assert caught.value.offence is Offence.UNREQUESTED

    world.run(main)


def test_a_collection_comes_in_order_and_asks_more_at_once():
    world = World()

    async def main():
        world.fetch.connect(ONE)
        found = []

        async def collect():
            found.extend(await world.fetch.collect(DIGESTS, ONE))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(collect)
            await trio.sleep(0.1)
            assert len(world.asked) == limits.SYNC_PULLS_PER_PEER
            for index in (7, 6, 5, 4, 3, 2, 1, 0):
                world.answer(ONE, index)
            await trio.sleep(0.1)
            for index in range(8, 12):
                world.answer(ONE, index)
        assert [batch.digest for batch in found] == DIGESTS
        assert world.fetch._wants == {}

    world.run(main)


@pytest.mark.parametrize("way", ["refuses", "is silent", "leaves"])
def test_a_block_whose_batches_its_offerer_has_not_is_given_up(way):
    world = World()

    async def main():
        world.fetch.connect(ONE)
        world.fetch.connect(TWO)

        async def answer():
            while True:
                await trio.sleep(0.01)
                if (TWO, 0) in world.numbers:
                    world.answer(TWO, 0, b"")
                    world.numbers.clear()
                if way == "refuses" and (ONE, 0) in world.numbers:
                    world.answer(ONE, 0, b"")
                    return
                if way == "leaves":
                    world.fetch.disconnect(ONE)
                    return

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            with trio.fail_after(30), pytest.raises(NotServedError) as caught:
                await world.fetch.collect(DIGESTS[:1], ONE)
            assert caught.value.is_refusal is (way == "refuses")
            nursery.cancel_scope.cancel()

    world.run(main)


def test_questions_are_remembered_per_peer_and_bounded():
    requests = Requests()
    numbers = [requests.open(ONE, index) for index in range(limits.OPEN_REQUESTS + 1)]
    assert requests.take(ONE, numbers[-1]) == limits.OPEN_REQUESTS
    for peer, number in ((ONE, numbers[0]), (TWO, numbers[1]), (ONE, numbers[-1])):
        with pytest.raises(PeerOffenceError):
            requests.take(peer, number)
    requests.forget(ONE)
    with pytest.raises(PeerOffenceError):
        requests.take(ONE, numbers[1])
