"""Processes of a development network: whose they are, and how they end."""

import json
import os
import subprocess
import sys

import pytest

from genesis.networks import development_network
from ledger.errors import Rejected, UnavailableError
from node import devnet
from node.clock import SystemClock
from node.devnet import DevelopmentKeys, Devnet

OBEYS = "import time; time.sleep(60)"
IGNORES = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
    "print('ready', flush=True); time.sleep(60)"
)


@pytest.fixture
def net(tmp_path):
    network = development_network(tmp_path, DevelopmentKeys(), 1_790_000_000_000, 1, 26_600)
    one = Devnet(tmp_path, SystemClock())
    one.adopt(network)
    return one


@pytest.fixture
def stand_in(net):
    """Start a process that, by its command line, runs the configuration of node0."""
    started = []

    def start(code, config=None):
        path = str(config or (net.directory / "node0/node.toml").resolve())
        process = subprocess.Popen(
            [sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        if code is IGNORES:
            process.stdout.readline()
        write_pid(net, process.pid)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def write_pid(net, pid):
    path = net.directory / "devnet.json"
    state = json.loads(path.read_text())
    state["nodes"][0]["pid"] = pid
    path.write_text(json.dumps(state))


def pids(net):
    return [
        node["pid"] for node in json.loads((net.directory / "devnet.json").read_text())["nodes"]
    ]


def gone(pid):
    """Whether the process ended; it may have been taken off the process table already."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def test_the_state_file_has_absolute_paths_and_no_process(net):
    state = json.loads((net.directory / "devnet.json").read_text())
    assert state == {
        "genesis": str(net.directory.resolve() / "genesis.json"),
        "account_key": str(net.directory.resolve() / "account.json"),
        "nodes": [{"name": "node0", "rpc": "http://127.0.0.1:26601", "pid": None}],
    }


def test_a_pid_that_was_given_to_a_stranger_is_never_signalled(net, stand_in):
    stranger = stand_in(OBEYS, config="/another/node.toml")
    assert net.state().nodes[0].pid is None
    net.stop()
    with pytest.raises(UnavailableError, match="does not run"):
        net.kill("node0")
    assert stranger.poll() is None
    assert pids(net) == [None]


def test_a_node_is_asked_to_stop(net, stand_in):
    process = stand_in(OBEYS)
    assert net.state().nodes[0].pid == process.pid
    net.stop()
    assert gone(process.pid)
    assert pids(net) == [None]


def test_a_node_that_does_not_stop_is_ended(net, stand_in, monkeypatch):
    monkeypatch.setattr(devnet, "STOP_TIMEOUT_MS", 150)
    process = stand_in(IGNORES)
    net.stop()
    assert gone(process.pid)


def test_a_node_can_be_killed_at_once(net, stand_in):
    process = stand_in(IGNORES)
    net.kill("node0")
    assert gone(process.pid)
    assert pids(net) == [None]


def test_a_running_node_is_not_started_twice_and_keeps_its_pid(net, stand_in):
    process = stand_in(OBEYS)
    assert net.start().nodes[0].pid == process.pid
    network = development_network(net.directory, DevelopmentKeys(), 1_790_000_000_000, None, 26_600)
    net.adopt(network)
    assert pids(net) == [process.pid]


def test_readiness_asks_until_the_node_answers(net, stand_in):
    stand_in(OBEYS)
    answers = iter([False, False, True])
    ready = []
    net.wait_ready((), lambda _: next(answers), ready.append)
    assert ready == ["node0"]


def test_a_node_that_ends_at_once_is_reported_with_its_last_words(net, monkeypatch):
    monkeypatch.setenv("KANGLIAN__P2P__LISTEN_PORT", "1")
    (net.directory / "node0/node.toml").write_text("[node\n")
    net.start()
    with pytest.raises(UnavailableError, match=r"node0 ended at once: .*is not TOML"):
        net.wait_ready((), lambda _: False, print)
    assert net.state().nodes[0].pid is None


def test_an_unknown_node_is_refused_with_the_known_ones(net):
    with pytest.raises(Rejected, match=r"no node node9 .* it has node0"):
        net.kill("node9")


def test_a_folder_without_a_network_says_how_to_make_one(tmp_path):
    with pytest.raises(UnavailableError, match="kanglian devnet up"):
        Devnet(tmp_path / "empty", SystemClock()).state()


def test_a_damaged_state_file_is_named(net):
    (net.directory / "devnet.json").write_text("{")
    with pytest.raises(Rejected, match=r"devnet\.json"):
        net.state()


def test_overrides_of_the_environment_do_not_reach_the_nodes(net, monkeypatch):
    monkeypatch.setenv("KANGLIAN__NOT__KNOWN", "1")
    (net.directory / "genesis.json").write_text("{}")
    net.start()
    with pytest.raises(UnavailableError) as error:
        net.wait_ready((), lambda _: False, print)
    assert "KANGLIAN__NOT__KNOWN" not in str(error.value)
