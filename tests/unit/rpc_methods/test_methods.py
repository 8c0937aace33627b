"""Every method over a chain in memory, through the JSON-RPC layer as a client meets it."""

import base64
import json
from contextlib import asynccontextmanager

import pytest
import trio

from contracts.accounts import NewAccount
from ledger.data_index import Registration, Root
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.proof import parse_proof, verify_registration
from ledger.transaction import Call, parse_transaction
from rpc.http import Request
from rpc.jsonrpc import Context, answer
from rpc.methods import Methods, build_app
from tests.unit.rpc_methods.memory_chain import TIME, MemoryNode, account_signer_of


@asynccontextmanager
async def no_place():
    yield


def ask(node, method, params=None):
    """The result or the error of one call."""

    async def main():
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params or {}}
        reply = await answer(json.dumps(body).encode(), Methods(node).registry(), Context(no_place))
        return json.loads(reply)

    document = trio.run(main)
    return document["error"] if "error" in document else document["result"]


def registration(marker: int = 1, level: int = 0) -> Registration:
    part = bytes([marker]) * 32
    return Registration(part, part, part, part, part, Root(0, level, part, part))


def register_wire(node, marker: int = 1, level: int = 0) -> bytes:
    signer = account_signer_of(node.genesis)
    return signer.call(
        "emr",
        0,
        "data_index",
        "register",
        registration(marker, level),
        now_ms=TIME,
        nonce=bytes([marker]) * 16,
    )


def text(wire: bytes) -> str:
    return base64.b64encode(wire).decode()


def id_of(node, wire: bytes) -> str:
    return parse_transaction(wire, node.chain).id.hex()


def test_getinfo_names_the_chain_and_counts_blocks_after_genesis():
    node = MemoryNode()
    node.decide()
    node.decide()

    info = ask(node, "getinfo")

    assert (info["height"], info["blocks"], info["masters"], info["mode"]) == (2, 2, 1, "flat")
    assert info["genesis_hash"] == node.chain.genesis_hash.hex()
    assert sorted(info) == [
        "blocks", "chain_id", "genesis_hash", "group", "height", "latest_block_hash",
        "latest_block_time", "lowest", "masters", "mode", "node", "operations", "peers", "pending",
        "protocol_version", "suite", "syncing", "transactions", "version",
    ]  # fmt: skip


def test_a_sent_transaction_is_pending_until_a_reply_names_its_height():
    node = MemoryNode(decides=False)
    wire = register_wire(node)
    params = {"transaction": text(wire), "wait": "commit", "timeout_ms": 20}

    assert ask(node, "send_transaction", params) == {"id": id_of(node, wire), "status": "pending"}
    node.decide()
    done = {"id": id_of(node, wire), "status": "OK", "block_height": 1}
    assert ask(node, "send_transaction", params) == done
    assert ask(node, "send_transaction", {"transaction": text(wire)}) == done


def test_an_envelope_whose_operations_differ_tells_the_status_of_each():
    node = MemoryNode()
    signer = account_signer_of(node.genesis)
    good = parse_transaction(register_wire(node, 1), node.chain).operations[0]
    bad = Call("data_index", "register", b"\x90")
    wire = signer.envelope("emr", 0, [good, bad], now_ms=TIME)

    sent = ask(node, "send_transaction", {"transaction": text(wire), "wait": "commit"})

    assert (sent["status"], sent["statuses"]) == ("PARTIAL", ["OK", "BAD_ARGUMENTS"])
    whole = ask(node, "get_transaction", {"id": sent["id"]})
    assert whole["receipt"] is None
    assert [one["status"] for one in whole["receipts"]] == ["OK", "BAD_ARGUMENTS"]
    second = whole["transaction"]["operations"][1]["id"]
    narrowed = ask(node, "get_transaction", {"id": second})
    assert narrowed["operation"] == 1
    assert narrowed["receipt"]["status"] == "BAD_ARGUMENTS"
    assert len(narrowed["transaction"]["operations"]) == 1


def test_one_bad_transaction_among_many_fails_alone():
    node = MemoryNode()
    good = register_wire(node)
    stranger = account_signer_of(node.genesis, bytes(31) + b"\x21").call(
        "emr", 0, "data_index", "register", registration(), now_ms=TIME
    )
    items = ask(
        node,
        "send_transactions",
        {"transactions": [text(good), text(stranger), text(b"\x01")], "wait": "commit"},
    )["transactions"]

    assert items[0] == {"id": id_of(node, good), "status": "OK", "block_height": 1}
    assert [item["error"]["kind"] for item in items[1:]] == ["unknown_account", "malformed"]


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [(Rejected(Reason.POOL_FULL), "pool_full"), (UnavailableError("no quorum"), "unavailable")],
)
def test_a_refusal_keeps_its_kind_alone_and_among_many(refusal, kind):
    node = MemoryNode()
    node.refuses = refusal
    wire = text(register_wire(node))

    assert ask(node, "send_transaction", {"transaction": wire})["data"]["kind"] == kind
    many = ask(node, "send_transactions", {"transactions": [wire]})
    assert many["transactions"][0]["error"]["kind"] == kind


def test_a_transaction_is_told_with_decoded_arguments_and_outputs():
    node = MemoryNode()
    wire = register_wire(node)
    ask(node, "send_transaction", {"transaction": text(wire)})

    view = ask(node, "get_transaction", {"id": id_of(node, wire)})

    operation = view["transaction"]["operations"][0]
    assert operation["arguments"]["head"] == "01" * 32
    assert (operation["contract"], operation["method"]) == ("data_index", "register")
    assert view["receipt"]["outputs"] == {"sequence": 0}
    assert view["receipt"]["events"][0]["values"] == ["01" * 32]
    assert (view["block_height"], view["index"]) == (1, 0)
    assert view["transaction"]["signed_by"] == node.genesis.accounts[0].address
    receipt = ask(node, "get_transaction_receipt", {"id": id_of(node, wire)})
    assert receipt["receipt"] == view["receipt"]


def test_an_unknown_id_is_not_found_and_says_whether_it_is_pending():
    node = MemoryNode(decides=False)
    wire = register_wire(node)
    ask(node, "send_transaction", {"transaction": text(wire)})

    pending = ask(node, "get_transaction", {"id": id_of(node, wire)})
    unknown = ask(node, "get_proof", {"id": "ab" * 32})

    common = {"kind": "not_found", "height": 0, "lowest": 1}
    assert pending["data"] == {**common, "id": id_of(node, wire), "pending": True}
    assert unknown["data"] == {**common, "id": "ab" * 32, "pending": False}
    assert "pending here" in pending["message"]


def test_an_id_that_is_no_hash_is_an_invalid_parameter():
    error = ask(MemoryNode(), "get_transaction", {"id": "AB" * 32})
    assert (error["code"], error["data"]["kind"]) == (-32602, "invalid_params")


def test_a_block_is_found_by_height_by_hash_and_as_the_newest():
    node = MemoryNode()
    wire = register_wire(node)
    ask(node, "send_transaction", {"transaction": text(wire)})

    by_height = ask(node, "get_block", {"height": 1})

    assert by_height["transactions"] == [id_of(node, wire)]
    assert ask(node, "get_block", {"hash": by_height["hash"]}) == by_height
    assert ask(node, "get_block") == by_height
    full = ask(node, "get_block", {"height": 1, "full": True})
    assert full["summaries"][0]["bytes"] == len(wire)


@pytest.mark.parametrize("params", [{"height": 0}, {"height": 7}, {"hash": "00" * 32}])
def test_a_block_that_does_not_exist_is_not_found(params):
    node = MemoryNode()
    node.decide()
    assert ask(node, "get_block", params)["data"]["kind"] == "not_found"


def test_a_block_is_named_by_height_or_hash_but_not_by_both():
    node = MemoryNode()
    node.decide()
    error = ask(node, "get_block", {"height": 1, "hash": "00" * 32})
    assert error["data"]["kind"] == "invalid_params"


def test_a_header_comes_with_the_bytes_and_the_certificate_that_decided_it():
    node = MemoryNode()
    node.decide()
    view = ask(node, "get_block_header", [1])
    block = node.found_block(1)
    assert bytes.fromhex(view["header_bytes"]) == block.header_bytes
    assert bytes.fromhex(view["certificate"]) == block.certificate
    assert view["header"]["height"] == 1


def test_a_proof_waits_for_the_next_header_and_then_verifies_offline():
    node = MemoryNode()
    wire = register_wire(node)
    ask(node, "send_transaction", {"transaction": text(wire)})

    early = ask(node, "get_proof", {"id": id_of(node, wire)})
    node.decide()
    document = ask(node, "get_proof", {"id": id_of(node, wire)})

    assert early["data"]["kind"] == "unavailable"
    assert early["data"]["retry_after_ms"] > 0
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    verdict = verify_registration(parse_proof(canonical), node.genesis)
    assert (verdict.height, verdict.registration) == (1, registration())


def test_a_read_answers_with_its_height():
    node = MemoryNode()
    node.decide()
    account = account_signer_of(node.genesis).account
    params = {"module": "system", "level": 0, "contract": "accounts", "method": "account"}

    named = ask(node, "call", {**params, "arguments": {"account": account.hex()}})
    listed = ask(node, "call", {**params, "arguments": [account.hex()]})

    found = {"organisation": "demo_hospital", "role": "admin", "script": account.hex()}
    assert named == listed == {"height": 1, "result": found}


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"method": "acount"}, "unknown_method"),
        ({"method": "add_account"}, "not_a_read"),
        ({"arguments": {"account": "00" * 32}}, "reverted"),
        ({"arguments": {"acount": "00" * 32}}, "malformed"),
        ({"arguments": [1, 2]}, "malformed"),
        ({"level": 3, "arguments": {"account": "00" * 32}}, "unknown_namespace"),
    ],
)
def test_a_read_that_cannot_be_is_refused_by_name(changes, kind):
    params = {"module": "system", "level": 0, "contract": "accounts", "method": "account"}
    assert ask(MemoryNode(), "call", {**params, **changes})["data"]["kind"] == kind


def test_peers_and_consensus_speak_of_a_height():
    node = MemoryNode()
    assert ask(node, "get_peers")["peers"][0]["name"] == "node1"
    assert ask(node, "get_consensus")["height"] == 1


def test_waiting_for_a_height_answers_with_what_was_reached():
    node = MemoryNode()
    node.decide()
    assert ask(node, "wait_height", {"height": 1}) == {"height": 1}
    assert ask(node, "wait_height", {"height": 5, "timeout_ms": 10}) == {"height": 1}


def test_the_description_names_every_method_with_its_parameters():
    description = ask(MemoryNode(), "rpc.discover")
    methods = {method["name"]: method for method in description["methods"]}
    assert sorted(methods) == [
        "call", "get_batches", "get_block", "get_block_header", "get_completeness_proof",
        "get_consensus", "get_event_proof", "get_header_proof", "get_headers",
        "get_history_extension", "get_history_proof", "get_log_proof", "get_old_header",
        "get_peers", "get_proof", "get_receipt_proof", "get_receipts", "get_state_proof",
        "get_transaction", "get_transaction_proof", "get_transaction_receipt",
        "get_validator_changes", "get_validators", "getinfo", "rpc.discover", "send_transaction",
        "send_transactions", "wait_height",
    ]  # fmt: skip
    sending = methods["send_transaction"]["params"]
    assert [(one["name"], one["required"]) for one in sending] == [
        ("transaction", True),
        ("wait", False),
        ("timeout_ms", False),
    ]
    assert all(method["summary"] for method in methods.values())


def test_health_is_503_while_the_node_syncs_and_metrics_are_bytes_of_the_node():
    node = MemoryNode()

    async def get(path):
        app = build_app(node, lambda: b"kanglian_height 0\n")
        return await app(Request("GET", path, "", b"", closes=False))

    healthy = trio.run(get, "/healthz")
    node.syncing = True
    syncing = trio.run(get, "/healthz")
    metrics = trio.run(get, "/metrics")

    assert (healthy.status, json.loads(healthy.body)) == (200, {"status": "ok", "height": 0})
    assert (syncing.status, json.loads(syncing.body)["status"]) == (503, "syncing")
    assert metrics.body == b"kanglian_height 0\n"
    assert metrics.content_type.startswith("text/plain")


def test_an_admin_may_add_an_account_through_the_same_door():
    node = MemoryNode()
    signer = account_signer_of(node.genesis)
    wire = signer.call(
        "system", 0, "accounts", "add_account", NewAccount(b"\x05" * 32, "member"), now_ms=TIME
    )
    sent = ask(node, "send_transaction", {"transaction": text(wire), "wait": "commit"})
    assert sent["status"] == "OK"
