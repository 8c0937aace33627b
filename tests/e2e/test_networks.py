"""Networks of one, four and seven nodes; nodes that die, come back, lose their data."""

import os
import shutil
import signal
import time

import pytest

from ledger.errors import Reason, Rejected
from ledger.proof import parse_proof, verify_registration

from .checks import check_clean_logs
from .running import RealNetwork, foreground, until


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path, 4) as one:
        one.connected(*one.names)
        yield one


@pytest.mark.parametrize("nodes", [1, 4, 7])
def test_a_network_of_any_size_agrees_and_proves(tmp_path, nodes):
    with RealNetwork(tmp_path, nodes) as network:
        network.connected(*network.names)
        answers = [network.register(n, network.names[n % nodes]) for n in range(5)]
        assert [answer["status"] for answer in answers] == ["OK"] * 5
        assert network.agree()["operations"] == 5
        with network.client(network.names[-1]) as client:
            proof = client.get_proof(answers[0]["id"]).to_json()
        check_clean_logs(network)
    verdict = verify_registration(parse_proof(proof), network.genesis)
    assert verdict.operation.hex() == answers[0]["id"]
    damaged = bytearray(proof)
    position = proof.index(b'"header"') + 40
    damaged[position] ^= 0x01
    with pytest.raises(Rejected) as refusal:
        verify_registration(parse_proof(bytes(damaged)), network.genesis)
    assert refusal.value.reason in {Reason.BAD_PROOF, Reason.BAD_CERTIFICATE, Reason.MALFORMED}


def test_one_of_four_may_die_and_with_two_dead_writing_waits(network):
    first = network.register(1)
    network.kill("node3")
    second = network.register(2)
    assert (first["status"], second["status"]) == ("OK", "OK")
    network.kill("node2")
    # What was under way may still end; then nothing does.
    waiting = [network.register(n, timeout_ms=1_500) for n in (3, 4)]
    assert waiting[-1] == {"id": waiting[-1]["id"], "status": "pending"}
    with network.client() as client:
        height = client.getinfo()["height"]
        assert client.wait_height(height + 1, timeout_ms=1_000) == height
    network.start("node2")
    assert network.register(5)["status"] == "OK"
    network.start("node3")
    facts = network.agree()
    assert facts["operations"] == 5
    for answer in (first, second, *waiting):
        for name in network.names:
            with network.client(name) as client:
                found = client.get_transaction_receipt(answer["id"])
            assert found["receipt"]["status"] == "OK"
            assert found["block_height"] == answer.get("block_height", found["block_height"])
    check_clean_logs(network)


def test_sigterm_ends_a_node_within_ten_seconds_with_code_0(tmp_path):
    network = RealNetwork(tmp_path, 1)
    with foreground(tmp_path / "node0" / "node.toml") as process:
        until(lambda: network.answers("node0"), "the node answers")
        network.register(1)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=10)
        assert process.returncode == 0, output
        assert time.monotonic() - began < 10
        assert "Traceback" not in output
    with network:
        assert network.look("node0")["operations"] == 1


def test_a_node_without_data_gets_everything_from_its_peers(network):
    for number in range(5):
        network.register(number)
    network.kill("node1")
    shutil.rmtree(network.directory / "node1" / "data")
    network.register(10)
    network.start("node1")
    assert network.agree()["operations"] == 6
    # What it signed before it lost everything is unknown, so it votes only some heights later.
    for number in range(11, 17):
        assert network.register(number, "node1")["status"] == "OK"
    assert network.agree()["operations"] == 12
    with network.client("node1") as client:
        until(lambda: client.get_consensus()["voting"], "node1 votes again")
    network.kill("node2")
    assert network.register(20, "node1")["status"] == "OK"


def test_a_node_without_its_log_does_not_vote_until_it_is_safe(network):
    for number in range(3):
        network.register(number)
    network.agree()
    network.kill("node1")
    (network.directory / "node1" / "data" / "consensus.wal").unlink()
    network.start("node1")
    until(lambda: "quarantine" in network.log("node1"), "node1 has heard the others")
    with network.client("node1") as client:
        assert client.get_consensus()["voting"] is False
        for number in range(10, 16):
            network.register(number)
        until(lambda: client.get_consensus()["voting"], "node1 votes again")
    network.agree()
    network.connected(*network.names)
    network.kill("node2")
    assert network.register(20)["status"] == "OK"


def test_a_second_restart_does_not_end_the_quarantine(network):
    network.register(1)
    network.agree()
    network.kill("node1")
    (network.directory / "node1" / "data" / "consensus.wal").unlink()
    network.start("node1")
    network.kill("node1")
    network.start("node1")
    with network.client("node1") as client:
        assert client.get_consensus()["voting"] is False


def test_a_damaged_log_is_set_aside_and_the_node_goes_into_quarantine(network):
    for number in range(3):
        network.register(number)
    network.agree()
    network.kill("node1")
    path = network.directory / "node1" / "data" / "consensus.wal"
    data = bytearray(path.read_bytes())
    data[30] ^= 0x01
    path.write_bytes(data)
    network.start("node1")
    assert path.with_suffix(".damaged-1").read_bytes() == bytes(data)
    with network.client("node1") as client:
        assert client.get_consensus()["voting"] is False
    assert network.register(9, "node1")["status"] == "OK"


def test_a_paused_node_catches_up_and_nobody_is_banned(network):
    network.register(1)
    pid = network.pid("node2")
    os.kill(pid, signal.SIGSTOP)
    try:
        for number in range(2, 12):
            network.register(number)
    finally:
        os.kill(pid, signal.SIGCONT)
    network.agree()
    check_clean_logs(network)
