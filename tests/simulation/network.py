"""Links that delay, lose, double, reorder, replay, clog and cut; and the heap of things to come."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.simulation.scenario import FAULTS_END_MS, LINK_MS, Scenario

Handler = Callable[[Any], None]
_REMEMBERED = 128
_LEAST_MS = LINK_MS[0]
_SPAN_MS = LINK_MS[1] - LINK_MS[0]


class Schedule:
    """Simulated time: events by (time, order of scheduling), so that a run is one sequence."""

    __slots__ = ("_heap", "_sequence", "now_ms")

    def __init__(self) -> None:
        self.now_ms = 0
        self._sequence = 0
        self._heap: list[tuple[int, int, Handler, Any]] = []

    def after(self, delay_ms: int, handler: Handler, payload: Any) -> None:
        """Call `handler(payload)` after a delay."""
        self._sequence += 1
        at_ms = self.now_ms + delay_ms
        heapq.heappush(self._heap, (at_ms, self._sequence, handler, payload))

    def pop(self) -> tuple[int, Handler, Any] | None:
        """Advance to the next event: (its sequence number, handler, payload)."""
        if not self._heap:
            return None
        self.now_ms, sequence, handler, payload = heapq.heappop(self._heap)
        return sequence, handler, payload


class Network:
    """All links of a run, between instances. Counts each fault it injects, by kind."""

    __slots__ = (
        "_clogged_until",
        "_cut_until",
        "_first",
        "_old",
        "_rng",
        "_scenario",
        "_schedule",
        "counts",
        "handlers",
    )

    def __init__(self, scenario: Scenario, schedule: Schedule, rng: random.Random) -> None:
        self._scenario = scenario
        self._schedule = schedule
        self._rng = rng
        self.counts: Counter[str] = Counter()
        self.handlers: list[Handler] = []
        self._cut_until: dict[tuple[int, int], int] = {}
        self._clogged_until: dict[tuple[int, int], int] = {}
        self._first: list[Any] = []
        self._old: list[Any] = []

    def send(self, source: int, destination: int, payload: Any) -> None:
        """Carry a payload to an instance, or not."""
        schedule, rng = self._schedule, self._rng
        now_ms = schedule.now_ms
        delay_ms = _LEAST_MS + int(rng.random() * _SPAN_MS)
        handler = self.handlers[destination]
        if now_ms < FAULTS_END_MS:
            scenario, counts = self._scenario, self.counts
            link = (source, destination)
            if self._cut_until.get(link, 0) > now_ms:
                counts["cut"] += 1
                return
            chance = rng.random()
            if chance < scenario.loss:
                counts["loss"] += 1
                return
            chance -= scenario.loss
            if chance < scenario.late:
                counts["late"] += 1
                delay_ms += int(rng.expovariate(1 / scenario.late_mean_ms))
            elif chance < scenario.late + scenario.duplicate:
                counts["duplicate"] += 1
                schedule.after(int(rng.random() * 2_000), handler, payload)
            elif chance < scenario.late + scenario.duplicate + scenario.replay:
                self._replay(destination, payload)
            clogged_ms = self._clogged_until.get(link, 0) - now_ms
            if clogged_ms > 0:
                counts["clogged"] += 1
                delay_ms = max(delay_ms, clogged_ms)
        schedule.after(delay_ms, handler, payload)

    def _replay(self, destination: int, payload: Any) -> None:
        """Bring back something old, whoever sent it to whomever; sometimes of the first epoch."""
        rng = self._rng
        self.counts["replay"] += 1
        if len(self._first) < _REMEMBERED // 4:
            self._first.append(payload)
        if len(self._old) < _REMEMBERED:
            self._old.append(payload)
        source = self._first if rng.random() < 0.2 else self._old
        old = source[rng.randrange(len(source))]
        self._old[rng.randrange(len(self._old))] = payload
        self._schedule.after(LINK_MS[1], self.handlers[destination], old)

    def cut(self) -> None:
        """Start a partition: one direction of one link, one node, or two halves."""
        rng, count = self._rng, len(self.handlers)
        until = self._schedule.now_ms + rng.randint(500, 8_000)
        kind = rng.random()
        if kind < 0.3:
            pairs = [(rng.randrange(count), rng.randrange(count))]
        else:
            size = 1 if kind < 0.6 else rng.randint(1, count)
            side = rng.sample(range(count), size)
            others = [node for node in range(count) if node not in side]
            pairs = [(inner, outer) for inner in side for outer in others]
            if rng.random() < 0.7:
                pairs += [(outer, inner) for inner, outer in pairs]
        self.counts["partition"] += 1
        for pair in pairs:
            self._cut_until[pair] = until

    def clog(self) -> None:
        """Hold back what goes to some instances, and let go of them one by one, in any order."""
        rng, count, now_ms = self._rng, len(self.handlers), self._schedule.now_ms
        self.counts["clog"] += 1
        for node in rng.sample(range(count), rng.randint(1, count)):
            until = min(now_ms + rng.randint(500, 5_000), FAULTS_END_MS)
            for source in range(count):
                if rng.random() < 0.8:
                    self._clogged_until[source, node] = until
