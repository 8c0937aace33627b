"""A node that cannot start says why, in one line, with an exit code that means something."""

import os
import shutil
import socket

import pytest

from ledger.addresses import AddressKind
from node.keystore import new_secret, save_key

from .running import RealNetwork, foreground, until

UNAVAILABLE, CONFIG, DAMAGED = 3, 4, 5


@pytest.fixture
def network(tmp_path):
    return RealNetwork(tmp_path, 1)


def ending(config, environment=None):
    """Exit code and output of a node that ends by itself."""
    with foreground(config, environment) as process:
        output, _ = process.communicate(timeout=30)
        return process.returncode, output


def check(config, code, *words, environment=None):
    found, output = ending(config, environment)
    assert found == code, output
    for word in words:
        assert word in output, output
    assert "Traceback" not in output


def test_a_data_folder_in_use(network):
    with network:
        ports = {"KANGLIAN__P2P__LISTEN_PORT": "1", "KANGLIAN__RPC__LISTEN_PORT": "1"}
        config = network.directory / "node0" / "node.toml"
        check(config, UNAVAILABLE, "in use by process", "data", environment=ports)
        assert network.register(1)["status"] == "OK"


@pytest.mark.parametrize("offset", [0, 1])
def test_a_port_in_use(network, offset):
    port = network.base_port + offset
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        check(network.directory / "node0" / "node.toml", UNAVAILABLE, str(port))
    with network:
        assert network.register(1)["status"] == "OK"


def test_a_missing_config(network):
    check(network.directory / "node0" / "absent.toml", CONFIG, "absent.toml")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("= nonsense", ("not TOML",)),
        ("[node]\nnme = 'x'\n", ("nme", "name")),
        ("[node]\nname = 'node0'\n", ("key_file",)),
    ],
)
def test_a_damaged_config(network, text, words):
    config = network.directory / "node0" / "node.toml"
    config.write_text(text)
    check(config, CONFIG, "node.toml", *words)


@pytest.mark.parametrize("damage", ["missing", "empty", "cut"])
@pytest.mark.parametrize(
    ("file", "word"),
    [
        ("genesis.json", "genesis"),
        ("node0/node.json", "node.json"),
        ("ca/authority.crt", "authority.crt"),
    ],
)
def test_a_missing_or_damaged_file_is_named(network, file, word, damage):
    spoil(network.directory / file, damage)
    check(network.directory / "node0" / "node.toml", CONFIG, word)


def test_an_authority_that_genesis_does_not_name(network, tmp_path_factory):
    other = RealNetwork(tmp_path_factory.mktemp("other"), 1)
    path = network.directory / "ca" / "authority.crt"
    path.unlink()
    shutil.copy(other.directory / "ca" / "authority.crt", path)
    check(network.directory / "node0" / "node.toml", CONFIG, "authority.crt", "genesis names")


@pytest.mark.parametrize("file", ["node0/tls.crt", "node0/tls.key"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_a_missing_or_empty_file_of_a_link_is_named(network, file, damage):
    path = network.directory / file
    spoil(path, damage)
    code, output = ending(network.directory / "node0" / "node.toml")
    assert code in {UNAVAILABLE, CONFIG}, output
    assert path.name in output


def spoil(path, damage):
    """Take a file away, empty it, or cut it in half; its mode stays."""
    data, mode = path.read_bytes(), path.stat().st_mode
    path.unlink()
    if damage != "missing":
        path.write_bytes(b"" if damage == "empty" else data[: len(data) // 2])
        path.chmod(mode)


def test_a_wrong_passphrase(network, tmp_path):
    directory = network.directory / "node0"
    (directory / "node.json").unlink()
    save_key(directory / "node.json", new_secret(), AddressKind.NODE, "correct horse")
    secret = tmp_path / "passphrase"
    secret.write_text("wrong horse\n")
    secret.chmod(0o600)
    environment = {"KANGLIAN__NODE__PASSPHRASE_FILE": str(secret)}
    check(directory / "node.toml", CONFIG, "node.json", "passphrase", environment=environment)


def test_a_key_that_genesis_does_not_name(network):
    directory = network.directory / "node0"
    (directory / "node.json").unlink()
    save_key(directory / "node.json", new_secret(), AddressKind.NODE, None)
    check(directory / "node.toml", CONFIG, "allow-list")


def test_stores_of_another_chain_are_refused(network, tmp_path_factory):
    with network:
        network.register(1)
    other = RealNetwork(tmp_path_factory.mktemp("other"), 1)
    data = other.directory / "node0" / "data"
    shutil.rmtree(data)
    shutil.copytree(network.directory / "node0" / "data", data)
    code, output = ending(other.directory / "node0" / "node.toml")
    assert code == CONFIG, output
    assert "of another chain" in output
    assert "Traceback" not in output


def test_a_data_folder_without_permission(network):
    if os.geteuid() == 0:
        pytest.skip("permissions do not bind the superuser")
    data = network.directory / "node0" / "data"
    data.chmod(0o500)
    try:
        check(network.directory / "node0" / "node.toml", UNAVAILABLE, "data")
    finally:
        data.chmod(0o700)


def test_a_store_that_rotted_stops_the_node_and_is_not_repaired(network):
    with network:
        for number in range(3):
            network.register(number)
    logs = list((network.directory / "node0" / "data" / "state").glob("*.log"))
    path = max(logs, key=lambda one: one.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0x10
    path.write_bytes(data)
    with foreground(network.directory / "node0" / "node.toml") as process:
        until(lambda: process.poll() is not None, "the node ends", 20)
        output = process.stdout.read()
    assert process.returncode == DAMAGED, output
    assert "the store state is damaged" in output
    assert path.read_bytes() == bytes(data)
