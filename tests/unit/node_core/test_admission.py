"""Admission: which refusal a transaction or batch gets, and what is verified only once."""

import msgspec
import pytest
import trio

from ledger.batch import decode_batch
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.limits import REPLAY_WINDOW_MS
from ledger.transaction import SignedTransaction
from node import limits
from node.admission import Admission, _by_signatures
from node.mempool import Mempool
from node.parsing import slices
from node.stages import StageClock

from .chains import (
    MEMBER,
    STRANGER,
    TIME,
    VALIDATORS,
    LocalChain,
    make_batch,
    make_transaction,
    register,
)


class Hands:
    """A clock that is set by hand."""

    def __init__(self, now_ms):
        self.now = now_ms

    def now_ms(self):
        return self.now


class Door:
    """An admission over a chain in memory, at TIME + 1,000."""

    def __init__(self):
        self.chain, self.pool, self.clock = LocalChain(), Mempool(), Hands(TIME + 1_000)
        self.admission = Admission(self.chain.executor, self.pool, self.clock, StageClock())

    def admit(self, *wires, client=""):
        """Per transaction its id or the reason of its refusal."""
        answers = trio.run(self.admission.admit, wires, client)
        return [answer.reason if isinstance(answer, Rejected) else answer for answer in answers]


@pytest.fixture
def door():
    return Door()


def signed(calls, nonce=None, **changes):
    """A signed registration of that number, or of these calls."""
    if nonce is None:
        return make_transaction(register(calls), calls, is_signed=True, **changes)
    return make_transaction(calls, nonce, is_signed=True, **changes)


def test_a_good_transaction_waits_in_the_pool(door):
    one = signed(1)
    assert door.admit(one.wire) == [one.id]
    assert door.pool.take(count=9, size=10**6)[0].wire == one.wire


def test_the_same_bytes_again_answer_the_same_id_and_wait_once(door):
    one = signed(1)
    assert door.admit(one.wire, one.wire, one.wire) == [one.id] * 3
    assert door.admit(one.wire) == [one.id]
    assert door.pool.waiting == 1


def test_an_executed_transaction_answers_its_id_and_does_not_wait_again(door):
    one = signed(1)
    door.chain.run(one)
    assert door.admit(one.wire) == [one.id]
    assert door.pool.waiting == 0


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"valid_until": TIME + 999}, Reason.EXPIRED),
        ({"valid_until": TIME + 1_000}, None),
        ({"valid_until": TIME + 1_000 + REPLAY_WINDOW_MS}, None),
        ({"valid_until": TIME + 1_001 + REPLAY_WINDOW_MS}, Reason.VALID_TOO_FAR),
        ({"module": "nowhere"}, Reason.UNKNOWN_NAMESPACE),
        ({"level": 4}, Reason.UNKNOWN_NAMESPACE),
        ({"account": STRANGER.address}, Reason.UNKNOWN_ACCOUNT),
        ({"by": STRANGER}, Reason.UNKNOWN_ACCOUNT),
        ({"signer": STRANGER.address}, Reason.SIGNER_NOT_CURRENT),
        ({"signer": MEMBER.address}, None),
    ],
)
def test_each_rule_refuses_by_its_name(door, changes, reason):
    one = signed(1, **changes)
    assert door.admit(one.wire) == [one.id if reason is None else reason]
    assert len(door.pool) == (reason is None)


def test_a_bad_signature_is_refused_and_its_neighbours_are_not(door):
    good, other = signed(1), signed(2)
    bad = make_transaction(register(3), 3)
    assert door.admit(good.wire, bad.wire, other.wire) == [good.id, Reason.BAD_SIGNATURE, other.id]


def test_a_bad_signature_does_not_keep_out_the_good_one(door):
    good = signed(1)
    envelope = msgspec.msgpack.decode(good.wire, type=SignedTransaction)
    bad = encode(msgspec.structs.replace(envelope, signatures=((0, bytes(64)),)))
    assert door.admit(bad) == [Reason.BAD_SIGNATURE]
    assert door.admit(good.wire) == [good.id]


def test_the_time_of_the_chain_counts_when_the_clock_lags(door):
    door.chain.decide(time=TIME + 60_000)
    assert door.admit(signed(1, valid_until=TIME + 59_999).wire) == [Reason.EXPIRED]


def test_a_full_pool_and_a_greedy_sender_have_names(door, monkeypatch):
    door.admit(signed(1).wire)
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS_PER_SENDER", 1)
    assert door.admit(signed(2).wire) == [Reason.SENDER_LIMIT]
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS", 1)
    assert door.admit(signed(2).wire) == [Reason.POOL_FULL]


def test_who_sends_bad_signatures_is_refused_before_the_next_is_checked(door):
    bad = [make_transaction(register(n), n).wire for n in range(limits.FAILED_SIGNATURES)]
    assert set(door.admit(*bad, client="10.0.0.9")) == {Reason.BAD_SIGNATURE}
    good = signed(99)
    assert door.admit(good.wire, client="10.0.0.9") == [Reason.RATE_LIMIT]
    assert door.admit(good.wire, client="10.0.0.8") == [good.id]
    door.clock.now += 1_000
    assert door.admit(signed(98).wire, client="10.0.0.9") == [signed(98).id]


def test_a_refused_signature_gives_its_room_back(door):
    door.admit(make_transaction(register(1), 1).wire, signed(2).wire)
    assert (door.pool._all.transactions, len(door.pool)) == (1, 1)


def test_room_is_asked_for_before_a_signature_is_checked(door, monkeypatch):
    """A full pool must cost a client's flood nothing but parsing."""
    monkeypatch.setattr(limits, "POOL_TRANSACTIONS", 0)
    bad = make_transaction(register(1), 1)
    assert door.admit(bad.wire) == [Reason.POOL_FULL]


def test_an_envelope_with_other_operations_is_refused_by_name(door):
    envelope = signed((register(1), register(2)), 7)
    record = msgspec.msgpack.decode(envelope.wire, type=SignedTransaction)
    forged = encode(msgspec.structs.replace(record, operations=(register(1), register(3))))
    assert door.admit(envelope.wire, forged) == [envelope.id, Reason.BAD_ENVELOPE]


def test_many_signatures_of_one_script_are_checked_in_slices():
    items = [msgspec.structs.replace(signed(1), signatures=((0, b""),) * n) for n in (16, 16, 16)]
    parts = list(_by_signatures([*items, bytes(32), Rejected(Reason.EXPIRED)]))
    assert [len(part) for part in parts] == [2, 3]
    assert list(_by_signatures([])) == []


def test_slices_are_cut_by_count_and_by_bytes():
    wires = [b"x"] * 5 + [b"x" * limits.SLICE_BYTES] * 2 + [b"x"]
    assert [len(part) for part in slices(wires, 3)] == [3, 2, 1, 1, 1]
    assert list(slices([], 3)) == []


def test_an_executed_transaction_answers_its_id_after_it_expired_too(door):
    one = signed(1, valid_until=TIME + 5_000)
    door.chain.run(one)
    door.chain.run(signed(2), time=TIME + 60_000)
    assert door.admit(one.wire) == [one.id]


def verified(door, wire):
    return trio.run(
        door.admission.verify_batch, wire, decode_batch(wire), lambda _height: VALIDATORS
    )


def test_a_batch_of_a_validator_with_good_signatures_is_believed(door):
    batch = make_batch([signed(n) for n in range(1, 4)], author=2)
    assert verified(door, batch.wire).digest == batch.digest


def test_a_batch_with_one_bad_signature_is_refused_whole(door):
    batch = make_batch([signed(1), make_transaction(register(2), 2)])
    with pytest.raises(Rejected) as refusal:
        verified(door, batch.wire)
    assert refusal.value.reason is Reason.BAD_SIGNATURE


def test_a_batch_that_its_author_did_not_sign_is_refused(door):
    batch = make_batch([signed(1)])
    fields = msgspec.msgpack.decode(batch.wire)
    fields[1] = make_batch([signed(2)]).signature
    with pytest.raises(Rejected) as refusal:
        verified(door, encode(fields))
    assert refusal.value.reason is Reason.BAD_BATCH


def test_expired_and_unknown_transactions_do_not_spoil_a_batch(door):
    """What time and state say of a transaction is a matter of its receipt."""
    batch = make_batch([signed(1, valid_until=TIME - 1), signed(2, module="nowhere")])
    assert verified(door, batch.wire).digest == batch.digest
