"""V and CPU: what one secp256k1 verification costs here and now, and what processes have used.

V divides out how fast the machine is and how busy its neighbours are; it is sampled while the load
runs, by thread CPU time, as the median of short slices.
Source: architecture section 10.
"""

import os
import time
from hashlib import sha256
from itertools import cycle, islice
from pathlib import Path
from statistics import median

from ledger.crypto import secp256k1

_SECRET = bytes(31) + b"\x07"
_SIGNATURES = 500
_SLICE = 20


class Calibration:
    """Samples of V in microseconds.

    The signatures differ, as a node's do: over a single one the branch predictor learns the way
    through the arithmetic, and V comes out a tenth too small (24.1 against 26.6 us, measured).
    """

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._key = secp256k1.public_key(_SECRET)
        digests = [sha256(number.to_bytes(4, "big")).digest() for number in range(_SIGNATURES)]
        self._signed = cycle([(digest, secp256k1.sign(_SECRET, digest)) for digest in digests])

    def sample(self) -> None:
        """Verify a slice of signatures and note the CPU time of one."""
        verify = secp256k1.verifier(self._key)
        signed = list(islice(self._signed, _SLICE))
        start = time.thread_time_ns()
        for digest, signature in signed:
            verify(digest, signature)
        self.samples.append((time.thread_time_ns() - start) / _SLICE / 1_000)

    @property
    def v_us(self) -> float:
        """The median of all samples."""
        return median(self.samples)


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process so far, its threads included."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
