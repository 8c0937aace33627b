"""The native system contract of evidence: validators that signed what contradicts itself.

It lives in namespace (system, 0). Whoever saw an equivocation reports both statements; nodes of
the allow-list may send exactly this method with their own key. Everybody checks both signatures
against the set of that height, so a report needs no trust; what follows is for people to vote.
Source: architecture sections 5 and 6; docs/decisions/0025-evidence.md.
"""

from typing import Annotated

from msgspec import Meta

from contracts.interface import Context, Contract, method
from ledger import limits
from ledger.codec import Record, Schema
from ledger.errors import Rejected
from ledger.evidence import Statement, convict
from ledger.ids import Bytes32, Count
from ledger.membership import validators_at

EVIDENCE_CONTRACT = "evidence"
REPORT = "report"
_OFFENCES = "offence"
_ORDER = "order"
_EVERYONE = b""


class Report(Record, frozen=True):
    """Two statements of one validator for one height, round and kind."""

    first: Statement
    second: Statement


class OffenceQuery(Record, frozen=True):
    """Name an offence: the validator's node address, height, round, kind (0 to 2)."""

    offender: Bytes32
    height: Count
    round: Count
    kind: Annotated[int, Meta(ge=0, le=2)]


class OffencesQuery(Record, frozen=True):
    """A page of offences, oldest first, from a position on."""

    start: Count
    limit: Annotated[int, Meta(ge=1, le=limits.HISTORY_PAGE)]


class Offence(Record, frozen=True):
    """What was reported, by which account, in which block."""

    offender: Bytes32
    first: Statement
    second: Statement
    reporter: Bytes32
    height: Count


class Offences(Record, frozen=True):
    """A page of offences, and the position of the next one; nil at the end."""

    offences: tuple[Offence, ...]
    next: Count | None


class Empty(Record, frozen=True):
    """Nothing to say."""


class Equivocation(Record, frozen=True):
    """Event `equivocation`."""

    offender: Bytes32
    height: Count
    round: Count
    kind: Count


_OFFENCE = Schema(Offence, max_bytes=limits.EVIDENCE_BYTES)
_QUERY = Schema(OffenceQuery, max_bytes=128)


def _key(query: OffenceQuery) -> bytes:
    place = query.height.to_bytes(8, "big") + query.round.to_bytes(8, "big")
    return query.offender + place + bytes([query.kind])


def _report(context: Context, arguments: Report) -> Empty:
    first = arguments.first
    height = context.block.height
    is_recent = height - limits.EVIDENCE_HEIGHTS <= first.height <= height
    context.require(is_recent, "OUT_OF_WINDOW")
    validators = validators_at(context.look_up, first.height)
    try:
        offender = convict(first, arguments.second, validators, context.chain)
    except Rejected:
        return context.refuse("NOT_EVIDENCE")
    query = OffenceQuery(offender, first.height, first.round, first.kind)
    offences = context.map(_OFFENCES, _OFFENCE)
    context.require(offences.get(_key(query)) is None, "ALREADY_REPORTED")
    offences.put(_key(query), Offence(offender, first, arguments.second, context.account, height))
    context.log(_ORDER, _QUERY).append(offender, query)
    context.emit("equivocation", Equivocation(offender, query.height, query.round, query.kind))
    return Empty()


def _get(context: Context, arguments: OffenceQuery) -> Offence:
    found = context.map(_OFFENCES, _OFFENCE).get(_key(arguments))
    return context.refuse("NOT_FOUND") if found is None else found


def _list(context: Context, arguments: OffencesQuery) -> Offences:
    order = context.log(_ORDER, _QUERY)
    stop = min(arguments.start + arguments.limit, order.count())
    entries = [order.get(position) for position in range(arguments.start, stop)]
    found = tuple(_get(context, entry) for entry in entries if entry is not None)
    return Offences(found, stop if stop < order.count() else None)


CONTRACT = Contract(
    name=EVIDENCE_CONTRACT,
    methods={
        REPORT: method(
            "Two signed statements that convict a validator", Report, Empty, _report, writes=True
        ),
        "get": method("One offence", OffenceQuery, Offence, _get, writes=False),
        "list": method("A page of offences", OffencesQuery, Offences, _list, writes=False),
    },
)
