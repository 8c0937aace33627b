"""The price of bad signatures: who pays, how much, and that nobody pays for another."""

import pytest

from ledger.errors import Reason, Rejected
from node import limits
from node.failures import SignatureFailures

FREE, PER_S = limits.FAILED_SIGNATURES, limits.FAILED_SIGNATURES_PER_S


class Hands:
    now = 0

    def now_ms(self):
        return self.now


@pytest.fixture
def clock():
    return Hands()


@pytest.fixture
def failures(clock):
    return SignatureFailures(clock)


def refused(failures, client):
    """The hint in ms of a refusal, 0 for none."""
    try:
        failures.check(client)
    except Rejected as refusal:
        return refusal.facts["retry_after_ms"] if refusal.reason is Reason.RATE_LIMIT else None
    return 0


def test_a_client_without_failures_is_never_refused(failures):
    failures.charge("a", 10**6)
    assert refused(failures, "b") == 0
    assert refused(failures, "a") > 0


def test_the_free_failures_are_free_and_the_next_one_is_not(failures):
    failures.charge("a", FREE - 1)
    assert refused(failures, "a") == 0
    failures.charge("a", 1)
    assert refused(failures, "a") == 1_000 // PER_S


def test_the_hint_is_the_time_after_which_the_client_is_heard_again(failures, clock):
    failures.charge("a", FREE + 99)
    hint = refused(failures, "a")
    clock.now = hint - 1
    assert refused(failures, "a") > 0
    clock.now = hint
    assert refused(failures, "a") == 0


def test_a_debt_is_forgiven_at_one_rate_however_often_it_is_looked_at(failures, clock):
    failures.charge("a", FREE + PER_S)
    for clock.now in range(1, 1_000):
        assert refused(failures, "a") > 0
    clock.now = 1_060
    assert refused(failures, "a") == 0


def test_a_clock_that_steps_back_forgives_nothing_and_takes_nothing(failures, clock):
    clock.now = 10_000
    failures.charge("a", FREE)
    clock.now = 0
    assert refused(failures, "a") > 0
    clock.now = 1_000
    assert refused(failures, "a") == 0


def test_a_flood_from_many_addresses_leaves_each_of_them_one_and_the_others_alone(failures):
    for number in range(limits.FAILED_SIGNATURES_ALL // 2):
        failures.charge(f"bot {number}", 2)
    assert refused(failures, "bot 0") > 0
    assert refused(failures, "hospital") == 0


def test_the_memory_for_failing_clients_is_bounded(failures):
    for number in range(limits.FAILING_CLIENTS + 100):
        failures.charge(f"bot {number}", 1)
    assert len(failures._clients) == limits.FAILING_CLIENTS
