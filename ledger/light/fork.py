"""Evidence of a fork: two headers of one height that the same set has decided.

What it decides: whether two certified headers show that a chain split, and who is to blame. Every
signature of both certificates is verified before anybody is named. Two precommits of one round for
different blocks convict their signer. In different rounds they do not: a correct validator may
follow a later prevote quorum, so there the signers of both are only where the guilty are found.
What it never does: believe a set that the evidence names; whoever verifies it brings the set.
Source: research consensus-reliability sections 1.2 (10) and 1.8; docs/format.md section 6.3.
"""

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.block import block_hash
from ledger.codec import Record, Schema
from ledger.errors import Reason, Rejected
from ledger.ids import Address
from ledger.light.trust import LightBlock
from ledger.succession import decided_header
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE

FORK_BYTES = 2 * (limits.HEADER_BYTES + limits.CERTIFICATE_BYTES) + 64
"""Two headers with certificates, and the fixed part."""


class ForkEvidence(Record, frozen=True):
    """Two decided headers of one height, that of the lower block hash first."""

    first_header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    first_certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]
    second_header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    second_certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]


FORK_EVIDENCE = Schema(ForkEvidence, max_bytes=FORK_BYTES)


@dataclass(frozen=True, slots=True)
class Fork:
    """What evidence shows. `signed_both` has at least f + 1 members, `equivocators` are guilty.

    `equivocators` is `signed_both` where both blocks were decided in one round, else empty.
    """

    height: int
    signed_both: tuple[Address, ...]
    equivocators: tuple[Address, ...]


def fork_evidence(one: LightBlock, other: LightBlock, chain: Chain) -> ForkEvidence:
    """The evidence that two blocks make, in its one order; nothing is verified."""
    first, second = sorted((one, other), key=lambda item: block_hash(item.header, chain.suite))
    return ForkEvidence(first.header, first.certificate, second.header, second.certificate)


def verify_fork(evidence: ForkEvidence, validators: ValidatorSet, chain: Chain) -> Fork:
    """Check evidence against the set that ruled its height, as the verifier knows it.

    Raises: Rejected.  Cost: one V for each signature of both certificates.
    """
    first, first_hash = decided_header(
        evidence.first_header, evidence.first_certificate, validators, chain
    )
    second, second_hash = decided_header(
        evidence.second_header, evidence.second_certificate, validators, chain
    )
    if first.height != second.height:
        raise Rejected(Reason.BAD_EVIDENCE, "headers of different heights", height=first.height)
    if first_hash >= second_hash:
        raise Rejected(Reason.BAD_EVIDENCE, "one header twice, or in the wrong order")
    one = CERTIFICATE.decode(evidence.first_certificate)
    other = CERTIFICATE.decode(evidence.second_certificate)
    signers = {index for index, _ in other.signatures}
    # Two quorums of one set share f + 1 members, so these are never none.
    both = tuple(
        Address(validators.members[index].address)
        for index, _ in one.signatures
        if index in signers
    )
    return Fork(first.height, both, both if one.round == other.round else ())
