"""Proofs for clients, made from what is stored: state, logs, receipts, headers, history.

Nothing here writes or verifies: what is made verifies under genesis alone, or the node is damaged.
Proofs of state stand for a height whose next header exists and whose trees are still held; all
others for any height. Everything longer than a millisecond goes in steps.
Source: docs/proofs.md; docs/decisions/0036-proof-family.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from ledger.crypto.suite import CryptoSuite
from ledger.errors import (
    InvariantError,
    Reason,
    Rejected,
    UnavailableError,
)
from ledger.proofs.anchor import Anchor, make_anchor
from ledger.proofs.completeness import CompletenessDocument, is_named, prove_completeness
from ledger.proofs.history import HeaderDocument, HistoryDocument, prove_header, prove_history
from ledger.proofs.log import LOG_PROOF_ENTRIES, LogDocument, prove_log
from ledger.proofs.positions import Namespace, ReceiptTrees, receipt_trees_steps
from ledger.proofs.receipt import (
    EventDocument,
    ReceiptDocument,
    TransactionDocument,
    prove_event,
    prove_receipt,
    prove_transaction,
)
from ledger.proofs.state import Collection, StateDocument, prove_state
from ledger.receipts import RECEIPT
from ledger.state import LogEntry, LogWrite, namespace_prefix
from ledger.state_root import BLOCKS_LOG
from ledger.state_tree import StateView
from ledger.store.results import CompletedNodes, HistoryNodes, Locator, StateStore
from ledger.transaction import first_operation_id
from node.queries import Queries
from node.steps import in_steps

KEPT = 4
"""Headers as text, trees over receipts, and appends to logs that are kept for the next proof:
clients mostly ask for what just happened. Those of a full block have 1 MB each."""

K = TypeVar("K")
T = TypeVar("T")


class Proofs:
    """The maker of proof documents over the executed chain."""

    def __init__(self, queries: Queries) -> None:
        self._queries = queries
        self._digest = queries.writer.chain.suite.digest
        self._anchors: dict[int, Anchor] = {}
        self._trees: dict[int, ReceiptTrees] = {}
        self._logs = _KeptLogs()

    async def state(self, collection: Collection, key: bytes, height: int | None) -> StateDocument:
        """The value of a key of a map after a block, of the newest provable one by default.

        Raises: UnavailableError for a height without a next header, or no longer held.
        Cost: two to five nodes from the store, one step.
        """
        view, anchor = await self._view(height)
        return prove_state(view, self._digest, collection, key, anchor)

    async def log(
        self, collection: Collection, positions: tuple[int, int], height: int | None
    ) -> LogDocument:
        """The entries [first, stop) of a log after a block; for (0, 0) its head alone.

        Raises: UnavailableError as `state`, Rejected(BAD_PROOF) when it has no such entries.
        """
        first, stop = positions
        if stop - first > LOG_PROOF_ENTRIES:
            detail = f"a proof shows {LOG_PROOF_ENTRIES} entries; ask for fewer at a time"
            raise Rejected(Reason.TOO_LARGE, detail, entries=stop - first)
        view, anchor = await self._view(height)
        reader = self._log(collection.prefix + collection.path)
        return await in_steps(prove_log(view, self._digest, collection, reader, positions, anchor))

    async def completeness(
        self, module: str, level: int, start: int, stop: int, height: int | None
    ) -> CompletenessDocument:
        """All that the blocks `start` to `stop` hold of a namespace, as of a state behind them.

        Raises: UnavailableError as `state`, also for a `stop` beyond it;
            Rejected(UNKNOWN_NAMESPACE | TOO_LARGE).
        """
        if not is_named(self._queries.writer.genesis, module, level):
            raise Rejected(Reason.UNKNOWN_NAMESPACE, module=module, level=level)
        view, anchor = await self._view(height)
        if not start <= stop <= view.height:
            raise UnavailableError(
                f"heights {start} to {stop} are no range up to height {view.height}, the newest "
                "whose next header is decided; ask for a range up to it"
            )
        reader = self._log(namespace_prefix(module, level) + BLOCKS_LOG)
        digest = self._digest
        made = prove_completeness(view, digest, module, level, reader, start, stop, anchor)
        return await in_steps(made)

    async def receipt(self, any_id: bytes) -> ReceiptDocument | None:
        """The first receipt of an operation, whatever became of it; None if it has none.

        The id of an envelope stands for its first operation.
        Raises: UnavailableError while the next header does not exist.
        """
        place = self._state.locate(any_id)
        return None if place is None else await self._receipt(any_id, place)

    async def _receipt(self, any_id: bytes, place: Locator) -> ReceiptDocument:
        self._queries.writer.require_held(place.height)
        anchor = await self._anchor(place.height + 1)
        trees = self._trees.get(place.height)
        if trees is None:
            results = self._queries.receipts_at(place.height)
            receipts = {(item.module, item.level): item.receipts for item in results}
            trees = await in_steps(receipt_trees_steps(self._digest, receipts))
            _keep(self._trees, place.height, trees)
        namespace = _namespace_of(any_id, place, trees.receipts, self._queries.writer.chain.suite)
        return prove_receipt(self._digest, trees, namespace, place.receipt, anchor)

    async def event(self, any_id: bytes, index: int) -> EventDocument | None:
        """One event of an operation's receipt.

        Raises: as `receipt`; Rejected(BAD_PROOF) when the receipt has no such event.
        """
        receipt = await self.receipt(any_id)
        return None if receipt is None else prove_event(receipt, index)

    async def transaction(self, any_id: bytes) -> TransactionDocument | None:
        """A transaction with the receipt of the operation that the id names, or of its first.

        Raises: as `receipt`.
        """
        located = await self._queries.locate(any_id)
        if located is None:
            return None
        place, _, transaction = located
        receipt = await self._receipt(any_id, place)
        return prove_transaction(receipt, transaction.wire, place.operation)

    async def header(self, height: int, under: int | None) -> HeaderDocument:
        """The header of a height under that of a later one, the newest by default.

        Raises: UnavailableError for a height that is not there, or not below the later one.
        """
        upper = self._height if under is None else under
        anchor = await self._anchor(upper)
        if not 1 <= height < upper:
            raise UnavailableError(f"height {height} is not one from 1 to below height {upper}")
        header = self._queries.writer.decided(height).header
        return prove_header(header, HistoryNodes(self._state), self._digest, anchor)

    async def history(self, size: int, under: int | None) -> HistoryDocument:
        """The history of a height as the beginning of that of a later one, the newest by default.

        Raises: UnavailableError for a height that is not there, or above the later one.
        """
        upper = self._height if under is None else under
        anchor = await self._anchor(upper)
        if not 1 <= size <= upper:
            raise UnavailableError(f"height {size} is not one from 1 to height {upper}")
        return prove_history(size, HistoryNodes(self._state), self._digest, anchor)

    @property
    def _state(self) -> StateStore:
        return self._queries.writer.executor.state

    @property
    def _height(self) -> int:
        return self._queries.writer.executor.state_tip.height

    def _log(self, name: bytes) -> "_StoredLog":
        return _StoredLog(self._state, name, self._logs)

    async def _view(self, height: int | None) -> tuple[StateView, Anchor]:
        """The state after a height, and the anchor at the next one, which holds its root."""
        wanted = self._height - 1 if height is None else height
        if wanted < 0:
            raise UnavailableError("the chain has no block yet, so no header holds a state root")
        anchor = await self._anchor(wanted + 1)
        return self._queries.writer.executor.view(wanted), anchor

    async def _anchor(self, height: int) -> Anchor:
        """The anchor at a height, kept for the next question: it is often about the same one.

        Raises: UnavailableError when there is no such header yet.
        """
        if not 1 <= height <= self._height:
            raise UnavailableError(
                f"the proof needs header {height}, and the newest executed here is {self._height}; "
                "a later one is decided with the next block: ask again in a moment"
            )
        anchor = self._anchors.get(height)
        if anchor is None:
            found = self._queries.writer.decided(height)
            changes = await self._queries.changes(height)
            anchor = make_anchor(found.header, found.certificate, changes)
            _keep(self._anchors, height, anchor)
        return anchor


def _keep(cache: dict[K, T], key: K, item: T) -> None:
    cache.pop(key, None)
    while len(cache) >= KEPT:
        del cache[next(iter(cache))]
    cache[key] = item


def _namespace_of(
    any_id: bytes,
    place: Locator,
    receipts: Mapping[Namespace, Sequence[bytes]],
    suite: CryptoSuite,
) -> Namespace:
    """The namespace in which an operation, or the first of an envelope, has its receipt.

    The receipt at its index names it; so its block, which may be large, need not be read.
    """
    ids = {any_id, first_operation_id(any_id, suite)}
    for namespace, items in receipts.items():
        if place.receipt < len(items) and RECEIPT.decode(items[place.receipt]).id in ids:
            return namespace
    raise InvariantError(f"the receipt of {any_id.hex()} is missing at height {place.height}")


@dataclass(frozen=True, slots=True)
class _KeptLogs:
    """Of the logs asked for last: what one block wrote, which never changes."""

    appends: dict[bytes, LogWrite] = field(default_factory=dict[bytes, LogWrite])
    nodes: dict[bytes, CompletedNodes] = field(default_factory=dict[bytes, CompletedNodes])


class _StoredLog:
    """One log of the state store; implements `ledger.proofs.log.LogReader`."""

    def __init__(self, state: StateStore, log: bytes, kept: _KeptLogs) -> None:
        self._state = state
        self._log = log
        self._kept = kept

    def entry(self, index: int, /) -> LogEntry:
        # Neighbours mostly come from one block, whose appends are one record.
        write = self._kept.appends.get(self._log)
        if write is None or not 0 <= index - write.first_sequence < len(write.entries):
            write = self._state.log_write_holding(self._log, index)
            _keep(self._kept.appends, self._log, write)
        return write.entries[index - write.first_sequence]

    def get(self, level: int, index: int, /) -> bytes:
        last = (index + 1 << level) - 1
        nodes = self._kept.nodes.get(self._log)
        if nodes is None or not nodes.first_sequence <= last < nodes.stop:
            nodes = self._state.log_nodes_holding(self._log, last)
            _keep(self._kept.nodes, self._log, nodes)
        return nodes.node(level, index) or self._state.log_node(self._log, level, index)
