"""The executor: runs decided blocks on the state and makes their results durable.

It owns the state store and is the only writer of state. Blocks run in slices, so that votes and
answers are not kept waiting. The interface takes blocks and gives results, one call per block, so
that it can move into a process of its own.
"""

from collections.abc import Callable
from dataclasses import dataclass

import trio

from contracts.engine import Engine, Outcome, Position
from contracts.interface import BlockContext
from ledger.batch import Batch
from ledger.block import Block, Header, NamespaceReceipts, receipts_root
from ledger.chain import Tip
from ledger.crypto.suite import CryptoSuite
from ledger.errors import invariant
from ledger.genesis import Genesis, chain_of
from ledger.history import EMPTY_FRONTIER, Node, history_entry
from ledger.ids import BlockHash, Hash
from ledger.limits import REPLAY_WINDOW_MS
from ledger.membership import is_pending
from ledger.merkle import root_of_entries
from ledger.receipts import RECEIPT, RECEIPT_TAG, Status
from ledger.replay import BUCKET_MS, ReplayWindow
from ledger.state import EMPTY_STATE, Overlay, WriteSet, next_state_root
from ledger.store.results import NamespaceResult, StateStore, StateTip
from ledger.transaction import operation_ids
from node.limits import SLICE_TRANSACTIONS
from node.stages import Stage, StageClock


@dataclass(frozen=True, slots=True)
class DecidedBlock:
    """A durable block with its parsed batches and the certificate that decided it."""

    block: Block
    header: Header
    block_hash: BlockHash
    certificate: bytes
    batches: tuple[Batch, ...]


class Executor:
    """Executed state, one block after another."""

    def __init__(self, genesis: Genesis, state: StateStore, stages: StageClock) -> None:
        """Install genesis when the store is new.

        Raises: Rejected(BAD_GENESIS) for a contract this version does not have.
        """
        self.chain = chain_of(genesis)
        self.engine = Engine(self.chain, genesis.modules)
        self.state = state
        self.window = ReplayWindow()
        self._genesis = genesis
        self._stages = stages
        if state.tip is None:
            self._install_genesis()

    @property
    def state_tip(self) -> StateTip:
        """The newest executed block."""
        tip = self.state.tip
        invariant(tip is not None, "genesis is installed first")
        return tip  # pyright: ignore[reportReturnType]  # the line above has checked it

    @property
    def tip(self) -> Tip:
        """The newest executed block, as the next header needs it."""
        tip = self.state_tip
        return Tip(
            height=tip.height,
            block_hash=BlockHash(tip.block_hash),
            time=tip.time,
            state_root=Hash(tip.state_root),
            receipts_root=Hash(tip.receipts_root),
            history_root=Hash(tip.history.sized_root(self.chain.suite.digest)),
            must_follow=tip.must_follow,
        )

    def _install_genesis(self) -> None:
        suite = self.chain.suite
        overlay = Overlay(self.state)
        self.engine.install(overlay, self._genesis)
        writes = overlay.write_set()
        history, nodes = EMPTY_FRONTIER.append(suite.digest, history_entry(self.chain.genesis_hash))
        tip = StateTip(
            height=0,
            block_hash=self.chain.genesis_hash,
            time=self._genesis.time,
            state_root=next_state_root(EMPTY_STATE, writes, suite),
            receipts_root=receipts_root((), suite),
            history=history,
            must_follow=False,
            transactions=0,
            operations=0,
        )
        self.state.commit(tip, writes, (), (), nodes)

    async def execute(self, block: DecidedBlock) -> None:
        """Run the next block and make its results durable.

        Raises: InvariantError when it does not follow the newest executed block.
        """
        tip = self.state_tip
        header = block.header
        invariant(header.height == tip.height + 1, "blocks execute in order, once")
        overlay = Overlay(self.state)
        context = BlockContext(header.height, header.time)
        self.window.advance(header.time)
        outcome = Outcome()
        count = sum(len(batch.transactions) for batch in block.batches)
        for batch_index, batch in enumerate(block.batches):
            for start in range(0, len(batch.transactions), SLICE_TRANSACTIONS):
                stop = start + SLICE_TRANSACTIONS
                with self._stages.measure(Stage.EXECUTE):
                    for index, transaction in enumerate(batch.transactions[start:stop], start):
                        position = Position(batch_index, index)
                        self.engine.execute(
                            overlay, self.window, context, transaction, position, outcome
                        )
                await trio.lowlevel.checkpoint()
        with self._stages.measure(Stage.ROOTS):
            done = self._results(tip, block, overlay, outcome, count)
            # An expired id may have been executed before: its first receipt holds.
            outcome.located += [
                item for item in outcome.expired if self.state.locate(item[0]) is None
            ]
        with self._stages.measure(Stage.STORE):
            self.state.commit(done.tip, done.writes, done.receipts, outcome.located, done.history)

    def _results(
        self, tip: StateTip, block: DecidedBlock, overlay: Overlay, outcome: Outcome, count: int
    ) -> "_Results":
        suite = self.chain.suite
        receipts = tuple(
            NamespaceResult(module, level, tuple(encoded))
            for (module, level), encoded in sorted(outcome.receipts.items())
        )
        writes = overlay.write_set()
        history, nodes = tip.history.append(suite.digest, history_entry(block.block_hash))
        next_tip = StateTip(
            height=block.header.height,
            block_hash=block.block_hash,
            time=block.header.time,
            state_root=next_state_root(Hash(tip.state_root), writes, suite),
            receipts_root=receipts_root(_summaries(receipts, suite), suite),
            history=history,
            must_follow=count > 0 or is_pending(overlay.get, block.header.height),
            transactions=tip.transactions + outcome.transactions,
            operations=tip.operations + outcome.operations,
        )
        return _Results(next_tip, writes, receipts, nodes)

    def rebuild_window(self, read_block: Callable[[int], DecidedBlock]) -> None:
        """Fill the replay window from the stored blocks that can still matter."""
        tip = self.state_tip
        height = tip.height
        # An id is remembered to the end of its bucket, so look that much further back.
        oldest = tip.time - REPLAY_WINDOW_MS - BUCKET_MS
        while height > 0:
            block = read_block(height)
            if block.header.time < oldest:
                break
            succeeded = _succeeded(self.state.receipts(height))
            for transaction in (item for batch in block.batches for item in batch.transactions):
                ids = operation_ids(transaction, self.chain.suite)
                # Going back in time, the first execution of an id is written last and holds.
                self.window.record(
                    transaction.id,
                    transaction.body.valid_until,
                    succeeded=all(operation_id in succeeded for operation_id in ids),
                )
            height -= 1
        self.window.advance(tip.time)


@dataclass(frozen=True, slots=True)
class _Results:
    tip: StateTip
    writes: WriteSet
    receipts: tuple[NamespaceResult, ...]
    history: tuple[Node, ...]


def _summaries(
    results: tuple[NamespaceResult, ...], suite: CryptoSuite
) -> tuple[NamespaceReceipts, ...]:
    return tuple(
        NamespaceReceipts(
            module=result.module,
            level=result.level,
            count=len(result.receipts),
            root=root_of_entries(suite.digest, [RECEIPT_TAG + item for item in result.receipts]),
        )
        for result in results
    )


def _succeeded(results: tuple[NamespaceResult, ...]) -> frozenset[bytes]:
    receipts = (RECEIPT.decode(item) for result in results for item in result.receipts)
    return frozenset(receipt.id for receipt in receipts if receipt.status == Status.OK)
