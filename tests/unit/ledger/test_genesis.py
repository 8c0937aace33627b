"""A genesis is well formed or refused; its hash is over positional bytes, not over JSON text."""

import json

import msgpack
import msgspec
import pytest

from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.crypto.keys import KeyType
from ledger.errors import Reason, Rejected
from ledger.genesis import (
    GENESIS_FILE_BYTES,
    chain_of,
    genesis_hash,
    genesis_validators,
    parse_genesis,
)
from tests.unit.ledger.worlds import GENESIS, HOSPITAL, SUITE, VALIDATOR_NAMES, key, make_genesis

TEXT = msgspec.json.encode(GENESIS)


def altered(**members: object) -> bytes:
    return json.dumps({**json.loads(TEXT), **members}).encode()


def refusal(data: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        parse_genesis(data)
    return caught.value.reason


def first_node(**members: object) -> list[object]:
    nodes = json.loads(TEXT)["nodes"]
    return [{**nodes[0], **members}, *nodes[1:]]


def test_a_genesis_comes_back_from_its_file():
    assert parse_genesis(TEXT) == GENESIS
    assert parse_genesis(json.dumps(json.loads(TEXT), indent=4).encode()) == GENESIS


def test_the_hash_is_over_the_values_in_declared_order():
    def positional(value: object) -> object:
        if isinstance(value, dict):
            return [positional(item) for item in value.values()]
        return [positional(item) for item in value] if isinstance(value, list) else value

    array = positional(json.loads(TEXT))
    assert genesis_hash(GENESIS) == SUITE.digest(b"kl.genesis\0" + msgpack.packb(array))


def test_every_value_is_in_the_hash():
    hashes = {
        genesis_hash(GENESIS),
        genesis_hash(make_genesis("other")),
        genesis_hash(make_genesis(group=2)),
    }
    faster = msgspec.structs.replace(GENESIS.parameters, block_interval_ms=81)
    hashes.add(genesis_hash(msgspec.structs.replace(GENESIS, parameters=faster)))
    assert len(hashes) == 4


def test_a_chain_and_its_validators_follow_from_genesis():
    chain = chain_of(GENESIS)
    assert (chain.genesis_hash, chain.group, chain.suite) == (genesis_hash(GENESIS), 1, SUITE)
    keys = {member.key for member in genesis_validators(GENESIS).members}
    assert keys == {key(name) for name in VALIDATOR_NAMES}


def test_only_masters_vote():
    nodes = first_node(role="observer")
    extra = single_key_script(AddressKind.NODE, key("fifth"))
    fifth = {
        "name": "fifth",
        "address": encode_text(AddressKind.NODE, address_of(extra, SUITE)),
        "key": key("fifth").hex(),
        "organisation": "city",
        "role": "master",
    }
    nodes = sorted([*nodes, fifth], key=lambda node: node["address"])
    found = genesis_validators(parse_genesis(altered(nodes=nodes)))
    assert len(found.members) == 4
    assert key("fifth") in {member.key for member in found.members}


@pytest.mark.parametrize(
    "members",
    [
        {"format": "kanglian-genesis/2"},
        {"chain_name": ""},
        {"group": 2**32},
        {"suite": "unknown"},
        {"account_keys": []},
        {"account_keys": ["rsa"]},
        {"authority": "00"},
        {"organisations": []},
        {"organisations": [{"id": "city", "name": "a"}, {"id": "city", "name": "b"}]},
        {"organisations": [{"id": "town", "name": "Another"}]},
        {"nodes": []},
        {"nodes": json.loads(TEXT)["nodes"][:3]},
        {"nodes": json.loads(TEXT)["nodes"][::-1]},
        {"nodes": first_node(key=key("stranger").hex())},
        {"nodes": first_node(role="emperor")},
        {"nodes": first_node(organisation="town")},
        {"nodes": first_node(extra=1)},
        {"accounts": json.loads(TEXT)["accounts"][::-1]},
        {"accounts": json.loads(TEXT)["accounts"][:1] * 2},
        {"modules": []},
        {"modules": json.loads(TEXT)["modules"][::-1]},
        {"parameters": {"block_interval_ms": 0}},
        {"unknown": 1},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_broken_rule_is_refused(members):
    assert refusal(altered(**members)) is Reason.BAD_GENESIS


def test_a_key_is_hexadecimal_digits_and_nothing_else():
    nodes = first_node(key=key(next_name()).hex() + "\n")
    assert refusal(altered(nodes=nodes)) is Reason.BAD_GENESIS


def next_name() -> str:
    """The name whose key stands in the first node."""
    first = json.loads(TEXT)["nodes"][0]["key"]
    return next(name for name in VALIDATOR_NAMES if key(name).hex() == first)


def test_addresses_are_checked():
    accounts = json.loads(TEXT)["accounts"]
    node_address = json.loads(TEXT)["nodes"][0]["address"]
    as_account = [{**accounts[0], "address": node_address}]
    assert refusal(altered(accounts=as_account)) is Reason.BAD_GENESIS
    mistyped = [{**accounts[0], "address": accounts[0]["address"][:-1] + "q"}]
    assert refusal(altered(accounts=mistyped)) is Reason.BAD_ADDRESS
    assert refusal(altered(nodes=first_node(address=HOSPITAL.text))) is Reason.BAD_GENESIS


def test_a_validator_key_that_the_suite_cannot_verify_is_refused():
    tagged = key("validator 0", KeyType.P256)
    script = single_key_script(AddressKind.NODE, tagged)
    text = encode_text(AddressKind.NODE, address_of(script, SUITE))
    nodes = sorted(first_node(key=tagged.hex(), address=text), key=lambda node: node["address"])
    assert refusal(altered(nodes=nodes)) is Reason.BAD_GENESIS


def test_other_files_are_refused():
    assert refusal(b"") is Reason.BAD_GENESIS
    assert refusal(b"[]") is Reason.BAD_GENESIS
    assert refusal(TEXT[:-1]) is Reason.BAD_GENESIS
    assert refusal(TEXT.replace(b'"format"', b'"\x80format"')) is Reason.BAD_GENESIS
    assert refusal(b"[" * 100_000) is Reason.BAD_GENESIS
    assert refusal(bytes(GENESIS_FILE_BYTES + 1)) is Reason.TOO_LARGE
