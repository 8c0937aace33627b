"""The mempool: bounds by count, bytes and sender, and the queue of what waits for a batch."""

import pytest

from ledger.batch import namespace_order
from ledger.errors import Reason, Rejected
from ledger.limits import BATCH_NAMESPACES
from node import limits
from node.mempool import Mempool

from .chains import ADMIN, MEMBER, TIME, make_transaction, register


def transaction(number, **changes):
    return make_transaction(register(number), number, **changes)


def filled(count):
    pool = Mempool()
    for number in range(count):
        pool.add(transaction(number))
    return pool


def refusal(pool, sender=MEMBER, size=100):
    with pytest.raises(Rejected) as caught:
        pool.check_room(sender.address, size)
    return caught.value.reason


def test_transactions_are_taken_in_order_and_stay_known():
    pool, made = Mempool(), [transaction(number) for number in range(5)]
    for one in (*made, made[2]):
        pool.add(one)
    taken = pool.take(count=3, size=10**6)
    assert taken == made[:3]
    assert (len(pool), pool.waiting, made[0].id in pool) == (5, 2, True)
    assert pool.take(count=3, size=10**6) == made[3:]
    assert (pool.waiting, pool.waiting_bytes) == (0, 0)


def test_a_batch_takes_the_bytes_it_may_and_always_one():
    pool, size = filled(3), len(transaction(0).wire)
    assert len(pool.take(count=9, size=2 * size)) == 2
    assert len(pool.take(count=9, size=1)) == 1
    assert pool.take(count=9, size=1) == []


def test_a_batch_never_has_more_namespaces_than_its_header_holds():
    pool = Mempool()
    made = [transaction(n, module="emr" if n % 2 else "trial", level=n // 2) for n in range(200)]
    for one in made:
        pool.add(one)
    taken = []
    while pool.waiting:
        part = pool.take(count=limits.BATCH_TARGET_TRANSACTIONS, size=10**9)
        assert len({namespace_order(one) for one in part}) <= BATCH_NAMESPACES
        taken += part
    assert taken == made


def test_a_full_pool_refuses_by_name(monkeypatch):
    pool = filled(3)
    pool.check_room(MEMBER.address, 100)
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS", 3)
    assert refusal(pool) is Reason.POOL_FULL
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS", 4)
    monkeypatch.setattr(limits, "POOL_BYTES", 3 * len(transaction(0).wire) + 99)
    assert refusal(pool) is Reason.POOL_FULL


def test_one_sender_cannot_take_the_room_of_others(monkeypatch):
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS_PER_SENDER", 3)
    pool = filled(3)
    assert refusal(pool) is Reason.SENDER_LIMIT
    pool.check_room(ADMIN.address, 100)
    pool.remove(transaction(1).id)
    pool.check_room(MEMBER.address, 100)


def test_expired_transactions_leave_the_queue_and_the_count():
    pool = Mempool()
    for number in range(4):
        pool.add(transaction(number, valid_until=TIME + number))
    taken = pool.take(count=1, size=10**6)
    assert pool.expire(TIME + 2) == 2
    assert (len(pool), pool.waiting) == (2, 2)
    assert [one.body.valid_until for one in pool.take(count=9, size=10**6)] == [TIME + 2, TIME + 3]
    assert taken[0].id not in pool
    assert pool.waiting_bytes == 0


def test_removing_all_frees_everything():
    pool = filled(4)
    pool.take(count=9, size=10**6)
    for number in range(5):
        pool.remove(transaction(number).id)
    assert len(pool) == 0
    assert (pool._bytes, pool._by_sender) == (0, {})


def test_a_transaction_that_another_node_brought_on_chain_is_not_packed_again():
    """It would only earn a DUPLICATE receipt: a place in a block for nothing."""
    pool = filled(3)
    pool.remove(transaction(1).id)
    assert [one.id for one in pool.take(count=9, size=10**6)] == [
        transaction(0).id,
        transaction(2).id,
    ]
