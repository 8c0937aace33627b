"""Where the CPU of a node goes: one accumulator per stage of a transaction's life.

Measured around whole slices and blocks, so the measuring itself costs nothing per transaction.
"""

import time
from collections.abc import Generator
from contextlib import contextmanager
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


class StageClock:
    """Thread CPU time per stage, in nanoseconds; stages do not nest."""

    def __init__(self) -> None:
        self.nanoseconds = dict.fromkeys(Stage, 0)

    @contextmanager
    def measure(self, stage: Stage) -> Generator[None]:
        """Add the CPU time of the enclosed code, which must not await."""
        start = time.thread_time_ns()
        try:
            yield
        finally:
            self.nanoseconds[stage] += time.thread_time_ns() - start
