"""Equivocation: two statements that a validator must not both have signed.

What it decides: whether two signed consensus messages convict their sender. Both signatures are
verified over everything that is read from them, and the signer is resolved by its index in the set
of that height, so nobody can be framed. What it never does: decide what follows from it.
Source: architecture section 5; research consensus-reliability section 1.8.
"""

from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record
from ledger.errors import Reason, Rejected
from ledger.ids import Address, Bytes32, Count, Hash, SignatureBytes
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from ledger.votes import VoteType, proposal_digest, vote_digest

PROPOSAL = 0
"""The kind of a proposal; votes have the number of their type."""


class Statement(Record, frozen=True):
    """A signed consensus message; `sender` is an index in the validator set of `height`."""

    kind: Annotated[int, Meta(ge=0, le=2)]
    height: Annotated[int, Meta(ge=1, le=2**63 - 1)]
    round: Count
    block_hash: Bytes32 | None
    valid_round: Annotated[int, Meta(ge=-1, le=2**63 - 1)]
    sender: Annotated[int, Meta(ge=0, lt=limits.VALIDATORS)]
    signature: SignatureBytes

    @property
    def slot(self) -> tuple[int, int, int, int]:
        """Where a correct validator signs once: height, round, kind, and who."""
        return self.height, self.round, self.kind, self.sender

    def digest(self, chain: Chain) -> Hash:
        """What its sender signed."""
        value = self.block_hash
        if self.kind != PROPOSAL:
            return vote_digest(
                chain,
                VoteType(self.kind),
                self.height,
                self.round,
                value,
                valid_round=self.valid_round,
            )
        if value is None:
            raise Rejected(Reason.BAD_EVIDENCE, "a proposal names a block")
        return proposal_digest(chain, self.height, self.round, value, self.valid_round)


def convict(first: Statement, second: Statement, validators: ValidatorSet, chain: Chain) -> Address:
    """The validator that signed both; `validators` is the set of their height.

    Raises: Rejected(BAD_EVIDENCE).  Cost: two V.
    """
    if first.slot != second.slot:
        raise Rejected(Reason.BAD_EVIDENCE, "statements of different slots")
    if (first.block_hash, first.valid_round) == (second.block_hash, second.valid_round):
        raise Rejected(Reason.BAD_EVIDENCE, "the statements say the same")
    if first.sender >= len(validators.members):
        raise Rejected(Reason.BAD_EVIDENCE, "no such validator", index=first.sender)
    offender = validators.members[first.sender]
    for statement in (first, second):
        if not chain.suite.verify(offender.key, statement.digest(chain), statement.signature):
            raise Rejected(Reason.BAD_EVIDENCE, "signature", index=first.sender)
    return Address(offender.address)
