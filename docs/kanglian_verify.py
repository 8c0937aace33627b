"""Check a proof of a Kanglian chain offline: one file, for an auditor who trusts nothing else.

    python kanglian_verify.py PROOF --genesis FILE [--opening FILE [--record FILE]]
                              [--not-before MS] [--json] [--lang zh]

What it decides: whether everything that is given holds together under one genesis file. Whoever
runs it trusts that genesis file, this file, Python and the package `cryptography` (for the two
curves); it needs no node, no network, no clock and no other file of this project. It exits with 0
when everything holds, 1 when something is refused, 2 when it was called wrongly or cannot read a
file.

What it never does: repair, guess, or accept a second form of the same content. Every check raises
`Refused` with the place and the rule; nothing is parsed before its size is known.

Source: docs/format.md and docs/proofs.md, from which alone it was written, so that two readings of
those documents can be compared. Numbers such as (6.3) name sections of the former, numbers such as
(P4) of the latter. Python 3.11 or newer.

Reading order: bytes and their shapes (1.1), trees (1.3), signatures (1.4), documents (1.5), genesis
(2), scripts (3), transactions (4), headers and certificates (6), receipts (7), registrations and
openings (9, 10), registration proofs (11), and the family of proofs (P2 to P11). The table `KINDS`
names what checks each format.
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
from typing import Any, NoReturn, TypeAlias, cast

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

Value: TypeAlias = "bool | int | str | bytes | list[Value] | None"
"""What canonical bytes hold (1.1)."""
Shape: TypeAlias = "str | list[Shape] | tuple[Shape, int, int] | dict[str, Shape]"
"""What a value has to be: a word; a list for the fields of a record in order; (shape, least, most)
for so many of the same; {"?": shape} for null or that; any other object for exactly its members.

Words: `bytes32`, `bytes` for any number; in documents `hex32`, `hex` for one or more, `hex*` for
any number; `name`, `bool`, `any`; `title` and `error` for texts of 1 to 128 and up to 64
characters; a name of `NUMBERS`; else the texts that are allowed, as a|b. With `?` behind it, a
value may be missing."""
Members: TypeAlias = dict[str, Any]
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
VALIDATORS = 128
DEPTH = 8
"""Deeper than any record: a wire holds operations, a call; a receipt holds events."""
JSON_INTEGER = 2**53 - 1

NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
HEXADECIMAL = re.compile(r"(?:[0-9a-f]{2})*+")

STEPS = {
    "proof": "证明文件的格式",
    "genesis": "创世文件",
    "transaction": "交易及其签名",
    "validators": "验证者的更替",
    "header": "区块头及其证书",
    "inclusion": "交易在区块中",
    "receipt": "执行回执",
    "state": "状态",
    "log": "日志",
    "completeness": "完整性",
    "history": "区块历史",
    "opening": "披露文件与病历",
    "stale": "区块头过旧",
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

INTEGERS = {0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8}
NEGATIVES = {0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8}
STRINGS = {0xD9: 1, 0xDA: 2, 0xDB: 4}
BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4}
ARRAYS = {0xDC: 2, 0xDD: 4}
"""The first byte of a value, and how many bytes of a number or length follow it."""
SIZES = INTEGERS | NEGATIVES | STRINGS | BYTES | ARRAYS
CONSTANTS: dict[int, bool | None] = {0xC0: None, 0xC2: False, 0xC3: True}


def encode(value: Value) -> bytes:
    """The one encoding of a value: msgpack, everything as short as it can be."""
    match value:
        case None:
            return b"\xc0"
        case bool():
            return b"\xc3" if value else b"\xc2"
        case int():
            if -32 <= value < 128:
                return bytes([value & 0xFF])
            if value < 0:
                least = {code: -(1 << 8 * size - 1) for code, size in NEGATIVES.items()}
                code = next(code for code in least if value >= least[code])
                size = NEGATIVES[code]
                return bytes([code]) + value.to_bytes(size, "big", signed=True)
            return _number(value, INTEGERS)
        case str():
            text = value.encode()
            start = _number(len(text), STRINGS) if len(text) > 31 else bytes([0xA0 | len(text)])
            return start + text
        case bytes():
            return _number(len(value), BYTES) + value
        case list():
            start = _number(len(value), ARRAYS) if len(value) > 15 else bytes([0x90 | len(value)])
            return start + b"".join(map(encode, value))


def _number(number: int, codes: dict[int, int]) -> bytes:
    code, size = next(pair for pair in codes.items() if number < 1 << 8 * pair[1])
    return bytes([code]) + number.to_bytes(size, "big")


def decode(data: bytes, where: str, most: int) -> Value:
    """The value of at most so many canonical bytes; one that has another encoding is refused."""
    if len(data) > most:
        refuse(where, f"has {len(data)} bytes, at most {most} are allowed")
    value, _ = _value(data, 0, 0, where)
    if encode(value) != data:
        refuse(where, "is not canonical, or bytes follow the value")
    return value


def _value(data: bytes, place: int, depth: int, where: str) -> tuple[Value, int]:
    """The value that begins at a place, in however long a form, and the place behind it."""
    if place >= len(data):
        refuse(where, "the bytes end too early")
    code, start = data[place], place + 1
    if code < 0x80 or code >= 0xE0:
        return (code if code < 0x80 else code - 0x100), start
    if code in CONSTANTS:
        return CONSTANTS[code], start
    if code >= 0xC0 and code not in SIZES:
        refuse(where, f"byte {code:#04x} begins no value that is allowed here")
    stop = start + SIZES.get(code, 0)
    number = int.from_bytes(data[start:stop], "big", signed=code in NEGATIVES)
    if code in INTEGERS or code in NEGATIVES:
        return (number, stop) if stop <= len(data) else refuse(where, "the bytes end too early")
    if code in ARRAYS or 0x90 <= code <= 0x9F:
        length = number if code in ARRAYS else code & 0x0F
        if depth >= DEPTH or length > len(data) - stop:
            refuse(where, "arrays are nested too deeply, or longer than the bytes that follow")
        items: list[Value] = []
        for _ in range(length):
            item, stop = _value(data, stop, depth + 1, where)
            items.append(item)
        return items, stop
    end = stop + (number if code in SIZES else code & 0x1F)
    if code < 0x90 or end > len(data):
        refuse(where, "a map, which is not allowed, or the bytes end too early")
    if code in BYTES:
        return data[stop:end], end
    try:
        return data[stop:end].decode("utf-8"), end
    except UnicodeDecodeError:
        refuse(where, "a text is not UTF-8")


# ---- The shapes of records (1.1) and documents (1.5) -----------------------------------------

NUMBERS = {
    "u8": (0, 255), "u32": (0, 2**32 - 1), "count": (0, 2**63 - 1), "height": (1, 2**63 - 1),
    "index": (0, VALIDATORS - 1), "strikes": (1, 10), "status": (0, 11), "kind": (0, 2),
    "change": (1, 3), "zero": (0, 0), "one": (1, 1), "operations": (1, 2_000),
    "operation": (0, 1_999), "event": (0, 31),
    "number": (0, JSON_INTEGER), "size": (1, JSON_INTEGER),
}  # fmt: skip
"""Words for integers: least and largest."""


def record(data: bytes, where: str, most: int, shape: Shape) -> Any:
    """The fields of at most so many canonical bytes, of exactly this shape."""
    return read(decode(data, where, most), shape, where)


def fields(words: str, **others: Shape) -> dict[str, Shape]:
    """The shape of an object, its simple members as `name:word`."""
    return {**dict(item.split(":") for item in words.split()), **others}


def read(value: object, shape: Shape, where: str) -> Any:
    """The value, refused if it has another shape; hexadecimal of a document becomes bytes."""
    if isinstance(shape, str):
        return _word(value, shape, where)
    if isinstance(shape, dict):
        if "?" in shape:
            return None if value is None else read(value, shape["?"], where)
        found = members(value, where, set(shape))
        return {name: read(found[name], part, f"{where}.{name}") for name, part in shape.items()}
    if not isinstance(value, list):
        refuse(where, "is no array")
    items = cast("list[object]", value)
    if isinstance(shape, tuple):
        parts, least, most = [shape[0]] * len(items), *shape[1:]
    else:
        parts, least, most = shape, len(shape), len(shape)
    if not least <= len(items) <= most:
        refuse(where, f"has {len(items)} elements, {least} to {most} are allowed")
    return [read(item, part, where) for item, part in zip(items, parts, strict=True)]


def members(value: object, where: str, names: set[str]) -> Members:
    """An object with exactly these members."""
    if not isinstance(value, dict):
        refuse(where, "is no object")
    found = cast("Members", value)
    if set(found) != names:
        wrong = ", ".join(sorted(set(found) ^ names))[:200]
        refuse(where, f"a member is missing or unknown: {wrong}")
    return found


def _word(value: object, word: str, where: str) -> Any:
    if word == "any" or (value is None and word.endswith("?")):
        return value
    word = word.removesuffix("?")
    if word in NUMBERS:
        return integer(value, where, *NUMBERS[word])
    if word.startswith("bytes"):
        length = word.removeprefix("bytes")
        if not isinstance(value, bytes) or (length and len(value) != int(length)):
            refuse(where, f"is no byte string of {length or 'any'} bytes")
    elif word == "bool":
        if not isinstance(value, bool):
            refuse(where, "is no boolean")
    elif not isinstance(value, str):
        refuse(where, "is no text")
    elif word.startswith("hex"):
        return _hexadecimal(value, word.removeprefix("hex"), where)
    elif word == "name":
        if NAME.fullmatch(value) is None:
            refuse(where, "is no name")
    elif word in {"error", "title"}:
        if not len(value) <= 64 if word == "error" else not 1 <= len(value) <= 128:
            refuse(where, f"is no text of a length that is allowed, {len(value)}")
    elif value not in word.split("|"):
        refuse(where, f"is unknown, {value[:60]!r}; known is {word}")
    return value


def _hexadecimal(value: str, length: str, where: str) -> bytes:
    """Bytes from lower-case hexadecimal: so many, any number for `*`, one or more for nothing."""
    if HEXADECIMAL.fullmatch(value) is None or (not value and length != "*"):
        refuse(where, "is no lower-case hexadecimal")
    found = bytes.fromhex(value)
    if length not in {"", "*"} and len(found) != int(length):
        refuse(where, f"has {len(found)} bytes, not {length}")
    return found


def integer(value: object, where: str, least: int, most: int) -> int:
    """An integer in a range; a boolean is none."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        refuse(where, f"is no integer from {least} to {most}")
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
    """The sized root of whole entries."""
    leaves, count = [digest(b"\x00" + entry) for entry in entries], len(entries)
    return sized_root(count, head_of_run(leaves, 0, count, []) if count else digest(b""))


def head_of_run(leaves: list[bytes], first: int, count: int, nodes: list[bytes]) -> bytes:
    """The bare head of a tree of `count` entries whose leaves from `first` on are these (P3).

    `nodes` are the heads of the largest subtrees without any of them, from left to right.
    """
    stop, rest = first + len(leaves), list(reversed(nodes))
    if stop > count or (first and not leaves):
        refuse("log.run", "the run is not in the log")

    def head(start: int, end: int) -> bytes:
        if end <= first or start >= stop:
            return rest.pop() if rest else refuse("log.run", "a node is missing")
        if end - start == 1:
            return leaves[start - first]
        split = start + (1 << (end - start - 1).bit_length() - 1)
        left = head(start, split)
        return digest(b"\x01" + left + head(split, end))

    found = head(0, count)
    if rest:
        refuse("log.run", "nodes are left over")
    return found


def root_above(entry: bytes, position: Members, where: str) -> bytes:
    """The sized root that index, count and path lead to (RFC 9162 section 2.1.3.2)."""
    index, last = position["index"], position["count"] - 1
    if index > last:
        refuse(where, "the index is not below the count")
    head = digest(b"\x00" + entry)
    for step in position["path"]:
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
    return sized_root(position["count"], head)


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

POSITION = fields("count:number index:number", path=("hex32", 0, 63))


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
    if not isinstance(found, dict):
        refuse(step, "is no object")
    return cast("Members", found)


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

    `owners` is the organisation's name by the address of each account that genesis names, `modules`
    the highest level of each module.
    """

    genesis_hash: bytes
    group: int
    key_types: frozenset[int]
    validators: Validators
    owners: dict[bytes, str]
    modules: dict[str, int]


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


GENESIS: dict[str, Shape] = {
    "format": "kanglian-genesis/1",
    "chain_name": "title",
    "group": "u32",
    "time": "number",
    "suite": "international",
    "account_keys": ("secp256k1|p256", 1, 2),
    "authority": "hex32",
    "organisations": (fields("id:name name:title"), 1, 1_000),
    "nodes": (
        fields(
            "name:name address:title key:hex34 organisation:name "
            "role:master|branch|observer|regulator"
        ),
        1,
        1_000,
    ),
    "accounts": (fields("address:title organisation:name role:member|admin"), 0, 10_000),
    "modules": (
        fields("name:name max_level:u8", contracts=("name", 0, GENESIS_BYTES)),
        1,
        64,
    ),
}
"""The members in the order that is hashed; the parameters follow."""


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
    written = members(value, "genesis", {*GENESIS, "parameters"})
    found = {name: read(written[name], part, f"genesis.{name}") for name, part in GENESIS.items()}
    titles: dict[str, str] = {item["id"]: item["name"] for item in found["organisations"]}
    for name, key in (("organisations", "id"), ("nodes", "address"), ("accounts", "address"),
                      ("modules", "name")):  # fmt: skip
        _ascending([item[key] for item in found[name]], f"genesis.{name}")
    hashed = [_positional(written[name], part) for name, part in GENESIS.items()]
    hashed.append(_parameters(written["parameters"]))
    return Chain(
        genesis_hash=tagged("kl.genesis", encode(hashed)),
        group=found["group"],
        key_types=frozenset(
            SECP256K1 if item == "secp256k1" else P256 for item in found["account_keys"]
        ),
        validators=_masters(found["nodes"], titles),
        owners=_owners(found["accounts"], titles),
        modules={item["name"]: item["max_level"] for item in found["modules"]},
    )


def _positional(value: Any, shape: Shape) -> Any:
    """A member as it is hashed: each object is the array of its members in the order above."""
    if isinstance(shape, dict):
        return [_positional(value[name], part) for name, part in shape.items()]
    if isinstance(shape, tuple):
        return [_positional(item, shape[0]) for item in value]
    return value


def _ascending(items: list[str], where: str) -> None:
    if any(low >= high for low, high in pairwise(items)):
        refuse(where, "must be in strictly ascending order")


def _masters(nodes: list[Members], titles: dict[str, str]) -> Validators:
    """The masters, which vote from height 1 on."""
    where = "genesis.nodes"
    masters: list[tuple[bytes, bytes]] = []
    for node in nodes:
        kind, address = address_of_text(node["address"], where)
        key = node["key"]
        if key[0] != SECP256K1 or public_key(key) is None:
            refuse(where, f"{node['address']} has no secp256k1 key")
        if kind != 0 or address != tagged("kl.address", encode([0, 1, [key]])):
            refuse(where, f"{node['address']} is not the address of its key")
        if node["organisation"] not in titles:
            refuse(where, f"the organisation {node['organisation']} is not listed")
        if node["role"] == "master":
            masters.append((address, key))
    if len(masters) != 1 and not 4 <= len(masters) <= VALIDATORS:
        refuse(where, f"has {len(masters)} masters; 1, or 4 to {VALIDATORS}, are allowed")
    return Validators(tuple(sorted(masters)))


def _owners(accounts: list[Members], titles: dict[str, str]) -> dict[bytes, str]:
    where = "genesis.accounts"
    owners: dict[bytes, str] = {}
    for account in accounts:
        kind, address = address_of_text(account["address"], where)
        if kind == 0:
            refuse(where, f"{account['address']} is a node, not an account")
        if account["organisation"] not in titles:
            refuse(where, f"the organisation {account['organisation']} is not listed")
        owners[address] = titles[account["organisation"]]
    return owners


def _parameters(value: object) -> list[Value]:
    where = "genesis.parameters"
    if not isinstance(value, dict) or not set(cast("Members", value)) <= set(PARAMETERS):
        refuse(where, "is no object, or has an unknown member")
    found = cast("Members", value)
    return [
        integer(found.get(own, default), f"{where}.{own}", least, most)
        for own, (default, least, most) in PARAMETERS.items()
    ]


# ---- 3 Scripts, and 4 transactions -----------------------------------------------------------

WIRE: Shape = ["bytes", "bytes", (["count", "bytes64"], 1, 16), "any"]
BODY: Shape = [
    *[
        "u8",
        "bytes32",
        "u32",
        "name",
        "u8",
        "bytes32",
        "bytes32?",
        "bytes16",
        "count",
        "count",
        "bytes32?",
        "any",
    ]
]
CALL: Shape = ["zero", "name", "name", "bytes"]
SUMMARY: Shape = ["one", "operations", "bytes32", "bool"]
SCRIPT: Shape = ["kind", "u8", ("bytes34", 1, 16)]


@dataclass(frozen=True)
class Transaction:
    """A transaction whose form, chain and script hold.

    `calls` are (contract, method, arguments), `signed` (key, signature).
    """

    wire: bytes
    identity: bytes
    module: str
    level: int
    account: bytes
    calls: list[tuple[str, str, bytes]]
    is_envelope: bool
    signed: list[tuple[bytes, bytes]]

    def operation(self, index: int) -> bytes:
        """The id of an operation, 32 bytes."""
        if not self.is_envelope:
            return self.identity
        return tagged("kl.operation-id", self.identity + index.to_bytes(4, "big"))


def read_transaction(wire: bytes, chain: Chain) -> Transaction:
    """Everything of a transaction (4) but the signatures, which `check_signatures` judges."""
    where = "transaction"
    body_bytes, script, signatures, operations = record(wire, where, ENVELOPE_BYTES, WIRE)
    body = record(body_bytes, "transaction.body", ENVELOPE_BYTES, BODY)
    version, genesis_hash, group, module, level, account, signer = body[:7]
    integer(version, "transaction.version", VERSION, VERSION)
    if genesis_hash != chain.genesis_hash or group != chain.group:
        refuse(where, "names another chain or group")
    calls, is_envelope = _calls(body[11], operations)
    if not is_envelope and len(wire) > TRANSACTION_BYTES:
        refuse(where, f"has {len(wire)} bytes, at most {TRANSACTION_BYTES} are allowed")
    if tagged("kl.address", script) != (account if signer is None else signer):
        refuse("transaction.script", "is not that of the signer")
    return Transaction(
        wire,
        tagged("kl.transaction", body_bytes),
        module,
        level,
        account,
        [(contract, method, arguments) for _, contract, method, arguments in calls],
        is_envelope,
        _signers(script, signatures, chain),
    )


def _calls(payload: Value, operations: Value) -> tuple[list[Any], bool]:
    """The calls of a payload, and whether it is an envelope whose root binds them."""
    where = "transaction.payload"
    if operations is None:
        return [read(payload, CALL, where)], False
    _, count, root, _ = read(payload, SUMMARY, where)
    calls = read(operations, (CALL, count, count), "transaction.operations")
    if root_of([b"kl.operation\0" + encode(item) for item in calls]) != root:
        refuse("transaction.operations", "are not those that the signed root commits to")
    return calls, True


def _signers(script: bytes, signatures: Any, chain: Chain) -> list[tuple[bytes, bytes]]:
    """(key, signature) of exactly `threshold` keys of a script (3), in ascending order."""
    where = "transaction.script"
    kind, threshold, keys = record(script, where, KIB, SCRIPT)
    integer(threshold, where, 1, len(keys))
    if kind != 2 and len(keys) != 1:
        refuse(where, "a node or a terminal has one key")
    if any(low >= high for low, high in pairwise(keys)):
        refuse(where, "keys must be in strictly ascending order")
    if any(key[0] not in chain.key_types or public_key(key) is None for key in keys):
        refuse(where, "holds a key that is invalid or of a kind that the chain does not allow")
    where = "transaction.signatures"
    if len(signatures) != threshold:
        refuse(where, f"are {len(signatures)}, not {threshold}")
    indexes = [integer(index, where, 0, len(keys) - 1) for index, _ in signatures]
    if any(low >= high for low, high in pairwise(indexes)):
        refuse(where, "must be in strictly ascending order of keys")
    return [(keys[index], signature) for index, signature in signatures]


def check_signatures(transaction: Transaction, check: SignatureCheck) -> None:
    """Refuse unless each key signed the transaction's id."""
    for key, signature in transaction.signed:
        if not check(key, transaction.identity, signature):
            refuse("transaction.signatures", f"that of key {key.hex()} is not valid")


# ---- 6 Headers and certificates --------------------------------------------------------------

HEADER: Shape = [
    *("u8", "u32", "height", "bytes32", "count", "index", *["bytes32"] * 6),
    (["index", "strikes", "count"], 0, VALIDATORS),
    *["bytes32"] * 5,
]
CERTIFICATE: Shape = ["height", "count", "bytes32", (["index", "bytes64"], 1, VALIDATORS)]


@dataclass(frozen=True)
class Header:
    """The fields of a header that proofs need, and its hash."""

    hash: bytes
    height: int
    previous_hash: bytes
    time: int
    validators_hash: bytes
    next_validators_hash: bytes
    batches_root: bytes
    state_root: bytes
    receipts_root: bytes
    history_root: bytes


def read_header(data: bytes, chain: Chain, where: str) -> Header:
    """A header (6.1) of this chain's group; who decided it is for `check_certificate`."""
    found = record(data, where, HEADER_BYTES, HEADER)
    integer(found[0], f"{where}.version", VERSION, VERSION)
    if found[1] != chain.group:
        refuse(f"{where}.group", "names another group")
    needed = (found[place] for place in (2, 3, 4, 6, 7, 9, 13, 14, 17))
    return Header(tagged("kl.header", data), *needed)


def check_certificate(
    data: bytes, header: Header, ruling: Validators, chain: Chain, check: SignatureCheck
) -> None:
    """Refuse unless a quorum of the set that rules the header's height decided it (6.3)."""
    where = "header.certificate"
    if header.validators_hash != ruling.hash:
        refuse("header.validators_hash", f"height {header.height} is ruled by other validators")
    height, round_number, block, signed = record(data, where, CERTIFICATE_BYTES, CERTIFICATE)
    if height != header.height or block != header.hash:
        refuse(where, f"is not that of the header of height {header.height}")
    if not ruling.quorum <= len(signed) <= len(ruling.members):
        refuse(where, f"has {len(signed)} signatures, a quorum is {ruling.quorum}")
    if any(low[0] >= high[0] for low, high in pairwise(signed)):
        refuse(where, "signers must be in strictly ascending order")
    vote = encode([chain.genesis_hash, chain.group, 2, height, round_number, block, -1])
    for index, signature in signed:
        key = ruling.members[integer(index, where, 0, len(ruling.members) - 1)][1]
        if key[0] != SECP256K1 or not check(key, tagged("kl.vote", vote), signature):
            refuse(where, f"the signature of validator {index} is not valid")


Succession: TypeAlias = list[tuple[int, Validators]]
"""(first height, the set that rules from there on), ascending."""
CHANGE = fields(
    "certificate:hex header:hex", validators=(fields("address:hex32 key:hex34"), 1, VALIDATORS)
)


def follow(changes: list[Members], chain: Chain, check: SignatureCheck) -> Succession:
    """The sets that changes lead to from genesis, each handed over by the one before (11)."""
    sets: Succession = [(1, chain.validators)]
    for number, change in enumerate(changes):
        where, (first, ruling) = f"validators[{number}]", sets[-1]
        header = read_header(change["header"], chain, where)
        if header.height < first:
            refuse(where, "its header is below the first height of the set that decided it")
        pairs = [(item["address"], item["key"]) for item in change["validators"]]
        if any(low[0] >= high[0] for low, high in pairwise(pairs)):
            refuse(where, "validators must ascend by address")
        after = Validators(tuple(pairs))
        if after == ruling or after.hash != header.next_validators_hash:
            refuse(where, "the header commits to other validators, or nothing changes")
        check_certificate(change["certificate"], header, ruling, chain, check)
        sets.append((header.height + 1, after))
    return sets


def ruling_at(sets: Succession, height: int) -> Validators:
    """The newest set that rules from this height or one below it."""
    return next(validators for first, validators in reversed(sets) if first <= height)


# ---- 7 Receipts ------------------------------------------------------------------------------

STATUSES = (
    *("ok", "reverted", "duplicate", "expired", "unknown namespace", "unknown account"),
    *("signer not current", "after not found", "unknown contract", "unknown method"),
    *("bad arguments", "aborted"),
)
RECEIPT: Shape = [
    "bytes32",
    "status",
    "error",
    "count",
    "bytes",
    (["name", "name", "bytes"], 0, 32),
]


def read_receipt(data: bytes) -> Any:
    """The fields of a receipt: operation, status, error, gas used, output, events."""
    found = record(data, "receipt", RECEIPT_BYTES, RECEIPT)
    if len(found[4]) > OUTPUT_BYTES:
        refuse("receipt.output", f"has more than {OUTPUT_BYTES} bytes")
    return found


def receipts_root(receipt: bytes, found: Members, module: str, level: int) -> tuple[bytes, bytes]:
    """The roots over the namespace and over the block that the positions of a receipt lead to."""
    position = found["receipt_position"]
    own = root_above(b"kl.receipt\0" + receipt, position, "receipt.receipt_position")
    entry = b"kl.namespace-receipts\0" + encode([module, level, position["count"], own])
    return own, root_above(entry, found["receipts_position"], "receipt.receipts_position")


# ---- 9 Registrations, and 10 openings --------------------------------------------------------

LABELS = ("head", "middle", "record", "remarks", "tail")
REGISTRATION_ARGUMENTS: Shape = [*["bytes32"] * 5, ["u8", "u8", "bytes32", "bytes32"]]
SUPERSESSION: Shape = ["bytes32", "count", "change", "any"]


def registration_of(call: tuple[str, str, bytes]) -> dict[str, bytes] | None:
    """The commitment of each label that a call of the data index puts on chain (9), if it does."""
    where, (contract, method, arguments) = "transaction.arguments", call
    if contract != "data_index" or method not in {"register", "supersede"}:
        return None
    value = decode(arguments, where, TRANSACTION_BYTES)
    if method == "supersede":
        # Which kinds have a registration was the contract's to judge: the receipt says it did.
        value = read(value, SUPERSESSION, where)[3]
        if value is None:
            return None
    head, middle, tail, own, _, root = read(value, REGISTRATION_ARGUMENTS, where)
    return {"head": head, "middle": middle, "tail": tail, "remarks": root[2], "record": own}


def check_opening(data: bytes, beside: bytes | None, verdict: "Verdict") -> list[str]:
    """The labels of the parts that an opening shows, each held against its commitment (10)."""
    names = {"account", "format", "index", "parts"}
    found = members(document(data, "opening", OPENING_BYTES), "opening", names)
    read(found["format"], "kanglian-opening/1", "opening.format")
    if verdict.commitments is None:
        refuse("opening", "the operation registers no index")
    account = read(found["account"], "hex32", "opening.account")
    if account.hex() != verdict.facts["account"]:
        refuse("opening.account", "is another one than that of the proof")
    if read(found["index"], "hex32", "opening.index").hex() != verdict.facts["operation"]:
        refuse("opening.index", "is another one than that of the proof")
    parts = found["parts"]
    if not isinstance(parts, dict) or not parts or not set(cast("Members", parts)) <= set(LABELS):
        refuse("opening.parts", "there is none, or an unknown one")
    if beside is not None and "record" not in parts:
        refuse("opening.parts", "a record is given, but its part is not shown")
    for label, part in cast("Members", parts).items():
        where = f"opening.parts.{label}"
        shown = members(part, where, {"content", "salt"})
        content = _content(shown["content"], beside if label == "record" else None, where)
        salt = read(shown["salt"], "hex32", where)
        committed = tagged("kl.commitment", encode([account, label, salt, content]))
        if committed != verdict.commitments[label]:
            refuse(where, "is not what the chain commits to")
    return list(cast("Members", parts))


def _content(value: object, beside: bytes | None, where: str) -> bytes:
    """The exact bytes of a part, from the document or from the record beside it."""
    if value is None:
        if beside is None:
            refuse(where, "has no content in the document, and no record is given")
        return beside
    if not isinstance(value, str):
        refuse(where, "its content is no Base64")
    try:
        found = base64.b64decode(value.encode(), validate=True)
    except (binascii.Error, ValueError):
        refuse(where, "its content is no Base64")
    if base64.b64encode(found).decode() != value:
        refuse(where, "its content is Base64 with spare bits or without padding")
    if beside is not None and beside != found:
        refuse(where, "the record beside the document is another one")
    return found


# ---- 11 Registration proofs ------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What a proof says that holds, as it is printed: bytes in hexadecimal, times in milliseconds.

    `time` is that of the header it rests on, `commitments` are by the label of each part where an
    operation registers an index.
    """

    facts: Members
    time: int
    commitments: dict[str, bytes] | None = None


REGISTRATION = fields(
    "batch:hex32 certificate:hex format:kanglian-proof/1 header:hex namespace_transactions:number "
    "next_certificate:hex next_header:hex operation:operation receipt:hex transaction:hex",
    transaction_position=POSITION,
    batch_position=POSITION,
    namespace_position=POSITION,
    receipt_position=POSITION,
    receipts_position=POSITION,
)


def check_registration(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-proof/1`: an operation, in headers that the validators of genesis decided."""
    return _registration(read(proof, REGISTRATION, "proof"), chain, [(1, chain.validators)], check)


def check_anchored(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-proof/2`: the validators changed since genesis, and each change is shown."""
    changes = (CHANGE, 1, 512)
    shape = fields("format:kanglian-proof/2", changes=changes, registration=REGISTRATION)
    found = read(proof, shape, "proof")
    sets = follow(found["changes"], chain, check)
    return _registration(found["registration"], chain, sets, check)


def _registration(found: Members, chain: Chain, sets: Succession, check: SignatureCheck) -> Verdict:
    transaction = read_transaction(found["transaction"], chain)
    number: int = found["operation"]
    if number >= len(transaction.calls):
        refuse("transaction", f"has no operation {number}")
    header = read_header(found["header"], chain, "header")
    following = read_header(found["next_header"], chain, "header.next")
    if following.height != header.height + 1 or following.previous_hash != header.hash:
        refuse("header.next", "does not follow the header")
    if sets[-1][0] > following.height:
        refuse("validators", "a set begins beyond the headers")
    _check_inclusion(found, transaction, header)
    module, level = transaction.module, transaction.level
    if receipts_root(found["receipt"], found, module, level)[1] != following.receipts_root:
        refuse("receipt", "the paths do not lead from the receipt to the next header")
    receipt_of, status, *_ = read_receipt(found["receipt"])
    if receipt_of != transaction.operation(number):
        refuse("receipt.id", "is that of another operation")
    # Signatures cost the most, so they come last.
    check_signatures(transaction, check)
    ruling, ruling_next = (ruling_at(sets, item.height) for item in (header, following))
    check_certificate(found["certificate"], header, ruling, chain, check)
    check_certificate(found["next_certificate"], following, ruling_next, chain, check)
    if status != 0:
        refuse("receipt.status", f"the operation was not successful: {STATUSES[status]}")
    contract, method, _ = transaction.calls[number]
    facts = {
        "transaction": transaction.identity.hex(),
        "operation": transaction.operation(number).hex(),
        "account": transaction.account.hex(),
        "organisation": chain.owners.get(transaction.account, ""),
        "module": module,
        "level": level,
        "contract": contract,
        "method": method,
        "height": header.height,
        "time_ms": header.time,
        "anchor": chain.genesis_hash.hex(),
    }
    return Verdict(facts, header.time, registration_of(transaction.calls[number]))


def _check_inclusion(found: Members, transaction: Transaction, header: Header) -> None:
    """Step 3: from the wire up to `batches_root`."""
    position = found["transaction_position"]
    entry = b"kl.transaction-leaf\0" + transaction.wire
    root = root_above(entry, position, "inclusion.transaction_position")
    entry = b"kl.namespace-batch\0" + encode([found["batch"], position["count"], root])
    share = root_above(entry, found["batch_position"], "inclusion.batch_position")
    count = found["namespace_transactions"]
    entry = b"kl.namespace\0" + encode([transaction.module, transaction.level, count, share])
    root = root_above(entry, found["namespace_position"], "inclusion.namespace_position")
    if root != header.batches_root:
        refuse("inclusion", "the paths do not lead from the transaction to the header")


# ---- P2 Anchor -------------------------------------------------------------------------------

ANCHOR = fields("certificate:hex header:hex", changes=(CHANGE, 0, 512))


def check_anchor(anchor: Members, chain: Chain, check: SignatureCheck) -> Header:
    """The header of an anchor, if the validators of its height decided it."""
    sets = follow(anchor["changes"], chain, check)
    header = read_header(anchor["header"], chain, "header")
    if sets[-1][0] > header.height:
        refuse("validators", "a set begins beyond the header")
    ruling = ruling_at(sets, header.height)
    check_certificate(anchor["certificate"], header, ruling, chain, check)
    return header


def anchored(facts: Members, header: Header, chain: Chain) -> Verdict:
    """The verdict that rests on this header."""
    under = {
        "header_height": header.height,
        "header_hash": header.hash.hex(),
        "header_time_ms": header.time,
        "anchor": chain.genesis_hash.hex(),
    }
    return Verdict({**facts, **under}, header.time)


# ---- P3 Ways and runs ------------------------------------------------------------------------

EMPTY = bytes(32)
OTHER = fields("place:hex32 value:hex32")
WAY = fields("", other={"?": OTHER}, siblings=("hex32?", 0, 256))
STATE_WAY = fields("writes_root:hex32", namespace=WAY, namespaces=WAY)
NAMESPACE = "module:name level:u8 "
RUN = "count:size first:number height:number"
NODES: Shape = ("hex32", 0, 126)


def root_of_way(way: Members, place: bytes, value: bytes | None, where: str) -> bytes:
    """The root of the sparse tree in which a place has this value digest, or none."""
    siblings, other = way["siblings"], way["other"]
    bits = int.from_bytes(place, "big")
    node = EMPTY
    if value is not None:
        if other is not None:
            refuse(where, "there is a value, and another pair in its place")
        node = _leaf(place, value)
    elif other is not None:
        common = 256 - (bits ^ int.from_bytes(other["place"], "big")).bit_length()
        if common == 256 or common < len(siblings):
            refuse(where, "the other pair does not stand in this place")
        node = _leaf(other["place"], other["value"])
    for level in range(len(siblings) - 1, -1, -1):
        sibling = EMPTY if siblings[level] is None else siblings[level]
        if siblings[level] == EMPTY:
            refuse(where, "an empty subtree is null")
        is_right = bits >> 255 - level & 1
        node = digest(b"\x01" + (sibling + node if is_right else node + sibling))
    return node


def _leaf(place: bytes, value: bytes) -> bytes:
    return digest(b"\x00kl.state-leaf\0" + place + value)


def check_state_way(found: Members, path: bytes, value: bytes | None, header: Header) -> None:
    """Refuse unless the way of a proof leads from a path, with 0 or 1 before it (8), to the root.

    `value` is what the leaf stands for, before it is hashed.
    """
    way, place = found["way"], tagged("kl.state-key", path)
    held = None if value is None else tagged("kl.state-value", value)
    own = root_of_way(way["namespace"], place, held, "state.way")
    above = tagged("kl.state-key", found["module"].encode() + b"\0" + bytes([found["level"]]))
    over = root_of_way(way["namespaces"], above, None if own == EMPTY else own, "state.namespaces")
    if tagged("kl.state", over + way["writes_root"]) != header.state_root:
        refuse("state", "the way does not lead to the header")


def log_head(entries: list[Value], run: Members) -> list[Value]:
    """[count, height, sized root] of the log that a run of [key, data] leads to."""
    leaves = [digest(b"\x00kl.log-entry\0" + encode(entry)) for entry in entries]
    head = head_of_run(leaves, run["first"], run["count"], run["nodes"])
    return [run["count"], run["height"], sized_root(run["count"], head)]


# ---- P4 State, P5 log, P6 completeness -------------------------------------------------------


def check_state(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-state/1` (P4): the value of a key of a map, or that there is none."""
    words = NAMESPACE + "contract:name format:kanglian-state/1 key:hex* map:name value:hex*?"
    found = read(proof, fields(words, anchor=ANCHOR, way=STATE_WAY), "proof")
    if len(found["key"]) > 256:
        refuse("proof.key", "has more than 256 bytes")
    header = check_anchor(found["anchor"], chain, check)
    path = _path(found["contract"], found["map"]) + found["key"]
    check_state_way(found, b"\0" + path, found["value"], header)
    shown = as_text(found, "module level contract map key value")
    return anchored({**shown, "height": header.height - 1}, header, chain)


def _path(*names: str) -> bytes:
    return b"".join(item.encode() + b"\0" for item in names)


def check_log(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-log/1` (P5): the head of a log, and some of its entries."""
    run_shape = fields(RUN, entries=(fields("data:hex* key:hex*"), 0, 100), nodes=NODES)
    words = NAMESPACE + "contract:name format:kanglian-log/1 log:name"
    shape = fields(words, anchor=ANCHOR, way=STATE_WAY, run={"?": run_shape})
    found = read(proof, shape, "proof")
    header = check_anchor(found["anchor"], chain, check)
    run: Members = found["run"] or {"entries": [], "first": 0}
    head, value = [0, 0, root_of([])], None
    if found["run"] is not None:
        head = log_head([[item["key"], item["data"]] for item in run["entries"]], run)
        value = encode(head)
    path = b"\1" + _path(found["contract"], found["log"])
    check_state_way(found, path, value, header)
    facts = {
        **as_text(found, "module level contract log"),
        "height": header.height - 1,
        "count": head[0],
        "last_height": head[1],
        "root": cast("bytes", head[2]).hex(),
        "first": run["first"],
        "entries": [as_text(item, "key data") for item in run["entries"]],
    }
    return anchored(facts, header, chain)


def check_completeness(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-completeness/1` (P6): all that a range of blocks holds of a namespace."""
    names = "height transactions batches receipts results"
    block = fields("batches:hex32 height:size receipts:number results:hex32 transactions:number")
    run_shape = fields(RUN, blocks=(block, 1, 1_002), nodes=NODES)
    words = NAMESPACE + "format:kanglian-completeness/1 start:size stop:size"
    shape = fields(words, anchor=ANCHOR, way=STATE_WAY, run={"?": run_shape})
    found = read(proof, shape, "proof")
    header = check_anchor(found["anchor"], chain, check)
    start, stop = found["start"], found["stop"]
    if not start <= stop < header.height:
        refuse("completeness", "the range is empty or reaches beyond the state")
    if found["level"] > chain.modules.get(found["module"], -1):
        refuse("completeness", "genesis does not name the namespace, so no log counts its blocks")
    run: Members = found["run"] or {"blocks": []}
    value = None
    if found["run"] is not None:
        entries: list[Value] = [
            [item["height"].to_bytes(8, "big"), encode([item[name] for name in names.split()])]
            for item in run["blocks"]
        ]
        value = encode(log_head(entries, run))
        _check_ends([item["height"] for item in run["blocks"]], run, start, stop)
    check_state_way(found, b"\1\0blocks", value, header)
    inside = [item for item in run["blocks"] if start <= item["height"] <= stop]
    facts = {
        **as_text(found, "module level start stop"),
        "transactions": sum(item["transactions"] for item in inside),
        "receipts": sum(item["receipts"] for item in inside),
        "blocks": [as_text(item, names) for item in inside],
    }
    return anchored(facts, header, chain)


def _check_ends(heights: list[int], run: Members, start: int, stop: int) -> None:
    """Rules 3 to 5: one neighbour on either side, or the end of the log."""
    if any(low >= high for low, high in pairwise(heights)):
        refuse("completeness", "the blocks do not ascend")
    below, above = sum(item < start for item in heights), sum(item > stop for item in heights)
    if below > 1 or (not below and run["first"]):
        refuse("completeness", "one block below the range, or the beginning of the log")
    if above > 1 or (not above and run["first"] + len(heights) != run["count"]):
        refuse("completeness", "one block above the range, or the end of the log")


def as_text(item: Members, names: str) -> Members:
    """These members of an object, bytes in hexadecimal."""
    found = {name: item[name] for name in names.split()}
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in found.items()}


# ---- P7 Receipt, P8 event, P9 transaction ----------------------------------------------------

RECEIPT_PROOF = fields(
    NAMESPACE + "format:kanglian-receipt/1 receipt:hex",
    anchor=ANCHOR,
    receipt_position=POSITION,
    receipts_position=POSITION,
)


def _receipt(found: Members, chain: Chain, check: SignatureCheck) -> tuple[Any, Members, Header]:
    """Its fields, what is printed of it, and the header it stands under."""
    header = check_anchor(found["anchor"], chain, check)
    own, root = receipts_root(found["receipt"], found, found["module"], found["level"])
    if root != header.receipts_root:
        refuse("receipt", "the paths do not lead from the receipt to the header")
    receipt = read_receipt(found["receipt"])
    operation, status, error, _, output, events = receipt
    facts: Members = {
        **as_text(found, "module level"),
        "height": header.height - 1,
        **as_text(found["receipt_position"], "index count"),
        "results": own.hex(),
        "operation": operation.hex(),
        "status": STATUSES[int(status)].replace(" ", "_").upper(),
        "error": error,
        "output": output.hex(),
        "events": [_event(event) for event in events],
    }
    return receipt, facts, header


def _event(event: Any) -> Members:
    contract, own, data = event
    return {"contract": contract, "name": own, "data": data.hex()}


def check_receipt(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-receipt/1` (P7): what became of an operation, whatever that is."""
    _, facts, header = _receipt(read(proof, RECEIPT_PROOF, "proof"), chain, check)
    return anchored(facts, header, chain)


def check_event(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-event/1` (P8): one event of a receipt."""
    shape = fields("event:event format:kanglian-event/1", receipt=RECEIPT_PROOF)
    found = read(proof, shape, "proof")
    parts, receipt, header = _receipt(found["receipt"], chain, check)
    events, number = parts[5], found["event"]
    if number >= len(events):
        refuse("receipt.events", f"there is no event {number}")
    return anchored({"event": number, **_event(events[number]), "receipt": receipt}, header, chain)


def check_transaction(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-transaction/1` (P9): a signed transaction, and the receipt of an operation."""
    words = "format:kanglian-transaction/1 operation:operation transaction:hex"
    found = read(proof, fields(words, receipt=RECEIPT_PROOF), "proof")
    parts, receipt, header = _receipt(found["receipt"], chain, check)
    transaction = read_transaction(found["transaction"], chain)
    number: int = found["operation"]
    if (transaction.module, transaction.level) != (receipt["module"], receipt["level"]):
        refuse("transaction", "is of another namespace than the receipt")
    if number >= len(transaction.calls) or transaction.operation(number) != parts[0]:
        refuse("receipt.id", "is that of another operation")
    check_signatures(transaction, check)
    contract, method, arguments = transaction.calls[number]
    facts = {
        "transaction": transaction.identity.hex(),
        "account": transaction.account.hex(),
        "operation_index": number,
        "contract": contract,
        "method": method,
        "arguments": arguments.hex(),
        "receipt": receipt,
    }
    return anchored(facts, header, chain)


# ---- P10 Old header, P11 old history ---------------------------------------------------------


def check_header(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-header/1` (P10): an old header in the history of a certified one."""
    shape = fields("format:kanglian-header/1 header:hex", anchor=ANCHOR, path=("hex32", 0, 63))
    found = read(proof, shape, "proof")
    header = check_anchor(found["anchor"], chain, check)
    old = read_header(found["header"], chain, "history.header")
    position = {"index": old.height, "count": header.height, "path": found["path"]}
    if root_above(b"kl.history\0" + old.hash, position, "history.path") != header.history_root:
        refuse("history", "the path does not lead from the old header to the certified one")
    facts = {"height": old.height, "hash": old.hash.hex(), "time_ms": old.time}
    return anchored(facts, header, chain)


def check_history(proof: Members, chain: Chain, check: SignatureCheck) -> Verdict:
    """`kanglian-history/1` (P11): an old history is the beginning of a newer one."""
    words = "format:kanglian-history/1 head:hex32 size:size"
    shape = fields(words, anchor=ANCHOR, path=("hex32", 0, 64))
    found = read(proof, shape, "proof")
    header = check_anchor(found["anchor"], chain, check)
    new_head = extended(found["head"], found["size"], header.height, found["path"])
    if sized_root(header.height, new_head) != header.history_root:
        refuse("history", "the path does not lead to the certified header")
    root = sized_root(found["size"], found["head"])
    return anchored({"size": found["size"], "root": root.hex()}, header, chain)


def extended(old_head: bytes, size: int, new_size: int, path: list[bytes]) -> bytes:
    """The head of `new_size` entries that begin with those of `old_head` (RFC 9162 2.1.4.2)."""
    where = "history.path"
    if size > new_size:
        refuse(where, "a history does not shrink")
    if size == new_size:
        if path:
            refuse(where, "equal sizes have no path")
        return old_head
    # Of 2**k entries the old head is a node of the new tree and opens the path unsaid.
    steps = path if size & (size - 1) else [old_head, *path]
    if not steps:
        refuse(where, "the path has a step too few")
    place, last = size - 1, new_size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = steps[0]
    for step in steps[1:]:
        if last == 0:
            refuse(where, "the path has a step too many")
        if place & 1 or place == last:
            old, new = digest(b"\x01" + step + old), digest(b"\x01" + step + new)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            new = digest(b"\x01" + new + step)
        place, last = place >> 1, last >> 1
    if last:
        refuse(where, "the path has a step too few")
    if old != old_head:
        refuse(where, "the path leads to another old head")
    return new


# ---- All kinds -------------------------------------------------------------------------------

KINDS: dict[str, Callable[[Members, Chain, SignatureCheck], Verdict]] = {
    "kanglian-proof/1": check_registration,
    "kanglian-proof/2": check_anchored,
    "kanglian-state/1": check_state,
    "kanglian-log/1": check_log,
    "kanglian-completeness/1": check_completeness,
    "kanglian-receipt/1": check_receipt,
    "kanglian-event/1": check_event,
    "kanglian-transaction/1": check_transaction,
    "kanglian-header/1": check_header,
    "kanglian-history/1": check_history,
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
    proof: bytes,
    genesis: bytes,
    opening: bytes | None = None,
    record_bytes: bytes | None = None,
    not_before: int = 0,
) -> Verdict:
    """The verdict of everything that is given, or `Refused` at the first thing that fails."""
    verdict = check_proof(proof, read_genesis(genesis))
    if verdict.time < not_before:
        refuse("stale", f"the header is of {verdict.time}, before {not_before}")
    if opening is None:
        return verdict
    opened = check_opening(opening, record_bytes, verdict)
    facts = {**verdict.facts, "opened": opened, "record_checked": record_bytes is not None}
    return replace(verdict, facts=facts)


# ---- The command -----------------------------------------------------------------------------

LABELS_ZH = {
    "transaction": "交易", "operation": "操作", "account": "账户", "organisation": "机构",
    "module": "模块", "level": "级别", "contract": "合约", "method": "方法",
    "height": "区块高度", "time_ms": "区块时间 (毫秒)", "anchor": "创世哈希",
    "opened": "已核对的部分", "record_checked": "已核对病历", "map": "映射", "log": "日志",
    "key": "键", "value": "值", "count": "总数", "last_height": "最后一条的高度", "root": "根",
    "first": "起始位置", "entries": "条目", "start": "起始高度", "stop": "终止高度",
    "transactions": "交易数", "receipts": "回执数", "blocks": "区块", "index": "序号",
    "results": "回执根", "status": "状态", "error": "错误", "output": "输出", "events": "事件",
    "event": "事件序号", "name": "名称", "data": "数据", "receipt": "回执", "arguments": "参数",
    "operation_index": "操作序号", "hash": "区块哈希", "size": "历史长度",
    "header_height": "所依据区块头的高度", "header_hash": "所依据区块头的哈希",
    "header_time_ms": "所依据区块头的时间 (毫秒)",
}  # fmt: skip


def say(line: str) -> None:
    """One line on standard output."""
    sys.stdout.buffer.write(line.encode() + b"\n")


def report(verdict: Verdict, language: str, *, as_json: bool) -> None:
    """Print what holds."""
    if as_json:
        say(json.dumps({"verified": True, **verdict.facts}, ensure_ascii=False))
        return
    say("证明成立。" if language == "zh" else "VERIFIED: the proof holds.")
    for key, value in verdict.facts.items():
        label = LABELS_ZH[key] if language == "zh" else key
        shown = "none" if value is None else value or "-" if isinstance(value, str) else value
        say(f"  {label}: {shown}")


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
    parser.add_argument(
        "--not-before",
        type=int,
        default=0,
        metavar="MS",
        help="refuse a header of before this time, in milliseconds since 1970",
    )
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.add_argument("--lang", choices=("en", "zh"), default="en", help="language of the output")
    options = parser.parse_args(arguments)
    if options.record is not None and options.opening is None:
        parser.error("--record needs the --opening with its salt")
    try:
        proof = read_file(options.proof, PROOF_BYTES) or b""
        genesis = read_file(options.genesis, GENESIS_BYTES) or b""
        opening = read_file(options.opening, OPENING_BYTES)
        beside = read_file(options.record, RECORD_BYTES)
    except OSError as error:
        sys.stderr.write(f"cannot read {error.filename}: {error.strerror}\n")
        return 2
    try:
        if beside is not None and len(beside) > RECORD_BYTES:
            refuse("opening", f"the record has more than {RECORD_BYTES} bytes")
        verdict = verify(proof, genesis, opening, beside, options.not_before)
    except Refused as refused:
        report_refusal(refused, options.lang, as_json=options.json)
        return 1
    report(verdict, options.lang, as_json=options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
