"""Looks for a mutant: plays seeds with the mutant in the code until one finds something.

Arenas: the simulator S1; Twins and ByzzFuzz, whose oracle knows what each rule demands and so finds
what costs S1 only time; one core alone; and the rotation of proposers.
"""

import gc
from collections.abc import Callable
from dataclasses import dataclass

from tests.byzzfuzz import solo
from tests.byzzfuzz.world import run_seed as fuzz
from tests.mutants import of_books, of_durability, of_rules, rotation
from tests.mutants.patching import Mutant, applied
from tests.simulation.world import run_seed as simulate
from tests.twins.play import Player
from tests.twins.script import TOTAL

SEEDS = 2_000
"""A mutant that no arena finds within this many seeds survives."""
TWINS_STRIDE = 2_750_161
"""Neither even nor a multiple of 41, so that it visits every scenario; seed by seed far apart."""

MUTANTS: dict[str, Mutant] = {
    mutant.name: mutant for mutant in (*of_rules.MUTANTS, *of_books.MUTANTS, *of_durability.MUTANTS)
}


@dataclass(frozen=True, slots=True)
class Kill:
    """Who found a mutant, at which seed, and by what."""

    arena: str
    seed: int
    violation: str


def _simulate() -> Callable[[int], str]:
    return lambda seed: simulate(seed).violation


def _twins() -> Callable[[int], str]:
    player = Player()
    return lambda seed: player.play(seed * TWINS_STRIDE % TOTAL)


ARENAS: dict[str, Callable[[], Callable[[int], str]]] = {
    "s1": _simulate,
    "twins": _twins,
    "byzzfuzz": lambda: fuzz,
    "solo": lambda: solo.run_seed,
    "rotation": lambda: rotation.run_seed,
}


def hunt(mutant: Mutant, arenas: tuple[str, ...] | None = None, seeds: int = SEEDS) -> Kill | None:
    """The first seed of the first arena that finds the mutant; None if it survives."""
    with applied(mutant):
        for arena in mutant.arenas if arenas is None else arenas:
            found = first_violation(arena, range(seeds))
            if found is not None:
                return found
    return None


def first_violation(arena: str, seeds: range) -> Kill | None:
    """What an arena finds first in the code as it is now."""
    play = ARENAS[arena]()
    for seed in seeds:
        violation = play(seed)
        gc.collect(0)
        if violation:
            return Kill(arena, seed, violation)
    return None
