"""The demonstration, with real processes: it holds, it repeats, and it leaves nothing running."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "bench.demo", "--records", "30"]
ENGLISH = {**os.environ, "LC_ALL": "C.UTF-8"}
CHINESE = {**os.environ, "LC_ALL": "zh_CN.UTF-8"}
LIMIT_S = 120


def demo(directory, environment):
    return subprocess.run(
        COMMAND,
        cwd=directory,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=LIMIT_S,
        check=False,
    )


def nodes_of(directory):
    """The pids of processes whose command line names a configuration below the folder."""
    prefix = os.fsencode(directory.resolve())
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = entry.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(item.startswith(prefix) and item.endswith(b"node.toml") for item in arguments):
            found.append(int(entry.parent.name))
    return found


def test_every_step_holds_and_a_second_run_replaces_the_first(tmp_path):
    first = demo(tmp_path, CHINESE)
    assert first.returncode == 0, first.stderr
    assert "登记记录 30 条" in first.stdout
    assert "record 改动一个字节" in first.stdout
    assert "bad_opening" in first.stdout
    genesis = (tmp_path / "demo-network/genesis.json").read_bytes()
    assert nodes_of(tmp_path) == []

    second = demo(tmp_path, ENGLISH)
    assert second.returncode == 0, second.stderr
    assert "30 records registered, each with a receipt OK" in second.stdout
    assert "holds the same state as the others" in second.stdout
    assert (tmp_path / "demo-network/genesis.json").read_bytes() != genesis
    assert len(list((tmp_path / "demo-network/records").iterdir())) == 30
    assert len(list((tmp_path / "demo-network/openings").glob("*.opening.json"))) == 30
    assert nodes_of(tmp_path) == []


def test_a_folder_that_somebody_else_made_is_left_alone(tmp_path):
    precious = tmp_path / "demo-network/letters.txt"
    precious.parent.mkdir()
    precious.write_text("dear")
    refused = demo(tmp_path, ENGLISH)
    assert refused.returncode == 3
    assert "demo-network was not made by the demonstration" in refused.stderr
    assert [item.name for item in precious.parent.iterdir()] == ["letters.txt"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_whoever_interrupts_it_finds_no_node_running(tmp_path, number):
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, env=ENGLISH, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + LIMIT_S
    while len(nodes_of(tmp_path)) < 4:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(number)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 130
    assert b"all nodes are stopped" in errors
    assert nodes_of(tmp_path) == []
