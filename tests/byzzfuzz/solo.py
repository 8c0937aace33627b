"""One core among peers who say anything: every message is one that somebody might send.

Only f of them vote twice in a round, so that there is one quorum a round at most; else they break
every rule. Agreement means nothing here, but what a single node may and must do does not depend on
what its peers are worth, and its oracle knows it. Few values, many quorums, few decisions: stale
re-proposals against later locks, the other block of an equivocating proposer, verdicts that come
late, quorums that complete in the wrong order. In many runs the node crashes, at any effect, and
starts again from its log, of which the end that was not synced is lost.
"""

import random

from consensus.core import Core
from consensus.events import (
    BlockChecked,
    CheckBlock,
    Input,
    MessageReceived,
    StartHeight,
    Step,
    TimerFired,
    TimerId,
    TimerKind,
    Verdict,
    WorkAvailable,
)
from consensus.messages import NO_ROUND, Proposal, Signed, Vote, VoteKind
from consensus.timeouts import Timeouts
from tests.twins.oracle import Oracle, Violation
from tests.twins.seat import Crashed, Seat, signed

HEIGHT = 16
ACTIONS = 90
VALUES = tuple(letter * 32 for letter in (b"A", b"B", b"A", b"B", b"C"))
INVALID = b"C" * 32


class Solo:
    """The node under test and what it was told so far."""

    def __init__(self, seed: int) -> None:
        rng = self.rng = random.Random(seed)
        self.count = rng.choice((4, 4, 4, 5, 7))
        self.me = rng.randrange(self.count)
        self.peers = [node for node in range(self.count) if node != self.me]
        self.untimely = rng.choice((0.0, 0.0, 0.3))
        self.slow = rng.choice((0.0, 0.0, 0.4))
        self.liars = rng.sample(self.peers, (self.count - 1) // 3)
        self.voted: dict[tuple[int, int, int], bytes | None] = {}
        self.told: list[Signed] = []
        self.seat = Seat(0, Core(Timeouts()), self._oracle(), self._judge)
        self.crashes = rng.choice((0.0, 0.03, 0.1))
        self.lives = 1
        self.seat.log = []

    def _oracle(self) -> Oracle:
        return Oracle(self.me, self.count, self.leader)

    def leader(self, round_number: int) -> int:
        """The proposer of a round."""
        return (HEIGHT + round_number) % self.count

    def run(self) -> None:
        """Play until the core decides or the actions are used up. Raises: Violation."""
        start = StartHeight(HEIGHT, self.count, self.me, tuple(range(self.count)))
        self.seat.start(start, self._oracle(), [])
        self._feed(WorkAvailable(HEIGHT))
        actions = (self._propose, self._prevote, self._precommit, self._fire, self._check)
        for _ in range(ACTIONS):
            if self.seat.decided is not None:
                return
            self.rng.choices(actions, weights=(4, 6, 3, 4, 2))[0]()
            if self.told and self.rng.random() < 0.1:
                self._feed(MessageReceived(self.rng.choice(self.told)))
            if self.rng.random() < self.crashes:
                self.seat.fuse = self.rng.randint(0, 3)

    def _feed(self, event: Input) -> None:
        try:
            self.seat.feed(event)
        except Crashed:
            self._restart()

    def _restart(self) -> None:
        """Some of the log behind the last own message is lost."""
        self.lives += 1
        log, seat = self.seat.log, self.seat
        own = [number for number, event in enumerate(log) if self._is_own(event)]
        del log[self.rng.randint(own[-1] + 1 if own else 1, len(log)) :]
        oracle = self._oracle()
        oracle.inherit(seat.oracle)
        seat.restart(Core(Timeouts()), oracle)
        if seat.core.status.step is Step.IDLE:
            seat.feed(WorkAvailable(HEIGHT))

    def _is_own(self, event: Input) -> bool:
        return isinstance(event, MessageReceived) and event.signed.message.sender == self.me

    def _tell(self, message: Proposal | Vote) -> None:
        letter = signed(message)
        self.told.append(letter)
        self._feed(MessageReceived(letter))

    def _round(self) -> int:
        """Mostly the core's round, else one nearby."""
        now = self.seat.core.status.round
        return max(0, now + self.rng.choices((0, -1, -2, 1, 2), weights=(12, 4, 2, 2, 1))[0])

    def _propose(self) -> None:
        """A proposal that its sender may make: fresh, or on a quorum that there may be."""
        round_number, rng = self._round(), self.rng
        sender = self.leader(round_number)
        if rng.random() < 0.08:
            sender = rng.choice(self.peers)  # out of turn
        if sender == self.me:
            return
        value, valid_round = rng.choice(VALUES), NO_ROUND
        if round_number and rng.random() < 0.6:
            valid_round = rng.randrange(round_number)
            winners = [
                held
                for held in VALUES
                if self.seat.oracle.has_quorum(VoteKind.PREVOTE, valid_round, held)
            ]
            value = rng.choice(winners or VALUES)
        self._tell(Proposal(HEIGHT, round_number, value, valid_round, sender))

    def _prevote(self) -> None:
        """Some peers prevote, mostly together."""
        value = self.rng.choice((*VALUES, None, self._proposed()))
        self._vote(VoteKind.PREVOTE, self._round(), value)

    def _proposed(self) -> bytes | None:
        now = self.seat.core.status.round
        values = [
            letter.message.value
            for letter in self.told
            if isinstance(letter.message, Proposal) and letter.message.round == now
        ]
        return self.rng.choice(values) if values else None

    def _precommit(self) -> None:
        """Some peers precommit: mostly nil, so that rounds pass and little is decided."""
        value = self.rng.choice((None, None, None, *VALUES[:2]))
        self._vote(VoteKind.PRECOMMIT, self._round(), value)

    def _vote(self, kind: VoteKind, round_number: int, value: bytes | None) -> None:
        for sender in self.rng.sample(self.peers, self.rng.randint(1, len(self.peers))):
            first = self.voted.setdefault((sender, kind, round_number), value)
            told = value if sender in self.liars else first
            self._tell(Vote(kind, HEIGHT, round_number, told, NO_ROUND, sender))

    def _fire(self) -> None:
        """A timer that the core asked for is due, sometimes one that does not matter any more."""
        status = self.seat.core.status
        kind = self.rng.choice((TimerKind.PROPOSE, TimerKind.PREVOTE, TimerKind.PRECOMMIT))
        asked_in, bits = self.seat.oracle.timers
        if asked_in == status.round and bits & 1 << kind:
            self._feed(TimerFired(TimerId(HEIGHT, status.round, kind)))

    def _judge(self, request: CheckBlock) -> Verdict | None:
        if self.rng.random() < self.slow:
            return None
        if request.value == INVALID:
            return Verdict.INVALID
        return Verdict.UNTIMELY if self.rng.random() < self.untimely else Verdict.VALID

    def _check(self) -> None:
        """The answers to slow checks, in any order."""
        waiting = [effect for effect in self.seat.asked if isinstance(effect, CheckBlock)]
        self.seat.asked = []
        self.rng.shuffle(waiting)
        life = self.lives
        for request in waiting:
            if self.lives != life:
                return  # who restarts asks again
            verdict = Verdict.INVALID if request.value == INVALID else Verdict.VALID
            event = BlockChecked(request.height, request.round, request.value, verdict)
            self._feed(event)


def run_seed(seed: int) -> str:
    """What is wrong with the run of a seed: "" for nothing."""
    try:
        Solo(seed).run()
    except Violation as found:
        return str(found)
    except Exception as error:  # noqa: BLE001  # any error of a core is a finding of this seed
        return f"{type(error).__name__}: {error}"
    return ""
