"""The messages of HTTP/1.1: bytes to requests, responses to bytes, without any I/O.

What it decides: what a request is, and how many bytes of one are buffered before it is refused.
What it never does: wait, route, or interpret a body.
httptools (llhttp) parses in its strict mode; what it would buffer without end is bounded here.
Source: RFC 9110; RFC 9112.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto, unique
from http import HTTPStatus

import httptools
import msgspec

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
PIECE_BYTES = 8 * 1024
"""What is parsed at a time but for bodies of known length: 1 ms of tiny requests."""
_FIELD_BYTES = len(": \r\n")


@dataclass(frozen=True, slots=True)
class Request:
    """A complete request. `path` has no query; `closes`: no other request follows it."""

    method: str
    path: str
    content_type: str
    body: bytes
    closes: bool
    client: str = ""
    """The network address it came from."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer; `headers` beside content type and length, which the server writes."""

    status: HTTPStatus
    body: bytes = b""
    content_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


def refusal(
    status: HTTPStatus, kind: str, message: str, headers: tuple[tuple[str, str], ...] = ()
) -> Response:
    """An error of the transport, as opposed to an error of JSON-RPC, which has status 200."""
    body = msgspec.json.encode({"error": {"kind": kind, "message": message}})
    return Response(status, body, headers=headers)


def busy(message: str, retry_after_ms: int, kind: str = "busy") -> Response:
    """A refusal that passes, with the hint when to come back: in ms, and in seconds as HTTP has it.

    Source: RFC 9110, section 10.2.3.
    """
    error = {"kind": kind, "message": message, "retry_after_ms": retry_after_ms}
    seconds = str(max(1, -(-retry_after_ms // 1_000)))
    status = HTTPStatus.SERVICE_UNAVAILABLE
    return Response(
        status, msgspec.json.encode({"error": error}), headers=(("Retry-After", seconds),)
    )


# ---- what is read: bytes to requests ----------------------------------------------------------


@unique
class Phase(Enum):
    """What the next byte belongs to."""

    IDLE = auto()
    HEAD = auto()
    BODY = auto()


class RequestReader:
    """Cuts a byte stream into requests; no I/O, and total: no bytes make it raise.

    `requests` are complete and to be answered in order, then `refused`, if set, is the last answer
    of the connection. What it holds is bounded by head_bytes, body_bytes and one read.
    """

    def __init__(self, head_bytes: int, body_bytes: int, client: str = "") -> None:
        self._client = client
        self.requests: deque[Request] = deque()
        self.refused: Response | None = None
        self.phase = Phase.IDLE
        self.expects_continue = False
        self._limit_head_bytes = head_bytes
        self._limit_body_bytes = body_bytes
        self._parser = httptools.HttpRequestParser(self)
        self.on_message_begin()
        self.phase = Phase.IDLE

    @property
    def held_bytes(self) -> int:
        """Bytes of bodies, complete or not."""
        return len(self._body) + sum(len(request.body) for request in self.requests)

    @property
    def wanted_bytes(self) -> int:
        """How much to read at most: the rest of a body at once, anything else in small pieces.

        A piece of nothing but tiny requests takes the parser longest: 2 us for each 18 bytes.
        """
        if self.phase is not Phase.BODY or self._content_length is None:
            return PIECE_BYTES
        return int(self._content_length) - len(self._body) + PIECE_BYTES

    def feed(self, data: bytes | bytearray) -> None:
        """Take what the client sent."""
        if self.refused is not None:
            return
        # A field that comes in pieces is buffered by the parser and not seen below until it is
        # whole, and so are trailer fields: so count what was fed since we last saw anything.
        self._unseen_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            return  # Refused when its head was complete.
        except httptools.HttpParserError:
            self._refuse(HTTPStatus.BAD_REQUEST, "bad_request", "this is not HTTP/1.1")
        if self.phase is not Phase.IDLE and self._unseen_bytes > self._limit_head_bytes:
            self._refuse_head()

    def on_message_begin(self) -> None:
        """httptools: the first byte of a request."""
        self.phase = Phase.HEAD
        self._unseen_bytes = 0
        self._head_bytes = 0
        self._url = b""
        self._content_type = b""
        self._content_length: bytes | None = None
        self._encoding: bytes | None = None
        self._expects = b""
        self._body = bytearray()

    def on_url(self, part: bytes) -> None:
        """httptools: a piece of the request target."""
        self._head_bytes += len(part)
        self._url += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: a header field, or a trailer field of a chunked body."""
        self._head_bytes += len(name) + len(value) + _FIELD_BYTES
        if self.phase is Phase.BODY:
            if self._head_bytes > self._limit_head_bytes:
                self._refuse_head()
            return
        match name.lower():
            case b"content-type":
                self._content_type = value
            case b"content-length":
                self._content_length = value
            case b"transfer-encoding":
                self._encoding = value if self._encoding is None else b"twice"
            case b"expect":
                self._expects = value.lower()
            case _:
                pass

    def on_headers_complete(self) -> None:
        """httptools: the head is whole; here a request is refused before its body."""
        self.phase = Phase.BODY
        self._unseen_bytes = 0
        length = int(self._content_length or b"0")
        version = self._parser.get_http_version()
        if version not in {"1.0", "1.1"}:
            status = HTTPStatus.HTTP_VERSION_NOT_SUPPORTED
            self._refuse(status, "unsupported_version", "speak HTTP/1.1")
        elif self._parser.should_upgrade():
            # Ignoring it is no choice: the parser takes the body for the other protocol's bytes.
            message = "no other protocol is spoken here"
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "upgrade_unsupported", message)
        elif self._head_bytes > self._limit_head_bytes:
            self._refuse_head()
        elif self._encoding is not None and self._encoding.lower() != b"chunked":
            message = "the only transfer encoding is chunked"
            self._refuse(HTTPStatus.NOT_IMPLEMENTED, "unsupported_encoding", message)
        elif length > self._limit_body_bytes:
            self._refuse_body()
        elif self._parser.get_method() == b"POST" and not self._announces_body():
            message = "send Content-Length, or the body in chunks"
            self._refuse(HTTPStatus.LENGTH_REQUIRED, "length_required", message)
        self._keeps_alive = version == "1.1" and self._parser.should_keep_alive()
        self.expects_continue = version == "1.1" and self._expects == b"100-continue"

    def _announces_body(self) -> bool:
        return self._content_length is not None or self._encoding is not None

    def on_body(self, part: bytes) -> None:
        """httptools: a piece of the body."""
        self._unseen_bytes = 0
        if self.refused is not None:
            return
        if len(self._body) + len(part) > self._limit_body_bytes:
            self._refuse_body()
        else:
            self._body += part

    def on_message_complete(self) -> None:
        """httptools: the request is whole."""
        self.phase = Phase.IDLE
        self.expects_continue = False
        if self.refused is not None:
            return
        request = Request(
            method=self._parser.get_method().decode("latin-1"),
            path=self._url.partition(b"?")[0].decode("latin-1"),
            content_type=self._content_type.decode("latin-1"),
            body=bytes(self._body),
            closes=not self._keeps_alive,
            client=self._client,
        )
        self._body = bytearray()
        self.requests.append(request)

    def _refuse_head(self) -> None:
        message = f"the head has more than {self._limit_head_bytes} bytes"
        self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "head_too_large", message)

    def _refuse_body(self) -> None:
        message = f"the body has more than {self._limit_body_bytes} bytes"
        self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body_too_large", message)

    def _refuse(self, status: HTTPStatus, kind: str, message: str) -> None:
        if self.refused is None:
            self.refused = refusal(status, kind, message)
            self._body = bytearray()


def render(response: Response, *, closes: bool, has_body: bool = True) -> bytes:
    """The bytes of a response at once."""
    head = render_head(response, closes=closes)
    return head + response.body if has_body else head


def render_head(response: Response, *, closes: bool) -> bytes:
    """The bytes before the body. A 204 has neither body nor length (RFC 9110, section 8.6)."""
    status = response.status
    lines = [f"HTTP/1.1 {status.value} {status.phrase}"]
    if status is not HTTPStatus.NO_CONTENT:
        lines.append(f"Content-Type: {response.content_type}")
        lines.append(f"Content-Length: {len(response.body)}")
    lines += [f"{name}: {value}" for name, value in response.headers]
    if closes:
        lines.append("Connection: close")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
