"""A failed operation leaves nothing; a block's writes have one form."""

import pytest

from ledger.codec import Record, Schema
from ledger.errors import InvariantError
from ledger.state import LogEntry, Overlay


class Number(Record, frozen=True):
    value: int


NUMBER = Schema(Number, max_bytes=16)


class Committed:
    """Committed state in memory: one map key and one log with an entry."""

    def get(self, key: bytes, /) -> bytes | None:
        return {b"old": b"1"}.get(key)

    def log_count(self, log: bytes, /) -> int:
        return 1 if log == b"log" else 0

    def log_entry(self, log: bytes, sequence: int, /) -> LogEntry | None:
        return LogEntry(b"k", b"0") if (log, sequence) == (b"log", 0) else None

    def log_find(self, log: bytes, key: bytes, after: int, limit: int, /) -> list[int]:
        return []


def test_an_operation_sees_its_own_writes_over_committed_state():
    overlay = Overlay(Committed())
    overlay.put(b"new", b"2")
    overlay.put(b"old", None)
    assert overlay.append(b"log", b"k", b"x") == 1
    assert overlay.append(b"other", b"k", b"y") == 0
    assert (overlay.get(b"new"), overlay.get(b"old")) == (b"2", None)
    assert overlay.log_count(b"log") == 2
    found = [overlay.log_entry(b"log", position) for position in range(3)]
    assert found == [LogEntry(b"k", b"0"), LogEntry(b"k", b"x"), None]


def test_a_dropped_operation_leaves_nothing_and_a_kept_one_stays():
    overlay = Overlay(Committed())
    overlay.put(b"a", b"1")
    overlay.append(b"log", b"k", b"kept")
    overlay.keep()
    overlay.put(b"a", b"2")
    overlay.put(b"b", b"2")
    overlay.append(b"log", b"k", b"dropped")
    overlay.append(b"log", b"k", b"dropped too")
    overlay.append(b"other", b"k", b"dropped")
    overlay.drop()
    assert (overlay.get(b"a"), overlay.get(b"b")) == (b"1", None)
    assert (overlay.log_count(b"log"), overlay.log_count(b"other")) == (2, 0)
    writes = overlay.write_set()
    assert writes.maps == ((b"a", b"1"),)
    assert [(write.log, write.first_sequence) for write in writes.logs] == [(b"log", 1)]
    assert writes.logs[0].entries == (LogEntry(b"k", b"kept"),)


def test_the_order_of_writing_does_not_show_in_the_write_set():
    one, two = Overlay(Committed()), Overlay(Committed())
    for overlay, keys in ((one, (b"a", b"b")), (two, (b"b", b"a"))):
        for key in keys:
            overlay.put(key, b"1")
            overlay.append(key, b"k", b"e")
        overlay.keep()
    assert one.write_set() == two.write_set()


def test_an_unsettled_operation_has_no_write_set():
    overlay = Overlay(Committed())
    overlay.put(b"a", b"1")
    with pytest.raises(InvariantError):
        overlay.write_set()
