"""A node that forgets its oldest blocks: what is left is whole, and what is gone is named."""

import pytest
import trio

from ledger.block import BLOCK, HEADER
from ledger.errors import KanglianError, Rejected, StoreDamagedError
from ledger.store import bodies
from ledger.store.bodies import BodyFiles
from ledger.store.memory import MemoryBodies
from node import limits
from node.batches import BatchPool
from node.light import LightQueries
from node.proofs import Proofs
from node.pruning import Pruning
from node.queries import Queries
from node.sync import serve
from node.wire import BlockRequest
from tests.unit.node_core.chains import (
    LocalChain,
    facts,
    fetched,
    make_batch,
    make_transaction,
    register,
)
from tests.unit.node_core.test_scrub import scrub_all, scrub_of

KEPT = 5


@pytest.fixture(autouse=True)
def few_at_a_time(monkeypatch):
    monkeypatch.setattr(limits, "PRUNED_HEIGHTS", 3)


def long_chain(blocks=20, store=None):
    chain = LocalChain(store)
    for number in range(blocks):
        chain.run(make_transaction(register(number), number))
    chain.run(make_transaction(register(3), 3))  # a duplicate of what will be pruned
    chain.decide()
    return chain


def pruned(chain):
    pruning = Pruning(chain.blocks, chain.state, BatchPool(chain.bodies), KEPT)
    while pruning.step():
        pass
    return chain


def test_the_newest_blocks_stay_and_the_rest_is_named():
    whole, chain = long_chain(), pruned(long_chain())
    first = chain.blocks.first
    assert KEPT <= chain.tip.height - first + 1 < KEPT + 3
    queries = Queries(chain.writer)
    old, newest = make_transaction(register(3), 3).id, make_transaction(register(19), 19).id
    for ask, what in ((queries.block, first - 1), (queries.transaction, old), (queries.proof, old)):
        with pytest.raises(Rejected, match=f"pruned: .*lowest={first}"):
            trio.run(ask, what)
    assert trio.run(queries.proof, newest) == trio.run(Queries(whole.writer).proof, newest)
    assert chain.state.receipts(first - 1) == ()
    assert chain.state.receipts(first) == whole.state.receipts(first)
    answer = serve(chain.blocks, chain.tip.height, BlockRequest(1, 2, 10))
    assert (answer.blocks, answer.first) == ((), first)
    for height in range(1, first):
        header = BLOCK.decode(whole.blocks.block(height).block).header
        assert chain.blocks.decided(height).header == header
        assert HEADER.decode(header).height == height


def test_what_is_kept_of_a_pruned_height_proves_and_what_is_gone_is_named():
    whole, chain = long_chain(), pruned(long_chain())
    first, tip = chain.blocks.first, chain.tip.height
    light, proofs = LightQueries(chain.writer), Proofs(Queries(chain.writer))
    old = make_transaction(register(3), 3).id
    for ask, *what in (
        (light.batches, first - 1, 0),
        (light.receipts, first - 1, 0),
        (proofs.receipt, old),
        (proofs.transaction, old),
    ):
        with pytest.raises(Rejected, match=f"pruned: .*lowest={first}"):
            trio.run(ask, *what)
    complete = Proofs(Queries(whole.writer))
    assert trio.run(light.headers, 1, tip) == trio.run(LightQueries(whole.writer).headers, 1, tip)
    for height in (1, first - 1, first, tip - 1):
        assert trio.run(proofs.header, height, None) == trio.run(complete.header, height, None)
    assert trio.run(proofs.history, 1, None) == trio.run(complete.history, 1, None)
    everything = ("emr", 0, 1, tip - 1, None)
    assert trio.run(proofs.completeness, *everything) == trio.run(
        complete.completeness, *everything
    )


def test_a_pruned_chain_goes_on_and_orders_no_batch_twice():
    whole, chain = long_chain(), pruned(long_chain())
    batch = whole.writer.read_block(2).batches[0]
    assert chain.blocks.has_batch(batch.digest)
    assert not chain.writer.may_be_older(make_batch([make_transaction(register(1), 1)], 77))
    for one in (whole, chain):
        one.run(make_transaction(register(50), 50))
        one.decide()
        one.restart()
    assert chain.tip == whole.tip
    assert chain.blocks.first > 10


@pytest.mark.parametrize("name", ["block_data", "state_data"])
def test_every_record_of_a_pruned_store_that_is_lost_or_changed_is_found(name):
    """But for what only says where a pruned id stood, and the counts of `getinfo`."""
    chain = pruned(long_chain(12))
    gone = {
        locator_key
        for locator_key, _ in chain.state_data.scan(b"i", b"j", reverse=False)
        if chain.state.locate(locator_key[1:]).height < chain.blocks.first
    }
    assert scrub_all(chain) > 10
    store, missed = getattr(chain, name), []
    for key, value in list(store.scan(b"", b"\xff" * 80, reverse=False)):
        for at in (None, *sorted({0, len(value) // 2, len(value) - 1} if value else ())):
            changed = None if at is None else value[:at] + bytes([value[at] ^ 1]) + value[at + 1 :]
            store.write([(key, changed)])
            try:
                scrub_all(chain)
            except KanglianError:
                pass
            else:
                missed.append((key, at))
            store.write([(key, value)])
    last = len(chain.state_data.get(b"t")) - 1
    expected = [(b"t", last)] if name == "state_data" else []
    assert [one for one in missed if one[0] not in gone and one[0][:1] != b"b"] == expected


def test_a_height_that_is_pruned_while_the_scrub_reads_it_is_no_damage():
    """Of the height that is the beginning itself as well."""
    begun = long_chain()
    begun.blocks.prune(6)
    begun.state.prune(5)
    for chain, height in ((long_chain(), 0), (long_chain(), 2), (long_chain(), 9), (begun, 5)):
        count = 0
        for count, _ in enumerate(scrub_of(chain).check(height)):
            if count == 0:
                pruned(chain)
        assert chain.state.beginning > 9
        assert count > (20 if chain is begun else 0)


def test_a_crash_between_blocks_and_state_is_finished_at_the_next_start():
    chain = long_chain()
    chain.blocks.prune(8)
    assert (chain.blocks.first, chain.state.beginning) == (8, 0)
    chain.restart()
    assert (chain.blocks.first, chain.state.beginning) == (8, 7)
    assert scrub_all(chain) > 10
    assert facts(chain)[0] == facts(long_chain())[0]


def test_a_beginning_that_was_changed_is_no_crash():
    chain = pruned(long_chain())
    chain.state_data.write([(b"f", (chain.state.beginning - 1).to_bytes(8, "big"))])
    with pytest.raises(StoreDamagedError, match="its writes are missing"):
        chain.restart()


def test_segments_of_bodies_go_when_nothing_kept_lies_there(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "SEGMENT_BYTES", 1_500)
    folder = tmp_path / "bodies"
    chain = long_chain(store=BodyFiles(folder))
    before = sorted(path.name for path in folder.iterdir())
    pool = BatchPool(chain.bodies)
    pruning = Pruning(chain.blocks, chain.state, pool, KEPT)

    async def main():
        monkeypatch.setattr(limits, "PRUNE_TICK_MS", 10)
        with trio.move_on_after(1):
            await pruning.run()

    trio.run(main)
    after = sorted(path.name for path in folder.iterdir())
    assert 0 < len(after) < len(before)
    assert after == before[len(before) - len(after) :]
    assert scrub_all(chain) > 10
    whole = long_chain()
    for height in range(chain.blocks.first, chain.tip.height + 1):
        assert fetched(chain, height)[0].block == fetched(whole, height)[0].block
    first_batch = whole.writer.read_block(1).batches[0]
    assert chain.blocks.batch(first_batch.digest) is None
    chain.bodies.close()


def test_bodies_of_pending_batches_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(bodies, "SEGMENT_BYTES", 1_500)
    files = BodyFiles(tmp_path / "bodies")
    pool = BatchPool(files)
    waiting = make_batch([make_transaction(register(900), 900)], sequence=900)
    pool.add(waiting, 0)
    chain = long_chain(store=files)
    pruning = Pruning(chain.blocks, chain.state, pool, KEPT)

    async def main():
        monkeypatch.setattr(limits, "PRUNE_TICK_MS", 10)
        with trio.move_on_after(0.5):
            await pruning.run()

    trio.run(main)
    assert chain.blocks.first > 1
    assert pool.body(pool.place(waiting.digest)) == waiting.wire
    files.close()


def test_a_node_that_keeps_all_prunes_nothing():
    chain = long_chain()
    trio.run(Pruning(chain.blocks, chain.state, BatchPool(MemoryBodies()), 0).run)
    assert chain.blocks.first == 1
