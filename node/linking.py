"""The network of a node, as its configuration, its members and its machine make it. Wiring only."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import structlog

from ledger.addresses import decode_text
from ledger.ids import Address, GroupId, Height, TimestampMs
from ledger.transaction import Chain
from node.config import P2pSection
from node.identity import Identity
from node.members import Members
from node.ports import Ports
from p2p.hello import HelloIdentity
from p2p.network import FrameHandler, Network, NetworkConfig, PeerAddress, Surroundings


@dataclass(frozen=True, slots=True)
class Standing:
    """What a node tells of itself and takes into account of others: its height, and who votes."""

    height: Callable[[], int]
    voters: Callable[[], Collection[Address]]


def make_network(
    config: P2pSection,
    chain: Chain,
    identity: Identity,
    members: Members,
    ports: Ports,
    handler: FrameHandler,
    standing: Standing,
) -> Network:
    """The network; nothing happens before it is run."""
    hello = HelloIdentity(
        genesis_hash=chain.genesis_hash,
        group=GroupId(chain.group),
        address=identity.address,
        role=members.role(identity.address) or "observer",
        digest=chain.suite.digest,
        sign=identity.sign,
        verify=chain.suite.verify,
        is_allowed=members.is_allowed,
        is_revoked=members.is_revoked,
    )
    surroundings = Surroundings(
        now_ms=lambda: TimestampMs(ports.clock.now_ms()),
        height=lambda: Height(standing.height()),
        jitter=ports.jitter,
        random_bytes=ports.random_bytes,
        voters=standing.voters,
    )
    peers = tuple(
        PeerAddress(decode_text(peer.address)[1], peer.host, peer.port) for peer in config.peers
    )
    listen = NetworkConfig(config.listen_host, config.listen_port, peers)
    log = structlog.get_logger("p2p")
    return Network(listen, hello, ports.transport, handler, surroundings, log)
