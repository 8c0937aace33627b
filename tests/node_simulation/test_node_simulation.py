"""A slice of the node simulator on every test run, and proof that it bites."""

import pytest
import structlog

from tests.node_simulation.run import judged, run_many
from tests.node_simulation.world import run_script, run_seed

SLICE = 5
EVERY = 7
EVERY_POWER_CUT = 21


@pytest.fixture(autouse=True)
def quiet():
    """Nobody reads what thousands of restarts say."""
    before = structlog.get_config()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    yield
    structlog.configure(**before)


def test_no_seed_of_the_slice_breaks_a_promise_and_a_second_process_sees_the_same():
    results = judged(list(run_many(run_seed, range(SLICE), jobs=1)))
    assert [result.violation for result in results] == [""] * SLICE
    assert all(result.transactions for result in results)
    assert sum(result.cancellations + result.power_cuts for result in results) > 0


def deaths(every, *, without_power):
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


def first_violation(seeds=20):
    return next((found for seed in range(seeds) if (found := run_seed(seed).violation)), "")
