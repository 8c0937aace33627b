"""The published vectors are what this implementation makes, reads and refuses."""

import json

import pytest

from ledger.block import HEADER
from ledger.errors import Rejected
from ledger.genesis import parse_genesis
from ledger.proof import parse_proof, verify_registration
from ledger.transaction import parse_transaction, verify_signatures
from ledger.votes import CERTIFICATE
from tests.unit.ledger.worlds import CHAIN, GENESIS
from tests.vectors.make_vectors import PATH, make, text_of

TEXT = PATH.read_text(encoding="utf-8")
VECTORS = json.loads(TEXT)
PARSERS = {
    "transaction": lambda data: parse_transaction(data, CHAIN),
    "certificate": CERTIFICATE.decode,
    "header": HEADER.decode,
    "proof": parse_proof,
}


def test_the_file_is_what_the_generator_makes():
    assert json.loads(text_of(make())) == VECTORS
    assert text_of(VECTORS) == TEXT


@pytest.mark.parametrize("name", VECTORS["transactions"])
def test_a_published_transaction_is_accepted(name):
    published = VECTORS["transactions"][name]
    transaction = parse_transaction(bytes.fromhex(published["wire"]), CHAIN)
    verify_signatures(transaction, CHAIN)
    assert transaction.id.hex() == published["id"]


def test_published_proofs_hold_under_the_published_genesis():
    genesis = parse_genesis(json.dumps(VECTORS["genesis"]["json"]).encode())
    assert genesis == GENESIS
    for published in VECTORS["proofs"]:
        verdict = verify_registration(parse_proof(published["text"].encode()), genesis)
        assert verdict.operation.hex() == published["operation"]


@pytest.mark.parametrize("number", range(len(VECTORS["refused"])))
def test_what_must_be_refused_is_refused_for_the_published_reason(number):
    case = VECTORS["refused"][number]
    with pytest.raises(Rejected) as caught:
        PARSERS[case["kind"]](bytes.fromhex(case["bytes"]))
    assert caught.value.reason == case["reason"]
