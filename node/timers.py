"""A heap of events that are due at a moment of trio's clock."""

import heapq
import math
from itertools import count
from typing import Generic, TypeVar

E = TypeVar("E")


class Timers(Generic[E]):
    """Events by deadline in seconds; equal deadlines keep their order."""

    __slots__ = ("_heap", "_sequence")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, E]] = []
        self._sequence = count()

    def add(self, deadline: float, event: E) -> None:
        """Let `event` be due at `deadline`."""
        heapq.heappush(self._heap, (deadline, next(self._sequence), event))

    def pop_due(self, now: float) -> E | None:
        """The first event that is due, or None."""
        if self._heap and self._heap[0][0] <= now:
            return heapq.heappop(self._heap)[2]
        return None

    def next_deadline(self) -> float:
        """When the next event is due; infinity without one."""
        return self._heap[0][0] if self._heap else math.inf
