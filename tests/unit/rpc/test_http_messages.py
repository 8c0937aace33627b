"""HTTP/1.1 messages: what is a request, what is refused, and how much is buffered."""

import json
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rpc.http_messages import Phase, Request, RequestReader, Response, refusal, render
from rpc.limits import READ_BYTES

HEAD_BYTES = 1_000
BODY_BYTES = 5_000


def reader(*parts):
    made = RequestReader(HEAD_BYTES, BODY_BYTES)
    for part in parts:
        made.feed(part)
    return made


def post(body=b"{}", *fields, version="1.1"):
    head = "\r\n".join([f"POST / HTTP/{version}", f"Content-Length: {len(body)}", *fields])
    return head.encode() + b"\r\n\r\n" + body


def get(path, *fields):
    return "\r\n".join([f"GET {path} HTTP/1.1", *fields]).encode() + b"\r\n\r\n"


def chunked(*chunks, trailer=b""):
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    return head + coded + b"0\r\n" + trailer + b"\r\n"


def fault(*parts):
    """(status, kind) of a refusal, with no request before it."""
    made = reader(*parts)
    assert list(made.requests) == []
    return made.refused.status.value, json.loads(made.refused.body)["error"]["kind"]


# ---- requests ----------------------------------------------------------------------------------


def test_a_request_is_what_was_sent():
    made = reader(post(b"[1]", "Content-Type: application/json; charset=utf-8", "X:"))
    request = Request("POST", "/", "application/json; charset=utf-8", b"[1]", closes=False)
    assert (list(made.requests), made.refused, made.phase) == ([request], None, Phase.IDLE)


def test_a_path_has_no_query():
    made = reader(get("/metrics?a=/b?"))
    assert made.requests[0].path == "/metrics"


def test_pipelined_requests_are_kept_in_order():
    made = reader(get("/1") + post(b"2") + b"\r\n" + get("/3") + b"GET /4")
    assert [(request.path, request.body) for request in made.requests] == [
        ("/1", b""),
        ("/", b"2"),
        ("/3", b""),
    ]
    assert made.phase is Phase.HEAD


def test_what_stands_before_garbage_is_kept():
    made = reader(get("/1") + b"\x00garbage")
    assert [request.path for request in made.requests] == ["/1"]
    assert made.refused.status == 400


def test_chunks_are_joined():
    made = reader(chunked(b"abc", b"de", trailer=b"Checksum: 1\r\nContent-Type: text/html\r\n"))
    assert list(made.requests) == [Request("POST", "/", "", b"abcde", closes=False)]


@pytest.mark.parametrize(
    ("data", "closes"),
    [
        (get("/"), False),
        (get("/", "Connection: keep-alive"), False),
        (get("/", "Connection: close"), True),
        (get("/", "Connection: Close, x"), True),
        (b"GET / HTTP/1.0\r\n\r\n", True),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
    ],
)
def test_a_client_may_close_after_its_request(data, closes):
    assert reader(data).requests[0].closes is closes


def test_the_next_byte_belongs_to_a_phase():
    made = RequestReader(HEAD_BYTES, BODY_BYTES)
    phases = [made.phase]
    for part in (b"\r\n", b"P", b"OST / HTTP/1.1\r\nContent-Length: 2\r\n", b"\r\n", b"{", b"}"):
        made.feed(part)
        phases.append(made.phase)
    assert phases == [
        *(Phase.IDLE, Phase.IDLE, Phase.HEAD, Phase.HEAD),
        *(Phase.BODY, Phase.BODY, Phase.IDLE),
    ]


@pytest.mark.parametrize(
    ("data", "expects"),
    [
        (post(b"{}", "Expect: 100-continue")[:-2], True),
        (post(b"{}", "Expect: 100-Continue")[:-1], True),
        (post(b"{}", "Expect: 100-continue"), False),
        (post(b"{}", "Expect: 100-continue", version="1.0")[:-2], False),
        (post(b"{}", "Expect: everything")[:-2], False),
        (post()[:-2], False),
    ],
)
def test_a_client_may_ask_before_it_sends_its_body(data, expects):
    assert reader(data).expects_continue is expects


@given(st.data())
def test_requests_do_not_depend_on_how_the_bytes_are_cut(data):
    stream = post(b"[1]", "Content-Type: application/json") + chunked(b"a", b"bc") + get("/x?y")
    stream += data.draw(st.sampled_from([b"", b"\x16\x03\x01", b"GET", chunked(b"x" * 6_000)]))
    whole = reader(stream)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    cut = reader(*pieces)
    assert (cut.requests, cut.refused) == (whole.requests, whole.refused)
    assert cut.refused is not None or cut.phase is whole.phase


# ---- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"hello\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET / HTTP/1.1\nHost: x\n\n",
        b"GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n",
        b"GET / HTTP/1.1\r\nA: b\x00\r\n\r\n",
        b"GET / HTTP/1.1\r\nA b\r\n\r\n",
        b"GET /\xc3\xa9 HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length : 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: +2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        b"POST / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
    ],
)
def test_what_is_not_http_or_could_be_read_in_two_ways_is_refused(data):
    assert fault(data) == (400, "bad_request")


@pytest.mark.parametrize("encoding", ["gzip, chunked", "identity, chunked", "chunked\r\nA: b"])
def test_only_chunks_are_decoded(encoding):
    data = f"POST / HTTP/1.1\r\nTransfer-Encoding: {encoding}\r\n\r\n0\r\n\r\n".encode()
    if encoding.startswith("chunked"):
        assert len(reader(data).requests) == 1
    else:
        assert fault(data) == (501, "unsupported_encoding")


def test_a_transfer_encoding_in_two_fields_is_refused():
    fields = b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n"
    data = b"POST / HTTP/1.1\r\n" + fields + b"\r\n0\r\n\r\n"
    assert fault(data) == (501, "unsupported_encoding")


def test_a_post_says_how_long_its_body_is():
    assert fault(b"POST / HTTP/1.1\r\n\r\n") == (411, "length_required")
    assert reader(b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").requests[0].body == b""


@pytest.mark.parametrize("version", ["0.9", "2.0"])
def test_other_versions_are_refused(version):
    assert fault(post(version=version)) == (505, "unsupported_version")


@pytest.mark.parametrize(
    "data",
    [
        get("/", "Connection: Upgrade", "Upgrade: h2c"),
        post(b"{}", "Connection: Upgrade", "Upgrade: websocket") + b"more",
        b"CONNECT a:1 HTTP/1.1\r\n\r\n",
    ],
)
def test_other_protocols_are_refused(data):
    assert fault(data) == (501, "upgrade_unsupported")


def test_a_body_announced_too_large_is_refused_before_it_comes():
    head = post(b"x" * (BODY_BYTES + 1), "Expect: 100-continue")[: -BODY_BYTES - 1]
    assert fault(head) == (413, "body_too_large")
    assert len(reader(post(b"x" * BODY_BYTES)).requests) == 1


def test_chunks_that_grow_too_large_are_refused():
    assert len(reader(chunked(b"x" * 4_000, b"x" * 1_000)).requests) == 1
    assert fault(chunked(b"x" * 4_000, b"x" * 1_001)) == (413, "body_too_large")


def test_what_follows_a_refused_request_is_not_answered():
    refused = post(b"x" * (BODY_BYTES + 1)) + get("/next")
    assert fault(refused) == (413, "body_too_large")
    assert fault(refused, get("/later")) == (413, "body_too_large")


HEAD_TOO_LARGE = (431, "head_too_large")


def test_a_head_may_have_so_many_bytes_and_no_more():
    spent = len("/") + len("A: \r\n")
    assert len(reader(get("/", "A: " + "x" * (HEAD_BYTES - spent))).requests) == 1
    assert fault(get("/", "A: " + "x" * (HEAD_BYTES - spent + 1))) == HEAD_TOO_LARGE
    assert fault(get("/" + "x" * HEAD_BYTES)) == HEAD_TOO_LARGE
    assert fault(get("/", *["A:"] * 200)) == HEAD_TOO_LARGE


@pytest.mark.parametrize(
    "start",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nA",
        b"GET / HTTP/1.1\r\nA: ",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nA: ",
    ],
)
@pytest.mark.parametrize("part_bytes", [1, 100, READ_BYTES])
def test_what_never_ends_is_refused_within_a_head_and_a_read(start, part_bytes):
    made = reader(start)
    fed_bytes = 0
    while made.refused is None:
        made.feed(b"x" * part_bytes)
        fed_bytes += part_bytes
        assert fed_bytes <= HEAD_BYTES + READ_BYTES
    assert (made.refused.status, list(made.requests)) == (431, [])


def test_many_small_trailer_fields_are_refused():
    assert fault(chunked(b"x", trailer=b"A: b\r\n" * 200)) == HEAD_TOO_LARGE


def test_held_bytes_are_those_of_bodies():
    made = reader(post(b"x" * 100) + post(b"y" * 10) + post(b"z" * 50)[:-20])
    assert made.held_bytes == 140
    made.requests.clear()
    assert made.held_bytes == 30
    made.feed(b"z" * 20 + b"garbage")
    made.requests.clear()
    assert (made.refused.status, made.held_bytes) == (400, 0)


def test_a_refused_body_is_not_held():
    head = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
    made = reader(head + b"%x\r\n" % 4_000 + b"x" * 4_000)
    assert made.held_bytes == 4_000
    made.feed(b"\r\nno size")
    assert (made.refused.status, made.held_bytes) == (400, 0)


# ---- responses ---------------------------------------------------------------------------------


def test_a_response_says_its_type_and_length():
    response = Response(HTTPStatus.OK, b"abc", "text/plain", (("Allow", "GET"),))
    assert render(response, closes=False) == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 3\r\nAllow: GET\r\n\r\nabc"
    )


def test_no_content_has_neither_length_nor_body():
    data = render(Response(HTTPStatus.NO_CONTENT), closes=True)
    assert data == b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n"


def test_a_response_to_head_has_a_length_and_no_body():
    data = render(Response(HTTPStatus.OK, b"abc"), closes=False, has_body=False)
    assert data.endswith(b"Content-Length: 3\r\n\r\n")


def test_a_refusal_is_a_small_json_object():
    expected = b'{"error":{"kind":"not_found","message":"no such path"}}'
    assert refusal(HTTPStatus.NOT_FOUND, "not_found", "no such path").body == expected
