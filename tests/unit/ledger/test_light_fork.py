"""A witness agrees, is faulty, or proves a fork; nobody is blamed who may be innocent."""

import msgspec
import pytest

from ledger.block import HEADER, block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.light.fork import (
    FORK_EVIDENCE,
    Fork,
    ForkEvidence,
    fork_evidence,
    verify_fork,
)
from ledger.light.trust import LightBlock
from ledger.light.witness import Agreement, EarlierSplit, FaultyWitness, Split, compare
from ledger.votes import CERTIFICATE
from tests.unit.ledger.light_chains import TERMS, LightChain, certify, genesis_trust, members
from tests.unit.ledger.worlds import CHAIN, NOW, SUITE, VALIDATORS, secret

LATER = NOW + 1_000
HERE = LightChain(signers=(0, 1, 2)).grow(8)
THERE = LightChain(salt="there", parted=6, signers=(1, 2, 3)).grow(8)
ADDRESSES = tuple(VALIDATORS.addresses)
EVIDENCE = fork_evidence(HERE.blocks[7], THERE.blocks[7], CHAIN)


def compared(primary, witness):
    return compare(genesis_trust(), primary, witness, CHAIN, TERMS, LATER)


def fork_refusal(evidence: ForkEvidence, validators=VALIDATORS) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_fork(evidence, validators, CHAIN)
    return caught.value.reason


def faulty(witness) -> Reason:
    finding = compared([HERE.blocks[7]], witness)
    assert isinstance(finding, FaultyWitness)
    return finding.refusal.reason


def certified_again(block: LightBlock, signers, round_number=0, ruling=VALIDATORS) -> LightBlock:
    header = HEADER.decode(block.header)
    digest = block_hash(block.header, SUITE)
    certificate = certify(header.height, digest, ruling, signers=signers, round_number=round_number)
    return msgspec.structs.replace(block, certificate=certificate)


def test_witnesses_that_show_the_same_header_agree_by_whatever_certificate():
    other = certified_again(HERE.blocks[7], (0, 1, 2, 3), round_number=2)
    for witness in ([HERE.blocks[7]], [other], [HERE.blocks[3], HERE.blocks[7]]):
        assert compared([HERE.blocks[7]], witness) == Agreement()
    assert compared([HERE.blocks[5]], [THERE.blocks[5]]) == Agreement()


def test_two_decided_headers_of_one_height_are_evidence_that_anybody_can_verify():
    finding = compared([HERE.blocks[7]], [THERE.blocks[7]])
    assert finding == Split(EVIDENCE, VALIDATORS)
    assert compared([THERE.blocks[7]], [HERE.blocks[7]]) == finding
    again = FORK_EVIDENCE.decode(encode(EVIDENCE))
    both = ADDRESSES[1:3]
    assert verify_fork(again, VALIDATORS, CHAIN) == Fork(7, both, both)


def test_signers_of_both_blocks_in_different_rounds_are_not_convicted():
    """A correct validator may have followed a later prevote quorum."""
    later = certified_again(THERE.blocks[7], (1, 2, 3), round_number=1)
    evidence = fork_evidence(HERE.blocks[7], later, CHAIN)
    assert verify_fork(evidence, VALIDATORS, CHAIN) == Fork(7, ADDRESSES[1:3], ())


@pytest.mark.parametrize("count", [4, 5, 6, 7, 10, 13])
def test_more_than_f_validators_stand_in_both_certificates(count):
    ruling = members(*range(count))
    quorum = ruling.quorum
    made = []
    for number in range(2):
        header = msgspec.structs.replace(
            HEADER.decode(HERE.blocks[7].header),
            validators_hash=ruling.hash(SUITE),
            state_root=secret(f"state {number}"),
        )
        block = LightBlock(encode(header), b"", ())
        signers = range(quorum) if number else range(count - quorum, count)
        made.append(certified_again(block, tuple(signers), ruling=ruling))
    fork = verify_fork(fork_evidence(*made, CHAIN), ruling, CHAIN)
    assert len(fork.equivocators) == 2 * quorum - count >= ruling.faults + 1
    assert fork.equivocators == fork.signed_both == ruling.addresses[count - quorum : quorum]


def test_evidence_of_one_header_or_of_two_heights_is_none():
    other = certified_again(HERE.blocks[7], (1, 2, 3))
    assert fork_refusal(fork_evidence(HERE.blocks[7], other, CHAIN)) is Reason.BAD_EVIDENCE
    apart = fork_evidence(HERE.blocks[7], THERE.blocks[8], CHAIN)
    assert fork_refusal(apart) is Reason.BAD_EVIDENCE


def test_evidence_has_one_order():
    turned = ForkEvidence(
        EVIDENCE.second_header,
        EVIDENCE.second_certificate,
        EVIDENCE.first_header,
        EVIDENCE.first_certificate,
    )
    assert fork_refusal(turned) is Reason.BAD_EVIDENCE


def test_nobody_is_framed_by_signatures_that_do_not_verify():
    certificate = CERTIFICATE.decode(EVIDENCE.second_certificate)
    signers = [index for index, _ in certificate.signatures]
    missing = next(index for index in range(4) if index not in signers)
    framed = tuple(sorted((*certificate.signatures, (missing, bytes(64)))))
    for signatures in (framed, certificate.signatures[:2], certificate.signatures[:1] * 3):
        bad = encode(msgspec.structs.replace(certificate, signatures=signatures))
        evidence = msgspec.structs.replace(EVIDENCE, second_certificate=bad)
        assert fork_refusal(evidence) is Reason.BAD_CERTIFICATE


def test_evidence_of_a_set_that_the_verifier_does_not_know_is_refused():
    """Strangers can decide what they like; it says nothing about this chain."""
    strangers = members(8, 9, 10, 11)
    invented = LightChain({1: strangers}, salt="invented").grow(7)
    own = LightChain({1: strangers}).grow(7)
    evidence = fork_evidence(own.blocks[7], invented.blocks[7], CHAIN)
    assert verify_fork(evidence, strangers, CHAIN).equivocators
    assert fork_refusal(evidence) is Reason.BAD_CERTIFICATE
    # Two sets share no signer, and no set decided twice.
    mixed = fork_evidence(HERE.blocks[7], invented.blocks[7], CHAIN)
    assert fork_refusal(mixed) is Reason.BAD_CERTIFICATE
    assert fork_refusal(mixed, strangers) is Reason.BAD_CERTIFICATE


def test_every_flipped_byte_of_evidence_is_refused():
    data = encode(EVIDENCE)
    for place in range(len(data)):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(Rejected):
            verify_fork(FORK_EVIDENCE.decode(flipped), VALIDATORS, CHAIN)


def test_a_witness_whose_header_does_not_verify_is_faulty_and_no_fork_is_claimed():
    short = certified_again(THERE.blocks[7], (0, 1))
    strangers = LightChain({1: members(8, 9, 10, 11)}).grow(7)
    assert faulty([short]) is Reason.BAD_CERTIFICATE
    assert faulty([strangers.blocks[7]]) is Reason.BAD_CERTIFICATE
    assert faulty([HERE.blocks[6]]) is Reason.BAD_PROOF
    assert faulty([]) is Reason.TOO_LARGE
    assert faulty([LightBlock(b"\xc0", b"", ())]) is Reason.MALFORMED


def test_a_primary_whose_header_does_not_verify_is_refused():
    with pytest.raises(Rejected) as caught:
        compared([certified_again(HERE.blocks[7], (0, 1))], [HERE.blocks[7]])
    assert caught.value.reason is Reason.BAD_CERTIFICATE


ALLIES, RIVALS = members(0, 1, 2, 4), members(0, 1, 2, 5)


def test_a_split_below_different_sets_is_found_at_the_change_that_differs():
    left = LightChain({4: ALLIES}).grow(8)
    right = LightChain({4: RIVALS}).grow(8)
    finding = compared([left.blocks[3], left.blocks[8]], [right.blocks[3], right.blocks[8]])
    assert finding == Split(fork_evidence(left.blocks[3], right.blocks[3], CHAIN), VALIDATORS)
    fork = verify_fork(finding.evidence, finding.validators, CHAIN)
    assert fork == Fork(3, ADDRESSES[:3], ADDRESSES[:3])


def test_a_split_after_a_shared_change_is_judged_by_the_set_after_it():
    shared = members(0, 1, 2, 3, 6)
    left = LightChain({3: shared, 5: ALLIES}).grow(8)
    right = LightChain({3: shared, 5: RIVALS}).grow(8)
    ways = [[chain.blocks[height] for height in (2, 4, 8)] for chain in (left, right)]
    finding = compared(*ways)
    assert isinstance(finding, Split)
    assert finding.validators == shared
    assert verify_fork(finding.evidence, shared, CHAIN).height == 4


def test_changes_at_different_heights_are_narrowed_down_to_one():
    left = LightChain({4: ALLIES}).grow(8)
    right = LightChain({6: RIVALS}).grow(8)
    primary, witness = [left.blocks[3], left.blocks[8]], [right.blocks[5], right.blocks[8]]
    assert compared(primary, witness) == EarlierSplit(3)
    assert compared(witness, primary) == EarlierSplit(3)
    finding = compared(primary, [right.blocks[3], *witness])
    assert finding == Split(fork_evidence(left.blocks[3], right.blocks[3], CHAIN), VALIDATORS)


def test_a_witness_that_shows_the_change_it_left_out_contradicts_itself():
    left = LightChain({4: ALLIES}).grow(8)
    right = LightChain({6: RIVALS}).grow(8)
    primary, witness = [left.blocks[3], left.blocks[8]], [right.blocks[5], right.blocks[8]]
    finding = compared(primary, [left.blocks[3], *witness])
    assert isinstance(finding, FaultyWitness)
    assert finding.refusal.reason is Reason.BAD_CERTIFICATE


def test_a_split_under_one_set_is_evidence_however_the_sides_came_there():
    left = LightChain({4: ALLIES, 6: VALIDATORS}).grow(8)
    primary = [left.blocks[height] for height in (3, 5, 8)]
    finding = compared(primary, [HERE.blocks[8]])
    assert finding == Split(fork_evidence(left.blocks[8], HERE.blocks[8], CHAIN), VALIDATORS)
    assert verify_fork(finding.evidence, VALIDATORS, CHAIN).height == 8
