"""The chain as this node holds it: appends decided blocks, in one order, exactly once.

Decide -> block durable -> end of height in the log -> executed state durable -> acknowledged.
After a crash the three stores differ by at most one step, and `recover` finishes it.
Source: architecture section 5; research consensus-reliability section 1.5.
"""

from collections.abc import Callable, Sequence

from consensus.proposer import Demotions, carried, eligible, next_demotions
from ledger.batch import Batch, parse_batch
from ledger.block import BLOCK, HEADER, Block, Header, block_hash
from ledger.chain import Choice, Tip, check_contents, check_header, derive_header
from ledger.codec import encode
from ledger.errors import InvariantError, Reason, Rejected, Store, StoreDamagedError, invariant
from ledger.genesis import Genesis
from ledger.ids import BlockHash, Height, Round, ValidatorIndex
from ledger.membership import EFFECTIVE_AFTER, ValidatorHistory
from ledger.store.blocks import BlockStore, DecidedHeader, StoredBlock
from ledger.store.port import Place
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, Certificate, verify_certificate
from node.executor import DecidedBlock, Executor
from node.stages import Stage, StageClock
from node.wal import WriteAheadLog


class ChainWriter:
    """The decided chain and the rules for its next block."""

    def __init__(
        self, genesis: Genesis, blocks: BlockStore, executor: Executor, stages: StageClock
    ) -> None:
        self.genesis = genesis
        self.chain = executor.chain
        self.blocks = blocks
        self.executor = executor
        self.history = ValidatorHistory(genesis, executor.state.get)
        self.certificate = b""
        self._stages = stages
        self._demotions: Demotions = ()
        self._demotions_before: Demotions = ()
        self._listeners: list[Callable[[DecidedBlock], None]] = []
        # The time of the block after which a store that joined begins.
        self._began = self._time_of_origin()

    def _time_of_origin(self) -> int | None:
        """None where the chain is held from its first block on.  Raises: StoreDamagedError."""
        origin = self.blocks.origin
        decided = self.blocks.decided(origin) if origin else None
        if origin and decided is None:
            raise StoreDamagedError(Store.BLOCKS, f"height {origin}", "its header is missing")
        return None if decided is None else HEADER.decode(decided.header).time

    @property
    def tip(self) -> Tip:
        """The newest executed block."""
        return self.executor.tip

    @property
    def validators(self) -> ValidatorSet:
        """The set that rules the next height."""
        return self.history.at(self.tip.height + 1)

    def validators_at(self, height: int) -> ValidatorSet:
        """The set that rules a height: of the past, the next or the one after, not beyond."""
        invariant(height <= self.tip.height + EFFECTIVE_AFTER, "that set is not decided yet")
        return self.history.at(height)

    def require_held(self, height: int) -> None:
        """The whole block of an executed height is here.

        Raises: Rejected(PRUNED) below the lowest one that this node holds.
        """
        lowest = self.blocks.first
        if height < lowest:
            detail = "this node does not hold the block; ask one that holds all"
            raise Rejected(Reason.PRUNED, detail, height=height, lowest=lowest)

    def decided(self, height: int) -> DecidedHeader:
        """The header of an executed height and a certificate for it.

        Raises: Rejected(PRUNED) where they were not kept.
        """
        found = self.blocks.decided(height)
        if found is None or not found.certificate:
            self.require_held(height)
        if found is None:
            raise InvariantError(f"block {height} is missing from the store")
        return found

    def on_block(self, listener: Callable[[DecidedBlock], None]) -> None:
        """Call `listener` after each executed and durable block."""
        self._listeners.append(listener)

    def proposers(self) -> tuple[ValidatorIndex, ...]:
        """Who proposes at the next height, in order: all but the demoted."""
        return self._eligible(self._demotions, self.tip.height + 1)

    def _eligible(self, demotions: Demotions, height: int) -> tuple[ValidatorIndex, ...]:
        """The proposers of a height under the list of the header before it."""
        rulers = self.history.at(height)
        ruling = carried(demotions, self.history.at(height - 1).addresses, rulers.addresses)
        return eligible(len(rulers.members), ruling, Height(height))

    async def recover(self, log: WriteAheadLog | None, end_height: Callable[[int], None]) -> None:
        """Execute what was decided but not executed; say what the log must know.

        `end_height` records a durable block in the log, where the crash came before its record.
        Raises: StoreDamagedError, InvariantError: a store or the log lost what another knows.
        """
        state, stored = self.executor.state_tip.height, self.blocks.height
        self._check_stores(state, stored)
        for height in range(state + 1, stored + 1):
            await self.executor.execute(self.read_block(height))
        self._load_demotions()
        if log is None:
            return
        recovered = log.recovered
        ended = 0 if recovered.ended is None else recovered.ended.height
        if ended > stored:
            problem = f"it ends at {stored} but the log ended height {ended}: blocks are lost"
            raise StoreDamagedError(Store.BLOCKS, f"height {stored}", problem)
        if recovered.ended is not None and ended < stored - 1:
            raise InvariantError(
                f"the log {log.path} ended {ended} but blocks end at {stored}: it is an old copy "
                "or lost its end. Move the log away and start again: the node then waits until it "
                "is past all it may have signed"
            )
        if ended < stored and (recovered.ended is not None or recovered.entries):
            end_height(stored)
            recovered.entries.clear()

    def _check_stores(self, state: int, stored: int) -> None:
        """A crash leaves state at most one block behind; anything else is a loss.

        Raises: StoreDamagedError.
        """
        if state > stored:
            problem = f"it ends at {stored} but state is at {state}: blocks are lost"
            raise StoreDamagedError(Store.BLOCKS, f"height {stored}", problem)
        if state < stored - 1:
            problem = f"it is at {state} but blocks end at {stored}: state is lost"
            raise StoreDamagedError(Store.STATE, f"height {state}", problem)
        self._check_beginning(self.blocks.first - 1)
        if state and self.blocks.height_of(self.executor.state_tip.block_hash) != state:
            problem = "it was reached by a block that the store of blocks does not have"
            raise StoreDamagedError(Store.STATE, f"height {state}", problem)

    def _check_beginning(self, below: int) -> None:
        """Blocks and state begin together; a crash while blocks were pruned is finished.

        Raises: StoreDamagedError.
        """
        state, blocks = self.executor.state, self.blocks
        is_pruned = blocks.block(below) is None and blocks.decided(below) is not None
        if state.beginning < below < self.tip.height and is_pruned:
            state.writes(state.beginning)  # it is gone if the beginning is another
            state.prune(below)
        if state.beginning != below:
            problem = f"it begins after {state.beginning}, and blocks at {below + 1}"
            raise StoreDamagedError(Store.STATE, "its beginning", problem)

    def _load_demotions(self) -> None:
        newest = self.blocks.decided(self.blocks.height)
        if newest is None:
            return
        self.certificate = newest.certificate
        header = HEADER.decode(newest.header)
        self._demotions = header.demotions
        before = self.blocks.decided(header.height - 1)
        if before is not None:
            self._demotions_before = HEADER.decode(before.header).demotions

    def read_block(self, height: int) -> DecidedBlock:
        """A stored block with its parsed batches.

        Raises: StoreDamagedError when it is not there, or when a body is not the one it orders.
        """
        stored = self.blocks.block(height)
        if stored is None:
            raise StoreDamagedError(Store.BLOCKS, f"height {height}", "the block is missing")
        block = BLOCK.decode(stored.block)
        wires = self.blocks.batches(block.batches)
        try:
            batches = tuple(parse_batch(wire, self.chain) for wire in wires)
        except Rejected as refusal:
            raise StoreDamagedError(Store.BODIES, f"height {height}", str(refusal)) from refusal
        if tuple(batch.digest for batch in batches) != block.batches:
            raise StoreDamagedError(Store.BODIES, f"height {height}", "it is another batch")
        return DecidedBlock(
            block=block,
            header=HEADER.decode(block.header),
            block_hash=block_hash(block.header, self.chain.suite),
            certificate=stored.certificate,
            batches=batches,
        )

    def next_block(self, proposer: ValidatorIndex, time: int, batches: Sequence[Batch]) -> Block:
        """The block a proposer offers."""
        header = self._derive(self.certificate, proposer, time, batches)
        return Block(
            header=encode(header),
            certificate=self.certificate,
            batches=tuple(batch.digest for batch in batches),
        )

    def _derive(
        self, certificate: bytes, proposer: int, time: int, batches: Sequence[Batch]
    ) -> Header:
        choice = Choice(proposer, time, self._next_demotions(certificate))
        now, after = self.validators, self.history.at(self.tip.height + 2)
        return derive_header(self.chain, self.tip, now, after, certificate, batches, choice)

    def _next_demotions(self, certificate: bytes) -> Demotions:
        """The list of the next header, in the indexes of its own set."""
        if not certificate:
            return ()
        decided = CERTIFICATE.decode(certificate)
        rulers = self.history.at(decided.height)
        found = next_demotions(
            self._demotions,
            height=Height(decided.height),
            round_number=Round(decided.round),
            voters=[index for index, _ in decided.signatures],
            proposers=self._eligible(self._demotions_before, decided.height),
            validator_count=len(rulers.members),
        )
        return carried(found, rulers.addresses, self.validators.addresses)

    def check_block(self, block: Block, header: Header, batches: Sequence[Batch]) -> None:
        """Every rule of the next block but its timeliness.

        Raises: Rejected(BAD_BLOCK | BAD_CERTIFICATE | …).
        """
        tip = self.tip
        if header.height != tip.height + 1 or header.previous_hash != tip.block_hash:
            raise Rejected(Reason.BAD_BLOCK, rule="previous_hash", height=header.height)
        if header.proposer >= len(self.validators.members):
            raise Rejected(Reason.BAD_BLOCK, rule="proposer", proposer=header.proposer)
        self._check_certificate(block.certificate)
        expected = self._derive(block.certificate, header.proposer, header.time, batches)
        check_header(expected, header)
        check_contents(tip, header, batches, self.genesis.parameters.heartbeat_ms)
        for digest in block.batches:
            if self.blocks.has_batch(digest):
                raise Rejected(Reason.BAD_BLOCK, rule="a batch was ordered before")

    def may_be_older(self, batch: Batch) -> bool:
        """Whether a block that this node never had may have ordered this batch already.

        Then each of its transactions was executed, so that it is remembered and not found here, or
        had expired. Always false on a node that holds its chain from the first block on.
        """
        began, state = self._began, self.executor.state
        if began is None:
            return False
        for transaction in batch.transactions:
            valid_until = transaction.body.valid_until
            is_known = self.executor.window.seen(transaction.id, valid_until)
            if valid_until >= began and not (is_known and state.locate(transaction.id) is None):
                return False
        return True

    def _check_certificate(self, certificate: bytes) -> None:
        tip = self.tip
        if certificate == self.certificate:
            return
        decided = CERTIFICATE.decode(certificate)
        if decided.height != tip.height or decided.block_hash != tip.block_hash:
            raise Rejected(Reason.BAD_CERTIFICATE, "of another block", height=decided.height)
        verify_certificate(decided, self.history.at(tip.height), self.chain)

    def verify_decision(self, block: Block, certificate: bytes) -> Certificate:
        """The certificate of the block after the tip, fully verified against the set that rules it.

        Raises: Rejected(BAD_CERTIFICATE | MALFORMED …).
        """
        return self.verify_certified(block, certificate, self.tip.height + 1, self.validators)

    def verify_certified(
        self, block: Block, certificate: bytes, height: int, validators: ValidatorSet
    ) -> Certificate:
        """The certificate of a block of `height`, fully verified against the set given.

        Raises: Rejected(BAD_CERTIFICATE | MALFORMED …).
        """
        decided = CERTIFICATE.decode(certificate)
        if decided.block_hash != block_hash(block.header, self.chain.suite):
            raise Rejected(Reason.BAD_CERTIFICATE, "of another block", height=decided.height)
        if decided.height != height:
            raise Rejected(Reason.BAD_CERTIFICATE, "of another height", height=decided.height)
        verify_certificate(decided, validators, self.chain)
        return decided

    async def append(
        self,
        block: Block,
        certificate: bytes,
        batches: Sequence[Batch],
        places: Sequence[Place],
        end_height: Callable[[int], None],
    ) -> None:
        """Make a decided block durable, execute it, tell everybody.

        `places` tell where the bodies of its batches lie, in the same order.
        `end_height` records in the log that the block is durable; called between the two.
        """
        header = HEADER.decode(block.header)
        digest = block_hash(block.header, self.chain.suite)
        invariant(header.height == self.tip.height + 1, "blocks are appended in order, once")
        with self._stages.measure(Stage.STORE):
            self.blocks.append(
                Height(header.height),
                digest,
                StoredBlock(encode(block), certificate),
                [(batch.digest, place) for batch, place in zip(batches, places, strict=True)],
            )
            end_height(header.height)
        decided = DecidedBlock(block, header, BlockHash(digest), certificate, tuple(batches))
        await self.executor.execute(decided)
        self.certificate = certificate
        self._demotions_before = self._demotions
        self._demotions = header.demotions
        for listener in self._listeners:
            listener(decided)
