"""What clients read: blocks, transactions and receipts as JSON objects.

What it decides: member names and forms: hashes as lower-case hex, times in ms, calls and results
decoded by the contract's own schema where this node knows it, hex where it does not.
What it never does: change state or judge. Long lists are told and encoded in steps, with looks at
the event loop between them.
"""

from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from typing import Any, Protocol, cast

import msgspec
import trio

from contracts.abi import to_json
from contracts.interface import Method
from ledger import limits
from ledger.addresses import AddressKind, address_of, encode_text, parse_script
from ledger.codec import Record, Schema
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Rejected
from ledger.receipts import Event, Receipt, Status
from ledger.transaction import Call, Transaction
from node.service import FoundBlock, FoundTransaction
from rpc.limits import STEP_IDS, STEP_ITEMS

Json = dict[str, object]
VALUE_DEPTH = 16
"""Lists within lists of an event's values that are shown; no contract nests so deep."""


class MethodSource(Protocol):
    """Who knows the methods of contracts."""

    def method(self, module: str, contract: str, name: str) -> Method | None:
        """A method of a contract, or None."""
        ...


async def list_view(items: Iterable[object], step_items: int = STEP_ITEMS) -> msgspec.Raw:
    """The JSON array of items, made in steps; `items` is best a generator."""
    pieces: list[bytes] = []
    rest = iter(items)
    while part := list(islice(rest, step_items)):
        if pieces:
            await trio.lowlevel.checkpoint()
        pieces.append(msgspec.json.encode(part)[1:-1])
    return msgspec.Raw(b"".join((b"[", b",".join(pieces), b"]")))


async def transaction_view(
    source: MethodSource, found: FoundTransaction, suite: CryptoSuite
) -> Json:
    """Where a transaction stands, what it asks, and what became of it.

    An operation id narrows `operations` and `receipts` to that operation. `receipt` is the only
    receipt, or null for a whole envelope.
    """
    return {
        "transaction": await _body_view(source, found, suite),
        **await receipts_view(source, found),
    }


async def receipts_view(source: MethodSource, found: FoundTransaction) -> Json:
    """Where a transaction stands and what became of it."""
    module, asked = found.transaction.body.module, _asked(found)

    def view(index: int) -> Json:
        operation = found.transaction.operations[index]
        return receipt_view(source, module, operation, found.receipts[index])

    return {
        "block_height": found.block_height,
        "block_time": found.block_time,
        "index": found.index,
        "operation": found.operation,
        "receipt": view(asked[0]) if len(asked) == 1 else None,
        "receipts": await list_view(map(view, asked)),
    }


def receipt_view(source: MethodSource, module: str, call: Call, receipt: Receipt) -> Json:
    """One operation's outcome; `outputs` is its decoded return value."""
    outputs: object = None
    method = source.method(module, call.contract, call.method)
    if method is not None and receipt.status == Status.OK:
        outputs = _decoded(result_schema(method.result), receipt.output)
    return {
        "id": receipt.id.hex(),
        "status": Status(receipt.status).name,
        "error": receipt.error,
        "gas_used": receipt.gas_used,
        "outputs": outputs,
        "output": receipt.output.hex(),
        "events": [event_view(event) for event in receipt.events],
    }


async def block_view(block: FoundBlock) -> Json:
    """A block with the ids of its transactions in order."""
    ids = (item.id.hex() for batch in block.batches for item in batch.transactions)
    return {
        "height": block.header.height,
        "hash": block.block_hash.hex(),
        "previous_hash": block.header.previous_hash.hex(),
        "time": block.header.time,
        "proposer": block.header.proposer,
        "batches": [batch.digest.hex() for batch in block.batches],
        "transactions": await list_view(ids, STEP_IDS),
    }


async def summaries_view(block: FoundBlock) -> msgspec.Raw:
    """One line for each transaction of a block, with what is public about it."""
    return await list_view(
        {
            "id": item.id.hex(),
            "account": item.body.account.hex(),
            "module": item.body.module,
            "level": item.body.level,
            "bytes": len(item.wire),
            "operations": len(item.operations),
            "contract": item.operations[0].contract,
            "method": item.operations[0].method,
        }
        for batch in block.batches
        for item in batch.transactions
    )


def header_view(block: FoundBlock) -> Json:
    """A header by field and as bytes, with the certificate that decided it."""
    return {
        "height": block.header.height,
        "hash": block.block_hash.hex(),
        "header": to_json(block.header),
        "header_bytes": block.header_bytes.hex(),
        "certificate": block.certificate.hex(),
    }


@lru_cache(maxsize=256)
def result_schema(result: type[Record]) -> Schema[Record]:
    """The decoder of a method's return value; there are as many as methods."""
    return Schema(result, max_bytes=limits.RETURN_BYTES)


def _asked(found: FoundTransaction) -> range:
    if found.operation is None:
        return range(len(found.receipts))
    return range(found.operation, found.operation + 1)


async def _body_view(source: MethodSource, found: FoundTransaction, suite: CryptoSuite) -> Json:
    transaction = found.transaction
    body = transaction.body
    return {
        "id": transaction.id.hex(),
        "version": body.version,
        "genesis_hash": body.genesis_hash.hex(),
        "group": body.group,
        "module": body.module,
        "level": body.level,
        "account": body.account.hex(),
        "signer": None if body.signer is None else body.signer.hex(),
        "signed_by": _signed_by(transaction, suite),
        "nonce": body.nonce.hex(),
        "valid_until": body.valid_until,
        "client_time": body.client_time,
        "after": None if body.after is None else body.after.hex(),
        "envelope": transaction.is_envelope,
        "atomic": transaction.is_atomic,
        "bytes": len(transaction.wire),
        "operation_count": len(transaction.operations),
        "operations": await list_view(
            _call_view(source, body.module, transaction.operations[index], found, index)
            for index in _asked(found)
        ),
    }


def _signed_by(transaction: Transaction, suite: CryptoSuite) -> str:
    kind = AddressKind(parse_script(transaction.script).kind)
    return encode_text(kind, address_of(transaction.script, suite))


def _call_view(
    source: MethodSource, module: str, call: Call, found: FoundTransaction, index: int
) -> Json:
    method = source.method(module, call.contract, call.method)
    arguments = None if method is None else _decoded(method.schema, call.arguments)
    return {
        "id": found.operation_ids[index].hex(),
        "contract": call.contract,
        "method": call.method,
        "arguments": arguments,
        "arguments_bytes": call.arguments.hex(),
    }


def _decoded(schema: Schema[Any], data: bytes) -> object:
    """The value by member names; None where the schema refuses, which the receipt then says."""
    try:
        return to_json(schema.decode(data))
    except Rejected:
        return None


def event_view(event: Event) -> Json:
    """An event's values by position: its names stand in the contract's source.

    They are null where the data are no record: a receipt may be certified and hold such data.
    """
    return {
        "contract": event.contract,
        "name": event.name,
        "values": to_json(_values(event.data)),
        "data": event.data.hex(),
    }


def _values(data: bytes) -> object:
    try:
        found = cast("object", msgspec.msgpack.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if type(found) is not list:
        return None
    values = cast("list[object]", found)
    return values if _is_plain(values, VALUE_DEPTH) else None


def _is_plain(value: object, depth: int) -> bool:
    """Whether records are made of such values."""
    if isinstance(value, list):
        items = cast("list[object]", value)
        return depth > 0 and all(_is_plain(item, depth - 1) for item in items)
    return value is None or isinstance(value, bytes | str | int)
