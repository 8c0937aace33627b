"""The node simulator's command line: `python -m tests.node_simulation.run --seeds 200 --first 0`.

Prints each violation with the command that reproduces it, then one line that sums up; exit code 1
if anything was found. `--script` runs the script with a death at every step of the node's tasks
instead of seeds. Every tenth seed runs again in a process with another hash seed, and a difference
is a violation.
"""

import argparse
import hashlib
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import structlog

from tests.node_simulation.world import Result, run_script, run_seed

SAMPLE_EVERY = 10
OTHER_HASH_SEED = "424242"


def hush() -> None:
    """Nobody reads what thousands of nodes say."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


def quiet_seed(seed: int) -> Result:
    """A seed without a word in between."""
    hush()
    return run_seed(seed)


def quiet_script(number: int) -> Result:
    """A death at a step: cancelled for even numbers, without power for odd ones."""
    hush()
    result = run_script(number // 2, without_power=number % 2 == 1)
    return replace(result, seed=number)


def run_many(work: Callable[[int], Result], numbers: Iterable[int], jobs: int) -> Iterator[Result]:
    """The results of all numbers, in their order."""
    if jobs == 1:
        yield from map(work, numbers)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(work, numbers)


def run_again(seeds: Sequence[int]) -> list[Result]:
    """The results of the same seeds in a new process, where sets and dicts hash otherwise."""
    before = os.environ.get("PYTHONHASHSEED")
    os.environ["PYTHONHASHSEED"] = OTHER_HASH_SEED
    try:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return pool.map(quiet_seed, seeds)
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
        if second != results[number]:
            results[number] = replace(results[number], violation="a second run differs")
    return results


def summary(results: Sequence[Result]) -> str:
    """The one line at the end."""
    trace = hashlib.sha256(b"".join(result.trace for result in results)).hexdigest()
    return (
        f"seeds {len(results)}, simulated seconds {sum(one.simulated_s for one in results):.0f}, "
        f"cancellations {sum(one.cancellations for one in results)}, "
        f"power cuts {sum(one.power_cuts for one in results)}, "
        f"restarts {sum(one.restarts for one in results)}, "
        f"faults {sum(one.faults for one in results)}, "
        f"violations {sum(bool(one.violation) for one in results)}, trace {trace}"
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds that the command line names, or the script."""
    parser = argparse.ArgumentParser(description="Simulate whole nodes.")
    parser.add_argument("--seeds", type=int, default=50, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--script", action="store_true", help="deaths of the script, not seeds")
    options = parser.parse_args(arguments)
    if options.script:
        hush()
        most = 2 * run_script(None).victim_steps
        numbers = range(options.first, min(most, options.first + options.seeds))
        results = list(run_many(quiet_script, numbers, options.jobs))
    else:
        numbers = range(options.first, options.first + options.seeds)
        results = judged(list(run_many(quiet_seed, numbers, options.jobs)))
    for result in results:
        if result.violation:
            what = "--script " if options.script else ""
            again = f"python -m tests.node_simulation.run {what}--seeds 1 --first {result.seed}"
            sys.stdout.write(f"seed {result.seed}: {result.violation}\n  {again}\n")
    sys.stdout.write(summary(results) + "\n")
    return int(any(result.violation for result in results))


if __name__ == "__main__":
    sys.exit(main())
