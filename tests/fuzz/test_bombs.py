"""Decoding bombs: memory and work stay in proportion to the bytes that came.

Memory is the peak of tracemalloc while decoding, against the size of the input. Work is process
CPU against that of a valid message of the same decoder and size, the best of several runs of each:
a ratio, so that a slow machine passes.
Source: research consensus-reliability section 6.2.
"""

import time
import tracemalloc
from contextlib import nullcontext

import msgspec
import pytest
import trio

from ledger import limits as protocol
from ledger import snapshot
from ledger.batch import parse_batch
from ledger.block import BLOCK, HEADER
from ledger.codec import encode
from ledger.data_index import OPENING_BYTES, parse_opening
from ledger.errors import PeerProtocolError, Rejected
from ledger.genesis import parse_genesis
from ledger.light.documents import (
    FORK_DOCUMENT_BYTES,
    LIGHT_PROOF_BYTES,
    TRUST_BYTES,
    parse_fork,
    parse_light_proof,
    parse_trust,
)
from ledger.light.history import OLD_HEADER, OLD_HEADER_BYTES
from ledger.light.trust import LIGHT_BLOCK, LIGHT_BLOCK_BYTES
from ledger.proof import PROOF_BYTES, parse_proof
from ledger.proofs.family import parse_document
from ledger.receipts import RECEIPT
from ledger.transaction import SignedTransaction, parse_transaction
from ledger.votes import CERTIFICATE
from node import log_entries, wire
from p2p.frames import FrameReader
from rpc import fhir, limits
from rpc.http_messages import RequestReader
from rpc.jsonrpc import Context, Method, Registry, RpcError, answer, strict_json
from tests.fuzz.targets import BATCHES, BUNDLE, CHAIN, OPENED, TARGETS, TRANSACTIONS

MEMORY_TIMES = 32
"""Peak bytes for each byte of input: a Python object of 64 bytes from three bytes, and copies."""
MEMORY_FLOOR_BYTES = 256 * 1024
"""What error texts, tracebacks and warm caches may take, whatever the input."""
CPU_TIMES = 12
"""Against a valid message of the same size: a refusal may look twice, an exact look is slower."""
REFUSALS = (Rejected, RpcError, PeerProtocolError)


def reader(data):
    found = RequestReader(limits.HEAD_BYTES, limits.BODY_BYTES)
    for start in range(0, len(data), 8_192):
        found.feed(data[start : start + 8_192])


DECODERS = {
    "transaction": (lambda data: parse_transaction(data, CHAIN), protocol.ENVELOPE_BYTES),
    "batch": (lambda data: parse_batch(data, CHAIN), protocol.BATCH_BYTES),
    "header": (HEADER.decode, protocol.HEADER_BYTES),
    "block": (BLOCK.decode, protocol.BLOCK_RECORD_BYTES),
    "certificate": (CERTIFICATE.decode, protocol.CERTIFICATE_BYTES),
    "receipt": (RECEIPT.decode, protocol.RECEIPT_BYTES),
    "vote": (wire.VOTE.decode, 512),
    "proposal": (wire.PROPOSAL.decode, protocol.BLOCK_RECORD_BYTES),
    "status": (wire.STATUS.decode, 64),
    "batch request": (wire.BATCH_REQUEST.decode, 16 * 1024),
    "block request": (wire.BLOCK_REQUEST.decode, 64),
    "block response": (wire.BLOCK_RESPONSE.decode, 10 * protocol.MIB),
    "snapshot request": (wire.SNAPSHOT_REQUEST.decode, 2 * 1024),
    "snapshot part": (wire.SNAPSHOT_PART.decode, 256 * 1024 + 64),
    "snapshot subtree": (snapshot.SUBTREE.decode, snapshot.SUBTREE_BYTES),
    "snapshot run": (snapshot.RUN.decode, snapshot.RUN_BYTES),
    "snapshot window": (snapshot.WINDOW.decode, snapshot.WINDOW_BYTES),
    "resent": (wire.RESENT.decode, protocol.MIB),
    "log record": (log_entries.ENTRY.decode, 128 * 1024),
    "log file": (lambda data: list(log_entries.entries_of(data)), protocol.MIB),
    "frames": (lambda data: FrameReader().feed(data), 64 * 1024),
    "genesis": (parse_genesis, 4 * protocol.MIB),
    "proof": (parse_proof, PROOF_BYTES),
    "proof family": (parse_document, PROOF_BYTES),
    "opening": (parse_opening, OPENING_BYTES),
    "fhir": (fhir.split, 512 * 1024),
    "light block": (LIGHT_BLOCK.decode, LIGHT_BLOCK_BYTES),
    "old header": (OLD_HEADER.decode, OLD_HEADER_BYTES),
    "trust": (parse_trust, TRUST_BYTES),
    "fork": (lambda data: parse_fork(data, CHAIN), FORK_DOCUMENT_BYTES),
    "light proof": (parse_light_proof, LIGHT_PROOF_BYTES),
    "json": (strict_json, limits.BODY_BYTES),
    "http": (reader, limits.BODY_BYTES),
}


def filled(head, piece, tail=b""):
    """A maker of inputs of a size: head, as many pieces as fit, tail."""
    return lambda size: head + piece * ((size - len(head) - len(tail)) // len(piece)) + tail


def array(item):
    """An array that claims exactly as many items as follow."""

    def make(size):
        count = (size - 5) // len(item)
        return b"\xdd" + count.to_bytes(4, "big") + item * count

    return make


def text_of(head, piece, tail):
    """A JSON text of pieces with commas between them."""
    return lambda size: head + b",".join([piece] * ((size - 100) // (len(piece) + 1))) + tail


BOMBS = {
    "a count of four billion": lambda _size: b"\xdd\xff\xff\xff\xff",
    "a count of four billion before zeros": filled(b"\xdd\xff\xff\xff\xff", b"\x00"),
    "a string of four billion bytes": filled(b"\xc6\xff\xff\xff\xff", b"a"),
    "empty maps": array(b"\x80"),
    "empty arrays": array(b"\x90"),
    "empty strings": array(b"\xa0"),
    "nil": array(b"\xc0"),
    "floats": array(b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00"),
    "timestamps": array(b"\xd6\xff\x00\x00\x00\x00"),
    "long integers": array(b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff"),
    "nesting": filled(b"", b"\x91"),
    "nesting of maps": filled(b"", b"\x81\xa0"),
    "zeros": filled(b"", b"\x00"),
    "JSON nesting": filled(b"", b"["),
    "JSON nesting of objects": filled(b"", b'{"a":'),
    "JSON nesting behind a repeated key": filled(b'{"a":', b"[", b"]"),
    "JSON blanks": filled(b"", b" "),
    "a JSON integer": filled(b"", b"9"),
    "a JSON integer in an object": filled(b'{"a":', b"9", b"}"),
    "a JSON fraction": filled(b'{"a":0.', b"9", b"}"),
    "a JSON exponent": filled(b'{"a":1e', b"9", b"}"),
    "JSON exponents": text_of(b"[", b"1e999", b"]"),
    "JSON NaN": text_of(b"[", b"NaN", b"]"),
    "repeated keys": text_of(b"{", b'"a":1', b"}"),
    "repeated keys with colons": text_of(b"{", b'"a:":1', b"}"),
    "half surrogates": text_of(b"[", b'"\\ud800"', b"]"),
    "escapes": filled(b'"', b"\\u4e2d", b'"'),
    "escapes behind a colon": filled(b'{"a:":"', b"\\u4e2d", b'"}'),
    "quotes": filled(b"", b'"'),
    "backslashes": filled(b'"', b"\\\\", b'"'),
    "empty objects": text_of(b"[", b"{}", b"]"),
    "tiny requests": filled(b"", b"GET / HTTP/1.1\r\n\r\n"),
    "tiny chunks": filled(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "tiny headers": filled(b"GET / HTTP/1.1\r\n", b"a:b\r\n"),
    "one long header": filled(b"GET / HTTP/1.1\r\na:", b"b"),
    "tiny frames": filled(b"", b"\x00\x00\x00\x01\x03"),
    "log records of one byte": filled(b"", b"\x00\x00\x00\x01\xd2\x02\xef\x8d\x00"),
}


def fed(decode, data):
    """Why the data was refused, None if it was not."""
    try:
        decode(data)
    except REFUSALS as refusal:
        return getattr(refusal, "reason", None) or getattr(refusal, "kind", None)
    return None


def peak_bytes(decode, data):
    fed(decode, data)
    tracemalloc.start()
    try:
        fed(decode, data)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def cpu_ns(decode, data, times=5):
    best = 1 << 62
    for _ in range(times):
        start = time.process_time_ns()
        fed(decode, data)
        best = min(best, time.process_time_ns() - start)
    return best


@pytest.mark.parametrize("name", DECODERS)
def test_no_bomb_takes_more_memory_than_a_multiple_of_its_size(name):
    decode, most = DECODERS[name]
    found = {}
    for bomb, make in BOMBS.items():
        data = make(most)
        assert len(data) <= most or len(data) < 100
        peak = peak_bytes(decode, data)
        if peak > MEMORY_TIMES * len(data) + MEMORY_FLOOR_BYTES:
            found[bomb] = peak // len(data)
    assert found == {}


def benign(name, most):
    """A valid message of about that size, of which every part is looked at."""
    match name:
        case "batch":
            count = most // 700
            return encode(
                [*msgspec.msgpack.decode(BATCHES[0])[:2], [TRANSACTIONS[0]] * min(count, 1_000)]
            )
        case "transaction":
            fields = msgspec.msgpack.decode(TRANSACTIONS[1], type=SignedTransaction)
            operations = (fields.operations or ())[:1] * 1_500
            return encode(msgspec.structs.replace(fields, operations=operations))
        case "json":
            return msgspec.json.encode(["x" * 100] * (most // 104))
        case "fhir":
            entry = msgspec.json.encode(msgspec.json.decode(BUNDLE)["entry"][0])
            head = b'{"resourceType":"Bundle","entry":['
            return head + b",".join([entry] * (most // (len(entry) + 2))) + b"]}"
        case "opening":
            return OPENED.replace(b'"content":"', b'"content":"' + b"QUJD" * (most // 8), 1)
        case _:
            return None


@pytest.mark.parametrize("name", ["batch", "transaction", "json", "fhir", "opening"])
def test_no_bomb_takes_many_times_the_work_of_a_good_message_of_its_size(name):
    decode, most = DECODERS[name]
    good = benign(name, most)
    for _ in range(3):
        per_byte = cpu_ns(decode, good) / len(good)
        found = {}
        for bomb, make in BOMBS.items():
            data = make(most)
            ratio = cpu_ns(decode, data, 3) / (per_byte * max(len(data), 4_096))
            if ratio > CPU_TIMES:
                found[bomb] = round(ratio, 1)
        if not found:
            return
    assert found == {}


@pytest.mark.parametrize("name", DECODERS)
def test_a_byte_over_the_limit_is_refused_without_a_look(name):
    if name in {"log file", "frames", "http", "fhir"}:
        pytest.skip("bounded by its pieces, not as a whole")
    decode, most = DECODERS[name]
    data = b"\x90" * (max(most, protocol.ENVELOPE_BYTES) + 100 * 1024)
    tracemalloc.start()
    try:
        assert fed(decode, data) == "too_large"
        assert tracemalloc.get_traced_memory()[1] < 16 * 1024
    finally:
        tracemalloc.stop()


class Bytes(msgspec.Struct, forbid_unknown_fields=True):
    items: list[bytes] = []


async def count(parameters, _context):
    return sum(map(len, parameters.items))


REGISTRY = Registry([Method("count", Bytes, count, "")])


@pytest.mark.parametrize("piece", [b"=", b"A", b"AAA", b"\\u0041", b"*", b"-_", b" "])
def test_base64_of_any_form_is_decoded_or_refused_in_proportion(piece):
    head = b'{"jsonrpc":"2.0","id":1,"method":"count","params":[["'
    body = filled(head, piece, b'"]]}')(limits.BODY_BYTES)

    def ask(data):
        return trio.run(answer, data, REGISTRY, Context(nullcontext))

    assert peak_bytes(ask, body) <= MEMORY_TIMES * len(body)
    reply = msgspec.json.decode(ask(body))
    assert "result" in reply or reply["error"]["code"] == -32602
    assert len(ask(body)) < 1_000


def test_every_fuzzed_decoder_has_its_bombs():
    """A decoder that is added to the fuzzer must be bombed as well."""
    elsewhere = {"consensus": "resent", "rpc": "json", "light rpc": "json"}
    small = {"hello", "hello proof", "script", "address"}
    for target in TARGETS:
        assert elsewhere.get(target.name, target.name) in DECODERS or target.name in small
