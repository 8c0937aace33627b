"""A node's two clocks: the one on the wall, which may be wrong, and the one its timers run on.

The wall clock is skewed, drifts, is set forwards and backwards, and may stand still. Timers know no
steps; they drift, and come late when the machine stands still.
"""

_MILLION = 1_000_000


class NodeClock:
    """Times in milliseconds; `drift_ppm` is how much faster than true time it runs."""

    __slots__ = ("_drift_ppm", "_lost_ms", "_offset_ms", "frozen_until_ms")

    def __init__(self, offset_ms: int, drift_ppm: int) -> None:
        self._offset_ms = offset_ms
        self._drift_ppm = drift_ppm
        self._lost_ms = 0
        self.frozen_until_ms = 0

    def now_ms(self, true_ms: int) -> int:
        """What the wall clock shows."""
        running_ms = max(true_ms, self.frozen_until_ms) - self._lost_ms
        return running_ms + true_ms * self._drift_ppm // _MILLION + self._offset_ms

    def delay_ms(self, after_ms: int) -> int:
        """How long a timer of `after_ms` truly takes."""
        return after_ms - after_ms * self._drift_ppm // _MILLION

    def set(self, offset_ms: int) -> None:
        """Set the wall clock, forwards or backwards."""
        self._offset_ms = offset_ms
        self._lost_ms = 0

    def freeze(self, true_ms: int, until_ms: int) -> None:
        """Stand still, and go on from there."""
        self._lost_ms += until_ms - max(true_ms, self.frozen_until_ms)
        self.frozen_until_ms = until_ms
