"""Instances as trees of histories: what was lived once is never computed again.

A core is a function of what it was fed. A `Moment` is an instance after one history; a scenario
that repeats what others did walks along known branches, and only new branches run the core. With
`shares` off every moment is lived anew: slow, and the reference for the rest.
"""

from consensus.core import Core
from consensus.events import (
    MessageReceived,
    PeerStatus,
    SendTo,
    StartHeight,
    Step,
    TimerFired,
    TimerId,
    TimerKind,
    WorkAvailable,
)
from consensus.messages import Signed, VoteKind
from consensus.timeouts import Timeouts
from tests.twins.oracle import Oracle
from tests.twins.script import ROUNDS, VALIDATORS, validator_of
from tests.twins.seat import Seat

HEIGHT = 16
"""A multiple of the leaders' period, so that leader r leads round r."""
_PEER = b"peer"

Batch = tuple[int, ...]
"""Messages by number."""
Stimulus = Batch | TimerKind | str
"""Messages that arrive, a timer that fires, START, or one of LEAD: "you lead round r"."""
START = "start"
LEAD = tuple(f"lead round {number}" for number in range(ROUNDS))


class Leaders:
    """The script's leaders as the proposers of a height; after the script they take turns."""

    def __init__(self) -> None:
        self.of_round = [number % VALIDATORS for number in range(HEIGHT)]

    def __len__(self) -> int:
        return HEIGHT

    def __getitem__(self, index: int) -> int:
        return self.of_round[index]


class Post:
    """All messages that were ever said, by number, so that histories are cheap to compare."""

    def __init__(self) -> None:
        self.letters: list[Signed] = []
        self.senders: list[int] = []
        self._numbers: dict[bytes, int] = {}

    def number(self, letter: Signed) -> int:
        """The number of a message."""
        known = self._numbers.get(letter.signature)
        if known is None:
            known = self._numbers[letter.signature] = len(self.letters)
            self.letters.append(letter)
            self.senders.append(letter.message.sender)
        return known


class Histories:
    """What all moments share: the post, the leaders, and how many moments there are."""

    def __init__(self, *, shares: bool = True) -> None:
        self.shares = shares
        self.leaders = Leaders()
        self.post = Post()
        self.lived = 0

    def first(self, name: int) -> "Moment":
        """An instance before its height has started."""
        core, me = Core(Timeouts()), validator_of(name)
        core.step(StartHeight(HEIGHT, VALIDATORS, me, self.leaders))
        oracle = Oracle(me, VALIDATORS, self.leaders.__getitem__)
        return Moment(self, Seat(name, core, oracle), frozenset())


class Moment:
    """An instance after one history. Never changes; `after` leads to later ones."""

    __slots__ = (
        "_answers",
        "_histories",
        "_later",
        "_seat",
        "decided",
        "held",
        "kept",
        "round",
        "said",
        "step",
        "timers",
    )

    def __init__(self, histories: Histories, seat: Seat, kept: frozenset[int]) -> None:
        """`kept` are the messages the instance held before the last stimulus."""
        number = histories.post.number
        self._histories = histories
        self._seat = seat
        self._later: dict[Stimulus, Moment] = {}
        self._answers: dict[tuple[int, int, bool], Batch] = {}
        held = [letter for letter in seat.said if _is_precommit(letter)]
        said = [letter for letter in seat.said if not _is_precommit(letter)]
        self.said: Batch = tuple(map(number, said))
        """What the last stimulus made it say, but for precommits."""
        self.held: Batch = tuple(map(number, held))
        """The precommits among it."""
        self.kept = kept.union(map(number, seat.kept)) if seat.kept else kept
        """Every message it holds; what it dropped may come again."""
        seat.said, seat.kept, seat.asked = [], [], []
        self.decided = None if seat.decided is None else seat.decided.value
        status = seat.core.status
        self.round, self.step = status.round, status.step
        asked_in, bits = seat.oracle.timers
        self.timers = bits if asked_in == status.round else 0
        """The timers of this round that were asked for, as bits by kind."""

    def __str__(self) -> str:
        if self.decided is not None:
            return f"decided {self.decided[:13].decode()}"
        (locked_round, _), (valid_round, _) = self._seat.core.locked, self._seat.core.valid
        where = f"round {self.round} {self.step.name.lower()}"
        return f"{where}, locked {locked_round}, valid {valid_round}"

    def after(self, stimulus: Stimulus) -> "Moment":
        """The instance after one more stimulus."""
        later = self._later.get(stimulus)
        if later is None:
            later = self._live(stimulus)
            if self._histories.shares:
                self._later[stimulus] = later
        return later

    def _live(self, stimulus: Stimulus) -> "Moment":
        histories = self._histories
        histories.lived += 1
        seat = self._seat.copy()
        if isinstance(stimulus, TimerKind):
            seat.feed(TimerFired(TimerId(HEIGHT, self.round, stimulus)))
        elif isinstance(stimulus, tuple):
            for number in stimulus:
                seat.feed(MessageReceived(histories.post.letters[number]))
        elif stimulus == START:
            seat.feed(WorkAvailable(HEIGHT))
        return Moment(histories, seat, self.kept)

    def answer(self, peer: "Moment", *, is_repeated: bool) -> Batch:
        """What this instance sends to a peer that tells where it stands, once or again."""
        key = (peer.round, peer.step, is_repeated)
        known = self._answers.get(key)
        if known is None:
            known = self._answers[key] = self._tell(*key)
        return known

    def _tell(self, round_number: int, step: Step, is_repeated: bool) -> Batch:
        core = self._seat.copy().core
        status = PeerStatus(_PEER, HEIGHT, round_number, step)
        effects = core.step(status)
        if is_repeated:
            core.step(TimerFired(TimerId(HEIGHT, 0, TimerKind.STATUS)))
            effects = effects + core.step(status)
        letters = [
            letter for effect in effects if isinstance(effect, SendTo) for letter in effect.messages
        ]
        return tuple(dict.fromkeys(map(self._histories.post.number, letters)))


def _is_precommit(letter: Signed) -> bool:
    return getattr(letter.message, "kind", None) is VoteKind.PRECOMMIT
