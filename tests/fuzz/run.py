"""`make fuzz SECONDS=n`: structure-aware messages against every decoder, in two processes.

Message number n of a seed is always the same, so any escape is reproduced by
`python -m tests.fuzz.run --seed S --first N --count 1`. An escape is an exception that the decoder
does not name, or accepted bytes that re-encode to others. Ends with one line of figures, and
non-zero on an escape or when memory grew.
"""

import argparse
import gc
import inspect
import multiprocessing
import resource
import sys
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from random import Random

import trio
import trio.testing

from tests.fuzz.mutations import mutated
from tests.fuzz.targets import TARGETS, Target

WORKERS = 2
GROWTH_MB = 64
WARM_MESSAGES = 3_000
ESCAPES_SHOWN = 10
_CHOICES = [target for target in TARGETS for _ in range(target.weight)]


@dataclass
class Tally:
    """What one worker found."""

    accepted: Counter = field(default_factory=Counter)
    refused: Counter = field(default_factory=Counter)
    escapes: list[str] = field(default_factory=list)
    peak_mb: float = 0.0
    growth_mb: float = 0.0

    def add(self, other: "Tally") -> None:
        """Count the other's as well."""
        self.accepted += other.accepted
        self.refused += other.refused
        self.escapes += other.escapes
        self.peak_mb = max(self.peak_mb, other.peak_mb)
        self.growth_mb = max(self.growth_mb, other.growth_mb)

    @property
    def messages(self) -> int:
        """All of them."""
        return self.accepted.total() + self.refused.total() + len(self.escapes)


def message(seed: int, number: int) -> tuple[Target, bytes]:
    """Message `number` of a seed, and the decoder it goes to."""
    generator = Random(seed << 48 | number)
    target = _CHOICES[int(generator.random() * len(_CHOICES))]
    return target, mutated(generator, target.samples, is_json=target.is_json)


async def judge(target: Target, data: bytes, tally: Tally) -> str | None:
    """Feed one message; the account of an escape, None when all is well."""
    try:
        found = target.run(data)
        if inspect.isawaitable(found):
            found = await found
    except target.refusals:
        tally.refused[target.name] += 1
        return None
    except (Exception, BaseExceptionGroup):  # noqa: BLE001 - any other is what we look for
        return traceback.format_exc(limit=-3)
    if found is not None and found != data:
        return f"accepted, but it re-encodes to {found[:120].hex()}"
    tally.accepted[target.name] += 1
    return None


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1_024


async def _work(seed: int, numbers: range, deadline: float) -> Tally:
    tally, warm_mb = Tally(), 0.0
    for index, number in enumerate(numbers):
        if index % 512 == 0:
            await trio.lowlevel.checkpoint()
            if time.monotonic() > deadline:
                break
            if index <= WARM_MESSAGES:
                warm_mb = _peak_mb()
        target, data = message(seed, number)
        account = await judge(target, data, tally)
        if account is not None:
            again = f"--seed {seed} --first {number} --count 1"
            tally.escapes.append(f"{target.name}, {again}\n{data[:200].hex()}\n{account}")
            if len(tally.escapes) >= ESCAPES_SHOWN:
                break
    tally.peak_mb = _peak_mb()
    tally.growth_mb = tally.peak_mb - warm_mb
    return tally


def work(seed: int, first: int, step: int, count: int, seconds: float) -> Tally:
    """Messages first, first + step, … below `count` of them, for so long."""
    clock = trio.testing.MockClock(autojump_threshold=0)
    deadline = time.monotonic() + seconds
    return trio.run(_work, seed, range(first, first + count, step), deadline, clock=clock)


def run(seed: int, first: int, count: int, seconds: float, workers: int) -> Tally:
    """All workers together; worker w takes every `workers`-th message."""
    total = Tally()
    context = multiprocessing.get_context("fork")
    # What the samples are made of lives on: keep the collector of a worker from walking it.
    with context.Pool(workers, initializer=gc.freeze) as pool:
        jobs = [
            pool.apply_async(work, (seed, first + worker, workers, count - worker, seconds))
            for worker in range(workers)
        ]
        for job in jobs:
            total.add(job.get())
    return total


def line(tally: Tally) -> str:
    """The figures in one line."""
    return (
        f"fuzz messages {tally.messages:,}, refused {tally.refused.total():,}, "
        f"accepted {tally.accepted.total():,}, escapes {len(tally.escapes)}, "
        f"peak MB {tally.peak_mb:.0f} (+{tally.growth_mb:.0f})"
    )


def say(text: str) -> None:
    """One line on standard output."""
    sys.stdout.write(text + "\n")


def main() -> int:
    """Parse options, run, print; 0 when nothing escaped and memory held."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--count", type=int, default=10**12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--workers", type=int, default=WORKERS)
    options = parser.parse_args()
    start = time.monotonic()
    workers = min(options.workers, options.count)
    tally = run(options.seed, options.first, options.count, options.seconds, workers)
    elapsed = time.monotonic() - start
    for target in TARGETS:
        accepted, refused = tally.accepted[target.name], tally.refused[target.name]
        say(f"{target.name:16s} accepted {accepted:>10,}  refused {refused:>10,}")
    for escape in tally.escapes:
        say(f"ESCAPE {escape}")
    say(f"seed {options.seed}, {tally.messages / elapsed:,.0f} messages a second")
    say(line(tally))
    return 1 if tally.escapes or tally.growth_mb > GROWTH_MB else 0


if __name__ == "__main__":
    sys.exit(main())
