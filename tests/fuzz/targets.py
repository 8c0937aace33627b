"""What is fuzzed: every decoder at the edge of a node, with samples of what it accepts.

A target takes bytes and returns what its value re-encodes to, or None where the value has no bytes
of its own. It may raise the named errors of its family and nothing else; and what it accepts must
re-encode to exactly the bytes that came.
"""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from struct import Struct

import msgspec

from consensus.core import Core
from consensus.events import MessageReceived, StartHeight
from consensus.timeouts import Timeouts
from ledger.addresses import decode_text, encode_text, parse_script
from ledger.batch import build_batch, parse_batch
from ledger.block import BLOCK, HEADER, Block
from ledger.codec import Schema, encode
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import open_parts, parse_opening
from ledger.errors import KanglianError, PeerProtocolError, Rejected
from ledger.genesis import parse_genesis
from ledger.ids import Address, Height, ValidatorIndex
from ledger.light.documents import fork_json, parse_fork, parse_light_proof, parse_trust, trust_json
from ledger.light.history import OLD_HEADER, OldHeader
from ledger.light.trust import LIGHT_BLOCK
from ledger.merkle import root_of_leaves
from ledger.proof import parse_proof, verify_registration
from ledger.proofs.family import document_json, parse_document, verify_document
from ledger.receipts import RECEIPT
from ledger.snapshot import (
    WINDOW,
    Item,
    Kind,
    PlacedValue,
    RunItem,
    SubtreeItem,
    WindowBlock,
    WindowEntries,
    check_run,
    check_subtree,
)
from ledger.sparse import make_leaf, place_of
from ledger.state import LogEntry
from ledger.state_root import LogHead, log_leaves, value_digest
from ledger.store.port import Place
from ledger.transaction import SignedTransaction, operation_ids, parse_transaction
from ledger.votes import CERTIFICATE
from node import log_entries, wire
from node.log_records import make_record
from p2p.frames import LINK_LIMITS, FrameKind, FrameReader, encode_frame
from p2p.hello import Handshake, LinkFacts
from rpc import fhir
from rpc.gate import Gate
from rpc.http_messages import RequestReader
from rpc.jsonrpc import Context, answer
from rpc.methods import Methods
from tests.unit.ledger.worlds import (
    BOARD,
    CHAIN,
    GENESIS,
    HOSPITAL,
    SUITE,
    busy_batches,
    parts,
    secret,
    two_blocks,
)
from tests.unit.node_core.chains import GENESIS as CHANGING_GENESIS
from tests.unit.node_core.chains import LocalChain, make_transaction, register
from tests.unit.p2p.memory_transport import TestNode
from tests.unit.rpc_light.local_node import LocalNode
from tests.unit.rpc_methods.memory_chain import MemoryNode
from tests.vectors.light_vectors import HERE, fork_text, light_proof, trust_at

BLOCKS = two_blocks(busy_batches())
TRANSACTIONS = [one.wire for batch in BLOCKS.batches for one in batch.transactions]
BATCHES = [batch.wire for batch in BLOCKS.batches]
BLOCK_WIRE = encode(Block(BLOCKS.header, BLOCKS.certificate, (BLOCKS.batches[0].digest,)))
DIGEST, SIGNATURE = bytes(range(32)), bytes(64)
PUBLISHED = Path(__file__).parents[1] / "vectors/proofs-1.json"
DOCUMENTS = [item["text"].encode() for item in json.loads(PUBLISHED.read_text("utf-8"))["proofs"]]
DIGEST_OF = INTERNATIONAL.digest


@dataclass(frozen=True)
class Target:
    """A decoder, what it may raise, and how often its messages come."""

    name: str
    run: Callable[[bytes], bytes | Awaitable[None] | None]
    samples: list[bytes]
    refusals: tuple[type[KanglianError], ...] = (Rejected,)
    is_json: bool = False
    weight: int = 4


def _transaction(data: bytes) -> bytes:
    found = parse_transaction(data, CHAIN)
    operations = found.operations if found.is_envelope else None
    operation_ids(found, SUITE)
    return encode(SignedTransaction(encode(found.body), found.script, found.signatures, operations))


def _batch(data: bytes) -> bytes:
    found = parse_batch(data, CHAIN)
    return build_batch(found.header, found.signature, found.transactions)


def _schema(schema: Schema) -> Callable[[bytes], bytes]:
    return lambda data: encode(schema.decode(data))


def _block(data: bytes) -> bytes:
    block = BLOCK.decode(data)
    HEADER.decode(block.header)
    if block.certificate:
        CERTIFICATE.decode(block.certificate)
    return encode(block)


def _synced(data: bytes) -> bytes:
    response = wire.BLOCK_RESPONSE.decode(data)
    for item in response.blocks:
        _block(item.block)
        CERTIFICATE.decode(item.certificate)
    return encode(response)


def _core() -> Core:
    core = Core(Timeouts())
    everybody = tuple(ValidatorIndex(index) for index in range(4))
    core.step(StartHeight(Height(1), 4, ValidatorIndex(0), everybody))
    return core


def _consensus(data: bytes) -> bytes:
    """What the router hands to the core: messages of members for this height and the next."""
    resent, core = wire.RESENT.decode(data), _core()
    votes = [wire.signed_vote(vote) for vote in resent.votes]
    proposals = [wire.signed_proposal(proposal) for proposal in resent.proposals]
    for signed in (*proposals, *votes):
        if signed.message.height in (1, 2) and signed.message.sender < 4:
            core.step(MessageReceived(signed))
    again = wire.Resent(
        tuple(
            wire.proposal_message(signed.message, signed.signature, proposal.block)
            for signed, proposal in zip(proposals, resent.proposals, strict=True)
        ),
        tuple(wire.vote_message(signed.message, signed.signature) for signed in votes),
    )
    return encode(again)


def _frames(data: bytes) -> bytes:
    reader = FrameReader(LINK_LIMITS)
    frames = reader.feed(data)
    return b"".join(encode_frame(kind, payload) for kind, payload in frames) + bytes(reader._buffer)


ALICE, BOB = TestNode(1), TestNode(2)


def _handshake(node: TestNode, peer: TestNode) -> Handshake:
    facts = LinkFacts(node.certificate, peer.certificate, None)
    return Handshake(node.identity(ALICE, BOB), facts, nonce=bytes(32), height=Height(1))


OPENING = _handshake(BOB, ALICE).opening[1]
PROOF = _handshake(BOB, ALICE).receive(*_handshake(ALICE, BOB).opening)[1]


def _hello(data: bytes) -> None:
    _handshake(ALICE, BOB).receive(FrameKind.HELLO, data)


def _hello_proof(data: bytes) -> bytes:
    alice = _handshake(ALICE, BOB)
    alice.receive(FrameKind.HELLO, OPENING)
    alice.receive(FrameKind.HELLO_PROOF, data)
    return PROOF


_HEAD = Struct(">II")


def _log_file(data: bytes) -> bytes:
    """Intact records re-encode to what was read; a damaged rest is found or not, never believed."""
    behind = 0
    for end, entry in log_entries.entries_of(data):
        payload = encode(entry)
        assert data[end - len(payload) : end] == payload
        behind = end
    assert log_entries.read(data).intact == behind
    return data


def _log_of(entries: list[log_entries.Entry]) -> bytes:
    data = b""
    for entry in entries:
        data += make_record(encode(entry), len(data), 0)
    return data


VOTE = wire.VoteMessage(1, 1, 0, DIGEST, -1, 2, SIGNATURE)
NIL = wire.VoteMessage(2, 1, 3, None, -1, 1, SIGNATURE)
PROPOSAL = wire.ProposalMessage(1, 0, DIGEST, -1, 1, SIGNATURE, BLOCK_WIRE)
RESENT = wire.Resent((PROPOSAL,), (VOTE, NIL))


SUBTREE_ITEM = Item(int(Kind.SUBTREE), b"emr\0\0", "0f")
SNAPSHOT_REQUEST = wire.SnapshotRequest(9, 7, SUBTREE_ITEM, 4_096)
LEAF_ITEM = SubtreeItem(b"", (PlacedValue(b"\0path", b"value"),))
LEAF = make_leaf(DIGEST_OF, place_of(DIGEST_OF, b"\0path"), value_digest(DIGEST_OF, b"value"))
RUN_ITEM = RunItem((LogEntry(b"key", b"data"),), ())
RUN_HEAD = LogHead(1, 1, root_of_leaves(DIGEST_OF, log_leaves(DIGEST_OF, RUN_ITEM.entries)))
WINDOW_ITEM = (WindowBlock(3, 50, (WindowEntries("emr", 0, 1, bytes(32)),)),)


def _subtree(data: bytes) -> bytes:
    check_subtree(DIGEST_OF, "", LEAF, data)
    return data


def _run(data: bytes) -> bytes:
    check_run(DIGEST_OF, RUN_HEAD, 0, data)
    return data


SYNCED = wire.SyncedBlock(BLOCK_WIRE, BLOCKS.certificate)
ENTRIES = [
    log_entries.LoggedVote(encode(VOTE), own=True),
    log_entries.LoggedProposal(encode(PROPOSAL), own=False),
    log_entries.LoggedTimer(1, 0, 1),
    log_entries.LoggedWork(1),
    log_entries.LoggedBuilt(1, 0, DIGEST, BLOCK_WIRE),
    log_entries.LoggedChecked(1, 0, DIGEST, 0),
    log_entries.LoggedBatch(DIGEST, Place(1, 2, 3, 4), -1),
    log_entries.EndedHeight(1, 5, DIGEST),
    log_entries.LogMended(),
]


def _address(data: bytes) -> bytes:
    kind, address = decode_text(data.decode("utf-8", "surrogateescape"))
    return encode_text(kind, address).encode()


def _genesis(data: bytes) -> None:
    parse_genesis(data)


def _proof(data: bytes) -> bytes:
    proof = parse_proof(data)
    if int.from_bytes(sha256(data).digest()[:1], "big") < 16:
        verify_registration(proof, GENESIS)
    return proof.to_json() + data[len(data.rstrip(b"\n")) :]


def _document(data: bytes) -> bytes:
    document = parse_document(data)
    if int.from_bytes(sha256(data).digest()[:1], "big") < 16:
        verify_document(data, CHANGING_GENESIS)
    return document_json(document) + data[len(data.rstrip(b"\n")) :]


def _opening(data: bytes) -> bytes:
    return parse_opening(data).to_json() + data[len(data.rstrip(b"\n")) :]


def _fhir(data: bytes) -> None:
    for item in fhir.split(data):
        if item.data != data[item.start : item.end]:
            raise AssertionError("a slice is not the file's own bytes")


BUNDLE = msgspec.json.encode(
    {
        "resourceType": "Bundle",
        "entry": [
            {"fullUrl": "urn:1", "resource": {"resourceType": "Patient", "id": "p", "n": [1.50]}},
            {"resource": {"resourceType": "Observation", "id": "名", "v": {"a": None}}},
        ],
    }
)


def _trust(data: bytes) -> bytes:
    return trust_json(parse_trust(data)).removesuffix(b"\n" if data[-1:] != b"\n" else b"")


def _fork(data: bytes) -> bytes:
    again = fork_json(*parse_fork(data, CHAIN), CHAIN)
    return again.removesuffix(b"\n" if data[-1:] != b"\n" else b"")


def _light_proof(data: bytes) -> bytes:
    return parse_light_proof(data).to_json() + (b"\n" if data[-1:] == b"\n" else b"")


class _Door:
    """The methods of a node over a chain in memory; waits end at once by a mock clock."""

    def __init__(self, node: MemoryNode | LocalNode) -> None:
        self._registry = Methods(node).registry()
        self._gate = Gate()

    async def run(self, body: bytes) -> None:
        """Every answer is valid JSON-RPC, and never an internal error."""
        async with self._gate.place("fuzz") as place:
            reply = await answer(body, self._registry, Context(place.waiting, "fuzz"))
        if reply is None:
            return
        found = msgspec.json.decode(reply)
        for one in found if isinstance(found, list) else [found]:
            if one["jsonrpc"] != "2.0" or one.get("error", {}).get("code") == -32603:
                raise AssertionError(f"no answer to give: {reply[:200]!r}")


def _http(data: bytes) -> None:
    reader = RequestReader(1_000, 4_000)
    for start in range(0, len(data), 300):
        reader.feed(data[start : start + 300])
        if reader.held_bytes > 4_000 * (1 + len(reader.requests)) or reader.wanted_bytes < 1:
            raise AssertionError("a reader holds more than it may")


CALLS = [
    b'{"jsonrpc":"2.0","method":"getinfo","id":1}',
    b'{"jsonrpc":"2.0","method":"get_block","params":{"height":0,"full":true},"id":"a"}',
    b'{"jsonrpc":"2.0","method":"get_transaction","params":["%s"],"id":1.50}' % (b"ab" * 32),
    b'{"jsonrpc":"2.0","method":"wait_height","params":{"height":3,"timeout_ms":10},"id":null}',
    b'[{"jsonrpc":"2.0","method":"get_peers"},{"jsonrpc":"2.0","method":"get_proof","id":2}]',
    b'{"jsonrpc":"2.0","method":"call","params":{"module":"system","level":0,"contract":"accounts",'
    b'"method":"account","arguments":{"account":"%s"}},"id":7}' % (b"00" * 32),
    msgspec.json.encode(
        {
            "jsonrpc": "2.0",
            "id": 9,
            "method": "send_transactions",
            "params": {"transactions": [TRANSACTIONS[0], b"x"], "wait": "commit", "timeout_ms": 5},
        }
    ),
]
LIGHT_CALLS = [
    msgspec.json.encode({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
    for method, params in (
        ("get_headers", {"first": 1, "count": 2}),
        ("get_validator_changes", {"after": 0, "count": 2}),
        ("get_validators", {"height": 1}),
        ("get_old_header", {"height": 1, "under": 3}),
        ("get_history_extension", {"old": 1, "new": 3}),
        ("get_batches", {"height": 1, "first": 0}),
        ("get_receipts", {"height": 1, "first": 0}),
    )
]
POSTS = [
    b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
    % (len(body), body)
    for body in CALLS
] + [
    b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n[]\r\n0\r\nA: b\r\n\r\n",
    b"GET /healthz HTTP/1.1\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n",
]
RECEIPTS = [item for items in BLOCKS.receipts.values() for item in items]
OPENED = open_parts(SUITE, bytes(32), Address(HOSPITAL.address), secret("R"), parts(1)).to_json()
FRAMES = [
    encode_frame(FrameKind.VOTE, encode(VOTE)) + encode_frame(FrameKind.PING, b"12345678"),
    encode_frame(FrameKind.PROPOSAL, encode(PROPOSAL)) + b"\x00\x00",
    encode_frame(FrameKind.STATUS, b""),
]
PEER = (PeerProtocolError,)


def _light_node() -> LocalNode:
    local = LocalChain()
    local.run(make_transaction(register(1), 1, is_signed=True))
    for _ in range(3):
        local.decide()
    return LocalNode(local)


OLD = OldHeader(HERE.blocks[3].header, (bytes(32),) * 4)
LIGHT_PROOF = light_proof(BLOCKS.proof(BLOCKS.batches[0].transactions[0]))

TARGETS = (
    Target("transaction", _transaction, TRANSACTIONS, weight=12),
    Target("batch", _batch, BATCHES, weight=4),
    Target("header", _schema(HEADER), [BLOCKS.header, BLOCKS.next_header], weight=8),
    Target("block", _block, [BLOCK_WIRE], weight=8),
    Target("certificate", _schema(CERTIFICATE), [BLOCKS.certificate], weight=8),
    Target("receipt", _schema(RECEIPT), RECEIPTS, weight=8),
    Target("vote", _schema(wire.VOTE), [encode(VOTE), encode(NIL)], weight=12),
    Target("proposal", _schema(wire.PROPOSAL), [encode(PROPOSAL)], weight=8),
    Target("status", _schema(wire.STATUS), [encode(wire.StatusMessage(1, 0, 2))], weight=8),
    Target("batch request", _schema(wire.BATCH_REQUEST), [encode(wire.BatchRequest(9, DIGEST))]),
    Target("block request", _schema(wire.BLOCK_REQUEST), [encode(wire.BlockRequest(9, 1, 64))]),
    Target("block response", _synced, [encode(wire.BlockResponse(7, (SYNCED,)))]),
    Target("snapshot request", _schema(wire.SNAPSHOT_REQUEST), [encode(SNAPSHOT_REQUEST)]),
    Target("snapshot part", _schema(wire.SNAPSHOT_PART), [encode(wire.SnapshotPart(7, 3, b"abc"))]),
    Target("snapshot subtree", _subtree, [encode(LEAF_ITEM)]),
    Target("snapshot run", _run, [encode(RUN_ITEM)]),
    Target("snapshot window", _schema(WINDOW), [encode(WINDOW_ITEM)]),
    Target("consensus", _consensus, [encode(RESENT)], weight=8),
    Target("frames", _frames, FRAMES, PEER, weight=8),
    Target("hello", _hello, [OPENING], PEER),
    Target("hello proof", _hello_proof, [PROOF], PEER, weight=1),
    Target(
        "log record", _schema(log_entries.ENTRY), [encode(entry) for entry in ENTRIES], weight=8
    ),
    Target("log file", _log_file, [_log_of(ENTRIES), _log_of(ENTRIES[:1])]),
    Target("script", lambda data: parse_script(data) and None, [BOARD.script, HOSPITAL.script]),
    Target("address", _address, [HOSPITAL.text.encode()]),
    Target("genesis", _genesis, [msgspec.json.encode(GENESIS)], is_json=True, weight=2),
    Target(
        "proof",
        _proof,
        [BLOCKS.proof(BLOCKS.batches[0].transactions[0]).to_json()],
        is_json=True,
    ),
    Target("proof family", _document, DOCUMENTS, is_json=True),
    Target("opening", _opening, [OPENED], is_json=True),
    Target("fhir", _fhir, [BUNDLE], is_json=True),
    Target("rpc", _Door(MemoryNode(decides=False)).run, CALLS, (), is_json=True, weight=6),
    Target("light rpc", _Door(_light_node()).run, LIGHT_CALLS, (), is_json=True, weight=4),
    Target("light block", _schema(LIGHT_BLOCK), [encode(HERE.blocks[4])]),
    Target("old header", _schema(OLD_HEADER), [encode(OLD)]),
    Target("trust", _trust, [trust_json(trust_at(4)), trust_json(trust_at(4, 9))], is_json=True),
    Target("fork", _fork, [fork_text().encode()], is_json=True),
    Target("light proof", _light_proof, [LIGHT_PROOF.to_json()], is_json=True),
    Target("http", _http, POSTS, (), is_json=True),
)
