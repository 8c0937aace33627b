"""Backups of a real network: made under load, verified, restored; the node takes part again."""

import json
import shutil
import subprocess
import sys
import time

import pytest

from .checks import check_nothing_lost
from .load import Load
from .running import RealNetwork, foreground, until


@pytest.fixture
def network(tmp_path):
    with RealNetwork(tmp_path / "net", 4) as one:
        one.connected(*one.names)
        yield one


def command(*words):
    return [sys.executable, "-P", "-m", "cli", "--lang", "en", "backup", *map(str, words)]


def backup(*words):
    """A command: its exit code, the document that it prints, and what it says."""
    done = subprocess.run(
        [*command(*words), "--json"], check=False, capture_output=True, text=True, timeout=120
    )
    said = done.stderr if done.returncode else done.stdout
    document = json.loads(said[said.index("{") :])
    return done.returncode, document, done.stderr


def refused(*words):
    """Exit code and kind of a refusal."""
    code, document, _ = backup(*words)
    return code, document["error"]["kind"]


def state_root(network, name, height):
    """The root of the state after a height, which the next header signs."""
    with network.client(name) as client:
        return client.get_block_header(height + 1)["header"]["state_root"]


def config(network, name):
    return network.directory / name / "node.toml"


def voting(network, name):
    with network.client(name) as client:
        return client.get_consensus()["voting"]


def test_a_node_is_restored_from_a_backup_that_was_made_while_all_wrote(network, tmp_path):
    kept, victim = tmp_path / "kept", network.names[3]
    data = network.directory / victim / "data"
    genesis = network.directory / "genesis.json"
    with Load(network) as load:
        until(lambda: len(load.acknowledged) > 100, "some load")
        code, made, said = backup("create", kept, "--config", config(network, "node1"))
        assert code == 0, said
        assert f"{made['height']} of {made['height']} blocks written" in said
        height = made["height"]
        until(lambda: network.look("node0")["height"] > height + 1, "the chain goes on")
        code, found, said = backup(
            "verify", kept, "--genesis", genesis, "--rpc", network.urls["node2"]
        )
        assert code == 0, said
        assert (found["height"], found["block_hash"]) == (height, made["block_hash"])
        assert found["live"] == {"url": network.urls["node2"], "confirms_state": True}
        assert found["state_root"] == state_root(network, "node2", height)

        assert refused("restore", kept, "--config", config(network, victim)) == (3, "unavailable")
        network.kill(victim)
        assert refused("restore", kept, "--config", config(network, victim)) == (1, "occupied")
        shutil.rmtree(data)
        code, restored, said = backup("restore", kept, "--config", config(network, victim))
        assert code == 0, said
        assert restored == {key: found[key] for key in restored}
        network.start(victim)
        until(lambda: voting(network, victim), "the restored node takes part again")
        load.stop()
    assert '"event": "quarantine"' in network.log(victim).split("node_ready")[-1]
    check_nothing_lost(network, load)
    newest = network.agree()["height"]
    assert len({state_root(network, name, newest - 1) for name in network.names}) == 1
    # Without node0 the three others decide only together.
    network.kill("node0")
    assert network.register(1, victim)["status"] == "OK"


def test_a_restore_that_is_killed_anywhere_is_refused_until_it_is_done_again(network, tmp_path):
    kept, victim = tmp_path / "kept", network.names[2]
    data = network.directory / victim / "data"
    for number in range(60):
        network.register(number)
    network.devnet.stop((victim,))
    assert backup("create", kept, "--config", config(network, victim))[0] == 0
    shutil.rmtree(data)
    mark, interrupted = data / "restoring.json", 0
    for kill in range(8):
        process = subprocess.Popen(
            command("restore", kept, "--config", config(network, victim)),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while not mark.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(0.03 * kill)
        process.kill()
        process.communicate()
        if mark.exists():
            interrupted += 1
            with foreground(config(network, victim)) as node:
                said, _ = node.communicate(timeout=30)
                assert node.returncode == 1
                assert "half_finished" in said
        if kill % 4 == 3:
            shutil.rmtree(data)
    assert interrupted > 3
    assert backup("restore", kept, "--config", config(network, victim))[0] == 0
    network.start(victim)
    network.agree()


def test_bad_backups_are_refused_by_name(network, tmp_path):
    kept, genesis = tmp_path / "kept", network.directory / "genesis.json"
    network.register(1)
    asked = ("create", kept, "--config", config(network, "node0"))
    assert backup(*asked)[0] == 0
    assert refused(*asked) == (1, "occupied")
    verify = ("verify", kept, "--genesis", genesis)
    assert backup(*verify)[0] == 0
    code, _, said = backup(*verify, "--rpc", "http://127.0.0.1:1")
    assert (code, "unavailable" in said) == (3, True)

    other = tmp_path / "other.json"
    other.write_text(genesis.read_text().replace('"group": 0', '"group": 1'))
    assert refused("verify", kept, "--genesis", other) == (1, "wrong_chain")

    chunk = kept / "00000001.chunk"
    content = chunk.read_bytes()
    chunk.write_bytes(content[:-1])
    code, document, _ = backup(*verify)
    assert (code, document["error"]["kind"]) == (1, "bad_backup")
    assert "file=00000001.chunk" in document["error"]["message"]
    chunk.write_bytes(content)
    (kept / "manifest.json").unlink()
    assert refused(*verify) == (1, "half_finished")
