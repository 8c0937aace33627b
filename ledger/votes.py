"""What validators sign, and the certificate that a quorum of precommits makes.

What it decides: the exact bytes under every consensus signature, and whether a certificate proves
that a block was decided. A signature covers everything that is ever read from the message.
Source: docs/format.md section 6. A signer is resolved by index only, indexes strictly ascend and
each signature is checked: what GHSA-c32p-wcqj-j677 ("Tachyon") taught.
"""

from enum import IntEnum, unique
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, Schema, encode
from ledger.errors import Reason, Rejected
from ledger.ids import Bytes32, Count, Hash, SignatureBytes
from ledger.transaction import Chain
from ledger.validators import ValidatorSet

VOTE_TAG = b"kl.vote\0"
PROPOSAL_TAG = b"kl.proposal\0"
NO_ROUND = -1
"""The valid round of a value that no round has justified yet."""


@unique
class VoteType(IntEnum):
    """The two votes of a round."""

    PREVOTE = 1
    PRECOMMIT = 2


class Certificate(Record, frozen=True):
    """At least a quorum of precommits for one block: (validator index, signature) ascending."""

    height: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    round: Count
    block_hash: Bytes32
    signatures: Annotated[
        tuple[tuple[Count, SignatureBytes], ...], Meta(max_length=limits.VALIDATORS)
    ]


CERTIFICATE = Schema(Certificate, max_bytes=limits.CERTIFICATE_BYTES)


def vote_digest(
    chain: Chain,
    vote_type: VoteType,
    height: int,
    round_number: int,
    block_hash: bytes | None,
    *,
    valid_round: int = NO_ROUND,
) -> Hash:
    """The 32 bytes a validator signs for a vote; nil votes have no block hash."""
    return Hash(
        chain.suite.digest(
            VOTE_TAG
            + encode(
                (
                    chain.genesis_hash,
                    chain.group,
                    int(vote_type),
                    height,
                    round_number,
                    block_hash,
                    valid_round,
                )
            )
        )
    )


def proposal_digest(
    chain: Chain, height: int, round_number: int, block_hash: bytes, valid_round: int
) -> Hash:
    """The 32 bytes a proposer signs."""
    return Hash(
        chain.suite.digest(
            PROPOSAL_TAG
            + encode(
                (chain.genesis_hash, chain.group, height, round_number, block_hash, valid_round)
            )
        )
    )


def verify_certificate(certificate: Certificate, validators: ValidatorSet, chain: Chain) -> None:
    """Check every signature of a certificate against the set that ruled its height.

    Raises: Rejected(BAD_CERTIFICATE).  Cost: one V per signature.
    """
    if len(certificate.signatures) < validators.quorum:
        raise Rejected(
            Reason.BAD_CERTIFICATE,
            "fewer signatures than a quorum",
            count=len(certificate.signatures),
            quorum=validators.quorum,
        )
    digest = vote_digest(
        chain,
        VoteType.PRECOMMIT,
        certificate.height,
        certificate.round,
        certificate.block_hash,
    )
    previous = -1
    for index, signature in certificate.signatures:
        if not previous < index < len(validators.members):
            raise Rejected(Reason.BAD_CERTIFICATE, "signer indexes must ascend", index=index)
        if not chain.suite.verify(validators.members[index].key, digest, signature):
            raise Rejected(Reason.BAD_CERTIFICATE, "signature", index=index)
        previous = index
