"""Arguments as JSON: by name or by position, and nothing that does not fit."""

import pytest

from contracts.abi import from_json, to_json
from contracts.accounts import Empty, NewAccount
from contracts.data_index import Current, HistoryQuery, Superseded
from ledger.data_index import Registration, Supersession
from ledger.errors import Reason, Rejected
from tests.unit.node_core.chains import register

from .test_data_index import registration

HEX = "ab" * 32
OBJECT = bytes.fromhex(HEX)


def test_a_record_becomes_named_members_with_hex():
    query = HistoryQuery("hospital", OBJECT, -1, 10)
    expected = {"organisation": "hospital", "object": HEX, "after": -1, "limit": 10}
    assert to_json(query) == expected
    assert from_json(HistoryQuery, expected) == query
    assert from_json(HistoryQuery, list(expected.values())) == query


def test_nested_and_absent_records_come_back_whole():
    record = registration(1)
    for value in (Supersession(OBJECT, 0, 1, record), Supersession(OBJECT, 0, 2, None)):
        assert from_json(Supersession, to_json(value)) == value
    assert from_json(Registration, to_json(record)) == record
    assert from_json(Empty, {}) == from_json(Empty, []) == Empty()
    assert to_json(Current(Superseded(OBJECT, 2, 7))) == {
        "superseded": {"by": HEX, "action": 2, "height": 7}
    }
    assert register(1).contract == "data_index"


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        (NewAccount, {"account": HEX}),
        (NewAccount, {"account": HEX, "role": "member", "extra": 1}),
        (NewAccount, {"account": HEX, "role": "owner"}),
        (NewAccount, {"account": HEX[:-2], "role": "member"}),
        (NewAccount, {"account": HEX[:-1], "role": "member"}),
        (NewAccount, {"account": "zz" * 32, "role": "member"}),
        (NewAccount, {"account": 7, "role": "member"}),
        (NewAccount, {"account": None, "role": "member"}),
        (NewAccount, [HEX]),
        (NewAccount, [HEX, "member", 1]),
        (NewAccount, "member"),
        (NewAccount, None),
        (HistoryQuery, ["hospital", HEX, -2, 10]),
        (HistoryQuery, ["hospital", HEX, -1, 0]),
        (HistoryQuery, ["hospital", HEX, -1, 101]),
        (HistoryQuery, ["hospital", HEX, -1, 1.5]),
        (HistoryQuery, ["hospital", HEX, -1, True]),
        (HistoryQuery, ["Hospital!", HEX, -1, 1]),
        (HistoryQuery, ["hospital", HEX, 2**63, 1]),
        (Supersession, [HEX, 0, 1, {"head": HEX}]),
        (Supersession, [HEX, 0, 1, []]),
    ],
)
def test_what_does_not_fit_is_refused_as_malformed(kind, value):
    with pytest.raises(Rejected) as refusal:
        from_json(kind, value)
    assert refusal.value.reason is Reason.MALFORMED
