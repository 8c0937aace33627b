"""The data index: one record format by which every module registers health data (K2.2.2).

On chain stand only commitments; the record, its parts and the secret behind them stay with the
holder. Creating an index writes nothing but the module's log. Update, delete and supersede write
the map key `superseded/<index id>`: its absence beside the creation proves "still current".
An object belongs to the organisation that registers it: entries are found by (organisation,
object), so another organisation can neither append to its history nor supersede it.
Source: requirements section 2; architecture section 3.
"""

from enum import IntEnum, unique
from typing import Annotated

from msgspec import Meta

from contracts.interface import Context, Contract, method
from ledger import limits
from ledger.codec import Record, Schema
from ledger.data_index import Registration, Supersession
from ledger.ids import Bytes32, Count, Name

_TAG = b"kl.index-content\0"


@unique
class Action(IntEnum):
    """What an entry says about its object."""

    CREATE = 0
    UPDATE = 1
    DELETE = 2
    SUPERSEDE = 3


class IndexEntry(Record, frozen=True):
    """One log entry; `content` commits to the arguments of the operation `index`."""

    index: Bytes32
    action: Annotated[int, Meta(ge=0, le=int(max(Action)))]
    organisation: Name
    object: Bytes32
    content: Bytes32


class Superseded(Record, frozen=True):
    """By which index (the operation's id) and how an index was superseded."""

    by: Bytes32
    action: Annotated[int, Meta(ge=1, le=int(max(Action)))]
    height: Count


class Registered(Record, frozen=True):
    """Where the index stands in the module's log."""

    sequence: Count


class RegisteredEvent(Record, frozen=True):
    """Event `registered`: who follows an object learns of its new index."""

    object: Bytes32


class SequenceQuery(Record, frozen=True):
    """Ask for one entry by position."""

    sequence: Count


class IndexQuery(Record, frozen=True):
    """Ask whether an index is still current."""

    index: Bytes32


class HistoryQuery(Record, frozen=True):
    """Ask for the entries of one object, oldest first, after a position (-1: from the start)."""

    organisation: Name
    object: Bytes32
    after: Annotated[int, Meta(ge=-1, le=2**63 - 1)]
    limit: Annotated[int, Meta(ge=1, le=limits.HISTORY_PAGE)]


class HistoryItem(Record, frozen=True):
    """One entry and what superseded it, if anything."""

    sequence: Count
    entry: IndexEntry
    superseded: Superseded | None


class History(Record, frozen=True):
    """A page of an object's history; `complete` tells whether it reaches the end."""

    items: tuple[HistoryItem, ...]
    complete: bool


class Current(Record, frozen=True):
    """Whether an index is current; what superseded it otherwise."""

    superseded: Superseded | None


_ENTRY = Schema(IndexEntry, max_bytes=limits.LOG_ENTRY_BYTES)
_SUPERSEDED = Schema(Superseded, max_bytes=limits.MAP_VALUE_BYTES)


def _register(context: Context, arguments: Registration) -> Registered:
    return _append(context, Action.CREATE, arguments)


def _append(context: Context, action: Action, registration: Registration) -> Registered:
    if registration.root.level != context.level:
        context.refuse("LEVEL_MISMATCH")
    organisation = context.organisation
    entry = IndexEntry(
        index=context.operation_id,
        action=action,
        organisation=organisation,
        object=registration.object,
        content=context.suite.digest(_TAG + context.arguments),
    )
    key = organisation.encode() + b"\0" + registration.object
    sequence = context.log("index", _ENTRY).append(key, entry)
    context.emit("registered", RegisteredEvent(registration.object))
    return Registered(sequence)


def _supersede(context: Context, arguments: Supersession) -> Registered:
    entry = context.log("index", _ENTRY).get(arguments.sequence)
    if entry is None or entry.index != arguments.index:
        context.refuse("INDEX_NOT_FOUND")
    context.require(entry.organisation == context.organisation, "OTHER_ORGANISATION")
    superseded = context.map("superseded", _SUPERSEDED)
    context.require(superseded.get(arguments.index) is None, "ALREADY_SUPERSEDED")
    action = Action(arguments.kind)
    record = Superseded(context.operation_id, action, context.block.height)
    superseded.put(arguments.index, record)
    if arguments.registration is None:
        context.require(action == Action.DELETE, "REGISTRATION_MISSING")
        return Registered(arguments.sequence)
    context.require(action != Action.DELETE, "REGISTRATION_WITH_DELETE")
    context.require(arguments.registration.object == entry.object, "OTHER_OBJECT")
    return _append(context, action, arguments.registration)


def _item(context: Context, sequence: int, entry: IndexEntry) -> HistoryItem:
    superseded = context.map("superseded", _SUPERSEDED).get(entry.index)
    return HistoryItem(sequence, entry, superseded)


def _entry(context: Context, arguments: SequenceQuery) -> HistoryItem:
    entry = context.log("index", _ENTRY).get(arguments.sequence)
    if entry is None:
        context.refuse("INDEX_NOT_FOUND")
    return _item(context, arguments.sequence, entry)


def _history(context: Context, arguments: HistoryQuery) -> History:
    key = arguments.organisation.encode() + b"\0" + arguments.object
    found = context.log("index", _ENTRY).find(key, arguments.after, arguments.limit + 1)
    items = tuple(_item(context, position, entry) for position, entry in found[: arguments.limit])
    return History(items, complete=len(found) <= arguments.limit)


def _current(context: Context, arguments: IndexQuery) -> Current:
    return Current(context.map("superseded", _SUPERSEDED).get(arguments.index))


CONTRACT = Contract(
    name="data_index",
    methods={
        "register": method(
            "Register an index for a record", Registration, Registered, _register, writes=True
        ),
        "supersede": method(
            "Update, delete or supersede an index",
            Supersession,
            Registered,
            _supersede,
            writes=True,
        ),
        "entry": method("One entry by position", SequenceQuery, HistoryItem, _entry, writes=False),
        "history": method(
            "The entries of one object", HistoryQuery, History, _history, writes=False
        ),
        "current": method(
            "Whether an index is still current", IndexQuery, Current, _current, writes=False
        ),
    },
)
