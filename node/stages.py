"""Where the CPU of a node goes: one accumulator per stage of a transaction's life.

Measured around whole slices and blocks, so the measuring itself costs nothing per transaction.
"""

import time
from enum import StrEnum, unique


@unique
class Stage(StrEnum):
    """The stages of architecture section 10."""

    ADMISSION = "admission"
    """Checks of a client's transaction but its signature: decode, hash, expiry, replay, account."""
    SIGNATURE = "signature"
    """Signatures of transactions, wherever they entered."""
    DECODE = "decode"
    """Decoding and hashing batches of peers."""
    DISSEMINATION = "dissemination"
    """Making, signing and handing out own batches."""
    CONSENSUS = "consensus"
    """Votes, proposals, headers, the core and its log."""
    EXECUTE = "execute"
    """Replay, authorisation, contract calls, receipts."""
    ROOTS = "roots"
    """Receipt roots, state root, history."""
    STORE = "store"
    """Block and state writes."""


class _Span:
    """Adds the thread CPU time between entering and leaving to one stage."""

    __slots__ = ("_clock", "_stage", "_start")

    def __init__(self, clock: "StageClock", stage: Stage) -> None:
        self._clock = clock
        self._stage = stage
        self._start = 0

    def __enter__(self) -> None:
        self._start = time.thread_time_ns()

    def __exit__(self, *_: object) -> None:
        self._clock.nanoseconds[self._stage] += time.thread_time_ns() - self._start


class StageClock:
    """Thread CPU time per stage, in nanoseconds; a stage does not contain itself."""

    __slots__ = ("_spans", "nanoseconds")

    def __init__(self) -> None:
        self.nanoseconds = dict.fromkeys(Stage, 0)
        self._spans = {stage: _Span(self, stage) for stage in Stage}

    def measure(self, stage: Stage) -> _Span:
        """Add the CPU time of the enclosed code, which must not await."""
        return self._spans[stage]
