"""JSON-RPC 2.0, strictly: from the bytes of a body to the bytes of an answer.

What it decides: what a well-formed call is, which method answers it, and the shape of every error.
What it never does: touch a socket, or know any method of the chain.
Strict means I-JSON: UTF-8, unique keys, paired surrogates, no NaN; and bounded depth, size, count.
A body that breaks this is ambiguous or hostile, so nothing in it is executed.
Source: JSON-RPC 2.0 specification (2013-01-04); RFC 8259; RFC 7493; architecture section 9.
"""

import difflib
import json
import secrets
from collections.abc import Awaitable, Callable, Generator, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import IntEnum, unique
from typing import Any, Generic, NoReturn, TypeVar, cast

import msgspec
import structlog
import trio

from ledger.errors import InvariantError, KanglianError, Rejected, UnavailableError, invariant
from ledger.steps import finish
from node.steps import in_steps
from rpc.limits import (
    BATCH_REQUESTS,
    BODY_BYTES,
    ECHO_BYTES,
    ID_BYTES,
    JSON_DEPTH,
    JSON_VALUES,
    RESPONSE_BYTES,
    RETRY_AFTER_MS,
    SEND_BYTES,
    STEP_BYTES,
)

P = TypeVar("P", bound=msgspec.Struct)

_log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


@unique
class Code(IntEnum):
    """The error codes; a client that wants to know more switches on `data.kind`."""

    PARSE_ERROR = -32700
    INVALID_REQUEST = -32600
    METHOD_NOT_FOUND = -32601
    INVALID_PARAMS = -32602
    INTERNAL_ERROR = -32603
    REJECTED = -32010
    """A rule of the chain refuses the data; `kind` is a ledger.errors.Reason."""
    UNAVAILABLE = -32020
    """The node is not ready; the same request may succeed later."""
    RESPONSE_TOO_LARGE = -32030
    """The call was executed, but its result does not fit into the answer."""


class RpcError(KanglianError):
    """An answer that is an error. `kind` is stable and for programs, `message` is for people."""

    def __init__(
        self, code: int, message: str, kind: str, data: dict[str, object] | None = None
    ) -> None:
        self.code = code
        self.message = message
        self.kind = kind
        self.data = data or {}
        super().__init__(code, message, kind)


class BusyError(RpcError):
    """Too many requests run or wait: come back in `retry_after_ms`."""

    def __init__(self, message: str, retry_after_ms: int) -> None:
        self.retry_after_ms = retry_after_ms
        hint: dict[str, object] = {"retry_after_ms": retry_after_ms}
        super().__init__(Code.UNAVAILABLE, message, "busy", hint)


@dataclass(frozen=True, slots=True)
class Context:
    """What a handler knows of its request beside the parameters.

    A handler that waits for the chain gives its running place to others meanwhile:
    `async with context.waiting(): outcome = await commit`. When the block ends the place is taken
    again, so the rest of a batch cannot run beyond the limit.
    """

    waiting: Callable[[], AbstractAsyncContextManager[None]]
    client: str = ""
    """The network address that asks."""


@dataclass(frozen=True, slots=True)
class Method(Generic[P]):
    """One method: a strict struct of parameters and who answers.

    `bytes` parameters travel as base64. The handler returns what msgspec can encode as JSON;
    it raises RpcError, Rejected or UnavailableError, and bounds its own waiting.
    """

    name: str
    params: type[P]
    handler: Callable[[P, Context], Awaitable[object]]
    summary: str


class Registry:
    """The methods of one front door, by name, in the order in which they were given."""

    __slots__ = ("_fields", "_methods")

    def __init__(self, methods: Iterable[Method[Any]]) -> None:
        self._methods: dict[str, Method[Any]] = {}
        self._fields: dict[str, tuple[str, ...]] = {}
        for method in methods:
            invariant(method.name not in self._methods, f"two RPC methods {method.name}")
            strict = method.params.__struct_config__.forbid_unknown_fields
            invariant(strict, f"parameters of {method.name} would ignore unknown members")
            self._methods[method.name] = method
            fields = msgspec.structs.fields(method.params)
            self._fields[method.name] = tuple(field.encode_name for field in fields)

    @property
    def methods(self) -> tuple[Method[Any], ...]:
        """All methods, for `rpc.discover`."""
        return tuple(self._methods.values())

    def find(self, name: str) -> Method[Any]:
        """The method called `name`. Raises: RpcError(METHOD_NOT_FOUND) with near names."""
        method = self._methods.get(name)
        if method is not None:
            return method
        echo = name[:ECHO_BYTES]
        near = difflib.get_close_matches(echo, self._methods)
        message = f"no method {echo}" + (f"; did you mean {near[0]}?" if near else "")
        data: dict[str, object] = {"method": echo, "did_you_mean": near}
        raise RpcError(Code.METHOD_NOT_FOUND, message, "method_not_found", data)

    def bind(self, method: Method[Any], params: object) -> msgspec.Struct:
        """The typed parameters of a call by position (list) or by name (dict).

        Raises: RpcError(INVALID_PARAMS); its detail names the field.
        """
        fields = self._fields[method.name]
        if isinstance(params, list):
            values = cast("list[object]", params)
            if len(values) > len(fields):
                _invalid_params(f"{len(values)} parameters, at most {len(fields)}", fields)
            params = dict(zip(fields, values, strict=False))
        try:
            return msgspec.convert(params, method.params, str_keys=True)
        except msgspec.ValidationError as error:
            _invalid_params(str(error), fields)


async def answer(body: bytes, registry: Registry, context: Context) -> bytes | None:
    """The JSON text that answers `body`, or None if it holds only notifications.

    The requests of a batch run one after another in their order, each on its own success.
    Raises: InvariantError only, when a handler found the node itself broken.
    Cost: O(len(body)); 1 ms for each MiB of base64, before any handler.
    """
    try:
        is_short = len(body) <= STEP_BYTES
        message = strict_json(body) if is_short else await in_steps(json_steps(body))
        if isinstance(message, list):
            batch = _batch(cast("list[object]", message))
        else:
            reply = await _answer_one(message, body, registry, context, RESPONSE_BYTES)
            await _pause(reply or b"")
            return reply
    except RpcError as error:
        return _failure(_NULL, error)
    replies: list[bytes] = []
    room_bytes = RESPONSE_BYTES
    for member, text in zip(batch, _decode_texts(body), strict=True):
        # A hundred handlers that never wait must not keep consensus from the loop.
        await trio.lowlevel.checkpoint()
        reply = await _answer_one(member, text, registry, context, room_bytes)
        if reply is not None:
            replies.append(reply)
            room_bytes -= len(reply)
    if not replies:
        return None
    replies[0] = b"[" + replies[0]
    replies[-1] += b"]"
    data = b",".join(replies)
    await _pause(data)
    return data


# ---- strict JSON ------------------------------------------------------------------------------

_decode_tree = msgspec.json.Decoder().decode
_CONTAINERS = (dict, list)


def strict_json(text: bytes) -> object:
    """The value of a JSON text that can be read in one way only.

    Raises: RpcError(PARSE_ERROR) if it is no I-JSON, RpcError(INVALID_REQUEST) beyond a limit.
    """
    return finish(json_steps(text))


def json_steps(text: bytes) -> Generator[None, None, object]:
    """What `strict_json` gives, with a pause between any two looks at the whole text.

    Raises: as `strict_json`.
    """
    if len(text) > BODY_BYTES:
        _invalid_request("too_large", f"{len(text)} bytes, at most {BODY_BYTES}")
    # Every value but the first stands behind one of these bytes, and takes two bytes at least: a
    # short text cannot hold too many. Inside strings they count too: no real text has so many.
    if len(text) > 2 * JSON_VALUES and _holds_more(text, b",[{", JSON_VALUES):
        _invalid_request("too_many_values", f"more than {JSON_VALUES} values")
    fault = ""
    value: object = None
    try:
        value = _decode_tree(text)
    except RecursionError:
        _too_deep()
    except UnicodeDecodeError:
        _parse_error("invalid_utf8", "a string is not UTF-8")
    except msgspec.ValidationError as error:
        _parse_error("number_out_of_range", str(error))
    except msgspec.DecodeError as error:
        fault = str(error)
    yield
    if fault:
        _parse_error(_fault(text), fault)
    # Each member has a colon and decoding drops repeated members, so: members left <= colons
    # outside strings <= all colons. If all colons are no more than the members, nothing was
    # dropped. Only a text with a colon inside a string may have more.
    if _holds_more(text, b":", _member_count(value)):
        yield
        _refuse_duplicates(text)
    yield
    return value


def _holds_more(text: bytes, marks: bytes, most: int) -> bool:
    """Whether `marks` stand in `text` more than `most` times together.

    Written out: `find` leaps over long strings, which `count` reads byte by byte.
    """
    for mark in marks:
        position = text.find(mark)
        while position >= 0:
            most -= 1
            if most < 0:
                return True
            position = text.find(mark, position + 1)
    return False


def _fault(text: bytes) -> str:
    """The name of what is wrong with a text that is no JSON to msgspec.

    The json module also takes the constants NaN and Infinity, and lone surrogates.
    """
    try:
        json.loads(
            text.decode(), parse_constant=_not_a_number, parse_int=_unread, parse_float=_unread
        )
    except (ValueError, RecursionError):
        return "parse_error"
    return "lone_surrogate"


def _not_a_number(constant: str) -> NoReturn:
    _parse_error("not_a_number", f"{constant} is no JSON")


def _member_count(value: object) -> int:
    """How many members the objects in `value` have together; refuses what is too deep."""
    members = depth = 0
    level = [value] if type(value) in _CONTAINERS else []
    while level:
        depth += 1
        if depth > JSON_DEPTH:
            _too_deep()
        below: list[object] = []
        for container in level:
            if isinstance(container, dict):
                children = cast("dict[str, object]", container).values()
                members += len(children)
            else:
                children = cast("list[object]", container)
            below += [child for child in children if type(child) in _CONTAINERS]
        level = below
    return members


def _refuse_duplicates(text: bytes) -> None:
    """Refuse a text in which an object names a key twice: the slow and exact look."""
    try:
        json.loads(text, object_pairs_hook=_unique, parse_int=_unread, parse_float=_unread)
    except RecursionError:
        _too_deep()


def _unique(pairs: list[tuple[str, object]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            _invalid_request("duplicate_key", f"twice in one object: {key[:ECHO_BYTES]}")
        seen.add(key)


def _unread(_digits: str) -> None:
    """Spare the conversion of numbers that nobody will look at."""


# ---- one request ------------------------------------------------------------------------------


class _IdText(msgspec.Struct):
    id: msgspec.Raw


_NULL = b"null"
_PLAIN_ID = 2**53
_MEMBERS = ("jsonrpc", "method", "params", "id")
_decode_id = msgspec.json.Decoder(_IdText).decode
_decode_texts = msgspec.json.Decoder(list[msgspec.Raw]).decode
_encode = msgspec.json.Encoder().encode


async def _answer_one(
    message: object,
    text: bytes | msgspec.Raw,
    registry: Registry,
    context: Context,
    room_bytes: int,
) -> bytes | None:
    """The response object of one request, None for a notification."""
    id_text: bytes | None = _NULL
    try:
        request = _request(message)
        id_text = _id_text(request, text)
        name, params = _call(request)
    except RpcError as error:
        # Not being a request at all, it is no notification either: it is answered.
        return _failure(_NULL if id_text is None else id_text, error)
    outcome = await _outcome(name, params, registry, context, room_bytes)
    return None if id_text is None else _reply(outcome, id_text)


def _batch(messages: list[object]) -> list[object]:
    if not messages:
        _invalid_request("invalid_request", "an empty batch")
    if len(messages) > BATCH_REQUESTS:
        _invalid_request("batch_too_large", f"{len(messages)} requests, at most {BATCH_REQUESTS}")
    return messages


def _request(message: object) -> dict[str, object]:
    if not isinstance(message, dict):
        _invalid_request("invalid_request", "a request is an object")
    return cast("dict[str, object]", message)


def _id_text(request: dict[str, object], text: bytes | msgspec.Raw) -> bytes | None:
    """The id exactly as it was written, None if there is none."""
    if "id" not in request:
        return None
    value = request["id"]
    if isinstance(value, bool) or not isinstance(value, str | int | float | None):
        _invalid_request("invalid_request", "id is a string, a number or null")
    if type(value) is int and 0 < value < _PLAIN_ID:
        return b"%d" % value  # There is no other way to write it; zero has two.
    # Other numbers are not echoed through a Python value: 1.50 would come back as 1.5.
    id_text = bytes(_decode_id(text).id)
    if len(id_text) > ID_BYTES:
        _invalid_request("invalid_request", f"id has {len(id_text)} bytes, at most {ID_BYTES}")
    return id_text


def _call(request: dict[str, object]) -> tuple[str, object]:
    """Method name and parameters. Raises: RpcError(INVALID_REQUEST)."""
    for member in request:
        if member not in _MEMBERS:
            _invalid_request("invalid_request", f"unknown member {member[:ECHO_BYTES]}")
    if request.get("jsonrpc") != "2.0":
        _invalid_request("invalid_request", 'jsonrpc is the string "2.0"')
    name = request.get("method")
    if not isinstance(name, str):
        _invalid_request("invalid_request", "method is a string")
    params = request.get("params", {})
    if not isinstance(params, dict | list):
        _invalid_request("invalid_request", "params is an array or an object")
    return name, cast("object", params)


async def _outcome(
    name: str, params: object, registry: Registry, context: Context, room_bytes: int
) -> bytes:
    """The member `result` or `error` of a response. Raises: InvariantError, to stop the node."""
    try:
        try:
            result = await _execute(name, params, registry, context)
        except RpcError as error:
            return _error_member(error)
    except InvariantError:
        raise
    except Exception:  # noqa: BLE001 - one handler's mistake must not take the node from all others; it is kept, with its traceback, under the number that the client gets
        incident = secrets.token_hex(8)
        _log.exception("rpc_handler_failed", method=name[:ECHO_BYTES], incident=incident)
        message = f"internal error; the operator finds it as incident {incident}"
        data: dict[str, object] = {"incident": incident}
        return _error_member(RpcError(Code.INTERNAL_ERROR, message, "internal", data))
    if len(result) > room_bytes:
        return _error_member(_too_large(len(result)))
    return b'"result":' + result


async def _execute(name: str, params: object, registry: Registry, context: Context) -> bytes:
    """The result as JSON text; the known families of errors become RpcError."""
    method = registry.find(name)
    try:
        result = _encode(await method.handler(registry.bind(method, params), context))
    except Rejected as error:
        facts: dict[str, object] = {**error.facts, "detail": error.detail}
        raise RpcError(Code.REJECTED, str(error), error.reason, facts) from None
    except UnavailableError as error:
        hint: dict[str, object] = {"detail": str(error), "retry_after_ms": RETRY_AFTER_MS}
        raise RpcError(Code.UNAVAILABLE, str(error), "unavailable", hint) from None
    await _pause(result)
    return result


# ---- answers ----------------------------------------------------------------------------------


async def _pause(data: bytes) -> None:
    """A look at the event loop before large data is copied again."""
    if len(data) > SEND_BYTES:
        await trio.lowlevel.checkpoint()


def _reply(outcome: bytes, id_text: bytes) -> bytes:
    return b"".join((b'{"jsonrpc":"2.0",', outcome, b',"id":', id_text, b"}"))


def _failure(id_text: bytes, error: RpcError) -> bytes:
    return _reply(_error_member(error), id_text)


def _error_member(error: RpcError) -> bytes:
    body = {
        "code": int(error.code),
        "message": error.message,
        "data": {**error.data, "kind": error.kind},
    }
    return b'"error":' + _encode(body)


def _parse_error(kind: str, detail: str) -> NoReturn:
    raise RpcError(Code.PARSE_ERROR, "the body is not JSON", kind, {"detail": detail}) from None


def _invalid_request(kind: str, detail: str) -> NoReturn:
    message = "the body is not a JSON-RPC 2.0 request"
    raise RpcError(Code.INVALID_REQUEST, message, kind, {"detail": detail}) from None


def _too_deep() -> NoReturn:
    _invalid_request("too_deep", f"nested more than {JSON_DEPTH} deep")


def _invalid_params(detail: str, fields: tuple[str, ...]) -> NoReturn:
    data: dict[str, object] = {"detail": detail[:ECHO_BYTES], "parameters": fields}
    raise RpcError(Code.INVALID_PARAMS, "invalid parameters", "invalid_params", data) from None


def _too_large(result_bytes: int) -> RpcError:
    message = "the call was executed, but its result is too large; ask for less in one request"
    data: dict[str, object] = {"result_bytes": result_bytes, "limit_bytes": RESPONSE_BYTES}
    return RpcError(Code.RESPONSE_TOO_LARGE, message, "response_too_large", data)
