"""A batch's header commits to exactly its transactions, grouped by namespace."""

import msgpack
import msgspec
import pytest

from ledger import limits
from ledger.batch import BatchHeader, batch_digest, build_batch, parse_batch, summarise
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.merkle import root_of_leaves
from tests.unit.ledger.worlds import (
    CHAIN,
    SUITE,
    VALIDATORS,
    envelope,
    make_batch,
    plain,
)

TRANSACTIONS = (plain(1), envelope([2, 3]), plain(4, level=1), plain(5, module="trial"))
BATCH = make_batch(TRANSACTIONS)


def refusal(wire: bytes) -> Reason:
    with pytest.raises(Rejected) as caught:
        parse_batch(wire, CHAIN)
    return caught.value.reason


def altered(**fields: object) -> bytes:
    header: BatchHeader = msgspec.structs.replace(BATCH.header, **fields)
    return build_batch(header, BATCH.signature, BATCH.transactions)


def test_a_batch_comes_back_from_its_bytes():
    batch = parse_batch(BATCH.wire, CHAIN)
    assert batch.header == BATCH.header
    assert [item.id for item in batch.transactions] == [item.id for item in TRANSACTIONS]
    assert build_batch(batch.header, batch.signature, batch.transactions) == BATCH.wire


def test_the_author_signs_the_digest_of_the_header():
    header = encode(BATCH.header)
    assert BATCH.digest == SUITE.digest(b"kl.batch\0" + header) == batch_digest(header, SUITE)
    assert SUITE.verify(VALIDATORS.members[0].key, BATCH.digest, BATCH.signature)


def test_a_summary_holds_count_and_root_of_each_namespace():
    shares = [TRANSACTIONS[:2], TRANSACTIONS[2:3], TRANSACTIONS[3:]]
    expected = []
    for share in shares:
        root = root_of_leaves(SUITE.digest, [item.leaf for item in share])
        expected.append((share[0].body.module, share[0].body.level, len(share), root))
    found = summarise(TRANSACTIONS, SUITE)
    assert [msgspec.structs.astuple(summary) for summary in found] == expected


def test_transactions_that_the_header_does_not_commit_to_are_refused():
    for transactions in (
        TRANSACTIONS[:3],
        (*TRANSACTIONS, plain(6, module="trial")),
        (TRANSACTIONS[1], TRANSACTIONS[0], *TRANSACTIONS[2:]),
        (TRANSACTIONS[0], TRANSACTIONS[0], *TRANSACTIONS[2:]),
        TRANSACTIONS[::-1],
    ):
        wire = build_batch(BATCH.header, BATCH.signature, transactions)
        assert refusal(wire) is Reason.BAD_BATCH


def test_namespaces_that_do_not_strictly_ascend_are_refused():
    spaces = BATCH.header.namespaces
    for other in (spaces[::-1], (spaces[0], *spaces), (spaces[1], spaces[0], spaces[2])):
        assert refusal(altered(namespaces=other)) is Reason.BAD_BATCH


def test_a_namespace_split_in_two_is_refused():
    one, two = TRANSACTIONS[:2]
    split = (*summarise([one], SUITE), *summarise([two], SUITE))
    header = msgspec.structs.replace(BATCH.header, namespaces=split)
    assert refusal(build_batch(header, BATCH.signature, [one, two])) is Reason.BAD_BATCH


def test_a_wrong_count_or_root_is_refused():
    first, *others = BATCH.header.namespaces
    for fields in ({"count": 3}, {"root": bytes(32)}, {"level": 2}, {"module": "emq"}):
        changed = (msgspec.structs.replace(first, **fields), *others)
        assert refusal(altered(namespaces=tuple(sorted(changed, key=encode)))) is Reason.BAD_BATCH


def test_another_chain_or_version_is_refused():
    assert refusal(altered(genesis_hash=bytes(32))) is Reason.WRONG_CHAIN
    assert refusal(altered(group=2)) is Reason.WRONG_CHAIN
    assert refusal(altered(version=limits.PROTOCOL_VERSION + 1)) is Reason.UNSUPPORTED_VERSION


def test_a_bad_transaction_spoils_the_batch():
    items = msgpack.unpackb(BATCH.wire)
    items[2][0] = items[2][0][:-1]
    assert refusal(msgpack.packb(items)) is Reason.MALFORMED


def test_empty_long_and_other_forms_are_refused():
    items = msgpack.unpackb(BATCH.wire)
    assert refusal(msgpack.packb([items[0], items[1], []])) is Reason.MALFORMED
    assert refusal(msgpack.packb([*items, None])) is Reason.MALFORMED
    assert refusal(msgpack.packb(items[:2])) is Reason.MALFORMED
    assert refusal(b"\xdc\x00\x03" + BATCH.wire[1:]) is Reason.NON_CANONICAL
    assert refusal(bytes(limits.BATCH_BYTES + 1)) is Reason.TOO_LARGE
    many = [items[2][0]] * (limits.BATCH_TRANSACTIONS + 1)
    assert refusal(msgpack.packb([items[0], items[1], many])) is Reason.MALFORMED


def test_the_clock_has_48_bits_of_milliseconds_and_16_of_counter():
    clock = 0x0001_9999_0000_0000
    batch = parse_batch(altered(clock=clock), CHAIN)
    assert batch.header.clock == clock
