"""A transaction has one form, one id and exactly the signatures its script demands."""

from dataclasses import replace

import msgpack
import msgspec
import pytest

from ledger import limits
from ledger.codec import encode
from ledger.crypto import keys
from ledger.crypto.keys import KeyType
from ledger.errors import Reason, Rejected
from ledger.transaction import (
    TRANSACTION_TAG,
    Call,
    EnvelopeSummary,
    SignedTransaction,
    TransactionBody,
    operation_ids,
    operations_root,
    parse_transaction,
    verify_signatures,
)
from tests.unit.ledger.worlds import (
    BOARD,
    CHAIN,
    HOSPITAL,
    RESIDENT,
    SUITE,
    envelope,
    make_body,
    multi_signer,
    plain,
    register_call,
    secret,
    signed_wire,
)

CALL = Call(contract="data_index", method="register", arguments=b"\x90")
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def refusal(wire: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        parse_transaction(wire, CHAIN)
    return caught.value.reason


def signature_refusal(wire: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_signatures(parse_transaction(wire, CHAIN), CHAIN)
    return caught.value.reason


def altered_body(**fields: object) -> bytes:
    return signed_wire(msgspec.structs.replace(make_body(CALL), **fields), HOSPITAL)


def raw() -> list[object]:
    return msgpack.unpackb(plain(1).wire, use_list=True)


def with_signatures(wire: bytes, signatures: list[tuple[int, bytes]]) -> bytes:
    items = msgpack.unpackb(wire)
    items[2] = [list(pair) for pair in signatures]
    return msgpack.packb(items)


def test_the_id_is_the_hash_of_the_body_and_the_leaf_that_of_all_bytes():
    transaction = plain(1)
    body, _, _, operations = raw()
    assert transaction.id == SUITE.digest(b"kl.transaction\0" + body)
    assert transaction.leaf == SUITE.digest(b"\0kl.transaction-leaf\0" + transaction.wire)
    assert operations is None
    assert operation_ids(transaction, SUITE) == (transaction.id,)


def test_another_valid_signature_makes_another_leaf_but_the_same_id():
    body = make_body(CALL, BOARD)
    one = parse_transaction(signed_wire(body, BOARD), CHAIN)
    others = multi_signer(("board a", "board b", "board c"), 2, ("board b", "board c"))
    two = parse_transaction(signed_wire(body, others), CHAIN)
    verify_signatures(one, CHAIN)
    verify_signatures(two, CHAIN)
    assert one.id == two.id
    assert one.leaf != two.leaf


@pytest.mark.parametrize("signer", [HOSPITAL, RESIDENT, BOARD])
def test_every_kind_of_account_signs(signer):
    verify_signatures(plain(1, signer), CHAIN)


def test_bytes_that_are_not_canonical_are_refused():
    body, script, signatures, _ = raw()
    long_array = b"\xdc\x00\x04" + plain(1).wire[1:]
    assert refusal(long_array) is Reason.NON_CANONICAL
    long_integer = plain(1).wire.replace(b"\x91\x92\x00\xc4\x40", b"\x91\x92\xcc\x00\xc4\x40")
    assert long_integer != plain(1).wire
    assert refusal(long_integer) is Reason.NON_CANONICAL
    version = bytes([limits.PROTOCOL_VERSION]) + b"\xc4\x20"
    inner = body.replace(version, b"\xcc" + version, 1)
    assert inner != body
    assert refusal(msgpack.packb([inner, script, signatures, None])) is Reason.NON_CANONICAL
    assert refusal(plain(1).wire + b"\0") is Reason.MALFORMED
    assert refusal(plain(1).wire[:-1]) is Reason.MALFORMED
    assert refusal(b"") is Reason.MALFORMED


def test_missing_extra_and_wrongly_typed_fields_are_refused():
    body, script, signatures, _ = raw()
    extra_in_body = msgpack.packb([*msgpack.unpackb(body), None])
    float_in_body = msgpack.packb([1.0, *msgpack.unpackb(body)[1:]])
    bool_in_body = msgpack.packb([True, *msgpack.unpackb(body)[1:]])
    for items in (
        [body, script, signatures],
        [body, script, signatures, None, None],
        [extra_in_body, script, signatures, None],
        [float_in_body, script, signatures, None],
        [bool_in_body, script, signatures, None],
        [body, script.hex(), signatures, None],
        [body, script, [], None],
        [body, script, [[0, bytes(63)]], None],
        [body, script, [[-1, bytes(64)]], None],
        [body, script, [[0, bytes(64)]] * 17, None],
        [body, script, [[0, bytes(64), 0]], None],
    ):
        assert refusal(msgpack.packb(items)) is Reason.MALFORMED
    as_map = dict(zip("abcd", (body, script, signatures, None), strict=True))
    assert refusal(msgpack.packb(as_map)) is Reason.MALFORMED


@pytest.mark.parametrize(
    "fields",
    [
        {"genesis_hash": bytes(31)},
        {"group": -1},
        {"group": 2**32},
        {"module": "Emr"},
        {"module": ""},
        {"module": "a" * 33},
        {"module": "a b"},
        {"level": 256},
        {"level": -1},
        {"account": bytes(33)},
        {"signer": b""},
        {"nonce": bytes(15)},
        {"valid_until": -1},
        {"valid_until": 2**63},
        {"after": bytes(31)},
        {"payload": None},
    ],
    ids=str,
)
def test_a_field_outside_its_range_is_refused(fields):
    assert refusal(altered_body(**fields)) is Reason.MALFORMED


@pytest.mark.parametrize("name", ["emr\n", "emr\0", "émr"])
def test_a_name_has_only_small_letters_digits_and_underlines(name):
    assert refusal(altered_body(module=name)) is Reason.MALFORMED
    for call in (Call(name, "register", b"\x90"), Call("data_index", name, b"\x90")):
        assert refusal(altered_body(payload=call)) is Reason.MALFORMED
        calls = (CALL, call)
        wire = envelope_wire(calls, root=operations_root(calls, SUITE))
        assert refusal(wire) is Reason.MALFORMED


def test_another_version_is_refused():
    for version in (0, limits.PROTOCOL_VERSION - 1, limits.PROTOCOL_VERSION + 1, 255):
        assert refusal(altered_body(version=version)) is Reason.UNSUPPORTED_VERSION


def test_another_chain_is_refused():
    assert refusal(altered_body(genesis_hash=bytes(32))) is Reason.WRONG_CHAIN
    assert refusal(altered_body(group=2)) is Reason.WRONG_CHAIN
    other = replace(CHAIN, genesis_hash=secret("other"))
    with pytest.raises(Rejected) as caught:
        parse_transaction(plain(1).wire, other)
    assert caught.value.reason is Reason.WRONG_CHAIN


def test_sizes_are_limited():
    long_call = Call(contract="c", method="m", arguments=bytes(limits.TRANSACTION_BYTES))
    assert refusal(signed_wire(make_body(long_call), HOSPITAL)) is Reason.TOO_LARGE
    edge = Call(contract="c", method="m", arguments=bytes(limits.TRANSACTION_BYTES - 230))
    wire = signed_wire(make_body(edge), HOSPITAL)
    assert len(wire) > limits.TRANSACTION_BYTES
    assert refusal(wire) is Reason.TOO_LARGE
    assert refusal(bytes(limits.ENVELOPE_BYTES + 1)) is Reason.TOO_LARGE


def test_operations_of_an_envelope_have_their_own_ids():
    transaction = envelope([1, 2, 3])
    prefix = b"kl.operation-id\0" + transaction.id
    expected = tuple(SUITE.digest(prefix + index.to_bytes(4, "big")) for index in range(3))
    assert operation_ids(transaction, SUITE) == expected
    assert transaction.is_envelope
    assert transaction.operations == tuple(map(register_call, (1, 2, 3)))


def envelope_wire(calls: tuple[Call, ...] | None, **fields: object) -> bytes:
    summary = EnvelopeSummary(count=2, root=operations_root((CALL, CALL), SUITE), atomic=True)
    body = make_body(msgspec.structs.replace(summary, **fields))
    return signed_wire(body, HOSPITAL, calls)


def test_an_envelope_may_be_atomic():
    transaction = parse_transaction(envelope_wire((CALL, CALL)), CHAIN)
    assert transaction.is_atomic
    assert not envelope([1]).is_atomic
    assert not plain(1).is_atomic


def test_operations_that_the_body_does_not_commit_to_are_refused():
    other = Call(contract="data_index", method="correct", arguments=b"\x90")
    for calls in (None, (), (CALL,), (CALL, CALL, CALL), (CALL, other), (other, CALL)):
        assert refusal(envelope_wire(calls)) is Reason.BAD_ENVELOPE
    assert refusal(envelope_wire((CALL, CALL), root=bytes(32))) is Reason.BAD_ENVELOPE
    assert refusal(envelope_wire((CALL, CALL), count=3)) is Reason.BAD_ENVELOPE
    for count in (0, limits.ENVELOPE_OPERATIONS + 1):
        assert refusal(envelope_wire((CALL, CALL), count=count)) is Reason.MALFORMED
    assert refusal(signed_wire(make_body(CALL), HOSPITAL, (CALL,))) is Reason.BAD_ENVELOPE
    assert refusal(signed_wire(make_body(CALL), HOSPITAL, ())) is Reason.BAD_ENVELOPE


def test_the_root_of_operations_is_that_of_their_tagged_entries():
    one, two = (
        SUITE.digest(b"\0kl.operation\0" + encode(call)) for call in map(register_call, (1, 2))
    )
    head = SUITE.digest(b"\x01" + one + two)
    expected = SUITE.digest(b"\x02" + (2).to_bytes(8, "big") + head)
    assert operations_root((register_call(1), register_call(2)), SUITE) == expected


def test_a_call_and_an_envelope_are_told_apart_by_their_first_number():
    assert encode(CALL)[:2] == b"\x94\x00"
    assert encode(EnvelopeSummary(count=1, root=bytes(32), atomic=False))[:2] == b"\x94\x01"
    assert isinstance(make_body(CALL), TransactionBody)


@pytest.mark.parametrize(("signer", "order"), [(HOSPITAL, SECP256K1_ORDER), (RESIDENT, P256_ORDER)])
def test_the_same_signature_with_a_high_s_is_refused(signer, order):
    wire = plain(1, signer).wire
    ((index, signature),) = parse_transaction(wire, CHAIN).signatures
    high = order - int.from_bytes(signature[32:], "big")
    forged = with_signatures(wire, [(index, signature[:32] + high.to_bytes(32, "big"))])
    assert signature_refusal(forged) is Reason.BAD_SIGNATURE


def test_a_script_that_is_not_the_accounts_is_refused():
    body = make_body(CALL, HOSPITAL)
    assert signature_refusal(signed_wire(body, BOARD)) is Reason.BAD_SCRIPT
    rotated = msgspec.structs.replace(body, signer=BOARD.address)
    verify_signatures(parse_transaction(signed_wire(rotated, BOARD), CHAIN), CHAIN)
    assert signature_refusal(signed_wire(rotated, HOSPITAL)) is Reason.BAD_SCRIPT


def test_a_signature_of_another_key_or_of_another_body_is_refused():
    transaction = plain(1)
    stranger = keys.sign(KeyType.SECP256K1, secret("stranger"), transaction.id)
    assert signature_refusal(with_signatures(transaction.wire, [(0, stranger)])) is (
        Reason.BAD_SIGNATURE
    )
    other = plain(2).signatures
    assert signature_refusal(with_signatures(transaction.wire, list(other))) is (
        Reason.BAD_SIGNATURE
    )
    for zero in (bytes(64), b"\xff" * 64):
        assert signature_refusal(with_signatures(transaction.wire, [(0, zero)])) is (
            Reason.BAD_SIGNATURE
        )


def test_exactly_the_threshold_signs_and_key_indexes_ascend():
    body = make_body(CALL, BOARD)
    wire = signed_wire(body, BOARD)
    digest = SUITE.digest(TRANSACTION_TAG + encode(body))
    everybody = multi_signer(
        ("board a", "board b", "board c"), 2, ("board a", "board b", "board c")
    )
    zero, one, two = everybody.sign(digest)
    for pair in ([zero, one], [zero, two], [one, two]):
        verify_signatures(parse_transaction(with_signatures(wire, pair), CHAIN), CHAIN)
    for bad in (
        [zero],
        [zero, one, two],
        [one, zero],
        [zero, zero],
        [zero, (1, two[1])],
        [zero, (3, one[1])],
        [zero, (2**62, one[1])],
    ):
        assert signature_refusal(with_signatures(wire, bad)) is Reason.BAD_SIGNATURE


def test_a_broken_script_is_refused():
    items = raw()
    items[1] = b"\x93\x01\x02\x90"
    transaction = parse_transaction(msgpack.packb(items), CHAIN)
    with pytest.raises(Rejected) as caught:
        verify_signatures(transaction, CHAIN)
    assert caught.value.reason is Reason.MALFORMED


def test_the_wire_is_a_plain_positional_array():
    transaction = plain(1)
    fields = SignedTransaction.__struct_fields__
    assert fields == ("body", "script", "signatures", "operations")
    assert msgpack.unpackb(transaction.wire)[0] == encode(transaction.body)


def test_a_key_type_that_genesis_does_not_list_is_refused():
    transaction = plain(1, RESIDENT)
    verify_signatures(transaction, CHAIN)
    strict = replace(CHAIN, account_keys=frozenset({KeyType.SECP256K1}))
    with pytest.raises(Rejected) as refusal:
        verify_signatures(transaction, strict)
    assert refusal.value.reason is Reason.BAD_SCRIPT
