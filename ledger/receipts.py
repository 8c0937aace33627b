"""Receipts: what became of each operation. Inclusion alone is not success; a receipt says so.

Every operation of a block has one receipt, in the order of execution within its namespace. The
next header commits to them per namespace.
Source: docs/format.md section 7.
"""

from enum import IntEnum, unique
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema
from ledger.ids import Bytes32, Count, Name

RECEIPT_TAG = b"kl.receipt\0"


@unique
class Status(IntEnum):
    """The outcome of one operation; the integer stands in the receipt."""

    OK = 0
    """Executed; return value and events stand in the receipt."""
    REVERTED = 1
    """The contract refused; `error` is the name it gave."""
    DUPLICATE = 2
    """The same id was executed before; the first receipt holds."""
    EXPIRED = 3
    """`valid_until` is before the block's time, or too far behind it."""
    UNKNOWN_NAMESPACE = 4
    """No such module or broadcast level on this chain."""
    UNKNOWN_ACCOUNT = 5
    """The account is not on the allow-list."""
    SIGNER_NOT_CURRENT = 6
    """The signing script is not the account's current one."""
    AFTER_NOT_FOUND = 7
    """The transaction named by `after` did not succeed within the replay window."""
    UNKNOWN_CONTRACT = 8
    """The module has no such contract."""
    UNKNOWN_METHOD = 9
    """The contract has no such method, or it only reads."""
    BAD_ARGUMENTS = 10
    """The arguments are not the canonical record of the method."""
    ABORTED = 11
    """Another operation of the same atomic envelope failed."""


class Event(Record, frozen=True):
    """Something a contract announced: a declared name and the encoded record of its values."""

    contract: Name
    name: Name
    data: bytes


class Receipt(Record, frozen=True):
    """The outcome of one operation. `gas_used` is 0 until contracts are metered."""

    id: Bytes32
    status: Annotated[int, Meta(ge=0, le=int(max(Status)))]
    error: Annotated[str, Meta(max_length=64)]
    gas_used: Count
    output: Annotated[bytes, Meta(max_length=limits.RETURN_BYTES)]
    events: Annotated[tuple[Event, ...], Meta(max_length=limits.EVENTS_PER_OPERATION)]


RECEIPT = Schema(Receipt, max_bytes=limits.RECEIPT_BYTES)
