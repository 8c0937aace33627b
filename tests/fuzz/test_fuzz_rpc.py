"""The front door under random and mutated bytes: it answers in valid form and never falls."""

import json
import random
from contextlib import nullcontext
from http import HTTPStatus

import httptools
import msgspec
import pytest
import trio
import trio.testing
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rpc.http import HttpConfig, _Server, front_door
from rpc.http_messages import RequestReader, Response
from rpc.jsonrpc import Context, Method, Registry, answer

HEAD_BYTES = 1_000
BODY_BYTES = 2_000
FEED_BYTES = 500


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    number: int = 0
    transactions: list[bytes] = []
    names: dict[str, str] = {}


async def take(parameters, _context):
    return [parameters.number, len(parameters.transactions), parameters.names]


async def page(_request):
    return Response(HTTPStatus.OK, b"well", "text/plain")


REGISTRY = Registry([Method("take", Parameters, take, "")])

CALLS = (
    b'{"jsonrpc":"2.0","method":"take","params":[1,["QUJD"],{"a":"b"}],"id":1}',
    b'{"jsonrpc": "2.0", "method": "take", "params": {"number": 7}, "id": "\\u00e9\xc3\xa9"}',
    b'[{"jsonrpc":"2.0","method":"take"},{"jsonrpc":"2.0","method":"tale","id":1.50}]',
    b'{"jsonrpc":"2.0","method":"take","params":{"names":{"a:b":"\\ud83d\\ude00"}},"id":null}',
    b"[]",
)
TOKENS = (
    *(b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\u", b"\\ud800", b"\xff", b"\x00"),
    *(b"NaN", b"1e999", b"-", b"0", b"null", b'"id":1,', b'"id":', b"9" * 5_000, b"[" * 2_000),
)
POSTS = tuple(
    b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(body), body)
    for body in CALLS
)
STREAMS = (
    *POSTS,
    b"".join(POSTS),
    b"GET /healthz?x HTTP/1.1\r\nHost: x\r\n\r\n" + POSTS[0],
    b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"2\r\n[]\r\n0\r\nA: b\r\n\r\n" + POSTS[1],
    b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n[]",
    b"HEAD / HTTP/1.1\r\nConnection: close\r\n\r\n",
)
FRAGMENTS = (
    *(b"\r\n", b"\r\n\r\n", b"\n", b" ", b"\x00", b"\xff", b": ", b"HTTP/1.0", b"HTTP/2.0"),
    *(b"Content-Length: 9\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade\r\n"),
    *(b"Upgrade: h2c\r\n", b"CONNECT ", b"HEAD ", b"ffffffff\r\n", b"x" * 2_000, b"GET / "),
)
STATUSES = {100, 200, 204, 400, 404, 405, 408, 411, 413, 415, 431, 501, 505}


def mutated(generator, data, pieces):
    """`data` after one to six random edits."""
    edited = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        at = generator.randint(0, len(edited))
        match generator.randint(0, 3):
            case 0:
                edited[at : at + generator.randint(1, 8)] = b""
            case 1:
                edited[at:at] = generator.choice(pieces)
            case 2:
                start = generator.randint(0, len(edited))
                edited[at:at] = edited[start : start + generator.randint(1, 40)]
            case _:
                edited[at : at + 1] = generator.randbytes(1)
    return bytes(edited)


def check_answer(reply, body):
    """An answer is nothing, a response, or responses."""
    if reply is None:
        return
    found = json.loads(reply)
    for one in found if isinstance(found, list) else [found]:
        assert one["jsonrpc"] == "2.0"
        assert set(one) in ({"jsonrpc", "result", "id"}, {"jsonrpc", "error", "id"}), body
        if "error" in one:
            assert set(one["error"]) == {"code", "message", "data"}
            assert one["error"]["code"] in {-32700, -32600, -32601, -32602}, body


def answers(bodies):
    """Answer and check all bodies in one run of trio."""

    async def main():
        for body in bodies:
            check_answer(await answer(body, REGISTRY, Context(nullcontext)), body)

    trio.run(main)


@settings(max_examples=300)
@given(st.lists(st.binary(max_size=200), max_size=20))
def test_any_bytes_get_an_answer_in_valid_json(bodies):
    answers(bodies)


@settings(max_examples=300)
@given(st.lists(st.sampled_from([*TOKENS, *CALLS]), max_size=30))
@example([b'{"a":', b"[" * 2_000])
def test_any_tokens_get_an_answer_in_valid_json(tokens):
    answers([b"".join(tokens)])


@pytest.mark.parametrize("seed", range(8))
def test_mutated_calls_get_an_answer_in_valid_json(seed):
    generator = random.Random(seed)
    answers([mutated(generator, generator.choice(CALLS), TOKENS) for _ in range(1_000)])


class Responses:
    """What a client understands of what the server sent."""

    def __init__(self, data):
        self.statuses = []
        self.complete = 0
        self.parser = httptools.HttpResponseParser(self)
        self.parser.feed_data(data)

    def on_headers_complete(self):
        self.statuses.append(self.parser.get_status_code())

    def on_message_complete(self):
        self.complete += 1


def outcome(reader):
    """What was read; after a refusal the phase means nothing."""
    return list(reader.requests), reader.refused or reader.phase


def check_reader(stream, cuts):
    """The reader is total, bounded, and does not depend on the cuts."""
    whole = RequestReader(HEAD_BYTES, BODY_BYTES)
    for start in range(0, len(stream), FEED_BYTES):
        whole.feed(stream[start : start + FEED_BYTES])
    cut = RequestReader(HEAD_BYTES, BODY_BYTES)
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        cut.feed(stream[start:end])
        partial_bytes = cut.held_bytes - sum(len(request.body) for request in cut.requests)
        assert partial_bytes <= BODY_BYTES
    assert all(len(request.body) <= BODY_BYTES for request in cut.requests)
    assert outcome(cut) == outcome(whole) or _too_large(cut, whole)


def _too_large(*readers):
    """How far a head may run past its limit is decided in pieces as they come."""
    return any(reader.refused is not None and reader.refused.status == 431 for reader in readers)


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*FRAGMENTS, *STREAMS]) | st.binary(max_size=20), max_size=12),
    st.lists(st.integers(0, 3_000), max_size=8),
)
def test_the_reader_takes_any_bytes_in_any_pieces(parts, cuts):
    stream = b"".join(parts)
    check_reader(stream, sorted(min(cut, len(stream)) for cut in cuts))


@pytest.mark.parametrize("seed", range(4))
def test_the_reader_takes_mutated_streams_in_any_pieces(seed):
    generator = random.Random(seed)
    for _ in range(1_000):
        stream = mutated(generator, generator.choice(STREAMS), FRAGMENTS)
        check_reader(stream, sorted(generator.randint(0, len(stream)) for _ in range(5)))


async def conversation(server, stream):
    """What a client gets that sends `stream`, half closes, and reads to the end."""
    client, ours = trio.testing.memory_stream_pair()
    received = bytearray()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(server.serve, ours)
        await client.send_all(stream)
        await client.send_eof()
        async for data in client:
            received += data
    return bytes(received)


@pytest.mark.parametrize("seed", range(4))
def test_a_server_answers_mutated_streams_with_whole_responses(seed):
    generator = random.Random(seed)

    async def main():
        config = HttpConfig("", 0, head_bytes=HEAD_BYTES, body_bytes=BODY_BYTES)
        server = _Server(config, front_door(REGISTRY, {"/healthz": page}))
        for _ in range(300):
            stream = mutated(generator, generator.choice(STREAMS), FRAGMENTS)
            received = await conversation(server, stream)
            if b"HEAD" in stream:
                continue  # Its answer announces a body that does not come.
            responses = Responses(received)
            assert set(responses.statuses) <= STATUSES, stream
            assert responses.complete == len(responses.statuses), stream
        return server.held_bytes

    assert trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0)) == 0
