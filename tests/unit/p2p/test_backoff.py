"""Back-off: doubles up to its cap, within its jitter, and begins anew after a reset."""

from p2p.backoff import Backoff


def test_delays_double_up_to_ten_seconds() -> None:
    backoff = Backoff(lambda: 1.0)
    delays = [round(backoff.next_delay_s(), 3) for _ in range(8)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0]


def test_jitter_takes_away_at_most_half() -> None:
    assert Backoff(lambda: 0.0).next_delay_s() == 0.1
    assert round(Backoff(lambda: 0.5).next_delay_s(), 3) == 0.15


def test_a_reset_begins_with_the_shortest_delay() -> None:
    backoff = Backoff(lambda: 1.0)
    first = backoff.next_delay_s()
    backoff.next_delay_s()
    backoff.reset()
    assert backoff.next_delay_s() == first
