"""A slice of the node simulator on every test run, and proof that it bites."""

import re

import pytest
import structlog

from node.wal import WriteAheadLog
from tests.node_simulation import mistakes, world
from tests.node_simulation.run import judged, main, run_many
from tests.node_simulation.snapshots import prune_soon, run_joining
from tests.node_simulation.world import run_script, run_seed

SLICE = 3
JOINS = 8
PRUNING = (0, 3, 8)
"""Seeds with four nodes and with seven; in the latter new ones begin while most have pruned."""
EVERY = 13
EVERY_POWER_CUT = 55
PATIENCE_S = 60
"""What never ends, because of a mistake, ends sooner."""


@pytest.fixture(autouse=True)
def quiet():
    """Nobody reads what thousands of restarts say."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


def test_no_seed_of_the_slice_breaks_a_promise_and_another_hash_seed_changes_nothing():
    results = judged(list(run_many(run_seed, range(SLICE), jobs=1)))
    assert [result.violation for result in results] == [""] * SLICE
    assert all(result.transactions for result in results)
    assert sum(result.cancellations for result in results) > 0
    assert sum(result.power_cuts for result in results) > 0


def test_nodes_that_prune_break_no_promise_while_one_keeps_all(monkeypatch):
    steps = prune_soon(monkeypatch)
    results = [run_seed(seed) for seed in PRUNING]
    assert [result.violation for result in results] == [""] * len(PRUNING)
    assert steps[0] > 50


def deaths(every, *, without_power):
    """Run the script with one death before every so many steps of the node."""
    steps = run_script(None).victim_steps
    assert steps > 200
    for number in range(0, steps, every):
        result = run_script(number, without_power=without_power)
        assert (number, result.violation) == (number, "")
        assert (result.restarts, result.power_cuts) == (1, int(without_power))


def test_a_node_cancelled_at_any_await_comes_back_and_agrees():
    deaths(EVERY, without_power=False)


def test_a_node_without_power_at_any_await_comes_back_and_agrees():
    deaths(EVERY_POWER_CUT, without_power=True)


def test_a_machine_that_joins_from_snapshots_names_who_lies_and_survives_its_deaths(monkeypatch):
    refused = []
    for seed in range(JOINS):
        result, joining = run_joining(seed, monkeypatch)
        assert (seed, result.violation) == (seed, "")
        refused += joining.refused
    assert refused


@pytest.mark.parametrize(
    ("plant", "first", "words"),
    [pytest.param(*one, id=one[0].__name__) for one in mistakes.ALL],
)
def test_a_planted_mistake_is_found(monkeypatch, plant, first, words):
    monkeypatch.setattr(world, "SETTLE_S", PATIENCE_S)
    plant(monkeypatch)
    seeds = range(first, first + mistakes.SEEDS)
    assert any(words in run_seed(seed).violation for seed in seeds)


def test_a_log_that_is_left_open_is_seen(monkeypatch):
    monkeypatch.setattr(WriteAheadLog, "close", lambda _log: None)
    assert "open" in run_script(20).violation


def test_the_command_ends_with_one_line_of_figures(capsys):
    assert main(["--seeds", "1", "--first", "3", "--jobs", "1"]) == 0
    assert re.fullmatch(
        r"seeds 1, simulated seconds \d+, cancellations \d+, power cuts \d+, restarts \d+, "
        r"faults \d+, violations 0, trace [0-9a-f]{64}\n",
        capsys.readouterr().out,
    )
