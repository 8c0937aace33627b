"""The executor: runs decided blocks on the state and makes their results durable.

It owns the state store and is the only writer of state. Blocks run in slices, so that votes and
answers are not kept waiting. The interface takes blocks and gives results, one call per block, so
that it can move into a process of its own.
"""

from dataclasses import dataclass

import trio

from contracts.engine import Engine, Outcome
from contracts.interface import BlockContext
from ledger.batch import Batch
from ledger.block import (
    Block,
    Header,
    NamespaceReceipts,
    namespace_batches,
    namespace_shares,
    receipts_root,
)
from ledger.chain import Tip
from ledger.codec import encode
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected, Store, StoreDamagedError, invariant
from ledger.genesis import Genesis, chain_of
from ledger.history import EMPTY_FRONTIER, history_entry
from ledger.ids import BlockHash, Hash
from ledger.membership import is_pending
from ledger.merkle import leaf_hash, root_of_entries
from ledger.receipts import RECEIPT_TAG
from ledger.replay import CommittedWindow, ReplayBlock, ReplayWindow, replay_block
from ledger.state import Overlay, namespace_prefix
from ledger.state_root import BLOCKS_LOG, BlockEntry
from ledger.state_tree import StateTree, StateView
from ledger.store.results import BlockResults, NamespaceResult, StateStore, StateTip
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

        Raises: Rejected(BAD_GENESIS) for a contract this version does not have, or a store of
            another chain; StoreDamagedError.
        """
        self.chain = chain_of(genesis)
        self.engine = Engine(self.chain, genesis.modules)
        self.state = state
        self.window = ReplayWindow()
        self._committed = CommittedWindow(self.chain.suite)
        self._genesis = genesis
        self._stages = stages
        self._tip: Tip | None = None
        self.is_executing = False
        """Whether a block is under way: ids of it are remembered and not found yet."""
        self._tree = StateTree(self.chain.suite.digest, state)
        if state.tip is None:
            self._install_genesis()
        else:
            self._check_chain()
            self._restore_window(state.tip)

    @property
    def state_tip(self) -> StateTip:
        """The newest executed block."""
        tip = self.state.tip
        invariant(tip is not None, "genesis is installed first")
        return tip  # pyright: ignore[reportReturnType]  # the line above has checked it

    def view(self, height: int) -> StateView:
        """The state after a height, for proofs; valid until the next block is executed.

        Raises: UnavailableError for a height that is no longer held, or not yet executed.
        """
        return self._tree.view(height)

    @property
    def tip(self) -> Tip:
        """The newest executed block, as the next header needs it; made once for each block."""
        tip = self.state_tip
        if self._tip is None or self._tip.height != tip.height:
            self._tip = self._tip_of(tip)
        return self._tip

    def _tip_of(self, tip: StateTip) -> Tip:
        return Tip(
            height=tip.height,
            block_hash=BlockHash(tip.block_hash),
            time=tip.time,
            state_root=Hash(tip.state_root),
            receipts_root=Hash(tip.receipts_root),
            replay_root=Hash(tip.replay_root),
            history_root=Hash(tip.history.sized_root(self.chain.suite.digest)),
            must_follow=tip.must_follow,
        )

    def _install_genesis(self) -> None:
        suite = self.chain.suite
        overlay = Overlay(self.state)
        self.engine.install(overlay, self._genesis)
        writes = overlay.write_set()
        tree = self._tree.apply(0, writes)
        history, nodes = EMPTY_FRONTIER.append(suite.digest, history_entry(self.chain.genesis_hash))
        tip = StateTip(
            height=0,
            block_hash=self.chain.genesis_hash,
            time=self._genesis.time,
            state_root=tree.state_root,
            receipts_root=receipts_root((), suite),
            replay_root=self._committed.root(),
            history=history,
            must_follow=False,
            transactions=0,
            operations=0,
        )
        nothing = ReplayBlock(0, tip.time, ())
        self.state.commit(BlockResults(tip, writes, (), (), tree, nodes, nothing))

    def _check_chain(self) -> None:
        digest = self.chain.suite.digest
        first = leaf_hash(digest, history_entry(self.chain.genesis_hash))
        if self.state.history_node(0, 0) != first:
            detail = "the stores are of another chain; check genesis_file and data_dir"
            raise Rejected(Reason.BAD_GENESIS, detail)

    def _restore_window(self, tip: StateTip) -> None:
        """Remember what the blocks of the committed window added.

        Raises: StoreDamagedError when it is not the window that the tip commits to.
        """
        for block in self.state.replay_blocks():
            self.window.restore(block, tip.time)
            self._committed.add(block)
        self._committed.add(ReplayBlock(tip.height, tip.time, ()))
        if self._committed.root() != tip.replay_root:
            raise StoreDamagedError(
                Store.STATE, "replay window", f"its entries are not those of height {tip.height}"
            )

    async def execute(self, block: DecidedBlock) -> None:
        """Run the next block and make its results durable.

        Raises: InvariantError when it does not follow the newest executed block.
        """
        tip = self.state_tip
        header = block.header
        invariant(header.height == tip.height + 1, "blocks execute in order, once")
        invariant(header.previous_hash == tip.block_hash, "a block executes on the one before it")
        self.is_executing = True
        try:
            await self._execute(tip, block)
        finally:
            self.is_executing = False

    async def _execute(self, tip: StateTip, block: DecidedBlock) -> None:
        header = block.header
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
                        place = (batch_index, index)
                        self.engine.execute(
                            overlay, self.window, context, transaction, place, outcome
                        )
                await trio.lowlevel.checkpoint()
        with self._stages.measure(Stage.ROOTS):
            done = self._results(tip, block, overlay, outcome, count)
        with self._stages.measure(Stage.STORE):
            self.state.commit(done)

    def _results(
        self, tip: StateTip, block: DecidedBlock, overlay: Overlay, outcome: Outcome, count: int
    ) -> BlockResults:
        suite, header = self.chain.suite, block.header
        receipts = tuple(
            NamespaceResult(module, level, tuple(encoded))
            for (module, level), encoded in sorted(outcome.receipts.items())
        )
        summaries = receipt_summaries(receipts, suite)
        self._note_block(block, overlay, summaries)
        writes = overlay.write_set()
        tree = self._tree.apply(header.height, writes)
        history, nodes = tip.history.append(suite.digest, history_entry(block.block_hash))
        replay = replay_block(header.height, header.time, outcome.replay)
        forgotten = self._committed.add(replay)
        next_tip = StateTip(
            height=header.height,
            block_hash=block.block_hash,
            time=header.time,
            state_root=tree.state_root,
            receipts_root=receipts_root(summaries, suite),
            replay_root=self._committed.root(),
            history=history,
            must_follow=count > 0 or is_pending(overlay.get, block.header.height),
            transactions=tip.transactions + outcome.transactions,
            operations=tip.operations + outcome.operations,
        )
        # An expired id may have been executed before: its first receipt holds.
        expired = [item for item in outcome.expired if self.state.locate(item[0]) is None]
        located = [*outcome.located, *expired]
        return BlockResults(next_tip, writes, receipts, located, tree, nodes, replay, forgotten)

    def _note_block(
        self, block: DecidedBlock, overlay: Overlay, summaries: tuple[NamespaceReceipts, ...]
    ) -> None:
        """Append to the log of each namespace what the block holds of it.

        Names that genesis does not know get no log: anybody could make new ones without end.
        """
        suite, height = self.chain.suite, block.header.height
        shares = namespace_shares(namespace_batches(block.batches), suite)
        for share, results in zip(shares, summaries, strict=True):
            if self.engine.has_namespace(share.module, share.level):
                entry = BlockEntry(height, share.count, share.root, results.count, results.root)
                log = namespace_prefix(share.module, share.level) + BLOCKS_LOG
                overlay.append(log, height.to_bytes(8, "big"), encode(entry))
        overlay.keep()


def receipt_summaries(
    results: tuple[NamespaceResult, ...], suite: CryptoSuite
) -> tuple[NamespaceReceipts, ...]:
    """The leaves of a receipts root."""
    return tuple(
        NamespaceReceipts(
            module=result.module,
            level=result.level,
            count=len(result.receipts),
            root=root_of_entries(suite.digest, [RECEIPT_TAG + item for item in result.receipts]),
        )
        for result in results
    )
