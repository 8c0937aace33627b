"""The router: what arrives on links becomes inputs, and questions of peers get their answers.

Consensus messages are checked here (right height, right signer, signature) before the core sees
them; batches go through one verification queue, so that votes never wait behind them. Whoever sends
something that it must have found wrong itself is blamed for it, and an author or signer besides who
is proved to have signed it. Old messages and late answers of correct nodes are no offence.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import structlog
import trio

from consensus.events import MessageReceived, PeerStatus
from consensus.messages import Signed
from ledger.batch import BATCH_HEADER, BatchHeader, SignedBatch, batch_digest, decode_batch
from ledger.codec import encode
from ledger.errors import PeerProtocolError, Reason, Rejected, UnavailableError
from ledger.ids import (
    Address,
    BatchDigest,
    BlockHash,
    Height,
    Round,
    Signature,
    ValidatorIndex,
)
from ledger.membership import EFFECTIVE_AFTER
from ledger.validators import ValidatorSet
from node import limits, wire
from node.admission import Admission
from node.batches import BatchPool
from node.candidates import Candidates
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.driver import ConsensusDriver
from node.driver_parts import BatchArrived
from node.metrics import Metrics
from node.snapshots import Snapshots
from node.stages import Stage, StageClock
from node.sync import BlockSync, serve
from p2p.frames import Frame, FrameKind
from p2p.metering import Allowance, Budget
from p2p.peer import Peer
from p2p.scoring import Offence, PeerOffenceError

_log = structlog.get_logger("router")
_STATUSES = Budget(limits.STATUS_RATE, limits.STATUS_BURST)
_FORGERIES = (Reason.BAD_SIGNATURE, Reason.BAD_CERTIFICATE)
# A message is merely late; so many heights back its sender should have heard of them.
_STALE_HEIGHTS = 16
_SLICE_MESSAGES = 32  # verifications of re-sent messages between two looks at the event loop
_HEARD_VOTES = 4_096  # votes since our last status, which several peers answer with the same; 1 MB


@dataclass(frozen=True, slots=True)
class _Arrived:
    """A batch of a peer that waits for verification."""

    peer: Address
    author: Address
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
        snapshots: Snapshots,
        clock: Clock,
        stages: StageClock,
        metrics: Metrics,
        blame: Callable[[Address, Offence, str], None],
    ) -> None:
        self._driver = driver
        self._writer = writer
        self._candidates = candidates
        self._pool = pool
        self._admission = admission
        self._sync = sync
        self._snapshots = snapshots
        self._clock = clock
        self._stages = stages
        self._metrics = metrics
        self._blame = blame
        self._peers: dict[Address, Peer] = {}
        self._statuses: dict[Address, Allowance] = {}
        self._heard: dict[wire.VoteMessage, None] = {}
        self._queue: deque[_Arrived] = deque()
        self._queued_bytes = 0
        self._work = trio.Event()
        self._room = trio.Event()
        driver.repair_by(sync.fetch.want, self._repair)

    def on_connected(self, peer: Peer) -> None:
        """Tell a new link where we stand, and offer what waits for a block."""
        self._peers[peer.address] = peer
        self._statuses[peer.address] = Allowance(_STATUSES, trio.current_time())
        self._sync.connect(peer.address)
        self._metrics.peers.set(len(self._peers))
        self._tell_status(peer)
        for batch in self._pool.overdue(self._clock.now_ms() + limits.REBROADCAST_MS):
            peer.send(FrameKind.BATCH, batch.wire)

    def on_disconnected(self, peer: Peer) -> None:
        """Forget a link."""
        self._peers.pop(peer.address, None)
        self._statuses.pop(peer.address, None)
        self._sync.forget(peer.address)
        self._metrics.peers.set(len(self._peers))

    @property
    def queued_bytes(self) -> int:
        """Bytes of batches that wait for verification."""
        return self._queued_bytes

    def is_connected(self, address: Address) -> bool:
        """Whether there is a link to a node."""
        return address in self._peers

    def _repair(self) -> None:
        """Our status goes out: votes that peers send again because of it are taken once more.

        That a vote was heard does not mean that it counts: the driver may have dropped it before
        the node took part or under a flood, and the core does so with votes of far rounds.
        """
        self._heard.clear()
        self._offer()

    def _offer(self) -> None:
        """Send batches that wait suspiciously long again, where the line has nothing better to do.

        On a slow line they are still on their way, and sending them twice makes it slower.
        """
        overdue = self._pool.overdue(self._clock.now_ms())
        for peer in list(self._peers.values()) if overdue else ():
            if not peer.is_streaming:
                for batch in overdue:
                    peer.send(FrameKind.BATCH, batch.wire)

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
                is_forged = refusal.reason in _FORGERIES
                offence = Offence.INVALID_SIGNATURE if is_forged else Offence.MALFORMED
                raise PeerOffenceError(offence, f"{kind.name.lower()}: {refusal}") from refusal

    async def _on_frame(self, peer: Peer, kind: FrameKind, payload: bytes) -> None:
        match kind:
            case FrameKind.VOTE:
                with self._stages.measure(Stage.CONSENSUS):
                    self._on_vote(peer, wire.VOTE.decode(payload))
            case FrameKind.PROPOSAL:
                with self._stages.measure(Stage.CONSENSUS):
                    self._on_proposal(peer, wire.PROPOSAL.decode(payload))
            case FrameKind.MESSAGES:
                await self._on_resent(peer, wire.RESENT.decode(payload))
            case FrameKind.STATUS:
                self._on_status(peer, wire.STATUS.decode(payload))
            case FrameKind.BATCH:
                await self._enqueue(peer, payload)
            case FrameKind.BATCH_REQUEST:
                self._on_batch_request(peer, wire.BATCH_REQUEST.decode(payload))
            case FrameKind.BATCH_RESPONSE:
                if self._sync.fetch.receive(peer.address, *wire.split_answer(payload)):
                    await self._enqueue(peer, wire.split_answer(payload)[1])
            case FrameKind.BLOCK_REQUEST:
                self._on_block_request(peer, wire.BLOCK_REQUEST.decode(payload))
            case FrameKind.BLOCK_RESPONSE:
                self._sync.receive(peer.address, *wire.split_answer(payload))
            case FrameKind.SNAPSHOT_REQUEST:
                await self._on_snapshot_request(peer, wire.SNAPSHOT_REQUEST.decode(payload))
            case _:
                raise PeerProtocolError(f"a frame of kind {kind.name} after the hello")

    def _is_wanted(self, peer: Peer, height: int) -> bool:
        """This height and the next: a peer that is a moment ahead must not be lost."""
        ours = self._driver.height
        if ours <= height <= ours + 1:
            return True
        if height < ours - _STALE_HEIGHTS:
            self._blame(peer.address, Offence.STALE, f"a message of height {height}")
        elif height > ours:
            self._sync.hint(peer.address, height - 1)
        return False

    def _verify(self, peer: Peer, signed: Signed) -> None:
        """Check a signature. Raises: Rejected(BAD_SIGNATURE); whoever sent it must have known."""
        peer.charge_signatures(1)
        message = signed.message
        members = self._writer.validators_at(message.height).members
        if message.sender >= len(members):
            raise Rejected(Reason.BAD_SIGNATURE, "no such validator", index=message.sender)
        digest = wire.digest_of(message, self._writer.chain)
        key = members[message.sender].key
        if not self._writer.chain.suite.verify(key, digest, signed.signature):
            raise Rejected(Reason.BAD_SIGNATURE, "consensus message", index=message.sender)

    def _on_vote(self, peer: Peer, record: wire.VoteMessage) -> None:
        if record in self._heard or not self._is_wanted(peer, record.height):
            return
        signed = wire.signed_vote(record)
        self._verify(peer, signed)
        if len(self._heard) >= _HEARD_VOTES:
            self._heard.clear()
        self._heard[record] = None
        self._driver.post(MessageReceived(signed))

    def _on_proposal(self, peer: Peer, record: wire.ProposalMessage) -> None:
        if not self._is_wanted(peer, record.height):
            return
        signed = wire.signed_proposal(record)
        self._verify(peer, signed)
        self._candidates.remember(
            BlockHash(record.block_hash),
            record.block,
            round_number=record.round,
            sender=ValidatorIndex(record.sender),
            received_ms=self._clock.now_ms(),
        )
        self._driver.post(MessageReceived(signed))

    async def _on_resent(self, peer: Peer, resent: wire.Resent) -> None:
        for proposal in resent.proposals:
            with self._stages.measure(Stage.CONSENSUS):
                self._on_proposal(peer, proposal)
        for start in range(0, len(resent.votes), _SLICE_MESSAGES):
            with self._stages.measure(Stage.CONSENSUS):
                for vote in resent.votes[start : start + _SLICE_MESSAGES]:
                    self._on_vote(peer, vote)
            await trio.lowlevel.checkpoint()

    def _on_status(self, peer: Peer, status: wire.StatusMessage) -> None:
        """A claim costs nothing to hear; answering it is limited (catch-up as an amplifier)."""
        tip = max(0, status.height - 1)
        self._sync.note(peer.address, tip)
        self._driver.hear(peer.address, tip)
        allowance = self._statuses.get(peer.address)
        if allowance is None or not allowance.take(trio.current_time()):
            return
        # Where votes to it were dropped it may wait for what it will never get.
        is_lossy = peer.take_lossy()
        if status.height == self._driver.height:
            event = PeerStatus(
                peer.address, Height(status.height), Round(status.round), status.step
            )
            self._driver.post(event)
        if status.height < self._driver.height or is_lossy:
            self._tell_status(peer)

    def _on_batch_request(self, peer: Peer, request: wire.BatchRequest) -> None:
        pending = self._pool.get(BatchDigest(request.digest))
        batch = self._writer.blocks.batch(request.digest) if pending is None else pending.wire
        if batch is not None and peer.holds_batch(batch):
            return
        peer.charge_served(0 if batch is None else len(batch))
        answer = wire.answer(request.number, batch or b"")
        peer.send(FrameKind.BATCH_RESPONSE, answer)

    def _on_block_request(self, peer: Peer, request: wire.BlockRequest) -> None:
        response = encode(serve(self._writer.blocks, self._writer.tip.height, request))
        peer.charge_served(len(response))
        peer.send(FrameKind.BLOCK_RESPONSE, wire.answer(request.number, response))

    async def _on_snapshot_request(self, peer: Peer, request: wire.SnapshotRequest) -> None:
        """Nothing else of this peer is read meanwhile, so it has one question in work at a time."""
        part = encode(await self._snapshots.part(request))
        peer.charge_served(len(part))
        peer.send(FrameKind.SNAPSHOT_RESPONSE, wire.answer(request.number, part))

    async def _enqueue(self, peer: Peer, payload: bytes) -> None:
        """Queue a batch for verification; a full queue stops reading from this link."""
        while self._queued_bytes > limits.VERIFY_QUEUE_BYTES:
            self._room = trio.Event()
            await self._room.wait()
        with self._stages.measure(Stage.DECODE):
            signed = decode_batch(payload)
            digest = batch_digest(signed.header, self._writer.chain.suite)
            header = BATCH_HEADER.decode(signed.header)
            author = Address(header.author)
        if self._authors(header).index_of(author) is None:
            if header.anchor_height + 1 <= self._writer.tip.height + EFFECTIVE_AFTER:
                self._blame(peer.address, Offence.STALE, "a batch of no validator")
            return
        self._sync.fetch.note_arrived(digest)
        if digest in self._pool or digest in self._pool.arriving:
            return
        peer.charge_signatures(1 + len(signed.transactions))
        self._pool.arriving[digest] = None
        self._queue.append(_Arrived(peer.address, author, digest, payload, signed))
        self._queued_bytes += len(payload)
        self._work.set()

    def _authors(self, header: BatchHeader) -> ValidatorSet:
        """Who could make this batch: those who rule the height after its anchor, if known."""
        return self._writer.history.at(header.anchor_height + 1)

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
                arrived.payload, arrived.signed, self._writer.history.at
            )
        except UnavailableError:
            return
        except Rejected as refusal:
            self._metrics.refused.labels(refusal.reason.value).inc()
            _log.warning("batch_refused", peer=peer.hex(), reason=str(refusal))
            self._blame_batch(arrived, refusal)
            return
        finally:
            self._pool.arriving.pop(arrived.digest, None)
        if self._writer.blocks.has_batch(batch.digest):
            return  # a block ordered it meanwhile
        # A batch that a proposal orders is kept even when the pool is full.
        needed = self._candidates.is_awaited(batch.digest)
        if self._pool.add(batch, self._clock.now_ms(), needed=needed):
            self._driver.post(BatchArrived())

    def _blame_batch(self, arrived: _Arrived, refusal: Rejected) -> None:
        """Anybody can check a batch, so whoever sent it had to; its author, if it signed it."""
        self._blame(arrived.peer, Offence.INVALID_SIGNATURE, f"batch: {refusal}")
        writer, author = self._writer, arrived.author
        validators = self._authors(BATCH_HEADER.decode(arrived.signed.header))
        index = validators.index_of(author)
        if author == arrived.peer or index is None:
            return
        key, signature = validators.members[index].key, arrived.signed.signature
        if writer.chain.suite.verify(key, arrived.digest, Signature(signature)):
            self._blame(author, Offence.INVALID_SIGNATURE, f"signed a batch: {refusal}")
