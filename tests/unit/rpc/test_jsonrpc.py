"""JSON-RPC 2.0: the examples of the specification, and what strict means."""

import base64
import json
from contextlib import asynccontextmanager, nullcontext

import msgspec
import pytest
import structlog
import trio
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import InvariantError, Reason, Rejected, UnavailableError
from rpc import limits
from rpc.jsonrpc import Code, Context, Method, Registry, RpcError, answer, strict_json


class Subtraction(msgspec.Struct, forbid_unknown_fields=True):
    minuend: int
    subtrahend: int


class Anything(msgspec.Struct, forbid_unknown_fields=True):
    value: object = None


class Transactions(msgspec.Struct, forbid_unknown_fields=True):
    transactions: list[bytes]


class Numbers(msgspec.Struct, forbid_unknown_fields=True):
    first: int
    second: int = 2
    third: int = 3


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    pass


async def subtract(params, _context):
    return params.minuend - params.subtrahend


async def echo(params, _context):
    await trio.lowlevel.checkpoint()
    return params.value


async def sizes(params, _context):
    return [len(transaction) for transaction in params.transactions]


async def add(params, _context):
    return params.first + params.second + params.third


async def get_data(_params, _context):
    return ["hello", 5]


def raising(error):
    async def handler(_params, _context):
        raise error

    return handler


async def make_large(params, _context):
    return "x" * params.value


METHODS = (
    Method("subtract", Subtraction, subtract, "minuend less subtrahend"),
    Method("echo", Anything, echo, "what it is given"),
    Method("send_transactions", Transactions, sizes, "lengths"),
    Method("sum", Numbers, add, "sum"),
    Method("get_data", NoParams, get_data, "data"),
    Method("make_large", Anything, make_large, "many letters"),
)


def ask(body, *more, context=None):
    """The answer as text; bodies are text or bytes, answers must be JSON."""
    data = body.encode() if isinstance(body, str) else body

    async def main():
        return await answer(data, Registry([*METHODS, *more]), context or Context(nullcontext))

    reply = trio.run(main)
    if reply is None:
        return None
    json.loads(reply)
    return reply.decode()


def ask_json(body, *more):
    return json.loads(ask(body, *more))


def fault(body, *more):
    """(code, kind, id) of an answer that is one error."""
    reply = ask_json(body, *more)
    assert set(reply) == {"jsonrpc", "error", "id"}
    return reply["error"]["code"], reply["error"]["data"]["kind"], reply["id"]


def call(params, method="echo", id_text="1"):
    return f'{{"jsonrpc":"2.0","method":"{method}","params":{params},"id":{id_text}}}'


# ---- the examples of the specification, section 7 ----------------------------------------------


def test_positional_parameters_are_bound_in_the_order_of_the_fields():
    assert ask(call("[42, 23]", "subtract")) == '{"jsonrpc":"2.0","result":19,"id":1}'
    assert ask(call("[23, 42]", "subtract", "2")) == '{"jsonrpc":"2.0","result":-19,"id":2}'


def test_named_parameters_are_bound_in_any_order():
    params = '{"subtrahend": 23, "minuend": 42}'
    assert ask(call(params, "subtract", "3")) == '{"jsonrpc":"2.0","result":19,"id":3}'


def test_a_notification_is_executed_and_not_answered():
    seen = []

    async def update(params, _context):
        seen.append(params.value)

    method = Method("update", Anything, update, "")
    assert ask('{"jsonrpc": "2.0", "method": "update", "params": [5]}', method) is None
    assert seen == [5]


def test_a_notification_of_an_unknown_method_is_not_answered():
    assert ask('{"jsonrpc": "2.0", "method": "foobar"}') is None


def test_an_unknown_method_is_named_and_near_names_are_offered():
    reply = ask_json('{"jsonrpc": "2.0", "method": "substract", "id": "1"}')
    assert reply == {
        "jsonrpc": "2.0",
        "error": {
            "code": -32601,
            "message": "no method substract; did you mean subtract?",
            "data": {
                "kind": "method_not_found",
                "method": "substract",
                "did_you_mean": ["subtract"],
            },
        },
        "id": "1",
    }


def test_broken_json_is_a_parse_error():
    broken = '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]'
    assert fault(broken) == (-32700, "parse_error", None)


def test_broken_json_in_a_batch_is_one_parse_error():
    broken = '[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},{"jsonrpc": "2.0"'
    assert fault(broken) == (-32700, "parse_error", None)


def test_a_method_that_is_no_string_is_an_invalid_request():
    body = '{"jsonrpc": "2.0", "method": 1, "params": "bar"}'
    assert fault(body) == (-32600, "invalid_request", None)


def test_an_empty_batch_is_an_invalid_request():
    assert fault("[]") == (-32600, "invalid_request", None)


@pytest.mark.parametrize("count", [1, 3])
def test_an_invalid_batch_is_answered_for_each_member(count):
    replies = ask_json(json.dumps(list(range(count))))
    assert [(reply["error"]["code"], reply["id"]) for reply in replies] == [(-32600, None)] * count


def test_a_mixed_batch_is_answered_in_order_without_its_notifications():
    body = """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "echo", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]"""
    replies = ask_json(body)
    assert replies[0] == {"jsonrpc": "2.0", "result": 7, "id": "1"}
    assert replies[1] == {"jsonrpc": "2.0", "result": 19, "id": "2"}
    assert (replies[2]["error"]["code"], replies[2]["id"]) == (-32600, None)
    assert (replies[3]["error"]["code"], replies[3]["id"]) == (-32601, "5")
    assert replies[4] == {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    assert len(replies) == 5


def test_a_batch_of_notifications_has_no_answer():
    one = '{"jsonrpc": "2.0", "method": "echo", "params": [1]}'
    assert ask(f"[{one},{one}]") is None


# ---- ids ---------------------------------------------------------------------------------------

IDS = (
    "1",
    "-7",
    "9007199254740991",
    "9007199254740992",
    "12345678901234567890123",
    "1.50",
    "-0",
    "1E+2",
    "null",
    '"é"',
    '"\\u00e9"',
    '"a\\/b"',
    '"\\ud83d\\ude00"',
    '""',
    "0",
)


@pytest.mark.parametrize("id_text", IDS)
def test_an_id_comes_back_byte_for_byte(id_text):
    assert ask(call("[]", id_text=id_text)) == f'{{"jsonrpc":"2.0","result":null,"id":{id_text}}}'


def test_ids_in_a_batch_come_back_byte_for_byte():
    body = "[" + ",".join(call("[]", id_text=id_text) for id_text in IDS) + "]"
    replies = ",".join(f'{{"jsonrpc":"2.0","result":null,"id":{id_text}}}' for id_text in IDS)
    assert ask(body) == f"[{replies}]"


@pytest.mark.parametrize("id_text", ["true", "[]", "{}", '{"id":1}', '"' + "x" * 255 + '"'])
def test_other_ids_are_refused_with_a_null_id(id_text):
    assert fault(call("[]", id_text=id_text)) == (-32600, "invalid_request", None)


def test_an_id_of_an_invalid_request_is_kept():
    assert fault('{"jsonrpc":"1.0","method":"echo","id":7}') == (-32600, "invalid_request", 7)


def test_an_id_behind_an_escaped_key_is_the_id():
    assert fault('{"jsonrpc":"1.0","method":"echo","\\u0069d":7}') == (-32600, "invalid_request", 7)


# ---- requests ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","method":"echo","id":1,"extra":0}',
        '{"jsonrpc":2.0,"method":"echo","id":1}',
        '{"method":"echo","id":1}',
        '{"jsonrpc":"2.0","id":1}',
        '{"jsonrpc":"2.0","method":null,"id":1}',
        '{"jsonrpc":"2.0","method":"echo","params":null,"id":1}',
        '{"jsonrpc":"2.0","method":"echo","params":"x","id":1}',
    ],
)
def test_what_is_no_request_is_refused(body):
    assert fault(body) == (-32600, "invalid_request", 1)


@pytest.mark.parametrize("body", ["1", '"x"', "null", "true"])
def test_a_body_that_is_neither_object_nor_array_is_refused(body):
    assert fault(body) == (-32600, "invalid_request", None)


def test_a_batch_holds_a_hundred_requests():
    member = call("[1]")
    assert len(ask_json("[" + ",".join([member] * 100) + "]")) == 100
    assert fault("[" + ",".join([member] * 101) + "]") == (-32600, "batch_too_large", None)


# ---- parameters --------------------------------------------------------------------------------


def detail(body):
    error = ask_json(body)["error"]
    assert (error["code"], error["data"]["kind"]) == (-32602, "invalid_params")
    return error["data"]["detail"], error["data"]["parameters"]


FIELDS = ["first", "second", "third"]


def test_a_missing_parameter_is_named():
    expected = "Object missing required field `first`", FIELDS
    assert detail(call("[]", "sum")) == expected
    assert detail(call('{"second":1}', "sum")) == expected


def test_optional_parameters_may_be_left_out_in_both_styles():
    assert ask_json(call("[1]", "sum"))["result"] == 6
    assert ask_json(call("[1,1]", "sum"))["result"] == 5
    assert ask_json(call('{"first":1,"third":0}', "sum"))["result"] == 3


def test_an_extra_parameter_is_refused():
    assert detail(call("[1,2,3,4]", "sum")) == ("4 parameters, at most 3", FIELDS)
    expected = "Object contains unknown field `fourth`", FIELDS
    assert detail(call('{"first":1,"fourth":1}', "sum")) == expected


@pytest.mark.parametrize("params", ['["1"]', '{"first":"1"}'])
def test_a_parameter_of_another_type_is_named(params):
    assert detail(call(params, "sum")) == ("Expected `int`, got `str` - at `$.first`", FIELDS)


def test_a_method_without_parameters_takes_none_in_three_ways():
    for body in (
        call("[]", "get_data"),
        call("{}", "get_data"),
        '{"jsonrpc":"2.0","method":"get_data","id":1}',
    ):
        assert ask_json(body)["result"] == ["hello", 5]
    assert detail(call("[1]", "get_data")) == ("1 parameters, at most 0", [])


def test_bytes_travel_as_base64():
    texts = [base64.b64encode(bytes(size)).decode() for size in (0, 1, 1024)]
    assert ask_json(call(json.dumps([texts]), "send_transactions"))["result"] == [0, 1, 1024]
    bad = ask_json(call('[["QQ=="," "]]', "send_transactions"))["error"]["data"]["detail"]
    assert bad == "Invalid base64 encoded string - at `$.transactions[1]`"


def test_an_error_does_not_repeat_what_is_long():
    reply = ask(call(json.dumps({"x" * 100_000: 1}), "sum"))
    assert len(reply) < 500
    assert len(ask(call("[]", "x" * 100_000))) < 1000
    assert len(ask('{"' + "x" * 100_000 + '":1}')) < 500


# ---- strict JSON -------------------------------------------------------------------------------


def nested(depth):
    return "[" * depth + "]" * depth


def test_a_body_may_nest_thirty_two_deep_and_no_deeper():
    within = nested(limits.JSON_DEPTH - 2)  # inside the request and its params
    assert json.dumps(ask_json(call(f"[{within}]"))["result"]).replace(" ", "") == within
    assert fault(call(f"[{nested(limits.JSON_DEPTH - 1)}]")) == (-32600, "too_deep", None)


@pytest.mark.parametrize(
    ("depth", "kind"),
    [
        (33, "too_deep"),
        (1_000, "too_deep"),
        (limits.JSON_VALUES - 1, "too_deep"),
        (100_000, "too_many_values"),
        (1_000_000, "too_large"),
    ],
)
def test_a_nesting_bomb_is_refused(depth, kind):
    assert fault(nested(depth)) == (-32600, kind, None)
    assert fault('{"a":' * depth + "1" + "}" * depth)[:1] == (-32600,)


def test_a_deep_value_cannot_hide_behind_a_repeated_key():
    body = call(f'{{"value":{nested(500)},"value":1}}')
    assert fault(body) == (-32600, "duplicate_key", None)


@pytest.mark.parametrize(
    "body",
    [
        '{"jsonrpc":"2.0","method":"echo","method":"sum","id":1}',
        '{"jsonrpc":"2.0","method":"echo","id":1,"id":2}',
        '{"jsonrpc":"2.0","method":"echo","id":1,"\\u0069d":1}',
        call('{"value":1,"value":1}'),
        call('[{"a":{"b":1,"b":1}}]'),
        call('[[{"a":1,"c":":","a":1}]]'),
        call('{"value":1,"value":{"x":1}}'),
        call('{"value":{"x":1},"value":1}'),
        "[" + call("[]") + "," + call('{"value":1,"value":1}') + "]",
    ],
)
def test_a_key_that_stands_twice_is_refused(body):
    assert fault(body) == (-32600, "duplicate_key", None)


def test_colons_in_strings_are_no_members():
    value = {"time": "12:00:00", "a:b": ["::", {"": ":"}], "\\": '"":'}
    assert ask_json(call(json.dumps([value])))["result"] == value


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_constants_that_json_does_not_have_are_refused(constant):
    assert fault(call(f"[{constant}]")) == (-32700, "not_a_number", None)


@pytest.mark.parametrize(
    "text",
    ['"\\ud800"', '"\\ud800x"', '"\\udc00\\ud800"', '"\\udc00 and more"', '"\\ud800\\u0041"'],
)
def test_lone_surrogates_are_refused(text):
    assert fault(call(f"[{text}]")) == (-32700, "lone_surrogate", None)
    assert fault(call(f"{{{text}:1}}")) == (-32700, "lone_surrogate", None)


@pytest.mark.parametrize(
    "raw", [b"\xff", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc3"]
)
def test_bytes_that_are_not_utf8_are_refused(raw):
    assert fault(call('["@"]').encode().replace(b"@", raw)) == (-32700, "invalid_utf8", None)
    assert fault(call('{"@":1}').encode().replace(b"@", raw)) == (-32700, "invalid_utf8", None)


@pytest.mark.parametrize("number", ["9" * 4_301, "-" + "9" * 100_000, "1e999", "9" * 5_000 + ".5"])
def test_a_number_beyond_any_use_is_refused(number):
    assert fault(call(f"[{number}]")) == (-32700, "number_out_of_range", None)
    assert fault(call("[]", id_text=number)) == (-32700, "number_out_of_range", None)


def test_a_big_integer_keeps_its_value():
    assert ask(call(f"[{10**30}]")) == f'{{"jsonrpc":"2.0","result":{10**30},"id":1}}'


@pytest.mark.parametrize(
    "body",
    [
        *("", " ", "\x00", "{", "]", "01", "1.", ".5", "-", "+1", "'a'", "tru", "{}{}", "[1,]"),
        *('{"a":1,}', "{1:2}", '"\t"', '"\\q"', '"\\u12"', "// x\n{}", "\ufeff{}"),
    ],
)
def test_what_is_not_json_is_a_parse_error(body):
    assert fault(body) == (-32700, "parse_error", None)
    assert fault("\ufeff" + call("[]")) == (-32700, "parse_error", None)


def test_utf16_is_not_utf8():
    assert fault(call("[]").encode("utf-16-le"))[0] == -32700


def test_a_body_over_the_limit_is_refused():
    body = call('["' + "x" * limits.BODY_BYTES + '"]')
    assert fault(body) == (-32600, "too_large", None)


@pytest.mark.parametrize("value", ["0", "[]", "{}", '""'])
def test_a_body_with_too_many_values_is_refused(value):
    body = call("[[" + ",".join([value] * (limits.JSON_VALUES + 1)) + "]]")
    assert fault(body) == (-32600, "too_many_values", None)


def test_a_text_too_short_to_be_counted_holds_no_more_values_than_allowed():
    text = b"[" + b",".join([b"0"] * (limits.JSON_VALUES - 1)) + b"]"
    assert len(text) <= 2 * limits.JSON_VALUES
    assert len(strict_json(text)) < limits.JSON_VALUES


# ---- answers of handlers -----------------------------------------------------------------------


def answer_of(error):
    return ask_json(call("[]", "fail"), Method("fail", NoParams, raising(error), ""))["error"]


def test_a_refusal_of_the_chain_carries_reason_detail_and_facts():
    error = Rejected(Reason.EXPIRED, "valid_until has passed", valid_until=5, now=6)
    assert answer_of(error) == {
        "code": Code.REJECTED,
        "message": "expired: valid_until has passed: valid_until=5, now=6",
        "data": {
            "kind": "expired",
            "detail": "valid_until has passed",
            "valid_until": 5,
            "now": 6,
        },
    }


def test_a_fact_cannot_change_the_kind():
    error = Rejected(Reason.EXPIRED, "late", kind="other")
    assert answer_of(error)["data"] == {"kind": "expired", "detail": "late"}


def test_an_unavailable_node_says_when_to_try_again():
    assert answer_of(UnavailableError("still syncing")) == {
        "code": Code.UNAVAILABLE,
        "message": "still syncing",
        "data": {"kind": "unavailable", "detail": "still syncing", "retry_after_ms": 1000},
    }


def test_a_method_may_answer_with_an_error_of_its_own():
    error = RpcError(-32040, "no such block", "not_found", {"height": 7})
    expected = {"kind": "not_found", "height": 7}
    assert answer_of(error) == {"code": -32040, "message": "no such block", "data": expected}


UNENCODABLE = RpcError(-32040, "bad", "bad", {"value": "\ud800"})


@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), RecursionError(), UNENCODABLE], ids=str
)
def test_a_mistake_in_a_handler_is_logged_and_not_shown(error):
    with structlog.testing.capture_logs() as logs:
        shown = answer_of(error)
    incident = shown["data"]["incident"]
    assert shown == {
        "code": -32603,
        "message": f"internal error; the operator finds it as incident {incident}",
        "data": {"kind": "internal", "incident": incident},
    }
    assert logs == [
        {
            "event": "rpc_handler_failed",
            "method": "fail",
            "incident": incident,
            "exc_info": True,
            "log_level": "error",
        }
    ]


def test_a_result_that_cannot_be_encoded_is_a_mistake_of_its_handler():
    async def give(_params, _context):
        return object()

    with structlog.testing.capture_logs() as logs:
        method = Method("give", NoParams, give, "")
        code, kind, _ = fault(call("[]", "give"), method)
    assert (code, kind, len(logs)) == (-32603, "internal", 1)


def test_a_mistake_of_one_request_leaves_the_rest_of_its_batch():
    body = f"[{call('[]', 'fail')},{call('[7]', id_text='2')}]"
    with structlog.testing.capture_logs():
        replies = ask_json(body, Method("fail", NoParams, raising(ValueError()), ""))
    assert [reply["id"] for reply in replies] == [1, 2]
    assert replies[1] == {"jsonrpc": "2.0", "result": 7, "id": 2}


def test_a_broken_promise_of_the_node_stops_it():
    with pytest.raises(InvariantError):
        answer_of(InvariantError("two blocks of one height"))


def test_a_notification_that_fails_is_silent():
    body = '{"jsonrpc":"2.0","method":"fail"}'
    error = Rejected(Reason.EXPIRED)
    assert ask(body, Method("fail", NoParams, raising(error), "")) is None


def test_the_answer_to_a_batch_has_a_limit():
    large = call(f"[{limits.RESPONSE_BYTES // 2}]", "make_large")
    replies = ask_json(f"[{large},{large},{call('[7]')}]")
    assert len(replies[0]["result"]) == limits.RESPONSE_BYTES // 2
    error = replies[1]["error"]
    assert (error["code"], error["data"]["kind"]) == (-32030, "response_too_large")
    assert error["data"]["limit_bytes"] == limits.RESPONSE_BYTES
    assert replies[2]["result"] == 7


def test_the_answer_to_one_request_has_the_same_limit():
    code, kind, _ = fault(call(f"[{limits.RESPONSE_BYTES - 1}]", "make_large"))
    assert (code, kind) == (-32030, "response_too_large")


def test_a_handler_can_give_its_place_away_while_it_waits():
    steps = []

    @asynccontextmanager
    async def waiting():
        steps.append("given")
        yield
        steps.append("taken")

    async def wait(_params, context):
        async with context.waiting():
            steps.append("waiting")

    method = Method("wait", NoParams, wait, "")
    assert ask(call("[]", "wait"), method, context=Context(waiting)) is not None
    assert steps == ["given", "waiting", "taken"]


def test_a_batch_of_handlers_that_never_wait_lets_others_run():
    async def main():
        turns = 0
        async with trio.open_nursery() as nursery:

            async def others():
                nonlocal turns
                while True:
                    turns += 1
                    await trio.lowlevel.checkpoint()

            nursery.start_soon(others)
            body = "[" + ",".join([call("[]", "get_data")] * 100) + "]"
            await answer(body.encode(), Registry(METHODS), Context(nullcontext))
            nursery.cancel_scope.cancel()
        return turns

    assert trio.run(main) >= 50


# ---- the registry ------------------------------------------------------------------------------


def test_a_registry_keeps_its_methods_in_order():
    assert Registry(METHODS).methods == METHODS


def test_two_methods_cannot_have_one_name():
    with pytest.raises(InvariantError, match="two RPC methods echo"):
        Registry([METHODS[1], METHODS[1]])


def test_parameters_that_ignore_unknown_members_are_refused_at_start():
    class Lenient(msgspec.Struct):
        value: int

    with pytest.raises(InvariantError, match="parameters of lax"):
        Registry([Method("lax", Lenient, echo, "")])


# ---- properties --------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON, st.booleans())
def test_every_value_that_python_writes_is_read_back(value, spaces):
    separators = (" , ", " : ") if spaces else (",", ":")
    text = json.dumps(value, separators=separators).encode()
    assert strict_json(text) == value


def pairs(value):
    """JSON text in which objects are lists of pairs, and whether a key stands twice in one."""
    if isinstance(value, tuple):
        members = [(json.dumps(key), *pairs(inner)) for key, inner in value]
        text = "{" + ",".join(f"{key}:{inner}" for key, inner, _ in members) + "}"
        twice = len({key for key, _ in value}) < len(value)
        return text, twice or any(bad for *_, bad in members)
    if isinstance(value, list):
        found = [pairs(inner) for inner in value]
        return "[" + ",".join(text for text, _ in found) + "]", any(bad for _, bad in found)
    return json.dumps(value), False


KEYS = st.sampled_from(["a", "b", ":", "", "\u00e9", '"', "\\", "a:b"])
PAIRS = st.recursive(
    st.integers() | KEYS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.lists(st.tuples(KEYS, inner), max_size=4).map(tuple)
    ),
    max_leaves=20,
)


@given(PAIRS)
def test_a_text_is_refused_exactly_if_a_key_stands_twice(value):
    text, twice = pairs(value)
    if twice:
        with pytest.raises(RpcError) as caught:
            strict_json(text.encode())
        assert caught.value.kind == "duplicate_key"
    else:
        assert strict_json(text.encode()) == json.loads(text)


REQUESTS = st.fixed_dictionaries(
    {},
    optional={
        "jsonrpc": st.sampled_from(["2.0", "1.0", 2]),
        "method": st.sampled_from(["subtract", "echo", "sum", "no", 1]),
        "params": JSON,
        "id": JSON,
    },
)


@given(st.lists(REQUESTS, max_size=5) | REQUESTS)
def test_any_requests_get_valid_answers_or_none(message):
    reply = ask(json.dumps(message))
    asked = message if isinstance(message, list) else [message]
    replies = [] if reply is None else json.loads(reply)
    replies = replies if isinstance(replies, list) else [replies]
    assert len(replies) <= max(len(asked), 1)
    for one in replies:
        assert set(one) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"})
        if "error" in one:
            assert isinstance(one["error"]["data"]["kind"], str)
