"""Equivocation: what convicts a validator, and what frames nobody."""

import msgspec
import pytest

from ledger.errors import Reason, Rejected
from ledger.evidence import PROPOSAL, Statement, convict
from ledger.genesis import chain_of
from ledger.validators import ValidatorSet

from .worlds import CHAIN, SUITE, VALIDATOR_SECRETS, VALIDATORS, make_genesis

A, B = b"a" * 32, b"b" * 32


def statement(value=A, *, kind=2, height=7, round_number=0, valid_round=-1, sender=1, signer=None):
    unsigned = Statement(kind, height, round_number, value, valid_round, sender, bytes(64))
    secret = VALIDATOR_SECRETS[sender if signer is None else signer]
    signature = SUITE.sign(secret, unsigned.digest(CHAIN))
    return msgspec.structs.replace(unsigned, signature=signature)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (statement(A), statement(B)),
        (statement(A), statement(None)),
        (statement(A, kind=1), statement(B, kind=1)),
        (statement(A, kind=1, round_number=3), statement(A, kind=1, round_number=3, valid_round=2)),
        (statement(A, kind=PROPOSAL), statement(B, kind=PROPOSAL)),
    ],
)
def test_two_statements_for_one_slot_convict_their_sender(first, second):
    assert convict(first, second, VALIDATORS, CHAIN) == VALIDATORS.members[1].address
    assert convict(second, first, VALIDATORS, CHAIN) == VALIDATORS.members[1].address


@pytest.mark.parametrize(
    ("first", "second", "detail"),
    [
        (statement(A), statement(A), "say the same"),
        (statement(A), statement(B, height=8), "different slots"),
        (statement(A), statement(B, round_number=1), "different slots"),
        (statement(A), statement(B, kind=1), "different slots"),
        (statement(A), statement(B, sender=2), "different slots"),
        (statement(A), statement(B, signer=2), "signature"),
        (statement(A, signer=0), statement(B), "signature"),
        (statement(A), msgspec.structs.replace(statement(B), block_hash=bytes(32)), "signature"),
        (
            statement(A, kind=PROPOSAL),
            msgspec.structs.replace(statement(B, kind=PROPOSAL), block_hash=None),
            "names a block",
        ),
    ],
)
def test_what_convicts_nobody(first, second, detail):
    with pytest.raises(Rejected, match=detail) as refusal:
        convict(first, second, VALIDATORS, CHAIN)
    assert refusal.value.reason is Reason.BAD_EVIDENCE


def test_an_index_beyond_the_set_is_refused():
    three = ValidatorSet(VALIDATORS.members[:1])
    with pytest.raises(Rejected, match="no such validator"):
        convict(statement(A), statement(B), three, CHAIN)


def test_statements_of_another_chain_convict_nobody_here():
    with pytest.raises(Rejected, match="signature"):
        convict(statement(A), statement(B), VALIDATORS, chain_of(make_genesis("Another chain")))
