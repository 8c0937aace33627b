"""The simulator's command line: `python -m tests.simulation.run --seeds 2000 --first 0`.

Prints each violation with the command that reproduces it, then one line that sums up; exit code 1
if anything was found. The trace hash depends on the seeds alone.
"""

import argparse
import hashlib
import multiprocessing
import sys
from collections.abc import Iterable

from tests.simulation.world import Result, run_seed


def run_many(seeds: Iterable[int], jobs: int) -> list[Result]:
    """The results of all seeds, in their order."""
    if jobs == 1:
        return [run_seed(seed) for seed in seeds]
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        return pool.map(run_seed, seeds, chunksize=8)


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
        results = run_many(seeds, options.jobs)
    for result in results:
        if result.violation:
            again = f"python -m tests.simulation.run --seeds 1 --first {result.seed} --trace"
            sys.stdout.write(f"seed {result.seed}: {result.violation}\n  {again}\n")
    sys.stdout.write(summary(results) + "\n")
    return int(any(result.violation for result in results))


if __name__ == "__main__":
    sys.exit(main())
