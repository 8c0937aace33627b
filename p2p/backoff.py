"""How long to wait before the next attempt: exponential with jitter.

What it decides: one delay after another. What it never does: wait, or draw randomness itself.
Jitter keeps the nodes of a network that lost power together from dialling in step.
"""

from collections.abc import Callable

FIRST_DELAY_S = 0.2
"""A restarted process listens again within about a second."""
LARGEST_DELAY_S = 10.0
"""A node that comes back after hours is met within ten seconds; a dial costs a few ms of CPU."""


class Backoff:
    """The delays towards one peer; `jitter` gives a number in [0, 1)."""

    __slots__ = ("_delay_s", "_first_s", "_jitter", "_largest_s")

    def __init__(
        self,
        jitter: Callable[[], float],
        first_s: float = FIRST_DELAY_S,
        largest_s: float = LARGEST_DELAY_S,
    ) -> None:
        self._jitter = jitter
        self._first_s, self._largest_s = first_s, largest_s
        self._delay_s = first_s

    def reset(self) -> None:
        """Begin again with the shortest delay."""
        self._delay_s = self._first_s

    def next_delay_s(self) -> float:
        """Between half and all of a delay that doubles up to the largest."""
        delay_s = self._delay_s
        self._delay_s = min(2 * delay_s, self._largest_s)
        return delay_s * (1 + self._jitter()) / 2
