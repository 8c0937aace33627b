"""A certificate proves a decision only when a quorum signed exactly that block (T-05, T-08)."""

from dataclasses import replace

import msgpack
import msgspec
import pytest

from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.ids import GroupId
from ledger.votes import (
    CERTIFICATE,
    NO_ROUND,
    Certificate,
    VoteType,
    proposal_digest,
    verify_certificate,
    vote_digest,
)
from tests.unit.ledger.worlds import (
    CHAIN,
    SUITE,
    VALIDATOR_SECRETS,
    VALIDATORS,
    make_certificate,
    secret,
)

BLOCK = secret("block")


def refused(certificate: Certificate) -> bool:
    with pytest.raises(Rejected) as caught:
        verify_certificate(certificate, VALIDATORS, CHAIN)
    return caught.value.reason is Reason.BAD_CERTIFICATE


def test_a_vote_signs_everything_that_is_read_from_it():
    array = msgpack.packb([CHAIN.genesis_hash, 1, 2, 7, 3, BLOCK, -1])
    expected = SUITE.digest(b"kl.vote\0" + array)
    assert vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 3, BLOCK) == expected
    nil = SUITE.digest(b"kl.vote\0" + msgpack.packb([CHAIN.genesis_hash, 1, 1, 7, 3, None, 2]))
    assert vote_digest(CHAIN, VoteType.PREVOTE, 7, 3, None, valid_round=2) == nil
    array = msgpack.packb([CHAIN.genesis_hash, 1, 7, 3, BLOCK, NO_ROUND])
    expected = SUITE.digest(b"kl.proposal\0" + array)
    assert proposal_digest(CHAIN, 7, 3, BLOCK, NO_ROUND) == expected


def test_every_input_of_a_vote_changes_what_is_signed():
    other_chain = replace(CHAIN, genesis_hash=secret("other"))
    other_group = replace(CHAIN, group=GroupId(2))
    digests = {
        vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 3, BLOCK),
        vote_digest(CHAIN, VoteType.PREVOTE, 7, 3, BLOCK),
        vote_digest(CHAIN, VoteType.PRECOMMIT, 8, 3, BLOCK),
        vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 4, BLOCK),
        vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 3, None),
        vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 3, BLOCK, valid_round=0),
        vote_digest(other_chain, VoteType.PRECOMMIT, 7, 3, BLOCK),
        vote_digest(other_group, VoteType.PRECOMMIT, 7, 3, BLOCK),
        proposal_digest(CHAIN, 7, 3, BLOCK, NO_ROUND),
    }
    assert len(digests) == 9


@pytest.mark.parametrize("signers", [(0, 1, 2), (0, 2, 3), (1, 2, 3), (0, 1, 2, 3)])
def test_any_quorum_certifies(signers):
    verify_certificate(make_certificate(7, BLOCK, signers=signers), VALIDATORS, CHAIN)


@pytest.mark.parametrize("signers", [(), (0,), (0, 1), (2, 3)])
def test_fewer_than_a_quorum_does_not(signers):
    assert refused(make_certificate(7, BLOCK, signers=signers))


def test_t_05_one_validator_never_counts_twice():
    good = make_certificate(7, BLOCK)
    first, second, third = good.signatures
    for signatures in (
        (first, first, second),
        (first, second, second),
        (first, (2, second[1]), third),
        (first, (0, second[1]), third),
    ):
        assert refused(msgspec.structs.replace(good, signatures=signatures))


def test_t_08_signers_ascend_and_lie_within_the_set():
    good = make_certificate(7, BLOCK)
    first, second, third = good.signatures
    for signatures in (
        (third, second, first),
        (second, first, third),
        (first, second, (4, third[1])),
        (first, second, (2**62, third[1])),
    ):
        assert refused(msgspec.structs.replace(good, signatures=signatures))


def test_every_signature_is_checked_even_beyond_the_quorum():
    good = make_certificate(7, BLOCK, signers=(0, 1, 2, 3))
    for place in range(4):
        signatures = list(good.signatures)
        signatures[place] = (place, bytes(64))
        assert refused(msgspec.structs.replace(good, signatures=tuple(signatures)))


def test_height_round_block_chain_and_vote_type_are_what_was_signed():
    good = make_certificate(7, BLOCK)
    assert refused(msgspec.structs.replace(good, height=8))
    assert refused(msgspec.structs.replace(good, round=1))
    assert refused(msgspec.structs.replace(good, block_hash=secret("other")))
    assert refused(make_certificate(7, BLOCK, vote_type=VoteType.PREVOTE))
    assert refused(make_certificate(7, BLOCK, chain=replace(CHAIN, genesis_hash=BLOCK)))
    assert refused(make_certificate(7, BLOCK, chain=replace(CHAIN, group=GroupId(2))))


def test_a_precommit_that_justifies_a_valid_round_does_not_certify():
    vote = vote_digest(CHAIN, VoteType.PRECOMMIT, 7, 0, BLOCK, valid_round=0)
    signatures = tuple((index, SUITE.sign(VALIDATOR_SECRETS[index], vote)) for index in (0, 1, 2))
    assert refused(Certificate(height=7, round=0, block_hash=BLOCK, signatures=signatures))


def test_a_certificate_has_one_form():
    good = make_certificate(7, BLOCK)
    assert CERTIFICATE.decode(encode(good)) == good
    with pytest.raises(Rejected) as caught:
        CERTIFICATE.decode(b"\x94\xcc\x07" + encode(good)[2:])
    assert caught.value.reason is Reason.NON_CANONICAL
    many = msgspec.structs.replace(good, signatures=good.signatures[:1] * 129)
    for bad in (msgspec.structs.replace(good, height=0), many):
        with pytest.raises(Rejected) as caught:
            CERTIFICATE.decode(encode(bad))
        assert caught.value.reason is Reason.MALFORMED
