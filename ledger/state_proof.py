"""Proofs of state: a value or its absence, the head of a log; against one header.

What it decides: whether a proof leads to the state root that header h + 1 holds of height h. A
namespace that was never written to proves the absence of all its keys. Nothing in a proof is
believed: every member is hashed into the root, and what follows from others is not a member.
What it never does: judge the header; that is for a certificate or a light client.
Source: docs/format.md section 8; docs/decisions/0034-state-root.md.
"""

from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.errors import Reason, Rejected, invariant
from ledger.ids import Bytes32
from ledger.merkle import Digest
from ledger.sparse import EMPTY, place_of
from ledger.sparse_proof import StatePath, root_of_path
from ledger.state_root import (
    LOG_HEAD,
    LogHead,
    log_place,
    map_place,
    state_root,
    value_digest,
)
from ledger.state_tree import StateView

STATE_PROOF_BYTES = 40 * limits.KIB
"""Two paths of 256 siblings with 34 bytes each, and a value."""


class StateProof(Record, frozen=True):
    """The value of a key, None where there is none, and what leads from it to the state root.

    `state` is the way through the tree of the namespace, `namespaces` the one through the tree over
    them, `writes_root` stands beside that.
    """

    value: Annotated[bytes, Meta(max_length=limits.MAP_VALUE_BYTES)] | None
    state: StatePath
    namespaces: StatePath
    writes_root: Bytes32


STATE_PROOF = Schema(StateProof, max_bytes=STATE_PROOF_BYTES)


def prove_value(view: StateView, digest: Digest, namespace: bytes, path: bytes) -> StateProof:
    """The proof of a map key's value, or that it has none."""
    return _proof(view, namespace, map_place(digest, path), view.value(namespace + path))


def prove_log_head(view: StateView, digest: Digest, namespace: bytes, path: bytes) -> StateProof:
    """The proof of how many entries a log has, and under which root; or that it has none."""
    tip = view.log_tip(namespace + path)
    head = None if tip is None else encode(tip.head(digest))
    return _proof(view, namespace, log_place(digest, path), head)


def verify_value(
    proof: StateProof, digest: Digest, root: bytes, namespace: bytes, path: bytes
) -> bytes | None:
    """The value that a map key had under a state root, None if it had none.

    Raises: Rejected(BAD_PROOF).  Cost: a hash for each level of both ways.
    """
    return _verified(proof, digest, root, namespace, map_place(digest, path))


def verify_log_head(
    proof: StateProof, digest: Digest, root: bytes, namespace: bytes, path: bytes
) -> LogHead | None:
    """The head of a log under a state root, None if it had no entry.

    It shows as well that no entry stands at its count or beyond. Raises: Rejected.
    """
    value = _verified(proof, digest, root, namespace, log_place(digest, path))
    return None if value is None else LOG_HEAD.decode(value)


def _proof(view: StateView, namespace: bytes, place: str, value: bytes | None) -> StateProof:
    held, state = view.prove(namespace, place)
    invariant((held is None) == (value is None), "the tree and the values differ")
    _, namespaces = view.prove_namespace(namespace)
    return StateProof(value, state, namespaces, view.writes_root)


def _verified(
    proof: StateProof, digest: Digest, root: bytes, namespace: bytes, place: str
) -> bytes | None:
    held = None if proof.value is None else value_digest(digest, proof.value)
    tree = root_of_path(digest, place, held, proof.state)
    # A namespace without a key has no leaf above: absence from nothing.
    own = None if tree == EMPTY else tree
    over = root_of_path(digest, place_of(digest, namespace), own, proof.namespaces)
    if state_root(digest, over, proof.writes_root) != root:
        raise Rejected(Reason.BAD_PROOF, "it leads to another state root")
    return proof.value
