"""What clients read is always JSON, whatever a certified receipt holds."""

import msgspec
import pytest

from ledger.receipts import Event
from rpc.views import VALUE_DEPTH, event_view

NO_RECORD = {
    "nothing": b"",
    "more than one value": b"\x90\x90",
    "cut off": b"\x92\x01",
    "no list": b"\x01",
    "an extension": b"\x91\xc7\x01\x05\x00",
    "a time": b"\x91\xd6\xff\x00\x00\x00\x00",
    "a map": b"\x91\x81\x01\x02",
    "a map with a list as key": b"\x91\x81\x92\x01\x02\x02",
    "a float": b"\x91\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00",
    "no UTF-8": b"\x91\xa1\xff",
    "too deep": b"\x91" * VALUE_DEPTH + b"\x90",
    "much too deep": b"\x91" * 4_000 + b"\x90",
}


@pytest.mark.parametrize("data", NO_RECORD.values(), ids=NO_RECORD)
def test_data_of_an_event_that_are_no_record_are_shown_as_bytes(data):
    """Found by `make proofs --seed 77 --first 24860`: a receipt signed anew, its event cut off."""
    view = event_view(Event("data_index", "registered", data))
    assert view["values"] is None
    assert msgspec.json.decode(msgspec.json.encode(view))["data"] == data.hex()


def test_values_of_an_event_are_shown_by_position():
    data = msgspec.msgpack.encode([b"\x01", "two", 3, True, None, [[4]]])
    assert event_view(Event("c", "n", data))["values"] == ["01", "two", 3, True, None, [[4]]]
