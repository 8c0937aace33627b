"""Every node of every kind of proof dropped, added, swapped, cut off, repeated; every number wrong.

Each changed document is refused by the library and by the independent verifier, each with a name
and a place; or what it then says is another truth of the chain, and both say the same.
"""

import json
from copy import deepcopy

import pytest

from ledger.errors import Reason
from tests.fuzz.family_mutations import spots
from tests.fuzz.proof_mutations import CERTIFICATES, text_of
from tests.fuzz.proofs import WORLDS, by_independent, by_library, is_harmless, remembering

WORLD = WORLDS[2]
SAMPLES = {}
for _data in WORLD.proofs:
    # The richest of each kind: the one with most places.
    _document = json.loads(_data)
    _kind = _document["format"].removeprefix("kanglian-").removesuffix("/1")
    if len(_data) > len(SAMPLES.get(_kind, b"")):
        SAMPLES[_kind] = _data
NAMES = {str(reason) for reason in Reason}


@pytest.fixture(autouse=True)
def fast():
    with remembering():
        yield


def at(document, path):
    for step in path:
        document = document[step]
    return document


def paths(value, before=()):
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for step, item in items:
        yield (*before, step)
        if isinstance(item, dict | list):
            yield from paths(item, (*before, step))


def changed(data, path, change):
    """The document with one change at a path; None when it changes nothing."""
    document = json.loads(data)
    holder, last = at(document, path[:-1]), path[-1]
    before = deepcopy(holder)
    change(holder, last)
    return None if holder == before else text_of(document)


def judge(data, expected_harmless=False):
    """Both refuse by name, or both say the same and it is true. Whether both refused."""
    ours, theirs = by_library(WORLD, data), by_independent(WORLD, data)
    if isinstance(ours, str):
        assert isinstance(theirs, str), f"only the library refuses: {ours}"
        assert ours.partition(":")[0] in NAMES
        assert ": " in theirs
        return True
    assert ours == theirs
    assert is_harmless(WORLD, data)
    return False


def refuse_all(kind, select, changes):
    data, refused, harmless = SAMPLES[kind], 0, []
    for path in paths(json.loads(data)):
        value = at(json.loads(data), path)
        if not select(path, value):
            continue
        for change in changes(value):
            text = changed(data, path, change)
            if text is None:
                continue
            if judge(text):
                refused += 1
            else:
                harmless.append(path)
    return refused, harmless


def drop(holder, last):
    del holder[last]


def put(value):
    def change(holder, last):
        holder[last] = value

    return change


def with_items(make):
    def change(holder, last):
        holder[last] = make(list(holder[last]))

    return change


STRANGE = "5a" * 32


def of_list(items):
    """Every element dropped, repeated, exchanged with the next; strange ones added; the end cut."""
    for index in range(len(items)):
        yield with_items(lambda found, i=index: found[:i] + found[i + 1 :])
        yield with_items(lambda found, i=index: [*found[:i], found[i], *found[i:]])
        yield with_items(
            lambda found, i=index: [*found[:i], *found[i : i + 2][::-1], *found[i + 2 :]]
        )
        yield with_items(lambda found, i=index: found[:i])
        yield with_items(lambda found, i=index: [*found[:i], STRANGE, *found[i + 1 :]])
    for index in range(len(items) + 1):
        yield with_items(lambda found, i=index: [*found[:i], STRANGE, *found[i:]])
        yield with_items(lambda found, i=index: [*found[:i], None, *found[i:]])
    yield with_items(lambda found: found * 2)
    yield with_items(lambda found: found[::-1])


@pytest.mark.parametrize("kind", SAMPLES)
def test_no_node_can_be_dropped_added_swapped_cut_off_or_repeated(kind):
    refused, harmless = refuse_all(kind, lambda _, value: isinstance(value, list), of_list)
    assert refused > 30
    assert harmless == []


def of_number(number):
    for other in (
        number + 1,
        number - 1,
        0,
        number * 2 + 1,
        2**53 - 1,
        2**63 - 1,
        True,
        str(number),
    ):
        yield put(other)


QUESTION = ("start", "stop", "level")
"""Numbers that ask: another question may have a true answer as well."""


@pytest.mark.parametrize("kind", SAMPLES)
def test_no_count_index_or_position_can_be_another(kind):
    refused, harmless = refuse_all(kind, lambda _, value: isinstance(value, int), of_number)
    assert refused > 0 or kind == "header"
    assert all(path[-1] in QUESTION for path in harmless), harmless


def of_text(text):
    for place in {0, len(text) // 2, max(len(text) - 1, 0)}:
        if text:
            new = "0" if text[place] != "0" else "1"
            yield put(text[:place] + new + text[place + 1 :])
    yield put(text + "00")
    yield put(text[:-2])
    yield put(None)
    yield put("")


NAMED = ("contract", "map", "log", "module", "key")
"""Texts that ask; of an absence another key may be absent as well."""


@pytest.mark.parametrize("kind", SAMPLES)
def test_no_text_can_be_another(kind):
    refused, harmless = refuse_all(kind, lambda _, value: isinstance(value, str), of_text)
    assert refused > 20
    assert all(path[-1] in NAMED for path in harmless), harmless


@pytest.mark.parametrize("kind", SAMPLES)
def test_no_member_can_be_left_out_added_or_emptied(kind):
    data = SAMPLES[kind]
    for path in paths(json.loads(data)):
        if isinstance(path[-1], str):
            assert judge(changed(data, path, drop))
        if isinstance(at(json.loads(data), path), dict):
            assert judge(changed(data, path, lambda holder, last: holder[last].update(zz=0)))
            assert judge(changed(data, path, put({})))


def anchors(kind):
    """Anchors of other documents, at other heights or of another succession."""
    own = json.loads(SAMPLES[kind])
    own = own["receipt"]["anchor"] if "receipt" in own and kind != "receipt" else own["anchor"]
    found = []
    for data in WORLD.proofs:
        other = json.loads(data)
        other = other["anchor"] if "anchor" in other else other["receipt"]["anchor"]
        if other["header"] != own["header"] and other not in found:
            found.append(other)
    return found


@pytest.mark.parametrize("kind", SAMPLES)
def test_another_header_of_the_chain_does_not_do(kind):
    """A stale or a newer header holds other roots, unless nothing of the answer changed since."""
    document, refused = json.loads(SAMPLES[kind]), 0
    others = anchors(kind)
    assert len(others) > 5
    for anchor in others:
        holder = document if "anchor" in document else document["receipt"]
        refused += judge(text_of(_with_anchor(document, holder is document, anchor)))
    assert refused == len(others)


def _with_anchor(document, is_own, anchor):
    copy = deepcopy(document)
    (copy if is_own else copy["receipt"])["anchor"] = anchor
    return copy


@pytest.mark.parametrize("kind", SAMPLES)
def test_a_certificate_of_another_header_or_without_a_quorum_does_not_do(kind):
    data = SAMPLES[kind]
    for path in paths(json.loads(data)):
        if path[-1] in CERTIFICATES:
            for anchor in anchors(kind):
                text = changed(data, path, put(anchor["certificate"]))
                assert text is None or judge(text)


def test_all_kinds_but_the_registration_are_tried():
    assert len(SAMPLES) == 8
    assert all(list(spots(json.loads(data))) for data in SAMPLES.values())
