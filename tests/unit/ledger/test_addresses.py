"""Scripts and addresses: one form, and a mistyped text is found."""

import msgpack
import pytest

from ledger.addresses import (
    AddressKind,
    address_of,
    decode_text,
    encode_text,
    multi_key_script,
    parse_script,
    signatory,
    single_key_script,
)
from ledger.crypto.keys import KeyType
from ledger.errors import Reason, Rejected
from tests.unit.ledger.worlds import BOARD, HOSPITAL, SUITE, key, secret

ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
TEXT = HOSPITAL.text


def refusal(text: str) -> Reason:
    with pytest.raises(Rejected) as caught:
        decode_text(text)
    return caught.value.reason


def script_refusal(raw: object) -> Reason:
    with pytest.raises(Rejected) as caught:
        parse_script(msgpack.packb(raw))
    return caught.value.reason


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [(AddressKind.NODE, "kn1"), (AddressKind.TERMINAL, "kt1"), (AddressKind.MULTI, "km1")],
)
def test_a_text_comes_back_and_tells_the_kind(kind, prefix):
    for address in (bytes(32), b"\xff" * 32, secret("some address")):
        text = encode_text(kind, address)
        assert text.startswith(prefix)
        assert len(text) == 61
        assert decode_text(text) == (kind, address)


def test_every_single_wrong_character_is_detected():
    for place in range(len(TEXT)):
        for character in set(ALPHABET + "bio1nktm") - {TEXT[place]}:
            assert refusal(TEXT[:place] + character + TEXT[place + 1 :]) is Reason.BAD_ADDRESS


def test_every_swap_of_neighbours_is_detected():
    for place in range(3, len(TEXT) - 1):
        if TEXT[place] != TEXT[place + 1]:
            swapped = TEXT[:place] + TEXT[place + 1] + TEXT[place] + TEXT[place + 2 :]
            assert refusal(swapped) is Reason.BAD_ADDRESS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kt",
        "kt1",
        "1",
        TEXT.upper(),
        TEXT.title(),
        " " + TEXT,
        TEXT + "\n",
        TEXT[:-1],
        TEXT + "q",
        TEXT[2:],
        "bc" + TEXT[2:],
        "kt1" + TEXT,
        "\uff4bt1" + TEXT[3:],
        TEXT[:-1] + "é",
    ],
)
def test_another_form_is_refused(text):
    assert refusal(text) is Reason.BAD_ADDRESS


def test_the_checksum_is_bech32m_and_not_bech32():
    # BIP 350, test vectors: the checksum routine accepts "a1lqfn3a".
    words = [ALPHABET.index(character) for character in "lqfn3a"]
    checksum = 1
    for word in [ord("a") >> 5, 0, ord("a") & 31, *words]:
        checksum = step(checksum, word)
    assert checksum == 0x2BC830A3
    checksum = 1
    for word in [*(ord(c) >> 5 for c in "kt"), 0, *(ord(c) & 31 for c in "kt")]:
        checksum = step(checksum, word)
    for character in TEXT[3:]:
        checksum = step(checksum, ALPHABET.index(character))
    assert checksum == 0x2BC830A3


def step(checksum: int, word: int) -> int:
    """One step of the BCH code of BIP 173, in the shape of its reference text."""
    generators = [0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3]
    top = checksum >> 25
    checksum = (checksum & 0x1FFFFFF) << 5 ^ word
    for bit in range(5):
        checksum ^= generators[bit] if top >> bit & 1 else 0
    return checksum


def test_non_zero_padding_is_refused():
    words = [ALPHABET.index(character) for character in TEXT[3:-6]]
    words[-1] ^= 1
    checksum = 1
    prefix = [*(ord(c) >> 5 for c in "kt"), 0, *(ord(c) & 31 for c in "kt")]
    for word in [*prefix, *words, *[0] * 6]:
        checksum = step(checksum, word)
    checksum ^= 0x2BC830A3
    words += [checksum >> 5 * (5 - place) & 31 for place in range(6)]
    assert refusal("kt1" + "".join(ALPHABET[word] for word in words)) is Reason.BAD_ADDRESS


def test_an_address_is_the_tagged_hash_of_the_script():
    assert HOSPITAL.script == msgpack.packb([1, 1, [key("hospital")]])
    assert HOSPITAL.address == SUITE.digest(b"kl.address\0" + HOSPITAL.script)
    found = signatory(HOSPITAL.script, SUITE)
    assert (found.address, found.threshold) == (HOSPITAL.address, 1)
    assert found.key_types == {KeyType.SECP256K1}


def test_the_same_key_has_another_address_in_every_role():
    scripts = {single_key_script(kind, key("hospital")) for kind in AddressKind}
    scripts.add(single_key_script(AddressKind.TERMINAL, key("hospital", KeyType.P256)))
    assert len({address_of(script, SUITE) for script in scripts}) == 4


def test_keys_of_a_script_are_put_into_their_order():
    names = ("board a", "board b", "board c")
    assert multi_key_script(2, tuple(key(name) for name in names[::-1])) == BOARD.script
    assert parse_script(BOARD.script).keys == tuple(sorted(key(name) for name in names))


def test_a_script_that_breaks_a_rule_is_refused():
    one, two = sorted((key("board a"), key("board b")))
    for raw in (
        [2, 2, [two, one]],
        [2, 1, [one, one]],
        [2, 3, [one, two]],
        [1, 1, [one, two]],
        [0, 1, [one, two]],
        [1, 1, [b"\x03" + one[1:]]],
        [1, 1, [b"\x00" + one[1:]]],
        [1, 1, [one[:1] + b"\x05" + one[2:]]],
        [1, 1, [one[:1] + b"\x02" + b"\xff" * 32]],
    ):
        assert script_refusal(raw) is Reason.BAD_SCRIPT
    for raw in (
        [3, 1, [one]],
        [1, 0, [one]],
        [1, 1, []],
        [1, 1, [one[:-1]]],
        [1, 1, [one], 0],
        [2, 1, [key(f"key {number}") for number in range(17)]],
    ):
        assert script_refusal(raw) is Reason.MALFORMED
    with pytest.raises(Rejected) as caught:
        multi_key_script(3, (one, two))
    assert caught.value.reason is Reason.BAD_SCRIPT
