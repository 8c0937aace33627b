"""What people write as changes, and how it is refused."""

import json

import pytest

from contracts.changes import Change
from ledger.addresses import AddressKind, encode_text
from ledger.errors import Reason, Rejected
from rpc.governance import added, certificate_change, read_changes
from tests.unit.ledger.worlds import SUITE, key
from tests.unit.node_core.chains import NEWCOMERS, node_name

NAME = node_name(NEWCOMERS[0])
TEXT = encode_text(AddressKind.NODE, NAME)
KEY = key(NEWCOMERS[0])


def test_a_node_is_added_by_its_key_alone():
    expected = Change("add", NAME, name="n5", key=KEY, organisation="clinic", role="observer")
    assert added("n5", KEY.hex(), "clinic", "observer", SUITE) == expected


@pytest.mark.parametrize("text", ["", "zz", KEY.hex()[:-2], "02" + KEY.hex()[2:]])
def test_what_is_no_key_of_a_node_is_refused(text):
    with pytest.raises(Rejected, match="public key") as refusal:
        added("n5", text, "clinic", "observer", SUITE)
    assert refusal.value.reason is Reason.MALFORMED


def test_a_certificate_is_named_by_64_digits():
    expected = Change("revoke", NAME, certificate=bytes(32))
    assert certificate_change("revoke", TEXT, "00" * 32) == expected
    with pytest.raises(Rejected, match="Change"):
        certificate_change("revoke", TEXT, "00")


def test_a_file_holds_several_changes(tmp_path):
    path = tmp_path / "changes.json"
    items = [
        {"action": "remove", "node": TEXT},
        {"action": "role", "node": TEXT, "role": "branch"},
    ]
    path.write_text(json.dumps(items))
    assert read_changes(path) == (Change("remove", NAME), Change("role", NAME, role="branch"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", Reason.MALFORMED),
        ("{}", Reason.MALFORMED),
        ("[1]", Reason.MALFORMED),
        ('[{"action": "remove"}]', Reason.BAD_ADDRESS),
        (json.dumps([{"action": "remove", "node": "kt1x"}]), Reason.BAD_ADDRESS),
        (json.dumps([{"action": "dissolve", "node": TEXT}]), Reason.MALFORMED),
        (json.dumps([{"action": "remove", "node": TEXT, "why": "x"}]), Reason.MALFORMED),
        (json.dumps([{"action": "role", "node": TEXT, "role": "king"}]), Reason.MALFORMED),
    ],
)
def test_a_file_with_something_else_is_refused(tmp_path, text, reason):
    path = tmp_path / "changes.json"
    path.write_text(text)
    with pytest.raises(Rejected) as refusal:
        read_changes(path)
    assert refusal.value.reason is reason
