"""The client against a front door on loopback, and against things that are none."""

import socket
import threading

import pytest

from ledger.addresses import AddressKind
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.limits import REPLAY_WINDOW_MS
from ledger.transaction import parse_transaction, verify_signatures
from node.keystore import new_secret, save_key
from rpc.client import Client, RpcFailure, account_signer, glance
from tests.unit.rpc_methods.memory_chain import (
    TIME,
    MemoryNode,
    account_signer_of,
    served,
    small_genesis,
)
from tests.unit.rpc_methods.test_methods import id_of, register_wire, registration


@pytest.fixture
def node():
    return MemoryNode()


@pytest.fixture
def url(node):
    with served(node) as address:
        yield address


def test_every_method_has_its_mirror(node, url):
    wire = register_wire(node)
    name = id_of(node, wire)
    with Client(url, node.genesis) as client:
        assert client.chain() == node.chain
        assert client.send_transaction(wire) == {"id": name, "status": "OK", "block_height": 1}
        assert client.send_transactions([wire])[0]["block_height"] == 1
        node.decide()
        assert client.get_proof(name) == node.made_proof(bytes.fromhex(name))
        assert client.get_transaction(name)["block_height"] == 1
        assert client.get_transaction_receipt(name)["id"] == name
        assert client.get_block(1)["transactions"] == [name]
        assert client.get_block_header(1)["height"] == 1
        assert client.get_peers()["height"] == 2
        assert client.get_consensus()["height"] == 3
        assert client.wait_height(2) == 2
        query = {"account": account_signer_of(node.genesis).account.hex()}
        answer = client.call("system", 0, "accounts", "account", query)
        assert answer["result"]["organisation"] == "demo_hospital"


def test_an_error_of_the_node_keeps_its_kind_and_its_data(url):
    with Client(url) as client, pytest.raises(RpcFailure) as failure:
        client.get_transaction("ab" * 32)
    assert failure.value.kind == "not_found"
    assert failure.value.data["pending"] is False


def test_a_node_of_another_chain_is_refused_when_a_genesis_is_given(url):
    with Client(url, small_genesis("another")) as client, pytest.raises(Rejected) as refusal:
        client.chain()
    assert refusal.value.reason is Reason.WRONG_CHAIN


def test_a_node_that_does_not_answer_is_named_with_what_to_do():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        with Client(url) as client, pytest.raises(UnavailableError) as error:
            client.getinfo()
    assert url in str(error.value)
    assert "is the node running" in str(error.value)
    assert glance(url) is None


@pytest.mark.parametrize("url", ["127.0.0.1:8", "https://h:1", "http://", "http://h:99999"])
def test_an_address_of_another_form_is_refused_before_anything_is_sent(url):
    with pytest.raises(UnavailableError, match="http://HOST:PORT"):
        Client(url)


def test_a_signed_transaction_verifies_and_is_never_valid_beyond_the_window(node):
    signer = account_signer_of(node.genesis)
    wire = signer.call(
        "emr", 0, "data_index", "register", registration(), now_ms=TIME, valid_for_ms=10**9
    )
    transaction = parse_transaction(wire, node.chain)
    verify_signatures(transaction, node.chain)
    assert transaction.body.valid_until == TIME + REPLAY_WINDOW_MS


def test_two_signings_of_the_same_call_are_two_transactions(node):
    signer = account_signer_of(node.genesis)
    arguments = ("emr", 0, "data_index", "register", registration())
    first, second = (signer.call(*arguments, now_ms=TIME) for _ in range(2))
    assert id_of(node, first) != id_of(node, second)


def test_a_signing_clock_never_lags_behind_the_chain(node, url):
    with Client(url) as client:
        assert client.signing_clock(lambda: 5)() == TIME
        assert client.signing_clock(lambda: TIME + 9)() == TIME + 9


def test_no_account_signs_with_the_key_of_a_node_and_no_repr_shows_a_secret(node, tmp_path):
    key = save_key(tmp_path / "node.json", new_secret(), AddressKind.NODE, None)
    with pytest.raises(Rejected):
        account_signer(key, node.chain)
    terminal = save_key(tmp_path / "terminal.json", new_secret(), AddressKind.TERMINAL, None)
    assert terminal.secret.hex() not in repr(account_signer(terminal, node.chain))


@pytest.mark.parametrize(
    "answer",
    [
        {"jsonrpc": "2.0", "id": 1, "error": "no"},
        {"jsonrpc": "2.0", "id": 1, "error": {"message": 7, "data": [1]}},
        {"jsonrpc": "2.0", "id": 1, "error": {"message": None, "data": {"kind": {}}}},
        {"jsonrpc": "2.0", "id": 2, "result": {}},
        {"jsonrpc": "2.0", "id": 1},
    ],
)
def test_an_answer_of_any_other_form_is_refused_by_name(answer, monkeypatch):
    with Client("http://127.0.0.1:1") as client:
        monkeypatch.setattr(client, "_post", lambda _body: answer)
        with pytest.raises((RpcFailure, UnavailableError)):
            client.getinfo()


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"a":' * 50_000, b"7", b'{"error":7}', b"\xff"])
def test_bytes_that_are_no_answer_are_refused_by_name(body):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"

        def serve():
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
                connection.sendall(head.encode() + body)

        thread = threading.Thread(target=serve)
        thread.start()
        with Client(url) as client, pytest.raises((UnavailableError, RpcFailure)):
            client.getinfo()
        thread.join()
