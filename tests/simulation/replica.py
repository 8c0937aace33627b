"""A node around a real core: the shell of `node/driver.py` reduced to what consensus can feel.

Disk: inputs are logged before they are applied; a message of its own is durable before it leaves. A
crash may come at every effect boundary, loses the part of the log that was not synced, and is
followed by a replay through a new core and `resume`.
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
    Verdict,
    WorkAvailable,
)
from consensus.messages import Message, Proposal, Signed
from tests.simulation.chain import Body, Chain, Decided
from tests.simulation.checker import Checker, Violation
from tests.simulation.network import Network, Schedule
from tests.simulation.scenario import FAULTS_END_MS, TIMEOUTS, Scenario

SYNC_BLOCKS = 5


class Crashed(Exception):
    """The machine stopped between two effects."""


@dataclass(slots=True)
class Disk:
    """What survives a crash: the chain, and the log of the height in progress up to `synced`."""

    chain: Chain
    log: list[tuple[Input, Body | None]] = field(default_factory=list)
    log_height: int = 1
    synced: int = 0

    def record(self, event: Input, body: Body | None = None) -> None:
        self.log.append((event, body))

    def sync(self) -> None:
        self.synced = len(self.log)

    def end_height(self) -> None:
        self.log.clear()
        self.synced = 0
        self.log_height = self.chain.next_height


@dataclass(frozen=True, slots=True)
class Shared:
    """What all nodes of a run have in common."""

    scenario: Scenario
    schedule: Schedule
    network: Network
    checker: Checker
    rng: random.Random
    sign: Callable[[int, Message], Signed]
    verify: Callable[[Signed], bool]
    work_after_ms: Callable[[int], int]
    note: Callable[[str], None]


Speech = Callable[["Replica", Signed, Body | None], None]
"""How a node sends a message it signed; an adversary has its own way."""


class Replica:
    """One node. Public methods are handlers of the schedule."""

    def __init__(self, index: int, shared: Shared, speak: Speech | None) -> None:
        self.index = index
        self.shared = shared
        self.is_correct = speak is None
        self.speak = speak or Replica.tell_all
        self.disk = Disk(Chain(shared.scenario.validators))
        self.others = [node for node in range(shared.scenario.validators) if node != index]
        self.incarnation = 0
        self.is_up = False
        self.fuse: int | None = None
        self.start()

    # Life

    def start(self) -> None:
        """Boot: replay the log through a new core, then do what is left."""
        self.is_up = True
        self.incarnation += 1
        self.core = Core(TIMEOUTS)
        self.own: deque[Signed] = deque()
        self.bodies: dict[bytes, Body] = {}
        self.waiting: dict[bytes, list[CheckBlock]] = {}
        self.decision: Decide | None = None
        self.asked_ms = -1_000
        self._guard(self._recover)

    def _recover(self) -> None:
        if self.disk.log_height < self.disk.chain.next_height:
            self.disk.end_height()
        self._perform(self.core.step(self._start_of_height()))
        for event, body in self.remembered():
            if body is not None:
                self.bodies[body.value] = body
            self.core.step(event)
        self._schedule_work()
        self._perform(self.core.resume())
        self._drain()
        self.broadcast(("status", self.index, self.core.status))

    def remembered(self) -> list[tuple[Input, Body | None]]:
        """What the log still knows of the height in progress."""
        return self.disk.log

    def crash(self) -> None:
        """Lose everything that is not durable, and boot again some time later."""
        if not self.is_up:
            return
        rng = self.shared.rng
        self.is_up, self.fuse = False, None
        self.shared.network.faults += 1
        kept = rng.randint(self.disk.synced, len(self.disk.log))
        del self.disk.log[kept:]
        self.disk.synced = kept
        left_ms = max(1, FAULTS_END_MS - self.shared.schedule.now_ms)
        self.shared.schedule.after(min(left_ms, rng.randint(50, 5_000)), self.on_boot, None)
        self.shared.note(f"node {self.index} crashes, {kept} of the log kept")

    def on_boot(self, _: None) -> None:
        """The machine is back."""
        if not self.is_up:
            self.start()

    def _point(self) -> None:
        """A place where the machine may stop."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                raise Crashed

    def _guard(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Crashed:
            self.crash()
        if self.is_correct and self.is_up:
            self.shared.checker.after_step(self.index, self.core, self.disk.chain)

    # The driver

    def feed(self, event: Input, body: Body | None = None, *, logged: bool = True) -> None:
        """Log an input, apply it, perform what follows, and what follows from that."""
        if logged:
            self.disk.record(event, body)
        self._guard(lambda: self._apply(event))

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
                    entry = (self.incarnation, timer)
                    self.shared.schedule.after(after_ms, self.on_timer, entry)
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
                    if self.shared.scenario.correct.count(evidence.first.message.sender):
                        raise Violation(f"node {self.index} accuses a correct node: {evidence}")

    def _later(self, least_ms: int, most_ms: int, handler: Any, payload: Any) -> None:
        delay_ms = self.shared.rng.randint(least_ms, most_ms)
        self.shared.schedule.after(delay_ms, handler, (self.incarnation, payload))

    def _sign(self, message: Message) -> None:
        if self.is_correct:
            self.shared.checker.on_sign(self.index, message)
        signed = self.shared.sign(self.index, message)
        body = self.bodies.get(message.value) if isinstance(message, Proposal) else None
        self.disk.record(MessageReceived(signed), body)
        self.disk.sync()
        self._point()
        self.speak(self, signed, body)
        self.own.append(signed)

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
        rng, schedule = self.shared.rng, self.shared.schedule
        may_split = body is not None and schedule.now_ms < FAULTS_END_MS
        if may_split and rng.random() < self.shared.scenario.slow_body:
            self.shared.network.faults += 1
            handler = self.shared.network.handlers[node]
            schedule.after(rng.randint(100, 2_000), handler, ("body", body))
            body = None
        self.shared.network.send(self.index, node, ("message", signed, body))

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
        status = self.core.status
        if (incarnation, self.is_up) != (self.incarnation, True):
            return
        if (request.height, request.round) == (status.height, status.round):
            body = self.disk.chain.build(self.index, self.shared.rng.getrandbits(62))
            self.bodies[body.value] = body
            self.feed(BlockBuilt(request.height, request.round, body.value), body)

    def _check(self, request: CheckBlock) -> None:
        if request.value in self.bodies:
            self._later(1, 20, self.on_checked, request)
        else:
            self.waiting.setdefault(request.value, []).append(request)

    def on_checked(self, payload: tuple[int, CheckBlock]) -> None:
        """A block was checked."""
        incarnation, request = payload
        is_current = request.height == self.disk.chain.next_height
        if (incarnation, self.is_up) != (self.incarnation, True) or not is_current:
            return
        body = self.bodies[request.value]
        verdict = self._judge(body)
        self.feed(BlockChecked(request.height, request.round, request.value, verdict), body)

    def _judge(self, body: Body) -> Verdict:
        last, shared = body.last, self.shared
        is_valid = self.disk.chain.accepts(body) and (last is None or shared.checker.is_valid(last))
        if not is_valid:
            if self.is_correct and body.author in shared.scenario.correct:
                raise Violation(
                    f"node {self.index} refuses the block of node {body.author} at {body.height}"
                )
            return Verdict.INVALID
        is_calm = shared.schedule.now_ms >= FAULTS_END_MS
        if not is_calm and shared.rng.random() < shared.scenario.untimely:
            shared.network.faults += 1
            return Verdict.UNTIMELY
        return Verdict.VALID

    def _learn(self, body: Body) -> None:
        if body.height != self.disk.chain.next_height or body.value in self.bodies:
            return
        self.bodies[body.value] = body
        for request in self.waiting.pop(body.value, ()):
            self._later(1, 20, self.on_checked, request)

    # Heights

    def _start_of_height(self) -> StartHeight:
        chain = self.disk.chain
        height = chain.next_height
        proposers = chain.proposers(height)
        return StartHeight(height, chain.validators, self.index, proposers)

    def _commit(self, decision: Decide) -> None:
        self.decision = None
        self._point()
        body = self.bodies[decision.value]
        self._append(Decided(body, decision.certificate))
        self._begin_height()

    def _append(self, decided: Decided) -> None:
        self.disk.chain.blocks.append(decided)
        if self.is_correct:
            self.shared.checker.on_decided(self.index, decided, self.disk.chain)
        self.shared.note(
            f"node {self.index} decides {decided.body.value.hex()[:8]} "
            f"at {decided.body.height} in round {decided.certificate.round}"
        )
        self._point()
        self.disk.end_height()

    def _begin_height(self) -> None:
        height = self.disk.chain.next_height
        self.bodies = {value: body for value, body in self.bodies.items() if body.height >= height}
        self.waiting.clear()
        self.own.clear()
        self._schedule_work()
        self._perform(self.core.step(self._start_of_height()))

    def _schedule_work(self) -> None:
        height = self.disk.chain.next_height
        after_ms = self.shared.work_after_ms(height)
        self.shared.schedule.after(after_ms, self.on_work, (self.incarnation, height))

    def on_work(self, payload: tuple[int, int]) -> None:
        """A transaction came, or the heartbeat."""
        if self.is_up and payload == (self.incarnation, self.core.status.height):
            self.feed(WorkAvailable(payload[1]))

    def on_timer(self, payload: tuple[int, TimerId]) -> None:
        """A timer is due; those of an earlier life are gone."""
        incarnation, timer = payload
        if self.is_up and incarnation == self.incarnation:
            self.feed(TimerFired(timer))

    # The network

    def on_payload(self, payload: Any) -> None:
        """Something arrived."""
        if not self.is_up:
            return
        match payload:
            case ("message", signed, body):
                self.on_message(signed, body)
            case ("status", node, status):
                self.on_status(node, status)
            case ("resent", batch):
                for signed, body in batch:
                    self.on_message(signed, body)
            case ("body", body):
                self._learn(body)
            case ("want", node, height):
                blocks = self.disk.chain.blocks[height - 1 : height - 1 + SYNC_BLOCKS]
                if blocks:
                    self.shared.network.send(self.index, node, ("blocks", tuple(blocks)))
            case ("blocks", blocks):
                self._guard(lambda: self._sync(blocks))

    def on_message(self, signed: Signed, body: Body | None) -> None:
        """A consensus message; a signature that does not verify goes no further."""
        if not self.is_up or not self.shared.verify(signed):
            return
        if body is not None:
            self._learn(body)
        self.feed(MessageReceived(signed), body)

    def on_status(self, node: int, status: Status) -> None:
        """Ask who is ahead, tell who is behind, let the core answer who is level."""
        height, now_ms = self.disk.chain.next_height, self.shared.schedule.now_ms
        if status.height > height:
            if now_ms - self.asked_ms >= 200:
                self.asked_ms = now_ms
                self.shared.network.send(self.index, node, ("want", self.index, height))
        elif status.height < height:
            mine = ("status", self.index, self.core.status)
            self.shared.network.send(self.index, node, mine)
        else:
            peer = PeerStatus(bytes([node]), status.height, status.round, status.step)
            self.feed(peer, logged=False)

    def _sync(self, blocks: tuple[Decided, ...]) -> None:
        before = self.disk.chain.next_height
        for decided in blocks:
            body, certificate = decided.body, decided.certificate
            is_proven = certificate.value == body.value and certificate.height == body.height
            if not (is_proven and self.disk.chain.accepts(body)):
                continue
            if self.shared.checker.is_valid(certificate):
                self._append(decided)
        if self.disk.chain.next_height > before:
            self._begin_height()
            self._drain()
