"""A slice of Twins on every test run, and proof that sharing histories changes nothing.

The full run is `make twins SECONDS=7200`.
"""

import random
from dataclasses import fields, is_dataclass

import pytest

from consensus.core import Core
from consensus.messages import NO_ROUND
from tests.twins.histories import HEIGHT
from tests.twins.oracle import Oracle
from tests.twins.play import Player
from tests.twins.run import BLOCKS, main, play_block, read_progress, report, scenarios_of
from tests.twins.script import INSTANCES, TOTAL, choices, describe, partitions, script_of
from tests.twins.snapshots import copied
from tests.twins.sweep import Swept
from tests.unit.consensus.builders import A, prevotes, proposed, running, skip_to

SLICE = 8
COMPARED = 60


def test_no_scenario_of_the_slice_breaks_a_promise():
    assert [play_block(visit) for visit in range(SLICE)] == [[]] * SLICE


def test_there_are_41_partitions_and_four_million_scenarios():
    assert len(partitions()) == len(set(partitions())) == 41
    assert all(len(partition) == INSTANCES for partition in partitions())
    assert (partitions()[0], partitions()[-1]) == ((0, 0, 0, 0, 0), (0, 1, 2, 2, 2))
    assert (len(choices()), TOTAL) == (164, 4_410_944)


def test_a_number_names_its_script_most_significant_round_first():
    assert script_of(0) == (0, 0, 0)
    assert script_of(TOTAL - 1) == (163, 163, 163)
    assert script_of(164 * 164 * 5 + 164 * 7 + 9) == (5, 7, 9)
    assert describe(9) == "01233' led by 0; 01233' led by 0; 0123'|3 led by 1"


def test_a_sweep_visits_every_scenario_once():
    firsts = {scenarios_of(visit).start for visit in range(BLOCKS)}

    assert len(firsts) == BLOCKS
    assert sum(len(scenarios_of(visit)) for visit in range(BLOCKS)) == TOTAL


def test_a_shared_history_leads_where_living_it_anew_does():
    rng = random.Random(7)
    shared = Player()
    for number in [rng.randrange(TOTAL) for _ in range(COMPARED)]:
        told, told_anew = [], []
        outcome = shared.play(number, aloud=told.append)
        # Once more, so that every branch is one that was lived before.
        assert shared.play(number) == outcome
        assert Player(shares=False).play(number, aloud=told_anew.append) == outcome
        assert told == told_anew


def contents(thing):
    """All that an object holds, down to plain values."""
    if isinstance(thing, dict):
        return [(contents(key), contents(value)) for key, value in thing.items()]
    if isinstance(thing, list | tuple):
        return [contents(item) for item in thing]
    if isinstance(thing, set):
        return sorted(map(repr, thing))
    names = [field.name for field in fields(thing)] if is_dataclass(thing) else ()
    names = names or getattr(thing, "__slots__", ())
    return [(name, contents(getattr(thing, name))) for name in names] or repr(thing)


def test_a_copied_core_holds_the_same_and_leaves_its_original_alone():
    core = running()
    for event in [*proposed(A), *prevotes(A, 0, 2), *skip_to(2)]:
        core.step(event)
    before = contents(core)

    copy = copied(core)
    assert contents(copy) == before
    for event in [*proposed(A, 2, 0), *prevotes(None, 0, 2, 3, round_number=2), *skip_to(4)]:
        copy.step(event)

    assert contents(core) == before != contents(copy)


def test_a_fork_is_found_without_looking_into_cores_and_can_be_seen_again(monkeypatch, capsys):
    """Without locks, a decision that one node learns late is contradicted by the others."""
    step = Core.step

    def forgetful(core, event):
        effects = step(core, event)
        core._state.locked_value = core._state.valid_value = None
        core._state.locked_round = core._state.valid_round = NO_ROUND
        return effects

    monkeypatch.setattr(Core, "step", forgetful)
    monkeypatch.setattr(Oracle, "on_sign", lambda *_: None)
    monkeypatch.setattr(Oracle, "at_rest", lambda *_: None)
    player = Player()
    outcomes = {number: player.play(number) for visit in range(4) for number in scenarios_of(visit)}
    forks = {number: outcome for number, outcome in outcomes.items() if "a fork" in outcome}

    number = min(forks)
    assert main(["--scenario", str(number)]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == forks[number]


def test_a_sweep_goes_on_where_the_last_one_stopped(tmp_path, capsys):
    path = tmp_path / "progress.json"
    for _ in range(2):
        before = read_progress(path)
        assert main(["--seconds", "0", "--jobs", "1", "--progress", str(path)]) == 0
        assert read_progress(path) == (before[0] + 1, before[1] + 1)

    assert capsys.readouterr().out.splitlines()[-1] == (
        "twins scenarios 164, blocks 1..2 of 26896, byzzfuzz runs 1, seeds 1..2, "
        "one core 5, violations 0"
    )


def test_a_report_names_violations_before_the_figures():
    lines = report(Swept(2, [(5, "a fork")]), Swept(9), (1, 4))

    assert lines == [
        "twins 5: a fork\n  python -m tests.twins.run --scenario 5",
        (
            "twins scenarios 164, blocks 1..2 of 26896, byzzfuzz runs 5, seeds 4..9, "
            "one core 25, violations 1"
        ),
    ]


@pytest.mark.parametrize("number", [0, TOTAL - 1])
def test_the_first_and_the_last_scenario_end_well(number):
    assert Player().play(number) == ""


def test_the_height_lets_leader_r_lead_round_r():
    assert Player()._histories.leaders[(HEIGHT + 2) % HEIGHT] == 2
