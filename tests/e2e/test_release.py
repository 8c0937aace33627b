"""Real nodes that lost their memory, second instances, and the commands that help."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.e2e.running import RealNetwork, foreground, until


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path, 4) as running:
        running.connected(*running.names)
        yield running


def kanglian(*arguments, language="en", code=0):
    """The output of a command; its errors are part of it."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "--lang", language, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stdout
    return done.stdout


def config(network, name):
    return network.directory / name / "node.toml"


def voting(network, name):
    with network.client(name) as client:
        return client.get_consensus()["voting"]


def test_a_chain_whose_half_lost_its_memory_waits_and_is_released(network, tmp_path):
    for number in range(3):
        network.register(number)
    height = network.agree()["height"]
    network.kill(*network.names)
    for name in ("node2", "node3"):
        (network.directory / name / "data" / "consensus.wal").unlink()
    network.start(*network.names)
    until(lambda: voting(network, "node0"), "node0 has heard the others")
    until(lambda: "quarantine" in network.log("node3"), "node3 has heard the others")
    assert not voting(network, "node3")
    network.kill(*network.names)

    files = [tmp_path / f"{name}.json" for name in network.names]
    for name, file in zip(network.names, files, strict=True):
        made = kanglian(
            "node", "statement", "--config", config(network, name), "--out", file, "--json"
        )
        facts = json.loads(made)
        assert (facts["height"], facts["is_damaged"]) == (height, name in ("node2", "node3"))
    release = ("node", "release-quarantine", "--config", config(network, "node2"))
    assert "too few organisations" in kanglian(*release, files[0], code=1)
    assert "not in quarantine" in kanglian(*release[:3], config(network, "node0"), *files, code=1)
    said = kanglian(*release, *files)
    assert f"node2 votes again at height {height + 1}" in said
    assert "WARNING: 2 intact and 2 damaged nodes" in said
    said = kanglian(*release[:3], config(network, "node3"), *files, language="zh")
    assert "2 个完好节点、2 个受损节点" in said

    network.start(*network.names)
    until(lambda: voting(network, "node3"), "node3 votes again")
    assert network.register(50, "node2")["status"] == "OK"
    assert network.agree()["operations"] == 4


def test_a_second_node_on_the_same_folder_fails_and_names_the_first(network, tmp_path):
    network.register(1)
    text = config(network, "node0").read_text()
    other = network.directory / "node1" / "twin.toml"
    shutil.copy(config(network, "node1"), other)
    data = (network.directory / "node0" / "data").as_posix()
    with foreground(
        other, {"KANGLIAN__NODE__DATA_DIR": data, "KANGLIAN__RPC__LISTEN_PORT": "1"}
    ) as process:
        output, _ = process.communicate(timeout=30)
    assert process.returncode == 3, output
    assert f"{data} is in use by process {network.pid('node0')}" in output
    assert text == config(network, "node0").read_text()
    said = kanglian(
        "node", "statement", "--config", config(network, "node0"), "--out", tmp_path / "s", code=3
    )
    assert "is in use by process" in said
    assert network.register(2)["status"] == "OK"


def test_an_old_copy_of_a_data_folder_does_not_vote_until_the_chain_is_past_it(network):
    network.register(1)
    network.agree()
    network.kill("node1")
    folder, copy = network.directory / "node1" / "data", network.directory / "copy"
    shutil.copytree(folder, copy)
    network.start("node1")
    network.connected(*network.names)
    for number in range(2, 6):
        network.register(number)
    network.agree()
    network.kill("node1")
    shutil.rmtree(folder)
    copy.rename(folder)
    network.start("node1")
    network.agree()
    until(lambda: "own_signature_unexplained" in network.log("node1"), "node1 finds itself")
    assert not voting(network, "node1")
    assert network.register(20, "node1")["status"] == "OK"
