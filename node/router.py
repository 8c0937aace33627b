"""The router: what arrives on links becomes inputs, and questions of peers get their answers.

Consensus messages are checked here (right height, right signer, signature) before the core sees
them; batches go through one verification queue, so that votes never wait behind them.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from consensus.events import MessageReceived, PeerStatus
from consensus.messages import Signed
from ledger.batch import SignedBatch, batch_digest, decode_batch
from ledger.codec import encode
from ledger.errors import PeerProtocolError, Reason, Rejected
from ledger.ids import Address, BatchDigest, BlockHash, Height, Round, ValidatorIndex
from node import limits, wire
from node.admission import Admission
from node.batches import BatchPool
from node.candidates import Candidates
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.driver import ConsensusDriver
from node.driver_parts import BatchArrived
from node.metrics import Metrics
from node.stages import Stage, StageClock
from node.sync import BlockSync, serve
from p2p.frames import Frame, FrameKind
from p2p.peer import Peer

_log = structlog.get_logger("router")


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A batch of a peer that waits for verification."""

    peer: Address
    digest: BatchDigest
    payload: bytes
    signed: SignedBatch


class Router:
    """Handles the frames of all links; implements `p2p.network.FrameHandler`."""

    def __init__(
        self,
        *,
        driver: ConsensusDriver,
        writer: ChainWriter,
        candidates: Candidates,
        pool: BatchPool,
        admission: Admission,
        sync: BlockSync,
        clock: Clock,
        stages: StageClock,
        metrics: Metrics,
        ban: Callable[[Address, float, str], None],
    ) -> None:
        self._driver = driver
        self._writer = writer
        self._candidates = candidates
        self._pool = pool
        self._admission = admission
        self._sync = sync
        self._clock = clock
        self._stages = stages
        self._metrics = metrics
        self._ban = ban
        self._peers: dict[Address, Peer] = {}
        self._queue: deque[_Arrived] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._room = trio.Event()

    def on_connected(self, peer: Peer) -> None:
        """Tell a new link where we stand, and offer what waits for a block."""
        self._peers[peer.address] = peer
        self._metrics.peers.set(len(self._peers))
        self._tell_status(peer)
        for batch in self._pool.overdue(self._clock.now_ms() + limits.REBROADCAST_MS):
            peer.send(FrameKind.BATCH, batch.wire)

    def on_disconnected(self, peer: Peer) -> None:
        """Forget a link."""
        self._peers.pop(peer.address, None)
        self._sync.forget(peer.address)
        self._metrics.peers.set(len(self._peers))

    def is_connected(self, address: Address) -> bool:
        """Whether there is a link to a node."""
        return address in self._peers

    def _tell_status(self, peer: Peer) -> None:
        status = self._driver.core.status
        message = wire.StatusMessage(self._driver.height, status.round, int(status.step))
        peer.send(FrameKind.STATUS, encode(message))

    async def on_frames(self, peer: Peer, frames: list[Frame]) -> None:
        """Handle what one read brought.

        Raises: PeerProtocolError when the peer sent what no correct node sends.
        """
        for kind, payload in frames:
            try:
                await self._on_frame(peer, kind, payload)
            except Rejected as refusal:
                self._metrics.refused.labels(refusal.reason.value).inc()
                raise PeerProtocolError(f"{kind.name.lower()}: {refusal}") from refusal

    async def _on_frame(self, peer: Peer, kind: FrameKind, payload: bytes) -> None:
        match kind:
            case FrameKind.VOTE:
                with self._stages.measure(Stage.CONSENSUS):
                    self._on_vote(wire.VOTE.decode(payload))
            case FrameKind.PROPOSAL:
                with self._stages.measure(Stage.CONSENSUS):
                    self._on_proposal(wire.PROPOSAL.decode(payload))
            case FrameKind.MESSAGES:
                self._on_resent(wire.RESENT.decode(payload))
            case FrameKind.STATUS:
                self._on_status(peer, wire.STATUS.decode(payload))
            case FrameKind.BATCH | FrameKind.BATCH_RESPONSE:
                await self._enqueue(peer.address, payload)
            case FrameKind.BATCH_REQUEST:
                self._on_batch_request(peer, wire.BATCH_REQUEST.decode(payload))
            case FrameKind.BLOCK_REQUEST:
                response = serve(self._writer.blocks, wire.BLOCK_REQUEST.decode(payload))
                peer.send(FrameKind.BLOCK_RESPONSE, encode(response))
            case FrameKind.BLOCK_RESPONSE:
                response = wire.BLOCK_RESPONSE.decode(payload)
                if not await self._sync.receive(peer.address, response):
                    _log.info("unrequested_blocks", peer=peer.address.hex(), start=response.start)
            case _:
                raise PeerProtocolError(f"a frame of kind {kind.name} after the hello")

    def _is_wanted(self, height: int) -> bool:
        """This height and the next: a peer that is a moment ahead must not be lost."""
        return self._driver.height <= height <= self._driver.height + 1

    def _verify(self, signed: Signed) -> None:
        message = signed.message
        members = self._writer.validators.members
        if message.sender >= len(members):
            raise Rejected(Reason.BAD_SIGNATURE, "no such validator", index=message.sender)
        digest = wire.digest_of(message, self._writer.chain)
        key = members[message.sender].key
        if not self._writer.chain.suite.verify(key, digest, signed.signature):
            raise Rejected(Reason.BAD_SIGNATURE, "consensus message", index=message.sender)

    def _on_vote(self, record: wire.VoteMessage) -> None:
        if self._is_wanted(record.height):
            signed = wire.signed_vote(record)
            self._verify(signed)
            self._driver.post(MessageReceived(signed))

    def _on_proposal(self, record: wire.ProposalMessage) -> None:
        if not self._is_wanted(record.height):
            return
        signed = wire.signed_proposal(record)
        self._verify(signed)
        self._candidates.remember(
            BlockHash(record.block_hash),
            record.block,
            round_number=record.round,
            sender=ValidatorIndex(record.sender),
            received_ms=self._clock.now_ms(),
        )
        self._driver.post(MessageReceived(signed))

    def _on_resent(self, resent: wire.Resent) -> None:
        with self._stages.measure(Stage.CONSENSUS):
            for proposal in resent.proposals:
                self._on_proposal(proposal)
            for vote in resent.votes:
                self._on_vote(vote)

    def _on_status(self, peer: Peer, status: wire.StatusMessage) -> None:
        self._sync.note(peer.address, status.height - 1)
        self._driver.hear(peer.address, status.height - 1)
        if status.height == self._driver.height:
            event = PeerStatus(
                peer.address, Height(status.height), Round(status.round), status.step
            )
            self._driver.post(event)
        elif status.height < self._driver.height:
            # It lags, and hears of our height: its own statuses come once a second at most.
            self._tell_status(peer)

    def _on_batch_request(self, peer: Peer, request: wire.BatchRequest) -> None:
        size = 0
        for digest in request.digests:
            pending = self._pool.get(BatchDigest(digest))
            batch = self._writer.blocks.batch(digest) if pending is None else pending.wire
            if batch is None:
                continue
            size += len(batch)
            if size > limits.SYNC_BYTES:
                break
            peer.send(FrameKind.BATCH_RESPONSE, batch)

    async def _enqueue(self, peer: Address, payload: bytes) -> None:
        """Queue a batch for verification; a full queue stops reading from this link."""
        while self._queued_bytes > limits.VERIFY_QUEUE_BYTES:
            self._room = trio.Event()
            await self._room.wait()
        with self._stages.measure(Stage.DECODE):
            signed = decode_batch(payload)
            digest = batch_digest(signed.header, self._writer.chain.suite)
        if digest in self._pool or digest in self._pool.arriving:
            return
        self._pool.arriving[digest] = None
        self._queue.append(_Arrived(peer, digest, payload, signed))
        self._queued_bytes += len(payload)
        self._work.set()

    async def verify_batches(self) -> None:
        """The one task that verifies batches of peers, in order of arrival."""
        while True:
            while self._queue:
                arrived = self._queue.popleft()
                await self._verify_batch(arrived)
                self._queued_bytes -= len(arrived.payload)
                self._room.set()
            self._work = trio.Event()
            await self._work.wait()

    async def _verify_batch(self, arrived: _Arrived) -> None:
        peer = arrived.peer
        try:
            if self._writer.blocks.has_batch(arrived.digest):
                return
            batch = await self._admission.verify_batch(
                arrived.payload, arrived.signed, self._writer.validators
            )
        except Rejected as refusal:
            self._metrics.refused.labels(refusal.reason.value).inc()
            _log.warning("batch_refused", peer=peer.hex(), reason=str(refusal))
            self._ban(peer, 60.0, f"batch: {refusal.reason}")
            return
        finally:
            self._pool.arriving.pop(arrived.digest, None)
        if self._writer.blocks.has_batch(batch.digest):
            return  # a block ordered it meanwhile
        # A batch that a proposal orders is kept even when the pool is full.
        needed = self._candidates.is_awaited(batch.digest)
        if self._pool.add(batch, self._clock.now_ms(), needed=needed):
            self._driver.post(BatchArrived())
