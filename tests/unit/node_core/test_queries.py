"""Answers about the chain: what is found, under which id, and whether its proof holds."""

import pytest
import trio

from ledger.errors import Reason, Rejected, UnavailableError
from ledger.proof import parse_proof, verify_registration
from ledger.receipts import Status
from ledger.transaction import Call, operation_ids
from node.queries import Queries
from node.service import Committed
from tests.unit.ledger.worlds import SUITE

from .chains import GENESIS, LocalChain, make_batch, make_transaction, register

BROKEN = Call("data_index", "register", b"\xc0")


@pytest.fixture
def chain():
    return LocalChain()


def signed(calls, nonce, **changes):
    return make_transaction(calls, nonce, is_signed=True, **changes)


def check_proof(queries, any_id):
    proof = trio.run(queries.proof, any_id)
    return verify_registration(parse_proof(proof.to_json()), GENESIS)


def test_nothing_is_known_of_an_id_that_never_was(chain):
    queries = Queries(chain.writer)
    assert (trio.run(queries.committed, bytes(32)), trio.run(queries.proof, bytes(32))) == (
        None,
        None,
    )
    assert [trio.run(queries.block, height) for height in (0, 1, -1)] == [None] * 3


def test_every_operation_of_a_busy_block_is_proved(chain):
    many = signed((register(1), register(2)), 1)
    made = [signed(register(3), 3), many, signed(register(4), 4, module="trial")]
    chain.decide(make_batch(made, author=1), make_batch([signed(register(5), 5)], author=2))
    chain.decide()
    queries = Queries(chain.writer)
    for one in (*made, signed(register(5), 5)):
        for operation in operation_ids(one, SUITE):
            verdict = check_proof(queries, operation)
            assert (verdict.operation, verdict.transaction) == (operation, one.id)
            assert verdict.height == 1


def test_a_proof_waits_for_the_next_header(chain):
    one = signed(register(1), 1)
    chain.run(one)
    with pytest.raises(UnavailableError):
        trio.run(Queries(chain.writer).proof, one.id)


def test_a_failed_operation_has_no_proof_and_its_neighbour_has(chain):
    part = signed((register(1), BROKEN), 1)
    chain.run(part)
    chain.decide()
    queries, ids = Queries(chain.writer), operation_ids(part, SUITE)
    assert trio.run(queries.committed, part.id) == Committed(1, ("OK", "BAD_ARGUMENTS"))
    assert check_proof(queries, ids[0]).operation == ids[0]
    with pytest.raises(Rejected) as refusal:
        trio.run(queries.proof, ids[1])
    assert refusal.value.reason is Reason.NOT_SUCCESSFUL


@pytest.mark.parametrize("author", [0, 1])
def test_a_transaction_in_two_batches_of_a_block_is_proved_by_its_success(chain, author):
    once = signed(register(1), 1)
    other = signed(register(2), 2)
    chain.decide(
        make_batch([other, once], sequence=1, author=author),
        make_batch([once], sequence=2, author=1 - author),
    )
    chain.decide(make_batch([once], sequence=3))
    chain.decide()
    queries = Queries(chain.writer)
    assert trio.run(queries.committed, once.id) == Committed(1, (Status.OK.name,))
    assert check_proof(queries, once.id).operation == once.id


def test_old_blocks_are_read_again_after_a_restart(chain):
    made = [signed(register(n), n) for n in range(1, 13)]
    for one in made:
        chain.run(one)
    chain.decide()
    chain.restart()
    queries = Queries(chain.writer)
    for height, one in enumerate(made, 1):
        found = trio.run(queries.transaction, one.id)
        assert (found.block_height, found.index, found.transaction.wire) == (height, 0, one.wire)
        assert check_proof(queries, one.id).height == height
