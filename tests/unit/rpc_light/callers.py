"""Clients of a chain in memory: they meet the JSON-RPC layer and no socket."""

import json

import trio

from rpc.client import Client
from rpc.failure import RpcFailure
from rpc.jsonrpc import Context, answer
from rpc.light.keeper import TrustKeeper
from rpc.methods import Methods
from tests.unit.node_core.chains import GENESIS, TIME
from tests.unit.rpc_methods.test_methods import no_place

NOW = TIME + 60_000


def told(node, method, params):
    """What a node answers. Raises: RpcFailure."""

    async def main():
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        reply = await answer(json.dumps(body).encode(), Methods(node).registry(), Context(no_place))
        return json.loads(reply)

    document = trio.run(main)
    if "error" in document:
        data = document["error"]["data"]
        raise RpcFailure(data["kind"], document["error"]["message"], data)
    return document["result"]


class LocalCaller:
    """A node as a light client asks it; `twist` may change what it answers."""

    def __init__(self, node, url="http://local:1", twist=None) -> None:
        self.node = node
        self.url = url
        self.twist = twist
        self.asked = []

    def ask(self, method, /, **params):
        self.asked.append(method)
        result = told(self.node, method, params)
        return result if self.twist is None else self.twist(method, result)


def keeper(now_ms=NOW, witnesses=()):
    """Trust that begins with the genesis of the chain in memory."""
    return TrustKeeper.of_genesis(GENESIS, lambda: now_ms, witnesses)


def verifying(caller, trust=None):
    """A client with trust whose node is `caller`."""
    client = Client(caller.url, trust=keeper() if trust is None else trust)
    client.ask = caller.ask
    return client
