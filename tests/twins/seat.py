"""One instance: a real core with the smallest shell there can be, watched by an oracle.

Signing and building take no time, checking none unless the caller wants to answer later.
Signatures are `H(message)`: equal messages of the two twins are equal, different ones are
different, and nobody else's are ever made.
"""

import hashlib
from collections import deque
from collections.abc import Callable

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
    TimerFired,
    TimerKind,
    Verdict,
)
from consensus.messages import Message, Signed
from tests.twins.oracle import Oracle
from tests.twins.snapshots import copied


def signed(message: Message) -> Signed:
    """The message with the only signature it can have."""
    return Signed(message, hashlib.sha256(repr(message).encode()).digest())


Judge = Callable[[CheckBlock], Verdict | None]
"""What the checks of a block say; None when the answer comes later."""


def always_valid(_request: CheckBlock) -> Verdict:
    """Every block is good."""
    return Verdict.VALID


class Seat:
    """A core, and what it said, asked for and kept since these lists were last taken."""

    __slots__ = ("asked", "core", "decided", "judge", "kept", "name", "oracle", "said")

    def __init__(self, name: int, core: Core, oracle: Oracle, judge: Judge = always_valid) -> None:
        """`name` tells instances apart that share a key: it enters the blocks they build."""
        self.name = name
        self.judge = judge
        self.core = core
        self.oracle = oracle
        self.decided: Decide | None = None
        self.said: list[Signed] = []
        self.kept: list[Signed] = []
        self.asked: list[SetTimer | CheckBlock | SendTo | BroadcastStatus] = []

    def copy(self) -> "Seat":
        """A seat that goes on from here by itself."""
        twin = Seat(self.name, copied(self.core), self.oracle.copy(), self.judge)
        twin.decided = self.decided
        return twin

    def block(self, height: int, round_number: int) -> bytes:
        """The block that this instance builds in a round."""
        return b"block %2d by %d at %8d" % (round_number, self.name, height) + bytes(7)

    def feed(self, event: Input) -> None:
        """Apply an input and everything that follows from it without the network."""
        if self.decided is None:
            self._settle(event)

    def start(self, event: StartHeight, oracle: Oracle, early: list[Signed]) -> None:
        """Begin a height, of which the core holds the messages `early` already."""
        self.decided, self.oracle = None, oracle
        for letter in early:
            oracle.hear(letter, 0)
        self._settle(event)

    def _settle(self, event: Input) -> None:
        own: deque[Input] = deque()
        answers: deque[Input] = deque()
        self._apply(event, own, answers)
        while (own or answers) and self.decided is None:
            self._apply((own or answers).popleft(), own, answers)
        self.oracle.at_rest(self.core)

    def _apply(self, event: Input, own: deque[Input], answers: deque[Input]) -> None:
        cause: TimerKind | None = None
        core, oracle = self.core, self.oracle
        effects = core.step(event)
        match event:
            case MessageReceived(letter):
                is_now = letter.message.height == core.status.height
                if is_now and oracle.hear(letter, core.status.round):
                    self.kept.append(letter)
            case BlockChecked() | BlockBuilt():
                verdict = event.verdict if isinstance(event, BlockChecked) else Verdict.VALID
                oracle.judge(event.round, event.value, verdict)
            case TimerFired(timer):
                cause = timer.kind
        for effect in effects:
            self._perform(effect, effects, cause, own, answers)

    def _perform(
        self,
        effect: Effect,
        effects: list[Effect],
        cause: TimerKind | None,
        own: deque[Input],
        answers: deque[Input],
    ) -> None:
        match effect:
            case Sign(message):
                self.oracle.on_sign(message, cause)
                said = signed(message)
                self.said.append(said)
                own.append(MessageReceived(said))
            case SetTimer(timer):
                self.asked.append(effect)
                if timer.kind is not TimerKind.STATUS:
                    self.oracle.on_timer(effect)
            case BuildBlock(height, round_number):
                value = self.block(height, round_number)
                answers.append(BlockBuilt(height, round_number, value))
            case CheckBlock(height, round_number, value):
                verdict = self.judge(effect)
                if verdict is None:
                    self.asked.append(effect)
                else:
                    answers.append(BlockChecked(height, round_number, value, verdict))
            case Decide():
                self.oracle.on_decide(effect, [type(other) for other in effects])
                self.decided = effect
            case Accuse(evidence):
                self.oracle.on_accuse(evidence)
            case SendTo() | BroadcastStatus():
                self.asked.append(effect)
