"""The command line of Twins and ByzzFuzz: `python -m tests.twins.run --seconds 60`.

Half of the time goes to each, and with every seed of ByzzFuzz a few of one core alone are played;
once all scenarios of Twins are done, the rest gets all of it. With `--progress FILE` a run goes on
where the last one stopped. Prints each violation with the command that reproduces it, then one line
of figures; exit code 1 if anything was found.

Scenarios come in blocks of 164 that share two rounds. Blocks are visited in strides, so that a run
of any length sees every kind of partition.
"""

import argparse
import gc
import json
import sys
import time
from functools import cache
from pathlib import Path

from tests.byzzfuzz import solo
from tests.byzzfuzz.world import run_seed
from tests.twins.play import Player
from tests.twins.script import TOTAL, choices, describe
from tests.twins.sweep import Finding, Swept, sweep

BLOCK = len(choices())
BLOCKS = TOTAL // BLOCK
STRIDE = 10_007
"""A prime that does not divide BLOCKS = 164 ** 2, so that every block is visited once."""
MOST_MOMENTS = 15_000
"""Histories kept by one process: about 150 MB."""
SOLOS = 5
"""About half of the time that one run of ByzzFuzz takes."""
NO_END = 10**12
PRINTED = 10


@cache
def _player() -> Player:
    """One for each process. Histories hold no cycles, and looking for some takes half the time."""
    gc.disable()
    return Player()


def scenarios_of(visit: int) -> range:
    """The scenarios of the block that is visited as number `visit`."""
    first = visit * STRIDE % BLOCKS * BLOCK
    return range(first, first + BLOCK)


def play_block(visit: int) -> list[Finding]:
    """What is wrong with the scenarios of a block."""
    player = _player()
    if player.lived > MOST_MOMENTS:
        player.forget()
    outcomes = ((number, player.play(number)) for number in scenarios_of(visit))
    return [(number, violation) for number, violation in outcomes if violation]


def fuzz(seed: int) -> list[Finding]:
    """What is wrong with a seed of ByzzFuzz, or with the runs of one core that go with it."""
    outcomes = [run_seed(seed), *map(solo.run_seed, solos_of(seed))]
    return [(seed, violation) for violation in outcomes if violation]


def solos_of(seed: int) -> range:
    """The seeds of one core alone that are played with a seed of ByzzFuzz."""
    return range(seed * SOLOS, (seed + 1) * SOLOS)


def read_progress(path: Path | None) -> tuple[int, int]:
    """The next block and the next seed."""
    if path is None or not path.exists():
        return 0, 0
    progress = json.loads(path.read_text())
    return progress["block"], progress["seed"]


def report(twins: Swept, fuzzed: Swept, first: tuple[int, int]) -> list[str]:
    """The violations, then the one line."""
    lines: list[str] = []
    for name, option, swept in (("twins", "--scenario", twins), ("byzzfuzz", "--seed", fuzzed)):
        for number, violation in swept.findings[:PRINTED]:
            again = f"python -m tests.twins.run {option} {number}"
            lines.append(f"{name} {number}: {violation}\n  {again}")
    played = (twins.next - first[0]) * BLOCK
    runs = fuzzed.next - first[1]
    violations = len(twins.findings) + len(fuzzed.findings)
    lines.append(
        f"twins scenarios {played}, blocks {first[0]}..{twins.next} of {BLOCKS}, "
        f"byzzfuzz runs {runs}, seeds {first[1]}..{fuzzed.next}, one core {runs * SOLOS}, "
        f"violations {violations}"
    )
    return lines


def show(number: int) -> int:
    """Play one scenario aloud."""
    sys.stdout.write(f"scenario {number}: {describe(number)}\n")
    violation = Player(shares=False).play(number, aloud=sys.stdout.write)
    sys.stdout.write(f"{violation or 'nothing is wrong'}\n")
    return int(bool(violation))


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description="Play Twins and ByzzFuzz on the consensus core.")
    parser.add_argument("--seconds", type=float, default=60.0, help="for both together")
    parser.add_argument("--progress", type=Path, help="a file to go on from and to leave off in")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--scenario", type=int, help="play this scenario of Twins, aloud")
    parser.add_argument("--seed", type=int, help="run this seed of ByzzFuzz")
    options = parser.parse_args(arguments)
    if options.scenario is not None:
        return show(options.scenario)
    if options.seed is not None:
        found = fuzz(options.seed)
        outcome = "; ".join(violation for _, violation in found)
        sys.stdout.write(f"seed {options.seed}: {outcome or 'nothing is wrong'}\n")
        return int(bool(found))
    first = read_progress(options.progress)
    end = time.monotonic() + options.seconds
    blocks = range(first[0], BLOCKS)
    twins = sweep(play_block, blocks, seconds=options.seconds / 2, jobs=options.jobs)
    seeds = range(first[1], NO_END)
    fuzzed = sweep(fuzz, seeds, seconds=end - time.monotonic(), jobs=options.jobs)
    if options.progress is not None:
        progress = {"block": twins.next, "seed": fuzzed.next}
        options.progress.write_text(json.dumps(progress) + "\n")
    lines = report(twins, fuzzed, first)
    sys.stdout.write("\n".join(lines) + "\n")
    return int(bool(twins.findings or fuzzed.findings))


if __name__ == "__main__":
    sys.exit(main())
