"""What a client that keeps no blocks asks of a node: headers, changes of validators, the past.

Everything is what the stores hold, in the canonical records of docs/format.md section 13; nothing
is judged here, because whoever asks believes nothing. Every answer is bounded by count and bytes,
and is collected in steps, so that no question holds the event loop.
"""

from dataclasses import dataclass

import trio

from ledger.block import BLOCK, HEADER
from ledger.codec import encode
from ledger.errors import InvariantError
from ledger.light.history import prove_extension, prove_old_header
from ledger.light.trust import LightBlock
from ledger.store.results import HistoryNodes
from ledger.validators import ValidatorSet
from node import limits
from node.chain_writer import ChainWriter
from node.steps import in_steps


@dataclass(frozen=True, slots=True)
class ChangesPage:
    """Light blocks whose headers commit to another set, ascending, and whether there are more."""

    blocks: tuple[bytes, ...]
    has_more: bool


@dataclass(frozen=True, slots=True)
class BatchesPage:
    """Wires of a block's batches from an index on, as many as fit, of `count` in all."""

    count: int
    wires: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReceiptsPage:
    """Receipts of a block from an index on, all namespaces in a row, and how many each has."""

    namespaces: tuple[tuple[str, int, int], ...]
    receipts: tuple[bytes, ...]


class LightQueries:
    """Reads over the executed chain. Heights that are asked for must be executed, from 1 on."""

    def __init__(self, writer: ChainWriter) -> None:
        self._writer = writer
        self._history = HistoryNodes(writer.executor.state)

    async def headers(self, first: int, count: int) -> list[bytes]:
        """Light blocks of heights from `first` on: at least one, at most `count`."""
        last = min(first + count - 1, self._writer.executor.state_tip.height)
        found: list[bytes] = []
        size = 0
        for height in range(first, last + 1):
            found.append(self._light_block(height))
            size += len(found[-1])
            if size >= limits.LIGHT_PAGE_BYTES:
                break
            if len(found) % limits.SLICE_HEADERS == 0:
                await trio.lowlevel.checkpoint()
        return found

    async def changes(self, after: int, count: int) -> ChangesPage:
        """The headers above `after` that commit to another set than ruled them, oldest first."""
        tip = self._writer.executor.state_tip.height
        # The header before the first height of a set commits to it.
        firsts = await in_steps(self._writer.history.changes_steps(after + 1, tip + 1))
        found: list[bytes] = []
        size = 0
        for first in firsts[:count]:
            found.append(self._light_block(first - 1))
            size += len(found[-1])
            if size >= limits.LIGHT_PAGE_BYTES:
                break
            if len(found) % limits.SLICE_HEADERS == 0:
                await trio.lowlevel.checkpoint()
        return ChangesPage(tuple(found), len(found) < len(firsts))

    def validators(self, height: int) -> ValidatorSet:
        """The set that rules a height."""
        return self._writer.history.at(height)

    def old_header(self, height: int, under: int) -> bytes:
        """The record that shows a header in the history of a later one.

        Cost: about two nodes for each bit of `under`.
        """
        digest = self._writer.chain.suite.digest
        return encode(prove_old_header(self._header(height), self._history, digest, under))

    def extension(self, old: int, new: int) -> bytes:
        """The record that shows the history of one header to begin that of a later one."""
        digest = self._writer.chain.suite.digest
        return encode(prove_extension(self._history, digest, old, new))

    async def batches(self, height: int, first: int) -> BatchesPage:
        """The batches of a block in its order, from index `first` on."""
        blocks = self._writer.blocks
        digests = BLOCK.decode(self._stored(height)).batches
        wires: list[bytes] = []
        size = 0
        for digest in digests[first:]:
            (wire,) = blocks.batches([digest])
            if wires and size + len(wire) > limits.LIGHT_PAGE_BYTES:
                break
            wires.append(wire)
            size += len(wire)
            await trio.lowlevel.checkpoint()
        return BatchesPage(len(digests), tuple(wires))

    async def receipts(self, height: int, first: int) -> ReceiptsPage:
        """The receipts of a block, namespaces ascending, from index `first` of all on."""
        self._writer.require_held(height)
        results = self._writer.executor.state.receipts(height)
        await trio.lowlevel.checkpoint()
        counts = tuple((item.module, item.level, len(item.receipts)) for item in results)
        rest = [receipt for item in results for receipt in item.receipts][first:]
        size = 0
        for number, receipt in enumerate(rest):
            size += len(receipt)
            if number and size > limits.LIGHT_PAGE_BYTES:
                rest = rest[:number]
                break
        return ReceiptsPage(counts, tuple(rest))

    def _light_block(self, height: int) -> bytes:
        found = self._writer.decided(height)
        header = HEADER.decode(found.header)
        has_changed = header.next_validators_hash != header.validators_hash
        members = self._writer.history.at(height + 1).members if has_changed else ()
        return encode(LightBlock(found.header, found.certificate, members))

    def _header(self, height: int) -> bytes:
        return self._writer.decided(height).header

    def _stored(self, height: int) -> bytes:
        """Raises: Rejected(PRUNED), InvariantError when the block is not there."""
        self._writer.require_held(height)
        stored = self._writer.blocks.block(height)
        if stored is None:
            raise InvariantError(f"block {height} is missing from the store")
        return stored.block
