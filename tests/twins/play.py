"""Plays scenarios on real cores: three scripted rounds, then a healed network that owes decisions.

The network is synchronous. What an instance says reaches its whole cell before any timer fires;
what crosses cells is lost, and comes again only as a core's answer to a peer's status. The script's
partitions change in the middle of a round, between prevotes and precommits: partition k carries the
precommits of round k - 1 and the proposal and prevotes of round k. So who locks and who learns that
others locked differ, which is what attacks on Tendermint need. An instance that decided says no
more: its peers shall find out by themselves, or from its block in the end.
The copies of the twin never hear each other directly, for nobody sends to itself.
"""

from collections.abc import Callable, Iterable
from functools import cache

from consensus.events import Step, TimerKind
from tests.twins.histories import LEAD, START, Batch, Histories, Moment, Stimulus
from tests.twins.oracle import Violation
from tests.twins.script import INSTANCES, TWIN, Partition, choices, script_of, validator_of

HEALED_ROUNDS = 4
"""f + 2 rounds after the first that all enter together: one after the latest round of anybody."""
HUNTED_ROUNDS = 2
"""How long the undecided may look for another value while those who decided keep silent."""
WHOLE: Partition = (0,) * INSTANCES
SEATS = tuple(validator_of(name) for name in range(INSTANCES))
_NOTHING: Batch = ()
_SILENCE = (_NOTHING,) * INSTANCES


class Situation:
    """All instances between two rounds, with the precommits that are still on their way."""

    __slots__ = ("held", "later", "moments", "outcome")

    def __init__(self, moments: tuple[Moment, ...], held: tuple[Batch, ...]) -> None:
        self.moments = moments
        self.held = held
        self.later: dict[int, Situation] = {}
        self.outcome: str | None = None
        """What healing from here came to: "" or a violation; None until it was tried."""

    def __str__(self) -> str:
        return "; ".join(f"{name}: {moment}" for name, moment in enumerate(self.moments))


@cache
def _mates(partition: Partition) -> tuple[tuple[int, ...], ...]:
    """Whom each instance hears: its cell, but neither itself nor its twin."""
    return tuple(
        tuple(
            mate
            for mate in range(INSTANCES)
            if partition[mate] == partition[name] and SEATS[mate] != SEATS[name]
        )
        for name in range(INSTANCES)
    )


class Table:
    """The instances under one partition."""

    __slots__ = ("_held", "_mates", "_said", "moments")

    def __init__(self, situation: Situation, partition: Partition) -> None:
        self.moments = list(situation.moments)
        self._mates = _mates(partition)
        self._said = list(situation.held)
        self._held = list(_SILENCE)

    def rouse(self, name: int, stimulus: Stimulus) -> None:
        """Something happens to an instance; what it says waits to be delivered."""
        moment = self.moments[name] = self.moments[name].after(stimulus)
        if moment.said:
            self._said[name] += moment.said
        if moment.held:
            self._held[name] += moment.held

    def fire(self, kind: TimerKind, step: Step | None = None) -> None:
        """The timers of one kind are due, where they still matter; then all is delivered."""
        bit = 1 << kind
        for name, moment in enumerate(self.moments):
            if moment.timers & bit and moment.decided is None and step in (None, moment.step):
                self.rouse(name, kind)
        self.deliver()

    def fire_step_timers(self) -> None:
        """Whoever waits for a proposal or for prevotes waits no longer."""
        self.fire(TimerKind.PROPOSE, Step.PROPOSE)
        self.fire(TimerKind.PREVOTE, Step.PREVOTE)

    def play_round(self) -> None:
        """What is on its way arrives, a new round begins where it can; prevotes, no precommits.

        Where nothing can happen peers stand still and say so again, and then are told more.
        """
        before = self.moments.copy()
        self.exchange(is_repeated=False)
        self._begin_round()
        still = [name for name in range(INSTANCES) if self.moments[name] is before[name]]
        if still:
            self.exchange(still, is_repeated=True)
            self._begin_round()

    def _begin_round(self) -> None:
        self.fire(TimerKind.PRECOMMIT)
        self.fire_step_timers()

    def exchange(self, names: Iterable[int] = range(INSTANCES), *, is_repeated: bool) -> None:
        """Those named tell their cells where they stand and are sent what they seem to lack."""
        before = self.moments.copy()
        said, self._said = self._said, list(_SILENCE)
        for name in names:
            mates, moment = self._mates[name], before[name]
            if moment.decided is not None:
                continue
            arriving = [number for mate in mates for number in said[mate]]
            for mate in mates:
                if before[mate].decided is None:
                    arriving += before[mate].answer(moment, is_repeated=is_repeated)
            self._arrive(name, arriving)
        self.deliver()

    def deliver(self) -> None:
        """Carry what is said within cells until nobody has anything to say."""
        while any(self._said):
            said, self._said = self._said, list(_SILENCE)
            for name, mates in enumerate(self._mates):
                if self.moments[name].decided is None:
                    self._arrive(name, [number for mate in mates for number in said[mate]])

    def _arrive(self, name: int, numbers: list[int]) -> None:
        kept = self.moments[name].kept
        batch = tuple(dict.fromkeys([number for number in numbers if number not in kept]))
        if batch:
            self.rouse(name, batch)

    def release(self) -> None:
        """Deliver the precommits that were held back."""
        while any(self._held):
            self._said, self._held = self._held, list(_SILENCE)
            self.deliver()

    def leave(self) -> Situation:
        """What the next round begins with."""
        return Situation(tuple(self.moments), tuple(self._held))

    def undecided(self) -> list[Moment]:
        """The correct instances that have not decided."""
        return [moment for moment in self.moments[:TWIN] if moment.decided is None]

    def check_agreement(self) -> None:
        """Raise Violation if two correct instances decided differently."""
        values = {moment.decided for moment in self.moments[:TWIN]} - {None}
        if len(values) > 1:
            raise Violation(f"a fork: {sorted(value.hex()[:16] for value in values)}")


class Player:
    """Plays scripts by number; neighbours share their first rounds."""

    def __init__(self, *, shares: bool = True) -> None:
        self._shares = shares
        self.forget()

    @property
    def lived(self) -> int:
        """How many moments were computed since the last `forget`: the memory in use."""
        return self._histories.lived

    def forget(self) -> None:
        """Drop all histories."""
        self._histories = Histories(shares=self._shares)
        self._situations: dict[tuple[object, ...], Situation] = {}
        moments = tuple(self._histories.first(name) for name in range(INSTANCES))
        self._start = Situation(moments, _SILENCE)

    def play(self, number: int, aloud: Callable[[str], object] | None = None) -> str:
        """What is wrong with scenario `number`: "" for nothing. `aloud` is told of each round."""
        script = script_of(number)
        leaders = self._histories.leaders.of_round
        leaders[: len(script)] = [choices()[choice].leader for choice in script]
        try:
            situation = self._start
            for round_number, choice in enumerate(script):
                later = situation.later.get(choice)
                if later is None:
                    later = self._play_round(situation, round_number, choice)
                situation = later
                if aloud is not None:
                    aloud(f"{situation}\n")
            if situation.outcome is None:
                situation.outcome = _heal(situation)
        except Violation as found:
            return str(found)
        except Exception as error:  # noqa: BLE001  # any error of a core is a finding
            return f"{type(error).__name__}: {error}"
        return situation.outcome

    def _play_round(self, situation: Situation, round_number: int, choice: int) -> Situation:
        """The precommits of the round before, then a round up to its prevotes, in each cell."""
        chosen = choices()[choice]
        table = Table(situation, chosen.partition)
        for name, seat in enumerate(SEATS):
            if seat == chosen.leader:
                table.rouse(name, LEAD[round_number])
        if round_number == 0:
            for name in range(INSTANCES):
                table.rouse(name, START)
            table.deliver()
            table.fire_step_timers()
        else:
            table.play_round()
        table.check_agreement()
        later = table.leave()
        if self._shares:
            later = self._situations.setdefault((*later.moments, *later.held), later)
            situation.later[choice] = later
        return later


def _heal(situation: Situation) -> str:
    """One network again: a decision is owed soon, and once there is one nobody may find another.

    Whoever is left over when some decided would be given their block.
    Raises: Violation.
    """
    table = Table(situation, WHOLE)
    undecided = table.undecided()
    last_round = max((moment.round for moment in undecided), default=0) + HEALED_ROUNDS
    hunted = 0
    while undecided and hunted < HUNTED_ROUNDS:
        if len(undecided) < TWIN:
            hunted += 1
        elif max(moment.round for moment in undecided) > last_round:
            raise Violation("no decision after healing")
        before = table.moments.copy()
        table.exchange(is_repeated=True)
        table.release()
        table.fire_step_timers()
        table.release()
        table.fire(TimerKind.PRECOMMIT)
        table.check_agreement()
        undecided = table.undecided()
        if len(undecided) == TWIN and table.moments == before:
            raise Violation("nothing happens any more after healing")
    return ""
