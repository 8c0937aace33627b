"""Configurations that work, and every way in which they do not, by the words people get to read."""

from pathlib import Path

import pytest

from node.config import (
    ConfigError,
    LogSection,
    NodeConfig,
    NodeSection,
    P2pSection,
    PeerAddress,
    RpcSection,
    TlsSection,
    load_config,
)

PEER = "kn1n0jl7muut2a4567lvzus0m0gjuy0tq0p0j9gxgca7c8afuh9fknqfxxuk4"
TEXT = f"""
[node]
name = "node0"
key_file = "node.json"
data_dir = "/var/lib/kanglian"
genesis_file = "../genesis.json"

[tls]
certificate_file = "tls.crt"
key_file = "tls.key"
authority_file = "ca.crt"

[p2p]
listen_host = "0.0.0.0"
listen_port = 26600

[[p2p.peers]]
address = "{PEER}"
host = "10.0.0.2"
port = 26600

[rpc]
listen_host = "127.0.0.1"
listen_port = 26601
"""


@pytest.fixture
def load(tmp_path):
    def write_and_load(text=TEXT, environment=None):
        path = tmp_path / "node.toml"
        path.write_text(text)
        return load_config(path, environment or {})

    return write_and_load


def problem_of(load, text=TEXT, environment=None) -> str:
    with pytest.raises(ConfigError) as error:
        load(text, environment)
    assert str(error.value.file) in str(error.value)
    return f"{error.value.problem} | {error.value.advice}"


def test_a_file_becomes_typed_values_with_paths_relative_to_it(load, tmp_path):
    assert load() == NodeConfig(
        node=NodeSection(
            name="node0",
            key_file=tmp_path / "node.json",
            data_dir=Path("/var/lib/kanglian"),
            genesis_file=tmp_path / "../genesis.json",
        ),
        tls=TlsSection(tmp_path / "tls.crt", tmp_path / "tls.key", tmp_path / "ca.crt"),
        p2p=P2pSection("0.0.0.0", 26600, (PeerAddress(PEER, "10.0.0.2", 26600),)),
        rpc=RpcSection("127.0.0.1", 26601),
        log=LogSection("auto", "info"),
    )


def test_the_environment_overrides_numbers_texts_paths_and_lists(load, tmp_path):
    environment = {
        "KANGLIAN__P2P__LISTEN_PORT": "7000",
        "KANGLIAN__P2P__PEERS": "[]",
        "KANGLIAN__RPC__LISTEN_HOST": "10",
        "KANGLIAN__NODE__PASSPHRASE_FILE": "secret.txt",
        "KANGLIAN__LOG__LEVEL": "debug",
        "KANGLIAN_PASSPHRASE": "is no override",
    }
    config = load(environment=environment)
    assert (config.p2p.listen_port, config.p2p.peers) == (7000, ())
    assert config.rpc.listen_host == "10"
    assert config.node.passphrase_file == tmp_path / "secret.txt"
    assert config.log == LogSection("auto", "debug")


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "listen_host",
            "listen_hots",
            "unknown key 'p2p.listen_hots' | did you mean 'listen_host'",
        ),
        ("[tls]", "[tsl]", "unknown key 'tsl' | did you mean 'tls'?"),
        ('host = "10.', 'hist = "10.', "unknown key 'p2p.peers[0].hist' | did you mean 'host'?"),
        ("26601", '"26601"', "rpc.listen_port: Expected `int`, got `str` | correct this key"),
        ("26601", "65536", "rpc.listen_port: Expected `int` <= 65535"),
        ("26601", "true", "rpc.listen_port: Expected `int`, got `bool`"),
        ('"node.json"', "7", "node.key_file"),
        ('"node.json"', '""', "node.key_file"),
        ('"node0"', '"Node 0"', "node.name: Expected `str` matching regex"),
        (PEER, PEER[:-1] + "x", "p2p.peers[0].address: wrong checksum"),
        (PEER, "kn1", "p2p.peers[0].address: expected 61 characters"),
        ("[rpc]", "[rpc", "is not TOML"),
        ('key_file = "tls.key"', "", "tls: Object missing required field `key_file`"),
    ],
)
def test_a_mistake_is_named_with_its_key_and_what_to_do(load, old, new, expected):
    assert expected in problem_of(load, TEXT.replace(old, new, 1))


def test_a_node_holds_all_blocks_and_executes_them_unless_it_is_told_otherwise(load):
    assert load(TEXT) == load(TEXT + "[sync]\nsnapshot = false\n[store]\nkeep_blocks = 0\n")
    told = load(TEXT + "[sync]\nsnapshot = true\n[store]\nkeep_blocks = 10000\n")
    assert (told.sync.snapshot, told.store.keep_blocks) == (True, 10_000)
    too_few = problem_of(load, TEXT + "[store]\nkeep_blocks = 9999\n")
    assert "store.keep_blocks is 9999, at least 10000" in too_few


def test_a_peer_stands_once(load):
    peer = TEXT[TEXT.index("[[p2p") : TEXT.index("[rpc]")]
    assert "p2p.peers[1].address stands twice" in problem_of(load, TEXT + peer)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("KANGLIAN__P2P__LISTEN", "1", "names no key | did you mean 'listen_port'"),
        ("KANGLIAN__PPP__LISTEN", "1", "names no table | did you mean 'p2p'?"),
        ("KANGLIAN__P2P__LISTEN_PORT", "many", "p2p.listen_port: Expected `int`, got `str`"),
        ("KANGLIAN__P2P", "1", "names no key"),
    ],
)
def test_a_wrong_override_is_named(load, variable, value, expected):
    assert expected in problem_of(load, environment={variable: value})


def test_a_missing_file_says_how_to_make_one(tmp_path):
    with pytest.raises(ConfigError, match="kanglian devnet up"):
        load_config(tmp_path / "absent.toml", {})


def test_a_file_of_other_bytes_is_no_configuration(tmp_path):
    path = tmp_path / "node.toml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is not TOML"):
        load_config(path, {})
    with pytest.raises(ConfigError, match="cannot be read"):
        load_config(tmp_path, {})
