"""Demonstration records repeat, hold together, and can be told from those of living people."""

import json
import re
from datetime import date
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genesis.records import check_character, make_records
from rpc.fhir import Slice, split

VISIT = [
    "Patient",
    "Encounter",
    "Condition",
    "Observation",
    "Observation",
    "Observation",
    "MedicationRequest",
    "DiagnosticReport",
    "Immunization",
]


def resources(count: int, seed: int) -> list[dict]:
    return [json.loads(data) for _, data in make_records(count, seed)]


def test_the_same_seed_gives_the_same_bytes_on_every_machine():
    made = b"".join(name.encode() + data for name, data in make_records(90, 7))
    assert sha256(made).hexdigest() == (
        "98dedae31f1204b450f932a4577ea7315c2f0c23b30d3c412bcd1ed478b0b9fc"
    )


def test_another_seed_gives_other_records():
    assert list(make_records(9, 1)) != list(make_records(9, 2))


def test_a_shorter_run_is_the_beginning_of_a_longer_one():
    assert list(make_records(5, 3)) == list(make_records(30, 3))[:5]


def test_none_are_made_when_none_are_asked_for():
    assert list(make_records(0, 1)) == []


def test_each_visit_is_told_by_nine_records_with_unique_names_and_ids():
    made = list(make_records(27, 4))
    assert [name for name, _ in made] == [
        f"{number:06d}-{kind}.json" for number, kind in enumerate(VISIT * 3)
    ]
    assert [json.loads(data)["resourceType"] for _, data in made] == VISIT * 3
    assert len({json.loads(data)["id"] for _, data in made}) == 27


def test_every_file_is_one_resource_for_the_slicer():
    for _, data in make_records(90, 5):
        record = json.loads(data)
        expected = Slice(record["resourceType"], record["id"], "", 0, len(data) - 1, data[:-1])
        assert split(data) == [expected]


def test_a_record_has_about_two_kilobytes_of_plain_utf8():
    sizes = [len(data) for _, data in make_records(900, 6)]
    assert 1_800 < sum(sizes) / len(sizes) < 2_300
    assert min(sizes) > 1_000
    assert max(sizes) < 3_500
    name, data = next(make_records(1, 6))
    assert json.loads(data)["name"][0]["text"].encode() in data, name


def test_references_lead_to_records_of_the_same_visit():
    records = resources(90, 8)
    known = {f"{record['resourceType']}/{record['id']}" for record in records}
    used = re.findall(r'"reference": "([^"]+)"', json.dumps(records))
    assert len(used) > len(records)
    assert set(used) <= known


@pytest.mark.parametrize("seed", range(3))
def test_resident_ids_are_well_formed_and_belong_to_no_province(seed):
    patients = [one for one in resources(900, seed) if one["resourceType"] == "Patient"]
    weights = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2]
    for patient in patients:
        text = patient["identifier"][0]["value"]
        assert re.fullmatch(r"99\d{15}[0-9X]", text)
        total = sum(weight * int(digit) for weight, digit in zip(weights, text, strict=False))
        assert text[17] == "10X98765432"[total % 11]
        born = date.fromisoformat(patient["birthDate"])
        assert text[6:14] == f"{born:%Y%m%d}"
        assert int(text[16]) % 2 == (patient["gender"] == "male")
        assert patient["telecom"][0]["value"].startswith("100")


def test_every_record_says_that_it_is_test_data():
    labels = [record["meta"]["security"][0]["code"] for record in resources(18, 9)]
    assert labels == ["HTEST"] * 18


def test_reports_repeat_the_values_of_their_observations():
    records = resources(90, 10)
    by_id = {record["id"]: record for record in records}
    reports = [record for record in records if record["resourceType"] == "DiagnosticReport"]
    for report in reports:
        values = [
            by_id[result["reference"].split("/")[1]]["valueQuantity"] for result in report["result"]
        ]
        assert [value["unit"] for value in values] == ["mmol/L", "%"]
        assert all(str(value["value"]) in report["conclusion"] for value in values)


@pytest.mark.parametrize(
    ("first_17", "expected"),
    # The example of GB 11643-1999 itself, and one whose check character is X.
    [("11010519491231002", "X"), ("44052418800101001", "4")],
)
def test_check_characters_follow_the_examples_of_the_standard(first_17, expected):
    assert check_character(first_17) == expected


@given(st.text("0123456789", min_size=17, max_size=17), st.integers(0, 16))
def test_any_changed_digit_changes_the_check_character(first_17, place):
    for digit in "0123456789":
        changed = first_17[:place] + digit + first_17[place + 1 :]
        assert (check_character(changed) == check_character(first_17)) == (changed == first_17)


def test_time_moves_forward_within_an_encounter():
    for record in resources(90, 11):
        if record["resourceType"] == "Encounter":
            period = record["period"]
            assert period["start"] < period["end"]
