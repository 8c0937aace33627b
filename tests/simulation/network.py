"""Links that delay, lose, double, reorder, replay and cut; and the heap of things to come."""

import heapq
import random
from collections.abc import Callable
from typing import Any

from tests.simulation.scenario import FAULTS_END_MS, LINK_MS, Scenario

Handler = Callable[[Any], None]
_REMEMBERED = 128


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
    """All links of a run. Counts each fault it injects."""

    __slots__ = ("_cut_until", "_old", "_rng", "_scenario", "_schedule", "faults", "handlers")

    def __init__(self, scenario: Scenario, schedule: Schedule, rng: random.Random) -> None:
        self._scenario = scenario
        self._schedule = schedule
        self._rng = rng
        self.faults = 0
        self.handlers: list[Handler] = []
        self._cut_until: dict[tuple[int, int], int] = {}
        self._old: list[Any] = []

    def send(self, source: int, destination: int, payload: Any) -> None:
        """Carry a payload to a node, or not."""
        now_ms, rng, scenario = self._schedule.now_ms, self._rng, self._scenario
        delay_ms = LINK_MS[0] + int(rng.random() * (LINK_MS[1] - LINK_MS[0]))
        handler = self.handlers[destination]
        if now_ms < FAULTS_END_MS:
            if self._cut_until.get((source, destination), 0) > now_ms:
                self.faults += 1
                return
            chance = rng.random()
            if chance < scenario.loss:
                self.faults += 1
                return
            chance -= scenario.loss
            if chance < scenario.late:
                self.faults += 1
                delay_ms += int(rng.expovariate(1 / scenario.late_mean_ms))
            elif chance < scenario.late + scenario.duplicate:
                self.faults += 1
                self._schedule.after(int(rng.random() * 2_000), handler, payload)
            elif chance < scenario.late + scenario.duplicate + scenario.replay:
                self._replay(destination, payload)
        self._schedule.after(delay_ms, handler, payload)

    def _replay(self, destination: int, payload: Any) -> None:
        """Bring back something old, whoever sent it to whomever."""
        self.faults += 1
        if len(self._old) < _REMEMBERED:
            self._old.append(payload)
        old = self._old[self._rng.randrange(len(self._old))]
        self._old[self._rng.randrange(len(self._old))] = payload
        self._schedule.after(LINK_MS[1], self.handlers[destination], old)

    def cut(self) -> None:
        """Start a partition: one direction of one link, one node, or two halves."""
        rng, count = self._rng, self._scenario.validators
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
        self.faults += 1
        for pair in pairs:
            self._cut_until[pair] = until
