"""The fuzzer itself: deterministic, aware of every decoder, and able to see an escape."""

from dataclasses import replace

import msgspec
import pytest
import trio

from ledger.codec import encode
from ledger.errors import Reason, Rejected
from node import wire
from tests.fuzz import run
from tests.fuzz.run import Tally, judge, line, message, work
from tests.fuzz.targets import TARGETS

BY_NAME = {target.name: target for target in TARGETS}
SLICE_MESSAGES = 40_000
"""About five seconds."""


def account(target, data):
    """What `judge` says, and the tally."""
    tally = Tally()
    return trio.run(judge, target, data, tally), tally


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_every_sample_is_accepted_and_re_encodes_to_itself(target):
    for sample in target.samples:
        found, tally = account(target, sample)
        assert found is None
        assert tally.accepted[target.name] == 1


def test_a_slice_of_the_messages_escapes_nowhere_and_holds_the_memory():
    tally = work(7, 0, 1, SLICE_MESSAGES, 300)
    assert tally.escapes == []
    assert tally.messages == SLICE_MESSAGES
    assert tally.growth_mb < run.GROWTH_MB
    for target in TARGETS:
        assert tally.accepted[target.name], target.name
        assert tally.refused[target.name] or target.name in {"rpc", "light rpc", "http", "log file"}


def test_the_same_number_is_the_same_message():
    for number in range(500):
        first, second = message(3, number), message(3, number)
        assert (first[0].name, first[1]) == (second[0].name, second[1])
    assert [message(3, n)[1] for n in range(20)] != [message(4, n)[1] for n in range(20)]


def test_an_exception_that_a_decoder_does_not_name_is_an_escape():
    def forgets_the_short(data):
        return data[:5] + bytes([data[5]]) + data[6:]

    target = replace(BY_NAME["vote"], run=forgets_the_short)
    assert account(target, b"long enough")[0] is None
    assert "IndexError" in account(target, b"x")[0]


def test_a_decoder_that_repairs_is_an_escape():
    """As one without the comparison of the re-encoding would be."""
    target = replace(BY_NAME["status"], run=lambda data: b"\x93\x01\x00\x02")
    assert account(target, b"\x93\x01\x00\x02")[0] is None
    assert "re-encodes" in account(target, b"\x93\xcc\x01\x00\x02")[0]


def test_a_decoder_without_the_canonical_rule_is_found_within_a_few_thousand(monkeypatch):
    """The planted bug: a schema that does not compare what it read with what it would write."""
    decode = msgspec.msgpack.Decoder(wire.StatusMessage).decode

    def loose(data):
        try:
            return encode(decode(data))
        except msgspec.DecodeError as error:
            raise Rejected(Reason.MALFORMED) from error

    monkeypatch.setattr(run, "_CHOICES", [replace(BY_NAME["status"], run=loose)])
    escapes = work(1, 0, 1, 5_000, 60).escapes
    assert escapes
    assert all("re-encodes" in escape for escape in escapes)


def test_a_refusal_of_another_family_is_an_escape():
    def refuses(data):
        raise Rejected(Reason.MALFORMED)

    assert account(replace(BY_NAME["frames"], run=refuses), b"")[0]


def test_the_figures_stand_in_one_line():
    tally = Tally(peak_mb=50.2, growth_mb=3.4)
    tally.accepted["a"], tally.refused["b"] = 1_234, 10_000
    assert line(tally) == (
        "fuzz messages 11,234, refused 10,000, accepted 1,234, escapes 0, peak MB 50 (+3)"
    )
