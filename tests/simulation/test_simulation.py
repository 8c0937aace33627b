"""A slice of the simulator on every test run, the seeds that once failed, and proof that it bites.

The full gate is `python -m tests.simulation.run --seeds 2000`. That each kind of fault bites is
shown in `test_planted.py`.
"""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from consensus import rules, vote_book
from consensus.core import Core
from consensus.messages import NO_ROUND
from consensus.vote_book import faults_of
from tests.simulation import replica, run
from tests.simulation.run import judged, main, run_many, summary
from tests.simulation.scenario import Scenario, draw
from tests.simulation.world import Result, World, run_seed

SLICE = 80
FAULTS = (
    "change",
    "clock",
    "clog",
    "clogged",
    "crash",
    "cut",
    "damage",
    "disk error",
    "disk fault",
    "duplicate",
    "late",
    "lie",
    "loss",
    "lying sync",
    "partition",
    "pause",
    "power cut",
    "replay",
    "slow body",
    "untimely",
)
MUTANT_SEEDS = 60
FOLDER = Path(__file__).parent


def regressions() -> list[int]:
    lines = (FOLDER / "regressions.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]


def test_no_seed_of_the_slice_breaks_a_promise():
    results = list(run_many(range(SLICE), jobs=1))

    assert [result.violation for result in results] == [""] * SLICE
    assert sum(result.faults for result in results) > 100 * SLICE
    assert all(result.heights > 0 for result in results)
    kinds = Counter[str]()
    for result in results:
        kinds.update(result.kinds)
    assert sorted(kind for kind, count in kinds.items() if count >= 10) == sorted(FAULTS)


def test_members_change_during_the_slice():
    world = World(draw(next(seed for seed in range(400) if draw(seed).change_every_ms)))

    assert world.run().violation == ""
    sets = [decided.body.members for decided in world.nodes[0].chain.blocks]
    assert len(dict.fromkeys(sets)) > 1


@pytest.mark.parametrize("seed", regressions())
def test_a_seed_that_once_failed_stays_fixed(seed):
    assert run_seed(seed).violation == ""


def test_the_scenarios_cover_all_sizes_and_adversaries():
    scenarios = [draw(seed) for seed in range(400)]

    assert {scenario.validators for scenario in scenarios} == {1, 4, 7, 10}
    assert {len(scenario.faulty) for scenario in scenarios} == {0, 1, 2, 3}
    assert all(len(scenario.faulty) <= faults_of(scenario.validators) for scenario in scenarios)
    for role in ("adversaries", "twins", "forgetful", "damaged", "change_every_ms"):
        assert any(getattr(scenario, role) for scenario in scenarios), role
    assert any(scenario.loss == 0.3 for scenario in scenarios)


def test_a_run_is_the_same_under_any_hash_seed_and_number_of_jobs():
    command = [sys.executable, "-m", "tests.simulation.run", "--seeds", "6", "--jobs"]
    outputs = [
        subprocess.run(
            [*command, jobs],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=FOLDER.parents[1],
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        ).stdout
        for hash_seed, jobs in (("0", "1"), ("1", "2"))
    ]

    assert outputs[0] == outputs[1]
    assert outputs[0].startswith("seeds 6, simulated hours 0.1, faults ")


def test_a_seed_that_comes_out_differently_the_second_time_is_a_violation(monkeypatch):
    first, second = run_seed(0), run_seed(1)
    monkeypatch.setattr(run, "run_again", lambda _seeds: [replace(first, trace=bytes(32))])

    assert [result.violation for result in judged([first, second])] == ["a second run differs", ""]


def test_different_seeds_have_different_traces():
    assert run_seed(0).trace != run_seed(1).trace


def test_the_summary_has_one_shape():
    found = Result(3, 60_000, 41, 7, 9, "a fork", bytes(32))
    fine = Result(4, 60_000, 1, 7, 9, "", bytes(32))

    line = summary([found, fine])

    assert line.rsplit(" ", 1)[0] == (
        "seeds 2, simulated hours 0.0, faults 42, violations 1, trace"
    )


def test_a_trace_tells_what_happened(capsys):
    assert main(["--seeds", "1", "--first", "3", "--trace"]) == 0

    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Scenario(seed=3, ")
    assert any("decides" in line for line in printed)
    assert printed[-1].startswith("seeds 1, ")


def test_a_dead_proposer_costs_one_timeout_and_not_one_every_nth_block():
    calm = Scenario(seed=1, validators=7, adversaries=(2,), idle_mean_ms=100)

    def make_node(index, shared, voice):
        return replica.Replica(index, shared, None if voice is None else dead)

    def dead(_node, _signed, _body):
        return

    world = World(calm, make_node)

    assert world.run().violation == ""
    rounds = [decided.certificate.round for decided in world.nodes[0].chain.blocks]
    assert len(rounds) > 100
    # Two turns come before the list that demotes it rules: D(h) rules from h + 1.
    assert 1 <= sum(rounds) <= 2


# Mutants: each breaks one promise of the core or its shell, and must be found.


def first_violation(make_node=replica.Replica) -> str:
    """What the first of MUTANT_SEEDS that finds anything finds."""
    for seed in range(MUTANT_SEEDS):
        violation = World(draw(seed), make_node).run().violation
        if violation:
            return violation
    return ""


class Unlocked(Core):
    """Forgets lock and valid value after every input."""

    __slots__ = ()

    def step(self, event):
        effects = super().step(event)
        state = self._state
        state.locked_value = state.valid_value = None
        state.locked_round = state.valid_round = NO_ROUND
        return effects


class Amnesiac(replica.Replica):
    """Restarts without its log."""

    def remembered(self, entries):
        return []


def replace_rule(monkeypatch, rule, mutant):
    changed = tuple(mutant if held is rule else held for held in rules.RULES)
    monkeypatch.setattr(rules, "RULES", changed)


def test_a_core_without_locks_is_found(monkeypatch):
    monkeypatch.setattr(replica, "Core", Unlocked)

    assert "prevotes against its lock" in first_violation()


def test_a_quorum_of_2f_is_found(monkeypatch):
    monkeypatch.setattr(vote_book, "quorum_of", lambda count: max(1, 2 * ((count - 1) // 3)))

    assert "without a quorum" in first_violation() or "bad certificate" in first_violation()


def test_a_restart_without_the_log_is_found():
    assert "signs twice" in first_violation(Amnesiac)


def test_a_re_proposal_that_is_prevoted_without_its_quorum_is_found(monkeypatch):
    monkeypatch.setattr(
        vote_book.VoteBook, "has_prevote_quorum", lambda _book, _round, _value: True
    )

    assert "on a missing quorum" in first_violation()


def test_conflicting_votes_that_never_count_are_found(monkeypatch):
    """One equivocator then keeps a locked node and the others apart; see `vote_book.py`."""

    def ignore(_tally, _vote, _signed, _first, *, is_proposed):
        return vote_book.Added()

    monkeypatch.setattr(vote_book.Tally, "_add_conflicting", ignore)

    assert "found no decision" in first_violation()


def test_timeouts_that_do_not_grow_are_found(monkeypatch):
    monkeypatch.setattr("consensus.timeouts.Timeouts.after_ms", lambda _self, _kind, _round: 60)

    assert first_violation()


def test_a_restart_that_resumes_nothing_is_found(monkeypatch):
    monkeypatch.setattr(Core, "resume", lambda _core: [])

    assert first_violation()


def test_peers_that_never_re_send_are_found(monkeypatch):
    monkeypatch.setattr("consensus.resending.Resending.answer", lambda _self, _state, _status: [])

    assert first_violation()
