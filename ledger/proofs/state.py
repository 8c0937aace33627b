"""Proof of state: the value of a map key after a block, or that there is none.

What it decides: whether a document leads from a key to the state root of a certified header.
Header h + 1 holds the root of the state after block h, so the statement is about height h.
A namespace without any key proves the absence of all of them.
Source: docs/proofs.md section 4; docs/format.md section 8.
"""

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from ledger import limits
from ledger.codec import Document
from ledger.data_index import Hex32
from ledger.ids import Level, Name
from ledger.merkle import Digest
from ledger.proofs.anchor import Anchor, Certified, Trust, verify_anchor
from ledger.sparse import DEPTH
from ledger.sparse_proof import OtherLeaf, StatePath
from ledger.state import namespace_prefix
from ledger.state_proof import StateProof, prove_value, verify_value
from ledger.state_tree import StateView

STATE_FORMAT = "kanglian-state/1"

# Bytes that may be none at all; possessive as in ledger.succession.
HexBytes = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})*+\Z")]
HexKey = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})*+\Z", max_length=2 * limits.MAP_KEY_BYTES)]


class Neighbour(Document, frozen=True):
    """A lone key that stands where the asked one would: its place and the digest of its value."""

    place: Hex32
    value: Hex32


class Way(Document, frozen=True):
    """The siblings from the root of a sparse tree down to a place; null is an empty subtree."""

    other: Neighbour | None
    siblings: Annotated[tuple[Hex32 | None, ...], Meta(max_length=DEPTH)]


class StateWay(Document, frozen=True):
    """From a place of a namespace's tree to the state root."""

    namespace: Way
    """Through the tree of the namespace."""
    namespaces: Way
    """Through the tree over all namespaces."""
    writes_root: Hex32
    """What the block wrote, which stands beside that tree."""


class StateDocument(Document, frozen=True):
    """The document; `value` is null when the key has none."""

    anchor: Anchor
    contract: Name
    format: Literal["kanglian-state/1"]
    key: HexKey
    level: Level
    map: Name
    module: Name
    value: HexBytes | None
    way: StateWay


@dataclass(frozen=True, slots=True)
class Collection:
    """A map or a log of a contract in a namespace."""

    module: str
    level: int
    contract: str
    name: str

    @property
    def prefix(self) -> bytes:
        """The namespace, with which the names of keys and logs begin."""
        return namespace_prefix(self.module, self.level)

    @property
    def path(self) -> bytes:
        """What stands behind it: the beginning of a key of the map, or all of a log's name."""
        return self.contract.encode() + b"\0" + self.name.encode() + b"\0"


@dataclass(frozen=True, slots=True)
class ValueFact:
    """After block `height` the map had this value under the key; None: it had none."""

    certified: Certified
    height: int
    collection: Collection
    key: bytes
    value: bytes | None


def way_of(path: StatePath) -> Way:
    """The way as a document shows it."""
    empty = int.from_bytes(path.empty, "big") << DEPTH - 8 * len(path.empty)
    rest = iter(path.siblings)
    siblings = tuple(
        None if empty >> DEPTH - 1 - level & 1 else next(rest).hex() for level in range(path.levels)
    )
    other = path.other
    neighbour = None if other is None else Neighbour(other.place.hex(), other.value.hex())
    return Way(neighbour, siblings)


def path_of(way: Way) -> StatePath:
    """The way as it is verified."""
    levels = len(way.siblings)
    flags = "".join("1" if item is None else "0" for item in way.siblings)
    length = (levels + 7) // 8
    other = way.other
    return StatePath(
        levels=levels,
        empty=int(flags.ljust(8 * length, "0") or "0", 2).to_bytes(length, "big"),
        siblings=tuple(bytes.fromhex(item) for item in way.siblings if item is not None),
        other=None
        if other is None
        else OtherLeaf(bytes.fromhex(other.place), bytes.fromhex(other.value)),
    )


def state_way(proof: StateProof) -> StateWay:
    """The way of a state proof as a document shows it."""
    return StateWay(way_of(proof.state), way_of(proof.namespaces), proof.writes_root.hex())


def state_proof(way: StateWay, value: bytes | None) -> StateProof:
    """The state proof of a document's way and the value at its end."""
    writes_root = bytes.fromhex(way.writes_root)
    return StateProof(value, path_of(way.namespace), path_of(way.namespaces), writes_root)


def prove_state(
    view: StateView, digest: Digest, collection: Collection, key: bytes, anchor: Anchor
) -> StateDocument:
    """The document of a key of a map, as of the view; `anchor` is at the height after it."""
    proof = prove_value(view, digest, collection.prefix, collection.path + key)
    return StateDocument(
        anchor=anchor,
        contract=collection.contract,
        format=STATE_FORMAT,
        key=key.hex(),
        level=collection.level,
        map=collection.name,
        module=collection.module,
        value=None if proof.value is None else proof.value.hex(),
        way=state_way(proof),
    )


def verify_state(document: StateDocument, trust: Trust) -> ValueFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, and a hash for each level of both trees.
    """
    certified = verify_anchor(document.anchor, trust)
    collection = Collection(document.module, document.level, document.contract, document.map)
    key = bytes.fromhex(document.key)
    value = None if document.value is None else bytes.fromhex(document.value)
    proof, root = state_proof(document.way, value), certified.header.state_root
    digest = trust.chain.suite.digest
    held = verify_value(proof, digest, root, collection.prefix, collection.path + key)
    return ValueFact(certified, certified.header.height - 1, collection, key, held)
