"""The published proofs are what this implementation makes, and hold for both verifiers."""

import json

import pytest

from docs import kanglian_verify
from ledger.errors import Rejected
from ledger.genesis import parse_genesis
from ledger.proofs.family import FORMATS, verify_document
from rpc.proof_views import fact_view
from tests.vectors.make_proof_vectors import PATH, make, text_of_vectors, without_values

TEXT = PATH.read_text(encoding="utf-8")
VECTORS = json.loads(TEXT)
GENESIS_FILE = json.dumps(VECTORS["genesis"]).encode()
GENESIS = parse_genesis(GENESIS_FILE)
CHAIN = kanglian_verify.read_genesis(GENESIS_FILE)
PROOFS = {item["what"]: item for item in VECTORS["proofs"]}
REFUSED = {item["what"]: item for item in VECTORS["refused"]}


def test_the_file_is_what_the_generator_makes():
    assert text_of_vectors(make()) == TEXT


@pytest.mark.parametrize("what", PROOFS)
def test_a_published_proof_proves_what_stands_beside_it(what):
    data = PROOFS[what]["text"].encode()
    found = verify_document(data, GENESIS)
    view = without_values(fact_view(found, CHAIN.genesis_hash.hex()))
    assert view == PROOFS[what]["proves"]
    assert kanglian_verify.check_proof(data, CHAIN).facts == PROOFS[what]["proves"]


@pytest.mark.parametrize("what", REFUSED)
def test_what_must_be_refused_is_refused_by_both_for_a_reason(what):
    data = REFUSED[what]["text"].encode()
    with pytest.raises(Rejected) as caught:
        verify_document(data, GENESIS)
    assert caught.value.reason == REFUSED[what]["reason"]
    with pytest.raises(kanglian_verify.Refused):
        kanglian_verify.check_proof(data, CHAIN)


def test_every_kind_but_the_registration_is_published():
    formats = {json.loads(item["text"])["format"] for item in VECTORS["proofs"]}
    assert formats == {name for name in FORMATS if not name.startswith("kanglian-proof/")}
