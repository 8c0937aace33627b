"""What a light client keeps and hands over: its trust, a re-anchored proof, a fork, as documents.

What it decides: the canonical JSON of the three, and whether one of them is sound. A trust is read
back only if its digest holds and its header is decided by the validators beside it, so rot and
careless edits are noticed; who may write the file is believed. What it never does: touch a disk.
Source: docs/format.md section 13; docs/light-client.md.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated, Literal, cast

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.block import block_hash
from ledger.codec import Document, encode
from ledger.crypto.keys import KEY_TYPE_NAMES, KeyType
from ledger.crypto.suites import suite_named
from ledger.data_index import canonical_json, parse_canonical_json
from ledger.errors import Reason, Rejected, invariant
from ledger.genesis import Genesis, Hex32, Module, chain_of
from ledger.ids import GenesisHash, GroupId, Name
from ledger.light.fork import FORK_EVIDENCE, ForkEvidence
from ledger.light.trust import LightBlock, Terms, TrustedHeader, trust_genesis, trust_named
from ledger.proof import JsonCount, RegistrationProof
from ledger.succession import Hex, NamedValidator
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet

TRUST_FORMAT = "kanglian-trust/1"
TRUST_TAG = b"kl.trust\0"
TRUST_BYTES = 256 * limits.KIB
"""Twice (hexadecimal) a light block, two sets of 128 with 200 bytes each, 64 modules, witnesses."""
WITNESSES = 16
"""More than anybody asks; each costs a connection for every step of following."""
FORK_FORMAT = "kanglian-fork/1"
FORK_DOCUMENT_BYTES = 256 * limits.KIB
"""Twice the evidence and a set of 128."""
LIGHT_PROOF_FORMAT = "kanglian-light-proof/1"
LIGHT_PROOF_BYTES = 2 * limits.MIB
"""A proof of an envelope of 512 KiB in hexadecimal, and the path."""

NO_CERTIFICATE = "00"
"""Where a certificate stands in a document that needs none."""

_NO_DIGEST = "00" * 32

Url = Annotated[str, Meta(pattern=r"^http://[\x21-\x7e]{1,248}\Z")]
Span = Annotated[int, Meta(ge=1, le=2**53 - 1)]
Names = Annotated[tuple[NamedValidator, ...], Meta(max_length=limits.VALIDATORS)]


@dataclass(frozen=True, slots=True)
class Trust:
    """What a client believes, and on which terms. `block` is None where trust begins at genesis.

    `trusted.taken_ms` is when the client last asked. `modules` only serve to read arguments.
    """

    chain: Chain
    modules: tuple[Module, ...]
    terms: Terms
    witnesses: tuple[str, ...]
    trusted: TrustedHeader
    block: LightBlock | None

    def moved(self, trusted: TrustedHeader, block: LightBlock) -> "Trust":
        """The same with another trusted header and its light block."""
        return replace(self, trusted=trusted, block=block)


class TrustDocument(Document, frozen=True):
    """A trust as JSON; `next_validators` is empty where the header commits to no change."""

    format: Literal["kanglian-trust/1"]
    genesis_hash: Hex32
    group: Annotated[int, Meta(ge=0, le=2**32 - 1)]
    suite: Name
    account_keys: Annotated[
        tuple[Literal["secp256k1", "p256"], ...], Meta(min_length=1, max_length=2)
    ]
    modules: Annotated[tuple[Module, ...], Meta(min_length=1, max_length=64)]
    header: Hex
    certificate: Hex
    validators: Names
    next_validators: Names
    checked_ms: JsonCount
    trust_period_ms: Span
    lag_ms: Span
    ahead_ms: Span
    witnesses: Annotated[tuple[Url, ...], Meta(max_length=WITNESSES)]
    digest: Hex32


class ForkDocument(Document, frozen=True):
    """Evidence with the set that ruled its height, for those who find it there themselves."""

    format: Literal["kanglian-fork/1"]
    genesis_hash: Hex32
    evidence: Hex
    validators: Names


class LightProof(Document, frozen=True):
    """A proof of registration whose `next_header` is an old header under a trusted one.

    `path` leads from its hash to the history root of the header at `trusted_height`; it is empty
    where that header is the trusted one itself. The keys of the certificates may be retired, so
    both are `NO_CERTIFICATE`: no part of the document is left unread.
    """

    format: Literal["kanglian-light-proof/1"]
    registration: RegistrationProof
    trusted_height: Annotated[int, Meta(ge=1, le=2**53 - 1)]
    path: Annotated[tuple[Hex32, ...], Meta(max_length=limits.PROOF_PATH)]

    def to_json(self) -> bytes:
        """The canonical JSON form, without a final newline."""
        return canonical_json(self)


def begin_trust(genesis: Genesis, terms: Terms, witnesses: tuple[str, ...], now_ms: int) -> Trust:
    """Trust that begins with a genesis which the user holds."""
    start = trust_genesis(genesis, now_ms)
    return Trust(chain_of(genesis), genesis.modules, terms, witnesses, start, None)


def trust_json(trust: Trust) -> bytes:
    """The canonical JSON of a trust that has come past genesis, with a final newline."""
    block, chain, terms = trust.block, trust.chain, trust.terms
    invariant(block is not None, "a trust at genesis is the genesis")
    block = cast("LightBlock", block)
    document = TrustDocument(
        format=TRUST_FORMAT,
        genesis_hash=chain.genesis_hash.hex(),
        group=chain.group,
        suite=chain.suite.name,
        account_keys=_key_names(chain),
        modules=trust.modules,
        header=block.header.hex(),
        certificate=block.certificate.hex(),
        validators=named_validators(trust.trusted.validators.members),
        next_validators=named_validators(block.next_validators),
        checked_ms=trust.trusted.taken_ms,
        trust_period_ms=terms.trust_period_ms,
        lag_ms=terms.lag_ms,
        ahead_ms=terms.ahead_ms,
        witnesses=trust.witnesses,
        digest=_NO_DIGEST,
    )
    digest = _digest(document, chain)
    return canonical_json(msgspec.structs.replace(document, digest=digest)) + b"\n"


def parse_trust(data: bytes) -> Trust:
    """The trust of its canonical JSON, its header verified against the set beside it.

    Raises: Rejected(TOO_LARGE | MALFORMED | BAD_PROOF | BAD_CERTIFICATE | …).  Cost: one V for each
        signature of the certificate.
    """
    document = parse_canonical_json(
        data, TrustDocument, max_bytes=TRUST_BYTES, reason=Reason.MALFORMED
    )
    chain = _chain(document)
    if _digest(document, chain) != document.digest:
        raise Rejected(Reason.BAD_PROOF, "the digest of the trust does not hold")
    if any(low >= high for low, high in pairwise(item.name for item in document.modules)):
        raise Rejected(Reason.MALFORMED, "modules must ascend")
    block = LightBlock(
        bytes.fromhex(document.header),
        bytes.fromhex(document.certificate),
        plain_validators(document.next_validators),
    )
    terms = Terms(document.trust_period_ms, document.lag_ms, document.ahead_ms)
    trusted = trust_named(
        block,
        plain_validators(document.validators),
        block_hash(block.header, chain.suite),
        chain,
        terms,
        document.checked_ms,
    )
    return Trust(chain, document.modules, terms, document.witnesses, trusted, block)


def fork_json(evidence: ForkEvidence, validators: ValidatorSet, chain: Chain) -> bytes:
    """The canonical JSON of evidence, with a final newline."""
    document = ForkDocument(
        format=FORK_FORMAT,
        genesis_hash=chain.genesis_hash.hex(),
        evidence=encode(evidence).hex(),
        validators=named_validators(validators.members),
    )
    return canonical_json(document) + b"\n"


def parse_fork(data: bytes, chain: Chain) -> tuple[ForkEvidence, ValidatorSet]:
    """The evidence of a document and the set that it names; `verify_fork` judges them.

    Whoever verifies it finds the set of that height by other means and compares.
    Raises: Rejected(TOO_LARGE | MALFORMED | NON_CANONICAL | WRONG_CHAIN).
    """
    document = parse_canonical_json(
        data, ForkDocument, max_bytes=FORK_DOCUMENT_BYTES, reason=Reason.MALFORMED
    )
    if document.genesis_hash != chain.genesis_hash.hex():
        raise Rejected(Reason.WRONG_CHAIN, "evidence", genesis_hash=document.genesis_hash)
    evidence = FORK_EVIDENCE.decode(bytes.fromhex(document.evidence))
    return evidence, ValidatorSet(plain_validators(document.validators))


def without_certificates(proof: RegistrationProof) -> RegistrationProof:
    """The registration as it stands in a re-anchored proof."""
    return msgspec.structs.replace(
        proof, certificate=NO_CERTIFICATE, next_certificate=NO_CERTIFICATE
    )


def is_light_proof(data: bytes) -> bool:
    """Whether a document begins like a re-anchored proof; its other form is `ledger.proof`'s."""
    return data.startswith(b'{"format":"' + LIGHT_PROOF_FORMAT.encode())


def parse_light_proof(data: bytes) -> LightProof:
    """The re-anchored proof of its canonical JSON; nothing is verified yet.

    Raises: Rejected(TOO_LARGE | BAD_PROOF).
    """
    return parse_canonical_json(
        data, LightProof, max_bytes=LIGHT_PROOF_BYTES, reason=Reason.BAD_PROOF
    )


def named_validators(members: tuple[Validator, ...]) -> tuple[NamedValidator, ...]:
    """Members as they stand in documents."""
    return tuple(NamedValidator(item.address.hex(), item.key.hex()) for item in members)


def plain_validators(named: tuple[NamedValidator, ...]) -> tuple[Validator, ...]:
    """Members out of a document, in its order."""
    return tuple(Validator(bytes.fromhex(item.address), bytes.fromhex(item.key)) for item in named)


def _chain(document: TrustDocument) -> Chain:
    key_types = frozenset(int(KEY_TYPE_NAMES[name]) for name in document.account_keys)
    genesis_hash = GenesisHash(bytes.fromhex(document.genesis_hash))
    suite = suite_named(document.suite)
    chain = Chain(genesis_hash, GroupId(document.group), suite, key_types)
    if _key_names(chain) != document.account_keys:
        raise Rejected(Reason.MALFORMED, "account keys in another order")
    return chain


def _key_names(chain: Chain) -> tuple[Literal["secp256k1", "p256"], ...]:
    names: dict[int, Literal["secp256k1", "p256"]] = {
        int(KeyType.SECP256K1): "secp256k1",
        int(KeyType.P256): "p256",
    }
    return tuple(names[key_type] for key_type in sorted(chain.account_keys))


def _digest(document: TrustDocument, chain: Chain) -> str:
    empty = msgspec.structs.replace(document, digest=_NO_DIGEST)
    return chain.suite.digest(TRUST_TAG + canonical_json(empty)).hex()
