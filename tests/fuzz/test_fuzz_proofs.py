"""The fuzzer of proofs: deterministic, without a violation, and able to see one."""

import pytest

from docs import kanglian_verify
from tests.fuzz import proofs
from tests.fuzz.proof_mutations import BENDERS
from tests.fuzz.proofs import Tally, line, mutant, work

SLICE_PROOFS = 6_000
"""About ten seconds."""


def test_a_slice_of_the_bent_proofs_finds_no_violation():
    tally = work(11, 0, SLICE_PROOFS, 300)
    assert tally.violations == []
    assert tally.proofs == SLICE_PROOFS
    assert {bender.__name__ for bender in BENDERS} <= set(tally.refused)
    recertified = [kind for kind in tally.accepted if kind.startswith("recertified")]
    assert len(recertified) >= 5


def test_the_same_number_is_the_same_proof():
    for number in range(60):
        assert mutant(3, number)[1] == mutant(3, number)[1]
    assert [mutant(3, n)[1] for n in range(20)] != [mutant(4, n)[1] for n in range(20)]


def a_smaller_quorum(monkeypatch):
    monkeypatch.setattr(
        kanglian_verify.Validators, "quorum", property(lambda own: len(own.members) // 2)
    )


def an_unread_receipt(monkeypatch):
    monkeypatch.setattr(kanglian_verify, "read_receipt", lambda data: [data[3:35], 0])


def a_path_with_steps_left_over(monkeypatch):
    above = kanglian_verify.root_above

    def forgiving(entry, position, where):
        for steps in range(len(position["path"]) + 1):
            shorter = {**position, "path": position["path"][:steps]}
            try:
                return above(entry, shorter, where)
            except kanglian_verify.Refused:
                continue
        return above(entry, position, where)

    monkeypatch.setattr(kanglian_verify, "root_above", forgiving)


def an_encoding_of_any_length(monkeypatch):
    decode = kanglian_verify.decode

    def loose(data, where, most):
        return kanglian_verify._value(data, 0, 0, where)[0] if data else decode(data, where, most)

    monkeypatch.setattr(kanglian_verify, "decode", loose)


def an_escape(monkeypatch):
    def reads_the_tenth(value, where, names):
        return members(value, where, names) if value is None or "path" not in value else value

    members = kanglian_verify.members
    monkeypatch.setattr(kanglian_verify, "members", reads_the_tenth)


def a_range_without_neighbours(monkeypatch):
    monkeypatch.setattr(kanglian_verify, "_check_ends", lambda *arguments: None)


def another_pair_anywhere(monkeypatch):
    root = kanglian_verify.root_of_way

    def loose(way, place, value, where):
        other = way["other"]
        if value is None and other is not None:
            return root({**way, "other": None}, other["place"], other["value"], where)
        return root(way, place, value, where)

    monkeypatch.setattr(kanglian_verify, "root_of_way", loose)


def nodes_of_a_run_left_over(monkeypatch):
    head = kanglian_verify.head_of_run

    def forgiving(leaves, first, count, nodes):
        for used in range(len(nodes) + 1):
            try:
                return head(leaves, first, count, nodes[:used])
            except kanglian_verify.Refused:
                continue
        return head(leaves, first, count, nodes)

    monkeypatch.setattr(kanglian_verify, "head_of_run", forgiving)


@pytest.mark.parametrize(
    "plant",
    [
        a_range_without_neighbours,
        another_pair_anywhere,
        nodes_of_a_run_left_over,
        a_smaller_quorum,
        an_unread_receipt,
        a_path_with_steps_left_over,
        an_encoding_of_any_length,
        an_escape,
    ],
)
def test_a_planted_bug_in_one_of_the_two_is_a_violation(plant, monkeypatch):
    plant(monkeypatch)
    monkeypatch.setattr(proofs, "VIOLATIONS_SHOWN", 1)
    assert work(5, 0, 20_000, 120).violations


def test_the_figures_stand_in_one_line():
    tally = Tally()
    tally.accepted["a"], tally.refused["b"] = 1_234, 10_000
    assert line(tally) == (
        "fuzz proofs 11,234, refused by both 10,000, accepted by both 1,234, violations 0"
    )
