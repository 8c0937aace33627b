"""Answers about the chain from what is stored: transactions, blocks, proofs, reads.

Nothing here writes. The few newest blocks are kept decoded, because most questions are about them;
an older one is read and parsed in steps, so that no question holds the event loop.
"""

from contextlib import nullcontext
from typing import TypeVar

import trio

from contracts.evidence import EVIDENCE_CONTRACT, OffenceQuery
from contracts.interface import SYSTEM_MODULE, BlockContext, Method, Revert
from ledger.batch import Batch, decode_batch
from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import Record
from ledger.errors import InvariantError, Reason, Rejected, UnavailableError
from ledger.ids import TransactionId
from ledger.proof import Proof, RegistrationProof, anchored
from ledger.receipts import RECEIPT, Receipt, Status
from ledger.state import Overlay
from ledger.store.results import Locator, NamespaceResult
from ledger.succession import ValidatorChange, describe_change
from ledger.transaction import Transaction, operation_ids
from node import limits
from node.chain_writer import ChainWriter
from node.executor import DecidedBlock
from node.parsing import parse_in_steps
from node.service import Committed, FoundBlock, FoundTransaction
from node.steps import in_steps

T = TypeVar("T")


class Queries:
    """Reads over the executed chain."""

    def __init__(self, writer: ChainWriter) -> None:
        self.writer = writer
        self._executor = writer.executor
        self._recent: dict[int, FoundBlock] = {}
        self._read: dict[int, FoundBlock] = {}
        self._results: dict[int, tuple[NamespaceResult, ...]] = {}
        # Never another once it is decided; about 5 KB for fifteen validators.
        self._changes: dict[int, ValidatorChange] = {}
        writer.on_block(self._on_block)

    def _on_block(self, block: DecidedBlock) -> None:
        """Keep a block that was just executed: it is already decoded."""
        found = FoundBlock(
            header_bytes=block.block.header,
            header=block.header,
            block=block.block,
            block_hash=block.block_hash,
            certificate=block.certificate,
            batches=block.batches,
        )
        _remember(self._recent, block.header.height, found)

    async def block(self, height: int) -> FoundBlock | None:
        """A stored and executed block, or None.

        Raises: Rejected(PRUNED) below the lowest one that this node holds.
        """
        if not 1 <= height <= self._executor.state_tip.height:
            return None
        self.writer.require_held(height)
        found = self._recent.get(height) or self._read.get(height)
        if found is None:
            found = await self._read_block(height)
            # Apart, so that who asks for old blocks does not drive out the newest.
            _remember(self._read, height, found)
        return found

    async def _read_block(self, height: int) -> FoundBlock:
        """Raises: InvariantError when it is not there, or when a body is not the one it orders."""
        chain, blocks = self.writer.chain, self.writer.blocks
        stored = blocks.block(height)
        if stored is None:
            raise InvariantError(f"block {height} is missing from the store")
        block = BLOCK.decode(stored.block)
        batches: list[Batch] = []
        for digest in block.batches:
            (wire,) = blocks.batches([digest])
            try:
                batch = await parse_in_steps(wire, decode_batch(wire), chain, nullcontext())
            except Rejected as refusal:
                raise InvariantError(f"a body of block {height} is damaged: {refusal}") from refusal
            if batch.digest != digest:
                raise InvariantError(f"a body of block {height} is damaged: another batch")
            batches.append(batch)
        return FoundBlock(
            header_bytes=block.header,
            header=HEADER.decode(block.header),
            block=block,
            block_hash=block_hash(block.header, chain.suite),
            certificate=stored.certificate,
            batches=tuple(batches),
        )

    def receipts_at(self, height: int) -> tuple[NamespaceResult, ...]:
        """All receipts of a height, kept for the next question: it is often about its neighbour."""
        found = self._results.get(height)
        if found is None:
            found = self._executor.state.receipts(height)
            _remember(self._results, height, found)
        return found

    async def committed(self, any_id: bytes) -> Committed | None:
        """The first result of an id, if it was executed."""
        located = await self.locate(any_id)
        if located is None:
            return None
        locator, _, transaction = located
        receipts = await self._receipts(transaction, locator)
        return Committed(locator.height, tuple(Status(item.status).name for item in receipts))

    async def transaction(self, any_id: bytes) -> FoundTransaction | None:
        """A transaction by its id or the id of one of its operations."""
        located = await self.locate(any_id)
        if located is None:
            return None
        locator, block, transaction = located
        ids = operation_ids(transaction, self.writer.chain.suite)
        before = sum(len(batch.transactions) for batch in block.batches[: locator.batch])
        return FoundTransaction(
            transaction=transaction,
            block_height=locator.height,
            block_time=block.header.time,
            index=before + locator.transaction,
            operation=None if any_id == transaction.id else locator.operation,
            operation_ids=ids,
            receipts=await self._receipts(transaction, locator),
        )

    async def locate(self, any_id: bytes) -> tuple[Locator, FoundBlock, Transaction] | None:
        """Where an operation first stood, its block and its transaction; None if it never did."""
        locator = self._executor.state.locate(any_id)
        if locator is None:
            return None
        block = await self.block(locator.height)
        if block is None:
            return None
        batch: Batch = block.batches[locator.batch]
        return locator, block, batch.transactions[locator.transaction]

    async def _receipts(self, transaction: Transaction, locator: Locator) -> tuple[Receipt, ...]:
        encoded = self._namespace_receipts(transaction, locator.height)
        # Receipts of one transaction stand together; the locator names that of its operation.
        first = locator.receipt - locator.operation
        own = encoded[first : first + len(transaction.operations)]
        receipts: list[Receipt] = []
        for start in range(0, len(own), limits.SLICE_RECEIPTS):
            if start:
                await trio.lowlevel.checkpoint()
            receipts += map(RECEIPT.decode, own[start : start + limits.SLICE_RECEIPTS])
        return tuple(receipts)

    def _namespace_receipts(self, transaction: Transaction, height: int) -> tuple[bytes, ...]:
        for result in self.receipts_at(height):
            if (result.module, result.level) == (transaction.body.module, transaction.body.level):
                return result.receipts
        return ()

    async def proof(self, any_id: bytes) -> Proof | None:
        """The proof of a transaction or operation.

        Raises: UnavailableError while the next header does not exist, Rejected(NOT_SUCCESSFUL).
        """
        located = await self.locate(any_id)
        if located is None:
            return None
        locator, block, transaction = located
        following = await self.block(locator.height + 1)
        if following is None:
            raise UnavailableError(
                f"the proof needs header {locator.height + 1}, which is not decided yet; "
                "ask again in a moment"
            )
        receipt = (await self._receipts(transaction, locator))[locator.operation]
        if receipt.status != Status.OK:
            raise Rejected(Reason.NOT_SUCCESSFUL, status=Status(receipt.status).name)
        results = self.receipts_at(locator.height)
        build = RegistrationProof.build_steps(
            chain=self.writer.chain,
            batches=block.batches,
            transaction_id=transaction.id,
            operation=locator.operation,
            header=block.header_bytes,
            certificate=block.certificate,
            receipts={(item.module, item.level): item.receipts for item in results},
            next_header=following.header_bytes,
            next_certificate=following.certificate,
        )
        return anchored(await in_steps(build), await self.changes(locator.height + 1))

    async def changes(self, height: int) -> list[ValidatorChange]:
        """Every change of the validators up to a height, from the newest block before it held."""
        history = self.writer.history
        found: list[ValidatorChange] = []
        for first in await in_steps(history.changes_steps(0, height)):
            change = self._changes.get(first)
            if change is None:
                kept = self.writer.decided(first - 1)
                change = describe_change(kept.header, kept.certificate, history.at(first))
                self._changes[first] = change
                await trio.lowlevel.checkpoint()
            found.append(change)
        return found

    def read(
        self, module: str, level: int, contract: str, view: Method, arguments: Record
    ) -> Record:
        """Run a reading method on the newest executed state.

        Raises: Revert, Rejected(UNKNOWN_NAMESPACE).
        """
        engine = self._executor.engine
        if not engine.has_namespace(module, level):
            raise Rejected(Reason.UNKNOWN_NAMESPACE, module=module, level=level)
        tip = self._executor.state_tip
        context = BlockContext(tip.height, tip.time)
        overlay = Overlay(self._executor.state)
        return engine.read(overlay, context, module, level, contract, view, arguments)

    def has_offence(self, query: OffenceQuery) -> bool:
        """Whether an equivocation is on record."""
        view = self._executor.engine.method(SYSTEM_MODULE, EVIDENCE_CONTRACT, "get")
        if view is None:
            return False
        try:
            self.read(SYSTEM_MODULE, 0, EVIDENCE_CONTRACT, view, query)
        except Revert:
            return False
        return True

    def located(self, any_id: TransactionId) -> bool:
        """Whether an id was executed."""
        return self._executor.state.locate(any_id) is not None


def _remember(cache: dict[int, T], height: int, item: T) -> None:
    while len(cache) >= limits.RECENT_BLOCKS:
        del cache[next(iter(cache))]
    cache[height] = item
