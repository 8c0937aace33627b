"""The mempool: its bounds, the reserve of the system module, and what waits for a batch."""

import pytest

from ledger.batch import namespace_order
from ledger.errors import Reason, Rejected
from ledger.limits import BATCH_NAMESPACES
from node import limits
from node.mempool import Mempool

from .chains import ADMIN, TIME, make_transaction, register


def transaction(number, **changes):
    return make_transaction(register(number), number, **changes)


def filled(count):
    pool = Mempool()
    for number in range(count):
        pool.add(transaction(number))
    return pool


def refusal(pool, one):
    """Why one has no room."""
    with pytest.raises(Rejected) as caught:
        pool.claim(one)
    assert caught.value.facts["retry_after_ms"] == limits.POOL_RETRY_MS
    return caught.value.reason


def fits(pool, one):
    """One has room, and gives it back."""
    pool.claim(one)
    pool.release(one)


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


def small_pool(monkeypatch, **changes):
    """Limits that a test can fill; what is not named is out of the way."""
    settings = {
        "POOL_TRANSACTIONS": 10**6,
        "POOL_BYTES": 10**9,
        "POOL_RESERVE_TRANSACTIONS": 0,
        "POOL_RESERVE_BYTES": 0,
        "POOL_TRANSACTIONS_PER_SENDER": 10**6,
        "POOL_BYTES_PER_SENDER": 10**9,
        "POOL_TRANSACTIONS_PER_NAMESPACE": 10**6,
        "POOL_BYTES_PER_NAMESPACE": 10**9,
        "POOL_SYSTEM_TRANSACTIONS_PER_SENDER": 10**6,
        **changes,
    }
    for name, value in settings.items():
        monkeypatch.setattr(limits, name, value)


SIZE = len(transaction(0).wire)
SYSTEM = len(transaction(0, module="system").wire)


@pytest.mark.parametrize(
    ("setting", "most", "reason"),
    [
        ("POOL_TRANSACTIONS", 3, Reason.POOL_FULL),
        ("POOL_BYTES", 4 * SIZE - 1, Reason.POOL_FULL),
        ("POOL_TRANSACTIONS_PER_SENDER", 3, Reason.SENDER_LIMIT),
        ("POOL_BYTES_PER_SENDER", 4 * SIZE - 1, Reason.SENDER_LIMIT),
        ("POOL_TRANSACTIONS_PER_NAMESPACE", 3, Reason.NAMESPACE_LIMIT),
        ("POOL_BYTES_PER_NAMESPACE", 4 * SIZE - 1, Reason.NAMESPACE_LIMIT),
    ],
)
def test_each_cap_refuses_the_fourth_by_name_and_takes_it_once_there_is_room(
    monkeypatch, setting, most, reason
):
    pool = filled(3)
    small_pool(monkeypatch, **{setting: most})
    assert refusal(pool, transaction(3)) is reason
    pool.remove([transaction(1)])
    fits(pool, transaction(3))


def test_one_sender_cannot_take_the_room_of_others(monkeypatch):
    pool = filled(3)
    small_pool(monkeypatch, POOL_TRANSACTIONS_PER_SENDER=3)
    assert refusal(pool, transaction(3)) is Reason.SENDER_LIMIT
    fits(pool, transaction(3, by=ADMIN))


def test_one_namespace_cannot_take_the_room_of_others(monkeypatch):
    pool = filled(3)
    small_pool(monkeypatch, POOL_TRANSACTIONS_PER_NAMESPACE=3)
    assert refusal(pool, transaction(3, by=ADMIN)) is Reason.NAMESPACE_LIMIT
    fits(pool, transaction(3, level=1))
    fits(pool, transaction(3, module="trial"))


@pytest.mark.parametrize(
    "full",
    [
        {"POOL_TRANSACTIONS": 5, "POOL_RESERVE_TRANSACTIONS": 2},
        {"POOL_BYTES": 3 * SIZE + 2 * SYSTEM, "POOL_RESERVE_BYTES": 2 * SYSTEM},
    ],
)
def test_the_last_room_is_kept_for_the_system_module(monkeypatch, full):
    pool = filled(3)
    small_pool(monkeypatch, **full)
    assert refusal(pool, transaction(3)) is Reason.POOL_FULL
    for number in (3, 4):
        one = transaction(number, module="system")
        pool.claim(one)
        pool.keep(one)
    assert refusal(pool, transaction(5, module="system")) is Reason.POOL_FULL


def test_a_greedy_sender_still_has_its_share_of_the_system_module_and_no_more(monkeypatch):
    pool = filled(3)
    small_pool(monkeypatch, POOL_TRANSACTIONS_PER_SENDER=3, POOL_SYSTEM_TRANSACTIONS_PER_SENDER=1)
    pool.add(transaction(3, module="system"))
    assert refusal(pool, transaction(4, module="system")) is Reason.SENDER_LIMIT
    fits(pool, transaction(4, module="system", by=ADMIN))
    pool.remove([transaction(3, module="system")])
    assert refusal(pool, transaction(4)) is Reason.SENDER_LIMIT


def test_the_system_module_is_packed_first():
    pool = filled(3)
    urgent = [transaction(number, module="system") for number in (3, 4)]
    for one in urgent:
        pool.add(one)
    taken = pool.take(count=3, size=10**6)
    assert [one.id for one in taken] == [one.id for one in (*urgent, transaction(0))]
    assert [one.body.module for one in pool.take(count=9, size=10**6)] == ["emr", "emr"]


def test_a_claim_counts_before_it_is_kept_and_not_after_it_is_released(monkeypatch):
    pool = Mempool()
    small_pool(monkeypatch, POOL_TRANSACTIONS=2)
    claimed = transaction(0)
    pool.claim(claimed)
    fits(pool, transaction(1))
    pool.claim(transaction(1))
    assert refusal(pool, transaction(2)) is Reason.POOL_FULL
    assert (len(pool), pool.waiting) == (0, 0)
    pool.release(claimed)
    fits(pool, transaction(2))


def test_a_transaction_that_was_claimed_twice_is_kept_once():
    pool, one = Mempool(), transaction(1)
    for _ in range(2):
        pool.claim(one)
    for _ in range(2):
        pool.keep(one)
    assert (len(pool), pool.waiting, pool._all.transactions) == (1, 1, 1)


def test_a_full_pool_drops_nothing_for_a_newcomer(monkeypatch):
    """What was answered `pending` stays: there is no eviction but expiry."""
    pool = filled(3)
    small_pool(monkeypatch, POOL_TRANSACTIONS=3)
    for number in range(3, 50):
        assert refusal(pool, transaction(number)) is Reason.POOL_FULL
    assert [one.id for one in pool.take(count=9, size=10**6)] == [
        transaction(number).id for number in range(3)
    ]


def test_expired_transactions_leave_the_queue_and_the_count():
    pool = Mempool()
    for number in range(4):
        pool.add(transaction(number, valid_until=TIME + number))
    taken = pool.take(count=1, size=10**6)
    assert list(pool.expire(TIME + 2)) == [2]
    assert len(pool) == 2
    assert [one.body.valid_until for one in pool.take(count=9, size=10**6)] == [TIME + 2, TIME + 3]
    assert taken[0].id not in pool
    assert pool.waiting_bytes == 0


def test_removing_all_frees_everything():
    pool = filled(4)
    pool.take(count=9, size=10**6)
    pool.remove(transaction(number) for number in range(5))
    assert len(pool) == 0
    assert (pool._all.transactions, pool._all.size, pool._shares) == (0, 0, {})


def test_a_transaction_that_another_node_brought_on_chain_is_not_packed_again():
    """It would only earn a DUPLICATE receipt: a place in a block for nothing."""
    pool = filled(3)
    pool.remove([transaction(1)])
    assert [one.id for one in pool.take(count=9, size=10**6)] == [
        transaction(0).id,
        transaction(2).id,
    ]
