"""Slices of FHIR files are exact, and what is not sound JSON is refused by name and place."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Reason, Rejected, UnavailableError
from rpc.fhir import DEPTH, FILE_BYTES, Slice, find_files, split

SYNTHEA = Path(__file__).resolve().parents[4] / "shared" / "data" / "fhir-r4"
PATIENT = b'{"resourceType": "Patient", "id": "p1"}'


def bundle(*resources: bytes) -> bytes:
    entries = b", ".join(b'{"resource": ' + resource + b"}" for resource in resources)
    return b'{"resourceType": "Bundle", "entry": [' + entries + b"]}"


def refusal(data: bytes) -> tuple[Reason, str, dict[str, str | int]]:
    with pytest.raises(Rejected) as caught:
        split(data)
    return caught.value.reason, caught.value.detail, caught.value.facts


def malformed(detail: str, byte_offset: int) -> tuple[Reason, str, dict[str, str | int]]:
    return Reason.MALFORMED, detail, {"byte_offset": byte_offset}


def test_a_single_resource_is_sliced_without_the_space_around_it():
    data = b'\n \t{ "id" : "p1",\r\n "resourceType":"Patient" }\n'
    assert split(data) == [Slice("Patient", "p1", "", 3, len(data) - 1, data[3:-1])]


def test_each_entry_of_a_bundle_is_sliced_with_its_own_white_space():
    first = '{"resourceType":"Patient",\n  "id":"张"}'.encode()
    second = b'{ "resourceType" : "Observation" }'
    data = (
        b'{"entry":[{"fullUrl":"urn:uuid:1","resource":'
        + first
        + b'}\n,{"resource" : '
        + second
        + b' ,"request":{"method":"POST"}}],"resourceType":"Bundle"}'
    )
    start = data.index(first)
    later = data.index(second)
    assert split(data) == [
        Slice("Patient", "张", "urn:uuid:1", start, start + len(first), first),
        Slice("Observation", "", "", later, later + len(second), second),
    ]


def test_a_bundle_inside_a_bundle_is_one_resource():
    inner = bundle(PATIENT, PATIENT)
    assert [(part.resource_type, part.data) for part in split(bundle(inner, PATIENT))] == [
        ("Bundle", inner),
        ("Patient", PATIENT),
    ]


def test_identical_resources_are_each_found_at_their_own_place():
    parts = split(bundle(PATIENT, PATIENT))
    assert parts[0].data == parts[1].data == PATIENT
    assert parts[0].end < parts[1].start


def test_a_list_resource_may_have_entries_of_its_own():
    data = b'{"resourceType":"List","entry":[{"item":{"display":"x"}}]}'
    assert split(data) == [Slice("List", "", "", 0, len(data), data)]


def test_numbers_of_any_length_are_accepted():
    data = b'{"resourceType":"Observation","valueDecimal":' + b"1" * 5_000 + b"}"
    assert split(data)[0].data == data


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", malformed("file: is not JSON: Expecting value", 0)),
        (b'{"a":"\xff"}', malformed("file: is not UTF-8", 6)),
        (
            b"\xef\xbb\xbf" + PATIENT,
            malformed("file: begins with a byte order mark; save it as UTF-8 without one", 0),
        ),
        (
            PATIENT + b" {}",
            malformed("file: something follows the end of the JSON value", len(PATIENT) + 1),
        ),
        (b"[" + PATIENT + b"]", malformed("file: a JSON object must stand here", 0)),
        (b'{"a":NaN}', malformed("file: is not JSON: the value that begins here holds NaN", 0)),
        (
            b'{"a":01}',
            malformed("file: is not JSON: Expecting ',' delimiter", 6),
        ),
        (b'{"a":"\n"}', malformed("file: is not JSON: Invalid control character at", 6)),
        (
            b'{"resourceType":"Patient","id":"1","\\u0069d":"2"}',
            malformed("file: key 'id' stands twice in one object", 35),
        ),
        (b"{}", malformed("file: has no resourceType, so it is not a FHIR resource", 0)),
        (
            b'{"resourceType":"no type"}',
            malformed("file: resourceType is not the name of a type", 16),
        ),
        (b'{"resourceType":7}', malformed("file: a JSON string must stand here", 16)),
        (
            b'{"resourceType":"Patient","id":7}',
            malformed("file: a JSON string must stand here", 31),
        ),
        (
            b'{"resourceType":"Patient","id":"\\ud800"}',
            malformed("file: a string holds half a surrogate pair", 31),
        ),
        (
            b'{"resourceType":"Bundle"}',
            malformed("file: the bundle is empty: it has no entry to register", 0),
        ),
        (bundle(), malformed("file: the bundle is empty: it has no entry to register", 0)),
        (
            b'{"resourceType":"Bundle","entry":{}}',
            malformed("file: entry must be an array", 33),
        ),
        (
            b'{"resourceType":"Bundle","entry":[7]}',
            malformed("entry 0: a JSON object must stand here", 34),
        ),
        (
            b'{"resourceType":"Bundle","entry":[{"resource":null}]}',
            malformed("entry 0: a JSON object must stand here", 46),
        ),
        (
            b'{"resourceType":"Bundle","entry":[{"fullUrl":"x"}]}',
            malformed("entry 0: has no resource", 34),
        ),
        (
            bundle(PATIENT, b"{}"),
            malformed(
                "entry 1: has no resourceType, so it is not a FHIR resource",
                len(bundle(PATIENT, b"{}")) - 5,
            ),
        ),
        (
            b'{"resourceType":"Bundle","entry":[{"resource":{},"resource":{}}]}',
            malformed("entry 0: key 'resource' stands twice in one object", 49),
        ),
        (
            bundle(PATIENT)[:-1] + b',"entry":[]}',
            malformed("file: key 'entry' stands twice in one object", len(bundle(PATIENT))),
        ),
    ],
)
def test_what_is_not_sound_is_refused_with_its_place(data, expected):
    assert refusal(data) == expected


def test_a_file_above_the_limit_is_refused_before_it_is_read():
    assert refusal(b" " * (FILE_BYTES + 1)) == (
        Reason.TOO_LARGE,
        "FHIR file",
        {"payload_bytes": FILE_BYTES + 1, "limit_bytes": FILE_BYTES},
    )


@pytest.mark.parametrize("arrays", [DEPTH - 1, DEPTH])
def test_depth_counts_brackets_but_not_those_inside_strings(arrays):
    value = b"[" * arrays + b'"[[[\\"[[["' + b"]" * arrays
    data = b'{"resourceType":"Basic","x":' + value + b"}"
    if arrays < DEPTH:
        assert split(data)[0].data == data
    else:
        facts: dict[str, str | int] = {"depth": DEPTH + 1, "limit": DEPTH}
        assert refusal(data) == (Reason.MALFORMED, "file: nested too deeply", facts)


def test_a_string_of_a_million_escapes_without_an_end_is_refused_in_one_pass():
    # With a pattern that starts anew at each quote this takes minutes.
    reason, _, _ = refusal(b'{"a":"' + b'\\"' * 1_000_000)
    assert reason is Reason.MALFORMED


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ['"}', "{[", "\\", '\\"', '","resource":{', "患者😀", "\u0080\u2028", "]}}"]
)
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)
_RESOURCES = st.tuples(
    st.sampled_from(["Patient", "Observation", "Bundle"]),
    _TEXTS,
    st.dictionaries(_TEXTS.filter(lambda key: key not in ("resourceType", "id")), _VALUES),
)


def _written(value, chance) -> str:
    """JSON text of `value` with random white space and random escapes."""

    def space() -> str:
        return "".join(chance.choice(" \t\n\r") for _ in range(chance.randrange(3)))

    def character(one: str) -> str:
        if ord(one) < 0x10000 and chance.random() < 0.2:
            return f"\\u{ord(one):04x}"
        return json.dumps(one, ensure_ascii=chance.random() < 0.5)[1:-1]

    def string(text: str) -> str:
        return '"' + "".join(map(character, text)) + '"'

    match value:
        case str():
            return space() + string(value) + space()
        case dict():
            pairs = [
                f"{space()}{string(key)}{space()}:{_written(item, chance)}"
                for key, item in value.items()
            ]
            return f"{space()}{{{','.join(pairs) or space()}}}{space()}"
        case list():
            items = [_written(item, chance) for item in value]
            return f"{space()}[{','.join(items) or space()}]{space()}"
        case _:
            return space() + json.dumps(value) + space()


@given(st.lists(_RESOURCES, min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_every_slice_reads_as_the_resource_that_a_json_reader_finds(resources, chance):
    entries = []
    for resource_type, identifier, extra in resources:
        members = [("resourceType", resource_type), ("id", identifier), *extra.items()]
        chance.shuffle(members)
        entries.append({"fullUrl": identifier, "resource": dict(members)})
    data = _written({"entry": entries, "resourceType": "Bundle"}, chance).encode()

    parts = split(data)

    whole = json.loads(data)
    assert [json.loads(part.data) for part in parts] == [
        entry["resource"] for entry in whole["entry"]
    ]
    assert [(part.resource_type, part.identifier, part.full_url) for part in parts] == [
        (resource_type, identifier, identifier) for resource_type, identifier, _ in resources
    ]
    assert all(part.data == data[part.start : part.end] for part in parts)
    assert all(part.data[:1] + part.data[-1:] == b"{}" for part in parts)


@given(st.binary(max_size=60) | st.text('{}[]",:\\ entryrsouca01', max_size=60).map(str.encode))
def test_any_bytes_are_split_or_refused(data):
    try:
        parts = split(data)
    except Rejected:
        return
    assert parts


def test_the_synthetic_patients_are_cut_as_a_json_reader_sees_them():
    if not SYNTHEA.is_dir():
        pytest.skip("the Synthea data set is not beside the repository (../shared/data/fhir-r4)")
    files = find_files([SYNTHEA])
    counts = []
    for file in files:
        data = file.read_bytes()
        parts = split(data)
        entries = json.loads(data)["entry"]
        assert [json.loads(part.data) for part in parts] == [entry["resource"] for entry in entries]
        counts.append(len(parts))
    assert (len(files), sum(counts)) == (60, 10_294)


def test_files_are_found_once_each_and_in_the_order_of_their_paths(tmp_path):
    (tmp_path / "b" / "c").mkdir(parents=True)
    names = ["b/c/2.json", "b/1.json", "a.json", "b/notes.txt", "resource"]
    for name in names:
        (tmp_path / name).write_text("{}")
    asked = [tmp_path / "resource", tmp_path / "b", tmp_path / "a.json", tmp_path / "b" / "c"]
    assert find_files(asked) == [
        tmp_path / "a.json",
        tmp_path / "b" / "1.json",
        tmp_path / "b" / "c" / "2.json",
        tmp_path / "resource",
    ]


def test_a_path_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=r"no such file or folder: .*absent"):
        find_files([tmp_path, tmp_path / "absent"])


def test_a_folder_without_json_files_is_named(tmp_path):
    with pytest.raises(UnavailableError, match=rf"no \.json file found in {tmp_path}"):
        find_files([tmp_path])
