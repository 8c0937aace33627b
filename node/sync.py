"""Block sync: a node that lags fetches decided blocks, one request at a time.

A peer's claim only triggers a request; a block counts when its certificate verifies. An answer is
taken only for the request that is open, and one that is wrong costs its sender the link.
Source: architecture section 5; research consensus-reliability section 1.6.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import trio

from ledger.block import BLOCK
from ledger.codec import encode
from ledger.ids import Address
from ledger.store.blocks import BlockStore
from node import limits
from node.wire import BlockRequest, BlockResponse, SyncedBlock
from p2p.frames import FrameKind

# A peer that is one block ahead is the ordinary case: it decided a moment earlier.
_GRACE_S = 0.3
# Fruitless requests in a row before a peer's claim is dropped.
_PATIENCE = 3
# How long such a peer's claims are not heard.
_DISTRUST_S = 60.0


@dataclass(slots=True)
class SyncAnswer:
    """Blocks for the open request; `applied` is set when the driver is done with them."""

    peer: Address
    blocks: tuple[SyncedBlock, ...]
    applied: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class ClaimDropped:
    """A peer could not show the blocks that it claims to have."""

    peer: Address


@dataclass(slots=True)
class _Open:
    peer: Address
    start: int
    answered: trio.Event = field(default_factory=trio.Event)
    applied: trio.Event = field(default_factory=trio.Event)


class BlockSync:
    """Knows who is ahead, and asks."""

    def __init__(
        self,
        *,
        height: Callable[[], int],
        faults: int,
        send: Callable[[Address, FrameKind, bytes], bool],
        deliver: Callable[[SyncAnswer | ClaimDropped], None],
    ) -> None:
        self._height = height
        self._faults = faults
        self._send = send
        self._deliver = deliver
        self._tips: dict[Address, int] = {}
        self._failures: dict[Address, int] = {}
        self._ignored_until: dict[Address, float] = {}
        self._open: _Open | None = None
        self._ahead = trio.Event()

    @property
    def best(self) -> int:
        """The highest block a connected peer claims to have."""
        return max(self._tips.values(), default=0)

    @property
    def is_behind(self) -> bool:
        """Whether this node lags more than an ordinary moment; f liars cannot make it seem so."""
        claims = sorted(self._tips.values(), reverse=True)
        return len(claims) > self._faults and claims[self._faults] > self._height() + 1

    def tip_of(self, peer: Address) -> int:
        """The last claim of a peer, 0 when there is none."""
        return self._tips.get(peer, 0)

    def note(self, peer: Address, tip: int) -> None:
        """A peer claims to have executed `tip`."""
        if trio.current_time() < self._ignored_until.get(peer, 0.0):
            return
        self._tips[peer] = tip
        if tip > self._height():
            self._ahead.set()

    def forget(self, peer: Address) -> None:
        """The link is gone."""
        self._tips.pop(peer, None)
        self._failures.pop(peer, None)

    async def run(self) -> None:
        """Ask whenever somebody is ahead."""
        while True:
            await self._ahead.wait()
            self._ahead = trio.Event()
            if self.best == self._height() + 1:
                await trio.sleep(_GRACE_S)
            while self.best > self._height():
                await self._fetch_once()

    async def _fetch_once(self) -> None:
        start = self._height() + 1
        ahead = [peer for peer, tip in self._tips.items() if tip >= start]
        peer = min(ahead, key=lambda address: (self._failures.get(address, 0), address))
        request = _Open(peer, start)
        self._open = request
        if self._send(
            peer, FrameKind.BLOCK_REQUEST, encode(BlockRequest(start, limits.SYNC_BLOCKS))
        ):
            with trio.move_on_after(limits.REQUEST_TIMEOUT_MS / 1_000):
                await request.answered.wait()
        self._open = None
        if request.answered.is_set():
            await request.applied.wait()
        if self._height() >= start:
            self._failures.pop(peer, None)
            return
        failures = self._failures.get(peer, 0) + 1
        self._failures[peer] = failures
        if failures >= _PATIENCE:
            # Its claim leads nowhere: a liar must not keep this node from serving its clients.
            self._ignored_until[peer] = trio.current_time() + _DISTRUST_S
            self.forget(peer)
            self._deliver(ClaimDropped(peer))
        await trio.sleep(_GRACE_S)

    async def receive(self, peer: Address, response: BlockResponse) -> bool:
        """Take an answer and wait until it is applied; False when nobody asked for it."""
        request = self._open
        if request is None or request.peer != peer or request.start != response.start:
            return False
        self._open = None
        answer = SyncAnswer(peer, response.blocks)
        self._deliver(answer)
        request.answered.set()
        await answer.applied.wait()
        request.applied.set()
        return True


def serve(blocks: BlockStore, request: BlockRequest) -> BlockResponse:
    """What this node can answer: consecutive blocks within the limits, maybe none."""
    found: list[SyncedBlock] = []
    size = 0
    for height in range(request.start, request.start + request.count):
        stored = blocks.block(height)
        if stored is None:
            break
        batches = tuple(blocks.batches(BLOCK.decode(stored.block).batches))
        size += len(stored.block) + sum(len(batch) for batch in batches)
        if found and size > limits.SYNC_BYTES:
            break
        found.append(SyncedBlock(stored.block, stored.certificate, batches))
    return BlockResponse(request.start, tuple(found))
