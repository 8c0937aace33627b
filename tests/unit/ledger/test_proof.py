"""A proof leads from an operation to two certified headers, and from nothing else."""

import json
import random
from dataclasses import replace

import msgspec
import pytest

from ledger import limits
from ledger.batch import Batch
from ledger.block import HEADER, block_hash
from ledger.codec import encode
from ledger.data_index import open_parts, verify_opening
from ledger.errors import InvariantError, Reason, Rejected
from ledger.proof import (
    PROOF_BYTES,
    Position,
    RegistrationProof,
    Verdict,
    parse_proof,
    verify_registration,
)
from ledger.receipts import Status
from ledger.transaction import Call, Transaction, operation_ids, parse_transaction
from ledger.votes import CERTIFICATE, VoteType
from tests.unit.ledger.worlds import (
    CHAIN,
    GENESIS,
    HEIGHT,
    HOSPITAL,
    NOW,
    SUITE,
    TwoBlocks,
    busy_batches,
    envelope,
    make_batch,
    make_body,
    make_certificate,
    make_genesis,
    parts,
    plain,
    register_call,
    secret,
    signed_wire,
    two_blocks,
)

BLOCKS = two_blocks(busy_batches())
ENVELOPE = next(item for item in BLOCKS.batches[0].transactions if item.is_envelope)
PLAIN = next(item for item in BLOCKS.batches[0].transactions if not item.is_envelope)
PROOF = BLOCKS.proof(ENVELOPE, 1)


def refusal(proof: RegistrationProof) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_registration(proof, GENESIS)
    return caught.value.reason


def changed(proof: RegistrationProof, **members: object) -> RegistrationProof:
    return msgspec.structs.replace(proof, **members)


def operations(batches: tuple[Batch, ...]) -> list[tuple[Transaction, int]]:
    return [
        (transaction, index)
        for batch in batches
        for transaction in batch.transactions
        for index in range(len(transaction.operations))
    ]


def test_every_operation_of_a_block_has_a_proof_that_verifies():
    found = []
    for transaction, index in operations(BLOCKS.batches):
        text = BLOCKS.proof(transaction, index).to_json()
        verdict = verify_registration(parse_proof(text), GENESIS)
        assert verdict.operation == operation_ids(transaction, SUITE)[index]
        found.append((verdict.module, verdict.level))
    namespaces = [("emr", 0)] * 6 + [("emr", 2), ("trial", 0), ("trial", 0), ("trial", 1)]
    assert sorted(found) == namespaces


def test_a_verdict_says_what_was_registered_when_by_whom_and_trusting_whom():
    call = register_call(3)
    verdict = verify_registration(PROOF, GENESIS)
    assert verdict == Verdict(
        transaction=ENVELOPE.id,
        operation=operation_ids(ENVELOPE, SUITE)[1],
        account=HOSPITAL.address,
        module="emr",
        level=0,
        contract="data_index",
        method="register",
        height=HEIGHT,
        time_ms=NOW + HEIGHT,
        anchor=CHAIN.genesis_hash.hex(),
        registration=verdict.registration,
    )
    assert encode(verdict.registration) == call.arguments


def test_an_opening_is_verified_against_the_registration_of_the_verdict():
    verdict = verify_registration(PROOF, GENESIS)
    opening = open_parts(SUITE, verdict.operation, verdict.account, secret("R 3"), parts(3))
    verify_opening(
        opening,
        verdict.registration,
        verdict.operation,
        verdict.account,
        SUITE,
        parts(3).record,
    )


def test_the_json_form_is_that_of_any_json_library_with_sorted_members_and_no_blanks():
    text = PROOF.to_json()
    again = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text == again.encode()
    assert parse_proof(text) == parse_proof(text + b"\n") == PROOF


def test_a_failed_operation_is_refused_with_the_name_of_its_status():
    failing = operation_ids(ENVELOPE, SUITE)[1]
    blocks = two_blocks(
        BLOCKS.batches, lambda operation: Status.REVERTED if operation == failing else Status.OK
    )
    with pytest.raises(Rejected) as caught:
        verify_registration(blocks.proof(ENVELOPE, 1), GENESIS)
    assert (caught.value.reason, caught.value.detail) == (Reason.NOT_SUCCESSFUL, "reverted")
    assert verify_registration(blocks.proof(ENVELOPE, 0), GENESIS).contract == "data_index"


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20, 0xFF])
def test_every_changed_byte_of_a_proof_is_refused(mask):
    text = PROOF.to_json()
    places = range(len(text))
    if mask != 0x01:
        places = random.Random(mask).sample(places, 1_500)
    for place in places:
        forged = bytearray(text)
        forged[place] ^= mask
        with pytest.raises(Rejected):
            verify_registration(parse_proof(bytes(forged)), GENESIS)


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param(lambda text: text + b"\n\n", id="two newlines"),
        pytest.param(lambda text: b" " + text, id="a blank before"),
        pytest.param(lambda text: text.replace(b":", b": ", 1), id="a blank inside"),
        pytest.param(lambda text: text.replace(b",", b",\n", 1), id="a line break inside"),
        pytest.param(lambda text: b"\xef\xbb\xbf" + text, id="a byte order mark"),
        pytest.param(lambda text: text[:-1] + b',"zone":1}', id="an unknown member"),
        pytest.param(
            lambda text: text[:-1] + b',"operation":1}', id="a repeated member, same value"
        ),
        pytest.param(lambda text: text.replace(b'"operation":1', b'"operation":1.0'), id="float"),
        pytest.param(lambda text: text.replace(b'"operation":1', b'"operation":01'), id="octal"),
        pytest.param(lambda text: text.replace(b'"operation":1', b'"operation":true'), id="bool"),
        pytest.param(lambda text: text.replace(b'"operation":1', b'"operation":"1"'), id="text"),
        pytest.param(lambda text: text.replace(b'"operation":1,', b""), id="a missing member"),
        pytest.param(lambda text: text.replace(b'"operation"', b'"\\u006fperation"'), id="escape"),
        pytest.param(lambda text: text.replace(b"proof/1", b"proof/2"), id="another format"),
        pytest.param(lambda text: text[:-1], id="cut short"),
        pytest.param(lambda text: b"[" * 100_000, id="deep nesting"),
        pytest.param(lambda text: b"", id="nothing"),
        pytest.param(lambda text: b"\xff" + text, id="not UTF-8"),
    ],
)
def test_any_other_json_text_of_the_same_proof_is_refused(edit):
    forged = edit(PROOF.to_json())
    assert forged != PROOF.to_json()
    with pytest.raises(Rejected) as caught:
        parse_proof(forged)
    assert caught.value.reason is Reason.BAD_PROOF


@pytest.mark.parametrize(
    "member",
    ["transaction", "header", "certificate", "receipt", "next_header", "next_certificate"],
)
def test_upper_case_odd_empty_or_newline_ended_hexadecimal_is_refused(member):
    value = getattr(PROOF, member)
    for other in (value.upper(), value[:-1], "", value + "\n", value + " "):
        with pytest.raises(Rejected) as caught:
            parse_proof(changed(PROOF, **{member: other}).to_json())
        assert caught.value.reason is Reason.BAD_PROOF


def test_a_proof_above_the_size_limit_is_refused_unread():
    with pytest.raises(Rejected) as caught:
        parse_proof(b" " * (PROOF_BYTES + 1))
    assert caught.value.reason is Reason.TOO_LARGE


POSITIONS = [
    "transaction_position",
    "batch_position",
    "namespace_position",
    "receipt_position",
    "receipts_position",
]


@pytest.mark.parametrize("member", POSITIONS)
def test_a_position_with_another_index_count_or_path_is_refused(member):
    own = getattr(PROOF, member)
    assert own.path, "the world is too small for this test"
    step = "00" * 32
    others = [
        Position(index=own.index + 1, count=own.count, path=own.path),
        Position(index=own.index ^ 1, count=own.count, path=own.path),
        Position(index=own.index, count=own.count + 1, path=own.path),
        Position(index=own.index, count=own.count - 1, path=own.path),
        Position(index=own.index, count=2**53 - 1, path=own.path),
        Position(index=own.index, count=own.count, path=own.path[:-1]),
        Position(index=own.index, count=own.count, path=()),
        Position(index=own.index, count=own.count, path=(*own.path, step)),
        Position(index=own.index, count=own.count, path=(*own.path, own.path[-1])),
        Position(index=own.index, count=own.count, path=(own.path[0], *own.path)),
        Position(index=0, count=0, path=()),
        Position(index=0, count=1, path=()),
    ]
    for other in others:
        assert refusal(changed(PROOF, **{member: other})) is Reason.BAD_PROOF


def test_the_number_of_transactions_of_the_namespace_is_bound():
    count = PROOF.namespace_transactions
    assert refusal(changed(PROOF, namespace_transactions=count + 1)) is Reason.BAD_PROOF


def test_the_operation_of_another_index_is_refused():
    for operation in (0, 2, 3, 1_999):
        assert refusal(changed(PROOF, operation=operation)) is Reason.BAD_PROOF
    assert refusal(changed(BLOCKS.proof(PLAIN), operation=1)) is Reason.BAD_PROOF


def test_the_ok_receipt_of_another_operation_does_not_help_a_failed_one():
    other = BLOCKS.proof(ENVELOPE, 0)
    forged = changed(PROOF, receipt=other.receipt, receipt_position=other.receipt_position)
    assert refusal(forged) is Reason.BAD_PROOF


def test_receipts_of_another_namespace_are_refused():
    other = BLOCKS.proof(next(iter(BLOCKS.batches[1].transactions[::-1])))
    forged = changed(
        PROOF,
        receipt=other.receipt,
        receipt_position=other.receipt_position,
        receipts_position=other.receipts_position,
    )
    assert refusal(forged) is Reason.BAD_PROOF


def test_a_transaction_of_another_block_is_refused():
    lone = plain(77)
    assert refusal(changed(PROOF, transaction=lone.wire.hex(), operation=0)) is Reason.BAD_PROOF


def test_a_proof_of_another_chain_is_refused():
    other = make_genesis("Another chain")
    with pytest.raises(Rejected) as caught:
        verify_registration(PROOF, other)
    assert caught.value.reason is Reason.WRONG_CHAIN


def test_a_header_certified_on_another_chain_of_the_same_validators_is_refused():
    certificate = make_certificate(
        HEIGHT,
        block_hash(BLOCKS.header, SUITE),
        chain=replace(CHAIN, genesis_hash=secret("another genesis")),
    )
    forged = changed(PROOF, certificate=encode(certificate).hex())
    assert refusal(forged) is Reason.BAD_CERTIFICATE


def recertified(blocks: TwoBlocks, **fields: object) -> RegistrationProof:
    """The proof with a changed first header that a quorum nevertheless signed."""
    header = msgspec.structs.replace(HEADER.decode(blocks.header), **fields)
    data = encode(header)
    certificate = make_certificate(header.height, block_hash(data, SUITE))
    return changed(PROOF, header=data.hex(), certificate=encode(certificate).hex())


def test_a_certified_header_of_another_group_version_or_validator_set_is_refused():
    assert refusal(recertified(BLOCKS, group=2)) is Reason.WRONG_CHAIN
    assert (
        refusal(recertified(BLOCKS, version=limits.PROTOCOL_VERSION + 1))
        is Reason.UNSUPPORTED_VERSION
    )
    forged = recertified(BLOCKS, validators_hash=secret("others"))
    assert refusal(forged) is Reason.BAD_CERTIFICATE


def test_headers_that_do_not_follow_one_another_are_refused():
    assert refusal(recertified(BLOCKS, time=NOW)) is Reason.BAD_PROOF
    swapped = changed(
        PROOF,
        header=PROOF.next_header,
        certificate=PROOF.next_certificate,
        next_header=PROOF.header,
        next_certificate=PROOF.certificate,
    )
    assert refusal(swapped) is Reason.BAD_PROOF
    # A quorum would have to sign a wrong height, and even that does not pass.
    following = msgspec.structs.replace(HEADER.decode(BLOCKS.next_header), height=HEIGHT + 2)
    data = encode(following)
    certificate = make_certificate(HEIGHT + 2, block_hash(data, SUITE))
    skipping = changed(PROOF, next_header=data.hex(), next_certificate=encode(certificate).hex())
    assert refusal(skipping) is Reason.BAD_PROOF


def test_a_certificate_of_another_height_block_vote_or_too_few_validators_is_refused():
    digest = block_hash(BLOCKS.header, SUITE)
    good = make_certificate(HEIGHT, digest)
    others = [
        make_certificate(HEIGHT + 1, digest),
        make_certificate(HEIGHT, secret("another block")),
        make_certificate(HEIGHT, digest, vote_type=VoteType.PREVOTE),
        make_certificate(HEIGHT, digest, signers=(0, 1)),
        make_certificate(HEIGHT, digest, signers=(0, 0, 1)),
        make_certificate(HEIGHT, digest, signers=(3, 1, 0)),
        msgspec.structs.replace(good, round=1),
        msgspec.structs.replace(good, height=HEIGHT + 1),
        msgspec.structs.replace(good, block_hash=secret("another block")),
        CERTIFICATE.decode(BLOCKS.next_certificate),
    ]
    for other in others:
        for member in ("certificate", "next_certificate"):
            if getattr(PROOF, member) != encode(other).hex():
                forged = changed(PROOF, **{member: encode(other).hex()})
                assert refusal(forged) is Reason.BAD_CERTIFICATE


def test_any_valid_certificate_of_the_header_serves():
    digest = block_hash(BLOCKS.header, SUITE)
    other = make_certificate(HEIGHT, digest, signers=(0, 1, 2, 3), round_number=4)
    proof = changed(PROOF, certificate=encode(other).hex())
    assert verify_registration(proof, GENESIS) == verify_registration(PROOF, GENESIS)


def test_a_transaction_in_a_certified_block_with_a_bad_signature_is_refused():
    body = make_body(register_call(1), nonce=99)
    wire = bytearray(signed_wire(body, HOSPITAL))
    forged = bytes(wire[:-2]) + bytes([wire[-2] ^ 1]) + bytes(wire[-1:])
    transaction = parse_transaction(forged, CHAIN)
    blocks = two_blocks([make_batch([transaction])])
    assert refusal(blocks.proof(transaction)) is Reason.BAD_SIGNATURE


def test_a_block_of_one_transaction_has_a_proof_without_siblings():
    transaction = plain(1)
    proof = two_blocks([make_batch([transaction])]).proof(transaction)
    lone = Position(index=0, count=1, path=())
    assert [getattr(proof, member) for member in POSITIONS] == [lone] * 5
    assert verify_registration(proof, GENESIS).transaction == transaction.id


def test_a_transaction_that_stands_twice_is_proved_by_its_first_place():
    transaction = plain(1)
    batches = [make_batch([transaction, plain(2)]), make_batch([transaction], author=1)]
    seen: list[bytes] = []

    def first_wins(operation: bytes) -> Status:
        seen.append(operation)
        return Status.DUPLICATE if seen.count(operation) > 1 else Status.OK

    blocks = two_blocks(batches, first_wins)
    assert verify_registration(blocks.proof(transaction), GENESIS).transaction == transaction.id


def test_a_method_without_a_registration_has_a_verdict_without_one():
    calls = [
        Call(contract="data_index", method="correct", arguments=b"\x90"),
        Call(contract="accounts", method="register", arguments=b"\x90"),
    ]
    for number, call in enumerate(calls):
        body = make_body(call, nonce=200 + number)
        transaction = parse_transaction(signed_wire(body, HOSPITAL), CHAIN)
        verdict = verify_registration(
            two_blocks([make_batch([transaction])]).proof(transaction), GENESIS
        )
        assert (verdict.method, verdict.registration) == (call.method, None)


def test_building_refuses_an_operation_that_the_transaction_does_not_have():
    for operation in (-1, 3):
        with pytest.raises(Rejected) as caught:
            BLOCKS.proof(ENVELOPE, operation)
        assert caught.value.reason is Reason.BAD_PROOF


def test_building_stops_on_pieces_that_do_not_belong_together():
    with pytest.raises(InvariantError):
        BLOCKS.proof(plain(77))
    with pytest.raises(InvariantError):
        replace(BLOCKS, receipts={}).proof(PLAIN)
    disordered = {name: items[::-1] for name, items in BLOCKS.receipts.items()}
    with pytest.raises(InvariantError):
        replace(BLOCKS, receipts=disordered).proof(PLAIN)


def test_the_largest_envelope_fits_a_proof():
    transaction = envelope(range(1, 1_200))
    proof = two_blocks([make_batch([transaction])]).proof(transaction, 1_000)
    text = proof.to_json()
    assert len(text) < PROOF_BYTES
    verdict = verify_registration(parse_proof(text), GENESIS)
    assert encode(verdict.registration) == register_call(1_001).arguments
