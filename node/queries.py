"""Answers about the chain from what is stored: transactions, blocks, proofs, reads.

Nothing here writes. The few newest blocks are kept decoded, because most questions are about them.
"""

from contracts.evidence import EVIDENCE_CONTRACT, OffenceQuery
from contracts.interface import SYSTEM_MODULE, BlockContext, Method, Revert
from ledger.batch import Batch
from ledger.block import BLOCK
from ledger.codec import Record
from ledger.errors import Reason, Rejected, UnavailableError, invariant
from ledger.ids import TransactionId
from ledger.proof import Proof, RegistrationProof, anchored
from ledger.receipts import RECEIPT, Receipt, Status
from ledger.state import Overlay
from ledger.store.results import Locator
from ledger.succession import ValidatorChange, describe_change
from ledger.transaction import Transaction, operation_ids
from node import limits
from node.chain_writer import ChainWriter
from node.executor import DecidedBlock
from node.service import Committed, FoundBlock, FoundTransaction


class Queries:
    """Reads over the executed chain."""

    def __init__(self, writer: ChainWriter) -> None:
        self._writer = writer
        self._executor = writer.executor
        self._recent: dict[int, FoundBlock] = {}
        writer.on_block(self.remember)

    def remember(self, block: DecidedBlock) -> None:
        """Keep a block that was just executed: it is already decoded."""
        while len(self._recent) >= limits.RECENT_BLOCKS:
            del self._recent[next(iter(self._recent))]
        self._recent[block.header.height] = FoundBlock(
            header_bytes=block.block.header,
            header=block.header,
            block=block.block,
            block_hash=block.block_hash,
            certificate=block.certificate,
            batches=block.batches,
        )

    def block(self, height: int) -> FoundBlock | None:
        """A stored and executed block, or None."""
        if not 1 <= height <= self._executor.state_tip.height:
            return None
        if height not in self._recent:
            self.remember(self._writer.read_block(height))
        return self._recent[height]

    def committed(self, any_id: bytes) -> Committed | None:
        """The first result of an id, if it was executed."""
        found = self.transaction(any_id)
        if found is None:
            return None
        statuses = tuple(Status(receipt.status).name for receipt in found.receipts)
        return Committed(found.block_height, statuses)

    def transaction(self, any_id: bytes) -> FoundTransaction | None:
        """A transaction by its id or the id of one of its operations."""
        located = self._locate(any_id)
        if located is None:
            return None
        locator, block, transaction = located
        ids = operation_ids(transaction, self._writer.chain.suite)
        before = sum(len(batch.transactions) for batch in block.batches[: locator.batch])
        return FoundTransaction(
            transaction=transaction,
            block_height=locator.height,
            block_time=block.header.time,
            index=before + locator.transaction,
            operation=None if any_id == transaction.id else locator.operation,
            operation_ids=ids,
            receipts=self._receipts(transaction, locator),
        )

    def _locate(self, any_id: bytes) -> tuple[Locator, FoundBlock, Transaction] | None:
        locator = self._executor.state.locate(any_id)
        if locator is None:
            return None
        block = self.block(locator.height)
        if block is None:
            return None
        batch: Batch = block.batches[locator.batch]
        return locator, block, batch.transactions[locator.transaction]

    def _receipts(self, transaction: Transaction, locator: Locator) -> tuple[Receipt, ...]:
        encoded = self._namespace_receipts(transaction, locator.height)
        # Receipts of one transaction stand together; the locator names that of its operation.
        first = locator.receipt - locator.operation
        return tuple(
            RECEIPT.decode(item) for item in encoded[first : first + len(transaction.operations)]
        )

    def _namespace_receipts(self, transaction: Transaction, height: int) -> tuple[bytes, ...]:
        for result in self._executor.state.receipts(height):
            if (result.module, result.level) == (transaction.body.module, transaction.body.level):
                return result.receipts
        return ()

    def proof(self, any_id: bytes) -> Proof | None:
        """The proof of a transaction or operation.

        Raises: UnavailableError while the next header does not exist, Rejected(NOT_SUCCESSFUL).
        """
        located = self._locate(any_id)
        if located is None:
            return None
        locator, block, transaction = located
        following = self.block(locator.height + 1)
        if following is None:
            raise UnavailableError(
                f"the proof needs header {locator.height + 1}, which is not decided yet; "
                "ask again in a moment"
            )
        receipt = self._receipts(transaction, locator)[locator.operation]
        if receipt.status != Status.OK:
            raise Rejected(Reason.NOT_SUCCESSFUL, status=Status(receipt.status).name)
        results = self._executor.state.receipts(locator.height)
        proof = RegistrationProof.build(
            chain=self._writer.chain,
            batches=block.batches,
            transaction_id=transaction.id,
            operation=locator.operation,
            header=block.header_bytes,
            certificate=block.certificate,
            receipts={(item.module, item.level): item.receipts for item in results},
            next_header=following.header_bytes,
            next_certificate=following.certificate,
        )
        return anchored(proof, self._changes(locator.height + 1))

    def _changes(self, height: int) -> list[ValidatorChange]:
        """Every change of the validators up to a height, from the newest block before it held."""
        history = self._writer.history
        found: list[ValidatorChange] = []
        for first in history.changes(height):
            stored = self._writer.blocks.block(first - 1)
            invariant(stored is not None, "a set rules from an executed block on")
            if stored is not None:
                header = BLOCK.decode(stored.block).header
                found.append(describe_change(header, stored.certificate, history.at(first)))
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
