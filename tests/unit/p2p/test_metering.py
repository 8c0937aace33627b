"""Budgets: a full load never waits, a flood does, and a pause is exactly as long as the debt."""

import pytest

from p2p.metering import (
    READ_BYTES,
    READ_FRAMES,
    REQUEST_BYTES,
    SERVED_BYTES,
    SIGNATURES,
    Allowance,
    Budget,
    Meter,
)
from p2p.queues import QUEUE_LIMITS

KIB, MIB = 1024, 1024 * 1024


def test_a_full_load_through_one_peer_never_waits() -> None:
    """5,000 transactions of 1 KB a second in batches of 250, read in TLS records, for a minute."""
    meter, now_s = Meter(0.0), 0.0
    for _ in range(60 * 20):
        for _ in range(16):
            meter.take_read(16 * KIB, 0)
        meter.take_read(256_000 - 15 * 16 * KIB, 1)
        meter.take_signatures(251)
        for _ in range(3):
            meter.take_read(200, 1)
            meter.take_signatures(1)
        now_s += 0.05
        assert meter.pause_s(now_s) == 0.0
    assert meter.throttled_s == 0.0


def test_a_node_that_lags_may_be_served_and_may_serve_at_ten_megabytes_a_second() -> None:
    asks, serves, now_s = Meter(0.0), Meter(0.0), 0.0
    for _ in range(60 * 10):
        for _ in range(16):  # batches of 64 KB, each asked for by itself
            asks.take_read(100, 1)
            asks.take_served(64_000)
            for _ in range(4):
                serves.take_read(16 * KIB, 1)
        now_s += 0.1
        assert (asks.pause_s(now_s), serves.pause_s(now_s)) == (0.0, 0.0)


def test_the_bursts_take_two_blocks_of_eight_mebibytes_and_all_queues_of_a_clogged_link() -> None:
    meter = Meter(0.0)
    meter.take_signatures(2 * 8 * MIB // 480)
    for limit in QUEUE_LIMITS.values():
        meter.take_read(limit.size_bytes, limit.frames)
    assert meter.pause_s(0.0) == 0.0


@pytest.mark.parametrize(
    ("use", "rate"),
    [
        (lambda meter: meter.take_read(READ_BYTES.burst + READ_BYTES.rate, 1), "bytes"),
        (lambda meter: meter.take_read(1, READ_FRAMES.burst + READ_FRAMES.rate), "frames"),
        (lambda meter: meter.take_signatures(SIGNATURES.burst + SIGNATURES.rate), "signatures"),
        (
            lambda meter: meter.take_served(SERVED_BYTES.burst + SERVED_BYTES.rate - REQUEST_BYTES),
            "answers",
        ),
    ],
)
def test_a_second_of_debt_is_a_second_of_pause_and_of_sixteen_when_demoted(use, rate) -> None:
    meter, demoted = Meter(0.0), Meter(0.0)
    demoted.demote(is_demoted=True)
    for one in (meter, demoted):
        use(one)
    assert (meter.pause_s(0.0), demoted.pause_s(0.0)) == (1.0, 16.0), rate
    assert (meter.pause_s(1.0), demoted.pause_s(16.0)) == (0.0, 0.0)
    assert (meter.throttled_s, demoted.throttled_s) == (1.0, 16.0)


def test_reads_that_complete_no_frame_count_as_well() -> None:
    meter = Meter(0.0)
    for _ in range(int(READ_FRAMES.burst) + 4):
        meter.take_read(1, 0)
    assert meter.pause_s(0.0) == 4 / READ_FRAMES.rate


def test_an_idle_peer_saves_up_no_more_than_a_burst() -> None:
    meter = Meter(0.0)
    meter.pause_s(1_000_000.0)
    meter.take_signatures(int(SIGNATURES.burst) + 12_000)
    assert meter.pause_s(1_000_000.0) == 1.0


def test_an_allowance_refuses_what_is_beyond_it() -> None:
    allowance = Allowance(Budget(rate=2, burst=3), 0.0)
    assert [allowance.take(0.0) for _ in range(4)] == [True, True, True, False]
    assert [allowance.take(0.5) for _ in range(2)] == [True, False]
    assert [allowance.take(100.0) for _ in range(4)] == [True, True, True, False]
