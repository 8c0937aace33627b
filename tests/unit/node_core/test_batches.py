"""The batch pool: what a proposer selects, what is kept, what is forgotten."""

import pytest

from ledger import limits as protocol
from ledger.store.memory import MemoryBodies
from node import limits
from node.batches import BatchPool

from .chains import TIME, make_batch, make_transaction, register


def batch(number, count=1, **changes):
    made = [make_transaction(register(number + n), number + n, **changes) for n in range(count)]
    return make_batch(made, sequence=number)


@pytest.fixture
def pool():
    return BatchPool(MemoryBodies())


def test_a_batch_is_kept_once_and_found_with_its_place(pool):
    one = batch(1)
    assert pool.add(one, TIME)
    assert pool.add(one, TIME)
    assert (len(pool), pool.get(one.digest), one.digest in pool) == (1, one, True)
    assert pool.body(pool.place(one.digest)) == one.wire


def test_the_oldest_are_selected_within_the_limits_of_a_block(pool, monkeypatch):
    batches = [batch(10 * n, count=3) for n in range(4)]
    for one in batches:
        pool.add(one, TIME)
    assert pool.select(TIME) == batches
    monkeypatch.setattr(limits, "BLOCK_TRANSACTIONS", 7)
    assert pool.select(TIME) == batches[:2]
    monkeypatch.setattr(limits, "BLOCK_TRANSACTIONS", 1)
    assert pool.select(TIME) == batches[:1]


def test_the_bytes_of_a_block_bound_the_selection(pool, monkeypatch):
    batches = [batch(10 * n) for n in range(3)]
    for one in batches:
        pool.add(one, TIME)
    monkeypatch.setattr(protocol, "BLOCK_BYTES", 2 * len(batches[0].wire))
    assert pool.select(TIME) == batches[:2]


def test_a_batch_that_is_valid_too_far_ahead_waits_and_holds_up_nobody(pool):
    early = batch(1, valid_until=TIME + protocol.REPLAY_WINDOW_MS + 1)
    ready = batch(2)
    pool.add(early, TIME)
    pool.add(ready, TIME)
    assert pool.select(TIME) == [ready]
    assert pool.select(TIME + 1) == [early, ready]


def test_a_full_pool_keeps_only_what_a_proposal_needs(pool, monkeypatch):
    monkeypatch.setattr(limits, "PENDING_BATCH_BYTES", 100)
    assert not pool.add(batch(1), TIME)
    assert pool.add(batch(1), TIME, needed=True)
    pool.remove([batch(1).digest])
    assert len(pool) == 0


def test_expired_batches_go_unless_a_candidate_orders_them(pool):
    gone, kept, alive = (batch(n, valid_until=TIME + n) for n in (1, 2, 9))
    for one in (gone, kept, alive):
        pool.add(one, TIME)
    assert pool.expire(TIME + 3, frozenset([kept.digest])) == 1
    assert pool.select(TIME) == [kept, alive]


def test_overdue_batches_are_offered_again_within_bounds(pool, monkeypatch):
    batches = [batch(n) for n in range(3)]
    for number, one in enumerate(batches):
        pool.add(one, TIME + number)
    assert pool.overdue(TIME + limits.REBROADCAST_MS) == batches[:1]
    assert pool.overdue(TIME + limits.REBROADCAST_MS + 5) == batches
    monkeypatch.setattr(limits, "REBROADCAST_BYTES", 2 * len(batches[0].wire))
    assert pool.overdue(TIME + limits.REBROADCAST_MS + 5) == batches[:2]
