"""A receipt has one form, a known status and limits."""

import msgpack
import msgspec
import pytest

from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.receipts import RECEIPT, Event, Receipt, Status

GOOD = Receipt(bytes(32), Status.OK, "", 0, b"\x91\x07", (Event("data_index", "registered", b""),))


def test_a_receipt_comes_back_from_its_bytes():
    raw = [bytes(32), 0, "", 0, b"\x91\x07", [["data_index", "registered", b""]]]
    assert encode(GOOD) == msgpack.packb(raw)
    assert RECEIPT.decode(encode(GOOD)) == GOOD


def test_the_numbers_of_statuses_never_change():
    assert {status.name: int(status) for status in Status} == {
        "OK": 0,
        "REVERTED": 1,
        "DUPLICATE": 2,
        "EXPIRED": 3,
        "UNKNOWN_NAMESPACE": 4,
        "UNKNOWN_ACCOUNT": 5,
        "SIGNER_NOT_CURRENT": 6,
        "AFTER_NOT_FOUND": 7,
        "UNKNOWN_CONTRACT": 8,
        "UNKNOWN_METHOD": 9,
        "BAD_ARGUMENTS": 10,
        "ABORTED": 11,
    }


@pytest.mark.parametrize(
    "fields",
    [
        {"id": bytes(31)},
        {"status": 12},
        {"status": -1},
        {"error": "E" * 65},
        {"gas_used": -1},
        {"output": bytes(8_193)},
        {"events": GOOD.events * 33},
        {"events": (Event("Data Index", "registered", b""),)},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_field_outside_its_range_is_refused(fields):
    with pytest.raises(Rejected) as caught:
        RECEIPT.decode(encode(msgspec.structs.replace(GOOD, **fields)))
    assert caught.value.reason is Reason.MALFORMED
