"""A damaged store of a real node: the start refuses by name, a rebuild makes it good."""

import json
import shutil
import subprocess
import sys

import pytest

from .checks import check_nothing_lost
from .load import Load
from .running import RealNetwork, foreground, until


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path, 4) as one:
        one.connected(*one.names)
        yield one


def kanglian(*words):
    """A command: its exit code, what it prints and what it says."""
    done = subprocess.run(
        [sys.executable, "-P", "-m", "cli", "--lang", "en", *map(str, words)],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def largest(folder, pattern):
    return max(folder.glob(pattern), key=lambda one: one.stat().st_size)


def refused(config):
    """What a start says that ends by itself, with the code of a damaged store."""
    with foreground(config) as process:
        said, _ = process.communicate(timeout=30)
        assert process.returncode == 5, said
    return said


def test_a_node_with_damaged_stores_is_refused_rebuilt_and_catches_up(network):
    victim = network.names[3]
    config = network.directory / victim / "node.toml"
    data = network.directory / victim / "data"
    with Load(network) as load:
        until(lambda: len(load.acknowledged) > 150, "some load")
        network.kill(victim)

        flip(largest(data / "state", "*.log"))
        said = refused(config)
        assert "the store state is damaged: MANIFEST" in said
        assert "kanglian node rebuild --config FILE --store state" in said
        code, out, said = kanglian("node", "rebuild", "--config", config, "--store", "state")
        assert (code, "state is at height" in out) == (0, True), said
        code, out, said = kanglian("node", "scrub", "--config", config, "--json")
        assert (code, json.loads(out)["height"] > 0) == (0, True), said
        network.start(victim)
        until(lambda: network.look(victim)["height"] >= network.look("node0")["height"] - 5, "near")

        network.kill(victim)
        shutil.rmtree(data / "bodies")
        shutil.rmtree(data / "blocks")
        assert "blocks are lost" in refused(config)
        code, out, said = kanglian(
            "node", "rebuild", "--config", config, "--store", "blocks", "--json"
        )
        assert code == 0, said
        voting_from = json.loads(out)["voting_from"]
        assert voting_from > 3
        network.start(victim)
        until(lambda: network.look(victim)["height"] > voting_from, "past its quarantine")
        load.stop()
    check_nothing_lost(network, load)
    # The chain needs three of four: without this node's vote it would now stand still.
    network.kill(network.names[2])
    assert network.register(999_999)["status"] == "OK"
    for name in (*network.names[:2], victim):
        assert network.metric(name, "kanglian_equivocations_total") == 0
