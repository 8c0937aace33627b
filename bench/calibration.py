"""V and CPU: what one secp256k1 verification costs here and now, and what processes have used.

V divides out how fast the machine is and how busy its neighbours are; it is sampled while the load
runs, by thread CPU time, as the median of short slices.
Source: architecture section 10.
"""

import os
import time
from pathlib import Path
from statistics import median

from ledger.crypto import secp256k1

_SECRET = bytes(31) + b"\x07"
_DIGEST = bytes(range(32))
_SLICE = 20


class Calibration:
    """Samples of V in microseconds."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._key = secp256k1.public_key(_SECRET)
        self._signature = secp256k1.sign(_SECRET, _DIGEST)

    def sample(self) -> None:
        """Verify a slice of signatures and note the CPU time of one."""
        start = time.thread_time_ns()
        for _ in range(_SLICE):
            secp256k1.verify(self._key, _DIGEST, self._signature)
        self.samples.append((time.thread_time_ns() - start) / _SLICE / 1_000)

    @property
    def v_us(self) -> float:
        """The median of all samples."""
        return median(self.samples)


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
