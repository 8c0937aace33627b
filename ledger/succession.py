"""How trust passes from one validator set to the next: from genesis to the set of any height.

What it decides: whether headers hand over from one set to another without a gap. The last header of
a set commits to its successor and is certified by the set itself, so whoever believes the first set
believes the second. What it never does: skip a set, or believe a newer one because it is newer.
Source: architecture section 3; research consensus-reliability section 1.8 (a consortium follows set
changes one by one); docs/format.md section 11.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.block import HEADER, Header, block_hash
from ledger.codec import Document
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, Hex32, Hex34, genesis_validators
from ledger.ids import BlockHash
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet
from ledger.votes import CERTIFICATE, verify_certificate

PROOF_CHANGES = 512
"""Two changes of validators a week for five years; then a newer genesis or anchor is due."""

# Possessive `++`: a megabyte of digits is matched without a stack of ways back.
Hex = Annotated[str, Meta(pattern=r"^(?:[0-9a-f]{2})++\Z")]


class NamedValidator(Document, frozen=True):
    """A member of a set: its node address and tagged key in hex."""

    address: Hex32
    key: Hex34


class ValidatorChange(Document, frozen=True):
    """The last header that a set ruled, its certificate by that set, and the set that follows."""

    header: Hex
    certificate: Hex
    validators: Annotated[
        tuple[NamedValidator, ...], Meta(min_length=1, max_length=limits.VALIDATORS)
    ]


@dataclass(frozen=True, slots=True)
class Succession:
    """Verified sets by the first height that each rules, ascending; the first is of genesis."""

    sets: tuple[tuple[int, ValidatorSet], ...]

    def at(self, height: int) -> ValidatorSet:
        """The newest of these sets that begins at or below a height."""
        return next(members for first, members in reversed(self.sets) if first <= height)

    def must_not_pass(self, height: int) -> None:
        """Refuse a set that begins above the last height of a proof: nothing there needs it.

        Raises: Rejected(BAD_PROOF).
        """
        if self.sets[-1][0] > height:
            detail = "a change of validators beyond the proof"
            raise Rejected(Reason.BAD_PROOF, detail, height=height)


def describe_change(header: bytes, certificate: bytes, after: ValidatorSet) -> ValidatorChange:
    """One change, from what a node keeps of the block before it holds."""
    named = tuple(NamedValidator(item.address.hex(), item.key.hex()) for item in after.members)
    return ValidatorChange(header.hex(), certificate.hex(), named)


def follow(changes: tuple[ValidatorChange, ...], genesis: Genesis, chain: Chain) -> Succession:
    """Verify changes one by one from the validators of genesis on.

    Raises: Rejected.  Cost: one V for each signature of each certificate.
    """
    return follow_from(changes, genesis_validators(genesis), chain)


def follow_from(
    changes: tuple[ValidatorChange, ...], first: ValidatorSet, chain: Chain
) -> Succession:
    """The same from the validators of height 1 on, which the caller believes."""
    sets = [(1, first)]
    for change in changes:
        begun, ruling = sets[-1]
        header = certified_header(change.header, change.certificate, ruling, chain)
        if header.height < begun:
            raise Rejected(Reason.BAD_PROOF, "changes of validators must ascend")
        after = committed_validators(members_of(change), ruling, header, chain)
        sets.append((header.height + 1, after))
    return Succession(tuple(sets))


def members_of(change: ValidatorChange) -> tuple[Validator, ...]:
    """The members that a change names, in its order."""
    return tuple(
        Validator(bytes.fromhex(item.address), bytes.fromhex(item.key))
        for item in change.validators
    )


def committed_validators(
    members: tuple[Validator, ...], ruling: ValidatorSet, header: Header, chain: Chain
) -> ValidatorSet:
    """The set that follows `ruling`, if these members are what a decided header commits to.

    Raises: Rejected(BAD_PROOF), also where the set does not change.
    """
    after = ValidatorSet(members)
    if any(low >= high for low, high in pairwise(after.addresses)):
        raise Rejected(Reason.BAD_PROOF, "validators must ascend by address")
    if after == ruling or after.hash(chain.suite) != header.next_validators_hash:
        raise Rejected(Reason.BAD_PROOF, "the header commits to other validators")
    return after


def certified_header(
    header_hex: str, certificate_hex: str, validators: ValidatorSet, chain: Chain
) -> Header:
    """As `decided_header`, from the hexadecimal of a document."""
    data, certificate = bytes.fromhex(header_hex), bytes.fromhex(certificate_hex)
    return decided_header(data, certificate, validators, chain)[0]


def decided_header(
    data: bytes, certificate_data: bytes, validators: ValidatorSet, chain: Chain
) -> tuple[Header, BlockHash]:
    """A header of this chain that the set which rules its height has decided, and its hash.

    Raises: Rejected.  Cost: one V for each signature.
    """
    header = HEADER.decode(data)
    check_header_chain(header, chain)
    if header.validators_hash != validators.hash(chain.suite):
        detail = "ruled by validators that neither genesis nor a change in the proof names"
        raise Rejected(Reason.BAD_CERTIFICATE, detail, height=header.height)
    certificate = CERTIFICATE.decode(certificate_data)
    if certificate.height != header.height:
        raise Rejected(Reason.BAD_CERTIFICATE, "another height", height=certificate.height)
    named = block_hash(data, chain.suite)
    if certificate.block_hash != named:
        raise Rejected(Reason.BAD_CERTIFICATE, "another block", height=certificate.height)
    # The votes name genesis hash and group, so a header of another chain ends here.
    verify_certificate(certificate, validators, chain)
    return header, named


def check_header_chain(header: Header, chain: Chain) -> None:
    """Refuse a header of another version or group.

    Raises: Rejected(UNSUPPORTED_VERSION | WRONG_CHAIN).
    """
    if header.version != limits.PROTOCOL_VERSION:
        raise Rejected(Reason.UNSUPPORTED_VERSION, "header", version=header.version)
    if header.group != chain.group:
        raise Rejected(Reason.WRONG_CHAIN, "header", group=header.group)
