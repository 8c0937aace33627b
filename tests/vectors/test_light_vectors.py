"""The published documents of the light client, read by this implementation and by hand."""

import hashlib
import json

import pytest

from ledger.errors import Rejected
from ledger.genesis import parse_genesis
from ledger.light.documents import parse_fork, parse_trust, trust_json
from ledger.light.fork import verify_fork
from ledger.light.trust import LIGHT_BLOCK
from tests.unit.ledger.worlds import CHAIN, GENESIS
from tests.vectors.light_vectors import HERE, PATH, READERS, make, text_of

TEXT = PATH.read_text(encoding="utf-8")
VECTORS = json.loads(TEXT)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_file_is_what_the_generator_makes():
    assert json.loads(text_of(make())) == VECTORS
    assert text_of(VECTORS) == TEXT
    assert parse_genesis(json.dumps(VECTORS["genesis"]).encode()) == GENESIS


@pytest.mark.parametrize("name", VECTORS["trusts"])
def test_a_published_trust_is_read_and_written_again_as_it_stands(name):
    text = VECTORS["trusts"][name]
    trust = parse_trust(text.encode())
    assert trust.chain == CHAIN
    assert trust_json(trust).decode() == text


@pytest.mark.parametrize("name", VECTORS["trusts"])
def test_the_digest_and_the_header_of_a_trust_are_what_the_document_says(name):
    """With json and hashlib alone, by docs/format.md."""
    text = VECTORS["trusts"][name].removesuffix("\n")
    document = json.loads(text)
    assert json.dumps(document, sort_keys=True, separators=(",", ":")) == text
    bare = json.dumps({**document, "digest": "00" * 32}, sort_keys=True, separators=(",", ":"))
    assert document["digest"] == sha256(b"kl.trust\0" + bare.encode())
    header = bytes.fromhex(document["header"])
    # The certificate names the block: [height, round, hash, ...], so the hash stands in it.
    assert sha256(b"kl.header\0" + header) in document["certificate"]
    (height,) = [h for h, block in HERE.blocks.items() if block.header == header]
    block = LIGHT_BLOCK.decode(bytes.fromhex(VECTORS["light_blocks"][str(height)]))
    named = [
        {"address": member.address.hex(), "key": member.key.hex()}
        for member in block.next_validators
    ]
    assert document["next_validators"] == named


def test_the_published_fork_convicts_who_signed_both():
    evidence, validators = parse_fork(VECTORS["fork"]["text"].encode(), CHAIN)
    found = verify_fork(evidence, validators, CHAIN)
    assert found.height == 9
    assert found.equivocators == found.signed_both
    assert len(found.equivocators) > validators.faults


@pytest.mark.parametrize("number", range(len(VECTORS["refused"])))
def test_what_must_be_refused_is_refused_for_the_published_reason(number):
    case = VECTORS["refused"][number]
    with pytest.raises(Rejected) as caught:
        READERS[case["kind"]](case["text"].encode())
    assert caught.value.reason == case["reason"]
