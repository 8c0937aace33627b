"""Bugs that other chains had at their front door, each as a test that this node passes.

Source: research consensus-reliability section 1.9; the numbers are those of its table.
"""

import json
import threading
from contextlib import nullcontext

import msgspec
import pytest
import trio

from consensus.events import Verdict
from ledger.batch import parse_batch
from ledger.block import block_hash
from ledger.codec import Schema, encode
from ledger.errors import Reason, Rejected
from ledger.ids import ValidatorIndex
from ledger.transaction import parse_transaction
from node import limits, wire
from node.admission import Admission
from node.backlog import Backlog
from node.batches import BatchPool
from node.candidates import Candidates, Check
from node.mempool import Mempool
from node.stages import StageClock
from rpc.jsonrpc import Context, answer
from rpc.methods import Methods
from tests.fuzz.run import work
from tests.unit.node_core.chains import (
    CHAIN,
    PARAMETERS,
    SUITE,
    TIME,
    LocalChain,
    make_batch,
    make_transaction,
    register,
)
from tests.unit.rpc_light.local_node import LocalNode

BOUNDARIES = (
    *(-(2**63), -1, 0, 1, 255, 256, 600_000, 600_001, 2**31, 2**32, 2**53, 2**53 + 1),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**400),
)


class Hands:
    """A clock that is set by hand."""

    now = TIME

    def now_ms(self):
        return self.now


def signed(number, **changes):
    return make_transaction(register(number), number, is_signed=True, **changes)


def admit(admission, *transactions):
    """Per transaction its id or its refusal."""
    return trio.run(admission.admit, [one.wire for one in transactions])


# ---- T-05: an index out of range (ASA-2024-011) ------------------------------------------------


def integer_fields():
    """Every integer parameter of every method, with a call that is right but for it."""
    texts = {"id": "ab" * 32, "hash": None, "transaction": "", "transactions": [""]}
    texts |= {"module": "system", "contract": "accounts", "method": "account"}
    texts |= {"map": "accounts", "log": "history", "key": ""}
    for method in Methods(LocalNode(decides=False)).registry().methods:
        kinds = msgspec.inspect.type_info(method.params).fields
        integers = [field.name for field in kinds if "IntType" in repr(field.type)]
        others = [field.name for field in kinds if field.name not in integers]
        call = {name: texts[name] for name in others if name in texts and texts[name] is not None}
        for name in integers:
            right = 0 if method.name == "call" else 1
            rest = {other: right for other in integers if other != name}
            yield method.name, name, call | rest


@pytest.mark.parametrize(("method", "name", "call"), list(integer_fields()))
def test_t05_every_integer_of_every_method_is_answered_at_its_boundaries(method, name, call):
    local = LocalChain()
    for _ in range(3):
        local.decide()
    registry = Methods(LocalNode(local, decides=False)).registry()

    async def ask(value):
        body = {"jsonrpc": "2.0", "id": value, "method": method, "params": {**call, name: value}}
        with trio.move_on_after(0):
            return await answer(json.dumps(body).encode(), registry, Context(nullcontext_async))
        return b'{"waits":true}'

    for value in BOUNDARIES:
        reply = json.loads(trio.run(ask, value))
        assert reply.get("error", {}).get("code") != -32603, reply


def nullcontext_async():
    return nullcontext()


@pytest.mark.parametrize("field", ["version", "group", "level", "valid_until", "client_time"])
@pytest.mark.parametrize("value", [item for item in BOUNDARIES if item < 2**64])
def test_t05_every_integer_of_a_transaction_is_accepted_or_refused_by_name(field, value):
    chain = LocalChain()
    admission = Admission(chain.executor, Mempool(), Hands(), StageClock())
    fields = msgspec.msgpack.decode(signed(1).wire)
    body = msgspec.msgpack.decode(fields[0])
    place = ["version", "", "group", "", "level", "", "", "", "valid_until", "client_time"]
    is_changed = body[place.index(field)] != value
    body[place.index(field)] = value
    (found,) = trio.run(admission.admit, [encode([encode(body), *fields[1:]])])
    assert isinstance(found, Rejected) == is_changed


# ---- T-13: admission faster than execution (cometbft #3314) ------------------------------------


@pytest.mark.parametrize(
    "limit", ["BACKLOG_TRANSACTIONS", "BACKLOG_BYTES", "BACKLOG_UNVERIFIED_BYTES"]
)
def test_t13_admission_closes_while_batches_pile_up_and_opens_again(monkeypatch, limit):
    chain = LocalChain()
    pool, unverified = BatchPool(chain.bodies), [0]
    backlog = Backlog(pool, lambda: unverified[0])
    admission = Admission(chain.executor, Mempool(), Hands(), StageClock(), backlog.check)
    batch = make_batch([signed(1), signed(2)])
    monkeypatch.setattr(limits, limit, 2)
    assert admit(admission, signed(3)) == [signed(3).id]

    pool.add(batch, TIME)
    unverified[0] = len(batch.wire)
    (refusal,) = admit(admission, signed(4))
    assert refusal.reason is Reason.BEHIND
    assert refusal.facts["retry_after_ms"] == limits.BACKLOG_RETRY_MS

    pool.remove([batch.digest])
    unverified[0] = 0
    assert admit(admission, signed(4)) == [signed(4).id]


def test_t13_a_known_transaction_is_answered_while_behind(monkeypatch):
    """Who asks again what became of it is no new work."""
    chain = LocalChain()
    pool, mempool = BatchPool(chain.bodies), Mempool()
    backlog = Backlog(pool, lambda: 0)
    admission = Admission(chain.executor, mempool, Hands(), StageClock(), backlog.check)
    admit(admission, signed(1))
    monkeypatch.setattr(limits, "BACKLOG_BYTES", 0)
    known, refusal = admit(admission, signed(1), signed(2))
    assert (known, refusal.reason) == (signed(1).id, Reason.BEHIND)
    assert signed(2).id not in mempool


# ---- T-16, T-18: what an abandoned proposal held (FISCO #4308, #3809, #3107, #4598) ------------


def test_t16_a_round_that_ends_gives_its_transactions_to_the_next():
    chain = LocalChain()
    pool = BatchPool(chain.bodies)
    candidates = Candidates(chain.writer, pool, PARAMETERS)
    batches = [make_batch([signed(n)], sequence=n) for n in (1, 2, 3)]
    for batch in batches:
        pool.add(batch, TIME)
    wanted = tuple(batch.digest for batch in batches)
    for round_number in range(5):
        value = candidates.build(ValidatorIndex(0), round_number, TIME + 100 + round_number)
        assert candidates.block(value).block.batches == wanted

    chain.decide()  # Another block is decided: none of those proposals.
    candidates.start_height(2)
    value = candidates.build(ValidatorIndex(1), 0, TIME + 1_000)
    assert candidates.block(value).block.batches == wanted


def test_t16_a_proposal_of_others_that_is_never_decided_holds_nothing_back():
    chain, other = LocalChain(), LocalChain()
    pool = BatchPool(chain.bodies)
    candidates = Candidates(chain.writer, pool, PARAMETERS)
    batch = make_batch([signed(1)], sequence=1)
    pool.add(batch, TIME)
    block, _ = other.next_block(batch)

    value = block_hash(block.header, SUITE)
    candidates.remember(
        value, encode(block), round_number=9, sender=ValidatorIndex(1), received_ms=TIME + 100
    )
    candidates.start_check(Check(1, 9, value))
    assert [verdict for _, verdict in candidates.verdicts()] == [Verdict.UNTIMELY]
    mine = candidates.build(ValidatorIndex(0), 10, TIME + 200)
    assert candidates.block(mine).block.batches == (batch.digest,)


def test_t18_a_transaction_whose_batch_was_abandoned_is_committed_once():
    """The whole property is a machine: tests/property/test_admission_machine.py."""
    chain = LocalChain()
    one = signed(1)
    first, second = make_batch([one], sequence=1), make_batch([one], sequence=2, author=1)
    pool = BatchPool(chain.bodies)
    candidates = Candidates(chain.writer, pool, PARAMETERS)
    pool.add(first, TIME)
    candidates.build(ValidatorIndex(0), 0, TIME + 100)
    chain.decide(second)
    chain.decide(first)
    statuses = [receipt.status for height in (1, 2) for receipt in chain.receipts_of(height)]
    assert statuses == [0, 2]


# ---- T-23: a codec that is shared (FISCO #3929, #3916) -----------------------------------------


def test_t23_encoding_and_decoding_keep_nothing_from_one_value_to_the_next():
    samples = [signed(n) for n in range(1, 6)]
    envelope = make_transaction((register(7), register(8)), 7, is_signed=True)
    batch = make_batch([*samples, envelope])
    before = encode(samples[0].body)
    for broken in (b"", batch.wire[:-1], samples[0].wire + b"\0", b"\x91" * 600, b"\xdd" * 9):
        for parse in (parse_transaction, parse_batch):
            with pytest.raises(Rejected):
                parse(broken, CHAIN)
        again = parse_batch(batch.wire, CHAIN)
        assert [one.wire for one in again.transactions] == [one.wire for one in batch.transactions]
        assert encode(samples[0].body) == before


def test_t23_decoders_that_run_in_two_threads_do_not_meet():
    messages = [wire.StatusMessage(n, n % 7, n % 3) for n in range(500)]
    schema = Schema(wire.StatusMessage, max_bytes=64)
    wrong = []

    def hammer():
        for _ in range(40):
            wrong.extend(item for item in messages if schema.decode(encode(item)) != item)

    threads = [threading.Thread(target=hammer) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_t23_decoded_values_share_no_memory_that_can_change():
    data = bytearray(signed(1).wire)
    parsed = parse_transaction(bytes(data), CHAIN)
    data[:] = bytes(len(data))
    assert parse_transaction(parsed.wire, CHAIN).id == parsed.id == signed(1).id


# ---- T-28: fuzzed messages crash the orderer (SmartBFT-Go, fabric #279) ------------------------


def test_t28_fuzzed_messages_are_refused_by_name():
    """A slice; `make fuzz` runs for as long as one likes, ten million for a release."""
    assert work(28, 0, 1, 5_000, 60).escapes == []
