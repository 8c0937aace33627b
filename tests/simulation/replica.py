"""A node around a real core: the shell of `node/driver.py` reduced to what consensus can feel.

Disk: inputs are logged before they are applied; a message of its own is durable before it leaves;
a block is durable before it is reported. A crash may come at every effect boundary, loses what the
disk may lose, and is followed by a replay through a new core and `resume`. A node whose log is
damaged or gone votes no more until it has asked a quorum where the chain stands: `quarantine.py`.
"""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

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
    Status,
    TimerFired,
    TimerId,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.messages import CommitCertificate, Message, Proposal, Signed
from tests.simulation import log, quarantine
from tests.simulation.chain import Body, Chain, Decided, Members
from tests.simulation.checker import Checker, Violation
from tests.simulation.clock import NodeClock
from tests.simulation.disk import SimulatedDisk
from tests.simulation.log import DamagedLogError, Ended, Entry, Log, Logged
from tests.simulation.network import Network, Schedule
from tests.simulation.scenario import (
    FAULTS_END_MS,
    MESSAGE_DELAY_MS,
    PRECISION_MS,
    TIMEOUTS,
    Scenario,
)

SYNC_BLOCKS = 5
BAN_MS = 10_000
EARLY_MESSAGES = 256


class Crashed(Exception):
    """The machine stopped between two effects."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a run have in common."""

    scenario: Scenario
    schedule: Schedule
    network: Network
    checker: Checker
    rng: random.Random
    sign: Callable[[int, Message], Signed]
    verify: Callable[[Signed, Members], bool]
    work_after_ms: Callable[[int], int]
    note: Callable[[str], None]
    distort: Callable[["Replica", tuple[Decided, ...]], tuple[Decided, ...]]
    approved: list[Members] = field(default_factory=list[Members])
    entries: list[Entry] = field(default_factory=list[Entry])


Speech = Callable[["Replica", Signed, Body | None], None]
"""How a node sends a message it signed; an adversary has its own way."""


class Replica:
    """One running instance. Public methods are handlers of the schedule."""

    def __init__(self, index: int, shared: Shared, speak: Speech | None) -> None:
        """`index` names the instance; its identity is another only for the second of twins."""
        scenario = shared.scenario
        self.index = index
        self.identity = scenario.identity(index)
        self.shared = shared
        self.is_liar = speak is not None
        self.is_correct = self.identity in scenario.correct
        self.speak = speak or Replica.tell_all
        self.files = SimulatedDisk(
            shared.rng, lying=0.5 if self.identity in scenario.forgetful else 0.0
        )
        self.chain = Chain(tuple(range(scenario.validators)), shared.approved)
        self.clock = NodeClock(0, 0)
        self.others = [node for node in range(scenario.instances) if node != index]
        self.height = 1
        self.incarnation = 0
        self.is_up = False
        self.paused_until_ms = 0
        self.fuse: int | None = None
        self.held: list[tuple[Callable[[Any], None], Any]] = []

    # Life

    def install(self, _: None = None) -> None:
        """The operator's first step: an identity that never signed begins its log, and boots."""
        try:
            log.create(self.files, self.shared.entries, Ended(0, 0))
        except OSError:
            self.shared.schedule.after(1_000, self.install, None)
        else:
            self.start()

    def start(self) -> None:
        """Boot: replay the log through a new core, then do what is left."""
        self.is_up = True
        self.incarnation += 1
        self.core = Core(TIMEOUTS)
        self.own: deque[Signed] = deque()
        self.early: list[Logged] = []
        self.bodies: dict[bytes, Body] = {}
        self.heard: dict[tuple[bytes, int], tuple[int, int]] = {}
        self.waiting: dict[bytes, list[CheckBlock]] = {}
        self.counted: set[bytes] = set()
        self.decision: Decide | None = None
        self.asked_ms = -1_000
        self.banned: dict[int, int] = {}
        self.levels: dict[int, int] = {}
        self._guard(self._recover)

    def _recover(self) -> None:
        if self.is_correct:
            self.shared.checker.on_boot(self.identity, len(self.chain.blocks))
        self.sync_chain()  # Opening a store makes durable what it found: nothing rests on less.
        self.chain.state.restart()
        self.chain.execute()
        found = self._open_log()
        self.voting_from = found.ended.voting_from
        entries = found.entries
        tip = len(self.chain.blocks)
        if found.ended.height < tip:
            # The crash came between the block and its record, which says nothing of height + 1;
            # or that record was damaged, and own messages behind it were kept.
            entries = [entry for entry in entries if entry.is_own and _height(entry) > tip]
            self.log.end_before(Ended(tip, self.voting_from), entries)
        self._report()
        self._enter_height()
        self._perform(self.core.step(self._start_of_height()))
        for event, body, _ in self.remembered(entries):
            if body is not None:
                self._remember(body)
            self.core.step(event)
        self._schedule_work()
        self._perform(self.core.resume())
        self._drain()
        self.broadcast(("status", self.index, self.core.status))
        if self.voting_from == quarantine.NEVER:
            self.broadcast(("probe", self.index, self.incarnation))

    def _open_log(self) -> log.Remembered:
        """The log, or a new one in quarantine."""
        tip = len(self.chain.blocks)
        try:
            self.log = Log(self.files, self.shared.entries)
            if self.log.found.ended.height > tip:
                raise DamagedLogError(f"the log is beyond block {tip}")
        except DamagedLogError as damage:
            if self.identity not in self.shared.scenario.faulty:
                raise Violation(f"node {self.index} lost its log: {damage}") from damage
            self.shared.note(f"node {self.index} goes into quarantine: {damage}")
            log.set_aside(self.files)
            log.create(self.files, self.shared.entries, Ended(tip, self.quarantined_until()))
            self.log = Log(self.files, self.shared.entries)
        return self.log.found

    def quarantined_until(self) -> int:
        """From which height a node may vote that does not know what it signed."""
        return quarantine.NEVER

    def remembered(self, entries: list[Logged]) -> list[Logged]:
        """What the log still knows of the height in progress."""
        return entries

    def crash(self, *, is_power_cut: bool | None = None) -> None:
        """Lose what is not durable, and boot again some time later."""
        if not self.is_up:
            return
        shared, rng = self.shared, self.shared.rng
        self.is_up, self.fuse = False, None
        self.held.clear()
        self.paused_until_ms = 0
        shared.network.counts["crash"] += 1
        if rng.random() < 0.6 if is_power_cut is None else is_power_cut:
            shared.network.counts["power cut"] += 1
            self.files.cut_power()
            self.chain.cut(rng.randint(self.chain.synced, len(self.chain.blocks)))
        left_ms = max(1, FAULTS_END_MS - shared.schedule.now_ms)
        shared.schedule.after(min(left_ms, rng.randint(50, 5_000)), self.on_boot, None)
        shared.note(f"node {self.index} crashes")

    def on_boot(self, _: None) -> None:
        """The machine is back."""
        if not self.is_up and self.incarnation:
            self.start()

    def on_resume(self, incarnation: int) -> None:
        """A pause is over: what came meanwhile is handled at once."""
        if incarnation != self.incarnation or self.shared.schedule.now_ms < self.paused_until_ms:
            return
        held, self.held = self.held, []
        for handler, payload in held:
            handler(payload)

    def pause(self, for_ms: int) -> None:
        """Stand still, as in a long collection of garbage; nothing is lost."""
        schedule = self.shared.schedule
        self.paused_until_ms = max(self.paused_until_ms, schedule.now_ms + for_ms)
        schedule.after(self.paused_until_ms - schedule.now_ms, self.on_resume, self.incarnation)

    def _is_absent(self, handler: Callable[[Any], None], payload: Any) -> bool:
        """Whether the node cannot handle this now; what waits for a paused one is kept."""
        if self.is_up and self.shared.schedule.now_ms < self.paused_until_ms:
            self.held.append((handler, payload))
            return True
        return not self.is_up

    def _point(self) -> None:
        """A place where the machine may stop."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crashed

    def _guard(self, action: Callable[..., None], *arguments: Any) -> None:
        """Do something that may end in a crash; an error of the disk stops the node at once."""
        try:
            action(*arguments)
        except Crashed:
            self.crash()
        except OSError as error:
            self.shared.note(f"node {self.index} stops: {error}")
            self.shared.network.counts["disk error"] += 1
            self.crash()
        if self.is_correct and self.is_up:
            self.shared.checker.after_step(self.identity, self.core, self.height, self.members)

    # The driver

    def feed(self, event: Input, body: Body | None = None, *, logged: bool = True) -> None:
        """Log an input, apply it, perform what follows, and what follows from that."""
        self._guard(self._feed, event, body, logged)

    def _feed(self, event: Input, body: Body | None, is_logged: bool) -> None:
        if is_logged:
            self.log.append(Logged(event, body, False), log.SHORT)
        self._apply(event)

    def _feed_message(self, event: MessageReceived, body: Body | None, is_early: bool) -> None:
        if is_early:
            if len(self.early) < EARLY_MESSAGES:
                self.early.append(Logged(event, body, False))
        else:
            self.log.append(Logged(event, body, False), log.VOTE if body is None else log.PROPOSAL)
        self._apply(event)

    def _apply(self, event: Input) -> None:
        effects = self.core.step(event)
        if effects:
            self._perform(effects)
            self._drain()

    def _drain(self) -> None:
        while self.own or self.decision is not None:
            if self.own:
                self._perform(self.core.step(MessageReceived(self.own.popleft())))
            elif self.decision is not None:
                self._commit(self.decision)

    def _perform(self, effects: list[Effect]) -> None:
        for effect in effects:
            self._point()
            match effect:
                case Sign(message):
                    self._sign(message)
                case SetTimer(timer, after_ms):
                    delay_ms = self.clock.delay_ms(after_ms)
                    self.shared.schedule.after(delay_ms, self.on_timer, (self.incarnation, timer))
                case BuildBlock():
                    self._later(5, 60, self.on_build, effect)
                case CheckBlock():
                    self._check(effect)
                case Decide():
                    self.decision = effect
                case SendTo(peer, messages):
                    self._resend(peer[0], messages)
                case BroadcastStatus(height, round_number, step):
                    status = Status(height, round_number, step)
                    self.broadcast(("status", self.index, status))
                case Accuse(evidence):
                    self.shared.checker.on_accused(self.identity, evidence)

    def _later(self, least_ms: int, most_ms: int, handler: Any, payload: Any) -> None:
        delay_ms = self.shared.rng.randint(least_ms, most_ms)
        self.shared.schedule.after(delay_ms, handler, (self.incarnation, payload))

    def _sign(self, message: Message) -> None:
        signed = self.shared.sign(self.identity, message)
        body = self.bodies.get(message.value) if isinstance(message, Proposal) else None
        self.make_durable(Logged(MessageReceived(signed), body, True))
        self._point()
        if self.is_correct:
            self.shared.checker.on_sign(self.identity, message)
        self.speak(self, signed, body)
        self.own.append(signed)

    def make_durable(self, own: Logged) -> None:
        """A message of the node's own is on disk before it leaves."""
        self.log.append_own(own)

    def tell_all(self, signed: Signed, body: Body | None) -> None:
        """Send to everyone; the machine may stop halfway."""
        half = len(self.others) // 2
        for node in self.others[:half]:
            self.tell(node, signed, body)
        self._point()
        for node in self.others[half:]:
            self.tell(node, signed, body)

    def tell(self, node: int, signed: Signed, body: Body | None) -> None:
        """Send one signed message; a body sometimes comes later."""
        network, schedule = self.shared.network, self.shared.schedule
        may_split = body is not None and schedule.now_ms < FAULTS_END_MS
        if may_split and self.shared.rng.random() < self.shared.scenario.slow_body:
            network.counts["slow body"] += 1
            delay_ms = self.shared.rng.randint(100, 2_000)
            schedule.after(delay_ms, network.handlers[node], ("body", body))
            body = None
        network.send(self.index, node, ("message", signed, body))

    def broadcast(self, payload: Any) -> None:
        """Send an unsigned payload to everyone."""
        for node in self.others:
            self.shared.network.send(self.index, node, payload)

    def _resend(self, node: int, messages: tuple[Signed, ...]) -> None:
        batch = [
            (signed, self.bodies.get(signed.message.value))
            if isinstance(signed.message, Proposal)
            else (signed, None)
            for signed in messages
        ]
        self.shared.network.send(self.index, node, ("resent", batch))

    # Blocks

    def on_build(self, payload: tuple[int, BuildBlock]) -> None:
        """The block that the core asked for is built."""
        incarnation, request = payload
        if incarnation != self.incarnation or self._is_absent(self.on_build, payload):
            return
        status = self.core.status
        if (request.height, request.round) == (status.height, status.round):
            now_ms = self.clock.now_ms(self.shared.schedule.now_ms)
            body = self.chain.build(self.identity, self.shared.rng.getrandbits(62), now_ms)
            self._remember(body)
            self.feed(BlockBuilt(request.height, request.round, body.value), body)

    def _check(self, request: CheckBlock) -> None:
        if request.value in self.bodies:
            self._later(1, 20, self.on_checked, request)
        else:
            self.waiting.setdefault(request.value, []).append(request)

    def on_checked(self, payload: tuple[int, CheckBlock]) -> None:
        """A block was checked."""
        incarnation, request = payload
        if incarnation != self.incarnation or self._is_absent(self.on_checked, payload):
            return
        if request.height == self.height:
            body = self.bodies[request.value]
            verdict = self._judge(body, request.round)
            self.feed(BlockChecked(request.height, request.round, request.value, verdict), body)

    def _judge(self, body: Body, round_number: int) -> Verdict:
        last = body.last
        is_valid = self.chain.accepts(body) and (last is None or self.proves(last))
        if not is_valid:
            if self.is_correct and body.author in self.shared.scenario.correct:
                raise Violation(
                    f"node {self.index} refuses the block of node {body.author} at {body.height}"
                )
            return Verdict.INVALID
        if self._is_timely(body, round_number):
            return Verdict.VALID
        self.shared.network.counts["untimely"] += 1
        return Verdict.UNTIMELY

    def _is_timely(self, body: Body, round_number: int) -> bool:
        """The rule of `node/candidates.py`, by the node's own clock."""
        now_ms = self.clock.now_ms(self.shared.schedule.now_ms)
        sender, received_ms = self.heard.get((body.value, round_number), (body.author, now_ms))
        delay_ms = MESSAGE_DELAY_MS + MESSAGE_DELAY_MS * round_number // 10
        earliest_ms = received_ms - delay_ms - PRECISION_MS
        return sender == body.author and earliest_ms <= body.time_ms <= received_ms + PRECISION_MS

    def proves(self, certificate: CommitCertificate) -> bool:
        """Whether a quorum of the set of its height signed a certificate."""
        return self.shared.checker.is_valid(
            certificate, self.ruling_members(certificate.height), self.shared.verify
        )

    def _remember(self, body: Body) -> None:
        self.bodies[body.value] = body

    def _learn(self, body: Body) -> None:
        if body.height not in (self.height, self.height + 1) or body.value in self.bodies:
            return
        self._remember(body)
        for request in self.waiting.pop(body.value, ()):
            self._later(1, 20, self.on_checked, request)

    # Heights

    def ruling_members(self, height: int) -> Members:
        """The validators of a height."""
        return self.chain.members(height)

    def _enter_height(self) -> None:
        self.height = self.chain.next_height
        self.members = self.ruling_members(self.height)
        self.next_members = self.ruling_members(self.height + 1)

    def _start_of_height(self) -> StartHeight:
        """What the core must know; a node in quarantine is an observer."""
        members, me = self.members, None
        if self.identity in members and self.height >= self.voting_from:
            me = members.index(self.identity)
        return StartHeight(self.height, len(members), me, self.chain.proposers(self.height))

    def _commit(self, decision: Decide) -> None:
        self.decision = None
        self._point()
        self._append(Decided(self.bodies[decision.value], decision.certificate))
        self._begin_height()

    def _append(self, decided: Decided) -> None:
        """Block durable, end of height in the log, executed, reported: in this order."""
        self.chain.append(decided)
        self._point()
        self.sync_chain()
        self._point()
        self.log.end_height(Ended(len(self.chain.blocks), self.voting_from))
        self._point()
        self.chain.execute()
        self._point()
        self._report()

    def sync_chain(self) -> None:
        """The blocks are durable; on a lying disk perhaps not."""
        if self.files.fails_sync or self.files.is_full:
            raise OSError("the block store cannot be written")
        if not self.files.lies():
            self.chain.sync()

    def _report(self) -> None:
        """Acknowledge every durable block that was not acknowledged before a crash."""
        if self.is_correct:
            checker, now_ms = self.shared.checker, self.shared.schedule.now_ms
            for decided in checker.unreported(self.identity, self.chain):
                checker.on_decided(self.identity, decided, self.chain, now_ms)
                self.shared.note(
                    f"node {self.index} decides {decided.body.value.hex()[:8]} "
                    f"at {decided.body.height} in round {decided.certificate.round}"
                )

    def _begin_height(self) -> None:
        self._enter_height()
        height = self.height
        self.bodies = {value: body for value, body in self.bodies.items() if body.height >= height}
        self.heard.clear()
        self.waiting.clear()
        self.counted.clear()
        self.own.clear()
        for entry in self.early:
            if _height(entry) == height:
                self.log.append(entry, log.VOTE if entry.body is None else log.PROPOSAL)
        self.early.clear()
        self._schedule_work()
        self._perform(self.core.step(self._start_of_height()))

    def _schedule_work(self) -> None:
        after_ms = self.shared.work_after_ms(self.height)
        self.shared.schedule.after(after_ms, self.on_work, (self.incarnation, self.height))

    def on_work(self, payload: tuple[int, int]) -> None:
        """A transaction came, or the heartbeat."""
        is_current = payload == (self.incarnation, self.height)
        if is_current and not self._is_absent(self.on_work, payload):
            self.feed(WorkAvailable(self.height))

    def on_timer(self, payload: tuple[int, TimerId]) -> None:
        """A timer is due; those of an earlier life are gone, a clock that stands still is late."""
        incarnation, timer = payload
        if incarnation != self.incarnation or timer.height != self.height:
            return
        late_ms = self.clock.frozen_until_ms - self.shared.schedule.now_ms
        if late_ms > 0:
            self.shared.schedule.after(late_ms, self.on_timer, payload)
        elif not self._is_absent(self.on_timer, payload):
            self.feed(TimerFired(timer), logged=timer.kind is not TimerKind.STATUS)

    # The network

    def on_payload(self, payload: Any) -> None:
        """Something arrived; what is of no known kind is dropped."""
        if self._is_absent(self.on_payload, payload):
            return
        match payload:
            case ("message", signed, body):
                self.on_message(signed, body)
            case ("status", node, status):
                self.on_status(node, status)
            case ("resent", batch):
                for signed, body in batch:
                    if not self._holds(signed):
                        self.on_message(signed, body)
            case ("body", body):
                self._learn(body)
            case ("want", node, height):
                self.on_want(node, height)
            case ("blocks", node, blocks):
                self._guard(self._sync, node, blocks)
            case ("probe", node, nonce):
                level = ("level", self.identity, nonce, self.claimed_height())
                self.shared.network.send(self.index, node, level)
            case ("level", identity, nonce, height):
                self._guard(self._on_level, identity, nonce, height)

    def claimed_height(self) -> int:
        """The height in progress, as told to one who asks."""
        return self.height

    def _holds(self, signed: Signed) -> bool:
        """Whether the core has exactly this message already: a re-sent one is skipped for speed."""
        if signed.signature in self.counted:
            return True
        message = signed.message
        if message.height != self.height or isinstance(message, Proposal):
            return False
        tally = self.core._state.votes.tally(message.kind, message.round)
        first = None if tally is None else tally.firsts.get(message.sender)
        if first is None or first[0] is not message:
            return False
        self.counted.add(signed.signature)
        return True

    def on_message(self, signed: Signed, body: Body | None) -> None:
        """A consensus message; a signature that does not verify goes no further."""
        message = signed.message
        ahead = message.height - self.height
        if not self.is_up or not 0 <= ahead <= 1:
            return
        members = self.next_members if ahead else self.members
        if not self.shared.verify(signed, members):
            return
        if body is not None:
            self._learn(body)
        if isinstance(message, Proposal):
            now_ms = self.clock.now_ms(self.shared.schedule.now_ms)
            heard = (members[message.sender], now_ms)
            self.heard.setdefault((message.value, message.round), heard)
        self._guard(self._feed_message, MessageReceived(signed), body, ahead == 1)

    def on_status(self, node: int, status: Status) -> None:
        """Ask who is ahead, tell who is behind, let the core answer who is level."""
        shared, height = self.shared, self.height
        if status.height > height:
            now_ms = shared.schedule.now_ms
            if now_ms - self.asked_ms >= 200 and self.banned.get(node, 0) <= now_ms:
                self.asked_ms = now_ms
                shared.network.send(self.index, node, ("want", self.index, height))
        elif status.height < height:
            shared.network.send(self.index, node, ("status", self.index, self.core.status))
        else:
            peer = PeerStatus(bytes([node]), status.height, status.round, status.step)
            self.feed(peer, logged=False)
        if self.is_up and self.voting_from == quarantine.NEVER:
            shared.network.send(self.index, node, ("probe", self.index, self.incarnation))

    def _on_level(self, identity: int, nonce: int, height: int) -> None:
        if nonce == self.incarnation and self.voting_from == quarantine.NEVER:
            self.levels[identity] = height
            first = quarantine.voting_from(self.identity, self.members, self.levels, self.height)
            if first is not None:
                self.voting_from = first
                self.log.end_height(Ended(len(self.chain.blocks), first))
                self.log.sync()
                self.shared.note(f"node {self.index} votes again from {first}")

    def on_want(self, node: int, height: int) -> None:
        """Serve blocks; an adversary serves what it likes."""
        blocks = tuple(self.chain.blocks[max(0, height - 1) : height - 1 + SYNC_BLOCKS])
        if self.is_liar:
            blocks = self.shared.distort(self, blocks)
        if blocks:
            self.shared.network.send(self.index, node, ("blocks", self.index, blocks))

    def _sync(self, node: int, blocks: tuple[Decided, ...]) -> None:
        """Take over proven blocks in order; who serves another is not asked for a while."""
        before = self.height
        for decided in blocks:
            body, certificate = decided.body, decided.certificate
            if body.height <= len(self.chain.blocks):
                continue
            is_proven = (
                certificate.value == body.value
                and certificate.height == body.height == self.chain.next_height
                and self.chain.accepts(body)
                and self.proves(certificate)
            )
            if not is_proven:
                self.banned[node] = self.shared.schedule.now_ms + BAN_MS
                break
            self._append(decided)
        if self.chain.next_height > before:
            self.decision = None
            self._begin_height()
            self._drain()


def _height(entry: Logged) -> int:
    """The height of a logged message."""
    return entry.event.signed.message.height
