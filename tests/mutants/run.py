"""The mutant gate: `python -m tests.mutants.run`.

Every mutant must be found, and the code without mutants must pass every seed that found one. Prints
a table, then one line of figures; exit code 1 if a mutant survives, cannot be applied, or if the
right code fails.
"""

import argparse
import multiprocessing
import sys
from functools import partial

from tests.mutants.hunt import MUTANTS, SEEDS, Kill, first_violation, hunt

CHUNK = 25
"""Seeds of the right code that one process plays at a time."""
_SHOWN = 70


def seek(name: str, seeds: int) -> tuple[str, Kill | str]:
    """A mutant's name, and its kill or why there is none."""
    try:
        kill = hunt(MUTANTS[name], seeds=seeds)
    except (AttributeError, ImportError, KeyError, TypeError) as error:
        return name, f"cannot be applied: {error!r}"
    return name, kill or f"survives {seeds} seeds of {', '.join(MUTANTS[name].arenas)}"


def survey(chunk: tuple[str, range]) -> Kill | None:
    """What an arena finds in the right code, which should be nothing."""
    return first_violation(*chunk)


def chunks_of(kills: list[Kill]) -> list[tuple[str, range]]:
    """Each arena's seeds up to the last that found a mutant, in pieces."""
    lasts: dict[str, int] = {}
    for kill in kills:
        lasts[kill.arena] = max(kill.seed + 1, lasts.get(kill.arena, 0))
    return [
        (arena, range(first, min(first + CHUNK, last)))
        for arena, last in lasts.items()
        for first in range(0, last, CHUNK)
    ]


def line_of(name: str, found: Kill | str) -> str:
    """A row of the table."""
    if isinstance(found, str):
        return f"{name:<44} {'-':<9} {'-':>5}  {found}"
    return f"{name:<44} {found.arena:<9} {found.seed:>5}  {found.violation[:_SHOWN]}"


def main(arguments: list[str] | None = None) -> int:
    """Hunt the mutants that the command line names, by default all."""
    parser = argparse.ArgumentParser(description="Find every mutant of the consensus core.")
    parser.add_argument("names", nargs="*", help="parts of names; none for all")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="after which a mutant survives")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    options = parser.parse_args(arguments)
    names = [
        name for name in MUTANTS if not options.names or any(part in name for part in options.names)
    ]
    found: dict[str, Kill | str] = {}
    sys.stdout.write(f"{'mutant':<44} {'killed by':<9} {'seed':>5}  by which check\n")
    with multiprocessing.get_context("spawn").Pool(options.jobs) as pool:
        for name, outcome in pool.imap(partial(seek, seeds=options.seeds), names):
            found[name] = outcome
            sys.stdout.write(line_of(name, outcome) + "\n")
            sys.stdout.flush()
        kills = [outcome for outcome in found.values() if isinstance(outcome, Kill)]
        wrong = [kill for kill in pool.imap(survey, chunks_of(kills)) if kill is not None]
    for kill in wrong:
        sys.stdout.write(f"without a mutant: {kill.arena} {kill.seed}: {kill.violation}\n")
    sys.stdout.write(
        f"mutants {len(found)}, killed {len(kills)}, survivors {len(found) - len(kills)}, "
        f"violations without a mutant {len(wrong)}\n"
    )
    return int(len(kills) < len(found) or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
