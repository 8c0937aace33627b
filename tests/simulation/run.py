"""The simulator's command line: `python -m tests.simulation.run --seeds 2000 --first 0`.

Prints each violation with the command that reproduces it, then one line that sums up; exit code 1
if anything was found. The trace hash depends on the seeds alone: every hundredth seed is run again
in a process with another hash seed, and a difference is a violation.
"""

import argparse
import gc
import hashlib
import multiprocessing
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from tests.simulation.world import Result, run_seed

SAMPLE_EVERY = 100
PROGRESS_EVERY = 1_000
COLLECT_EVERY = 16
"""Seeds between collections: about 100 MB."""
OTHER_HASH_SEED = "424242"
_NO_KINDS: dict[str, int] = {}


def run_many(seeds: Iterable[int], jobs: int) -> Iterator[Result]:
    """The results of all seeds, in their order."""
    if jobs == 1:
        yield from map(run_one, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(run_one, seeds, chunksize=8)


def run_one(seed: int) -> Result:
    """A seed, with the garbage collector out of its way: a run is one knot of references."""
    gc.disable()
    result = run_seed(seed)
    if seed % COLLECT_EVERY == 0:
        gc.collect()
    return result


def run_again(seeds: Sequence[int]) -> list[Result]:
    """The results of the same seeds in a new process, where sets and dicts hash otherwise."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = OTHER_HASH_SEED
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(run_one, seeds)
    finally:
        if before is None:
            del os.environ["PYTHONHASHSEED"]
        else:
            os.environ["PYTHONHASHSEED"] = before


def judged(results: list[Result]) -> list[Result]:
    """The results; one that came out differently the second time is a violation."""
    sample = [number for number, result in enumerate(results) if result.seed % SAMPLE_EVERY == 0]
    again = run_again([results[number].seed for number in sample]) if sample else []
    for number, second in zip(sample, again, strict=True):
        first = results[number]
        if (second.trace, second.violation) != (first.trace, first.violation):
            results[number] = replace(first, violation="a second run differs")
    return results


def with_progress(results: Iterable[Result], seeds: int) -> Iterator[Result]:
    """Pass results on, the long part of them left out; tell a person who waits how far they are."""
    found = 0
    for number, result in enumerate(results, 1):
        found += bool(result.violation)
        if number % PROGRESS_EVERY == 0:
            sys.stderr.write(f"{number} of {seeds} seeds, {found} violations\n")
        yield replace(result, kinds=_NO_KINDS)


def summary(results: list[Result]) -> str:
    """The one line at the end."""
    hours = sum(result.simulated_ms for result in results) / 3_600_000
    faults = sum(result.faults for result in results)
    violations = sum(bool(result.violation) for result in results)
    trace = hashlib.sha256(b"".join(result.trace for result in results)).hexdigest()
    return (
        f"seeds {len(results)}, simulated hours {hours:.1f}, faults {faults}, "
        f"violations {violations}, trace {trace}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds that the command line names."""
    parser = argparse.ArgumentParser(description="Simulate the consensus core.")
    parser.add_argument("--seeds", type=int, default=200, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--trace", action="store_true", help="print what happens, one process")
    options = parser.parse_args(arguments)
    seeds = range(options.first, options.first + options.seeds)
    if options.trace:
        results = [run_seed(seed, print) for seed in seeds]
    else:
        results = judged(list(with_progress(run_many(seeds, options.jobs), options.seeds)))
    for result in results:
        if result.violation:
            again = f"python -m tests.simulation.run --seeds 1 --first {result.seed} --trace"
            sys.stdout.write(f"seed {result.seed}: {result.violation}\n  {again}\n")
    sys.stdout.write(summary(results) + "\n")
    return int(any(result.violation for result in results))


if __name__ == "__main__":
    sys.exit(main())
