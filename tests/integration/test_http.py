"""The front door over loopback sockets: order, limits, deadlines, and a clean stop."""

import json
from contextlib import AsyncExitStack, asynccontextmanager
from http import HTTPStatus

import msgspec
import pytest
import trio
import trio.testing

from ledger.errors import UnavailableError
from rpc.http import HttpConfig, _client_of, front_door, serve_http
from rpc.http_messages import Response
from rpc.jsonrpc import Method, Registry
from rpc.limits import REFUSED_CONNECTIONS

HOST = "127.0.0.1"
SOON_MS = 50
NEVER_MS = 60_000


class Parameters(msgspec.Struct, forbid_unknown_fields=True):
    value: object = None


async def echo(parameters, _context):
    return parameters.value


async def letters(parameters, _context):
    return "x" * parameters.value


async def page(_request):
    return Response(HTTPStatus.OK, b"well", "text/plain")


REGISTRY = Registry(
    [Method("echo", Parameters, echo, ""), Method("letters", Parameters, letters, "")]
)


@asynccontextmanager
async def serving(app=None, **limits):
    """A server on a free port, stopped at the end."""
    app = app or front_door(REGISTRY, {"/healthz": page})
    async with trio.open_nursery() as nursery:
        config = HttpConfig(HOST, 0, **limits)
        yield await nursery.start(serve_http, config, app)
        nursery.cancel_scope.cancel()


def run(scenario, *args):
    """Run a scenario; a hang is a failure, not a wait."""

    async def main():
        with trio.fail_after(20):
            return await scenario(*args)

    return trio.run(main)


class Client:
    """A raw connection that reads one response after another."""

    def __init__(self, stream):
        self.stream = stream
        self.buffer = bytearray()

    async def send(self, data):
        await self.stream.send_all(data)

    async def until(self, mark):
        while mark not in self.buffer:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(bytes(self.buffer))
            self.buffer += data
        end = self.buffer.index(mark) + len(mark)
        return self.take(end)

    def take(self, count):
        taken = bytes(self.buffer[:count])
        del self.buffer[:count]
        return taken

    async def response(self):
        """(status, header fields, body)."""
        head = (await self.until(b"\r\n\r\n")).decode().split("\r\n")
        pairs = [line.split(": ", 1) for line in head[1:] if line]
        fields = {name.lower(): value for name, value in pairs}
        length = int(fields.get("content-length", "0"))
        while len(self.buffer) < length:
            data = await self.stream.receive_some()
            if not data:
                raise EOFError(bytes(self.buffer))
            self.buffer += data
        return int(head[0].split(" ")[1]), fields, self.take(length)

    async def result(self):
        status, _, body = await self.response()
        assert status == 200
        return json.loads(body)["result"]

    async def refusal(self):
        """(status, kind) of a last answer, after which the server closes."""
        status, fields, body = await self.response()
        assert fields["connection"] == "close"
        assert await self.rest() == b""
        return status, json.loads(body)["error"]["kind"]

    async def rest(self):
        """All that comes until the server closes."""
        async for data in self.stream:
            self.buffer += data
        return self.take(len(self.buffer))


@asynccontextmanager
async def dialled(port):
    async with await trio.open_tcp_stream(HOST, port) as stream:
        yield Client(stream)


def call(value, method="echo"):
    body = json.dumps({"jsonrpc": "2.0", "method": method, "params": [value], "id": 1}).encode()
    return post(body)


def post(body, *fields, length=None):
    head = ["POST / HTTP/1.1", "Host: x", "Content-Type: application/json", *fields]
    head.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def with_client(**limits):
    """Decorate a scenario of one client into a test."""

    def decorate(scenario):
        async def main():
            async with serving(**limits) as port, dialled(port) as client:
                await scenario(client)

        def test():
            run(main)

        test.__name__ = scenario.__name__
        return test

    return decorate


# ---- conversations -----------------------------------------------------------------------------


@with_client()
async def test_a_connection_serves_many_requests(client):
    for value in range(100):
        await client.send(call(value))
        assert await client.result() == value


@with_client()
async def test_pipelined_requests_are_answered_in_order(client):
    await client.send(b"".join(call(value) for value in range(1_000)))
    assert [await client.result() for _ in range(1_000)] == list(range(1_000))


@with_client()
async def test_pages_and_calls_share_a_connection(client):
    await client.send(b"GET /healthz HTTP/1.1\r\n\r\n" + call(7))
    assert await client.response() == (
        200,
        {"content-type": "text/plain", "content-length": "4"},
        b"well",
    )
    assert await client.result() == 7


@with_client()
async def test_a_request_may_come_byte_by_byte(client):
    for byte in call("é"):
        await client.send(bytes([byte]))
    assert await client.result() == "é"


@with_client()
async def test_a_body_may_come_in_chunks(client):
    body = b'{"jsonrpc":"2.0","method":"echo","params":["chunks"],"id":1}'
    head = "POST / HTTP/1.1\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    await client.send(head.encode())
    for start in range(0, len(body), 7):
        part = body[start : start + 7]
        await client.send(b"%x;note=1\r\n%s\r\n" % (len(part), part))
    await client.send(b"0\r\nTrailer: x\r\n\r\n" + call(2))
    assert await client.result() == "chunks"
    assert await client.result() == 2


@with_client()
async def test_a_large_request_gets_a_large_answer(client):
    value = "x" * 700_000
    await client.send(call(value))
    assert await client.result() == value


@with_client()
async def test_a_notification_is_answered_by_a_bare_204(client):
    await client.send(post(b'{"jsonrpc":"2.0","method":"echo"}') + call(1))
    assert await client.response() == (204, {}, b"")
    assert await client.result() == 1


@with_client()
async def test_a_client_that_asks_is_told_to_continue(client):
    request = call(5).replace(b"Host: x", b"Expect: 100-continue")
    head, body = request.split(b"\r\n\r\n")
    await client.send(call(4) + head + b"\r\n\r\n")
    assert await client.result() == 4
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(body[:5])
    await trio.testing.wait_all_tasks_blocked(0.01)
    await client.send(body[5:])
    assert await client.result() == 5


@with_client()
async def test_connection_close_is_honoured(client):
    await client.send(call(1).replace(b"Host: x", b"Connection: close"))
    status, fields, _ = await client.response()
    assert (status, fields["connection"]) == (200, "close")
    assert await client.rest() == b""


@with_client()
async def test_a_half_closed_client_gets_its_answers(client):
    await client.send(call(1) + call(2))
    await client.stream.send_eof()
    assert [await client.result(), await client.result()] == [1, 2]
    assert await client.rest() == b""


@with_client()
async def test_half_a_request_gets_no_answer(client):
    await client.send(call(1)[:-1])
    await client.stream.send_eof()
    assert await client.rest() == b""


@with_client()
async def test_an_answer_to_head_has_no_body(client):
    await client.send(b"HEAD /healthz HTTP/1.1\r\n\r\n")
    head = await client.until(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 405 ")
    assert await client.rest() == b""


@with_client()
async def test_a_wrong_path_method_or_type_leaves_the_connection_open(client):
    await client.send(b"GET /nowhere HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n")
    await client.send(call(1).replace(b"application/json", b"text/plain"))
    await client.send(call(2))
    responses = [await client.response() for _ in range(3)]
    kinds = [(status, json.loads(body)["error"]["kind"]) for status, _, body in responses]
    assert kinds == [
        (404, "not_found"),
        (405, "method_not_allowed"),
        (415, "unsupported_media_type"),
    ]
    assert responses[1][1]["allow"] == "POST"
    assert await client.result() == 2


# ---- refusals ----------------------------------------------------------------------------------


@with_client()
async def test_garbage_behind_a_request_ends_the_connection_after_the_answer(client):
    await client.send(call(1) + b"\x00" + call(2))
    assert await client.result() == 1
    assert await client.refusal() == (400, "bad_request")


@with_client()
async def test_a_body_announced_too_large_is_refused_at_once(client):
    await client.send(post(b"", length=5_000_000))
    assert await client.refusal() == (413, "body_too_large")


@with_client()
async def test_a_client_that_sends_on_can_read_why_it_was_refused(client):
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send, post(b"x" * 6_000_000))
        assert (await client.response())[0] == 413


@with_client()
async def test_a_head_that_is_too_large_is_refused(client):
    await client.send(b"GET / HTTP/1.1\r\nA: " + b"x" * 20_000)
    await client.send(b"\r\n\r\n")
    assert await client.refusal() == (431, "head_too_large")


def test_garbage_ends_only_its_own_connection():
    async def main():
        async with serving() as port, dialled(port) as good:
            for garbage in (b"\x16\x03\x01\x02\x00\x01", b"\xff" * 100_000, b"SSH-2.0-x\r\n"):
                async with dialled(port) as bad:
                    await bad.send(garbage)
                    assert await bad.refusal() == (400, "bad_request")
                await good.send(call(1))
                assert await good.result() == 1

    run(main)


def test_a_reset_ends_only_its_own_connection():
    async def main():
        async with serving() as port, dialled(port) as good:
            for sent in (b"", call(1)[:-1], call(8_000_000, "letters")):
                bad = await trio.open_tcp_stream(HOST, port)
                # On close the kernel sends a reset instead of an orderly end.
                bad.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, b"\1" + bytes(7))
                await bad.send_all(sent)
                await bad.aclose()
                await good.send(call(1))
                assert await good.result() == 1

    run(main)


# ---- deadlines ---------------------------------------------------------------------------------


@with_client(idle_timeout_ms=SOON_MS)
async def test_an_idle_connection_is_closed_without_a_word(client):
    assert await client.rest() == b""


@with_client(idle_timeout_ms=SOON_MS)
async def test_empty_lines_do_not_keep_an_idle_connection_open(client):
    with pytest.raises(trio.BrokenResourceError):
        while True:
            await client.send(b"\r\n")
            await trio.sleep(SOON_MS / 5_000)


@with_client(header_timeout_ms=SOON_MS, body_timeout_ms=NEVER_MS)
async def test_a_head_that_stops_is_refused(client):
    await client.send(call(1)[:20])
    assert await client.refusal() == (408, "timeout")


@with_client(body_timeout_ms=SOON_MS, header_timeout_ms=NEVER_MS)
async def test_a_body_that_stops_is_refused(client):
    await client.send(call(1)[:-1])
    assert await client.refusal() == (408, "timeout")


@pytest.mark.parametrize(
    ("start", "limits"),
    [
        (b"GET / HTTP/1.1\r\nA: ", {"header_timeout_ms": SOON_MS}),
        (post(b"", length=700_000), {"body_timeout_ms": SOON_MS}),
    ],
)
def test_a_trickle_does_not_extend_a_deadline(start, limits):
    async def trickle(client, task_status):
        with trio.CancelScope() as scope:
            task_status.started(scope)
            while True:
                await client.send(b"x")
                await trio.sleep(SOON_MS / 5_000)

    async def main():
        async with serving(**limits) as port, dialled(port) as client:
            await client.send(start)
            async with trio.open_nursery() as nursery:
                scope = await nursery.start(trickle, client)
                status, _, _ = await client.response()
                scope.cancel()
            assert status == 408

    run(main)


@with_client(send_timeout_ms=SOON_MS)
async def test_a_client_that_does_not_read_is_dropped(client):
    await client.send(call(4_000_000, "letters") * 8)
    await trio.sleep(10 * SOON_MS / 1_000)
    # What the kernel held is still there, the rest never comes.
    with pytest.raises((EOFError, trio.BrokenResourceError)):
        for _ in range(8):
            await client.response()


def test_the_time_of_an_answer_is_not_taken_from_the_next_request():
    async def slow(_request):
        await trio.sleep(0.5)
        return Response(HTTPStatus.OK, b"slow")

    async def main():
        limits = {"idle_timeout_ms": 400, "header_timeout_ms": 400, "send_timeout_ms": 400}
        async with serving(slow, **limits) as port, dialled(port) as client:
            end = b" HTTP/1.1\r\n\r\n"
            for part in (b"GET /1" + end, b"GET /2" + end + b"GET", b" /3" + end):
                await client.send(part)
                assert (await client.response())[0] == 200

    run(main)


# ---- how many, how much ------------------------------------------------------------------------


def test_a_connection_beyond_the_limit_is_told_why():
    async def main():
        async with serving(connections=2) as port, dialled(port) as first:
            async with dialled(port) as second:
                for client in (first, second):
                    await client.send(call(1))
                    assert await client.result() == 1
                async with dialled(port) as third:
                    await third.send(call(1))
                    assert await third.refusal() == (503, "too_many_connections")
                await second.stream.aclose()
                await trio.testing.wait_all_tasks_blocked(0.05)
            async with dialled(port) as fourth:
                await fourth.send(call(4))
                assert await fourth.result() == 4
            await first.send(call(5))
            assert await first.result() == 5

    run(main)


def test_one_address_keeps_no_more_connections_than_its_share():
    async def main():
        async with serving(connections_per_address=1) as port, dialled(port) as first:
            await first.send(call(1))
            assert await first.result() == 1
            async with dialled(port) as second:
                assert await second.refusal() == (503, "too_many_connections")
            await first.stream.aclose()
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with dialled(port) as third:
                await third.send(call(3))
                assert await third.result() == 3

    run(main)


@pytest.mark.parametrize(
    ("host", "client"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
    ],
)
def test_an_ipv6_client_counts_as_its_network(host, client):
    assert _client_of(host) == client


def test_a_flood_of_connections_is_closed_without_a_word():
    async def main():
        async with serving(connections=0) as port, AsyncExitStack() as stack:
            flood = REFUSED_CONNECTIONS + 36
            clients = [await stack.enter_async_context(dialled(port)) for _ in range(flood)]
            heard = [await client.rest() for client in clients]
        return [answer.startswith(b"HTTP/1.1 503 ") for answer in heard if answer], heard

    told, heard = run(main)
    assert all(told)
    assert len(told) >= REFUSED_CONNECTIONS
    assert b"" in heard


def test_hundreds_of_connections_are_served_at_once():
    async def one(port, value, found):
        async with dialled(port) as client:
            for _ in range(3):
                await client.send(call(value))
                found.append(await client.result())

    async def main():
        found = []
        async with serving() as port, trio.open_nursery() as nursery:
            for value in range(200):
                nursery.start_soon(one, port, value, found)
        return sorted(found)

    assert run(main) == sorted(list(range(200)) * 3)


def test_bodies_that_fill_the_memory_are_refused_and_small_ones_are_not():
    async def main():
        async with serving(bodies_bytes=700_000) as port, dialled(port) as large:
            async with dialled(port) as holder, dialled(port) as small:
                await holder.send(post(b"x" * 690_000, length=700_000))
                await trio.testing.wait_all_tasks_blocked(0.05)
                request = call("x" * 30_000)
                await small.send(request[:20_000])
                await trio.testing.wait_all_tasks_blocked(0.05)
                await small.send(request[20_000:])
                assert len(await small.result()) == 30_000
                await large.send(post(b"x" * 200_000, length=700_000))
                assert await large.refusal() == (503, "busy")
                await small.send(call(1))
                assert await small.result() == 1
            await trio.testing.wait_all_tasks_blocked(0.05)
            async with dialled(port) as again:
                await again.send(call("x" * 500_000))
                assert len(await again.result()) == 500_000

    run(main)


def test_a_connection_has_one_task_however_many_its_requests():
    async def tasks(_request):
        living = trio.lowlevel.current_statistics().tasks_living
        return Response(HTTPStatus.OK, str(living).encode())

    async def main():
        async with serving(tasks) as port, dialled(port) as client:
            await client.send(b"GET / HTTP/1.1\r\n\r\n" * 50)
            return {(await client.response())[2] for _ in range(50)}

    assert len(run(main)) == 1


# ---- beginning and end -------------------------------------------------------------------------


def test_a_port_in_use_is_named():
    async def main():
        async with serving() as port:
            with pytest.raises(UnavailableError, match=f"cannot listen on {HOST}:{port}: .* stop"):
                await serve_http(HttpConfig(HOST, port), page)

    run(main)


def test_an_address_that_is_not_ours_is_named():
    async def main():
        with pytest.raises(UnavailableError, match=r"cannot listen on 192\.0\.2\.1:0: "):
            await serve_http(HttpConfig("192.0.2.1", 0), page)

    run(main)


class Gate:
    """An app whose one request waits until it may go on."""

    def __init__(self):
        self.entered = trio.Event()
        self.opened = trio.Event()
        self.cut = False

    async def app(self, request):
        if request.path == "/gate":
            self.entered.set()
            try:
                await self.opened.wait()
            except trio.Cancelled:
                self.cut = True
                raise
        return Response(HTTPStatus.OK, b"through")


async def stopped_while_answering(grace_ms, *, opens):
    """What the client at the gate and an idle one get when the server is cancelled."""
    gate = Gate()
    config = HttpConfig(HOST, 0, stop_grace_ms=grace_ms)
    async with trio.open_nursery() as nursery:
        scope = trio.CancelScope()

        async def serve(task_status):
            with scope:
                await serve_http(config, gate.app, task_status)

        port = await nursery.start(serve)
        async with dialled(port) as waiting, dialled(port) as idle, dialled(port) as half:
            await idle.send(b"GET /other HTTP/1.1\r\n\r\n")
            await idle.response()
            await half.send(b"GET /half HTTP/1.1\r\n")
            await waiting.send(b"GET /gate HTTP/1.1\r\n\r\n")
            await gate.entered.wait()
            scope.cancel()
            closed = await idle.rest(), await half.rest()
            with pytest.raises(OSError, match="all attempts to connect"):
                await trio.open_tcp_stream(HOST, port)
            if opens:
                gate.opened.set()
            return closed, await waiting.rest(), gate.cut


def test_a_stop_lets_requests_finish_and_closes_the_idle_at_once():
    closed, answer, cut = run(lambda: stopped_while_answering(NEVER_MS, opens=True))
    assert closed == (b"", b"")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    assert b"\r\nConnection: close\r\n" in answer
    assert answer.endswith(b"\r\n\r\nthrough")
    assert not cut


def test_a_stop_does_not_wait_for_ever():
    outcome = run(lambda: stopped_while_answering(SOON_MS, opens=False))
    assert outcome == ((b"", b""), b"", True)


def test_an_error_of_the_app_stops_the_server():
    async def broken(_request):
        raise ZeroDivisionError

    async def main():
        with pytest.RaisesGroup(ZeroDivisionError, flatten_subgroups=True):
            async with serving(broken) as port, dialled(port) as client:
                await client.send(call(1))
                await client.rest()
                await trio.sleep_forever()

    run(main)
