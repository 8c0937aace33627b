"""How a mutant changes running code and puts it back: by replacing attributes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from consensus import core, rules
from consensus.core import Core

Change = tuple[Any, str, Any]
"""An object, the name of an attribute that it has, and what to put there."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One broken promise. `changes` is called when the mutant is applied, and not before."""

    name: str
    arenas: tuple[str, ...]
    """Where it is looked for, in this order, until something is found."""
    changes: Callable[[], list[Change]]


@contextmanager
def applied(mutant: Mutant) -> Iterator[None]:
    """The code with one mutant in it. Raises: AttributeError when there is nothing to replace."""
    before: list[Change] = []
    try:
        for owner, name, replacement in mutant.changes():
            before.append((owner, name, vars(owner)[name]))
            setattr(owner, name, replacement)
        yield
    finally:
        for owner, name, original in reversed(before):
            setattr(owner, name, original)


def rule(original: rules.Rule, *mutants: rules.Rule) -> list[Change]:
    """Another rule in the place of one; none removes it."""
    changed = [each for held in rules.RULES for each in (mutants if held is original else (held,))]
    return [(rules, "RULES", tuple(changed))]


def function(name: str, replacement: Any) -> list[Change]:
    """Another function of `rules.py`, also where `core.py` has imported it."""
    owners = [module for module in (rules, core) if name in vars(module)]
    return [(module, name, replacement) for module in owners]


def after_each_step(tamper: Callable[[Any, Any], None]) -> list[Change]:
    """`tamper(state, before)` changes a core's state behind its back after every input.

    `before` is (locked round, locked value) as it was before the input.
    """
    step = Core.step

    def mutated(self: Core, event: Any) -> Any:
        before = self.locked
        effects = step(self, event)
        tamper(self._state, before)
        return effects

    return [(Core, "step", mutated)]
