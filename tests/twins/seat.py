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
    TimerId,
    TimerKind,
    Verdict,
)
from consensus.messages import Message, Signed, Vote, VoteKind
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


class Crashed(Exception):
    """The machine stopped between two effects."""


class Seat:
    """A core, and what it said, asked for and kept since these lists were last taken."""

    __slots__ = (
        "asked",
        "core",
        "decided",
        "fuse",
        "judge",
        "kept",
        "log",
        "name",
        "oracle",
        "said",
    )

    def __init__(self, name: int, core: Core, oracle: Oracle, judge: Judge = always_valid) -> None:
        """`name` tells instances apart that share a key: it enters the blocks they build."""
        self.name = name
        self.judge = judge
        self.core = core
        self.oracle = oracle
        self.decided: Decide | None = None
        self.said: list[Signed] = []
        self.kept: list[Signed] = []
        self.log: list[Input] | None = None
        """What was fed, if somebody wants to know: own messages stand where they were signed."""
        self.fuse: int | None = None
        """After how many effects the machine stops."""
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

    def restart(self, core: Core, oracle: Oracle) -> None:
        """Boot with a new core and oracle: replay the log, then do what is left."""
        self.core, self.oracle, self.fuse, self.asked = core, oracle, None, []
        for event in self.log or ():
            replayed = core.step(event)
            self._observe(event)
            for effect in replayed:
                if isinstance(effect, Accuse):
                    oracle.on_accuse(effect.evidence)
        oracle.round = core.status.round
        own: deque[Input] = deque()
        answers: deque[Input] = deque()
        effects = core.resume()
        for effect in effects:
            self._perform(effect, effects, self._logged_cause(effect), own, answers)
        self._finish(own, answers)
        oracle.at_rest(core, None)

    def _logged_cause(self, effect: Effect) -> TimerKind | None:
        """The timer in the log that a vote for nil may have come from (L57, L61)."""
        if not isinstance(effect, Sign) or not isinstance(effect.message, Vote):
            return None
        vote = effect.message
        kind = TimerKind.PROPOSE if vote.kind is VoteKind.PREVOTE else TimerKind.PREVOTE
        fired = TimerFired(TimerId(vote.height, vote.round, kind))
        return kind if fired in (self.log or ()) else None

    def _settle(self, event: Input) -> None:
        own: deque[Input] = deque()
        answers: deque[Input] = deque()
        if self.log is not None:
            self.log.append(event)
        self._apply(event, own, answers)
        self._finish(own, answers)
        cause = event.timer.kind if isinstance(event, TimerFired) else None
        self.oracle.at_rest(self.core, cause)

    def _finish(self, own: deque[Input], answers: deque[Input]) -> None:
        """Feed own messages, which are in the log already, and answers, until neither is left."""
        while (own or answers) and self.decided is None:
            if own:
                event = own.popleft()
            else:
                event = answers.popleft()
                if self.log is not None:
                    self.log.append(event)
            self._apply(event, own, answers)

    def _apply(self, event: Input, own: deque[Input], answers: deque[Input]) -> None:
        effects = self.core.step(event)
        self._observe(event)
        cause = event.timer.kind if isinstance(event, TimerFired) else None
        for effect in effects:
            if self.fuse is not None:
                self.fuse -= 1
                if self.fuse < 0:
                    raise Crashed
            self._perform(effect, effects, cause, own, answers)

    def _observe(self, event: Input) -> None:
        """Tell the oracle what the core was told."""
        core, oracle = self.core, self.oracle
        match event:
            case MessageReceived(letter):
                is_now = letter.message.height == core.status.height
                if is_now and oracle.hear(letter, core.status.round):
                    self.kept.append(letter)
            case BlockChecked() | BlockBuilt():
                verdict = event.verdict if isinstance(event, BlockChecked) else Verdict.VALID
                oracle.judge(event.round, event.value, verdict)
            case _:
                pass

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
                if self.log is not None:
                    self.log.append(MessageReceived(said))
            case SetTimer(timer):
                self.asked.append(effect)
                if timer.kind is not TimerKind.STATUS:
                    self.oracle.on_timer(effect)
            case BuildBlock(height, round_number):
                value = self.block(height, round_number)
                answers.append(BlockBuilt(height, round_number, value))
            case CheckBlock(height, round_number, value):
                self.oracle.on_check(effect)
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
