"""Proofs of what became of an operation: its receipt, one event of it, its transaction.

What it decides: whether a receipt stands under the receipts root of a certified header; header
h + 1 holds that of block h. The receipt may have any status: a failure is proved as well.
A transaction is known by the id of its operation, which is a hash over its signed body, so the
receipt that names the id tells what became of it.
What it never does: say that a block is the only one with a receipt for an id. One that says
`duplicate` or `expired` may stand beside an earlier one, which holds.
Source: docs/proofs.md sections 7 to 9; docs/format.md sections 4 and 7.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ledger import limits
from ledger.codec import Document
from ledger.errors import Reason, Rejected
from ledger.ids import Level, Name
from ledger.merkle import Digest
from ledger.proofs.anchor import Anchor, Certified, Trust, verify_anchor
from ledger.proofs.positions import (
    Namespace,
    Position,
    ReceiptPlace,
    ReceiptTrees,
    namespace_results_root,
    receipts_root_above,
)
from ledger.receipts import RECEIPT, Event, Receipt
from ledger.succession import Hex
from ledger.transaction import Transaction, operation_ids, parse_transaction, verify_signatures

RECEIPT_FORMAT = "kanglian-receipt/1"
EVENT_FORMAT = "kanglian-event/1"
TRANSACTION_FORMAT = "kanglian-transaction/1"


class ReceiptDocument(Document, frozen=True):
    """The document of a receipt; the anchor is at the height after its block."""

    anchor: Anchor
    format: Literal["kanglian-receipt/1"]
    level: Level
    module: Name
    receipt: Hex
    receipt_position: Position
    receipts_position: Position


class EventDocument(Document, frozen=True):
    """One event by its place in a receipt."""

    event: Annotated[int, Meta(ge=0, lt=limits.EVENTS_PER_OPERATION)]
    format: Literal["kanglian-event/1"]
    receipt: ReceiptDocument


class TransactionDocument(Document, frozen=True):
    """The whole wire of a transaction, and the receipt of one operation of it."""

    format: Literal["kanglian-transaction/1"]
    operation: Annotated[int, Meta(ge=0, lt=limits.ENVELOPE_OPERATIONS)]
    receipt: ReceiptDocument
    transaction: Hex


@dataclass(frozen=True, slots=True)
class ReceiptFact:
    """Block `height` holds this receipt, at `index` of `count` in its namespace.

    `results` is the sized root over all of them, which a proof of completeness shows as well.
    """

    certified: Certified
    height: int
    module: str
    level: int
    index: int
    count: int
    results: bytes
    receipt: Receipt


@dataclass(frozen=True, slots=True)
class EventFact:
    """An event, and the receipt that it stands in at `index`."""

    receipt: ReceiptFact
    index: int
    event: Event


@dataclass(frozen=True, slots=True)
class TransactionFact:
    """A signed transaction, and the receipt of its operation of this index."""

    receipt: ReceiptFact
    operation: int
    transaction: Transaction


def prove_receipt(
    digest: Digest, trees: ReceiptTrees, namespace: Namespace, index: int, anchor: Anchor
) -> ReceiptDocument:
    """The document of receipt `index` of a namespace of a block; `anchor` is at the next height."""
    place = trees.place(digest, namespace, index)
    module, level = namespace
    return ReceiptDocument(
        anchor=anchor,
        format=RECEIPT_FORMAT,
        level=level,
        module=module,
        receipt=place.receipt.hex(),
        receipt_position=place.in_namespace,
        receipts_position=place.in_block,
    )


def prove_event(receipt: ReceiptDocument, index: int) -> EventDocument:
    """The document of an event of a receipt.

    Raises: Rejected(BAD_PROOF) when the receipt has no such event.
    """
    _event(RECEIPT.decode(bytes.fromhex(receipt.receipt)), index)
    return EventDocument(index, EVENT_FORMAT, receipt)


def prove_transaction(receipt: ReceiptDocument, wire: bytes, operation: int) -> TransactionDocument:
    """The document of a transaction with the receipt of one of its operations."""
    return TransactionDocument(TRANSACTION_FORMAT, operation, receipt, wire.hex())


def verify_receipt(document: ReceiptDocument, trust: Trust) -> ReceiptFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, and a hash for each step.
    """
    certified = verify_anchor(document.anchor, trust)
    digest, namespace = trust.chain.suite.digest, (document.module, document.level)
    data = bytes.fromhex(document.receipt)
    place = ReceiptPlace(data, document.receipt_position, document.receipts_position)
    if receipts_root_above(digest, namespace, place) != certified.header.receipts_root:
        raise Rejected(Reason.BAD_PROOF, "the receipt is not under the header")
    return ReceiptFact(
        certified=certified,
        height=certified.header.height - 1,
        module=document.module,
        level=document.level,
        index=document.receipt_position.index,
        count=document.receipt_position.count,
        results=namespace_results_root(digest, place),
        receipt=RECEIPT.decode(data),
    )


def verify_event(document: EventDocument, trust: Trust) -> EventFact:
    """What a document proves.

    Raises: Rejected.
    """
    fact = verify_receipt(document.receipt, trust)
    return EventFact(fact, document.event, _event(fact.receipt, document.event))


def verify_transaction(document: TransactionDocument, trust: Trust) -> TransactionFact:
    """What a document proves.

    Raises: Rejected.  Cost: one V for each signature of the transaction more.
    """
    fact = verify_receipt(document.receipt, trust)
    transaction = parse_transaction(bytes.fromhex(document.transaction), trust.chain)
    verify_signatures(transaction, trust.chain)
    if (transaction.body.module, transaction.body.level) != (fact.module, fact.level):
        raise Rejected(Reason.BAD_PROOF, "the transaction is of another namespace")
    ids = operation_ids(transaction, trust.chain.suite)
    if document.operation >= len(ids) or ids[document.operation] != fact.receipt.id:
        raise Rejected(Reason.BAD_PROOF, "the receipt of another operation")
    return TransactionFact(fact, document.operation, transaction)


def _event(receipt: Receipt, index: int) -> Event:
    if not 0 <= index < len(receipt.events):
        count = len(receipt.events)
        raise Rejected(Reason.BAD_PROOF, "the receipt has no such event", event=index, count=count)
    return receipt.events[index]
