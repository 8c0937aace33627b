"""The app behind the server: which request is JSON-RPC, which a page, and how many run."""

import json
from http import HTTPStatus

import msgspec
import pytest
import trio
import trio.testing

from ledger.errors import Reason, Rejected
from rpc.http import front_door
from rpc.http_messages import Request, Response
from rpc.jsonrpc import Method, Registry
from rpc.limits import RUNNING_REQUESTS


class NoParams(msgspec.Struct, forbid_unknown_fields=True):
    pass


async def ping(_params, _context):
    return "pong"


async def page(_request):
    return Response(HTTPStatus.OK, b"well", "text/plain")


def request(method="POST", path="/", content_type="application/json", body=b"{}"):
    return Request(method, path, content_type, body, closes=False)


def ask(asked, pages=None):
    app = front_door(Registry([Method("ping", NoParams, ping, "")]), pages or {"/healthz": page})
    return trio.run(app, asked)


PING = b'{"jsonrpc":"2.0","method":"ping","id":1}'


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON ; charset=utf-8"])
def test_a_call_is_answered(kind):
    response = ask(request(content_type=kind, body=PING))
    assert response == Response(HTTPStatus.OK, b'{"jsonrpc":"2.0","result":"pong","id":1}')


def test_an_error_of_the_call_is_a_success_of_http():
    response = ask(request(body=b"["))
    assert (response.status, json.loads(response.body)["error"]["code"]) == (200, -32700)


def test_a_notification_has_no_content():
    body = b'{"jsonrpc":"2.0","method":"ping"}'
    assert ask(request(body=body)) == Response(HTTPStatus.NO_CONTENT)


@pytest.mark.parametrize("kind", ["", "text/plain", "application/jsonx", "application"])
def test_another_type_is_refused(kind):
    response = ask(request(content_type=kind, body=PING))
    assert response.status == HTTPStatus.UNSUPPORTED_MEDIA_TYPE


def test_a_page_is_shown():
    assert ask(request("GET", "/healthz")) == Response(HTTPStatus.OK, b"well", "text/plain")


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
@pytest.mark.parametrize("path", ["/nowhere", "/healthz/", "//", "*", ""])
def test_an_unknown_path_is_not_found(method, path):
    assert ask(request(method, path)).status == HTTPStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("method", "path", "pages", "allowed"),
    [
        ("GET", "/", {}, "POST"),
        ("OPTIONS", "/", {}, "POST"),
        ("PUT", "/", {"/": page}, "GET, POST"),
        ("POST", "/healthz", {"/healthz": page}, "GET"),
        ("HEAD", "/healthz", {"/healthz": page}, "GET"),
    ],
)
def test_a_wrong_method_is_told_the_right_one(method, path, pages, allowed):
    response = ask(request(method, path), pages)
    assert (response.status, response.headers) == (405, (("Allow", allowed),))


def test_the_root_can_be_page_and_endpoint():
    assert ask(request("GET", "/"), {"/": page}).body == b"well"
    assert ask(request(body=PING), {"/": page}).status == HTTPStatus.OK


class Hall:
    """Counts who runs; handlers stay inside until the gate opens."""

    def __init__(self):
        self.running = 0
        self.most = 0
        self.gate = trio.Event()

    async def busy(self, _params, _context):
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1

    async def patient(self, _params, context):
        async with context.waiting():
            await self.gate.wait()
        await self.busy(_params, context)

    async def failing(self, _params, context):
        async with context.waiting():
            raise Rejected(Reason.EXPIRED)


def visit(count, batch):
    """The most that ran at once, and whether a page was shown beside them."""

    async def main():
        hall = Hall()
        methods = [Method(name, NoParams, getattr(hall, name), "") for name in NAMES]
        app = front_door(Registry(methods), {"/healthz": page})
        calls = [{"jsonrpc": "2.0", "method": name, "id": 1} for name in batch]
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(app, request(body=json.dumps(calls).encode()))
            await trio.testing.wait_all_tasks_blocked()
            running = hall.running
            assert (await app(request("GET", "/healthz"))).body == b"well"
            hall.gate.set()
        return running, hall.most

    return trio.run(main)


NAMES = ("busy", "patient", "failing")


def test_so_many_requests_run_at_a_time_and_pages_do_not_wait():
    assert visit(100, ["busy"]) == (RUNNING_REQUESTS, RUNNING_REQUESTS)


def test_a_request_that_waits_holds_no_place_and_takes_one_again():
    running, most = visit(100, ["patient"])
    assert running == 0
    assert 0 < most <= RUNNING_REQUESTS


def test_the_rest_of_a_batch_runs_with_a_place_after_waiting():
    running, most = visit(50, ["patient", "busy"])
    assert running == 0
    assert 0 < most <= RUNNING_REQUESTS


def test_a_place_given_away_in_an_error_is_given_once():
    async def main():
        hall = Hall()
        hall.gate.set()
        methods = [Method(name, NoParams, getattr(hall, name), "") for name in NAMES]
        app = front_door(Registry(methods), {})
        body = b'{"jsonrpc":"2.0","method":"failing","id":1}'
        for _ in range(3 * RUNNING_REQUESTS):
            reply = json.loads((await app(request(body=body))).body)
            assert reply["error"]["data"]["kind"] == "expired"
        return await app(request(body=b'{"jsonrpc":"2.0","method":"busy","id":1}'))

    assert trio.run(main).status == HTTPStatus.OK
