"""What the consensus driver is made of: its collaborators, and the events that it takes.

Nothing here computes.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from consensus.events import BuildBlock, Input, MessageReceived, PeerStatus
from consensus.messages import Evidence
from ledger.ids import Address, Signature
from node.batch_maker import BatchMaker
from node.batches import BatchPool
from node.candidates import Candidates
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.disk_space import DiskSpace
from node.metrics import Metrics
from node.stages import StageClock
from node.sync import ClaimDropped, SyncAnswer
from p2p.frames import FrameKind


class Links(Protocol):
    """What the driver needs of the network; nothing here waits."""

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        """Queue a frame for every linked node."""
        ...

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        """Queue a frame for one node."""
        ...


@dataclass(frozen=True, slots=True)
class BatchArrived:
    """A verified batch is in the pool."""


@dataclass(frozen=True, slots=True)
class BuildNow:
    """The moment to build the block that the core asked for has come."""

    request: BuildBlock


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Long silence: an empty block shows that the chain is alive."""

    height: int


@dataclass(frozen=True, slots=True)
class TipHeard:
    """A peer says which block it has; only the first words since the start matter."""

    peer: Address
    tip: int


@dataclass(frozen=True, slots=True)
class TwinSeen:
    """The other end of a link proved this node's own address."""

    where: str


@dataclass(frozen=True, slots=True)
class SpaceReturned:
    """The disk has room again: what was withheld may be signed, if it is still of use."""


FROM_PEERS = (MessageReceived, PeerStatus)
"""Events that are dropped when too many wait; they come again."""
Event = (
    Input
    | SyncAnswer
    | ClaimDropped
    | TipHeard
    | TwinSeen
    | SpaceReturned
    | BatchArrived
    | BuildNow
    | Heartbeat
)


@dataclass(frozen=True, slots=True)
class Collaborators:
    """The parts of a node that the driver joins."""

    writer: ChainWriter
    candidates: Candidates
    pool: BatchPool
    maker: BatchMaker
    links: Links
    clock: Clock
    stages: StageClock
    metrics: Metrics
    sign: Callable[[bytes], Signature]
    accuse: Callable[[Evidence], None]
    """Keep what convicts a validator and bring it on chain; it may be told twice."""
    space: DiskSpace = field(default_factory=DiskSpace)
