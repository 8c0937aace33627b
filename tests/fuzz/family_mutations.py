"""Mutations of the documents of docs/proofs.md: any member of any kind, by its form alone.

Most bend one place of a valid document, which no verifier may then accept unless only certificates
changed. Some are *recertified*: the header is made to hold the root that the bent document leads
to, and its validators sign it, so that what is behind the hashes is reached; there, two verifiers
only have to agree. The same generator makes the same document.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any

import msgspec

from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import KanglianError
from ledger.history import TreeHead, extended_head, history_entry
from ledger.merkle import root_from_path, sized_root
from ledger.proofs import completeness, log, state
from ledger.proofs.family import _KINDS
from ledger.proofs.positions import ReceiptPlace, receipts_root_above
from ledger.sparse import EMPTY, place_of
from ledger.sparse_proof import root_of_path
from ledger.state import namespace_prefix
from ledger.state_root import BLOCKS_LOG, log_place, map_place, state_root, value_digest
from tests.fuzz.mutations import INTEGERS, _bent, mutated
from tests.fuzz.mutations import decode as decode_anything
from tests.fuzz.mutations import encode as encode_anything
from tests.fuzz.proof_mutations import Mutant, pick, text_of
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import VALIDATORS, certify_by

digest = SUITE.digest
STATE_ROOT, RECEIPTS_ROOT, HISTORY_ROOT = 13, 14, 17
"""Fields of a header."""


@dataclass(frozen=True)
class Spot:
    """A value of a document and where it stands: in an object or a list, under a name or index."""

    holder: Any
    at: Any

    @property
    def value(self) -> Any:
        return self.holder[self.at]


def spots(value: Any) -> Iterator[Spot]:
    """Every place of a document below its root."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for at, item in list(items):
        yield Spot(value, at)
        if isinstance(item, dict | list):
            yield from spots(item)


def text_bent(generator: Random, spot: Spot) -> None:
    text = spot.value
    at = int(generator.random() * (len(text) + 1))
    match int(generator.random() * 8):
        case 0 | 1 | 2 if text:
            at %= len(text)
            new = pick(generator, "0123456789abcdef")
            spot.holder[spot.at] = text[:at] + new + text[at + 1 :]
        case 3:
            spot.holder[spot.at] = text[: at & ~1]
        case 4:
            spot.holder[spot.at] = text + pick(generator, ("00", "0", "ff", "A", " "))
        case 5:
            spot.holder[spot.at] = pick(generator, ("", "00", "00" * 32, "ab" * 32, "a", "x" * 40))
        case 6:
            spot.holder[spot.at] = None
        case _:
            spot.holder[spot.at] = text[::-1]


def number_bent(generator: Random, spot: Spot) -> None:
    value = spot.value
    spot.holder[spot.at] = pick(
        generator,
        (value + 1, value - 1, value ^ 1, value * 2, 0, *INTEGERS, 2**53 - 1, True, None, "1"),
    )


def list_bent(generator: Random, spot: Spot) -> None:
    """An element dropped, added, exchanged, repeated; the end cut off; all in reverse."""
    items = spot.value
    at = int(generator.random() * (len(items) + 1))
    if not items:
        items.append(pick(generator, ("00" * 32, None, {}, {"data": "00", "key": ""})))
        return
    other = int(generator.random() * len(items))
    match int(generator.random() * 7):
        case 0 | 1:
            del items[at % len(items)]
        case 2:
            items.insert(at, items[other])
        case 3:
            items[at % len(items)], items[other] = items[other], items[at % len(items)]
        case 4:
            del items[at:]
        case 5:
            items.insert(at, pick(generator, ("00" * 32, "5a" * 32, None)))
        case _:
            items.reverse()


def object_bent(generator: Random, spot: Spot) -> None:
    names = sorted(spot.value) or ["a"]
    spot.value.setdefault(names[0], 0)
    match int(generator.random() * 4):
        case 0:
            del spot.value[pick(generator, names)]
        case 1:
            spot.value[pick(generator, ("a", "index", "path", "zz"))] = 0
        case 2:
            spot.holder[spot.at] = None
        case _:
            one, other = pick(generator, names), pick(generator, names)
            held = spot.value[one], spot.value[other]
            spot.value[other], spot.value[one] = held


def null_filled(generator: Random, spot: Spot) -> None:
    neighbour = {"place": "5a" * 32, "value": "00" * 32}
    run = {"count": 1, "entries": [], "first": 0, "height": 1, "nodes": ["00" * 32]}
    spot.holder[spot.at] = pick(generator, ("", "00", "00" * 32, neighbour, run, 0, []))


def bend(generator: Random, spot: Spot) -> None:
    """One place, as its form suggests."""
    match spot.value:
        case str():
            text_bent(generator, spot)
        case None:
            null_filled(generator, spot)
        case int():
            number_bent(generator, spot)
        case list():
            list_bent(generator, spot)
        case _:
            object_bent(generator, spot)


def exchanged(generator: Random, document: Any, other: Any) -> None:
    """Some members taken from another document."""
    shared = sorted(set(document) & set(other) - {"format"})
    for name in generator.sample(shared, min(len(shared), 1 + int(generator.random() * 2))):
        document[name] = other[name]


def bent_document(generator: Random, data: bytes, others: list[bytes]) -> Mutant:
    """A document with one place bent, now and then two, or its text bent as any JSON is."""
    document = json.loads(data)
    kind = document["format"].removeprefix("kanglian-")
    chance = generator.random()
    if chance < 0.05:
        return Mutant(f"{kind} text", mutated(generator, [data], is_json=True))
    if chance < 0.15:
        exchanged(generator, document, json.loads(pick(generator, others)))
        return Mutant(f"{kind} exchanged", text_of(document))
    for _ in range(1 if chance < 0.9 else 2):
        bend(generator, pick(generator, list(spots(document))))
    return Mutant(f"{kind} bent", text_of(document))


# ---- recertified: bent behind the hashes --------------------------------------------------------


def recertified_document(generator: Random, data: bytes) -> Mutant | None:
    """A document whose bent part its header holds; None when the part leads to no root at all."""
    document = json.loads(data)
    own = document.get("receipt") if isinstance(document.get("receipt"), dict) else document
    places = [
        spot
        for spot in spots(document)
        if spot.at not in {"anchor", "format"} and spot.value is not own
    ]
    anchor_spots = {id(spot.holder) for spot in spots(own["anchor"])} | {id(own["anchor"])}
    free = [spot for spot in places if id(spot.holder) not in anchor_spots]
    if own["format"] == "kanglian-receipt/1" and generator.random() < 0.5:
        bent = _bent(generator, decode_anything(bytes.fromhex(own["receipt"])), 0)
        own["receipt"] = encode_anything(bent).hex()
    else:
        bend(generator, pick(generator, free))
    kind = document["format"]
    header = decode_anything(bytes.fromhex(own["anchor"]["header"]))
    field, lead = _LEADS[own["format"]]
    try:
        header[field] = lead(own, header[2])
    except (KanglianError, KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return None
    encoded = encode(header)
    certificate = certify_by(VALIDATORS, block_hash(encoded, SUITE), header[2])
    own["anchor"] |= {"header": encoded.hex(), "certificate": certificate.hex()}
    name = f"{kind.removeprefix('kanglian-')} recertified"
    return Mutant(name, text_of(document), is_recertified=True)


def _typed(own: Any) -> Any:
    """The document as the library reads it."""
    return msgspec.convert(own, _KINDS[own["format"]].document)


def _state_root(way: Any, prefix: bytes, place: str, value: bytes | None) -> bytes:
    proof = state.state_proof(way, value)
    held = None if value is None else value_digest(digest, value)
    tree = root_of_path(digest, place, held, proof.state)
    above = None if tree == EMPTY else tree
    over = root_of_path(digest, place_of(digest, prefix), above, proof.namespaces)
    return state_root(digest, over, proof.writes_root)


def _of_state(own: Any, _height: int) -> bytes:
    found = _typed(own)
    where = state.Collection(found.module, found.level, found.contract, found.map)
    place = map_place(digest, where.path + bytes.fromhex(found.key))
    value = None if found.value is None else bytes.fromhex(found.value)
    return _state_root(found.way, where.prefix, place, value)


def _of_log(own: Any, _height: int) -> bytes:
    found = _typed(own)
    where = state.Collection(found.module, found.level, found.contract, found.log)
    value = None if found.run is None else encode(log.head_of(log._run_of(found.run), digest))
    return _state_root(found.way, where.prefix, log_place(digest, where.path), value)


def _of_completeness(own: Any, _height: int) -> bytes:
    found, value = _typed(own), None
    if found.run is not None:
        shown = tuple(map(completeness._block, found.run.blocks))
        value = encode(log.head_of(completeness._run_of(found.run, shown), digest))
    prefix = namespace_prefix(found.module, found.level)
    return _state_root(found.way, prefix, log_place(digest, BLOCKS_LOG), value)


def _of_receipt(own: Any, _height: int) -> bytes:
    found = _typed(own)
    place = ReceiptPlace(
        bytes.fromhex(found.receipt), found.receipt_position, found.receipts_position
    )
    return receipts_root_above(digest, (found.module, found.level), place)


def _of_header(own: Any, height: int) -> bytes:
    found = _typed(own)
    data = bytes.fromhex(found.header)
    entry, index = history_entry(block_hash(data, SUITE)), decode_anything(data)[2]
    path = [bytes.fromhex(item) for item in found.path]
    return root_from_path(digest, entry, index, height, path)


def _of_history(own: Any, height: int) -> bytes:
    found = _typed(own)
    old = TreeHead(found.size, bytes.fromhex(found.head))
    path = [bytes.fromhex(item) for item in found.path]
    return sized_root(digest, height, extended_head(digest, old, height, path))


_LEADS: dict[str, tuple[int, Callable[[Any, int], bytes]]] = {
    "kanglian-state/1": (STATE_ROOT, _of_state),
    "kanglian-log/1": (STATE_ROOT, _of_log),
    "kanglian-completeness/1": (STATE_ROOT, _of_completeness),
    "kanglian-receipt/1": (RECEIPTS_ROOT, _of_receipt),
    "kanglian-header/1": (HISTORY_ROOT, _of_header),
    "kanglian-history/1": (HISTORY_ROOT, _of_history),
}
