"""Bugs that other chains had in deciding and executing (research consensus-reliability 1.9).

What concerns one core is shown on one core, what concerns nodes on nodes with a fake network.
More cases of the core stand in `tests/unit/consensus/test_core.py`; docs/reliability.md lists all.
"""

from itertools import permutations

import trio
from trio.testing import MockClock

from consensus.core import Core
from consensus.events import BuildBlock, Decide, TimerKind, WorkAvailable
from ledger.block import block_hash
from ledger.ids import Height
from node.sync import SyncAnswer
from tests.unit.consensus.builders import (
    HEIGHT,
    TIMEOUTS,
    A,
    B,
    drive,
    feed,
    fired,
    messages_signed,
    precommit,
    precommits,
    prevote,
    prevotes,
    proposed,
    running,
    skip_to,
    start,
    timer,
)
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    LocalChain,
    certify,
    facts,
    fetched,
    make_batch,
    make_transaction,
    register,
)
from tests.unit.node_core.memory_network import NAMES, MemoryNode, until, wire_up

PROPOSE, PREVOTE, PRECOMMIT = TimerKind.PROPOSE, TimerKind.PREVOTE, TimerKind.PRECOMMIT


def play(main):
    trio.run(main, clock=MockClock(autojump_threshold=0))


def some(first, count=1):
    return [make_transaction(register(n), n, is_signed=True) for n in range(first, first + count)]


def append(chain, item):
    places = [chain.bodies.append(batch.wire) for batch in item.batches]
    content = (item.block, item.certificate, item.batches, places)
    trio.run(chain.writer.append, *content, lambda _height: None)


def test_t04_who_may_propose_follows_from_the_blocks_alone():
    """No state sync: whoever has only the blocks, or restarts, knows whom the others demoted."""
    chain, other = LocalChain(), LocalChain()
    for height in range(1, 7):
        batch = make_batch(some(height), sequence=height)
        block, _ = chain.next_block(batch)
        proof = certify(block_hash(block.header, SUITE), height, int(height == 3), (0, 1, 2))
        places = [chain.bodies.append(batch.wire)]
        trio.run(chain.writer.append, block, proof, [batch], places, lambda _height: None)
    expected = chain.writer.proposers()
    assert len(expected) == 3

    for item in fetched(chain, *range(1, 7)):
        append(other, item)
    assert other.writer.proposers() == expected
    other.restart()
    assert other.writer.proposers() == expected


def test_t17_a_re_proposal_counts_by_the_prevotes_behind_it_and_not_by_its_word():
    """There are no view-change certificates: a valid round is believed by its quorum alone."""
    core = running()

    assert messages_signed(drive(core, *skip_to(2), *proposed(A, 2, 0))) == []
    assert messages_signed(drive(core, *prevotes(A, 0, 2))) == []
    assert messages_signed(drive(core, *prevotes(A, 3))) == [prevote(1, A, 2, 0)]


def test_t21_a_node_that_crashes_without_end_under_conflicting_load_stops_nobody(tmp_path):
    """Nodes register the same object at the same time, and one of them dies in the midst of it."""
    disks = [LocalChain() for _ in range(4)]

    def conflicting(life, node):
        return [make_transaction(register(life), 100 * life + node.index, is_signed=True)]

    async def live_and_die(steady, life):
        mortal = MemoryNode(3, disks[3], tmp_path / "3.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(mortal.run)
            await wire_up(nursery, (*steady, mortal))
            for node in (*steady, mortal):
                node.admit(conflicting(life, node))
            await trio.sleep(0.2 * life)
            nursery.cancel_scope.cancel()

    async def main():
        steady = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(3)]
        async with trio.open_nursery() as nursery:
            for node in steady:
                await nursery.start(node.run)
            for life in range(1, 5):
                await live_and_die(steady, life)
                async with trio.open_nursery() as rest:
                    await wire_up(rest, steady)
                    await until(lambda done=3 * life: steady[0].disk.tip.operations >= done)
                    rest.cancel_scope.cancel()
            async with trio.open_nursery() as rest:
                await wire_up(rest, steady)
                await until(lambda: len({node.height for node in steady}) == 1)
                await trio.sleep(1)
                rest.cancel_scope.cancel()
            nursery.cancel_scope.cancel()
        assert facts(disks[0]) == facts(disks[1]) == facts(disks[2])

    play(main)


def test_t25_a_proposer_that_restarts_while_its_block_is_built_asks_for_it_again():
    core = Core(TIMEOUTS)
    feed(core, start(me=0), WorkAvailable(Height(HEIGHT)))

    resumed = core.resume()

    assert timer(PROPOSE) in resumed
    assert BuildBlock(Height(HEIGHT), 0) in resumed
    given_up = drive(core, fired(PROPOSE))
    assert messages_signed(given_up) == [prevote(0, None)]


def test_t26_a_decision_and_the_end_of_its_round_do_not_block_each_other():
    """Whatever order the last precommit and the timers of the round come in: one decision."""
    for order in permutations((*precommits(A, 3), fired(PRECOMMIT), fired(PREVOTE))):
        core = running()
        drive(core, *proposed(A), *prevotes(A, 0, 2), *precommits(A, 2))

        effects = drive(core, *order)

        decided = [effect.value for effect in effects if isinstance(effect, Decide)]
        assert decided == [A]


def test_t34_a_locked_validator_votes_for_nothing_else_without_a_later_quorum():
    core = running(me=3)
    locking = drive(core, *proposed(A), *prevotes(A, 0, 1))
    assert messages_signed(locking) == [prevote(3, A), precommit(3, A)]

    drive(core, *precommits(None, 0, 1, 2), fired(PRECOMMIT))
    assert messages_signed(drive(core, *proposed(B, 1))) == [prevote(3, None, 1)]


def test_t35_a_node_that_lags_executes_nothing_of_its_clients_by_itself(tmp_path):
    """It admits, and packs a batch; its state is that of its blocks, and then that of the chain."""
    chain, disk = LocalChain(), LocalChain()
    chain.signers = (1, 2, 3)
    for number in range(1, 6):
        chain.decide(make_batch(some(number), sequence=number))
    append(disk, fetched(chain, 1)[0])
    stale = facts(disk)

    async def main():
        node = MemoryNode(0, disk, tmp_path / "0.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            node.admit(some(3, 4))
            await trio.sleep(30)
            assert facts(disk) == stale
            answer = SyncAnswer(NAMES[1], fetched(chain, 2, 3, 4, 5))
            node.driver.post(answer)
            await answer.applied.wait()
            await until(lambda: node.height == 5)
            nursery.cancel_scope.cancel()
        assert facts(disk) == facts(chain)

    play(main)
