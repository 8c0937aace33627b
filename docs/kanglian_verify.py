"""Check a proof of a Kanglian chain offline: one file, for an auditor who trusts nothing else.

    python kanglian_verify.py PROOF --genesis FILE [--opening FILE [--record FILE]]

What it decides: whether everything that is given holds together under one genesis file. Whoever
runs it trusts that genesis file, this file, Python and the package `cryptography` (for the two
curves); it needs no node, no network, no clock and no other file of this project. It exits with 0
when everything holds, 1 when something is refused, 2 when it was called wrongly or cannot read a
file.

What it never does: repair, guess, or accept a second form of the same content. Every check raises
`Refused` with the place and the rule; nothing is parsed before its size is known.

Source: docs/format.md, from which alone it was written, so that two readings of that document can
be compared; numbers such as (6.3) name its sections. Python 3.11 or newer.

Reading order: bytes (1.1), trees (1.3), signatures (1.4), documents (1.5), genesis (2), scripts
(3), transactions (4), headers and certificates (6), receipts (7), registrations and openings (9,
10), and the kinds of proof (11) in the table `KINDS`, to which a new kind is added as one function.
"""

import argparse
import base64
import binascii
import json
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import NoReturn, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

Value: TypeAlias = "bool | int | str | bytes | list[Value] | None"
"""What canonical bytes hold (1.1)."""
Members: TypeAlias = dict[str, object]
"""An object of a JSON document (1.5)."""
SignatureCheck: TypeAlias = Callable[[bytes, bytes, bytes], bool]
"""Whether key (34 bytes) signed digest (32 bytes) with signature (64 bytes)."""

VERSION = 2
"""The protocol version whose formats this file reads."""
KIB = 1024
PROOF_BYTES = 4096 * KIB
GENESIS_BYTES = 4096 * KIB
OPENING_BYTES = 1024 * KIB
RECORD_BYTES = 64 * 1024 * KIB
TRANSACTION_BYTES = 64 * KIB
ENVELOPE_BYTES = 512 * KIB
HEADER_BYTES = 4 * KIB
CERTIFICATE_BYTES = 16 * KIB
RECEIPT_BYTES = 40 * KIB
OUTPUT_BYTES = 8 * KIB
EVENTS = 32
ENVELOPE_OPERATIONS = 2_000
SCRIPT_KEYS = 16
VALIDATORS = 128
CHANGES = 512
PATH_STEPS = 63
DEPTH = 8
"""Deeper than any record: a wire holds operations, a call; a receipt holds events."""
COUNT = 2**63 - 1
JSON_INTEGER = 2**53 - 1

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})++")

STEPS = {
    "proof": "证明文件的格式",
    "genesis": "创世文件",
    "transaction": "交易及其签名",
    "validators": "验证者的更替",
    "header": "区块头及其证书",
    "inclusion": "交易在区块中",
    "receipt": "执行回执",
    "opening": "披露文件与病历",
}
"""Where a proof can break, and the Chinese name of each place."""


class Refused(Exception):
    """Something does not hold. `step` is one of `STEPS`, the text says what and where."""

    def __init__(self, step: str, why: str) -> None:
        super().__init__(why)
        self.step = step
        self.why = why


def refuse(where: str, why: str) -> NoReturn:
    """Refuse what stands at a place such as `header.height`; its first word is the step."""
    step = re.split(r"[.\[]", where, maxsplit=1)[0]
    raise Refused(step if step in STEPS else "proof", f"{where}: {why}")


# ---- 1.1 Canonical bytes ---------------------------------------------------------------------

LENGTH_CODES = {
    0xC4: (bytes, 1), 0xC5: (bytes, 2), 0xC6: (bytes, 4),
    0xD9: (str, 1), 0xDA: (str, 2), 0xDB: (str, 4),
    0xDC: (list, 2), 0xDD: (list, 4),
}  # fmt: skip
INTEGER_CODES = {
    0xCC: (1, False), 0xCD: (2, False), 0xCE: (4, False), 0xCF: (8, False),
    0xD0: (1, True), 0xD1: (2, True), 0xD2: (4, True), 0xD3: (8, True),
}  # fmt: skip


def encode(value: Value) -> bytes:
    """The one encoding of a value: msgpack, everything as short as it can be."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            return _encode_integer(value)
        case str():
            text = value.encode()
            return _encode_length(len(text), 0xA0, 32, (0xD9, 0xDA, 0xDB)) + text
        case bytes():
            return _encode_length(len(value), 0, 0, (0xC4, 0xC5, 0xC6)) + value
        case list():
            start = _encode_length(len(value), 0x90, 16, (None, 0xDC, 0xDD))
            return start + b"".join(map(encode, value))


def _encode_integer(value: int) -> bytes:
    if -32 <= value < 128:
        return bytes([value & 0xFF])
    for code, (size, signed) in INTEGER_CODES.items():
        bits = 8 * size
        if signed == (value < 0) and (-(1 << bits - 1) if signed else 0) <= value < 1 << bits:
            return bytes([code]) + value.to_bytes(size, "big", signed=signed)
    raise OverflowError("an integer beyond 64 bits")


def _encode_length(
    length: int, fixed: int, fixed_below: int, codes: tuple[int | None, ...]
) -> bytes:
    if length < fixed_below:
        return bytes([fixed | length])
    for code, size in zip(codes, (1, 2, 4), strict=True):
        if code is not None and length < 1 << 8 * size:
            return bytes([code]) + length.to_bytes(size, "big")
    raise OverflowError("a length beyond 32 bits")


class _Reader:
    """Reads one value after the other; `where` is for refusals."""

    def __init__(self, data: bytes, where: str) -> None:
        self.data, self.where, self.place = data, where, 0

    def take(self, length: int) -> bytes:
        found = self.data[self.place : self.place + length]
        if len(found) != length:
            refuse(self.where, "the bytes end too early")
        self.place += length
        return found

    def value(self, depth: int = 0) -> Value:
        code = self.take(1)[0]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code in {0xC0, 0xC2, 0xC3}:
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in INTEGER_CODES:
            size, signed = INTEGER_CODES[code]
            return int.from_bytes(self.take(size), "big", signed=signed)
        if 0x90 <= code <= 0x9F:
            return self._items(code & 0x0F, depth)
        if 0xA0 <= code <= 0xBF:
            return self._text(code & 0x1F)
        if code not in LENGTH_CODES:
            refuse(self.where, f"byte {code:#04x} begins no value that is allowed here")
        kind, size = LENGTH_CODES[code]
        length = int.from_bytes(self.take(size), "big")
        if kind is list:
            return self._items(length, depth)
        return self._text(length) if kind is str else self.take(length)

    def _text(self, length: int) -> str:
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            refuse(self.where, "a text is not UTF-8")

    def _items(self, length: int, depth: int) -> list[Value]:
        if depth >= DEPTH:
            refuse(self.where, "arrays are nested too deeply")
        if length > len(self.data) - self.place:
            refuse(self.where, "an array is longer than the bytes that follow")
        return [self.value(depth + 1) for _ in range(length)]


def decode(data: bytes, where: str, most: int) -> Value:
    """The value of at most so many canonical bytes; one that has another encoding is refused."""
    if len(data) > most:
        refuse(where, f"has {len(data)} bytes, at most {most} are allowed")
    value = _Reader(data, where).value()
    if encode(value) != data:
        refuse(where, "is not canonical, or bytes follow the value")
    return value


def array(value: Value, where: str, least: int, most: int | None = None) -> list[Value]:
    """An array of exactly `least` elements, or of `least` to `most`."""
    if not isinstance(value, list):
        refuse(where, "is no array")
    if not least <= len(value) <= (least if most is None else most):
        refuse(where, f"is an array of {len(value)} elements")
    return value


def integer(value: Value, where: str, least: int = 0, most: int = COUNT) -> int:
    """An integer in a range; a boolean is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(where, f"is no integer from {least} to {most}")
    return value


def octets(value: Value, where: str, length: int | None = None) -> bytes:
    """A byte string, of exactly this length if one is given."""
    if not isinstance(value, bytes) or length not in {None, len(value)}:
        refuse(where, "is no byte string" + ("" if length is None else f" of {length} bytes"))
    return value


def text(value: Value, where: str, most: int) -> str:
    """A text of at most so many characters."""
    if not isinstance(value, str) or len(value) > most:
        refuse(where, f"is no text of at most {most} characters")
    return value


def name(value: object, where: str) -> str:
    """A name (1.1)."""
    if not isinstance(value, str) or NAME.fullmatch(value) is None:
        refuse(where, "is no name")
    return value


# ---- 1.2 Tagged hashes and 1.3 trees ---------------------------------------------------------


def digest(data: bytes) -> bytes:
    """H of the suite `international`: SHA-256, 32 bytes."""
    return sha256(data).digest()


def tagged(tag: str, data: bytes) -> bytes:
    """The hash of data under a tag, 32 bytes."""
    return digest(tag.encode() + b"\0" + data)


def sized_root(count: int, head: bytes) -> bytes:
    """A tree head that is bound to its number of entries."""
    return digest(b"\x02" + count.to_bytes(8, "big") + head)


def root_of(entries: list[bytes]) -> bytes:
    """The sized root of whole entries: subtrees merged where RFC 6962 section 2.1 splits."""
    stack: list[tuple[int, bytes]] = []
    for entry in entries:
        size, head = 1, digest(b"\x00" + entry)
        while stack and stack[-1][0] == size:
            head = digest(b"\x01" + stack.pop()[1] + head)
            size *= 2
        stack.append((size, head))
    if not stack:
        return sized_root(0, digest(b""))
    head = stack.pop()[1]
    while stack:
        head = digest(b"\x01" + stack.pop()[1] + head)
    return sized_root(len(entries), head)


@dataclass(frozen=True)
class Position:
    """Where an entry stands in a tree: index below count, siblings from the leaf upwards."""

    index: int
    count: int
    path: tuple[bytes, ...]


def root_above(entry: bytes, position: Position, where: str) -> bytes:
    """The sized root that a path leads to (RFC 9162 section 2.1.3.2)."""
    index, last = position.index, position.count - 1
    if index > last:
        refuse(where, "the index is not below the count")
    head = digest(b"\x00" + entry)
    for step in position.path:
        if last == 0:
            refuse(where, "the path has a step too many")
        if index & 1 or index == last:
            head = digest(b"\x01" + step + head)
            while not index & 1 and index:
                index, last = index >> 1, last >> 1
        else:
            head = digest(b"\x01" + head + step)
        index, last = index >> 1, last >> 1
    if last:
        refuse(where, "the path has a step too few")
    return sized_root(position.count, head)


# ---- 1.4 Keys and signatures -----------------------------------------------------------------

SECP256K1, P256 = 1, 2
CURVES: dict[int, tuple[ec.EllipticCurve, int]] = {
    SECP256K1: (
        ec.SECP256K1(),
        0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141,
    ),
    P256: (
        ec.SECP256R1(),
        0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551,
    ),
}
"""Curve and group order (SEC 2 version 2, sections 2.4.1 and 2.4.2) by the type byte of a key."""


@lru_cache(maxsize=1024)
def public_key(key: bytes) -> ec.EllipticCurvePublicKey | None:
    """The point of a key of 34 bytes, None when it is none."""
    if len(key) != 34 or key[0] not in CURVES or key[1] not in {2, 3}:
        return None
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(CURVES[key[0]][0], key[1:])
    except ValueError:
        return None


def is_signed(key: bytes, signed: bytes, signature: bytes) -> bool:
    """Whether the key signed this digest of 32 bytes, with s in the lower half."""
    point = public_key(key)
    if point is None or len(signature) != 64:
        return False
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    order = CURVES[key[0]][1]
    if not (0 < r < order and 0 < s <= order // 2):
        return False
    # WebCrypto hashes what it signs, so a P-256 signature is over the SHA-256 of the digest.
    message = signed if key[0] == SECP256K1 else digest(signed)
    try:
        point.verify(encode_dss_signature(r, s), message, ec.ECDSA(Prehashed(hashes.SHA256())))
    except InvalidSignature:
        return False
    return True


# ---- 1.5 JSON documents ----------------------------------------------------------------------


def _no_float(number: str) -> NoReturn:
    raise ValueError(f"{number} is no integer")


def document(data: bytes, step: str, most: int) -> Members:
    """The members of a document in its one form: written again it must be the same bytes."""
    if len(data) > most:
        refuse(step, f"has {len(data)} bytes, at most {most} are allowed")
    try:
        found = json.loads(data.decode("utf-8"), parse_float=_no_float, parse_constant=_no_float)
        again = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        same = again.encode() == data.removesuffix(b"\n")
    except (ValueError, RecursionError) as error:
        refuse(step, f"is no JSON document: {error}")
    if not same:
        refuse(step, "is not in the one form of its content, or a member is repeated")
    return members(found, step)


def members(value: object, where: str, names: str = "") -> Members:
    """An object, with exactly these members if names are given."""
    if not isinstance(value, dict):
        refuse(where, "is no object")
    found = cast("Members", value)
    if names and set(found) != set(names.split()):
        wrong = sorted(set(found) ^ set(names.split()))
        refuse(where, f"a member is missing or unknown: {', '.join(wrong)[:200]}")
    return found


def elements(value: object, where: str, least: int, most: int) -> list[object]:
    """A list of so many elements."""
    if not isinstance(value, list):
        refuse(where, "is no list")
    found = cast("list[object]", value)
    if not least <= len(found) <= most:
        refuse(where, f"has {len(found)} elements, {least} to {most} are allowed")
    return found


def number(value: object, where: str, least: int = 0, most: int = JSON_INTEGER) -> int:
    """An integer of a document."""
    if not isinstance(value, int):
        refuse(where, "is no integer")
    return integer(value, where, least, most)


def words(value: object, where: str, least: int = 1, most: int = 128) -> str:
    """A text of a document with so many characters."""
    if not isinstance(value, str) or not least <= len(value) <= most:
        refuse(where, f"is no text of {least} to {most} characters")
    return value


def hexadecimal(value: object, where: str, length: int | None = None) -> bytes:
    """Bytes from lower-case hexadecimal, of exactly this length if one is given."""
    if not isinstance(value, str) or HEXADECIMAL.fullmatch(value) is None:
        refuse(where, "is no lower-case hexadecimal")
    found = bytes.fromhex(value)
    if length not in {None, len(found)}:
        refuse(where, f"has {len(found)} bytes, not {length}")
    return found


def position_of(value: object, where: str) -> Position:
    """A position; root_above judges whether its path fits."""
    found = members(value, where, "count index path")
    steps = elements(found["path"], f"{where}.path", 0, PATH_STEPS)
    return Position(
        number(found["index"], f"{where}.index"),
        number(found["count"], f"{where}.count"),
        tuple(hexadecimal(step, f"{where}.path", 32) for step in steps),
    )


# ---- 2 Genesis, and 3 addresses --------------------------------------------------------------


@dataclass(frozen=True)
class Validators:
    """A voting set: (address, key) ascending by address; an index into it names a signer."""

    members: tuple[tuple[bytes, bytes], ...]

    @property
    def quorum(self) -> int:
        """So many of them decide."""
        return 2 * len(self.members) // 3 + 1

    @property
    def hash(self) -> bytes:
        """What headers commit to."""
        return tagged("kl.validators", encode([[address, key] for address, key in self.members]))


@dataclass(frozen=True)
class Chain:
    """What genesis fixes: hash (the anchor of trust), group, key types of accounts, first voters.

    `owners` is (text, organisation's name) by the address of each account that genesis names.
    """

    genesis_hash: bytes
    group: int
    key_types: frozenset[int]
    validators: Validators
    owners: dict[bytes, tuple[str, str]]


PREFIXES = ("kn", "kt", "km")
"""Of a node, a terminal, a multi-signature account."""
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
BECH32M = 0x2BC830A3


def address_text(kind: int, address: bytes) -> str:
    """The text of an address of 32 bytes: Bech32m (BIP 350) without a witness version."""
    bits = int.from_bytes(address, "big") << 4
    data = [bits >> 5 * place & 31 for place in reversed(range(52))]
    prefix = PREFIXES[kind]
    check = 1
    for value in (
        *(ord(letter) >> 5 for letter in prefix),
        0,
        *(ord(letter) & 31 for letter in prefix),
        *(*data, 0, 0, 0, 0, 0, 0),
    ):
        top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
        for bit, term in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= term if top >> bit & 1 else 0
    check ^= BECH32M
    data += [check >> 5 * place & 31 for place in reversed(range(6))]
    return prefix + "1" + "".join(BECH32[value] for value in data)


def address_of_text(written: str, where: str) -> tuple[int, bytes]:
    """Kind and 32 bytes of an address; the text must be the one that they have."""
    if len(written) == 61 and written[:2] in PREFIXES and set(written[3:]) <= set(BECH32):
        bits = 0
        for letter in written[3:55]:
            bits = bits << 5 | BECH32.index(letter)
        kind, address = PREFIXES.index(written[:2]), (bits >> 4).to_bytes(32, "big")
        if address_text(kind, address) == written:
            return kind, address
    refuse(where, "is no address")


PARAMETERS = {
    "propose_timeout_ms": (1_000, 1, 86_400_000),
    "prevote_timeout_ms": (500, 1, 86_400_000),
    "precommit_timeout_ms": (500, 1, 86_400_000),
    "timeout_delta_ms": (500, 1, 86_400_000),
    "block_interval_ms": (150, 1, 86_400_000),
    "heartbeat_ms": (600_000, 1_000, 86_400_000),
    "clock_precision_ms": (500, 1, 86_400_000),
    "message_delay_ms": (2_000, 1, 86_400_000),
    "hierarchy_above_nodes": (15, 4, 1_000),
}
"""Default, least and largest value, in the order that is hashed."""


def _unrepeated(pairs: list[tuple[str, object]]) -> Members:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a member is repeated")
    return dict(pairs)


def read_genesis(data: bytes) -> Chain:
    """The chain of a genesis file, whose layout is free: its hash is over values (2)."""
    if len(data) > GENESIS_BYTES:
        refuse("genesis", f"has {len(data)} bytes, at most {GENESIS_BYTES} are allowed")
    try:
        found: object = json.loads(
            data.decode("utf-8"),
            parse_float=_no_float,
            parse_constant=_no_float,
            object_pairs_hook=_unrepeated,
        )
        return _chain(found)
    except (ValueError, RecursionError) as error:
        refuse("genesis", f"is no JSON document: {error}")


def _chain(value: object) -> Chain:
    names = "format chain_name group time suite account_keys authority organisations nodes accounts"
    found = members(value, "genesis", f"{names} modules parameters")
    if found["format"] != "kanglian-genesis/1" or found["suite"] != "international":
        refuse("genesis", "has an unknown format or suite")
    where = "genesis.account_keys"
    key_names = [
        _one_of(item, ("secp256k1", "p256"), where)
        for item in elements(found["account_keys"], where, 1, 2)
    ]
    organisations = _organisations(found["organisations"])
    titles = {str(item[0]): str(item[1]) for item in organisations}
    nodes, validators = _nodes(found["nodes"], titles)
    accounts, owners = _accounts(found["accounts"], titles)
    group = number(found["group"], "genesis.group", 0, 2**32 - 1)
    hexadecimal(found["authority"], "genesis.authority", 32)
    hashed: list[Value] = [
        "kanglian-genesis/1",
        words(found["chain_name"], "genesis.chain_name"),
        group,
        number(found["time"], "genesis.time"),
        "international",
        list[Value](key_names),
        str(found["authority"]),
        list[Value](organisations),
        nodes,
        accounts,
        _modules(found["modules"]),
        _parameters(found["parameters"]),
    ]
    types = frozenset(SECP256K1 if item == "secp256k1" else P256 for item in key_names)
    return Chain(tagged("kl.genesis", encode(hashed)), group, types, validators, owners)


def _ascending(items: list[str], where: str) -> None:
    if any(low >= high for low, high in pairwise(items)):
        refuse(where, "must be in strictly ascending order")


def _organisations(value: object) -> list[list[Value]]:
    where = "genesis.organisations"
    rows: list[list[Value]] = []
    for item in elements(value, where, 1, 1_000):
        found = members(item, where, "id name")
        rows.append([name(found["id"], where), words(found["name"], where)])
    _ascending([str(row[0]) for row in rows], where)
    return rows


def _nodes(value: object, titles: dict[str, str]) -> tuple[list[Value], Validators]:
    """The nodes as they are hashed, and the masters, which vote from height 1 on."""
    where = "genesis.nodes"
    rows: list[Value] = []
    texts: list[str] = []
    masters: list[tuple[bytes, bytes]] = []
    for item in elements(value, where, 1, 1_000):
        found = members(item, where, "name address key organisation role")
        written = words(found["address"], where)
        kind, address = address_of_text(written, where)
        key = hexadecimal(found["key"], where, 34)
        if key[0] != SECP256K1 or public_key(key) is None:
            refuse(where, f"{written} has no secp256k1 key")
        if kind != 0 or address != tagged("kl.address", encode([0, 1, [key]])):
            refuse(where, f"{written} is not the address of its key")
        role = _one_of(found["role"], ("master", "branch", "observer", "regulator"), where)
        organisation = _one_of(found["organisation"], tuple(titles), where)
        if role == "master":
            masters.append((address, key))
        rows.append([name(found["name"], where), written, key.hex(), organisation, role])
        texts.append(written)
    _ascending(texts, where)
    if len(masters) != 1 and not 4 <= len(masters) <= VALIDATORS:
        refuse(where, f"has {len(masters)} masters; 1, or 4 to {VALIDATORS}, are allowed")
    return rows, Validators(tuple(sorted(masters)))


def _accounts(
    value: object, titles: dict[str, str]
) -> tuple[list[Value], dict[bytes, tuple[str, str]]]:
    where = "genesis.accounts"
    rows: list[Value] = []
    owners: dict[bytes, tuple[str, str]] = {}
    texts: list[str] = []
    for item in elements(value, where, 0, 10_000):
        found = members(item, where, "address organisation role")
        written = words(found["address"], where)
        kind, address = address_of_text(written, where)
        if kind == 0:
            refuse(where, f"{written} is a node, not an account")
        organisation = _one_of(found["organisation"], tuple(titles), where)
        rows.append([written, organisation, _one_of(found["role"], ("member", "admin"), where)])
        owners[address] = (written, titles[organisation])
        texts.append(written)
    _ascending(texts, where)
    return rows, owners


def _one_of(value: object, allowed: tuple[str, ...], where: str) -> str:
    if not isinstance(value, str) or value not in allowed:
        refuse(where, f"names something unknown, {str(value)[:60]!r}")
    return value


def _modules(value: object) -> list[Value]:
    where = "genesis.modules"
    rows: list[list[Value]] = []
    for item in elements(value, where, 1, 64):
        found = members(item, where, "name max_level contracts")
        contracts = elements(found["contracts"], where, 0, GENESIS_BYTES)
        level = number(found["max_level"], where, 0, 255)
        own: list[Value] = [name(contract, where) for contract in contracts]
        rows.append([name(found["name"], where), level, own])
    _ascending([str(row[0]) for row in rows], where)
    return list[Value](rows)


def _parameters(value: object) -> list[Value]:
    where = "genesis.parameters"
    found = members(value, where)
    if not set(found) <= set(PARAMETERS):
        refuse(where, "has an unknown member")
    return [
        number(found.get(own, default), f"{where}.{own}", least, most)
        for own, (default, least, most) in PARAMETERS.items()
    ]


# ---- 3 Scripts, and 4 transactions -----------------------------------------------------------


@dataclass(frozen=True)
class Call:
    """An operation: which method is called, with canonical arguments."""

    contract: str
    method: str
    arguments: bytes


@dataclass(frozen=True)
class Transaction:
    """A transaction whose form, chain and script hold. `signed` is (key, signature) each."""

    wire: bytes
    identity: bytes
    module: str
    level: int
    account: bytes
    calls: tuple[Call, ...]
    is_envelope: bool
    signed: tuple[tuple[bytes, bytes], ...]

    def operation(self, index: int) -> bytes:
        """The id of an operation, 32 bytes."""
        if not self.is_envelope:
            return self.identity
        return tagged("kl.operation-id", self.identity + index.to_bytes(4, "big"))


def read_transaction(wire: bytes, chain: Chain) -> Transaction:
    """Everything of a transaction (4) but the signatures, which `check_signatures` judges."""
    where = "transaction"
    parts = array(decode(wire, where, ENVELOPE_BYTES), where, 4)
    body_bytes = octets(parts[0], "transaction.body")
    body = array(decode(body_bytes, "transaction.body", ENVELOPE_BYTES), "transaction.body", 12)
    version, genesis_hash, group = body[:3]
    integer(version, "transaction.version", VERSION, VERSION)
    if octets(genesis_hash, "transaction.genesis_hash", 32) != chain.genesis_hash:
        refuse("transaction.genesis_hash", "names another chain")
    if integer(group, "transaction.group") != chain.group:
        refuse("transaction.group", "names another group")
    account = octets(body[5], "transaction.account", 32)
    signer = None if body[6] is None else octets(body[6], "transaction.signer", 32)
    octets(body[7], "transaction.nonce", 16)
    integer(body[8], "transaction.valid_until")
    integer(body[9], "transaction.client_time")
    if body[10] is not None:
        octets(body[10], "transaction.after", 32)
    calls, is_envelope = _calls(body[11], parts[3])
    if not is_envelope and len(wire) > TRANSACTION_BYTES:
        refuse(where, f"has {len(wire)} bytes, at most {TRANSACTION_BYTES} are allowed")
    script = octets(parts[1], "transaction.script")
    if tagged("kl.address", script) != (account if signer is None else signer):
        refuse("transaction.script", "is not that of the signer")
    return Transaction(
        wire,
        tagged("kl.transaction", body_bytes),
        name(body[3], "transaction.module"),
        integer(body[4], "transaction.level", 0, 255),
        account,
        calls,
        is_envelope,
        _signers(script, parts[2], chain),
    )


def _calls(payload: Value, operations: Value) -> tuple[tuple[Call, ...], bool]:
    """The calls of a payload, and whether it is an envelope whose root binds them."""
    where = "transaction.payload"
    fields = array(payload, where, 4)
    if integer(fields[0], where, 0, 1) == 0:
        if operations is not None:
            refuse("transaction.operations", "stand beside a call")
        return (_call(payload, where),), False
    count = integer(fields[1], where, 1, ENVELOPE_OPERATIONS)
    root = octets(fields[2], where, 32)
    if not isinstance(fields[3], bool):
        refuse(where, "`atomic` is no boolean")
    listed = array(operations, "transaction.operations", count)
    calls = tuple(_call(item, "transaction.operations") for item in listed)
    if root_of([b"kl.operation\0" + encode(item) for item in listed]) != root:
        refuse("transaction.operations", "are not those that the signed root commits to")
    return calls, True


def _call(value: Value, where: str) -> Call:
    fields = array(value, where, 4)
    integer(fields[0], where, 0, 0)
    return Call(name(fields[1], where), name(fields[2], where), octets(fields[3], where))


def _signers(script: bytes, signatures: Value, chain: Chain) -> tuple[tuple[bytes, bytes], ...]:
    """(key, signature) of exactly `threshold` keys of a script (3), in ascending order."""
    where = "transaction.script"
    fields = array(decode(script, where, KIB), where, 3)
    kind = integer(fields[0], where, 0, 2)
    keys = [octets(item, where, 34) for item in array(fields[2], where, 1, SCRIPT_KEYS)]
    threshold = integer(fields[1], where, 1, len(keys))
    if kind != 2 and len(keys) != 1:
        refuse(where, "a node or a terminal has one key")
    if any(low >= high for low, high in pairwise(keys)):
        refuse(where, "keys must be in strictly ascending order")
    if any(key[0] not in chain.key_types or public_key(key) is None for key in keys):
        refuse(where, "holds a key that is invalid or of a kind that the chain does not allow")
    where = "transaction.signatures"
    signed: list[tuple[int, bytes]] = []
    for item in array(signatures, where, threshold):
        index, signature = array(item, where, 2)
        signed.append((integer(index, where, 0, len(keys) - 1), octets(signature, where, 64)))
    if any(low[0] >= high[0] for low, high in pairwise(signed)):
        refuse(where, "must be in strictly ascending order of keys")
    return tuple((keys[index], signature) for index, signature in signed)


def check_signatures(transaction: Transaction, check: SignatureCheck) -> None:
    """Refuse unless each key signed the transaction's id."""
    for key, signature in transaction.signed:
        if not check(key, transaction.identity, signature):
            refuse("transaction.signatures", f"that of key {key.hex()} is not valid")


# ---- 6 Headers and certificates --------------------------------------------------------------


@dataclass(frozen=True)
class Header:
    """The fields of a header that proofs need."""

    hash: bytes
    height: int
    previous_hash: bytes
    time: int
    validators_hash: bytes
    next_validators_hash: bytes
    batches_root: bytes
    receipts_root: bytes


def read_header(data: bytes, chain: Chain, where: str) -> Header:
    """A header (6.1) of this chain's group; who decided it is for `check_certificate`."""
    fields = array(decode(data, where, HEADER_BYTES), where, 18)
    integer(fields[0], f"{where}.version", VERSION, VERSION)
    if integer(fields[1], f"{where}.group") != chain.group:
        refuse(f"{where}.group", "names another group")
    integer(fields[5], f"{where}.proposer", 0, VALIDATORS - 1)
    for item in array(fields[12], f"{where}.demotions", 0, VALIDATORS):
        index, strikes, until = array(item, f"{where}.demotions", 3)
        integer(index, f"{where}.demotions", 0, VALIDATORS - 1)
        integer(strikes, f"{where}.demotions", 1, 10)
        integer(until, f"{where}.demotions")
    hashes_at = (3, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17)
    found = {place: octets(fields[place], f"{where}[{place}]", 32) for place in hashes_at}
    return Header(
        tagged("kl.header", data),
        integer(fields[2], f"{where}.height", 1),
        found[3],
        integer(fields[4], f"{where}.time"),
        found[6],
        found[7],
        found[9],
        found[14],
    )


def check_certificate(
    data: bytes, header: Header, ruling: Validators, chain: Chain, check: SignatureCheck
) -> None:
    """Refuse unless a quorum of the set that rules the header's height decided it (6.3)."""
    where = "header.certificate"
    if header.validators_hash != ruling.hash:
        refuse("header.validators_hash", f"height {header.height} is ruled by other validators")
    height, round_number, block, signatures = array(
        decode(data, where, CERTIFICATE_BYTES), where, 4
    )
    if integer(height, where, 1) != header.height or octets(block, where, 32) != header.hash:
        refuse(where, f"is not that of the header of height {header.height}")
    integer(round_number, where)
    vote = encode(
        [chain.genesis_hash, chain.group, 2, header.height, round_number, header.hash, -1]
    )
    signed: list[tuple[int, bytes]] = []
    for item in array(signatures, where, ruling.quorum, len(ruling.members)):
        index, signature = array(item, where, 2)
        last = len(ruling.members) - 1
        signed.append((integer(index, where, 0, last), octets(signature, where, 64)))
    if any(low[0] >= high[0] for low, high in pairwise(signed)):
        refuse(where, "signers must be in strictly ascending order")
    for index, signature in signed:
        key = ruling.members[index][1]
        if key[0] != SECP256K1 or not check(key, tagged("kl.vote", vote), signature):
            refuse(where, f"the signature of validator {index} is not valid")


# ---- 7 Receipts ------------------------------------------------------------------------------

STATUSES = (
    *("ok", "reverted", "duplicate", "expired", "unknown namespace", "unknown account"),
    *("signer not current", "after not found", "unknown contract", "unknown method"),
    *("bad arguments", "aborted"),
)


def read_receipt(data: bytes) -> tuple[bytes, int]:
    """The operation of a receipt and its status."""
    where = "receipt"
    fields = array(decode(data, where, RECEIPT_BYTES), where, 6)
    text(fields[2], "receipt.error", 64)
    integer(fields[3], "receipt.gas_used")
    if len(octets(fields[4], "receipt.output")) > OUTPUT_BYTES:
        refuse("receipt.output", f"has more than {OUTPUT_BYTES} bytes")
    for item in array(fields[5], "receipt.events", 0, EVENTS):
        contract, event, data_of_event = array(item, "receipt.events", 3)
        name(contract, "receipt.events")
        name(event, "receipt.events")
        octets(data_of_event, "receipt.events")
    status = integer(fields[1], "receipt.status", 0, len(STATUSES) - 1)
    return octets(fields[0], "receipt.id", 32), status


# ---- 9 Registrations, and 10 openings --------------------------------------------------------

LABELS = ("head", "middle", "record", "remarks", "tail")


def registration_of(call: Call) -> dict[str, bytes] | None:
    """The commitment of each label that a call of the data index puts on chain (9), if it does."""
    where = "transaction.arguments"
    if call.contract != "data_index" or call.method not in {"register", "supersede"}:
        return None
    value = decode(call.arguments, where, TRANSACTION_BYTES)
    if call.method == "supersede":
        index, position, kind, value = array(value, where, 4)
        octets(index, where, 32)
        integer(position, where)
        integer(kind, where, 1, 3)
        # Which kinds have a registration was the contract's to judge: the receipt says it did.
        if value is None:
            return None
    fields = array(value, where, 6)
    head, middle, tail, record, _ = (octets(item, where, 32) for item in fields[:5])
    status, level, remarks, random = array(fields[5], where, 4)
    integer(status, where, 0, 255)
    integer(level, where, 0, 255)
    remarks = octets(remarks, where, 32)
    octets(random, where, 32)
    return {"head": head, "middle": middle, "tail": tail, "remarks": remarks, "record": record}


def check_opening(data: bytes, record: bytes | None, verdict: "Verdict") -> tuple[str, ...]:
    """The labels of the parts that an opening shows, each held against its commitment (10)."""
    found = members(
        document(data, "opening", OPENING_BYTES), "opening", "account format index parts"
    )
    if found["format"] != "kanglian-opening/1":
        refuse("opening.format", "is unknown")
    commitments = verdict.commitments
    if commitments is None:
        refuse("opening", "the operation registers no index")
    if hexadecimal(found["account"], "opening.account", 32).hex() != verdict.account:
        refuse("opening.account", "is another one than that of the proof")
    if hexadecimal(found["index"], "opening.index", 32).hex() != verdict.operation:
        refuse("opening.index", "is another one than that of the proof")
    parts = members(found["parts"], "opening.parts")
    if not parts or not set(parts) <= set(LABELS):
        refuse("opening.parts", "there is none, or an unknown one")
    if record is not None and "record" not in parts:
        refuse("opening.parts", "a record is given, but its part is not shown")
    for label, part in parts.items():
        where = f"opening.parts.{label}"
        shown = members(part, where, "content salt")
        content = _content(shown["content"], record if label == "record" else None, where)
        salt = hexadecimal(shown["salt"], where, 32)
        committed: list[Value] = [bytes.fromhex(verdict.account), label, salt, content]
        if tagged("kl.commitment", encode(committed)) != commitments[label]:
            refuse(where, "is not what the chain commits to")
    return tuple(parts)


def _content(value: object, record: bytes | None, where: str) -> bytes:
    """The exact bytes of a part, from the document or from the record beside it."""
    if value is None:
        if record is None:
            refuse(where, "has no content in the document, and no record is given")
        return record
    if not isinstance(value, str):
        refuse(where, "its content is no Base64")
    try:
        found = base64.b64decode(value.encode(), validate=True)
    except (binascii.Error, ValueError):
        refuse(where, "its content is no Base64")
    if base64.b64encode(found).decode() != value:
        refuse(where, "its content is Base64 with spare bits or without padding")
    if record is not None and record != found:
        refuse(where, "the record beside the document is another one")
    return found


# ---- 11 Proofs -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a proof says that holds: ids and addresses in hexadecimal, time in milliseconds."""

    format: str
    transaction: str
    operation: str
    account: str
    organisation: str
    """As far as genesis names the account; else empty."""
    module: str
    level: int
    contract: str
    method: str
    height: int
    time_ms: int
    anchor: str
    """The genesis hash: what has to be trusted."""
    opened: tuple[str, ...] = ()
    record_checked: bool = False
    commitments: dict[str, bytes] | None = None
    """By the label of each part, where the operation registers an index."""


Succession: TypeAlias = list[tuple[int, Validators]]
"""(first height, the set that rules from there on), ascending."""


def ruling_at(sets: Succession, height: int) -> Validators:
    """The newest set that rules from this height or one below it."""
    return next(validators for first, validators in reversed(sets) if first <= height)


REGISTRATION_MEMBERS = """
    batch batch_position certificate format header namespace_position namespace_transactions
    next_certificate next_header operation receipt receipt_position receipts_position transaction
    transaction_position
"""


def check_registration(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-proof/1`: an operation, in headers that the validators of genesis decided."""
    return _registration(proof, chain, [(1, chain.validators)], check)


def _registration(proof: Members, chain: Chain, sets: Succession, check: SignatureCheck) -> Verdict:
    found = members(proof, "proof", REGISTRATION_MEMBERS)
    transaction = read_transaction(_member(found, "transaction"), chain)
    operation = number(found["operation"], "proof.operation")
    if operation >= len(transaction.calls):
        refuse("transaction", f"has no operation {operation}")
    header = read_header(_member(found, "header"), chain, "header")
    following = read_header(_member(found, "next_header"), chain, "header.next")
    if following.height != header.height + 1 or following.previous_hash != header.hash:
        refuse("header.next", "does not follow the header")
    if sets[-1][0] > following.height:
        refuse("validators", "a set begins beyond the headers")
    _check_inclusion(found, transaction, header)
    receipt = _member(found, "receipt")
    _check_receipt(found, receipt, transaction, following)
    receipt_of, status = read_receipt(receipt)
    if receipt_of != transaction.operation(operation):
        refuse("receipt.id", "is that of another operation")
    # Signatures cost the most, so they come last.
    check_signatures(transaction, check)
    ruling, ruling_next = (ruling_at(sets, item.height) for item in (header, following))
    check_certificate(_member(found, "certificate"), header, ruling, chain, check)
    check_certificate(_member(found, "next_certificate"), following, ruling_next, chain, check)
    if status != 0:
        refuse("receipt.status", f"the operation was not successful: {STATUSES[status]}")
    call = transaction.calls[operation]
    return Verdict(
        format="kanglian-proof/1",
        transaction=transaction.identity.hex(),
        operation=transaction.operation(operation).hex(),
        account=transaction.account.hex(),
        organisation=chain.owners.get(transaction.account, ("", ""))[1],
        module=transaction.module,
        level=transaction.level,
        contract=call.contract,
        method=call.method,
        height=header.height,
        time_ms=header.time,
        anchor=chain.genesis_hash.hex(),
        commitments=registration_of(call),
    )


def _member(found: Members, own: str) -> bytes:
    return hexadecimal(found[own], f"proof.{own}")


def _check_inclusion(found: Members, transaction: Transaction, header: Header) -> None:
    """Step 3: from the wire up to `batches_root`."""
    position = position_of(found["transaction_position"], "inclusion.transaction_position")
    entry = b"kl.transaction-leaf\0" + transaction.wire
    root = root_above(entry, position, "inclusion.transaction_position")
    batch = hexadecimal(found["batch"], "inclusion.batch", 32)
    entry = b"kl.namespace-batch\0" + encode([batch, position.count, root])
    position = position_of(found["batch_position"], "inclusion.batch_position")
    share = root_above(entry, position, "inclusion.batch_position")
    count = number(found["namespace_transactions"], "inclusion.namespace_transactions")
    entry = b"kl.namespace\0" + encode([transaction.module, transaction.level, count, share])
    position = position_of(found["namespace_position"], "inclusion.namespace_position")
    if root_above(entry, position, "inclusion.namespace_position") != header.batches_root:
        refuse("inclusion", "the paths do not lead from the transaction to the header")


def _check_receipt(
    found: Members, receipt: bytes, transaction: Transaction, following: Header
) -> None:
    """Step 4: from the receipt up to `receipts_root`."""
    position = position_of(found["receipt_position"], "receipt.receipt_position")
    root = root_above(b"kl.receipt\0" + receipt, position, "receipt.receipt_position")
    entry = encode([transaction.module, transaction.level, position.count, root])
    position = position_of(found["receipts_position"], "receipt.receipts_position")
    above = root_above(b"kl.namespace-receipts\0" + entry, position, "receipt.receipts_position")
    if above != following.receipts_root:
        refuse("receipt", "the paths do not lead from the receipt to the next header")


def check_anchored(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-proof/2`: the validators changed since genesis, and each change is shown."""
    found = members(proof, "proof", "changes format registration")
    sets: Succession = [(1, chain.validators)]
    for index, item in enumerate(elements(found["changes"], "validators", 1, CHANGES)):
        where = f"validators[{index}]"
        sets.append(
            _change(
                members(item, where, "certificate header validators"), sets[-1], chain, check, where
            )
        )
    registration = members(found["registration"], "proof.registration")
    if registration.get("format") != "kanglian-proof/1":
        refuse("proof.registration", "has an unknown format")
    return _registration(registration, chain, sets, check)


def _change(
    change: Members, before: tuple[int, Validators], chain: Chain, check: SignatureCheck, where: str
) -> tuple[int, Validators]:
    """The set that follows, with its first height, as the set before handed over to it."""
    first, ruling = before
    header = read_header(hexadecimal(change["header"], where), chain, where)
    if header.height < first:
        refuse(where, "its header is below the first height of the set that must have decided it")
    pairs: list[tuple[bytes, bytes]] = []
    for item in elements(change["validators"], where, 1, VALIDATORS):
        found = members(item, where, "address key")
        address = hexadecimal(found["address"], where, 32)
        pairs.append((address, hexadecimal(found["key"], where, 34)))
    if any(low[0] >= high[0] for low, high in pairwise(pairs)):
        refuse(where, "validators must ascend by address")
    after = Validators(tuple(pairs))
    if after == ruling or after.hash != header.next_validators_hash:
        refuse(where, "the header commits to other validators, or nothing changes")
    certificate = hexadecimal(change["certificate"], where)
    check_certificate(certificate, header, ruling, chain, check)
    return header.height + 1, after


KINDS: dict[str, Callable[[Members, Chain, SignatureCheck], Verdict]] = {
    "kanglian-proof/1": check_registration,
    "kanglian-proof/2": check_anchored,
}
"""What checks a proof, by its `format`."""


def check_proof(data: bytes, chain: Chain, check: SignatureCheck = is_signed) -> Verdict:
    """The verdict of a proof file, or `Refused`. Cost: one verification for each signature."""
    proof = document(data, "proof", PROOF_BYTES)
    kind = proof.get("format")
    if not isinstance(kind, str) or kind not in KINDS:
        refuse("proof.format", f"is unknown; known are {', '.join(KINDS)}")
    return KINDS[kind](proof, chain, check)


def verify(
    proof: bytes, genesis: bytes, opening: bytes | None = None, record: bytes | None = None
) -> Verdict:
    """The verdict of everything that is given, or `Refused` at the first thing that fails."""
    verdict = check_proof(proof, read_genesis(genesis))
    if opening is None:
        return verdict
    opened = check_opening(opening, record, verdict)
    return replace(verdict, opened=opened, record_checked=record is not None)


# ---- The command -----------------------------------------------------------------------------

LABELS_ZH = {
    "format": "格式", "transaction": "交易", "operation": "操作", "account": "账户",
    "organisation": "机构", "module": "模块", "level": "级别", "contract": "合约",
    "method": "方法", "height": "区块高度", "time_ms": "区块时间 (毫秒)", "anchor": "创世哈希",
    "opened": "已核对的部分", "record_checked": "已核对病历",
}  # fmt: skip


def say(line: str) -> None:
    """One line on standard output."""
    sys.stdout.buffer.write(line.encode() + b"\n")


def facts_of(verdict: Verdict) -> dict[str, object]:
    """What is printed of a verdict, by name."""
    return {key: value for key, value in vars(verdict).items() if key != "commitments"}


def report(verdict: Verdict, language: str, *, as_json: bool) -> None:
    """Print what holds."""
    if as_json:
        say(json.dumps({"verified": True, **facts_of(verdict)}, ensure_ascii=False))
        return
    say("证明成立。" if language == "zh" else "VERIFIED: the proof holds.")
    for key, value in facts_of(verdict).items():
        shown = ", ".join(cast("tuple[str, ...]", value)) if key == "opened" else str(value)
        say(f"  {LABELS_ZH[key] if language == 'zh' else key}: {shown or '-'}")


def report_refusal(refused: Refused, language: str, *, as_json: bool) -> None:
    """Print why not; the sentence itself stays English, its place has a Chinese name."""
    if as_json:
        refusal = {"verified": False, "step": refused.step, "reason": refused.why}
        say(json.dumps(refusal, ensure_ascii=False))
    elif language == "zh":
        say(f"不成立 ({STEPS[refused.step]}): {refused.why}")
    else:
        say(f"REFUSED: {refused.why}")


def read_file(path: Path | None, most: int) -> bytes | None:
    """At most one byte beyond the limit, so that too large a file is refused and not read."""
    if path is None:
        return None
    with path.open("rb") as file:
        return file.read(most + 1)


def main(arguments: list[str] | None = None) -> int:
    """The command: 0 everything holds, 1 refused, 2 wrong call or unreadable file."""
    parser = argparse.ArgumentParser(description="Check a Kanglian proof offline.")
    parser.add_argument("proof", type=Path, help="the proof, a JSON file")
    parser.add_argument("--genesis", type=Path, required=True, help="the genesis file you trust")
    parser.add_argument("--opening", type=Path, help="an opening of the registered index")
    parser.add_argument("--record", type=Path, help="the record that the opening leaves out")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the output")
    options = parser.parse_args(arguments)
    if options.record is not None and options.opening is None:
        parser.error("--record needs the --opening with its salt")
    try:
        proof = read_file(options.proof, PROOF_BYTES) or b""
        genesis = read_file(options.genesis, GENESIS_BYTES) or b""
        opening = read_file(options.opening, OPENING_BYTES)
        record = read_file(options.record, RECORD_BYTES)
    except OSError as error:
        sys.stderr.write(f"cannot read {error.filename}: {error.strerror}\n")
        return 2
    try:
        if record is not None and len(record) > RECORD_BYTES:
            refuse("opening", f"the record has more than {RECORD_BYTES} bytes")
        verdict = verify(proof, genesis, opening, record)
    except Refused as refused:
        report_refusal(refused, options.lang, as_json=options.json)
        return 1
    report(verdict, options.lang, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
