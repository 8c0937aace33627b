"""A backup beside a node that runs: only certificates count, of the tip and of the next header."""

import msgspec
import pytest

from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected, UnavailableError
from rpc import backups
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import GENESIS, certify

from .backups import grown, keep, replayed

URL = "http://127.0.0.1:1"


class Node:
    """What a node shows: headers and certificates by height."""

    def __init__(self, chain):
        self.height = chain.tip.height
        self.views = {height: view(chain.blocks.block(height)) for height in range(1, 6)}

    def __call__(self, url, genesis):
        assert (url, genesis) == (URL, GENESIS)
        return self

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def chain(self):
        pass

    def getinfo(self):
        return {"height": self.height}

    def get_block_header(self, height):
        return self.views[height]


def view(stored):
    header = BLOCK.decode(stored.block).header
    return {"header_bytes": header.hex(), "certificate": stored.certificate.hex()}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A backup that ends at height 4 of a chain of five."""
    folder = tmp_path_factory.mktemp("kept") / "backup"
    keep(grown(4), folder)
    return replayed(folder)


@pytest.fixture
def node(monkeypatch):
    chain = grown(4)
    chain.decide()
    one = Node(chain)
    monkeypatch.setattr(backups, "Client", one)
    return one


def check(found):
    return backups.check_live(URL, GENESIS, found)


def changed(node, height, **fields):
    """Another header of a height, decided by all validators."""
    header = HEADER.decode(bytes.fromhex(node.views[height]["header_bytes"]))
    data = encode(msgspec.structs.replace(header, **fields))
    certificate = certify(block_hash(data, SUITE), height)
    node.views[height] = {"header_bytes": data.hex(), "certificate": certificate.hex()}


def test_the_next_header_signs_the_state_of_the_tip(found, node):
    assert check(found)


def test_a_node_at_the_same_height_confirms_the_block_alone(found, node):
    node.height = 4
    assert not check(found)


def test_a_node_that_is_behind_cannot_say(found, node):
    node.height = 3
    with pytest.raises(UnavailableError, match="behind the backup"):
        check(found)


def test_another_certified_block_is_a_fork(found, node):
    changed(node, 4, time=1)
    with pytest.raises(Rejected, match="the chain has forked"):
        check(found)


@pytest.mark.parametrize(
    "field", ["state_root", "receipts_root", "replay_root", "history_root", "previous_hash"]
)
def test_a_next_header_that_leads_elsewhere_is_named(found, node, field):
    changed(node, 5, **{field: bytes(32)})
    with pytest.raises(Rejected) as refusal:
        check(found)
    assert refusal.value.reason == Reason.BAD_BACKUP


@pytest.mark.parametrize("height", [4, 5])
def test_what_a_node_says_without_a_quorum_is_not_believed(found, node, height):
    name = block_hash(bytes.fromhex(node.views[height]["header_bytes"]), SUITE)
    for certificate in (
        certify(name, height, signers=(0, 1)),
        certify(bytes(32), height),
        certify(name, height + 1),
    ):
        node.views[height]["certificate"] = certificate.hex()
        with pytest.raises(Rejected) as refusal:
            check(found)
        assert refusal.value.reason == Reason.BAD_CERTIFICATE


@pytest.mark.parametrize(
    "views", [{}, {"header_bytes": 1, "certificate": ""}, {"header_bytes": "x"}]
)
def test_what_is_no_header_is_refused(found, node, views):
    node.views[4] = views
    with pytest.raises(Rejected) as refusal:
        check(found)
    assert refusal.value.reason == Reason.MALFORMED
