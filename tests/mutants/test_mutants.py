"""A slice of the mutant gate on every test run: those that die soon. `make mutants` hunts all."""

import pytest

from consensus import core, rules, vote_book
from consensus.core import Core
from tests.mutants import run
from tests.mutants.hunt import ARENAS, MUTANTS, Kill, first_violation, hunt
from tests.mutants.patching import Mutant, applied

SOON = 60
SOLOS = 300
"""Runs of one core take milliseconds."""
QUICK = ("solo", "twins", "byzzfuzz", "rotation")


def test_there_are_enough_mutants_and_each_has_arenas():
    assert len(MUTANTS) >= 25
    assert all(mutant.arenas and set(mutant.arenas) <= set(ARENAS) for mutant in MUTANTS.values())


@pytest.mark.parametrize(
    "name", [name for name, mutant in MUTANTS.items() if mutant.arenas[0] in QUICK]
)
def test_a_mutant_is_found(name):
    seeds = SOLOS if MUTANTS[name].arenas == ("solo",) else SOON
    assert hunt(MUTANTS[name], seeds=seeds) is not None


@pytest.mark.parametrize(
    "name",
    ["no lock", "quorum of 2f", "copies are accused", "restart without the log", "nothing resumed"],
)
def test_the_simulator_finds_a_mutant(name):
    assert hunt(MUTANTS[name], ("s1",), SOON) is not None


@pytest.mark.parametrize("arena", QUICK)
def test_the_right_code_passes_where_mutants_die(arena):
    assert first_violation(arena, range(SOON)) is None


def test_a_mutant_leaves_no_trace():
    owners = (core, rules, vote_book, Core)
    before = [dict(vars(owner)) for owner in owners]
    for name in ("no round skip (L55)", "quorum of 2f", "own votes not recalled", "no lock"):
        with applied(MUTANTS[name]):
            assert [dict(vars(owner)) for owner in owners] != before

    assert [dict(vars(owner)) for owner in owners] == before


def test_a_mutant_of_what_does_not_exist_is_named_and_counts_as_a_survivor(monkeypatch, capsys):
    nothing = Mutant("nothing", ("solo",), lambda: [(Core, "no_such_thing", None)])
    monkeypatch.setitem(MUTANTS, "nothing", nothing)

    assert run.seek("nothing", 1) == ("nothing", "cannot be applied: KeyError('no_such_thing')")
    assert run.line_of(*run.seek("nothing", 1)).startswith("nothing     ")


def test_a_change_that_changes_nothing_survives(monkeypatch):
    same = Mutant("same", ("solo", "twins"), lambda: [(Core, "step", Core.step)])
    monkeypatch.setitem(MUTANTS, "same", same)

    assert run.seek("same", 3) == ("same", "survives 3 seeds of solo, twins")


def test_the_right_code_plays_the_seeds_that_found_mutants():
    kills = [Kill("s1", 30, "a"), Kill("solo", 2, "b"), Kill("s1", 7, "c")]

    assert run.chunks_of(kills) == [
        ("s1", range(25)),
        ("s1", range(25, 31)),
        ("solo", range(3)),
    ]


def test_the_gate_prints_a_table_and_one_line(capsys):
    assert run.main(["quorum of 2f", "--jobs", "1"]) == 0

    lines = capsys.readouterr().out.splitlines()
    assert [line.split("  ")[0] for line in lines[1:3]] == ["quorum of 2f", "quorum of 2f + 2"]
    assert lines[-1] == "mutants 2, killed 2, survivors 0, violations without a mutant 0"
