"""Redeem scripts, addresses and their text form.

An address is the hash of a redeem script (pay-to-script-hash): who may sign, how many of them, and
whether it is a node, a single terminal or a multi-signature account. The kind is inside the hash,
so the same key has different addresses in different roles.
Text is Bech32m (BIP 350): `kn1…` node, `kt1…` terminal, `km1…` multi-signature; any single wrong
character is detected.
Source: BIP 13/16 (the idea of P2SH), BIP 350 (text), requirement K1.2a.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, unique
from functools import lru_cache
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.crypto import keys
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import Address, PublicKeyBytes

ADDRESS_TAG = b"kl.address\0"


@unique
class AddressKind(IntEnum):
    """What an address stands for."""

    NODE = 0
    TERMINAL = 1
    MULTI = 2


PREFIXES = {AddressKind.NODE: "kn", AddressKind.TERMINAL: "kt", AddressKind.MULTI: "km"}
_KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}


class RedeemScript(Record, frozen=True):
    """`threshold` of `keys` must sign; keys are tagged and strictly ascending."""

    kind: Annotated[int, Meta(ge=0, le=2)]
    threshold: Annotated[int, Meta(ge=1, le=limits.SCRIPT_KEYS)]
    keys: Annotated[tuple[PublicKeyBytes, ...], Meta(min_length=1, max_length=limits.SCRIPT_KEYS)]


_SCRIPT = Schema(RedeemScript, max_bytes=limits.SCRIPT_BYTES)


def single_key_script(kind: AddressKind, key: bytes) -> bytes:
    """The canonical bytes of a script that one tagged key satisfies."""
    return encode(RedeemScript(kind=kind, threshold=1, keys=(key,)))


def multi_key_script(threshold: int, script_keys: tuple[bytes, ...]) -> bytes:
    """The canonical bytes of an m-of-n script; keys are put into their order.

    Raises: Rejected(BAD_SCRIPT | MALFORMED | TOO_LARGE).
    """
    script = encode(
        RedeemScript(kind=AddressKind.MULTI, threshold=threshold, keys=tuple(sorted(script_keys)))
    )
    parse_script(script)
    return script


def parse_script(data: bytes) -> RedeemScript:
    """The script of canonical bytes, with every rule checked.

    Raises: Rejected(BAD_SCRIPT | MALFORMED | NON_CANONICAL | TOO_LARGE).
    """
    script = _SCRIPT.decode(data)
    if any(low >= high for low, high in zip(script.keys, script.keys[1:], strict=False)):
        raise Rejected(Reason.BAD_SCRIPT, "keys are not strictly ascending")
    if script.threshold > len(script.keys):
        raise Rejected(Reason.BAD_SCRIPT, "threshold above the number of keys")
    if script.kind != AddressKind.MULTI and len(script.keys) != 1:
        raise Rejected(Reason.BAD_SCRIPT, "a node or terminal has one key")
    if not all(keys.is_valid(key) for key in script.keys):
        raise Rejected(Reason.BAD_SCRIPT, "a key is of no known type or not on its curve")
    return script


def address_of(script: bytes, suite: CryptoSuite) -> Address:
    """The 32-byte address of a redeem script's canonical bytes."""
    return Address(suite.digest(ADDRESS_TAG + script))


# Bound: scripts of at most 1 KiB, 8 MB in all; more signers than are active within a minute.
_CACHED_SCRIPTS = 8_192


@dataclass(frozen=True, slots=True)
class Signatory:
    """What checking a signature needs of a script: its address, threshold and parsed keys."""

    address: Address
    threshold: int
    key_types: frozenset[int]
    verifiers: tuple[Callable[[bytes, bytes], bool], ...]


@lru_cache(maxsize=_CACHED_SCRIPTS)
def signatory(script: bytes, suite: CryptoSuite) -> Signatory:
    """The signatory of a script; remembered, because few signers sign most transactions.

    Raises: Rejected(BAD_SCRIPT | MALFORMED | NON_CANONICAL | TOO_LARGE).
    """
    parsed = parse_script(script)
    verifiers = tuple(keys.verifier(key) for key in parsed.keys)
    key_types = frozenset(key[0] for key in parsed.keys)
    return Signatory(address_of(script, suite), parsed.threshold, key_types, verifiers)


def encode_text(kind: AddressKind, address: bytes) -> str:
    """The Bech32m text of a 32-byte address: 61 characters, lower case."""
    prefix = PREFIXES[kind]
    words = _regroup(address, 8, 5)
    return prefix + "1" + "".join(_ALPHABET[word] for word in words + _checksum(prefix, words))


def decode_text(text: str) -> tuple[AddressKind, Address]:
    """The kind and the 32 bytes of an address text; lower case only, no blanks.

    Raises: Rejected(BAD_ADDRESS).
    """
    prefix, separator, rest = text.partition("1")
    kind = _KINDS.get(prefix)
    if not separator or kind is None or len(rest) != 58:
        raise Rejected(Reason.BAD_ADDRESS, "expected 61 characters that begin with kn1, kt1 or km1")
    words = [_ALPHABET.find(character) for character in rest]
    if min(words) < 0:
        raise Rejected(Reason.BAD_ADDRESS, "a character outside the Bech32 alphabet")
    if _polymod(_expand(prefix) + words) != _BECH32M:
        raise Rejected(Reason.BAD_ADDRESS, "wrong checksum; a character was mistyped")
    # 52 words carry 260 bits: 32 bytes and four bits of padding that must be zero.
    number = 0
    for word in words[:-6]:
        number = number << 5 | word
    if number & 0b1111:
        raise Rejected(Reason.BAD_ADDRESS, "padding is not zero")
    return kind, Address((number >> 4).to_bytes(32, "big"))


_ALPHABET = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_BECH32M = 0x2BC830A3
_GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _polymod(words: list[int]) -> int:
    checksum = 1
    for word in words:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ word
        for bit, generator in enumerate(_GENERATORS):
            if top >> bit & 1:
                checksum ^= generator
    return checksum


def _expand(prefix: str) -> list[int]:
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def _checksum(prefix: str, words: list[int]) -> list[int]:
    value = _polymod(_expand(prefix) + words + [0] * 6) ^ _BECH32M
    return [value >> 5 * (5 - index) & 31 for index in range(6)]


def _regroup(data: bytes, from_bits: int, to_bits: int) -> list[int]:
    number = int.from_bytes(data, "big")
    padding = -len(data) * from_bits % to_bits
    count = (len(data) * from_bits + padding) // to_bits
    number <<= padding
    return [number >> to_bits * (count - 1 - index) & (1 << to_bits) - 1 for index in range(count)]
