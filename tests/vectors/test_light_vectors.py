"""The published documents of the light client, read by this implementation and by hand."""

import hashlib
import json

import pytest

from ledger.errors import KanglianError, Rejected
from ledger.genesis import parse_genesis
from ledger.light.documents import parse_fork, parse_light_proof, parse_trust, trust_json
from ledger.light.fork import verify_fork
from ledger.light.trust import LIGHT_BLOCK
from rpc.light.anchor import verify_light_proof
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


def test_the_published_proof_holds_under_the_published_trust_and_no_other():
    proof = parse_light_proof(VECTORS["proof"]["text"].encode())
    trust = parse_trust(VECTORS["proof"]["trust"].encode())
    assert verify_light_proof(proof, trust).operation.hex() == VECTORS["proof"]["operation"]
    other = parse_trust(VECTORS["trusts"]["after it"].encode())
    with pytest.raises(KanglianError):
        verify_light_proof(proof, other)


def test_the_path_of_the_published_proof_leads_to_the_trusted_header_by_hand():
    """RFC 9162 section 2.1.3.2 with hashlib alone: entry h + 1 of as many as the height says."""
    document, trust = json.loads(VECTORS["proof"]["text"]), json.loads(VECTORS["proof"]["trust"])
    count, index = document["trusted_height"], 2
    following = bytes.fromhex(document["registration"]["next_header"])
    entry = b"kl.history\0" + bytes.fromhex(sha256(b"kl.header\0" + following))
    node, last = hashlib.sha256(b"\0" + entry).digest(), count - 1
    for step in map(bytes.fromhex, document["path"]):
        if index % 2 or index == last:
            node = hashlib.sha256(b"\1" + step + node).digest()
            while index and index % 2 == 0:
                index, last = index // 2, last // 2
        else:
            node = hashlib.sha256(b"\1" + node + step).digest()
        index, last = index // 2, last // 2
    root = sha256(b"\2" + count.to_bytes(8, "big") + node)
    # The history root is the last field of a header.
    assert trust["header"].endswith("c420" + root)


@pytest.mark.parametrize("number", range(len(VECTORS["refused"])))
def test_what_must_be_refused_is_refused_for_the_published_reason(number):
    case = VECTORS["refused"][number]
    with pytest.raises(Rejected) as caught:
        READERS[case["kind"]](case["text"].encode())
    assert caught.value.reason == case["reason"]
