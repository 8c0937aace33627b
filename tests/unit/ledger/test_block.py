"""Headers commit to batches and receipts by namespace."""

import msgspec
import pytest

from ledger.block import (
    BLOCK,
    HEADER,
    Block,
    Demotion,
    NamespaceBatch,
    batches_root,
    block_hash,
    certificate_hash,
    empty_root,
    namespace_batches,
    namespace_shares,
    receipts_root,
)
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.merkle import root_of_entries
from tests.unit.ledger.worlds import SUITE, busy_batches, make_header, secret

BATCHES = busy_batches()
HEADER_VALUE = make_header(3, previous_hash=secret("block 2"), batches=BATCHES)


def test_a_block_is_named_by_the_tagged_hash_of_its_header():
    data = encode(HEADER_VALUE)
    assert HEADER.decode(data) == HEADER_VALUE
    assert block_hash(data, SUITE) == SUITE.digest(b"kl.header\0" + data)
    assert certificate_hash(b"c", SUITE) == SUITE.digest(b"kl.certificate\0c")


def test_the_batches_of_a_namespace_stand_in_block_order_and_namespaces_ascend():
    first, second = BATCHES
    found = namespace_batches(BATCHES)
    assert list(found) == [("emr", 0), ("emr", 2), ("trial", 0), ("trial", 1)]
    assert found["emr", 0] == [
        NamespaceBatch(item.digest, item.header.namespaces[0].count, item.header.namespaces[0].root)
        for item in (first, second)
    ]
    shares = namespace_shares(found, SUITE)
    assert [(share.module, share.level, share.count) for share in shares] == [
        ("emr", 0, 4),
        ("emr", 2, 1),
        ("trial", 0, 1),
        ("trial", 1, 1),
    ]
    entries = [b"kl.namespace-batch\0" + encode(item) for item in found["emr", 0]]
    assert shares[0].root == root_of_entries(SUITE.digest, entries)


def test_the_batches_root_is_over_tagged_shares_and_depends_on_order():
    shares = namespace_shares(namespace_batches(BATCHES), SUITE)
    entries = [b"kl.namespace\0" + encode(share) for share in shares]
    assert batches_root(BATCHES, SUITE) == root_of_entries(SUITE.digest, entries)
    assert batches_root(BATCHES, SUITE) != batches_root(BATCHES[::-1], SUITE)
    assert batches_root(BATCHES, SUITE) != batches_root(BATCHES[:1], SUITE)


def test_no_batches_and_no_receipts_have_the_empty_root():
    assert batches_root((), SUITE) == empty_root(SUITE) == receipts_root((), SUITE)


def test_every_field_of_a_header_is_in_its_hash():
    hashes = {block_hash(encode(HEADER_VALUE), SUITE)}
    other = {
        "version": HEADER_VALUE.version + 1,
        "group": 9,
        "height": 9,
        "time": 9,
        "proposer": 2,
        "demotions": (Demotion(1, 1, 0),),
    }
    for name in HEADER_VALUE.__struct_fields__:
        changed = msgspec.structs.replace(HEADER_VALUE, **{name: other.get(name, bytes(32))})
        hashes.add(block_hash(encode(changed), SUITE))
    assert len(hashes) == 1 + len(HEADER_VALUE.__struct_fields__)


@pytest.mark.parametrize(
    "fields",
    [
        {"height": 0},
        {"time": -1},
        {"proposer": 128},
        {"batches_root": bytes(31)},
        {"demotions": (Demotion(1, 11, 0),)},
        {"demotions": (Demotion(128, 1, 0),)},
        {"demotions": (Demotion(1, 0, 0),)},
    ],
    ids=str,
)
def test_a_header_field_outside_its_range_is_refused(fields):
    with pytest.raises(Rejected) as caught:
        HEADER.decode(encode(msgspec.structs.replace(HEADER_VALUE, **fields)))
    assert caught.value.reason is Reason.MALFORMED


def test_a_block_record_has_limits():
    header = encode(HEADER_VALUE)
    good = Block(header=header, certificate=b"", batches=tuple(item.digest for item in BATCHES))
    assert BLOCK.decode(encode(good)) == good
    for bad in (
        msgspec.structs.replace(good, header=bytes(4_097)),
        msgspec.structs.replace(good, certificate=bytes(16_385)),
        msgspec.structs.replace(good, batches=(bytes(32),) * 257),
        msgspec.structs.replace(good, batches=(bytes(31),)),
    ):
        with pytest.raises(Rejected) as caught:
            BLOCK.decode(encode(bad))
        assert caught.value.reason is Reason.MALFORMED
