"""Whatever the schema accepts is the shortest msgpack form; nothing else decodes."""

from typing import get_args

import msgpack
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.batch import BatchHeader, NamespaceSummary
from ledger.block import HEADER, Demotion, Header
from ledger.codec import Record, Schema, encode
from ledger.data_index import Registration, Root, Supersession
from ledger.errors import Rejected
from ledger.receipts import RECEIPT, Event, Receipt, Status
from ledger.transaction import Call, EnvelopeSummary, SignedTransaction, TransactionBody
from ledger.votes import CERTIFICATE, Certificate

hash32 = st.binary(min_size=32, max_size=32)
signature = st.binary(min_size=64, max_size=64)
count = st.integers(0, 2**63 - 1)
byte = st.integers(0, 255)
name = st.from_regex(r"[a-z][a-z0-9_]{0,31}", fullmatch=True)
pairs = st.lists(st.tuples(count, signature), min_size=1, max_size=16).map(tuple)
call = st.builds(Call, contract=name, method=name, arguments=st.binary(max_size=300))
envelope = st.builds(
    EnvelopeSummary, count=st.integers(1, 2_000), root=hash32, atomic=st.booleans()
)
body = st.builds(
    TransactionBody,
    version=byte,
    genesis_hash=hash32,
    group=st.integers(0, 2**32 - 1),
    module=name,
    level=byte,
    account=hash32,
    signer=st.none() | hash32,
    nonce=st.binary(min_size=16, max_size=16),
    valid_until=count,
    client_time=count,
    after=st.none() | hash32,
    payload=call | envelope,
)
signed = st.builds(
    SignedTransaction,
    body=st.binary(max_size=300),
    script=st.binary(max_size=100),
    signatures=pairs,
    operations=st.none() | st.lists(call, max_size=3).map(tuple),
)
summary = st.builds(
    NamespaceSummary, module=name, level=byte, count=st.integers(1, 1_000), root=hash32
)
batch_header = st.builds(
    BatchHeader,
    version=byte,
    genesis_hash=hash32,
    group=st.integers(0, 2**32 - 1),
    author=hash32,
    sequence=count,
    previous=hash32,
    clock=count,
    anchor_height=count,
    anchor_hash=hash32,
    namespaces=st.lists(summary, min_size=1, max_size=5).map(tuple),
)
demotion = st.builds(
    Demotion, validator=st.integers(0, 127), strikes=st.integers(1, 10), until=count
)
header = st.builds(
    Header,
    version=byte,
    group=st.integers(0, 2**32 - 1),
    height=st.integers(1, 2**63 - 1),
    time=count,
    proposer=st.integers(0, 127),
    demotions=st.lists(demotion, max_size=4).map(tuple),
    **{field: hash32 for field in Header.__struct_fields__ if field.endswith(("_root", "_hash"))},
)
certificate = st.builds(
    Certificate,
    height=st.integers(1, 2**63 - 1),
    round=count,
    block_hash=hash32,
    signatures=pairs,
)
event = st.builds(Event, contract=name, name=name, data=st.binary(max_size=40))
receipt = st.builds(
    Receipt,
    id=hash32,
    status=st.sampled_from(Status).map(int),
    error=st.text(max_size=64),
    gas_used=count,
    output=st.binary(max_size=300),
    events=st.lists(event, max_size=3).map(tuple),
)
root = st.builds(Root, operating_status=byte, level=byte, remarks=hash32, random=hash32)
registration = st.builds(
    Registration,
    head=hash32,
    middle=hash32,
    tail=hash32,
    record=hash32,
    object=hash32,
    root=root,
)
supersession = st.builds(
    Supersession,
    index=hash32,
    sequence=count,
    kind=st.integers(1, 3),
    registration=st.none() | registration,
)

SCHEMAS = {
    TransactionBody: Schema(TransactionBody, max_bytes=100_000),
    SignedTransaction: Schema(SignedTransaction, max_bytes=100_000),
    BatchHeader: Schema(BatchHeader, max_bytes=100_000),
    Header: HEADER,
    Certificate: CERTIFICATE,
    Receipt: RECEIPT,
    Registration: Schema(Registration, max_bytes=1_000),
    Supersession: Schema(Supersession, max_bytes=1_000),
}
RECORDS = (
    body | signed | batch_header | header | certificate | receipt | registration | supersession
)
TAGS = {Call: 0, EnvelopeSummary: 1}


def positional(value: object) -> object:
    """Plain lists of the values; a member of a union is preceded by its number."""
    if isinstance(value, Record):
        fields = [positional(getattr(value, field)) for field in value.__struct_fields__]
        return [TAGS[type(value)], *fields] if type(value) in TAGS else fields
    return [positional(item) for item in value] if isinstance(value, tuple) else value


@given(RECORDS)
def test_the_bytes_of_a_record_are_those_of_the_msgpack_library_and_come_back(value):
    data = encode(value)
    assert data == msgpack.packb(positional(value), use_bin_type=True)
    assert SCHEMAS[type(value)].decode(data) == value


@settings(max_examples=300)
@given(RECORDS, st.data())
def test_bytes_that_were_changed_are_refused_or_are_another_value(value, data):
    wire = bytearray(encode(value))
    place = data.draw(st.integers(0, len(wire) - 1))
    wire[place] ^= data.draw(st.integers(1, 255))
    try:
        found = SCHEMAS[type(value)].decode(bytes(wire))
    except Rejected:
        return
    assert found != value
    assert encode(found) == bytes(wire)


@given(RECORDS, st.binary(min_size=1, max_size=4))
def test_no_byte_may_follow_or_miss(value, tail):
    data = encode(value)
    for wire in (data + tail, data[: -len(tail)]):
        try:
            SCHEMAS[type(value)].decode(wire)
        except Rejected:
            continue
        raise AssertionError(wire)


def test_every_union_of_a_signed_record_is_numbered():
    members = get_args(TransactionBody.__annotations__["payload"])
    assert {member: member.__struct_config__.tag for member in members} == TAGS
