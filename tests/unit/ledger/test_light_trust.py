"""Trust goes from one header to the next, or from one change of validators to the next."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger import limits
from ledger.block import HEADER, block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.ids import GroupId
from ledger.light.trust import (
    LIGHT_BLOCK,
    SKIP_BLOCKS,
    LightBlock,
    TrustedHeader,
    check_fresh,
    follow,
    light_block,
    skip,
    trust_named,
)
from ledger.succession import describe_change
from ledger.votes import CERTIFICATE
from tests.unit.ledger.light_chains import (
    TERMS,
    LightChain,
    certify,
    genesis_trust,
    members,
)
from tests.unit.ledger.worlds import CHAIN, GENESIS, NOW, SUITE, VALIDATORS, make_genesis, secret

LAST = 30
CHANGES = {5: members(0, 1, 2, 3, 4), 9: members(0, 1, 2, 4, 5), 20: VALIDATORS, 21: members(0, 6)}
CHANGING = LightChain(CHANGES).grow(LAST)
LONE = LightChain().grow(12)
LATER = NOW + 1_000
CHANGE_HEIGHTS = [first - 1 for first in CHANGES]


def refusal(act, *arguments) -> Reason:
    with pytest.raises(Rejected) as caught:
        act(*arguments)
    return caught.value.reason


def followed(chain: LightChain, last: int) -> TrustedHeader:
    trusted = genesis_trust()
    for height in range(1, last + 1):
        trusted = follow(trusted, chain.blocks[height], CHAIN, TERMS, LATER)
    return trusted


def follow_refusal(trusted: TrustedHeader, block: LightBlock, now_ms: int = LATER) -> Reason:
    reason = refusal(follow, trusted, block, CHAIN, TERMS, now_ms)
    assert refusal(skip, trusted, [block], CHAIN, TERMS, now_ms) is reason
    return reason


def skip_refusal(*heights: int, chain: LightChain = CHANGING) -> Reason:
    blocks = [chain.blocks[height] for height in heights]
    return refusal(skip, genesis_trust(), blocks, CHAIN, TERMS, LATER)


def altered(chain: LightChain, height: int, **fields: object) -> LightBlock:
    """A header with other fields that the set which rules its height nevertheless decided."""
    header = HEADER.decode(chain.blocks[height].header)
    ruling = chain.ruling(height)
    after = chain.ruling(height + 1)
    return chain.certified(msgspec.structs.replace(header, **fields), ruling, after)


def test_following_and_skipping_come_to_the_same_trust():
    expected = TrustedHeader(
        height=LAST,
        hash=block_hash(CHANGING.blocks[LAST].header, SUITE),
        time_ms=NOW + LAST,
        header=HEADER.decode(CHANGING.blocks[LAST].header),
        validators=members(0, 6),
        next_validators=members(0, 6),
        taken_ms=LATER,
    )
    assert followed(CHANGING, LAST) == expected
    blocks = [CHANGING.blocks[height] for height in (*CHANGE_HEIGHTS, LAST)]
    assert skip(genesis_trust(), blocks, CHAIN, TERMS, LATER) == expected


def test_a_header_of_the_trusted_set_is_taken_on_at_any_distance():
    for height in range(1, 13):
        trusted = skip(genesis_trust(), [LONE.blocks[height]], CHAIN, TERMS, LATER)
        assert trusted == followed(LONE, height)


ASCENDING = {5: members(0, 1, 2, 3, 4), 9: members(0, 1, 2, 4, 5), 20: members(0, 1, 5, 6)}
RENEWED = LightChain(ASCENDING).grow(LAST)


@given(st.sets(st.integers(1, LAST)), st.sets(st.sampled_from((4, 8, 19))))
def test_skipping_succeeds_exactly_when_no_change_is_left_out(chosen, changes):
    heights = sorted({*chosen, *changes, LAST})
    blocks = [RENEWED.blocks[height] for height in heights]
    if {4, 8, 19} <= set(heights):
        reached = skip(genesis_trust(), blocks, CHAIN, TERMS, LATER)
        assert reached == followed(RENEWED, LAST)
    else:
        assert skip_refusal(*heights, chain=RENEWED) is Reason.BAD_CERTIFICATE


def test_a_change_of_validators_is_never_jumped_over():
    assert skip_refusal(5) is Reason.BAD_CERTIFICATE
    assert skip_refusal(4, 9) is Reason.BAD_CERTIFICATE
    assert skip_refusal(8) is Reason.BAD_CERTIFICATE
    # A set that comes back is known, and yet it is not the one that follows.
    assert skip_refusal(4, 8, 21) is Reason.BAD_CERTIFICATE


def test_a_set_that_came_back_is_the_set_that_is_trusted():
    """Its members decide in height 20 what they would decide with every change in between."""
    blocks = [CHANGING.blocks[height] for height in (20, LAST)]
    assert skip(genesis_trust(), blocks, CHAIN, TERMS, LATER) == followed(CHANGING, LAST)


def test_a_height_left_out_twice_or_backwards_is_refused():
    trusted = followed(LONE, 5)
    assert refusal(follow, trusted, LONE.blocks[7], CHAIN, TERMS, LATER) is Reason.BAD_PROOF
    for height in (1, 4, 5):
        assert follow_refusal(trusted, LONE.blocks[height]) is Reason.BAD_PROOF
    assert skip_refusal(3, 3, chain=LONE) is Reason.BAD_PROOF
    assert skip_refusal(4, 3, chain=LONE) is Reason.BAD_PROOF


def test_a_broken_link_and_time_that_does_not_grow_are_refused():
    trusted = followed(LONE, 5)
    broken = altered(LONE, 6, previous_hash=secret("another block"))
    assert follow_refusal(trusted, broken) is Reason.BAD_PROOF
    assert follow_refusal(trusted, altered(LONE, 6, time=NOW + 5)) is Reason.BAD_PROOF
    slow = altered(LONE, 9, time=NOW + 8)
    assert refusal(skip, trusted, [slow], CHAIN, TERMS, LATER) is Reason.BAD_PROOF
    assert skip(trusted, [altered(LONE, 9, time=NOW + 9)], CHAIN, TERMS, LATER).height == 9
    first = altered(LONE, 1, previous_hash=secret("another genesis"))
    assert follow_refusal(genesis_trust(), first) is Reason.BAD_PROOF


def test_another_version_group_or_chain_is_refused():
    trusted = genesis_trust()
    assert (
        follow_refusal(trusted, altered(LONE, 1, version=limits.PROTOCOL_VERSION + 1))
        is Reason.UNSUPPORTED_VERSION
    )
    assert follow_refusal(trusted, altered(LONE, 1, group=2)) is Reason.WRONG_CHAIN
    other = replace(CHAIN, group=GroupId(2))
    assert refusal(follow, trusted, LONE.blocks[1], other, TERMS, LATER) is Reason.WRONG_CHAIN
    # The same keys, another genesis: the votes name it.
    foreign = LightChain(chain=replace(CHAIN, genesis_hash=secret("other"))).grow(1)
    assert follow_refusal(trusted, foreign.blocks[1]) is Reason.BAD_CERTIFICATE


def test_a_set_change_of_another_chain_is_refused():
    assert make_genesis("Other") != GENESIS
    foreign = LightChain(CHANGES, chain=replace(CHAIN, genesis_hash=secret("other"))).grow(9)
    blocks = [foreign.blocks[4], CHANGING.blocks[8]]
    assert refusal(skip, genesis_trust(), blocks, CHAIN, TERMS, LATER) is Reason.BAD_CERTIFICATE


def test_other_validators_than_those_committed_to_are_refused():
    own, strangers = CHANGING.blocks[4], members(8, 9, 10, 11)
    for given_set in (strangers.members, VALIDATORS.members, (), own.next_validators[::-1]):
        block = msgspec.structs.replace(own, next_validators=given_set)
        assert refusal(skip, genesis_trust(), [block], CHAIN, TERMS, LATER) is Reason.BAD_PROOF
    twice = msgspec.structs.replace(own, next_validators=own.next_validators[:1] * 5)
    assert refusal(skip, genesis_trust(), [twice], CHAIN, TERMS, LATER) is Reason.BAD_PROOF
    # Where nothing changes, nothing is given: a block has one form.
    for needless in (VALIDATORS.members, strangers.members):
        block = msgspec.structs.replace(LONE.blocks[1], next_validators=needless)
        assert follow_refusal(genesis_trust(), block) is Reason.BAD_PROOF
    ruled = altered(LONE, 1, validators_hash=strangers.hash(SUITE))
    assert follow_refusal(genesis_trust(), ruled) is Reason.BAD_CERTIFICATE


def with_certificate(block: LightBlock, **fields: object) -> LightBlock:
    certificate = msgspec.structs.replace(CERTIFICATE.decode(block.certificate), **fields)
    return msgspec.structs.replace(block, certificate=encode(certificate))


def test_a_certificate_that_the_rules_do_not_allow_is_refused():
    block = LONE.blocks[1]
    first, second, third = CERTIFICATE.decode(block.certificate).signatures
    for fields in (
        {"signatures": (first, second)},
        {"signatures": (first, second, second)},
        {"signatures": (first, first, second, third)},
        {"signatures": (second, first, third)},
        {"signatures": (first, second, (2, bytes(64)))},
        {"signatures": (first, second, third, (3, bytes(64)))},
        {"signatures": (first, second, (3, third[1]))},
        {"signatures": (first, second, (4, third[1]))},
        {"height": 2},
        {"round": 1},
        {"block_hash": secret("another block")},
    ):
        bad = with_certificate(block, **fields)
        assert follow_refusal(genesis_trust(), bad) is Reason.BAD_CERTIFICATE


def test_every_flipped_byte_of_a_block_is_refused():
    data = encode(CHANGING.blocks[4])
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(Rejected):
            skip(genesis_trust(), [LIGHT_BLOCK.decode(flipped)], CHAIN, TERMS, LATER)


def test_trust_that_is_too_old_vouches_for_nothing():
    trusted = followed(LONE, 5)
    end = trusted.time_ms + TERMS.trust_period_ms
    assert follow(trusted, LONE.blocks[6], CHAIN, TERMS, end - 1).height == 6
    assert follow_refusal(trusted, LONE.blocks[6], end) is Reason.TRUST_EXPIRED
    assert refusal(skip, trusted, [LONE.blocks[9]], CHAIN, TERMS, end) is Reason.TRUST_EXPIRED
    late = NOW + TERMS.trust_period_ms
    assert follow_refusal(genesis_trust(), LONE.blocks[1], late) is Reason.TRUST_EXPIRED


def test_a_clock_that_went_back_does_not_make_trust_young_again():
    trusted = replace(followed(LONE, 5), taken_ms=LATER)
    back = LATER - TERMS.ahead_ms
    assert follow(trusted, LONE.blocks[6], CHAIN, TERMS, back).height == 6
    assert follow_refusal(trusted, LONE.blocks[6], back - 1) is Reason.FROM_FUTURE


def test_a_header_from_the_future_is_refused():
    trusted = replace(followed(LONE, 5), taken_ms=NOW)
    early = NOW + 6 - TERMS.ahead_ms
    assert follow(trusted, LONE.blocks[6], CHAIN, TERMS, early).height == 6
    assert follow_refusal(trusted, LONE.blocks[6], early - 1) is Reason.FROM_FUTURE
    way = [LONE.blocks[6], LONE.blocks[9]]
    assert refusal(skip, trusted, way, CHAIN, TERMS, early) is Reason.FROM_FUTURE


def test_freshness_has_two_ends():
    trusted = followed(LONE, 12)
    check_fresh(trusted, TERMS, trusted.time_ms + TERMS.lag_ms)
    check_fresh(trusted, TERMS, trusted.time_ms - TERMS.ahead_ms)
    late, early = trusted.time_ms + TERMS.lag_ms + 1, trusted.time_ms - TERMS.ahead_ms - 1
    assert refusal(check_fresh, trusted, TERMS, late) is Reason.STALE
    assert refusal(check_fresh, trusted, TERMS, early) is Reason.FROM_FUTURE


def test_one_call_takes_a_bounded_number_of_headers():
    assert refusal(skip, genesis_trust(), [], CHAIN, TERMS, LATER) is Reason.TOO_LARGE
    many = [LONE.blocks[1]] * (SKIP_BLOCKS + 1)
    assert refusal(skip, genesis_trust(), many, CHAIN, TERMS, LATER) is Reason.TOO_LARGE
    huge = LightBlock(bytes(4 * 1024 + 1), b"", ())
    assert refusal(LIGHT_BLOCK.decode, encode(huge)) is Reason.MALFORMED
    assert follow_refusal(genesis_trust(), huge) is Reason.TOO_LARGE
    assert refusal(LIGHT_BLOCK.decode, bytes(40_000)) is Reason.TOO_LARGE


def test_trust_may_begin_with_a_header_that_the_user_names():
    for height in (4, 10):
        block, named = CHANGING.blocks[height], block_hash(CHANGING.blocks[height].header, SUITE)
        ruling = CHANGING.ruling(height).members
        trusted = trust_named(block, ruling, named, CHAIN, TERMS, LATER)
        assert trusted == followed(CHANGING, height)


def test_a_named_header_must_be_the_one_of_this_chain_and_not_from_the_future():
    block, ruling = LONE.blocks[5], VALIDATORS.members
    named = block_hash(block.header, SUITE)

    def named_refusal(block, ruling, named, chain=CHAIN, now_ms=LATER):
        return refusal(trust_named, block, ruling, named, chain, TERMS, now_ms)

    assert named_refusal(LONE.blocks[6], ruling, named) is Reason.BAD_PROOF
    assert named_refusal(block, ruling[:3], named) is Reason.BAD_CERTIFICATE
    assert named_refusal(block, (), named) is Reason.BAD_CERTIFICATE
    other = replace(CHAIN, genesis_hash=secret("other"))
    assert named_refusal(block, ruling, named, other) is Reason.BAD_CERTIFICATE
    assert named_refusal(block, ruling, named, now_ms=NOW - 1_000) is Reason.FROM_FUTURE


def test_an_old_named_header_is_believed_and_vouches_for_nothing():
    late = NOW + 10 * TERMS.trust_period_ms
    block = LONE.blocks[5]
    named = block_hash(block.header, SUITE)
    trusted = trust_named(block, VALIDATORS.members, named, CHAIN, TERMS, late)
    assert trusted.height == 5
    assert follow_refusal(trusted, LONE.blocks[6], late) is Reason.TRUST_EXPIRED


def test_the_document_of_a_change_is_a_light_block():
    own = CHANGING.blocks[4]
    change = describe_change(own.header, own.certificate, CHANGING.ruling(5))
    assert light_block(change) == own
    assert LIGHT_BLOCK.decode(encode(own)) == own


def test_more_than_a_third_of_a_trusted_set_is_not_enough_for_another_set():
    """Two of four known members and their friends: enough for Tendermint's rule, not for ours."""
    friends = members(0, 1, 8, 9)
    made = HEADER.decode(LONE.blocks[7].header)
    own = friends.hash(SUITE)
    header = msgspec.structs.replace(made, validators_hash=own, next_validators_hash=own)
    data = encode(header)
    certificate = certify(7, block_hash(data, SUITE), friends, signers=(0, 1, 2, 3))
    block = LightBlock(data, certificate, ())
    assert refusal(skip, genesis_trust(), [block], CHAIN, TERMS, LATER) is Reason.BAD_CERTIFICATE
