"""What a client that keeps no blocks believes: one trusted header, from which it goes on to others.

What it decides: whether a header may be taken on because of the one that is trusted, and whether it
is recent enough to answer from. A header is taken on when the set that the trusted one commits to
has decided it, one height further (`follow`) or any distance ahead (`skip`). A change of the set is
never jumped over: the header that commits to the successor comes first. What it never does: ask a
node or a clock, or believe a set because many of its members are known.
Source: research consensus-reliability section 1.8; docs/format.md sections 6 and 11;
docs/decisions/0035-light-client.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.block import Header
from ledger.codec import Record, Schema
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, chain_of, genesis_validators
from ledger.ids import BlockHash
from ledger.succession import ValidatorChange, committed_validators, decided_header, members_of
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet

SKIP_BLOCKS = 512
"""As many changes of validators as a proof holds: two a week for five years; 2,048 V at n = 4."""
LIGHT_BLOCK_BYTES = 32 * limits.KIB
"""A header, a certificate and 128 validators of 70 bytes, and the fixed part."""


class LightBlock(Record, frozen=True):
    """A header, its certificate by the set that rules it, and the set that follows.

    `next_validators` is empty where the header commits to no change.
    """

    header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]
    next_validators: Annotated[tuple[Validator, ...], Meta(max_length=limits.VALIDATORS)]


LIGHT_BLOCK = Schema(LightBlock, max_bytes=LIGHT_BLOCK_BYTES)


@dataclass(frozen=True, slots=True)
class Terms:
    """How long a client lets trust last; all in milliseconds.

    `trust_period_ms` must be shorter than members who left guard their keys. `lag_ms` must exceed
    the heartbeat of the chain. `ahead_ms` is how far the client's clock may go wrong.
    """

    trust_period_ms: int
    lag_ms: int
    ahead_ms: int


@dataclass(frozen=True, slots=True)
class TrustedHeader:
    """A header that is believed, and the sets that rule its height and the next one.

    At height 0 stands genesis, which has no header; its hash is the genesis hash. `taken_ms` is the
    client's time when it was taken on.
    """

    height: int
    hash: BlockHash
    time_ms: int
    header: Header | None
    validators: ValidatorSet
    next_validators: ValidatorSet
    taken_ms: int


def trust_genesis(genesis: Genesis, now_ms: int) -> TrustedHeader:
    """Trust that begins with the genesis which the user holds."""
    members = genesis_validators(genesis)
    anchor = BlockHash(chain_of(genesis).genesis_hash)
    return TrustedHeader(0, anchor, genesis.time, None, members, members, now_ms)


def trust_named(
    block: LightBlock,
    validators: tuple[Validator, ...],
    named: bytes,
    chain: Chain,
    terms: Terms,
    now_ms: int,
) -> TrustedHeader:
    """Trust that begins with a header which the user names by its hash.

    `validators` are those that rule it. The certificate is needed although the hash names the
    header: votes name the genesis, a header does not.
    Raises: Rejected.  Cost: one V for each signature.
    """
    ruling = ValidatorSet(validators)
    header, found = decided_header(block.header, block.certificate, ruling, chain)
    if found != named:
        raise Rejected(Reason.BAD_PROOF, "not the header that was named", height=header.height)
    return _taken_on(block, header, found, ruling, chain, terms, now_ms)


def light_block(change: ValidatorChange) -> LightBlock:
    """The header of a change of validators, out of the document that nodes answer."""
    data, certificate = bytes.fromhex(change.header), bytes.fromhex(change.certificate)
    return LightBlock(data, certificate, members_of(change))


def follow(
    trusted: TrustedHeader, block: LightBlock, chain: Chain, terms: Terms, now_ms: int
) -> TrustedHeader:
    """Take on the header of the very next height.

    Raises: Rejected.  Cost: one V for each signature.
    """
    check_vouches(trusted, terms, now_ms)
    after = _next_trusted(trusted, block, chain, terms, now_ms)
    if after.height != trusted.height + 1:
        raise Rejected(Reason.BAD_PROOF, "a height is left out", height=after.height)
    return after


def skip(
    trusted: TrustedHeader, blocks: Sequence[LightBlock], chain: Chain, terms: Terms, now_ms: int
) -> TrustedHeader:
    """Take on the last of these headers, which ascend.

    What lies between may be left out, but for the headers that commit to another set: each block is
    ruled by the set to which the one before it commits.
    Raises: Rejected.  Cost: one V for each signature.
    """
    if not 1 <= len(blocks) <= SKIP_BLOCKS:
        raise Rejected(Reason.TOO_LARGE, "headers", count=len(blocks), limit=SKIP_BLOCKS)
    check_vouches(trusted, terms, now_ms)
    for block in blocks:
        # Later ones are newer than the first, so they vouch as long.
        trusted = _next_trusted(trusted, block, chain, terms, now_ms)
    return trusted


def check_vouches(trusted: TrustedHeader, terms: Terms, now_ms: int) -> None:
    """Whether a trusted header is young enough to vouch for newer ones.

    A set can be held to its promises only while its members guard their keys: whoever gets hold of
    a quorum of old keys can decide another past and go on from it.
    Raises: Rejected(TRUST_EXPIRED | FROM_FUTURE).
    """
    # A clock that was set back would make old trust young again.
    if trusted.taken_ms > now_ms + terms.ahead_ms:
        raise Rejected(Reason.FROM_FUTURE, "the clock went back", taken=trusted.taken_ms)
    if now_ms - trusted.time_ms >= terms.trust_period_ms:
        raise Rejected(Reason.TRUST_EXPIRED, "trusted header", height=trusted.height)


def check_fresh(trusted: TrustedHeader, terms: Terms, now_ms: int) -> None:
    """Whether a header is recent enough to answer from: an old one hides what came after.

    Raises: Rejected(STALE | FROM_FUTURE).  Source: research consensus-reliability section 3.3.
    """
    _check_not_ahead(trusted.time_ms, terms, now_ms)
    if now_ms - trusted.time_ms > terms.lag_ms:
        raise Rejected(Reason.STALE, "header", height=trusted.height, time=trusted.time_ms)


def _next_trusted(
    trusted: TrustedHeader, block: LightBlock, chain: Chain, terms: Terms, now_ms: int
) -> TrustedHeader:
    """A later header that the set to which the trusted one commits has decided."""
    ruling = trusted.next_validators
    header, found = decided_header(block.header, block.certificate, ruling, chain)
    distance = header.height - trusted.height
    if distance < 1:
        raise Rejected(Reason.BAD_PROOF, "headers must ascend", height=header.height)
    if distance == 1 and header.previous_hash != trusted.hash:
        raise Rejected(Reason.BAD_PROOF, "the headers do not follow one another")
    # Each block is at least a millisecond younger than the one before (ledger/chain.py).
    if header.time < trusted.time_ms + distance:
        raise Rejected(Reason.BAD_PROOF, "time must grow", time=header.time)
    return _taken_on(block, header, found, ruling, chain, terms, now_ms)


def _taken_on(
    block: LightBlock,
    header: Header,
    found: BlockHash,
    ruling: ValidatorSet,
    chain: Chain,
    terms: Terms,
    now_ms: int,
) -> TrustedHeader:
    """A decided header with the set that follows."""
    _check_not_ahead(header.time, terms, now_ms)
    after = ruling
    # A set beside a header that commits to no change is refused with the changes that are wrong.
    if block.next_validators or header.next_validators_hash != header.validators_hash:
        after = committed_validators(block.next_validators, ruling, header, chain)
    return TrustedHeader(header.height, found, header.time, header, ruling, after, now_ms)


def _check_not_ahead(time_ms: int, terms: Terms, now_ms: int) -> None:
    if time_ms > now_ms + terms.ahead_ms:
        raise Rejected(Reason.FROM_FUTURE, "header", time=time_ms)
