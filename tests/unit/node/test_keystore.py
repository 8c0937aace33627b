"""Key files open for their owner only, and only whole: any exchanged part is refused."""

import json
import resource
from pathlib import Path

import pytest

from genesis.private_files import FileProblem, PrivateFileError
from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.crypto.keys import KeyType, public_key, sign, verify
from ledger.crypto.suites import INTERNATIONAL
from ledger.errors import InvariantError, Reason, Rejected
from node.keystore import (
    MODERATE,
    PASSPHRASE_VARIABLE,
    Cost,
    LoadedKey,
    PassphraseSource,
    PublicHalf,
    load_key,
    load_public,
    new_secret,
    save_key,
)

CHEAP = Cost(ops=1, mem_bytes=8 * 1024)
SECRET = bytes(range(1, 33))
NOBODY = PassphraseSource()


def typed(passphrase: str) -> PassphraseSource:
    return PassphraseSource(prompt=lambda _: passphrase)


def expected_key(kind: AddressKind, key_type: KeyType = KeyType.SECP256K1) -> LoadedKey:
    key = public_key(key_type, SECRET)
    address = address_of(single_key_script(kind, key), INTERNATIONAL)
    return LoadedKey(SECRET, PublicHalf(kind, key_type, key, encode_text(kind, address)))


def error_of(call, *arguments, **named) -> PrivateFileError:
    with pytest.raises(PrivateFileError) as caught:
        call(*arguments, **named)
    return caught.value


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "node.json"
    save_key(path, SECRET, AddressKind.NODE, "hospital", cost=CHEAP)
    return path


@pytest.fixture
def plain(tmp_path):
    path = tmp_path / "plain.json"
    save_key(path, SECRET, AddressKind.NODE, None)
    return path


def rewritten(path, **changes):
    """`path` with members replaced; those of `secret` are written `secret_name`."""
    document = json.loads(path.read_text())
    for name, value in changes.items():
        if name.startswith("secret_"):
            document["secret"][name.removeprefix("secret_")] = value
        else:
            document[name] = value
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize("kind", [AddressKind.NODE, AddressKind.TERMINAL])
@pytest.mark.parametrize("key_type", list(KeyType))
@pytest.mark.parametrize("passphrase", [None, "康链 密码"])
def test_what_was_saved_is_loaded(tmp_path, kind, key_type, passphrase):
    path = tmp_path / "key.json"
    saved = save_key(path, SECRET, kind, passphrase, key_type=key_type, cost=CHEAP)
    loaded = load_key(path, typed("康链 密码"))
    assert loaded == saved == expected_key(kind, key_type)
    assert load_public(path) == loaded.public
    assert (loaded.kind, loaded.public_key, loaded.address) == (
        kind,
        loaded.public.public_key,
        loaded.public.address,
    )
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_sealed_file_has_the_documented_form_and_holds_no_secret(sealed):
    document = json.loads(sealed.read_bytes())
    key = expected_key(AddressKind.NODE)
    seal = document.pop("secret")
    assert document == {
        "format": "kanglian-key/1",
        "kind": "node",
        "key_type": "secp256k1",
        "public_key": key.public_key.hex(),
        "address": key.address,
    }
    assert {name: seal[name] for name in ("kdf", "ops", "mem_bytes", "cipher")} == {
        "kdf": "argon2id",
        "ops": 1,
        "mem_bytes": 8192,
        "cipher": "xsalsa20-poly1305",
    }
    lengths = {name: len(seal[name]) for name in ("salt", "nonce", "box")}
    assert lengths == {"salt": 32, "nonce": 48, "box": 160}
    assert SECRET.hex() not in sealed.read_text()


def test_a_plain_file_warns_and_asks_nobody(plain):
    assert json.loads(plain.read_bytes())["secret"] == {
        "plain": SECRET.hex(),
        "warning": "DEVELOPMENT ONLY: this key is not encrypted",
    }
    assert load_key(plain, NOBODY) == expected_key(AddressKind.NODE)


def test_without_other_wishes_a_guess_costs_256_mebibytes(tmp_path):
    path = tmp_path / "key.json"
    save_key(path, SECRET, AddressKind.NODE, "hospital")
    seal = json.loads(path.read_bytes())["secret"]
    assert Cost(seal["ops"], seal["mem_bytes"]) == MODERATE == Cost(3, 256 * 1024**2)
    assert load_key(path, typed("hospital")).secret == SECRET


def test_two_seals_of_one_secret_differ(tmp_path, sealed):
    other = tmp_path / "other.json"
    save_key(other, SECRET, AddressKind.NODE, "hospital", cost=CHEAP)
    seals = [json.loads(path.read_bytes())["secret"] for path in (sealed, other)]
    assert all(seals[0][name] != seals[1][name] for name in ("salt", "nonce", "box"))


def test_new_secrets_are_keys_of_every_type_and_not_the_same_twice():
    drawn = [new_secret() for _ in range(20)]
    digest = bytes(32)
    for secret in drawn:
        for key_type in KeyType:
            assert verify(public_key(key_type, secret), digest, sign(key_type, secret, digest))
    assert len(frozenset(drawn)) == 20


def test_a_wrong_passphrase_is_named_with_the_file_and_what_to_do(sealed):
    error = error_of(load_key, sealed, typed("hospita1"))
    assert error.problem is FileProblem.WRONG_PASSPHRASE
    assert str(error) == (
        f"{sealed}: the passphrase does not open it; try again; "
        "if it is the right one, the file is damaged: restore it from a copy"
    )


def test_the_same_characters_open_whatever_their_code_points(tmp_path):
    path = tmp_path / "key.json"
    save_key(path, SECRET, AddressKind.NODE, "Z\u00fcrich", cost=CHEAP)
    assert load_key(path, typed("Zu\u0308rich")).secret == SECRET


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "terminal", "address": expected_key(AddressKind.TERMINAL).address},
        {
            "key_type": "p256",
            "public_key": expected_key(AddressKind.NODE, KeyType.P256).public_key.hex(),
            "address": expected_key(AddressKind.NODE, KeyType.P256).address,
        },
    ],
)
def test_a_consistent_public_half_of_another_key_is_refused_after_opening(sealed, changes):
    error = error_of(load_key, rewritten(sealed, **changes), typed("hospital"))
    assert error.problem is FileProblem.MISMATCH


def test_a_public_key_of_a_stranger_is_refused_in_either_form(tmp_path, sealed, plain):
    stranger = save_key(tmp_path / "other.json", new_secret(), AddressKind.NODE, None)
    changes = {"public_key": stranger.public_key.hex(), "address": stranger.address}
    for path in (sealed, plain):
        error = error_of(load_key, rewritten(path, **changes), typed("hospital"))
        assert (error.problem, error.path) == (FileProblem.MISMATCH, path)


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "terminal"},
        {"key_type": "p256"},
        {"address": expected_key(AddressKind.TERMINAL).address},
        {"address": ""},
        {"public_key": "01" + "02" * 33},
    ],
)
def test_parts_that_contradict_each_other_are_refused_before_any_passphrase(sealed, changes):
    path = rewritten(sealed, **changes)
    assert error_of(load_key, path, NOBODY).problem is FileProblem.MISMATCH
    assert error_of(load_public, path).problem is FileProblem.MISMATCH


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "kanglian-key/2"},
        {"kind": "multi"},
        {"key_type": "sm2"},
        {"public_key": "0102"},
        {"comment": "unknown member"},
        {"secret": {}},
        {"secret": "plain"},
        {"secret_ops": 11},
        {"secret_ops": 0},
        {"secret_mem_bytes": 1024**3 + 1},
        {"secret_mem_bytes": 8191},
        {"secret_kdf": "scrypt"},
        {"secret_cipher": "none"},
        {"secret_salt": "00" * 15},
        {"secret_nonce": "00" * 23 + "0\n"},
        {"secret_box": "AB" * 80},
        {"secret_box": "ab" * 79},
        {"secret_plain": SECRET.hex()},
    ],
)
def test_another_form_is_refused_before_any_work(sealed, changes):
    error = error_of(load_key, rewritten(sealed, **changes), NOBODY)
    assert (error.problem, error.path) == (FileProblem.DAMAGED, sealed)


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"[]", b"[" * 5_000])
def test_what_is_no_json_object_is_damaged(sealed, data):
    sealed.write_bytes(data)
    assert error_of(load_key, sealed, NOBODY).problem is FileProblem.DAMAGED


@pytest.mark.parametrize("secret", ["00" * 32, "ff" * 32])
def test_a_number_that_is_no_secret_key_is_damage(plain, secret):
    path = rewritten(plain, secret_plain=secret)
    assert error_of(load_key, path, NOBODY).problem is FileProblem.DAMAGED


@pytest.mark.parametrize("name", ["salt", "nonce", "box"])
def test_one_flipped_bit_of_the_seal_keeps_it_closed(sealed, name):
    value = json.loads(sealed.read_bytes())["secret"][name]
    flipped = f"{int(value, 16) ^ 1:0{len(value)}x}"
    error = error_of(load_key, rewritten(sealed, **{f"secret_{name}": flipped}), typed("hospital"))
    assert error.problem is FileProblem.WRONG_PASSPHRASE


def test_too_little_memory_for_a_passphrase_is_said_plainly(sealed):
    path = rewritten(sealed, secret_mem_bytes=1024**3)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    used = pages * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 256 * 1024**2, limits[1]))
    try:
        error = error_of(load_key, path, typed("hospital"))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)
    assert error.problem is FileProblem.UNUSABLE
    assert error.detail == "its passphrase needs 1024 MiB of memory, and there is less"


def test_an_existing_key_is_never_overwritten(sealed):
    before = sealed.read_bytes()
    error = error_of(save_key, sealed, new_secret(), AddressKind.NODE, "other", cost=CHEAP)
    assert (error.problem, sealed.read_bytes()) == (FileProblem.EXISTS, before)


def test_a_key_that_others_may_read_is_refused_with_the_command_that_helps(plain):
    plain.chmod(0o644)
    error = error_of(load_key, plain, NOBODY)
    assert (error.problem, error.remedy) == (FileProblem.TOO_OPEN, f"run: chmod 600 {plain}")


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31), SECRET + b"\1", b""])
@pytest.mark.parametrize("key_type", list(KeyType))
def test_bytes_that_are_no_secret_key_are_not_saved(tmp_path, secret, key_type):
    with pytest.raises(Rejected) as caught:
        save_key(tmp_path / "key.json", secret, AddressKind.NODE, None, key_type=key_type)
    assert caught.value.reason is Reason.MALFORMED
    assert list(tmp_path.iterdir()) == []


def test_a_multi_signature_address_has_no_key_file(tmp_path):
    with pytest.raises(InvariantError):
        save_key(tmp_path / "key.json", SECRET, AddressKind.MULTI, None)


def test_secrets_show_neither_in_reprs_nor_in_errors(tmp_path, sealed, plain):
    source = PassphraseSource(environment={PASSPHRASE_VARIABLE: "hospital"})
    loaded = load_key(sealed, source)
    damaged = error_of(load_key, rewritten(plain, kind=SECRET.hex()), NOBODY)
    wrong = error_of(load_key, sealed, typed("hospital "))
    shown = " ".join(map(repr, (loaded, source, damaged, wrong)))
    assert SECRET.hex() not in shown
    assert repr(SECRET) not in shown
    assert "hospital" not in shown.replace(str(tmp_path), "")


def write_passphrase(path, content: bytes):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def test_a_passphrase_comes_from_the_first_place_that_is_there(tmp_path):
    file = write_passphrase(tmp_path / "passphrase", b"from file\n")
    environment = {PASSPHRASE_VARIABLE: "from environment"}
    asked: list[str] = []

    def prompt(text: str) -> str:
        asked.append(text)
        return "from prompt"

    path = tmp_path / "key.json"
    sources = [
        PassphraseSource(file, environment, prompt),
        PassphraseSource(None, environment, prompt),
        PassphraseSource(None, {"OTHER": "x"}, prompt),
    ]
    assert [source.passphrase_for(path) for source in sources] == [
        "from file",
        "from environment",
        "from prompt",
    ]
    assert asked == [f"Passphrase for {path}"]


@pytest.mark.parametrize(
    ("content", "passphrase"),
    [
        (b"two words", "two words"),
        (b"line\r\n", "line"),
        (b" blanks stay \n", " blanks stay "),
        (b"two\n\n", "two\n"),
        ("密码\n".encode(), "密码"),
    ],
)
def test_a_passphrase_file_loses_one_end_of_line_and_nothing_else(tmp_path, content, passphrase):
    file = write_passphrase(tmp_path / "passphrase", content)
    assert PassphraseSource(file).passphrase_for(tmp_path / "key.json") == passphrase


def test_a_passphrase_that_is_no_utf8_still_opens_what_it_sealed(tmp_path):
    path = tmp_path / "key.json"
    save_key(path, SECRET, AddressKind.NODE, "\udcff\udcfe", cost=CHEAP)
    assert load_key(path, typed("\udcff\udcfe")).secret == SECRET


def test_each_missing_passphrase_is_named(tmp_path, sealed):
    empty = write_passphrase(tmp_path / "empty", b"\n")
    binary = write_passphrase(tmp_path / "binary", b"\xff")
    opened = write_passphrase(tmp_path / "opened", b"hospital")
    opened.chmod(0o644)
    sources = [
        NOBODY,
        typed(""),
        PassphraseSource(environment={PASSPHRASE_VARIABLE: ""}),
        PassphraseSource(empty),
        PassphraseSource(tmp_path / "absent"),
        PassphraseSource(binary),
        PassphraseSource(opened),
    ]
    errors = [error_of(load_key, sealed, source) for source in sources]
    assert [(error.problem, error.path.name) for error in errors] == [
        (FileProblem.NO_PASSPHRASE, "node.json"),
        (FileProblem.NO_PASSPHRASE, "node.json"),
        (FileProblem.NO_PASSPHRASE, "node.json"),
        (FileProblem.NO_PASSPHRASE, "empty"),
        (FileProblem.MISSING, "absent"),
        (FileProblem.DAMAGED, "binary"),
        (FileProblem.TOO_OPEN, "opened"),
    ]


def test_an_empty_passphrase_seals_nothing(tmp_path):
    path = tmp_path / "key.json"
    error = error_of(save_key, path, SECRET, AddressKind.NODE, "", cost=CHEAP)
    assert (error.problem, path.exists()) == (FileProblem.NO_PASSPHRASE, False)
