"""Block sync: a node that lags fetches decided blocks, one question at a time.

Claims only trigger questions. What counts is the certificate: first the records of blocks are
asked for and their certificates verified, then the batches of verified blocks are pulled, then the
driver executes them. So nobody's word moves the target, a liar is found out at the price of one
small answer, and bodies that are here already are not sent again. Consensus is never left: the
driver applies blocks between two steps of the core, so nothing else can commit the same height.
Source: architecture section 5; research consensus-reliability section 1.6; decision record 0026.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog
import trio

from ledger.batch import Batch, check_batch, decode_batch
from ledger.block import BLOCK, HEADER, Block, Header, block_hash, certificate_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.ids import Address, BatchDigest
from ledger.store.blocks import BlockStore
from node import limits
from node.batches import BatchPool
from node.chain_writer import ChainWriter
from node.fetching import BatchFetch, NotServedError
from node.requests import Requests
from node.synced import FetchedBlock, check_author
from node.wire import BLOCK_RESPONSE, BlockRequest, BlockResponse, SyncedBlock
from p2p.frames import FrameKind
from p2p.scoring import Offence, PeerOffenceError

# A peer that is one block ahead is the ordinary case: it decided a moment earlier.
_GRACE_S = 0.3
# Fruitless questions in a row before a peer's claim is dropped.
_PATIENCE = 3
# How long such a peer's claims are not heard.
_DISTRUST_S = 60.0
# How often a node that nobody can give the next block says so.
_PRUNED_S = 10.0
_log = structlog.get_logger("sync")
_FORGERIES = (Reason.BAD_SIGNATURE, Reason.BAD_CERTIFICATE)


@dataclass(slots=True)
class SyncAnswer:
    """Verified blocks; `applied` is set when the driver is done, `refusal` if one was wrong."""

    peer: Address
    blocks: tuple[FetchedBlock, ...]
    refusal: Rejected | None = None
    applied: trio.Event = field(default_factory=trio.Event)


@dataclass(frozen=True, slots=True)
class _Certified:
    """A block whose certificate is verified; `batches` of the record are not yet."""

    block: Block
    header: Header
    certificate: bytes


@dataclass(frozen=True, slots=True)
class ClaimDropped:
    """A peer could not show the blocks that it claims to have."""

    peer: Address


@dataclass(slots=True)
class _Question:
    """Which blocks a peer was asked for; `blocks` holds what it answered."""

    start: int
    count: int
    blocks: tuple[SyncedBlock, ...] = ()
    answered: trio.Event = field(default_factory=trio.Event)


class BlockSync:
    """Knows who is ahead, and asks."""

    def __init__(
        self,
        *,
        writer: ChainWriter,
        pool: BatchPool,
        send: Callable[[Address, FrameKind, bytes], bool],
        deliver: Callable[[SyncAnswer | ClaimDropped], None],
        blame: Callable[[Address, Offence, str], None],
    ) -> None:
        self._writer = writer
        self._pool = pool
        self._send = send
        self._deliver = deliver
        self._blame = blame
        self.fetch = BatchFetch(writer.chain.suite, send, self._parse)
        self.target = 0
        """The highest height for which a certificate was verified; no claim can raise it."""
        self._tips: dict[Address, int] = {}
        self._firsts: dict[Address, int] = {}
        self._failures: dict[Address, int] = {}
        self._ignored_until: dict[Address, float] = {}
        self._requests: Requests[_Question] = Requests()
        self._ahead = trio.Event()

    @property
    def best(self) -> int:
        """The highest block a connected peer claims to have."""
        return max(self._tips.values(), default=0)

    @property
    def is_behind(self) -> bool:
        """Whether this node lags more than an ordinary moment; f liars cannot make it seem so."""
        claims = sorted(self._tips.values(), reverse=True)
        faults = self._writer.validators.faults
        return len(claims) > faults and claims[faults] > self._height + 1

    @property
    def _height(self) -> int:
        return self._writer.tip.height

    def tip_of(self, peer: Address) -> int:
        """The last claim of a peer, 0 when there is none."""
        return self._tips.get(peer, 0)

    def note(self, peer: Address, tip: int) -> None:
        """A peer claims to have executed `tip`, as its status or answer says.

        What it executed is durable, so over one link a claim is never lowered in good faith.
        """
        if tip < self._tips.get(peer, 0):
            self._blame(peer, Offence.FRUITLESS, f"lowered its claim to {tip}")
        if trio.current_time() < self._ignored_until.get(peer, 0.0):
            return
        self._tips[peer] = tip
        if tip > self._height:
            self._ahead.set()

    def hint(self, peer: Address, tip: int) -> None:
        """A message of a peer belongs to the height after `tip`: it must have executed that."""
        if tip > self._tips.get(peer, 0):
            self.note(peer, tip)

    def connect(self, peer: Address) -> None:
        """A link is up."""
        self.fetch.connect(peer)

    def forget(self, peer: Address) -> None:
        """The link is gone."""
        self._tips.pop(peer, None)
        self._firsts.pop(peer, None)
        self._failures.pop(peer, None)
        self._requests.forget(peer)
        self.fetch.disconnect(peer)

    async def run(self) -> None:
        """Ask whenever somebody is ahead; pull what is missing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.fetch.run)
            while True:
                await self._ahead.wait()
                self._ahead = trio.Event()
                if self.best == self._height + 1:
                    await trio.sleep(_GRACE_S)
                while self.best > self._height:
                    await self._advance_once()

    async def _advance_once(self) -> None:
        """One question to the most promising peer, and all that follows from its answer."""
        start = self._height + 1
        ahead = [peer for peer, tip in self._tips.items() if tip >= start]
        holding = [peer for peer in ahead if self._firsts.get(peer, 0) <= start]
        if not holding:
            await self._wait_for_archive(start, ahead)
            return
        peer = min(holding, key=lambda address: (self._failures.get(address, 0), address))
        try:
            blocks = await self._ask(peer, start)
            await self._apply(peer, await self._verify(start, blocks))
        except Rejected as refusal:
            is_forged = refusal.reason in _FORGERIES
            offence = Offence.INVALID_SIGNATURE if is_forged else Offence.MALFORMED
            self._blame(peer, offence, f"sync: {refusal}")
        except NotServedError as error:
            if error.is_refusal:
                self._blame(peer, Offence.FRUITLESS, "has not the batches of its own block")
        if self._height >= start:
            self._failures.pop(peer, None)
            return
        failures = self._failures.get(peer, 0) + 1
        self._failures[peer] = failures
        if failures >= _PATIENCE:
            # Its claim leads nowhere: a liar must not keep this node from serving its clients.
            self._ignored_until[peer] = trio.current_time() + _DISTRUST_S
            self._tips.pop(peer, None)
            self._failures.pop(peer, None)
            self._deliver(ClaimDropped(peer))
        await trio.sleep(_GRACE_S)

    async def _wait_for_archive(self, start: int, ahead: Sequence[Address]) -> None:
        """Everybody who is ahead began after the block that is missing here: others may connect."""
        lowest = min(self._firsts[peer] for peer in ahead)
        advice = (
            "link to a node that holds all blocks; or set `snapshot = true` in [sync], stop the "
            "node and run `kanglian node rebuild --config FILE --store blocks`"
        )
        _log.error("blocks_pruned", missing=start, lowest=lowest, advice=advice)
        await trio.sleep(_PRUNED_S)

    async def _ask(self, peer: Address, start: int) -> tuple[SyncedBlock, ...]:
        """What a peer answers in time; nothing otherwise, and then a late answer is not used."""
        question = _Question(start, limits.SYNC_BLOCKS)
        request = BlockRequest(self._requests.open(peer, question), start, question.count)
        if self._send(peer, FrameKind.BLOCK_REQUEST, encode(request)):
            with trio.move_on_after(limits.REQUEST_TIMEOUT_MS / 1_000):
                await question.answered.wait()
        return question.blocks

    def receive(self, peer: Address, number: int, body: bytes) -> None:
        """Take an answer; nothing of it is decoded before its number is known.

        Raises: PeerOffenceError when nobody asked, or when it is not what was asked for; Rejected
            when it is no answer at all.
        """
        question = self._requests.take(peer, number)
        response: BlockResponse = BLOCK_RESPONSE.decode(body)
        if len(response.blocks) > question.count:
            raise PeerOffenceError(Offence.MALFORMED, "more blocks than asked for")
        self._firsts[peer] = response.first
        is_held = self._tips.get(peer, 0) >= question.start >= response.first
        if not response.blocks and is_held:
            self._blame(peer, Offence.FRUITLESS, f"has not block {question.start} that it claims")
        question.blocks = response.blocks
        question.answered.set()
        self.hint(peer, response.tip)

    async def _verify(self, start: int, blocks: Sequence[SyncedBlock]) -> list[_Certified]:
        """The blocks whose certificates can be verified now: those of the current validators.

        Raises: Rejected when heights are not contiguous from `start`, when a block does not follow
            the one before, or when a certificate does not prove it.
        """
        writer = self._writer
        suite, validators = writer.chain.suite, writer.validators
        members = validators.hash(suite)
        previous = None
        found: list[_Certified] = []
        for height, item in enumerate(blocks, start):
            block = BLOCK.decode(item.block)
            header = HEADER.decode(block.header)
            if header.height != height:
                raise Rejected(Reason.BAD_BLOCK, rule="contiguous heights", height=header.height)
            if height <= writer.tip.height:
                continue  # consensus was faster
            if previous is None and height == writer.tip.height + 1:
                previous = writer.tip.block_hash
            if header.previous_hash != previous:
                raise Rejected(Reason.BAD_BLOCK, rule="previous_hash", height=height)
            if header.certificate_hash != certificate_hash(block.certificate, suite):
                raise Rejected(Reason.BAD_BLOCK, rule="certificate_hash", height=height)
            if found and header.validators_hash != members:
                break  # another set rules from here on; it is known once the blocks before ran
            writer.verify_certified(block, item.certificate, height, validators)
            previous = block_hash(block.header, suite)
            found.append(_Certified(block, header, item.certificate))
            self.target = max(self.target, height)
            await trio.lowlevel.checkpoint()
        return found

    async def _apply(self, peer: Address, blocks: Sequence[_Certified]) -> None:
        """Pull the batches of verified blocks and hand both to the driver, some at a time.

        Raises: Rejected, NotServedError; what came before them is applied.
        """
        waiting: list[_Certified] = []
        count = 0
        for item in blocks:
            if waiting and count + len(item.block.batches) > limits.SYNC_BATCHES:
                await self._apply_some(peer, waiting)
                waiting, count = [], 0
            waiting.append(item)
            count += len(item.block.batches)
        if waiting:
            await self._apply_some(peer, waiting)

    async def _apply_some(self, peer: Address, blocks: Sequence[_Certified]) -> None:
        bodies = await self._collect(peer, blocks)
        answer = SyncAnswer(
            peer,
            tuple(
                FetchedBlock(
                    item.block,
                    item.header,
                    item.certificate,
                    tuple(bodies[BatchDigest(digest)] for digest in item.block.batches),
                )
                for item in blocks
            ),
        )
        self._deliver(answer)
        await answer.applied.wait()
        if answer.refusal is not None:
            raise answer.refusal

    async def _collect(
        self, peer: Address, blocks: Sequence[_Certified]
    ) -> dict[BatchDigest, Batch]:
        """Every batch of these blocks: from the pool, or pulled from whoever has it."""
        found: dict[BatchDigest, Batch] = {}
        missing: list[BatchDigest] = []
        for digest in dict.fromkeys(digest for item in blocks for digest in item.block.batches):
            batch = self._pool.get(BatchDigest(digest))
            if batch is None:
                missing.append(BatchDigest(digest))
            else:
                found[BatchDigest(digest)] = batch
        if missing:
            found.update(zip(missing, await self.fetch.collect(missing, peer), strict=True))
        return found

    def _parse(self, wire: bytes) -> Batch:
        """A pulled batch, whose header is right; what the digest does not cover is checked here.

        Raises: Rejected.
        """
        batch = check_batch(wire, decode_batch(wire), self._writer.chain)
        check_author(batch, self._writer)
        return batch


def serve(blocks: BlockStore, tip: int, request: BlockRequest) -> BlockResponse:
    """What this node can answer: consecutive blocks within the limits, maybe none."""
    found: list[SyncedBlock] = []
    size = 0
    for height in range(request.start, min(request.start + request.count, tip + 1)):
        stored = blocks.block(height)
        if stored is None:
            break
        size += len(stored.block) + len(stored.certificate)
        if found and size > limits.SYNC_BYTES:
            break
        found.append(SyncedBlock(stored.block, stored.certificate))
    return BlockResponse(tip, tuple(found), blocks.first)
