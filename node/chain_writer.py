"""The chain as this node holds it: appends decided blocks, in one order, exactly once.

Decide -> block durable -> end of height in the log -> executed state durable -> acknowledged.
After a crash the three stores differ by at most one step, and `recover` finishes it.
Source: architecture section 5; research consensus-reliability section 1.5.
"""

from collections.abc import Callable, Sequence

from consensus.proposer import eligible, next_demotions
from ledger.batch import Batch, parse_batch
from ledger.block import BLOCK, HEADER, Block, Demotion, Header, block_hash
from ledger.chain import Choice, Tip, check_contents, check_header, derive_header
from ledger.codec import encode
from ledger.errors import InvariantError, Reason, Rejected, invariant
from ledger.genesis import Genesis, genesis_validators
from ledger.ids import BlockHash, Height, Round, ValidatorIndex
from ledger.store.blocks import BlockStore, StoredBlock
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
        self.validators: ValidatorSet = genesis_validators(genesis)
        self.certificate = b""
        self._stages = stages
        self._demotions: tuple[Demotion, ...] = ()
        self._demotions_before: tuple[Demotion, ...] = ()
        self._listeners: list[Callable[[DecidedBlock], None]] = []

    @property
    def tip(self) -> Tip:
        """The newest executed block."""
        return self.executor.tip

    def on_block(self, listener: Callable[[DecidedBlock], None]) -> None:
        """Call `listener` after each executed and durable block."""
        self._listeners.append(listener)

    def proposers(self) -> tuple[ValidatorIndex, ...]:
        """Who proposes at the next height, in order: all but the demoted."""
        return eligible(len(self.validators.members), self._demotions, Height(self.tip.height + 1))

    @property
    def demoted(self) -> tuple[Demotion, ...]:
        """The demotion list that rules the next height."""
        return self._demotions

    async def recover(self, log: WriteAheadLog | None, end_height: Callable[[int], None]) -> None:
        """Execute what was decided but not executed; say what the log must know.

        `end_height` records a durable block in the log, where the crash came before its record.
        Raises: InvariantError when a store lost what another still knows; it names the file.
        """
        state = self.executor.state_tip.height
        stored = self.blocks.height
        if state > stored:
            raise InvariantError(
                f"state is at {state} but blocks end at {stored}: blocks are lost; rebuild this "
                "node from its peers"
            )
        self.executor.rebuild_window(self.read_block)
        for height in range(state + 1, stored + 1):
            await self.executor.execute(self.read_block(height))
        self._load_demotions()
        if log is None:
            return
        recovered = log.recovered
        ended = 0 if recovered.ended is None else recovered.ended.height
        if recovered.ended is not None and not stored - 1 <= ended <= stored:
            raise InvariantError(
                f"the log {log.path} ended {ended} but blocks end at {stored}: one of them is an "
                "old copy or lost its end. Move the log away and start again: the node then waits "
                "until it is past all it may have signed; if blocks are lost, rebuild it from its "
                "peers"
            )
        if ended < stored and (recovered.ended is not None or recovered.entries):
            end_height(stored)
            recovered.entries.clear()

    def _load_demotions(self) -> None:
        stored = self.blocks.block(self.blocks.height)
        if stored is None:
            return
        self.certificate = stored.certificate
        header = HEADER.decode(BLOCK.decode(stored.block).header)
        self._demotions = header.demotions
        before = self.blocks.block(header.height - 1)
        if before is not None:
            self._demotions_before = HEADER.decode(BLOCK.decode(before.block).header).demotions

    def read_block(self, height: int) -> DecidedBlock:
        """A stored block with its parsed batches.

        Raises: InvariantError when it is not there, or when a body is not the one it orders.
        """
        stored = self.blocks.block(height)
        if stored is None:
            raise InvariantError(f"block {height} is missing from the store")
        block = BLOCK.decode(stored.block)
        wires = self.blocks.batches(block.batches)
        try:
            batches = tuple(parse_batch(wire, self.chain) for wire in wires)
        except Rejected as refusal:
            raise InvariantError(f"a body of block {height} is damaged: {refusal}") from refusal
        if tuple(batch.digest for batch in batches) != block.batches:
            raise InvariantError(f"a body of block {height} is damaged: another batch")
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
        return derive_header(self.chain, self.tip, self.validators, certificate, batches, choice)

    def _next_demotions(self, certificate: bytes) -> tuple[Demotion, ...]:
        if not certificate:
            return ()
        decided = CERTIFICATE.decode(certificate)
        count = len(self.validators.members)
        return next_demotions(
            self._demotions,
            height=Height(decided.height),
            round_number=Round(decided.round),
            voters=[index for index, _ in decided.signatures],
            proposers=eligible(count, self._demotions_before, Height(decided.height)),
            validator_count=count,
        )

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
        check_contents(tip, block, header, batches, self.genesis.parameters.heartbeat_ms)
        for digest in block.batches:
            if self.blocks.has_batch(digest):
                raise Rejected(Reason.BAD_BLOCK, rule="a batch was ordered before")

    def _check_certificate(self, certificate: bytes) -> None:
        tip = self.tip
        if certificate == self.certificate:
            return
        decided = CERTIFICATE.decode(certificate)
        if decided.height != tip.height or decided.block_hash != tip.block_hash:
            raise Rejected(Reason.BAD_CERTIFICATE, "of another block", height=decided.height)
        verify_certificate(decided, self.validators, self.chain)

    def verify_decision(self, block: Block, certificate: bytes) -> Certificate:
        """The certificate of a block, fully verified.

        Raises: Rejected(BAD_CERTIFICATE | MALFORMED …).
        """
        decided = CERTIFICATE.decode(certificate)
        if decided.block_hash != block_hash(block.header, self.chain.suite):
            raise Rejected(Reason.BAD_CERTIFICATE, "of another block", height=decided.height)
        verify_certificate(decided, self.validators, self.chain)
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
