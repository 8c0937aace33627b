"""The replay window: an id is executed once, whatever restart, sync or block lies between."""

import pytest
import trio

from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.limits import REPLAY_WINDOW_MS
from ledger.receipts import Status
from ledger.transaction import operation_ids
from node.admission import Admission
from node.mempool import Mempool
from node.stages import StageClock
from node.synced import append_synced
from tests.unit.ledger.worlds import SUITE

from .chains import TIME, LocalChain, facts, fetched, make_batch, make_transaction, register


class Hands:
    def __init__(self, now_ms):
        self.now = now_ms

    def now_ms(self):
        return self.now


def statuses(receipts):
    return [Status(receipt.status) for receipt in receipts]


def signed(calls, nonce, **changes):
    return make_transaction(calls, nonce, is_signed=True, **changes)


def pool_answers(chain, *transactions):
    """What the pool of a fresh node says to each: its id, or a reason; and how many wait."""
    pool = Mempool()
    admission = Admission(chain.executor, pool, Hands(chain.tip.time), StageClock())
    found = trio.run(admission.admit, [one.wire for one in transactions])
    answers = [item.reason if isinstance(item, Rejected) else item for item in found]
    return answers, pool.waiting


def copy_of(chain):
    """Another node that has synced every block from this one."""
    other = LocalChain()
    blocks = fetched(chain, *range(1, chain.tip.height + 1))
    trio.run(append_synced, other.writer, blocks, lambda _height: None)
    return other


def reopened(chain):
    chain.restart()
    return chain


SURVIVALS = pytest.mark.parametrize(
    "survive", [lambda chain: chain, reopened, copy_of], ids=["as it is", "restarted", "synced"]
)
ONE = signed(register(1), 1)
ENVELOPE = signed((register(2), register(3)), 2)


@SURVIVALS
def test_an_executed_id_is_a_duplicate_in_a_later_block_and_known_to_the_pool(survive):
    chain = LocalChain()
    chain.run(ONE, ENVELOPE)
    chain = survive(chain)
    assert pool_answers(chain, ONE, ENVELOPE) == ([ONE.id, ENVELOPE.id], 0)
    assert statuses(chain.run(ONE, ENVELOPE)) == [Status.DUPLICATE] * 3


@SURVIVALS
def test_a_failed_id_is_final_and_a_duplicate_of_it_changes_nothing(survive):
    chain = LocalChain()
    broken = signed(register(1), 9, module="nowhere")
    assert statuses(chain.run(broken)) == [Status.UNKNOWN_NAMESPACE]
    chain = survive(chain)
    assert statuses(chain.run(broken)) == [Status.DUPLICATE]
    later = signed(register(4), 4, after=broken.id)
    assert statuses(chain.run(later)) == [Status.AFTER_NOT_FOUND]


@SURVIVALS
def test_after_sees_the_first_outcome_of_an_id_and_not_that_of_its_duplicate(survive):
    chain = LocalChain()
    chain.run(ONE)
    chain.run(ONE)
    chain = survive(chain)
    assert statuses(chain.run(signed(register(5), 5, after=ONE.id))) == [Status.OK]


@SURVIVALS
def test_an_id_is_remembered_to_the_last_moment_in_which_it_could_run(survive):
    chain = LocalChain()
    late = signed(register(6), 6, valid_until=TIME + REPLAY_WINDOW_MS)
    chain.run(late, time=TIME + 1)
    chain.run(signed(register(7), 7), time=TIME + REPLAY_WINDOW_MS - 1_000)
    chain = survive(chain)
    assert statuses(chain.run(late, time=TIME + REPLAY_WINDOW_MS)) == [Status.DUPLICATE]
    assert statuses(chain.run(late, time=TIME + REPLAY_WINDOW_MS + 20_000)) == [Status.EXPIRED]


@SURVIVALS
def test_an_expired_id_that_was_executed_keeps_its_first_result(survive):
    chain = LocalChain()
    chain.run(ONE)
    first = chain.state.locate(ONE.id)
    chain.decide(time=TIME + 2 * REPLAY_WINDOW_MS)
    chain = survive(chain)
    assert statuses(chain.run(ONE)) == [Status.EXPIRED]
    assert chain.state.locate(ONE.id) == first
    assert pool_answers(chain, ONE) == ([ONE.id], 0)


def test_an_id_twice_in_one_block_or_one_batch_runs_once():
    chain = LocalChain()
    chain.decide(make_batch([ONE, ONE, ENVELOPE], 1), make_batch([ENVELOPE, ONE], 2, author=1))
    found = {}
    for receipt in chain.receipts_of(1):
        found.setdefault(receipt.id, []).append(Status(receipt.status))
    assert found == {
        ONE.id: [Status.OK, Status.DUPLICATE, Status.DUPLICATE],
        **{
            operation: [Status.OK, Status.DUPLICATE] for operation in operation_ids(ENVELOPE, SUITE)
        },
    }


def test_a_transaction_of_another_namespace_is_another_id():
    """The namespace is in the signed body, so one id cannot stand in two."""
    twin = signed(register(1), 1, module="trial")
    assert twin.id != ONE.id
    assert statuses(LocalChain().run(ONE, twin)) == [Status.OK, Status.OK]


def test_an_operation_cannot_come_again_outside_its_envelope():
    chain = LocalChain()
    chain.run(ENVELOPE)
    inner = operation_ids(ENVELOPE, SUITE)
    alone = signed(ENVELOPE.operations[0], 2)
    shorter = signed(ENVELOPE.operations[:1], 2)
    ids = {alone.id, shorter.id, *operation_ids(shorter, SUITE), ENVELOPE.id}
    assert ids.isdisjoint(inner)
    assert pool_answers(chain, ENVELOPE) == ([ENVELOPE.id], 0)


def test_other_signature_bytes_are_the_same_id_and_no_second_execution():
    chain = LocalChain()
    unsigned = make_transaction(register(1), 1)
    assert (unsigned.id, unsigned.wire) != (ONE.id, ONE.wire)
    assert unsigned.id == ONE.id
    assert statuses(chain.run(ONE, unsigned)) == [Status.OK, Status.DUPLICATE]


def test_restarted_and_synced_nodes_go_on_as_the_one_that_never_stopped():
    chain = LocalChain()
    for number in range(4):
        chain.run(ONE, ENVELOPE, signed(register(10 + number), 10 + number))
    others = [copy_of(chain), copy_of(chain)]
    others[1].restart()
    last = [ONE, signed(register(11), 11), signed(register(30), 30)]
    chain.run(*last)
    for other in others:
        other.run(*last)
        assert facts(other) == facts(chain)
        assert encode(other.tip) == encode(chain.tip)


def test_an_expired_transaction_that_never_ran_is_refused_by_the_pool_by_name():
    chain = LocalChain()
    chain.decide(time=TIME + 2 * REPLAY_WINDOW_MS)
    assert pool_answers(chain, ONE) == ([Reason.EXPIRED], 0)
