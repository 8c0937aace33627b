"""A real node that joins from a snapshot: killed on the way, it ends where the others are."""

import shutil
import time

import pytest

from rpc.client import RpcFailure

from .running import RealNetwork, foreground, until

KILLS_S = (0.0, 0.02, 0.1)
"""So long after it began to fetch the joining node is killed."""


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path, 4) as one:
        one.connected(*one.names)
        yield one


def register_many(network, first, count):
    """So many registrations, which all stand in blocks; their bytes."""
    wires = [network.registration(number) for number in range(first, first + count)]
    with network.client() as client:
        answers = client.send_transactions(wires, "commit")
    assert {item["status"] for item in answers} == {"OK"}
    return wires


def forget_everything(network, name):
    for part in ("blocks", "bodies", "state", "consensus.wal"):
        path = network.directory / name / "data" / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def header(network, name, height):
    with network.client(name) as client:
        return client.get_block_header(height)


def test_a_node_that_lost_everything_joins_from_a_snapshot_and_takes_part(network):
    victim = network.names[3]
    config = network.directory / victim / "node.toml"
    known = [register_many(network, 1_000 * turn, 300)[0] for turn in range(5)]
    network.kill(victim)
    forget_everything(network, victim)
    config.write_text(config.read_text() + "\n[sync]\nsnapshot = true\n")
    for seconds in KILLS_S:
        with foreground(config) as process:
            said = next(line for line in process.stdout if '"join' in line or "node_ready" in line)
            time.sleep(seconds)
            process.kill()
    assert '"joining"' in said
    network.start(victim)
    register_many(network, 9_000, 50)
    network.agree()

    look = network.look(victim)
    assert look["lowest"] > 2
    for height in (look["lowest"], look["height"]):
        assert header(network, victim, height)["hash"] == header(network, "node0", height)["hash"]
    with network.client(victim) as client:
        with pytest.raises(RpcFailure, match=f"pruned.*lowest={look['lowest']}"):
            client.get_block(1)
        with pytest.raises(RpcFailure, match="it was executed before this node began"):
            client.send_transaction(known[0], "commit", 5_000)
        read = ("emr", 0, "data_index", "entry", {"sequence": 777})
        with network.client() as other:
            assert client.call(*read)["result"] == other.call(*read)["result"]
    # Past its quarantine it votes: the chain needs three of four, and another one is gone.
    until(lambda: _votes(network, victim), "it votes again", 60)
    network.kill(network.names[2])
    assert network.register(99_999, victim)["status"] == "OK"


def _votes(network, name):
    network.register(time.monotonic_ns())
    with network.client(name) as client:
        return client.get_consensus()["voting"]
