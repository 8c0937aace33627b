"""Records as JSON: byte strings as lower-case hex, records as objects with named members.

What applications read and write. Signed bytes are never made from JSON directly: a JSON value is
first turned into the typed record, whose canonical encoding then counts.
"""

from typing import Any, TypeVar, cast

import msgspec

from ledger.codec import Record
from ledger.errors import Reason, Rejected

R = TypeVar("R", bound=Record)


def to_json(value: object) -> object:
    """The JSON form of a record, list, byte string, string, integer, bool or None."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, msgspec.Struct):
        return {name: to_json(getattr(value, name)) for name in value.__struct_fields__}
    if isinstance(value, tuple | list):
        return [to_json(item) for item in cast("list[object]", value)]
    return value


def from_json(kind: type[R], value: object) -> R:
    """The record of a JSON object with named members, or of a list in field order.

    Raises: Rejected(MALFORMED) naming the member that does not fit.
    """
    try:
        plain = _positional(msgspec.inspect.type_info(kind), value)
        return msgspec.convert(plain, kind, builtin_types=(bytes,))
    except (msgspec.ValidationError, ValueError) as error:
        raise Rejected(Reason.MALFORMED, f"{kind.__name__}: {error}") from None


def _positional(info: Any, value: object) -> object:
    """The positional form that the record's schema checks, with hex turned into bytes."""
    inspect = msgspec.inspect
    match info:
        case inspect.StructType():
            names = [member.name for member in info.fields]
            if isinstance(value, dict):
                members = cast("dict[str, object]", value)
                unknown = sorted(set(members) ^ set(names))
                if unknown:
                    raise ValueError(f"missing or unknown member {unknown[0][:64]!r}")
                value = [members[name] for name in names]
            if not isinstance(value, list):
                return value
            items = cast("list[object]", value)
            return [
                _positional(member.type, item)
                for member, item in zip(info.fields, items, strict=True)
            ]
        case inspect.UnionType():
            options = [option for option in info.types if not isinstance(option, inspect.NoneType)]
            return None if value is None else _positional(options[0], value)
        case inspect.VarTupleType() | inspect.ListType() if isinstance(value, list):
            return [_positional(info.item_type, item) for item in cast("list[object]", value)]
        case inspect.BytesType() if isinstance(value, str):
            return bytes.fromhex(value)
        case _:
            return value
