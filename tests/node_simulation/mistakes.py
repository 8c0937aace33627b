"""Mistakes in a whole node, planted one at a time: the node simulator must see each.

Each takes pytest's monkeypatch and spoils one part of the real code. With it stands the first of
SEEDS seeds of which one must find it, and what is said then.
"""

from collections.abc import Callable
from typing import Any

import trio

from ledger.ids import Address
from ledger.store.bodies import BodyFiles
from node import journal
from node.batches import BatchPool
from node.mempool import Mempool
from node.node import RunningNode
from node.sync import BlockSync
from node.wal import WriteAheadLog
from p2p import network, peer
from p2p.hello import Handshake, RemoteNode
from p2p.network import Network

Plant = Callable[[Any], None]
SEEDS = 40
"""Mostly the first one does; but every change of the node makes other runs of all seeds."""


def a_log_is_not_synced(patch):
    patch.setattr(WriteAheadLog, "sync", lambda _log: None)


def bodies_are_not_synced(patch):
    patch.setattr(BodyFiles, "sync", lambda _bodies: None)


def bodies_are_not_synced_before_a_vote(patch):
    patch.setattr(BatchPool, "sync", lambda _pool: None)


def a_node_forgets_what_it_signed(patch):
    patch.setattr(journal, "own_messages", lambda _entries: ())


def an_admission_forgets_what_it_took(patch):
    patch.setattr(Mempool, "keep", Mempool.release)


def a_pool_keeps_what_is_executed(patch):
    patch.setattr(Mempool, "remove", lambda _mempool, _name: None)


def whoever_waits_is_not_woken(patch):
    patch.setattr(RunningNode, "_wake_waiting", lambda _node: None)


def a_network_dials_once(patch):
    patch.setattr(Network, "_keep_connected", Network._dial)


def a_sync_is_never_asked(patch):
    async def deaf(sync):
        await sync.fetch.run()

    patch.setattr(BlockSync, "run", deaf)


def a_proof_of_the_hello_is_not_verified(patch):
    def trusting(handshake, _payload):
        hello, key = handshake._peer_hello, handshake._peer_key
        handshake._remote = RemoteNode(Address(hello.address), key, hello.role, hello.height)

    patch.setattr(Handshake, "_receive_proof", trusting)


def a_hello_may_take_for_ever(patch):
    patch.setattr(network, "HELLO_TIMEOUT_S", 1e6)


def a_link_is_left_open(patch):
    close = trio.aclose_forcefully

    async def forgetful(stream):
        if not isinstance(stream, trio.abc.Stream):
            await close(stream)

    patch.setattr(peer.trio, "aclose_forcefully", forgetful)


def a_store_is_left_open(patch):
    def half(node):
        node._log_file.close()
        node._ports.state.close()
        node._ports.bodies.close()

    patch.setattr(RunningNode, "_close", half)


ALL: tuple[tuple[Plant, int, str], ...] = (
    (a_log_is_not_synced, 1, "it is an old copy or lost its end"),
    (bodies_are_not_synced, 0, "the store bodies is damaged"),
    (bodies_are_not_synced_before_a_vote, 5, "lost a body"),
    (a_node_forgets_what_it_signed, 1, "DuplicateInstanceError"),
    (an_admission_forgets_what_it_took, 0, "no end within"),
    (a_pool_keeps_what_is_executed, 0, "which came to its end"),
    (whoever_waits_is_not_woken, 0, "does not tell"),
    (a_network_dials_once, 0, "no end within"),
    (a_sync_is_never_asked, 0, "no end within"),
    (a_proof_of_the_hello_is_not_verified, 1, "links with a stranger"),
    (a_hello_may_take_for_ever, 3, "does not send away"),
    (a_link_is_left_open, 0, "open"),
    (a_store_is_left_open, 0, "open"),
)
"""Mistake, first seed, and words of the violation."""
