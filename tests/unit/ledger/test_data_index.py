"""Commitments hide the parts of an index; an opening shows some of them and nothing else."""

import hashlib
import hmac as stdlib_hmac
import json
from dataclasses import dataclass, replace

import msgpack
import pytest

from ledger.codec import Schema, encode
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import (
    OPENING_BYTES,
    OpenedPart,
    Opening,
    PartLabel,
    Parts,
    Registration,
    Supersession,
    commitment,
    hmac,
    object_id,
    open_parts,
    parse_opening,
    register_arguments,
    salt,
    verify_opening,
)
from ledger.errors import InvariantError, Reason, Rejected

INDEX = bytes(range(32))
ACCOUNT = bytes(range(32, 64))
SECRET = hashlib.sha256(b"R").digest()
PARTS = Parts(
    head="操作员 7".encode(), middle=b"create", tail=b"patient", remarks=b"", record=b'{"a":1}'
)
REGISTRATION = register_arguments(INTERNATIONAL, ACCOUNT, SECRET, PARTS, INDEX, 1, 2)
OPENING = open_parts(INTERNATIONAL, INDEX, ACCOUNT, SECRET, PARTS)


def verify(opening: Opening, record: bytes | None = PARTS.record) -> None:
    verify_opening(opening, REGISTRATION, INDEX, ACCOUNT, INTERNATIONAL, record)


def refused_part(opening: Opening, record: bytes | None = PARTS.record) -> object:
    with pytest.raises(Rejected) as caught:
        verify(opening, record)
    assert caught.value.reason is Reason.BAD_OPENING
    return caught.value.facts.get("part")


@pytest.mark.parametrize("key_bytes", [0, 1, 32, 63, 64, 65, 200])
def test_hmac_is_that_of_the_standard_library(key_bytes):
    key, message = b"k" * key_bytes, b"message"
    expected = stdlib_hmac.digest(key, message, "sha256")
    assert hmac(INTERNATIONAL, key, message) == expected


def test_hmac_takes_the_digest_of_the_suite():
    @dataclass(frozen=True)
    class Blake:
        name: str = "blake2s"  # like SM3: another digest of 32 bytes over blocks of 64

        def digest(self, data: bytes, /) -> bytes:
            return hashlib.blake2s(data).digest()

    assert hmac(Blake(), b"key", b"message") == stdlib_hmac.digest(b"key", b"message", "blake2s")


def test_a_commitment_is_the_hash_of_a_tagged_canonical_array():
    for label in PartLabel:
        part_salt = stdlib_hmac.digest(SECRET, b"kl.salt\0" + label.encode(), "sha256")
        array = msgpack.packb([ACCOUNT, str(label), part_salt, PARTS.get(label)])
        expected = hashlib.sha256(b"kl.commitment\0" + array).digest()
        assert salt(INTERNATIONAL, SECRET, label) == part_salt
        assert commitment(INTERNATIONAL, ACCOUNT, label, part_salt, PARTS.get(label)) == expected


def test_an_object_id_is_a_keyed_hash_of_the_identifier():
    expected = stdlib_hmac.digest(b"organisation", b"kl.object\0" + "患者".encode(), "sha256")
    assert object_id(INTERNATIONAL, b"organisation", "患者") == expected


def test_a_registration_holds_the_five_commitments_and_the_hash_of_the_secret():
    def part(label: PartLabel) -> bytes:
        part_salt = salt(INTERNATIONAL, SECRET, label)
        return commitment(INTERNATIONAL, ACCOUNT, label, part_salt, PARTS.get(label))

    random = hashlib.sha256(b"kl.random\0" + SECRET).digest()
    root = [1, 2, part(PartLabel.REMARKS), random]
    labels = (PartLabel.HEAD, PartLabel.MIDDLE, PartLabel.TAIL, PartLabel.RECORD)
    expected = [*map(part, labels), INDEX, root]
    assert encode(REGISTRATION) == msgpack.packb(expected)


def test_equal_parts_have_different_commitments_under_another_label_account_or_secret():
    same = Parts(b"x", b"x", b"x", b"x", b"x")
    found = set()
    for account in (ACCOUNT, INDEX):
        for secret in (SECRET, INDEX):
            made = register_arguments(INTERNATIONAL, account, secret, same, INDEX, 0, 0)
            found |= {made.head, made.middle, made.tail, made.record, made.root.remarks}
    assert len(found) == 20


def test_a_secret_of_another_size_stops_us():
    with pytest.raises(InvariantError):
        salt(INTERNATIONAL, SECRET[:31], PartLabel.HEAD)


def test_a_supersession_has_one_form():
    schema = Schema(Supersession, max_bytes=1_024)
    value = Supersession(INDEX, 7, 2, None)
    assert schema.decode(encode(value)) == value
    with_successor = Supersession(INDEX, 7, 1, REGISTRATION)
    assert schema.decode(encode(with_successor)) == with_successor
    for kind in (0, 4):
        with pytest.raises(Rejected):
            schema.decode(msgpack.packb([INDEX, 7, kind, None]))


@pytest.mark.parametrize("status", [-1, 256])
def test_operating_status_and_level_have_one_byte(status):
    schema = Schema(Registration, max_bytes=1_024)
    for position in (0, 1):
        raw = msgpack.unpackb(encode(REGISTRATION))
        raw[5][position] = status
        with pytest.raises(Rejected) as caught:
            schema.decode(msgpack.packb(raw))
        assert caught.value.reason is Reason.MALFORMED


def test_an_opening_verifies_whole_and_part_by_part():
    verify(OPENING)
    for label in PartLabel:
        verify(OPENING.only(label), PARTS.record if label == PartLabel.RECORD else None)


def test_an_opening_comes_back_from_its_json():
    for opening in (OPENING, OPENING.only(PartLabel.TAIL), OPENING.only(*PartLabel)):
        assert parse_opening(opening.to_json()) == opening
        assert parse_opening(opening.to_json() + b"\n") == opening


def test_the_json_form_is_that_of_any_json_library_with_sorted_members_and_no_blanks():
    text = OPENING.to_json()
    again = json.dumps(json.loads(text), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert text == again.encode()
    assert json.loads(text)["parts"]["record"]["content"] is None


def test_no_opening_holds_the_secret():
    assert SECRET.hex().encode() not in OPENING.to_json()


def test_narrowing_needs_parts_that_are_there():
    for labels in ((), (PartLabel.HEAD,)):
        with pytest.raises(Rejected) as caught:
            OPENING.only(PartLabel.TAIL).only(*labels)
        assert caught.value.reason is Reason.BAD_OPENING


@pytest.mark.parametrize("label", list(PartLabel))
def test_a_changed_part_or_salt_is_refused_by_name(label):
    kept = [part for part in OPENING.parts if part.label != label]
    own = next(part for part in OPENING.parts if part.label == label)
    content = PARTS.get(label)
    for other in (
        OpenedPart(label, own.salt, content + b"!"),
        OpenedPart(label, bytes(32), content),
    ):
        changed = replace(OPENING, parts=(*kept, other))
        record = other.content if label == PartLabel.RECORD else PARTS.record
        assert refused_part(changed, record) == label


def test_two_parts_that_swap_labels_are_refused():
    head, middle = OPENING.only(PartLabel.HEAD, PartLabel.MIDDLE).parts
    swapped = (
        replace(head, salt=middle.salt, content=middle.content),
        replace(middle, salt=head.salt, content=head.content),
    )
    assert refused_part(replace(OPENING, parts=swapped), None) == PartLabel.HEAD


def test_every_changed_byte_of_the_record_is_refused():
    for place in range(len(PARTS.record)):
        for mask in (0x01, 0x20, 0x80, 0xFF):
            record = bytearray(PARTS.record)
            record[place] ^= mask
            assert refused_part(OPENING, bytes(record)) == PartLabel.RECORD
    for record in (b"", PARTS.record[:-1], PARTS.record + b"\n", None):
        assert refused_part(OPENING, record) == PartLabel.RECORD


def test_a_record_that_the_opening_does_not_speak_of_is_refused():
    assert refused_part(OPENING.only(PartLabel.HEAD), PARTS.record) == PartLabel.RECORD


def test_a_missing_record_is_told_apart_from_a_wrong_one():
    with pytest.raises(Rejected) as caught:
        verify(OPENING, None)
    assert caught.value.detail == "the record is missing"


def test_an_inline_record_must_be_the_one_beside_it():
    (own,) = OPENING.only(PartLabel.RECORD).parts
    inline = replace(OPENING, parts=(replace(own, content=PARTS.record),))
    verify(inline, None)
    verify(inline, PARTS.record)
    assert refused_part(inline, b"another") == PartLabel.RECORD
    assert parse_opening(inline.to_json()) == inline


def test_an_opening_of_another_index_account_or_of_nothing_is_refused():
    for other, detail in (
        (replace(OPENING, index=ACCOUNT), "another index"),
        (replace(OPENING, account=INDEX), "another account"),
        (replace(OPENING, parts=()), "an opening has at least one part"),
    ):
        with pytest.raises(Rejected) as caught:
            verify(other)
        assert (caught.value.reason, caught.value.detail) == (Reason.BAD_OPENING, detail)


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x20, 0x80])
def test_every_changed_byte_of_an_opening_is_refused(mask):
    text = OPENING.to_json()
    for place in range(len(text)):
        forged = bytearray(text)
        forged[place] ^= mask
        with pytest.raises(Rejected):
            verify(parse_opening(bytes(forged)))


def with_content(content: str) -> bytes:
    part = {"salt": "00" * 32, "content": content}
    return _text({"head": part})


def _text(parts: object, **members: object) -> bytes:
    document = {
        "format": "kanglian-opening/1",
        "index": INDEX.hex(),
        "account": ACCOUNT.hex(),
        "parts": parts,
        **members,
    }
    return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


def test_the_form_that_the_refusals_below_start_from_is_accepted():
    part = OpenedPart(PartLabel.HEAD, bytes(32), b"ab")
    assert parse_opening(with_content("YWI=")) == Opening(INDEX, ACCOUNT, (part,))


@pytest.mark.parametrize("content", ["YWI", "YWJ=", "YWI=\n", " YWI=", "YW-_", "====", "YWI=YWI="])
def test_base64_has_one_form(content):
    with pytest.raises(Rejected) as caught:
        parse_opening(with_content(content))
    assert caught.value.reason is Reason.BAD_OPENING


GOOD = with_content("YWI=")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(_text({}), id="no part"),
        pytest.param(_text({"root": {"salt": "00" * 32, "content": ""}}), id="an unknown part"),
        pytest.param(_text({"head": {"salt": "00" * 32, "content": None}}), id="head beside"),
        pytest.param(_text({"head": {"salt": "00" * 31, "content": ""}}), id="a short salt"),
        pytest.param(_text({"head": {"salt": "00" * 32}}), id="no content"),
        pytest.param(_text({"head": {"content": ""}}), id="no salt"),
        pytest.param(_text({"head": {"salt": "00" * 32, "content": "", "x": 1}}), id="a member"),
        pytest.param(_text({"head": {"salt": "AB" * 32, "content": ""}}), id="upper-case salt"),
        pytest.param(GOOD.replace(INDEX.hex().encode(), INDEX.hex().upper().encode()), id="upper"),
        pytest.param(GOOD.replace(b"opening/1", b"opening/2"), id="another format"),
        pytest.param(GOOD[:-1] + b',"secret":"00"}', id="a secret"),
        pytest.param(GOOD.replace(b'{"account"', b'{ "account"'), id="a blank"),
        pytest.param(GOOD.replace(b'"head"', b'"\\u0068ead"'), id="an escape"),
        pytest.param(GOOD + b"\n\n", id="two newlines"),
        pytest.param(GOOD + b"\r\n", id="a carriage return"),
        pytest.param(b"\n" + GOOD, id="a newline before"),
        pytest.param(GOOD[:-1], id="cut short"),
        pytest.param(b"[" * 50_000, id="deep nesting"),
        pytest.param(b"null", id="null"),
    ],
)
def test_any_other_text_is_refused(text):
    with pytest.raises(Rejected) as caught:
        parse_opening(text)
    assert caught.value.reason is Reason.BAD_OPENING


def test_a_repeated_member_is_refused():
    part = b'"head":{"content":"YWI=","salt":"' + b"00" * 32 + b'"}'
    twice = GOOD.replace(part, part + b"," + part)
    assert twice != GOOD
    with pytest.raises(Rejected):
        parse_opening(twice)


def test_an_opening_above_the_size_limit_is_refused_unread():
    with pytest.raises(Rejected) as caught:
        parse_opening(b" " * (OPENING_BYTES + 1))
    assert caught.value.reason is Reason.TOO_LARGE
