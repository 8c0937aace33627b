"""Members come and go on a running network of real processes: a fifth joins, one leaves.

In between two lose their memory, the fifth among them, and are released.
"""

import json
import shutil

import pytest
from click.testing import CliRunner

import cli
from genesis.authority import issue_node, load_authority, save_node
from ledger.addresses import AddressKind, decode_text
from ledger.votes import CERTIFICATE
from node.keystore import new_secret, save_key
from rpc import console
from rpc.client import glance

from .running import CLOCK, RealNetwork, foreground, free_ports, until
from .test_release import config, kanglian, voting


class Governed(RealNetwork):
    """A network with a folder for a fifth node, whose key no genesis names."""

    def __init__(self, directory):
        super().__init__(directory, 4)
        self.fifth = directory / "node4"
        shutil.copytree(directory / "node0", self.fifth)
        (self.fifth / "node.json").unlink()
        self.public = save_key(
            self.fifth / "node.json", new_secret(), AddressKind.NODE, None
        ).public
        now = console.utc(CLOCK.now_ms())
        root = load_authority(
            directory / "ca/authority.crt", directory / "ca/authority.key", None, now
        )
        address = decode_text(self.public.address)[1].hex()
        pair = issue_node(root, address, now)
        save_node(pair, self.fifth / "tls.crt", self.fifth / "tls.key", replace=True)
        port = free_ports(2)
        text = (self.fifth / "node.toml").read_text()
        text = text.replace('name = "node0"', 'name = "node4"\njoining = true', 1)
        text = text.replace(f"listen_port = {self.base_port}\n", f"listen_port = {port}\n")
        text = text.replace(f"listen_port = {self.base_port + 1}\n", f"listen_port = {port + 1}\n")
        address0 = self.address("node0")
        peer = ["", "[[p2p.peers]]", f'address = "{address0}"', 'host = "127.0.0.1"']
        peer.append(f"port = {self.base_port}\n")
        (self.fifth / "node.toml").write_text(text + "\n".join(peer))
        self.urls["node4"] = f"http://127.0.0.1:{port + 1}"

    def address(self, name):
        return next(node.address for node in self.genesis.nodes if node.name == name)

    def admin(self, organisation):
        name = f"admins/{organisation}.json" if organisation != "demo_hospital" else "account.json"
        return self.directory / name

    def member(self, *arguments):
        """`kanglian member …` on node0: what it prints as JSON."""
        command = ["--lang", "en", "member", *arguments, "--rpc", self.urls["node0"], "--json"]
        result = CliRunner().invoke(cli.main, [str(part) for part in command])
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def enact(self, *proposal):
        """Propose as the hospital, vote as two others; the height from which it holds."""
        key = ("--key", self.admin("demo_hospital"))
        number = self.member("propose", *proposal, *key)["proposal"]
        for organisation in ("demo_centre", "demo_regulator"):
            standing = self.member("vote", number, "--key", self.admin(organisation))
        assert standing["votes"] == standing["needed"] == 3
        assert self.member("show", number)["votes"][0] == "demo_hospital"
        return standing["from_height"]

    def signers(self, height):
        """The names of those whose precommits stand in the certificate that node0 keeps."""
        with self.client() as client:
            header = client.get_block_header(height=height)
            names = client.get_consensus()["validators"]
        certificate = CERTIFICATE.decode(bytes.fromhex(header["certificate"]))
        return {names[index] for index, _ in certificate.signatures}


@pytest.fixture
def network(tmp_path):
    return Governed(tmp_path)


def voted_since(network, name, height):
    """Register until a certificate of `height` or later holds the node's precommit."""

    def found():
        network.register(1_000 + network.look("node0")["height"])
        newest = network.look("node0")["height"]
        return any(name in network.signers(number) for number in range(height, newest + 1))

    return until(found, f"a certificate with the precommit of {name}")


def join(network):
    """The fifth is voted in, starts from nothing, and its precommit counts."""
    network.register(1)
    public = network.public.public_key.hex()
    options = ("--organisation", "demo_university", "--role", "master")
    joined = network.enact("add", "node4", public, *options)
    with foreground(network.fifth / "node.toml"):
        until(lambda: glance(network.urls["node4"]), "node4 answers")
        network.agree("node0", "node4")
        assert voted_since(network, "node4", joined)
        assert network.look("node4")["masters"] == 5
        assert network.member("list")["members"][-1]["name"] == "node4"
        return network.agree(*network.names, "node4")


def leave(network):
    """One is voted out: its links end, and no certificate holds its precommit any more."""
    left = network.enact("remove", network.address("node1"))
    network.register(3)
    staying = ("node0", "node2", "node3", "node4")
    until(lambda: network.look("node0")["height"] >= left, "the new set rules")
    until(lambda: network.look("node1")["peers"] == 0, "node1 has no links")
    for name in staying:
        with network.client(name) as client:
            assert "node1" not in [peer["name"] for peer in client.get_peers()["peers"]]
    network.register(4, "node4")
    look = network.agree(*staying)
    assert look["masters"] == 4
    heights = range(left, look["height"] + 1)
    assert "node1" not in set().union(*map(network.signers, heights))
    assert network.look("node1")["height"] < look["height"]


def lose_memory(network, tmp_path, *names):
    """With everybody stopped two of five masters lose their logs; statements release them."""
    for name in names:
        (network.directory / name / "data" / "consensus.wal").unlink()
    files = [tmp_path / f"{number}.json" for number in range(3)]
    for name, file in zip(("node0", "node1", "node4"), files, strict=True):
        kanglian("node", "statement", "--config", config(network, name), "--out", file)
    for name in names:
        release = ("node", "release-quarantine", "--config", config(network, name))
        said = kanglian(*release, *files)
        assert f"{name} votes again" in said
        # The university states by the fifth alone, which no genesis names.
        assert "Stated by: demo_centre, demo_hospital, demo_university" in said


def test_a_member_joins_votes_is_released_like_any_other_and_one_leaves(network, tmp_path):
    with network:
        before = join(network)
        network.kill(*network.names)
        lose_memory(network, tmp_path, "node3", "node4")
        network.start(*network.names)
        with foreground(network.fifth / "node.toml"):
            until(lambda: glance(network.urls["node4"]), "node4 answers again")
            until(lambda: voting(network, "node4"), "node4 votes again")
            assert network.register(2, "node2")["block_height"] > before["height"]
            leave(network)
