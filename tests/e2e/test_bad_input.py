"""Bad input over real ports: each gets a named answer, and the network goes on as before."""

import http.client
import json
import secrets
import shutil
import socket
import subprocess
import sys
from datetime import UTC, datetime

import msgspec
import pytest

from genesis import authority
from genesis.networks import development_network, read_genesis
from ledger.addresses import AddressKind, decode_text, single_key_script
from ledger.codec import encode
from ledger.crypto.suites import INTERNATIONAL
from ledger.errors import Reason, Rejected
from ledger.limits import PROTOCOL_VERSION, REPLAY_WINDOW_MS, TRANSACTION_BYTES
from ledger.transaction import (
    Call,
    SignedTransaction,
    TransactionBody,
    operation_ids,
    parse_transaction,
)
from node.devnet import DevelopmentKeys
from node.keystore import load_public
from rpc.client import Client, RpcFailure, glance

from .checks import check_clean_logs
from .running import CLOCK, RealNetwork, foreground, free_ports, registration, until

STRANGERS_SCRIPT = single_key_script(
    AddressKind.TERMINAL, INTERNATIONAL.public_key(bytes(31) + b"\x01")
)


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    with RealNetwork(tmp_path_factory.mktemp("bad-input"), 4) as one:
        one.connected(*one.names)
        yield one


@pytest.fixture(autouse=True)
def works_afterwards(network):
    """Whatever a test did: four nodes, all linked, one state, and a registration goes through."""
    yield
    dead = [name for name in network.names if network.pid(name) is None]
    if dead:
        network.start(*dead)  # so that one bug does not fail every later test
        pytest.fail(f"{', '.join(dead)} ended: {network.log(dead[0])[-600:]}")
    assert network.register(secrets.randbits(60), "node1")["status"] == "OK"
    network.connected(*network.names)
    network.agree()


def changed(network, wire, **changes):
    """The wire with other fields in its body, signed again unless `script` or so says otherwise."""
    signed = msgspec.msgpack.decode(wire, type=SignedTransaction)
    body = msgspec.msgpack.decode(signed.body, type=TransactionBody)
    body = encode(msgspec.structs.replace(body, **changes))
    digest = INTERNATIONAL.digest(b"kl.transaction\0" + body)
    signature = INTERNATIONAL.sign(network.signer.secret, digest)
    return encode(msgspec.structs.replace(signed, body=body, signatures=((0, signature),)))


def tampered(wire):
    signed = msgspec.msgpack.decode(wire, type=SignedTransaction)
    ((index, signature),) = signed.signatures
    flipped = bytes([signature[0] ^ 1]) + signature[1:]
    return encode(msgspec.structs.replace(signed, signatures=((index, flipped),)))


def high_s(wire):
    order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
    signed = msgspec.msgpack.decode(wire, type=SignedTransaction)
    ((index, signature),) = signed.signatures
    high = order - int.from_bytes(signature[32:], "big")
    other = signature[:32] + high.to_bytes(32, "big")
    return encode(msgspec.structs.replace(signed, signatures=((index, other),)))


BAD_TRANSACTIONS = {
    "malformed": lambda net, wire: wire[:-1],
    "malformed: empty": lambda net, wire: b"",
    "malformed: more": lambda net, wire: wire + b"\0",
    "malformed: nested": lambda net, wire: b"\x91" * 5_000,
    "malformed: a claim of 4 G items": lambda net, wire: b"\xdd\xff\xff\xff\xff",
    # The body as bin 32 where bin 16 or 8 is the shortest form.
    "non_canonical": lambda net, wire: (
        b"\x94\xc6\x00\x00" + wire[2:] if wire[1] == 0xC5 else b"\x94\xc5\x00" + wire[2:]
    ),
    "too_large": lambda net, wire: changed(
        net,
        wire,
        payload=msgspec.structs.replace(
            parse_transaction(wire, net.signer.chain).body.payload,
            arguments=bytes(TRANSACTION_BYTES),
        ),
    ),
    "too_large: anything": lambda net, wire: bytes(600_000),
    "unsupported_version": lambda net, wire: changed(net, wire, version=PROTOCOL_VERSION + 1),
    "wrong_chain": lambda net, wire: changed(net, wire, genesis_hash=bytes(32)),
    "wrong_chain: group": lambda net, wire: changed(net, wire, group=1),
    "expired": lambda net, wire: changed(net, wire, valid_until=CLOCK.now_ms() - 1_000),
    "valid_too_far": lambda net, wire: changed(
        net, wire, valid_until=CLOCK.now_ms() + REPLAY_WINDOW_MS + 60_000
    ),
    "unknown_namespace": lambda net, wire: changed(net, wire, module="nowhere"),
    "unknown_namespace: level": lambda net, wire: changed(net, wire, level=9),
    "unknown_account": lambda net, wire: changed(net, wire, account=bytes(32)),
    "signer_not_current": lambda net, wire: changed(net, wire, signer=bytes(32)),
    "bad_signature": lambda net, wire: tampered(wire),
    "bad_signature: high s": lambda net, wire: high_s(wire),
    "bad_script": lambda net, wire: encode(
        msgspec.structs.replace(
            msgspec.msgpack.decode(wire, type=SignedTransaction), script=STRANGERS_SCRIPT
        )
    ),
    "bad_envelope": lambda net, wire: encode(
        msgspec.structs.replace(msgspec.msgpack.decode(wire, type=SignedTransaction), operations=())
    ),
}


@pytest.mark.parametrize("case", list(BAD_TRANSACTIONS))
def test_a_bad_transaction_is_refused_by_name_and_its_neighbours_go_through(network, case):
    kind = case.partition(":")[0]
    good = [network.registration(secrets.randbits(60)) for _ in range(2)]
    bad = BAD_TRANSACTIONS[case](network, network.registration(secrets.randbits(60)))
    before = network.agree()["operations"]
    with network.client() as client:
        with pytest.raises(RpcFailure) as failure:
            client.send_transaction(bad)
        assert failure.value.kind == kind
        items = client.send_transactions([good[0], bad, good[1]], "commit")
    assert [item.get("status") or item["error"]["kind"] for item in items] == ["OK", kind, "OK"]
    assert network.agree()["operations"] == before + 2


def test_the_same_transaction_again_answers_its_first_result_on_every_node(network):
    wire = network.registration(secrets.randbits(60))
    with network.client() as client:
        first = client.send_transaction(wire, "commit")
    before = network.agree()["operations"]
    for name in network.names:
        with network.client(name) as client:
            assert client.send_transaction(wire, "commit") == first
            twice = client.send_transactions([wire, wire], "commit")
            assert twice == [first, first]
    assert network.agree()["operations"] == before


def test_a_transaction_sent_to_all_nodes_at_once_runs_once(network):
    wire = network.registration(secrets.randbits(60))
    answers = []
    for name in network.names:
        with network.client(name) as client:
            client.send_transaction(wire)
    for name in network.names:
        with network.client(name) as client:
            answers.append(client.send_transaction(wire, "commit"))
    assert [answer["status"] for answer in answers] == ["OK"] * 4
    assert len({answer["block_height"] for answer in answers}) == 1
    with network.client() as client:
        assert client.get_proof(answers[0]["id"]).transaction


def test_an_envelope_is_answered_by_its_id_and_by_those_of_its_operations(network):
    numbers = [secrets.randbits(60) for _ in range(3)]
    calls = [Call("data_index", "register", encode(registration(n))) for n in numbers]
    calls.append(Call("data_index", "register", b"\xc0"))
    wire = network.signer.envelope("emr", 0, calls, now_ms=CLOCK.now_ms())
    ids = operation_ids(parse_transaction(wire, network.signer.chain), INTERNATIONAL)
    with network.client() as client:
        sent = client.send_transaction(wire, "commit", 5_000)
        assert (sent["status"], sent["statuses"]) == ("PARTIAL", ["OK"] * 3 + ["BAD_ARGUMENTS"])
        found = client.get_transaction_receipt(ids[1].hex())
        assert (found["operation"], found["receipt"]["status"]) == (1, "OK")
        assert client.get_proof(ids[2].hex()).operation == 2
        with pytest.raises(RpcFailure, match="not_successful"):
            client.get_proof(ids[3].hex())


@pytest.mark.parametrize(
    ("method", "params", "kind"),
    [
        ("nothing", {}, "method_not_found"),
        ("getinfo", {"extra": 1}, "invalid_params"),
        ("get_transaction", {}, "invalid_params"),
        ("get_transaction", {"id": "zz"}, "invalid_params"),
        ("get_transaction", {"id": "00" * 32}, "not_found"),
        ("get_proof", {"id": "00" * 32}, "not_found"),
        ("get_block", {"height": -1}, "invalid_params"),
        ("get_block", {"height": 10**15}, "not_found"),
        ("get_block", {"height": 0}, "not_found"),
        ("get_block", {"height": 1, "hash": "00" * 32}, "invalid_params"),
        ("send_transaction", {"transaction": "!!"}, "invalid_params"),
        ("send_transaction", {"transaction": "", "wait": "for ever"}, "invalid_params"),
        ("send_transactions", {"transactions": []}, "invalid_params"),
        ("send_transactions", {"transactions": [""] * 1_001}, "invalid_params"),
    ],
)
def test_unknown_methods_and_arguments_have_names(network, method, params, kind):
    with network.client() as client, pytest.raises(RpcFailure) as failure:
        client.request(method, **params)
    assert failure.value.kind == kind


@pytest.mark.parametrize(
    ("place", "arguments", "kind"),
    [
        (("emr", 0, "data_index", "nothing"), {}, "unknown_method"),
        (("emr", 0, "data_index", "register"), {}, "not_a_read"),
        (("emr", 9, "data_index", "entry"), {"sequence": 0}, "unknown_namespace"),
        (("emr", 0, "data_index", "entry"), {}, "malformed"),
        (("emr", 0, "data_index", "entry"), {"sequence": -1}, "malformed"),
        (("emr", 0, "data_index", "entry"), {"sequence": 2**62}, "reverted"),
        (("system", 0, "accounts", "account"), {"account": "00" * 32}, "reverted"),
        (("system", 0, "accounts", "account"), {"account": "00"}, "malformed"),
    ],
)
def test_reads_that_cannot_be_answered_have_names(network, place, arguments, kind):
    with network.client() as client, pytest.raises(RpcFailure) as failure:
        client.call(*place, arguments)
    assert failure.value.kind == kind


def test_every_entry_of_the_index_log_is_read(network):
    network.agree()
    with network.client() as client:
        for sequence in range(2):
            answer = client.call("emr", 0, "data_index", "entry", {"sequence": sequence})
            assert answer["result"]["sequence"] == sequence


def post(network, body, name="node0"):
    connection = http.client.HTTPConnection(network.urls[name].removeprefix("http://"), timeout=20)
    try:
        connection.request("POST", "/", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()
    except (ConnectionError, http.client.HTTPException) as error:
        return 0, repr(error).encode()
    finally:
        connection.close()


BOMBS = {
    "nested": b"[" * 100_000,
    "nested object": b'{"a":' * 100_000,
    "wide": b"[" + b"0," * 500_000 + b"0]",
    "number": b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":[' + b"9" * 5_000 + b"]}",
    "float": b'{"jsonrpc":"2.0","id":1e999,"method":"getinfo"}',
    "nan": b'{"jsonrpc":"2.0","id":NaN,"method":"getinfo"}',
    "twice": b'{"jsonrpc":"2.0","id":1,"method":"getinfo","method":"get_block"}',
    "surrogate": b'{"jsonrpc":"2.0","id":"\\ud800","method":"getinfo"}',
    "not utf-8": b'{"jsonrpc":"2.0","id":"\xff","method":"getinfo"}',
    "batch": b"[" + b'{"jsonrpc":"2.0","id":1,"method":"getinfo"},' * 100 + b"1]",
    "empty batch": b"[]",
    "empty": b"",
    "large": b'"' + b"a" * 5_000_000 + b'"',
}


@pytest.mark.parametrize("bomb", list(BOMBS))
def test_a_json_bomb_is_refused_by_name(network, bomb):
    status, body = post(network, BOMBS[bomb])
    if status == 0:
        assert bomb == "large"  # The node may hang up on what it will not read.
        return
    answer = json.loads(body)
    error = answer["error"]
    assert error.get("kind") or error["data"]["kind"]


def test_garbage_on_the_p2p_port_is_dropped(network):
    for data in (b"", b"GET / HTTP/1.1\r\n\r\n", secrets.token_bytes(4_096), b"\x16\x03\x01" * 9):
        with socket.create_connection(("127.0.0.1", network.base_port), timeout=10) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            link.settimeout(10)
            try:
                while link.recv(4_096):
                    pass
            except ConnectionError:
                continue
    assert network.look("node0")["peers"] == 3
    assert network.register(secrets.randbits(60))["status"] == "OK"


def test_many_silent_connections_do_not_keep_out_a_client(network):
    links = []
    try:
        for _ in range(100):
            links.append(socket.create_connection(("127.0.0.1", network.base_port), timeout=5))
            links.append(socket.create_connection(("127.0.0.1", network.base_port + 1), timeout=5))
        assert network.register(secrets.randbits(60))["status"] == "OK"
    finally:
        for link in links:
            link.close()


def intruder(network, folder):
    """Files of a node that claims to be node3, with this network's genesis and peers."""
    shutil.copytree(network.directory / "node3", folder / "node3")
    shutil.rmtree(folder / "node3" / "data")
    shutil.copy(network.directory / "genesis.json", folder / "genesis.json")
    shutil.copytree(network.directory / "ca", folder / "ca")
    return folder / "node3" / "node.toml"


def own_ports():
    port = free_ports(2)
    return {
        "KANGLIAN__P2P__LISTEN_PORT": str(port),
        "KANGLIAN__RPC__LISTEN_PORT": str(port + 1),
    }, port + 1


def test_a_node_with_a_certificate_of_another_authority_does_not_even_start(network, tmp_path):
    """That peers refuse such a link is shown in tests/integration/test_p2p.py."""
    config = intruder(network, tmp_path)
    now = datetime.fromtimestamp(CLOCK.now_ms() / 1000, UTC)
    root = authority.create_root("Another authority", now)
    address = load_public(config.parent / "node.json").address
    pair = authority.issue_node(root, decode_text(address)[1].hex(), now)
    authority.save_node(pair, config.parent / "tls.crt", config.parent / "tls.key", replace=True)
    command = [sys.executable, "-m", "cli", "node", "run", "--config", str(config)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "was not issued by the authority" in ended.stderr


def check_stays_alone(config, network):
    """The intruder runs for a while without a link, and the others work on without it."""
    environment, port = own_ports()
    before = network.look("node0")["peers"]
    with foreground(config, environment) as process:
        url = f"http://127.0.0.1:{port}"
        until(lambda: glance(url), "the intruder answers its own client")
        assert network.register(secrets.randbits(60))["status"] == "OK"
        assert network.register(secrets.randbits(60))["status"] == "OK"
        look = glance(url)
        assert (look["peers"], look["height"]) == (0, 0)
        assert network.look("node0")["peers"] <= before
        assert process.poll() is None


def test_a_node_of_another_chain_gets_no_link(network, tmp_path):
    """The same keys and certificates, another genesis."""
    config = intruder(network, tmp_path)
    path = tmp_path / "genesis.json"
    text = json.loads(path.read_text())
    text["chain_name"] = "Another chain"
    path.write_text(json.dumps(text))
    network.kill("node3")
    try:
        check_stays_alone(config, network)
    finally:
        network.start("node3")


def test_a_client_with_another_genesis_is_told(network, tmp_path):
    files = development_network(tmp_path, DevelopmentKeys(), CLOCK.now_ms(), 1, 12_000)
    with Client(network.urls["node0"], read_genesis(files.genesis)) as client:
        with pytest.raises(Rejected) as refusal:
            client.chain()
        assert refusal.value.reason is Reason.WRONG_CHAIN


def test_the_logs_of_all_nodes_stay_clean(network):
    """Runs with the others in any order: no traceback, no equivocation, no quarantine."""
    check_clean_logs(network)
