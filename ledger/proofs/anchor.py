"""What every document of the family stands on: one certified header, reached from genesis.

What it decides: whether a header belongs to the chain that a genesis names and was decided by the
validators of its height, whom genesis names or changes in the document lead to.
What it never does: judge how old the header is; `ledger.proofs.family` compares its time.
Source: docs/proofs.md section 2; docs/format.md sections 6 and 11.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger.block import HEADER, Header
from ledger.codec import Document
from ledger.genesis import Genesis
from ledger.ids import BlockHash
from ledger.succession import PROOF_CHANGES, Hex, ValidatorChange, decided_header, follow
from ledger.transaction import Chain


class Anchor(Document, frozen=True):
    """A header, a certificate of it, and all changes of the validators up to its height."""

    certificate: Hex
    changes: Annotated[tuple[ValidatorChange, ...], Meta(max_length=PROOF_CHANGES)]
    header: Hex


@dataclass(frozen=True, slots=True)
class Certified:
    """A header that the validators of its height decided."""

    header: Header
    hash: BlockHash


@dataclass(frozen=True, slots=True)
class Trust:
    """What a verifier holds: the genesis, and the chain that follows from it."""

    genesis: Genesis
    chain: Chain


def make_anchor(header: bytes, certificate: bytes, changes: Sequence[ValidatorChange]) -> Anchor:
    """The anchor at a header; `changes` are those up to its height, ascending."""
    return Anchor(certificate.hex(), tuple(changes), header.hex())


def verify_anchor(anchor: Anchor, trust: Trust) -> Certified:
    """The header of an anchor, if it is decided.

    Raises: Rejected.  Cost: one V for each signature of each certificate.
    """
    chain = trust.chain
    succession = follow(anchor.changes, trust.genesis, chain)
    data = bytes.fromhex(anchor.header)
    height = HEADER.decode(data).height
    succession.must_not_pass(height)
    certificate = bytes.fromhex(anchor.certificate)
    return Certified(*decided_header(data, certificate, succession.at(height), chain))
