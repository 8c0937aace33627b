"""The proof family: what checks a document of any kind, found by its format.

What it decides: whether a document is in its one form and proves something under a genesis, and
what. What it never does: I/O, or ask a clock: how old a header may be is an argument.
Source: docs/proofs.md; docs/decisions/0036-proof-family.md.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import msgspec

from ledger.codec import Document
from ledger.data_index import canonical_json, parse_canonical_json
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, chain_of
from ledger.proof import (
    ANCHORED_FORMAT,
    PROOF_BYTES,
    PROOF_FORMAT,
    AnchoredProof,
    RegistrationProof,
    Verdict,
    verify_registration,
)
from ledger.proofs.anchor import Certified, Trust
from ledger.proofs.completeness import (
    COMPLETENESS_FORMAT,
    CompletenessDocument,
    CompletenessFact,
    verify_completeness,
)
from ledger.proofs.history import (
    HEADER_FORMAT,
    HISTORY_FORMAT,
    HeaderDocument,
    HeaderFact,
    HistoryDocument,
    HistoryFact,
    verify_header,
    verify_history,
)
from ledger.proofs.log import LOG_FORMAT, LogDocument, LogFact, verify_log
from ledger.proofs.receipt import (
    EVENT_FORMAT,
    RECEIPT_FORMAT,
    TRANSACTION_FORMAT,
    EventDocument,
    EventFact,
    ReceiptDocument,
    ReceiptFact,
    TransactionDocument,
    TransactionFact,
    verify_event,
    verify_receipt,
    verify_transaction,
)
from ledger.proofs.state import STATE_FORMAT, StateDocument, ValueFact, verify_state

AnchoredFact = (
    ValueFact
    | LogFact
    | CompletenessFact
    | ReceiptFact
    | EventFact
    | TransactionFact
    | HeaderFact
    | HistoryFact
)
"""What a document proves under the one header of its anchor."""
Fact = Verdict | AnchoredFact
"""What a document proves."""

D = TypeVar("D", bound=Document)


class _Format(msgspec.Struct, frozen=True):
    """The member that tells the kind; the others are read once it is known."""

    format: str


@dataclass(frozen=True, slots=True)
class _Kind(Generic[D]):
    """What reads and what checks the documents of one format."""

    document: type[D]
    verify: Callable[[D, Trust], Fact]


def _registration(document: RegistrationProof | AnchoredProof, trust: Trust) -> Verdict:
    return verify_registration(document, trust.genesis)


_KINDS: dict[str, _Kind[Any]] = {
    PROOF_FORMAT: _Kind(RegistrationProof, _registration),
    ANCHORED_FORMAT: _Kind(AnchoredProof, _registration),
    STATE_FORMAT: _Kind(StateDocument, verify_state),
    LOG_FORMAT: _Kind(LogDocument, verify_log),
    COMPLETENESS_FORMAT: _Kind(CompletenessDocument, verify_completeness),
    RECEIPT_FORMAT: _Kind(ReceiptDocument, verify_receipt),
    EVENT_FORMAT: _Kind(EventDocument, verify_event),
    TRANSACTION_FORMAT: _Kind(TransactionDocument, verify_transaction),
    HEADER_FORMAT: _Kind(HeaderDocument, verify_header),
    HISTORY_FORMAT: _Kind(HistoryDocument, verify_history),
}
_VERIFIERS = {kind.document: kind.verify for kind in _KINDS.values()}
FORMATS = tuple(_KINDS)
"""All that `verify_document` knows."""


def document_json(document: Document) -> bytes:
    """The one form of a document, without a final newline."""
    return canonical_json(document)


def parse_document(data: bytes) -> Document:
    """The document of canonical JSON; one newline may follow it. Nothing is verified yet.

    Raises: Rejected(TOO_LARGE | BAD_PROOF).
    """
    kind = _kind_of(data).document
    return parse_canonical_json(data, kind, max_bytes=PROOF_BYTES, reason=Reason.BAD_PROOF)


def verify_document(data: bytes, genesis: Genesis, not_before_ms: int = 0) -> Fact:
    """What a document of any kind proves under a genesis, from nothing else.

    A header whose time is before `not_before_ms` is refused: what it holds may have changed since.
    Raises: Rejected with the reason of the first broken step; NOT_SUCCESSFUL for a registration
        that failed; STALE.  Cost: one V for each signature, hashes.
    """
    document = parse_document(data)
    fact = _VERIFIERS[type(document)](document, Trust(genesis, chain_of(genesis)))
    if (time_ms := certified_time(fact)) < not_before_ms:
        detail = "the certified header is older than allowed; fetch a newer proof"
        raise Rejected(Reason.STALE, detail, time_ms=time_ms, not_before_ms=not_before_ms)
    return fact


def certified_time(fact: Fact) -> int:
    """The time of the header that a fact rests on, ms; of a registration, that of its block."""
    return fact.time_ms if isinstance(fact, Verdict) else certified_of(fact).header.time


def certified_of(fact: AnchoredFact) -> Certified:
    """The certified header of a fact."""
    if isinstance(fact, EventFact | TransactionFact):
        return fact.receipt.certified
    return fact.certified


def _kind_of(data: bytes) -> _Kind[Any]:
    if len(data) > PROOF_BYTES:
        facts = {"payload_bytes": len(data), "limit_bytes": PROOF_BYTES}
        raise Rejected(Reason.TOO_LARGE, "a proof", **facts)
    try:
        found = msgspec.json.decode(data, type=_Format).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Rejected(Reason.BAD_PROOF, str(error)) from None
    kind = _KINDS.get(found)
    if kind is None:
        raise Rejected(Reason.BAD_PROOF, "an unknown format", format=found[:64])
    return kind
