"""The consensus driver: feeds inputs to the core and performs its effects, in order.

One task owns the core. An input is in the log before it is applied; a message of our own is signed,
logged and synced before it leaves, and reaches the core only then. Building, checking and executing
blocks come back as later inputs. It decides nothing: what to do is in the effects.
Source: architecture section 5.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, assert_never

import structlog
import trio

from consensus.core import Core
from consensus.events import (
    Accuse,
    BlockBuilt,
    BlockChecked,
    BroadcastStatus,
    BuildBlock,
    CheckBlock,
    Decide,
    Effect,
    Input,
    MessageReceived,
    PeerStatus,
    SendTo,
    SetTimer,
    Sign,
    StartHeight,
    Step,
    TimerFired,
    WorkAvailable,
)
from consensus.messages import Evidence, Proposal, Signed, Vote
from ledger.codec import encode
from ledger.errors import Rejected, invariant
from ledger.ids import Address, BatchDigest, Height, Round, Signature, ValidatorIndex
from ledger.votes import Certificate
from node import journal, limits, wire
from node.batch_maker import BatchMaker
from node.batches import BatchPool
from node.candidates import Candidates, Check
from node.chain_writer import ChainWriter
from node.clock import Clock
from node.metrics import Metrics
from node.stages import Stage, StageClock
from node.sync import SyncAnswer
from node.synced import append_synced
from node.timers import Timers
from node.wal import EndedHeight, WriteAheadLog
from p2p.frames import FrameKind

_log = structlog.get_logger("consensus")


class Links(Protocol):
    """What the driver needs of the network; nothing here waits."""

    def broadcast(self, kind: FrameKind, payload: bytes) -> int:
        """Queue a frame for every linked node."""
        ...

    def send(self, address: Address, kind: FrameKind, payload: bytes) -> bool:
        """Queue a frame for one node."""
        ...


@dataclass(frozen=True, slots=True)
class BatchArrived:
    """A verified batch is in the pool."""


@dataclass(frozen=True, slots=True)
class BuildNow:
    """The moment to build the block that the core asked for has come."""

    request: BuildBlock


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Long silence: an empty block shows that the chain is alive."""

    height: int


_FROM_PEERS = (MessageReceived, PeerStatus)
Event = Input | SyncAnswer | BatchArrived | BuildNow | Heartbeat


@dataclass(frozen=True, slots=True)
class Collaborators:
    """The parts of a node that the driver joins."""

    writer: ChainWriter
    candidates: Candidates
    pool: BatchPool
    maker: BatchMaker
    links: Links
    clock: Clock
    stages: StageClock
    metrics: Metrics
    sign: Callable[[bytes], Signature]
    accuse: Callable[[Evidence], None]
    """Keep what convicts a validator and bring it on chain; it may be told twice."""


def _ignore(*_: object) -> None:
    """A lone node misses nothing and has nobody to offer anything."""


class ConsensusDriver:
    """Owns the core of one chain on this node."""

    def __init__(
        self,
        core: Core,
        log: WriteAheadLog,
        parts: Collaborators,
        address: Address,
        voting_from: int,
    ) -> None:
        self.core = core
        self.voting_from = voting_from
        self._log = log
        self._parts = parts
        self._address = address
        self._inbox: deque[Event] = deque()
        self._own: deque[Signed] = deque()
        self._answers: deque[Input] = deque()
        self._early: list[Signed] = []
        self._wakeup = trio.Event()
        self._timers: Timers[Event] = Timers()
        self._decided: Decide | None = None
        self._appended_at = 0.0
        self._fetch_at = 0.0
        self._want: Callable[[Sequence[BatchDigest]], None] = _ignore
        self._offer: Callable[[], None] = _ignore
        self.is_behind: Callable[[], bool] = lambda: False

    def repair_by(
        self, want: Callable[[Sequence[BatchDigest]], None], offer: Callable[[], None]
    ) -> None:
        """`want` is told all batches that are missing, `offer` when to send overdue ones again."""
        self._want, self._offer = want, offer

    @property
    def height(self) -> int:
        """The height in progress."""
        return self._parts.writer.tip.height + 1

    @property
    def is_voting(self) -> bool:
        """Whether this node signs at the height in progress.

        Not while correct peers have decided it already: a node in sync disturbs nobody.
        """
        is_due = self.height >= self.voting_from and not self.is_behind()
        return self._me is not None and is_due

    @property
    def _me(self) -> ValidatorIndex | None:
        """This node in the set that rules the height in progress; None for an observer."""
        return self._parts.writer.validators.index_of(self._address)

    def post(self, event: Event) -> None:
        """Hand an event to the driver's task; never waits.

        When peers send faster than the core works, their messages are dropped: what matters of
        them is sent again with the next status.
        """
        if len(self._inbox) >= limits.INBOX_EVENTS and isinstance(event, _FROM_PEERS):
            self._parts.metrics.dropped.inc()
            return
        self._inbox.append(event)
        self._wakeup.set()

    async def run(self) -> None:
        """Drive until cancelled."""
        self._resume()
        await self._settle()
        while True:
            await self._handle(await self._next())
            await self._settle()

    async def _settle(self) -> None:
        """Apply what an event left behind: our own messages first, as the log has them first."""
        while True:
            if self._own:
                self._feed(MessageReceived(self._own.popleft()), is_logged=True)
            elif self._answers:
                self._feed(self._answers.popleft())
            elif self._decided is not None and self._is_complete(self._decided):
                await self._append_decided(self._decided)
            else:
                return

    def _is_complete(self, decide: Decide) -> bool:
        """Whether the bodies of a decided block are here; what a crash lost is asked for again."""
        missing = self._parts.candidates.missing(decide.value)
        now = trio.current_time()
        if missing and now >= self._fetch_at:
            self._want(missing)
            self._fetch_at = now + limits.FETCH_RETRY_MS / 1_000
            self._timers.add(self._fetch_at, BatchArrived())
        return not missing

    async def _next(self) -> Event:
        while True:
            due = self._timers.pop_due(trio.current_time())
            if due is not None:
                return due
            if self._inbox:
                await trio.lowlevel.checkpoint()
                return self._inbox.popleft()
            self._wakeup = trio.Event()
            with trio.move_on_at(self._timers.next_deadline()):
                await self._wakeup.wait()

    async def _handle(self, event: Event) -> None:
        match event:
            case SyncAnswer():
                await self._apply_synced(event)
            case BatchArrived():
                self._answer_checks()
                self._offer_work()
            case BuildNow(request):
                self._build(request)
            case Heartbeat(height):
                if height == self.height:
                    self._feed(WorkAvailable(Height(height)))
            case MessageReceived(signed):
                self._receive(signed)
            case _:
                self._feed(event)

    def _receive(self, signed: Signed) -> None:
        """A message of this height goes in; one of the next is kept for the log as well.

        The core holds messages of the next height back, but the log of this height ends before
        them: what the core will use must stand behind that end.
        """
        message = signed.message
        if message.height < self.height or (
            isinstance(message, Proposal) and self._parts.candidates.wire(message.value) is None
        ):
            return
        if message.height == self.height:
            self._feed(MessageReceived(signed))
        elif len(self._early) < limits.EARLY_MESSAGES:
            self._early.append(signed)
            self._feed(MessageReceived(signed), is_logged=True)

    def _feed(self, event: Input, *, is_logged: bool = False) -> None:
        """Log an input, apply it, perform what follows."""
        with self._parts.stages.measure(Stage.CONSENSUS):
            if not is_logged:
                journal.record(self._log, event, self._parts.candidates)
            effects = self.core.step(event)
        for effect in effects:
            self._perform(effect)

    def _perform(self, effect: Effect) -> None:
        match effect:
            case Sign(message):
                with self._parts.stages.measure(Stage.CONSENSUS):
                    self._sign_and_send(message)
            case SetTimer(timer, after_ms):
                self._timers.add(trio.current_time() + after_ms / 1_000, TimerFired(timer))
            case BuildBlock():
                self._schedule_build(effect)
            case CheckBlock(height, round_number, value):
                self._parts.candidates.start_check(Check(height, round_number, value))
                self._answer_checks()
                self._request_missing()
            case SendTo(peer, messages):
                payload = journal.resent(messages, self._parts.candidates)
                self._parts.links.send(Address(peer), FrameKind.MESSAGES, payload)
            case BroadcastStatus(height, round_number, step):
                status = wire.StatusMessage(height, round_number, int(step))
                self._parts.links.broadcast(FrameKind.STATUS, encode(status))
                self._remind()
            case Decide():
                invariant(self._decided is None, "one decision a height")
                self._decided = effect
            case Accuse(evidence):
                self._parts.metrics.accused.inc()
                sender = evidence.first.message.sender
                _log.warning("equivocation", height=self.height, validator=sender)
                self._parts.accuse(evidence)
            case _:
                assert_never(effect)

    def _sign_and_send(self, message: Proposal | Vote) -> None:
        """Durable first, then out; the core sees it as any other message."""
        parts = self._parts
        signed = journal.sign(message, parts.writer.chain, parts.sign)
        kind, payload = journal.encode_signed(signed, parts.candidates)
        self._log.append(journal.own_entry(kind, payload))
        # A vote says "I hold all of it": the bodies are durable before the vote is.
        parts.pool.sync()
        self._log.sync()
        parts.links.broadcast(kind, payload)
        self._own.append(signed)

    def _schedule_build(self, request: BuildBlock) -> None:
        """A moment of patience in the first round fills blocks; nobody waits when there is much."""
        interval = self._parts.writer.genesis.parameters.block_interval_ms / 1_000
        is_full = self._parts.pool.transactions >= limits.BLOCK_TRANSACTIONS
        due = 0.0 if request.round or is_full else self._appended_at + interval
        self._timers.add(due, BuildNow(request))

    def _build(self, request: BuildBlock) -> None:
        status = self.core.status
        me = self._me
        if (request.height, request.round) != (status.height, status.round) or me is None:
            return
        with self._parts.stages.measure(Stage.CONSENSUS):
            now = self._parts.clock.now_ms()
            value = self._parts.candidates.build(me, request.round, now)
        if value is None:
            retry = trio.current_time() + limits.BUILD_RETRY_MS / 1_000
            self._timers.add(retry, BuildNow(request))
            return
        self._answers.append(BlockBuilt(request.height, request.round, value))

    def _answer_checks(self) -> None:
        with self._parts.stages.measure(Stage.CONSENSUS):
            verdicts = self._parts.candidates.verdicts()
        for check, verdict in verdicts:
            answer = BlockChecked(Height(check.height), Round(check.round), check.value, verdict)
            self._answers.append(answer)

    def _request_missing(self) -> None:
        self._want(self._parts.candidates.wanted())

    def _remind(self) -> None:
        """Repeat what may have been lost: questions for batches, and overdue batches."""
        self._request_missing()
        self._offer()

    def _offer_work(self) -> None:
        if self._has_work() and self.core.status.step is Step.IDLE:
            self._answers.append(WorkAvailable(Height(self.height)))

    def _has_work(self) -> bool:
        return len(self._parts.pool) > 0 or self._parts.writer.tip.must_follow

    async def _append_decided(self, decide: Decide) -> None:
        self._decided = None
        candidates = self._parts.candidates
        candidate = candidates.block(decide.value)
        invariant(candidate is not None, "a decided block was checked here")
        certificate = Certificate(
            decide.height,
            decide.round,
            decide.value,
            tuple((int(index), signature) for index, signature in decide.certificate.signatures),
        )
        self._parts.metrics.rounds.inc(decide.round)
        await self._parts.writer.append(
            candidate.block,  # pyright: ignore[reportOptionalMemberAccess]  # checked above
            encode(certificate),
            candidates.batches(decide.value),
            candidates.places(decide.value),
            self._end_height,
        )
        self._start_height()
        self._offer_work()

    def _end_height(self, height: int) -> None:
        author = self._parts.maker.state
        ended = EndedHeight(height, author.sequence, author.previous, self.voting_from)
        self._log.end_height(ended)
        for signed in self._early:
            if signed.message.height == height + 1:
                journal.record(self._log, MessageReceived(signed), self._parts.candidates)
        self._early.clear()

    def _start_height(self) -> None:
        writer = self._parts.writer
        self._appended_at = trio.current_time()
        self._parts.candidates.start_height(self.height)
        start = StartHeight(
            height=Height(self.height),
            validator_count=len(writer.validators.members),
            me=self._me if self.is_voting else None,
            proposers=writer.proposers(),
        )
        for effect in self.core.step(start):
            self._perform(effect)
        if not self._has_work():
            self._schedule_heartbeat()

    def _schedule_heartbeat(self) -> None:
        """When the chain has been silent for the heartbeat, an empty block is due."""
        parts = self._parts
        due_ms = parts.writer.tip.time + parts.writer.genesis.parameters.heartbeat_ms
        wait_ms = max(0, due_ms - parts.clock.now_ms())
        self._timers.add(trio.current_time() + wait_ms / 1_000, Heartbeat(self.height))

    async def _apply_synced(self, answer: SyncAnswer) -> None:
        before = self.height
        try:
            await append_synced(self._parts.writer, answer.blocks, self._end_height)
        except Rejected as refusal:
            _log.warning("sync_refused", peer=answer.peer.hex(), reason=str(refusal))
            answer.refusal = refusal
        if self.height > before:
            self._decided = None
            if self._log.is_new and (before == 1 or before < self.voting_from):
                # A node that begins behind its peers may be one that lost all it had: it cannot
                # know what it signed, so it waits until the chain is past it.
                self.voting_from = max(self.voting_from, self.height + limits.QUARANTINE_HEIGHTS)
                _log.warning("quarantine", reason="began empty", voting_from=self.voting_from)
                self._end_height(self.height - 1)
            self._start_height()
            self._offer_work()
        answer.applied.set()

    def _resume(self) -> None:
        """Start the next height and replay what the log remembers of it."""
        self._start_height()
        parts = self._parts
        effects = journal.replay(
            self._log.recovered.entries,
            self.core,
            parts.candidates,
            parts.pool,
            parts.writer.chain,
            parts.clock.now_ms(),
        )
        for effect in effects:
            self._perform(effect)
        self._offer_work()
