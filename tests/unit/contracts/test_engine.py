"""Execution: every status a receipt can have, and what each outcome leaves behind."""

import pytest

from contracts.data_index import HistoryItem, IndexEntry
from contracts.interface import Account, Revert
from ledger.codec import encode
from ledger.receipts import RECEIPT, Status
from ledger.transaction import Call, operation_ids
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    ADMIN,
    MEMBER,
    STRANGER,
    TIME,
    LocalChain,
    make_batch,
    make_transaction,
    register,
)

BROKEN = Call("data_index", "register", b"\xc0")


@pytest.fixture
def chain():
    return LocalChain()


def statuses(receipts):
    return [Status(receipt.status) for receipt in receipts]


def registered(chain, module="emr", level=0):
    """How many entries the index log of a namespace has."""
    count = 0
    while True:
        try:
            chain.read(module, level, "data_index", "entry", count)
        except Revert:
            return count
        count += 1


def test_a_registration_answers_its_position_and_announces_itself(chain):
    (receipt,) = chain.run(make_transaction(register(1), 1))
    assert statuses([receipt]) == [Status.OK]
    assert receipt.output == encode((0,))
    assert [(event.contract, event.name) for event in receipt.events] == [
        ("data_index", "registered")
    ]


def test_the_same_id_again_is_a_duplicate_in_the_same_block_and_in_later_ones(chain):
    once = make_transaction(register(1), 1)
    first = make_batch([once], sequence=0)
    second = make_batch([once], sequence=1)
    chain.decide(first, second)
    receipts = [
        status
        for result in chain.state.receipts(1)
        for status in statuses(map(RECEIPT.decode, result.receipts))
    ]
    assert receipts == [Status.OK, Status.DUPLICATE]
    assert statuses(chain.run(once)) == [Status.DUPLICATE]
    assert registered(chain) == 1


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"valid_until": TIME + 99}, Status.EXPIRED),
        ({"valid_until": TIME + 100}, Status.OK),
        ({"module": "nowhere"}, Status.UNKNOWN_NAMESPACE),
        ({"level": 4}, Status.UNKNOWN_NAMESPACE),
        ({"account": STRANGER.address}, Status.UNKNOWN_ACCOUNT),
        ({"signer": STRANGER.address}, Status.SIGNER_NOT_CURRENT),
        ({"signer": MEMBER.address}, Status.OK),
        ({"after": bytes(32)}, Status.AFTER_NOT_FOUND),
        ({"level": 1}, Status.REVERTED),
    ],
)
def test_a_transaction_that_may_not_run_gets_a_receipt_that_says_why(chain, changes, status):
    (receipt,) = chain.run(make_transaction(register(1), 1, **changes), time=TIME + 100)
    assert statuses([receipt]) == [status]
    assert registered(chain) == (status is Status.OK)


@pytest.mark.parametrize(
    ("call", "status"),
    [
        (Call("nothing", "register", b""), Status.UNKNOWN_CONTRACT),
        (Call("accounts", "add_account", b""), Status.UNKNOWN_CONTRACT),
        (Call("data_index", "nothing", b""), Status.UNKNOWN_METHOD),
        (Call("data_index", "entry", encode((0,))), Status.UNKNOWN_METHOD),
        (BROKEN, Status.BAD_ARGUMENTS),
        (Call("data_index", "register", b""), Status.BAD_ARGUMENTS),
        (
            Call("data_index", "register", register(1).arguments + b"\x00"),
            Status.BAD_ARGUMENTS,
        ),
        (Call("data_index", "supersede", encode((bytes(32), 0, 2, None))), Status.REVERTED),
    ],
)
def test_a_call_that_cannot_run_fails_alone(chain, call, status):
    receipts = chain.run(make_transaction(call, 1), make_transaction(register(2), 2))
    assert statuses(receipts) == [status, Status.OK]
    assert registered(chain) == 1


def test_operations_of_an_envelope_succeed_and_fail_alone(chain):
    calls = (register(1), BROKEN, register(2))
    receipts = chain.run(make_transaction(calls, 1))
    assert statuses(receipts) == [Status.OK, Status.BAD_ARGUMENTS, Status.OK]
    assert [receipt.output for receipt in receipts] == [encode((0,)), b"", encode((1,))]
    assert registered(chain) == 2


def test_an_atomic_envelope_with_a_failure_leaves_nothing(chain):
    calls = (register(1), register(2), BROKEN, register(3))
    receipts = chain.run(make_transaction(calls, 1, atomic=True), make_transaction(register(9), 9))
    aborted = Status.ABORTED
    assert statuses(receipts) == [aborted, aborted, Status.BAD_ARGUMENTS, aborted, Status.OK]
    assert [receipt.events for receipt in receipts[:4]] == [()] * 4
    assert receipts[4].output == encode((0,))
    assert registered(chain) == 1


def test_an_atomic_envelope_without_a_failure_is_kept_whole(chain):
    receipts = chain.run(make_transaction((register(1), register(2)), 1, atomic=True))
    assert statuses(receipts) == [Status.OK, Status.OK]
    assert registered(chain) == 2


def test_after_runs_only_behind_a_success(chain):
    good, bad = make_transaction(register(1), 1), make_transaction(BROKEN, 2)
    chain.run(good, bad)
    behind_good = make_transaction(register(3), 3, after=good.id)
    behind_bad = make_transaction(register(4), 4, after=bad.id)
    assert statuses(chain.run(behind_good, behind_bad)) == [Status.OK, Status.AFTER_NOT_FOUND]


def test_after_an_envelope_needs_all_its_operations(chain):
    whole = make_transaction((register(1), register(2)), 1)
    part = make_transaction((register(3), BROKEN), 2)
    chain.run(whole, part)
    receipts = chain.run(
        make_transaction(register(5), 5, after=whole.id),
        make_transaction(register(6), 6, after=part.id),
    )
    assert statuses(receipts) == [Status.OK, Status.AFTER_NOT_FOUND]


def test_a_failed_receipt_is_final(chain):
    failed = make_transaction(BROKEN, 1)
    assert statuses(chain.run(failed)) == [Status.BAD_ARGUMENTS]
    assert statuses(chain.run(failed)) == [Status.DUPLICATE]


def test_a_transaction_and_each_operation_are_found_by_their_ids(chain):
    envelope = make_transaction((register(1), register(2)), 1)
    single = make_transaction(register(3), 2)
    chain.run(single, envelope)
    ids = operation_ids(envelope, SUITE)
    places = [chain.state.locate(one) for one in (single.id, envelope.id, *ids)]
    found = [(place.height, place.transaction, place.operation, place.receipt) for place in places]
    assert found == [(1, 0, 0, 0), (1, 1, 0, 1), (1, 1, 0, 1), (1, 1, 1, 2)]


def test_a_replay_long_after_expiry_does_not_change_where_the_first_execution_stands(chain):
    once = make_transaction(register(1), 1, valid_until=TIME + 5_000)
    chain.run(once)
    before = chain.state.locate(once.id)
    receipts = chain.run(once, time=TIME + 100_000)
    assert statuses(receipts) == [Status.EXPIRED]
    assert chain.state.locate(once.id) == before


def test_levels_and_modules_do_not_share_their_logs(chain):
    chain.run(
        make_transaction(register(1), 1),
        make_transaction(register(2, level=2), 2, level=2),
        make_transaction(register(3), 3, module="trial"),
    )
    assert [registered(chain, *place) for place in (("emr", 0), ("emr", 1), ("emr", 2))] == [
        1,
        0,
        1,
    ]
    assert registered(chain, "trial", 0) == 1
    item = chain.read("emr", 2, "data_index", "entry", 0)
    assert isinstance(item, HistoryItem)
    assert isinstance(item.entry, IndexEntry)


def test_genesis_fills_the_accounts(chain):
    found = chain.read("system", 0, "accounts", "account", ADMIN.address)
    assert found == Account("hospital", "admin", ADMIN.address)
    with pytest.raises(Revert, match="NOT_FOUND"):
        chain.read("system", 0, "accounts", "account", STRANGER.address)
