"""Warnings before a certificate ends: at 30, 7 and 1 days, once each."""

from p2p.expiry import ExpiryWatch

DAY = 86_400_000
END = 1_000 * DAY


def test_each_step_is_announced_once_with_the_days_that_are_left() -> None:
    watch = ExpiryWatch()
    days = (31, 30, 29.5, 8, 7, 6, 1.5, 1, 0.5, 0, -3)
    told = [watch.due(b"key", END, END - round(left * DAY)) for left in days]
    assert told == [None, 30, None, None, 7, None, None, 1, None, None, None]


def test_a_node_that_starts_late_hears_of_the_nearest_step_only() -> None:
    watch = ExpiryWatch()
    assert [watch.due(b"key", END, END - 2 * DAY) for _ in range(2)] == [2, None]
    assert watch.due(b"another key", END, END + DAY) == 0


def test_a_certificate_without_an_end_is_never_due() -> None:
    assert ExpiryWatch().due(b"key", None, END) is None
