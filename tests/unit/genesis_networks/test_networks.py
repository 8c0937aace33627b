"""Genesis files from descriptions, and whole development networks."""

import json
import stat
from datetime import UTC, datetime

import pytest

from genesis.authority import create_root, fingerprint, load_node
from genesis.networks import (
    development_network,
    genesis_of_description,
    read_genesis,
    write_genesis,
)
from genesis.private_files import PrivateFileError
from ledger.addresses import AddressKind
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.genesis import genesis_hash
from node.config import load_config
from node.devnet import DevelopmentKeys
from node.keystore import load_public

NOW_MS = 1_790_000_000_000
NOW = datetime.fromtimestamp(NOW_MS / 1000, UTC)


def make(directory, nodes=None, base_port=26_600, now_ms=NOW_MS):
    return development_network(directory, DevelopmentKeys(), now_ms, nodes, base_port)


def bytes_of(directory):
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("nodes", [1, 4, 7])
def test_a_network_has_everything_that_its_nodes_need(tmp_path, nodes):
    network = make(tmp_path, nodes)

    genesis = read_genesis(network.genesis)
    assert network.created
    assert [module.name for module in genesis.modules] == ["archive", "emr", "system", "trial"]
    assert genesis.authority == fingerprint((tmp_path / "ca/authority.crt").read_bytes()).hex()
    account = load_public(network.account_key)
    admins = {"demo_hospital": account.address} | {
        path.stem: load_public(path).address for path in (tmp_path / "admins").iterdir()
    }
    assert {one.organisation: one.address for one in genesis.accounts} == admins
    assert {one.role for one in genesis.accounts} == {"admin"}
    assert sorted(admins) == [organisation.id for organisation in genesis.organisations]
    assert len(genesis.nodes) == len(network.nodes) == nodes
    addresses = {node.name: node.address for node in genesis.nodes}
    for index, node in enumerate(network.nodes):
        config = load_config(node.config, {})
        assert config.node.name == node.name == f"node{index}"
        assert load_public(config.node.key_file).address == addresses[node.name]
        assert (config.p2p.listen_port, config.rpc.listen_port) == (
            26_600 + 2 * index,
            26_601 + 2 * index,
        )
        expected = {address for name, address in addresses.items() if name != node.name}
        assert {peer.address for peer in config.p2p.peers} == expected
        assert read_genesis(config.node.genesis_file) == genesis
        assert config.node.data_dir.is_dir()
        tls = config.tls
        load_node(tls.certificate_file, tls.key_file, tls.authority_file, NOW)
        assert stat.S_IMODE(node.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(network.genesis.stat().st_mode) == 0o644


def test_a_second_call_changes_no_byte(tmp_path):
    make(tmp_path)
    before = bytes_of(tmp_path)
    again = make(tmp_path, base_port=30_000, now_ms=NOW_MS + 5_000)
    assert not again.created
    assert len(again.nodes) == 4
    assert bytes_of(tmp_path) == before


def test_absent_certificates_and_configurations_are_written_anew(tmp_path):
    network = make(tmp_path)
    genesis = network.genesis.read_bytes()
    node = network.nodes[2]
    (node.directory / "tls.key").unlink()
    node.config.unlink()
    make(tmp_path)
    config = load_config(node.config, {}).tls
    load_node(config.certificate_file, config.key_file, config.authority_file, NOW)
    assert network.genesis.read_bytes() == genesis


@pytest.mark.parametrize("name", ["account.json", "node1/node.json"])
def test_a_lost_key_is_not_replaced_by_a_stranger(tmp_path, name):
    make(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(UnavailableError, match="restore the file"):
        make(tmp_path)
    assert not (tmp_path / name).exists()


def test_a_key_of_another_network_is_noticed(tmp_path):
    make(tmp_path)
    path = tmp_path / "node1/node.json"
    path.unlink()
    DevelopmentKeys().ensure(path, AddressKind.NODE)
    with pytest.raises(Rejected, match="is not a key of this network"):
        make(tmp_path)


@pytest.mark.parametrize(("nodes", "port"), [(2, 26_600), (3, 26_600), (4, 80), (4, 65_530)])
def test_an_impossible_network_leaves_no_file_behind(tmp_path, nodes, port):
    with pytest.raises(Rejected) as refusal:
        make(tmp_path, nodes, port)
    assert refusal.value.reason is Reason.BAD_GENESIS
    assert bytes_of(tmp_path) == {}


def test_a_network_of_another_size_is_left_alone(tmp_path):
    make(tmp_path, 4)
    before = bytes_of(tmp_path)
    with pytest.raises(Rejected, match="another size"):
        make(tmp_path, 7)
    assert bytes_of(tmp_path) == before


DESCRIPTION = """
chain_name = "示范康链"
group = 3
time = 1790000000000
authority_certificate = "authority.crt"

[[organisations]]
id = "second"
name = "第二医院"

[[organisations]]
id = "first"
name = "第一医院"

[[nodes]]
name = "alpha"
key = "{key}"
organisation = "first"

[[accounts]]
address = "{account}"
organisation = "second"
role = "admin"

[[modules]]
name = "system"
max_level = 0
contracts = ["accounts"]

[[modules]]
name = "emr"
max_level = 3
contracts = ["data_index"]

[parameters]
block_interval_ms = 100
"""


@pytest.fixture
def description(tmp_path):
    keys = DevelopmentKeys()
    key = keys.ensure(tmp_path / "node.json", AddressKind.NODE)
    keys.ensure(tmp_path / "account.json", AddressKind.TERMINAL)
    account = load_public(tmp_path / "account.json").address
    root = create_root("示范 CA", NOW)
    (tmp_path / "authority.crt").write_bytes(root.certificate_pem)
    path = tmp_path / "consortium.toml"
    path.write_text(DESCRIPTION.format(key=key.hex(), account=account))
    return path


def test_a_description_becomes_a_genesis_in_its_order(description, tmp_path):
    genesis = genesis_of_description(description, now_ms=0)

    assert [one.id for one in genesis.organisations] == ["first", "second"]
    assert [one.name for one in genesis.modules] == ["emr", "system"]
    assert genesis.nodes[0].address == load_public(tmp_path / "node.json").address
    assert (genesis.group, genesis.time, genesis.parameters.block_interval_ms) == (
        3,
        NOW_MS,
        100,
    )
    write_genesis(tmp_path / "genesis.json", genesis)
    assert genesis_hash(read_genesis(tmp_path / "genesis.json")) == genesis_hash(genesis)
    assert json.loads((tmp_path / "genesis.json").read_text())["chain_name"] == "示范康链"


def test_without_a_time_the_moment_of_building_counts(description):
    description.write_text(description.read_text().replace("time = 1790000000000", ""))
    assert genesis_of_description(description, now_ms=77).time == 77


def test_a_genesis_is_never_overwritten(description, tmp_path):
    genesis = genesis_of_description(description, now_ms=0)
    write_genesis(tmp_path / "genesis.json", genesis)
    with pytest.raises(PrivateFileError, match="exists already"):
        write_genesis(tmp_path / "genesis.json", genesis)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("chain_name", "chain_nam", "unknown field `chain_nam`"),
        ('organisation = "first"', 'organisation = "third"', "unknown key or organisation"),
        ('organisation = "second"', 'organisation = "third"', "unknown organisation"),
        ('key = "01', 'key = "zz', "key is not hexadecimal"),
        ('key = "01', 'key = "07', "unknown key or organisation"),
        ("[[nodes]]", "[[nodes", "consortium.toml"),
        ('id = "second"', 'id = "first"', "unique"),
        ("max_level = 3", "max_level = 256", "max_level"),
    ],
)
def test_a_wrong_description_is_refused_by_name(description, old, new, expected):
    text = description.read_text()
    assert old in text
    description.write_text(text.replace(old, new, 1))
    with pytest.raises(Rejected) as refusal:
        genesis_of_description(description, now_ms=0)
    assert refusal.value.reason is Reason.BAD_GENESIS
    assert expected in str(refusal.value)


def test_a_missing_certificate_is_named(description, tmp_path):
    (tmp_path / "authority.crt").unlink()
    with pytest.raises(PrivateFileError, match=r"authority\.crt: does not exist"):
        genesis_of_description(description, now_ms=0)
