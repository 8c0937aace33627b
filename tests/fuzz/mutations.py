"""Structure-aware mutations: valid samples, bent where parsers break.

A message is made by one to three operators on a sample of its kind: flips, cuts, insertions and
splices of bytes; and, knowing the grammar, integers at their boundaries, other types, lists cut,
doubled or grown, deep nesting, counts that lie, and encodings that are valid but not canonical.
Byte strings that hold an encoded array are entered, so a signed body is bent inside its envelope.
The same random generator gives the same message.
"""

import json
from random import Random

import msgspec

decode = msgspec.msgpack.Decoder().decode
encode = msgspec.msgpack.Encoder().encode

INTEGERS = (
    *(-1, 0, 1, 2, 23, 24, 31, 32, 64, 127, 128, 255, 256, 65_535, 65_536),
    *(2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**31), -(2**63)),
)
# Lengths as frames and log records write them.
LENGTHS = tuple(
    number.to_bytes(4, "big")
    for number in (*range(9), 63, 64, 255, 513, 2**16, 2**17 + 1, 2**20 + 2**16 + 2, 2**32 - 1)
)
LIES = (
    *(b"\xdd\xff\xff\xff\xff", b"\xdc\xff\xff", b"\xc6\xff\xff\xff\xff", b"\xdb\x7f\xff\xff\xff"),
    *(b"\xdf\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x00", b"\x9f", b"\xbf", b"\xc1"),
)
LONG_FORMS = (
    *(b"\xcc\x01", b"\xcd\x00\x01", b"\xce\x00\x00\x00\x01", b"\xcf" + bytes(7) + b"\x01"),
    *(b"\xd0\x01", b"\xd9\x01a", b"\xda\x00\x01a", b"\xc5\x00\x01a", b"\xdc\x00\x00"),
    *(b"\xca\x00\x00\x00\x00", b"\xcb\x7f\xf8" + bytes(6), b"\x80", b"\xd4\x00\x00", b"\xc2"),
)
OTHERS = (True, False, "", "a", b"", b"\x90", [], [[]], {}, 1.5, {"a": 1})
JSON_TOKENS = (
    *(
        b"NaN",
        b"Infinity",
        b"-0",
        b"1e999",
        b"1.50",
        b"9" * 400,
        b"0x1",
        b"01",
        b"+1",
        b'"\\ud800"',
    ),
    *(b'"\\u0000"', b"null", b"true", b"{}", b"[]", b'""', b"\xed\xa0\x80", b"\xff", b"\\", b'"'),
    *(b",", b":", b'"a":1,', b'"a":1,"a":2,', b"[" * 200, b'{"a":' * 200, b"-1", b"1e-9"),
    *(b"9223372036854775808", b"18446744073709551616", b" ", b"\n", b"\xef\xbb\xbf", b"\x00"),
)


def mutated(generator: Random, samples: list[bytes], *, is_json: bool) -> bytes:
    """A message: now and then a sample as it is, mostly a bent one."""
    data = generator.choice(samples)
    kind = generator.random()
    if kind < 0.02:
        return data
    if kind < 0.5:
        data = _json_bent(generator, data) if is_json else _tree_bent(generator, data)
        if generator.random() < 0.7:
            return data
    for _ in range(generator.randint(1, 3)):
        data = _bytes_bent(generator, data, samples, JSON_TOKENS if is_json else LIES + LONG_FORMS)
    return data


def _bytes_bent(generator: Random, data: bytes, samples: list[bytes], pieces) -> bytes:
    size = len(data)
    at = int(generator.random() * (size + 1))
    match int(generator.random() * 9):
        case 8:
            at = 0 if generator.random() < 0.3 else at
            return data[:at] + generator.choice(LENGTHS) + data[at + 4 :]
        case 0 if size:
            flipped = bytearray(data)
            flipped[at % size] ^= 1 << int(generator.random() * 8)
            return bytes(flipped)
        case 1:
            return data[:at]
        case 2:
            return data + generator.randbytes(1 + int(generator.random() * 8))
        case 3:
            other = generator.choice(samples)
            return data[:at] + other[int(generator.random() * len(other)) :]
        case 4:
            return data[:at] + data[at + 1 + int(generator.random() * 8) :]
        case 5:
            length = 1 + int(generator.random() * 40)
            return data[:at] + data[at : at + length] + data[at:]
        case 6:
            return data[:at] + generator.choice(pieces) + data[at + 1 :]
        case _:
            return data[:at] + generator.choice(pieces) + data[at:]


def _tree_bent(generator: Random, data: bytes) -> bytes:
    try:
        tree = decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    return encode(_bent(generator, tree, 0))


def _bent(generator: Random, node: object, depth: int) -> object:
    """The node with one place below it changed."""
    if isinstance(node, list) and node and (depth == 0 or generator.random() < 0.85):
        if generator.random() < 0.12:
            return _list_bent(generator, node)
        copy = list(node)
        index = int(generator.random() * len(copy))
        copy[index] = _bent(generator, copy[index], depth + 1)
        return copy
    if isinstance(node, bytes) and len(node) > 1 and generator.random() < 0.8:
        if 0x90 <= node[0] <= 0x9F or node[0] in {0xDC, 0xDD}:
            return _tree_bent(generator, node)
        return _bytes_bent(generator, node, [node], LIES)
    return _leaf_bent(generator, node)


def _list_bent(generator: Random, items: list[object]) -> object:
    match int(generator.random() * 7):
        case 0:
            return items[:-1]
        case 1:
            return [*items, items[-1]]
        case 2:
            return items[1:]
        case 3:
            return items * 2
        case 4:
            return [*items[1:], items[0]]
        case 5:
            return items[::-1]
        case _:
            return items * int(2 + generator.random() * 300) if len(items) < 20 else items * 3


def _leaf_bent(generator: Random, node: object) -> object:
    match int(generator.random() * 8):
        case 0 | 1 | 2:
            return generator.choice(INTEGERS)
        case 3 if isinstance(node, int) and not isinstance(node, bool):
            return max(-(2**63), min(2**64 - 1, node + generator.choice((-1, 1, 256))))
        case 3:
            return None
        case 4:
            return generator.choice(
                (True, False, "", "a", b"", b"\x90", [], [[]], {}, 1.5, {"a": 1})
            )
        case 5:
            return _nested(generator.choice((2, 8, 9, 40, 400)))
        case 6:
            return [node]
        case _:
            return generator.randbytes(generator.choice((0, 1, 16, 31, 32, 33, 64, 65)))


def _nested(depth: int) -> object:
    node: object = []
    for _ in range(depth):
        node = [node]
    return node


def _json_bent(generator: Random, data: bytes) -> bytes:
    try:
        tree = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data
    bent = _json_node(generator, tree)
    try:
        if generator.random() < 0.2:
            return json.dumps(bent).encode()
        return msgspec.json.encode(bent)
    except (TypeError, ValueError, RecursionError):
        return data


def _json_node(generator: Random, node: object) -> object:
    if isinstance(node, dict) and node and generator.random() < 0.9:
        copy = dict(node)
        key = generator.choice(list(copy))
        match int(generator.random() * 10):
            case 0:
                del copy[key]
            case 1:
                copy[generator.choice(("", "a", "\x00", key + "x"))] = copy[key]
            case _:
                copy[key] = _json_node(generator, copy[key])
        return copy
    if isinstance(node, list) and node and generator.random() < 0.9:
        if generator.random() < 0.15:
            return _list_bent(generator, node)
        copy = list(node)
        index = int(generator.random() * len(copy))
        copy[index] = _json_node(generator, copy[index])
        return copy
    if isinstance(node, str) and node and generator.random() < 0.6:
        return _text_bent(generator, node)
    leaf = _leaf_bent(generator, node)
    return leaf.hex() if isinstance(leaf, bytes) else leaf


def _text_bent(generator: Random, text: str) -> str:
    at = int(generator.random() * len(text))
    match int(generator.random() * 6):
        case 0:
            return text[:at]
        case 1:
            return text[:at] + generator.choice("0fgzA =é中\U0001f600\x00") + text[at + 1 :]
        case 2:
            return text + text
        case 3:
            return text.upper()
        case 4:
            return text[:at] + text[at + 1 :]
        case _:
            return text * int(1 + generator.random() * 50) if len(text) < 200 else text
