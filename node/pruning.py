"""Pruning: forgets the oldest blocks of a node that does not keep them all, a few at a time.

What it decides: which blocks go, and when the segments of bodies before those that are kept can go.
What stays: the state, every header with its certificate, the history, digests of batches, and where
ids stand, so that a question about what is gone is refused by name. What it never does: prune what
the configuration keeps, or a body that a kept block or a pending batch refers to.
Blocks go first and state follows; a crash in between is finished at the next start
(node/chain_writer.py).
Source: docs/decisions/0039-snapshots.md.
"""

import structlog
import trio

from ledger.block import BLOCK
from ledger.store.blocks import BlockStore
from ledger.store.results import StateStore
from node import limits
from node.batches import BatchPool

_log = structlog.get_logger("pruning")


class Pruning:
    """The task of one node; it ends at once where all blocks are kept."""

    def __init__(
        self, blocks: BlockStore, state: StateStore, pool: BatchPool, keep_blocks: int
    ) -> None:
        self._blocks = blocks
        self._state = state
        self._pool = pool
        self._keep_blocks = keep_blocks

    async def run(self) -> None:
        """Until cancelled.

        Raises: StoreDamagedError, UnavailableError.
        """
        while self._keep_blocks:
            await trio.sleep(limits.PRUNE_TICK_MS / 1_000)
            lowest = self._lowest(self._blocks.first) if self.step() else None
            if lowest is not None and lowest > self._blocks.first_segment:
                await self._drop_bodies(lowest)

    def step(self) -> bool:
        """Forget PRUNED_HEIGHTS blocks if there are so many too many; whether it did."""
        tip = self._state.tip
        newest = 0 if tip is None else min(tip.height, self._blocks.height)
        first = self._blocks.first + limits.PRUNED_HEIGHTS
        if newest - first + 1 < self._keep_blocks:
            return False
        self._blocks.prune(first)
        self._state.prune(first - 1)
        return True

    async def _drop_bodies(self, lowest: int) -> None:
        """Delete the segments before all that the oldest blocks and pending batches need.

        `lowest` is that of the oldest block.
        """
        first = self._blocks.first
        stop = min(first + limits.PRUNE_LOOK_BLOCKS, self._blocks.height + 1)
        for height in range(first, stop):
            found = self._lowest(height)
            lowest = lowest if found is None else min(lowest, found)
            await trio.lowlevel.checkpoint()
        pending = self._pool.first_segment
        lowest = lowest if pending is None else min(lowest, pending)
        if lowest > self._blocks.first_segment:
            self._blocks.drop_bodies(lowest)
            _log.info("bodies_pruned", first_segment=lowest, first_height=first)

    def _lowest(self, height: int) -> int | None:
        """The lowest segment with a body of a block, if it has any."""
        stored = self._blocks.block(height)
        digests = () if stored is None else BLOCK.decode(stored.block).batches
        places = [self._blocks.place(digest) for digest in digests]
        return min((place.segment for place in places if place is not None), default=None)
