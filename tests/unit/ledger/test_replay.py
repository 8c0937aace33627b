"""An id is remembered until its expiry rule would refuse it anyway."""

from ledger.replay import SPAN_MS, ReplayWindow


def test_an_id_is_seen_until_its_span_lies_wholly_in_the_past():
    window = ReplayWindow()
    window.record(b"a", SPAN_MS + 1, succeeded=True)
    assert window.seen(b"a", SPAN_MS + 1)
    assert not window.seen(b"b", SPAN_MS + 1)
    window.advance(2 * SPAN_MS - 1)
    assert window.seen(b"a", SPAN_MS + 1)
    window.advance(2 * SPAN_MS)
    assert not window.seen(b"a", SPAN_MS + 1)
    assert len(window) == 0


def test_success_is_remembered_beside_the_id():
    window = ReplayWindow()
    window.record(b"good", 5, succeeded=True)
    window.record(b"bad", 5 + SPAN_MS, succeeded=False)
    found = [window.succeeded(name) for name in (b"good", b"bad", b"unknown")]
    assert found == [True, False, False]
    assert len(window) == 2
