"""`Client(url, trust=…)` over sockets: witnesses are asked, trust is kept, forks are raised."""

from dataclasses import replace

import pytest

from ledger.errors import Reason, Rejected
from ledger.light.documents import parse_trust
from rpc.client import Client
from rpc.light.follow import ForkFoundError
from rpc.light.keeper import TrustKeeper, read_trust
from tests.unit.node_core.chains import CHAIN, GENESIS
from tests.unit.rpc_light.callers import NOW, keeper
from tests.unit.rpc_light.local_node import LocalNode
from tests.unit.rpc_light.test_light_commands import forked, register_one
from tests.unit.rpc_light.worlds import World
from tests.unit.rpc_methods.memory_chain import served, small_genesis


def test_a_trust_file_moves_with_the_client_and_is_read_back(tmp_path):
    path = tmp_path / "trust.json"
    node = LocalNode(World().local)
    with served(node) as url:
        started = keeper()
        with Client(url, trust=started) as client:
            client.getinfo()
        TrustKeeper(started.trust, lambda: NOW, path).save()
        name = register_one(node, 40)
        with Client(url, GENESIS, trust=TrustKeeper.of_file(path, lambda: NOW)) as client:
            assert client.chain() == CHAIN
            assert client.get_transaction(name)["block_height"] == node.height - 1
            assert client.signing_clock(lambda: 5)() == client.getinfo()["latest_block_time"]
    assert read_trust(path) == parse_trust(path.read_bytes())
    assert read_trust(path).trusted.height == node.height


def test_witnesses_of_the_trust_are_asked_and_a_fork_is_raised():
    one, other = forked()
    with served(one) as url, served(other) as witness:
        with Client(url, trust=keeper(witnesses=(witness,))) as client:
            with pytest.raises(ForkFoundError) as fork:
                client.get_block(1)
            assert fork.value.nodes == (url, witness)
        # A node is no witness of itself.
        with Client(url, trust=keeper(witnesses=(url,))) as client:
            assert client.get_block(1)["height"] == 1


def test_a_trust_of_another_chain_than_the_genesis_is_refused_before_anything_is_asked():
    with pytest.raises(Rejected) as refusal:
        Client("http://127.0.0.1:1", small_genesis("another"), trust=keeper())
    assert refusal.value.reason is Reason.WRONG_CHAIN


def test_a_node_of_another_chain_shows_nothing_that_is_believed():
    with served(LocalNode(World().local)) as url:
        strange = keeper()
        other = replace(strange.trust.chain, genesis_hash=bytes(32))
        strange.trust = replace(strange.trust, chain=other)
        with Client(url, trust=strange) as client, pytest.raises(Rejected) as refusal:
            client.getinfo()
        assert refusal.value.reason is Reason.BAD_CERTIFICATE
        assert url in str(refusal.value)
