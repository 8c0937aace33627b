"""A light client beside four real nodes: members change, one node lies, a proof grows old."""

import json

import pytest
from click.testing import CliRunner

import cli
from ledger.errors import Reason, Rejected
from rpc.client import Client
from rpc.light.keeper import TrustKeeper

from .lying_proxy import lying
from .running import CLOCK
from .test_membership import Governed

REFUSALS = {Reason.BAD_PROOF, Reason.BAD_CERTIFICATE, Reason.MALFORMED, Reason.NON_CANONICAL}


def light(*arguments, code=0):
    """`kanglian light … --json`: what it prints."""
    command = ["--lang", "en", "light", *arguments, "--json"]
    result = CliRunner().invoke(cli.main, [str(part) for part in command])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if code == 0 else json.loads(result.stderr.splitlines()[-1])


def bent(value):
    """A value that differs from the true one."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return value[:-1] + ("0" if value[-1:] != "0" else "1")
        case None:
            return 0
        case list():
            return value[:-1] if value else [0]
        case _:
            return {**value, "extra": 1}


def check_every_lie(client, url_lies, name, wire):
    """Each member of each answer is bent once, and refused."""
    asked = {
        "get_transaction": lambda: client.get_transaction(name),
        "get_transaction_receipt": lambda: client.get_transaction_receipt(name),
        "get_block": lambda: client.get_block(1),
        "get_block_header": lambda: client.get_block_header(1),
        "get_proof": lambda: client.get_proof(name),
        "send_transaction": lambda: client.send_transaction(wire, "commit"),
    }
    count = 0
    for method, ask in asked.items():
        honest = {}
        url_lies.method = method
        url_lies.change = lambda result, seen=honest: seen.update(result) or result
        ask()
        assert honest
        for member in honest:
            url_lies.change = lambda result, m=member: {**result, m: bent(result[m])}
            with pytest.raises(Rejected) as caught:
                ask()
            assert caught.value.reason in REFUSALS, (method, member)
            count += 1
    url_lies.method = ""
    return count


def test_a_light_client_follows_changes_and_refuses_every_lie(tmp_path):
    network = Governed(tmp_path)
    state, old, led = (tmp_path / name for name in ("trust.json", "old.json", "led.json"))
    with network:
        wire = network.registration(1)
        with network.client() as client:
            sent = client.send_transaction(wire, "commit")
            old.write_bytes(client.get_proof(sent["id"]).to_json())
        follow = ("sync", "--rpc", network.urls["node0"], "--state", state)
        begin = ("--genesis", tmp_path / "genesis.json", "--witness", network.urls["node1"])
        first = light(*follow, *begin)
        assert (first["changes"], first["witnesses"][0]["standing"]) == (0, "agrees")

        public = network.public.public_key.hex()
        options = ("--organisation", "demo_university", "--role", "master")
        network.enact("add", "node4", public, *options)
        network.register(2)
        network.register(3)
        second = light(*follow)
        assert (second["changes"], second["validators"]) == (1, 5)
        assert second["height"] > first["height"]
        network.enact("remove", network.public.address)
        network.register(4)
        network.register(5)
        third = light(*follow, "--sequential")
        assert (third["changes"], third["validators"]) == (1, 4)
        assert third["headers"] == third["height"] - second["height"]

        assert light("verify", old, "--state", state, code=3)["error"]["kind"] == "unavailable"
        anywhere = ("--rpc", network.urls["node3"], "--out", led)
        assert light("verify", old, "--state", state, *anywhere)["operation"] == sent["id"]
        assert light("verify", led, "--state", state)["operation"] == sent["id"]
        got = light("get", sent["id"], "--rpc", network.urls["node2"], "--state", state)
        assert got["height"] == sent["block_height"]

        keeper = TrustKeeper.of_file(state, CLOCK.now_ms)
        with lying(network.urls["node2"]) as (url, lies), Client(url, trust=keeper) as client:
            assert client.getinfo()["masters"] == 4
            assert client.get_transaction(sent["id"])["block_height"] == sent["block_height"]
            fresh = client.send_transaction(network.registration(6), "commit")
            assert fresh["block_height"] > third["height"]
            assert check_every_lie(client, lies, sent["id"], wire) > 25
            late = TrustKeeper(keeper.trust, lambda: CLOCK.now_ms() + 700_000)
            with Client(network.urls["node2"], trust=late) as other, pytest.raises(Rejected) as old:
                other.getinfo()
            assert old.value.reason is Reason.STALE
