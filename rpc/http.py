"""The front door: HTTP/1.1 on trio, small enough to be read in one go.

What it decides: path, method and content type; how long and how much it listens to a client; how
many JSON-RPC requests run at a time.
What it never does: interpret a body, spawn a task per request, or know a method of the chain.
One task per connection reads, answers and sends in turn, so answers are in order and a client that
does not read its answers is not read either.
JSON bodies need `Content-Type: application/json`: a web page of another origin cannot send that
without asking first (CORS), and we never consent.
Source: RFC 9110; RFC 9112; Fetch standard, section 4.8; architecture section 9.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv6Network
from math import inf

import trio

from ledger.errors import UnavailableError
from rpc.gate import Gate
from rpc.http_messages import (
    CONTINUE,
    Phase,
    Request,
    RequestReader,
    Response,
    busy,
    refusal,
    render,
    render_head,
)
from rpc.jsonrpc import BusyError, Context, Registry, answer
from rpc.limits import (
    BODIES_BYTES,
    BODY_BYTES,
    BODY_READ_BYTES,
    BODY_TIMEOUT_MS,
    CONNECTIONS,
    CONNECTIONS_PER_ADDRESS,
    HEAD_BYTES,
    HEADER_TIMEOUT_MS,
    IDLE_TIMEOUT_MS,
    LINGER_TIMEOUT_MS,
    READ_BYTES,
    READING_BODIES,
    REFUSED_CONNECTIONS,
    RETRY_AFTER_MS,
    SEND_BYTES,
    SEND_TIMEOUT_MS,
    STOP_GRACE_MS,
)


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Where to listen (port 0 takes a free one) and how patient to be."""

    host: str
    port: int
    head_bytes: int = HEAD_BYTES
    body_bytes: int = BODY_BYTES
    bodies_bytes: int = BODIES_BYTES
    connections: int = CONNECTIONS
    connections_per_address: int = CONNECTIONS_PER_ADDRESS
    header_timeout_ms: int = HEADER_TIMEOUT_MS
    body_timeout_ms: int = BODY_TIMEOUT_MS
    idle_timeout_ms: int = IDLE_TIMEOUT_MS
    send_timeout_ms: int = SEND_TIMEOUT_MS
    stop_grace_ms: int = STOP_GRACE_MS


App = Callable[[Request], Awaitable[Response]]


# ---- what is asked: JSON-RPC and pages --------------------------------------------------------


def front_door(registry: Registry, pages: Mapping[str, App]) -> App:
    """The app of a node: JSON-RPC by POST /, and `pages` (health, metrics) by GET.

    JSON-RPC requests pass a gate: some run, some wait in the order in which they came, and who
    finds the line full is refused with 503 `busy` before anything is parsed. Pages do not wait: a
    node that is busy must still be able to say that it is alive.
    """
    gate = Gate()

    async def app(request: Request) -> Response:
        page = pages.get(request.path)
        if request.method == "GET" and page is not None:
            return await page(request)
        if request.path != "/":
            if page is None:
                return refusal(HTTPStatus.NOT_FOUND, "not_found", "no such path")
            return _wrong_method("GET")
        if request.method != "POST":
            return _wrong_method("POST" if page is None else "GET, POST")
        if request.content_type.partition(";")[0].strip().lower() != "application/json":
            message = "send Content-Type: application/json"
            return refusal(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message)
        try:
            async with gate.place(request.client) as place:
                context = Context(place.waiting, request.client)
                reply = await answer(request.body, registry, context)
        except BusyError as error:
            return busy(error.message, error.retry_after_ms)
        return Response(HTTPStatus.NO_CONTENT) if reply is None else Response(HTTPStatus.OK, reply)

    return app


def _wrong_method(allowed: str) -> Response:
    message = f"this path answers to {allowed}"
    allow = (("Allow", allowed),)
    return refusal(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", message, allow)


# ---- who is served: connections ---------------------------------------------------------------


async def serve_http(
    config: HttpConfig,
    app: App,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; then finish what is being answered, for `stop_grace_ms` at most.

    `task_status` tells the port. `app` does not raise: an error from it is our own and stops the
    server. Raises: UnavailableError if the address cannot be taken.
    """
    listeners = await _listen(config)
    server = _Server(config, app)
    try:
        async with trio.open_nursery() as nursery:
            connections = await nursery.start(server.hold)
            task_status.started(listeners[0].socket.getsockname()[1])
            try:
                await trio.serve_listeners(server.accept, listeners, handler_nursery=connections)
            finally:
                server.stopped.set()
    finally:
        for listener in listeners:
            await trio.aclose_forcefully(listener)


async def _listen(config: HttpConfig) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(config.port, host=config.host)
    except OSError as error:
        raise UnavailableError(
            f"cannot listen on {config.host}:{config.port}: {error.strerror}; choose another host"
            " or port for RPC, or stop the program that holds this one"
        ) from error


class _Server:
    """What the connections of one server share."""

    def __init__(self, config: HttpConfig, app: App) -> None:
        self.config = config
        self.app = app
        self.stopped = trio.Event()
        self.reading = trio.Semaphore(READING_BODIES, max_value=READING_BODIES)
        self.held_bytes = 0
        self._open: dict[int, _Connection] = {}
        self._by_client: dict[str, int] = {}
        self._accepted = 0
        self._turned_away = 0

    async def hold(self, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        """Own the tasks of connections. Shielded, so that a stop does not cut answers off."""
        with trio.CancelScope(shield=True) as scope:
            async with trio.open_nursery() as connections:
                task_status.started(connections)
                await self.stopped.wait()
                scope.deadline = trio.current_time() + self.config.stop_grace_ms / 1000
                for connection in self._open.values():
                    connection.stop()

    async def accept(self, stream: trio.SocketStream) -> None:
        """Serve one connection of the network to its end."""
        try:
            client = _client_of(str(stream.socket.getpeername()[0]))
        except OSError:
            await trio.aclose_forcefully(stream)
            return  # It is gone already.
        await self.serve(stream, client)

    async def serve(self, stream: trio.SocketStream, client: str = "") -> None:
        """Serve one connection of a client to its end."""
        try:
            if not self._has_room(client):
                await self._turn_away(stream)
                return
            number = self._accepted
            self._accepted += 1
            self._open[number] = connection = _Connection(self, stream, client)
            self._by_client[client] = self._by_client.get(client, 0) + 1
            try:
                await connection.run()
            finally:
                del self._open[number]
                self._by_client[client] -= 1
                if not self._by_client[client]:
                    del self._by_client[client]
        finally:
            await trio.aclose_forcefully(stream)

    def _has_room(self, client: str) -> bool:
        mine = self._by_client.get(client, 0)
        config = self.config
        return len(self._open) < config.connections and mine < config.connections_per_address

    async def _turn_away(self, stream: trio.SocketStream) -> None:
        if self._turned_away >= REFUSED_CONNECTIONS:
            return
        self._turned_away += 1
        try:
            message = (
                f"the node serves {self.config.connections} connections, "
                f"{self.config.connections_per_address} for one address; try again later"
            )
            response = busy(message, RETRY_AFTER_MS, "too_many_connections")
            await _last_words(stream, response)
        finally:
            self._turned_away -= 1


class _Connection:
    """One client: read, answer, send, in turn. Reads and sends have deadlines, the app has none."""

    def __init__(self, server: _Server, stream: trio.SocketStream, client: str) -> None:
        config = server.config
        self._server = server
        self._stream = stream
        self._reader = RequestReader(config.head_bytes, config.body_bytes, client)
        self._reading = trio.CancelScope()
        self._phase: Phase | None = None
        self._deadline = inf
        self._held_bytes = 0
        self._patience_s = {
            Phase.IDLE: config.idle_timeout_ms / 1000,
            Phase.HEAD: config.header_timeout_ms / 1000,
            Phase.BODY: config.body_timeout_ms / 1000,
        }

    async def run(self) -> None:
        """Serve until either side has had enough."""
        try:
            farewell = await self._converse()
            if farewell is not None:
                await _last_words(self._stream, farewell)
        finally:
            self._server.held_bytes -= self._held_bytes

    def stop(self) -> None:
        """Read no more; a request that is being answered gets its answer."""
        self._reading.cancel()

    async def _converse(self) -> Response | None:
        """Answer requests until the client leaves (None) or has to (why)."""
        reader = self._reader
        while not self._server.stopped.is_set():
            data = await self._receive()
            if data is None:
                return self._timeout()
            if not data:
                return None
            reader.feed(data)
            self._account()
            if reader.phase is Phase.BODY:
                # Large bodies take turns, so that many uploads do not come before consensus.
                await self._server.reading.acquire()
                self._server.reading.release()
            while reader.requests:
                if not await self._answer(reader.requests[0]):
                    return None
                reader.requests.popleft()
            if reader.refused is not None:
                return reader.refused
            if self._account() and self._held_bytes > READ_BYTES:
                message = "the node holds too many large requests; try again later"
                return busy(message, RETRY_AFTER_MS)
            if reader.expects_continue:
                reader.expects_continue = False
                await self._send(CONTINUE)
        return None

    async def _receive(self) -> bytes | bytearray | None:
        """The next bytes, none at the end, None if they do not come in time.

        The deadline counts from the start of a phase: to trickle does not help.
        """
        phase = self._reader.phase
        if phase is not self._phase:
            self._phase = phase
            self._deadline = trio.current_time() + self._patience_s[phase]
        self._reading = trio.CancelScope(deadline=self._deadline)
        with self._reading:
            try:
                return await self._stream.receive_some(
                    min(BODY_READ_BYTES, self._reader.wanted_bytes)
                )
            except trio.BrokenResourceError:
                return b""
        return None

    async def _answer(self, request: Request) -> bool:
        """Answer one request; whether the connection goes on."""
        response = await self._server.app(request)
        # Other methods are not served at all, and the answer to HEAD would have no body.
        served = request.method in {"GET", "POST"}
        closes = request.closes or not served or self._server.stopped.is_set()
        if len(response.body) <= SEND_BYTES or request.method == "HEAD":
            data = render(response, closes=closes, has_body=request.method != "HEAD")
            return await self._send(data) and not closes
        head = render_head(response, closes=closes)
        return await self._send(head, response.body) and not closes

    async def _send(self, data: bytes, body: bytes = b"") -> bool:
        """Whether the client took everything in time. What it sends next gets its own deadline."""
        self._phase = None
        try:
            with trio.fail_after(self._server.config.send_timeout_ms / 1000):
                await self._stream.send_all(data)
                with memoryview(body) as view:
                    for start in range(0, len(body), SEND_BYTES):
                        await self._stream.send_all(view[start : start + SEND_BYTES])
        except (trio.BrokenResourceError, trio.TooSlowError):
            return False
        return True

    def _account(self) -> bool:
        """Count our bodies among those of all connections; whether these are too many."""
        server = self._server
        held_bytes = self._reader.held_bytes
        server.held_bytes += held_bytes - self._held_bytes
        self._held_bytes = held_bytes
        return server.held_bytes > server.config.bodies_bytes

    def _timeout(self) -> Response | None:
        """What to say to a client that is too slow; nothing if it is idle, or the node stops."""
        if self._phase is Phase.IDLE or self._server.stopped.is_set():
            return None
        message = "the request took too long to arrive"
        return refusal(HTTPStatus.REQUEST_TIMEOUT, "timeout", message)


def _client_of(host: str) -> str:
    """The address whose connections count together: an IPv6 client owns 64 bits of them."""
    return str(IPv6Network((host.partition("%")[0], 64), strict=False)) if ":" in host else host


async def _last_words(stream: trio.SocketStream, response: Response) -> None:
    """Say why, then read on for a moment: closing on unread bytes would destroy the answer."""
    with trio.move_on_after(LINGER_TIMEOUT_MS / 1000):
        try:
            await stream.send_all(render(response, closes=True))
            await stream.send_eof()
            while await stream.receive_some(READ_BYTES):
                pass
        except trio.BrokenResourceError:
            return  # The client did not wait for it.
