"""Every parser of the ledger answers any bytes with a value or with `Rejected`, nothing else."""

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ledger.addresses import decode_text, parse_script
from ledger.batch import parse_batch
from ledger.block import BLOCK, HEADER, Block
from ledger.codec import encode
from ledger.crypto import keys, secp256k1
from ledger.data_index import open_parts, parse_opening
from ledger.errors import Rejected
from ledger.genesis import parse_genesis
from ledger.history import EMPTY_FRONTIER, restore_frontier
from ledger.proof import parse_proof, verify_registration
from ledger.receipts import RECEIPT
from ledger.transaction import parse_transaction, verify_signatures
from ledger.votes import CERTIFICATE, verify_certificate
from tests.unit.ledger.worlds import (
    BOARD,
    CHAIN,
    GENESIS,
    HOSPITAL,
    SUITE,
    VALIDATORS,
    busy_batches,
    parts,
    secret,
    two_blocks,
)

BLOCKS = two_blocks(busy_batches())
TRANSACTION = BLOCKS.batches[0].transactions[0]
BATCH = BLOCKS.batches[0]


def transaction(data: bytes) -> None:
    verify_signatures(parse_transaction(data, CHAIN), CHAIN)


def certificate(data: bytes) -> None:
    verify_certificate(CERTIFICATE.decode(data), VALIDATORS, CHAIN)


def proof(data: bytes) -> None:
    verify_registration(parse_proof(data), GENESIS)


def address(data: bytes) -> None:
    decode_text(data.decode("utf-8", "surrogateescape"))


PARSERS = {
    "transaction": (transaction, TRANSACTION.wire),
    "batch": (lambda data: parse_batch(data, CHAIN), BATCH.wire),
    "header": (HEADER.decode, BLOCKS.header),
    "block": (
        BLOCK.decode,
        encode(Block(header=BLOCKS.header, certificate=b"", batches=(BATCH.digest,))),
    ),
    "certificate": (certificate, BLOCKS.certificate),
    "receipt": (RECEIPT.decode, BLOCKS.receipts["emr", 0][0]),
    "script": (parse_script, BOARD.script),
    "address": (address, HOSPITAL.text.encode()),
    "genesis": (parse_genesis, msgspec.json.encode(GENESIS)),
    "opening": (
        parse_opening,
        open_parts(SUITE, bytes(32), HOSPITAL.address, secret("R"), parts(1)).to_json(),
    ),
    "proof": (proof, BLOCKS.proof(TRANSACTION).to_json()),
    "frontier": (restore_frontier, encode(EMPTY_FRONTIER.append(SUITE.digest, b"e")[0])),
}
# What breaks parsers: long numbers, deep nesting, sizes that lie, half characters.
PIECES = st.sampled_from(
    [
        b"\xdd\xff\xff\xff\xff",
        b"\xc6\xff\xff\xff\xff",
        b"\xdb\x7f\xff\xff\xff",
        b"\xcf" + b"\xff" * 8,
        b"\x91" * 2_000,
        b"[" * 2_000,
        b'{"a":' * 2_000,
        b"9" * 400,
        b"1e999",
        b"-0",
        b"NaN",
        b'"\\ud800"',
        b"\xed\xa0\x80",
        b"\x00",
        b"\n",
    ]
)


def accepts_or_refuses(name: str, data: bytes) -> bool:
    parse, _ = PARSERS[name]
    try:
        parse(data)
    except Rejected:
        return False
    return True


@pytest.mark.parametrize("name", PARSERS)
def test_the_seed_of_each_parser_is_accepted(name):
    assert accepts_or_refuses(name, PARSERS[name][1])


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=400) | PIECES)
@example(data=b"")
def test_random_bytes_are_refused(name, data):
    accepts_or_refuses(name, data)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=200, deadline=None)
@given(choice=st.data())
def test_mutated_bytes_are_refused_or_accepted_but_never_break(name, choice):
    data = bytearray(PARSERS[name][1])
    for _ in range(choice.draw(st.integers(1, 3))):
        start = choice.draw(st.integers(0, len(data)))
        length = choice.draw(st.integers(0, 8))
        data[start : start + length] = choice.draw(st.binary(max_size=8) | PIECES)
    accepts_or_refuses(name, bytes(data))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=70))
def test_verification_of_anything_is_a_plain_yes_or_no(key, digest, signature):
    assert keys.is_valid(key) in (True, False)
    padded_key, padded = key.ljust(34, b"\0")[:34], signature.ljust(64, b"\1")[:64]
    for key_type in (b"\1", b"\2", b"\7"):
        assert not keys.verify(key_type + padded_key[1:], digest.ljust(32, b"\0"), padded)
    try:
        secp256k1.recover(digest, signature)
    except Rejected:
        return
