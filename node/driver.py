"""The consensus driver: feeds inputs to the core and performs its effects, in order.

One task owns the core. It starts when the node knows what it may have signed (`quarantine.py`). An
input is in the log before it is applied; a message of our own is signed,
logged and synced before it leaves, and reaches the core only then. Building, checking and executing
blocks come back as later inputs. It decides nothing: what to do is in the effects.
Source: architecture section 5.
"""

from collections import deque
from collections.abc import Callable, Sequence
from typing import assert_never

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
    SendTo,
    SetTimer,
    Sign,
    StartHeight,
    Step,
    TimerFired,
    WorkAvailable,
)
from consensus.messages import Proposal, Signed, Vote
from ledger.codec import encode
from ledger.errors import Rejected, invariant
from ledger.ids import Address, BatchDigest, Height, Round, ValidatorIndex
from ledger.votes import Certificate
from node import journal, limits, wire
from node.candidates import Check
from node.driver_parts import (
    FROM_PEERS,
    BatchArrived,
    BuildNow,
    Collaborators,
    Event,
    Heartbeat,
    SpaceReturned,
    TipHeard,
    TwinSeen,
)
from node.log_entries import EndedHeight
from node.quarantine import gate_of
from node.sentinel import Sentinel
from node.signer import Signer
from node.stages import Stage
from node.sync import ClaimDropped, SyncAnswer
from node.synced import append_synced
from node.timers import Timers
from node.wal import WriteAheadLog
from p2p.frames import FrameKind

_log = structlog.get_logger("consensus")


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
    ) -> None:
        self.core = core
        self._log = log
        self._parts = parts
        self._address = address
        self._gate = gate_of(address, log.recovered)
        self._signer = Signer(parts.writer.chain, parts.sign)
        if log.recovered.is_mended:
            journal.forget_forged(log.recovered, parts.writer, address)
        for own in journal.own_messages(log.recovered.entries):
            self._signer.remember(own)
        self._sentinel = Sentinel(
            address, self._gate, self._signer, parts.writer, self._record_standing
        )
        parts.writer.on_block(self._sentinel.on_block)
        self._is_started = False
        self._withheld: list[Proposal | Vote] = []
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
        self._repair: Callable[[], None] = _ignore
        self.is_behind: Callable[[], bool] = lambda: False

    def repair_by(
        self, want: Callable[[Sequence[BatchDigest]], None], repair: Callable[[], None]
    ) -> None:
        """`want` is told all batches that are missing, `repair` when our status goes out."""
        self._want, self._repair = want, repair

    @property
    def height(self) -> int:
        """The height in progress."""
        return self._parts.writer.tip.height + 1

    @property
    def is_voting(self) -> bool:
        """Whether this node signs at the height in progress.

        Not while correct peers have decided it already: a node in sync disturbs nobody.
        """
        is_due = self._gate.may_vote(self.height) and not self.is_behind()
        return self._me is not None and is_due

    @property
    def _me(self) -> ValidatorIndex | None:
        """This node in the set that rules the height in progress; None for an observer."""
        return self._parts.writer.validators.index_of(self._address)

    def hear(self, peer: Address, tip: int) -> None:
        """A peer says which block it has."""
        if not self._gate.is_open:
            self.post(TipHeard(peer, tip))

    def post(self, event: Event) -> None:
        """Hand an event to the driver's task; never waits.

        When peers send faster than the core works, their messages are dropped: what matters of
        them is sent again with the next status.
        """
        if len(self._inbox) >= limits.INBOX_EVENTS and isinstance(event, FROM_PEERS):
            self._parts.metrics.dropped.inc()
            return
        self._inbox.append(event)
        self._wakeup.set()

    async def run(self) -> None:
        """Drive until cancelled.

        Raises: DuplicateInstanceError when this node's key is in use elsewhere.
        """
        self._sentinel.inspect_stored()
        if self._me is not None:
            await self._arrive()
        self._resume()
        await self._settle()
        while True:
            await self._handle(await self._next())
            await self._settle()

    async def _arrive(self) -> None:
        """Hear the others and hold what they hold; before that a validator does not take part.

        It costs nobody a decision: without a quorum to hear there is none to decide either.
        """
        while not self._open_gate():
            event: Event | None = None
            with trio.move_on_after(limits.ARRIVAL_STATUS_MS / 1_000):
                event = await self._next()
            if event is None:
                status = wire.StatusMessage(self.height, 0, int(Step.DECIDED))
                self._parts.links.broadcast(FrameKind.STATUS, encode(status))
            elif isinstance(event, MessageReceived):
                self._notice_own(event.signed)
            elif isinstance(event, TipHeard | ClaimDropped | SyncAnswer | TwinSeen):
                await self._handle(event)

    def _open_gate(self) -> bool:
        """Whether the gate is open; what it decided is durable then."""
        gate = self._gate
        if gate.try_open(self.height - 1, self._parts.writer.validators):
            ended = self._log.recovered.ended
            if ended is not None and (ended.voting_from, ended.memory) != (
                gate.voting_from,
                gate.memory,
            ):
                self._record_standing()
            if gate.voting_from > self.height:
                _log.warning("quarantine", voting_from=gate.voting_from, height=self.height)
        return gate.is_open

    def _record_standing(self) -> None:
        """From when on this node votes is durable: a restart does not end a quarantine."""
        self.end_height(self.height - 1)
        self._log.sync()

    def _notice_own(self, signed: Signed) -> None:
        self._sentinel.on_message(signed.message)

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
            case TipHeard(peer, tip):
                self._gate.hear(peer, tip)
            case ClaimDropped(peer):
                self._gate.drop_claim(peer)
            case SpaceReturned():
                self._sign_withheld()
            case TwinSeen(where):
                self._sentinel.on_twin(where)
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
        self._notice_own(signed)
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
        is_begun = self._signer.last[:2] == (message.height, message.round)
        if self._withheld or (parts.space.is_low and not is_begun):
            # A full disk means silence: a round that was begun is ended, no other is entered.
            self._withheld.append(message)
            return
        signed = self._signer.sign(message, self._keep)
        kind, payload = journal.encode_signed(signed, parts.candidates)
        parts.links.broadcast(kind, payload)
        self._own.append(signed)

    def _keep(self, signed: Signed) -> None:
        kind, payload = journal.encode_signed(signed, self._parts.candidates)
        self._log.append(journal.own_entry(kind, payload))
        # A vote says "I hold all of it": the bodies are durable before the vote is.
        self._parts.pool.sync()
        self._log.sync()

    def _sign_withheld(self) -> None:
        withheld, self._withheld = self._withheld, []
        status = self.core.status
        for message in withheld:
            if (message.height, message.round) == (status.height, status.round):
                self._sign_and_send(message)

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
        """Repeat what may have been lost: questions for batches, overdue batches, votes."""
        self._request_missing()
        self._repair()

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
        self._log.sync_ended()
        await self._parts.writer.append(
            candidate.block,  # pyright: ignore[reportOptionalMemberAccess]  # checked above
            encode(certificate),
            candidates.batches(decide.value),
            candidates.places(decide.value),
            self.end_height,
        )
        self._start_height()
        self._offer_work()

    def end_height(self, height: int) -> None:
        """Record in the log that the block of this height is durable."""
        author, gate = self._parts.maker.state, self._gate
        self._log.end_height(
            EndedHeight(height, author.sequence, author.previous, gate.voting_from, gate.memory)
        )
        for signed in self._early:
            if signed.message.height == height + 1:
                journal.record(self._log, MessageReceived(signed), self._parts.candidates)
        self._early.clear()

    def _start_height(self) -> None:
        writer = self._parts.writer
        self._appended_at = trio.current_time()
        self._parts.candidates.start_height(self.height)
        self._signer.start_height(self.height)
        self._open_gate()
        self._withheld.clear()
        start = StartHeight(
            height=Height(self.height),
            validator_count=len(writer.validators.members),
            me=self._me if self.is_voting else None,
            proposers=writer.proposers(),
            adopted=self._gate.adopted(self.height),
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
        self._log.sync_ended()
        try:
            await append_synced(self._parts.writer, answer.blocks, self._end_synced)
        except Rejected as refusal:
            _log.warning("sync_refused", peer=answer.peer.hex(), reason=str(refusal))
            answer.refusal = refusal
        if self.height > before:
            self._decided = None
            if self._is_started:
                self._start_height()
                self._take_release()
                self._offer_work()
        answer.applied.set()

    def _end_synced(self, height: int) -> None:
        """Nobody votes while blocks come in bulk, so nothing else would sync their ends."""
        self.end_height(height)
        self._log.sync()

    def _resume(self) -> None:
        """Start the next height and replay what the log remembers of it."""
        self._is_started = True
        self._start_height()
        parts, recovered = self._parts, self._log.recovered
        below = 0 if recovered.ended is None else recovered.ended.height
        effects = journal.replay(
            recovered.entries if below + 1 == self.height else (),
            self.core,
            parts.candidates,
            parts.pool,
            parts.writer.chain,
            parts.clock.now_ms(),
        )
        for effect in effects:
            self._perform(effect)
        self._take_release()
        self._offer_work()

    def _take_release(self) -> None:
        """At the height of a release, what justifies its lock goes in like any other message."""
        release = self._gate.release
        if release is not None and release.height == self.height:
            now = self._parts.clock.now_ms()
            for signed in journal.released(release, self._parts.candidates, now):
                self._feed(MessageReceived(signed))
