"""The signer: once per place, durable first, and nothing twice whatever the core asks."""

import pytest

from consensus.messages import Proposal, Vote, VoteKind
from ledger.errors import UnavailableError
from ledger.ids import BlockHash, Height, Round, ValidatorIndex
from ledger.votes import Certificate
from node.limits import DUPLICATE_HEIGHTS
from node.signer import DoubleSignError, Position, Signer, position_of
from node.wire import digest_of
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, secret_of

A, B = BlockHash(b"\x0a" * 32), BlockHash(b"\x0b" * 32)
ME = ValidatorIndex(0)


def vote(height, round_number, kind, value=A):
    return Vote(VoteKind(kind), Height(height), Round(round_number), value, -1, ME)


def proposal(height, round_number, value=A):
    return Proposal(Height(height), Round(round_number), value, -1, ME)


def make_signer():
    return Signer(CHAIN, lambda digest: SUITE.sign(secret_of(0), digest))


def sign_all(signer, *messages):
    """Sign; what was made durable, in order."""
    kept = []
    for message in messages:
        signer.sign(message, kept.append)
    return kept


def test_a_message_is_durable_before_it_can_leave_and_bears_a_good_signature():
    signer, kept = make_signer(), []
    signed = signer.sign(vote(1, 0, 1), kept.append)
    assert kept == [signed]
    key = SUITE.public_key(secret_of(0))
    assert SUITE.verify(key, digest_of(signed.message, CHAIN), signed.signature)


def test_what_cannot_be_made_durable_is_not_signed():
    signer = make_signer()

    def fail(_signed):
        raise UnavailableError("the disk is full")

    with pytest.raises(UnavailableError):
        signer.sign(vote(1, 0, 1), fail)
    assert signer.last == Position(0, 0, 0)


ORDER = [
    proposal(1, 0),
    vote(1, 0, 1),
    vote(1, 0, 2),
    vote(1, 1, 1),
    proposal(1, 2),
    vote(2, 0, 1),
]


def test_an_equal_message_gets_the_stored_signature_and_no_second_record():
    signer = make_signer()
    first = sign_all(signer, *ORDER[:3])
    kept = []
    assert [signer.sign(item.message, kept.append) for item in first] == first
    assert kept == []


@pytest.mark.parametrize("newest", range(1, len(ORDER)))
def test_every_earlier_place_and_every_other_message_of_the_newest_is_refused(newest):
    signer = make_signer()
    sign_all(signer, ORDER[newest])
    refused = [*ORDER[:newest], vote(2, 0, 1, B), vote(1, 0, 2, None)]
    for message in refused:
        if position_of(message) <= position_of(ORDER[newest]) and message != ORDER[newest]:
            with pytest.raises(DoubleSignError, match="nothing was signed"):
                signer.sign(message, pytest.fail)


def test_what_the_log_brings_back_counts_as_signed():
    before = sign_all(make_signer(), vote(5, 3, 1), vote(5, 3, 2))
    signer = make_signer()
    for own in before:
        signer.remember(own)
    with pytest.raises(DoubleSignError):
        signer.sign(vote(5, 3, 1, B), pytest.fail)
    assert signer.sign(vote(5, 3, 2), pytest.fail) == before[1]


def test_nothing_is_signed_below_the_height_in_progress():
    signer = make_signer()
    signer.start_height(7)
    with pytest.raises(DoubleSignError):
        signer.sign(vote(6, 9, 2), pytest.fail)
    assert len(sign_all(signer, proposal(7, 0))) == 1


def test_a_signer_knows_its_own_messages_and_no_others():
    signer = make_signer()
    sign_all(signer, vote(1, 0, 1))
    assert [signer.knows(vote(1, 0, 1)), signer.knows(vote(1, 0, 1, B))] == [True, False]
    assert not signer.knows(vote(1, 0, 2))


def test_own_precommits_are_known_for_as_many_heights_as_certificates_are_looked_at():
    signer = make_signer()
    sign_all(signer, vote(1, 0, 2))
    certificate = Certificate(1, 0, A, ())
    signer.start_height(DUPLICATE_HEIGHTS)
    assert signer.knows_precommit(certificate)
    assert not signer.knows_precommit(Certificate(1, 1, A, ()))
    assert not signer.knows_precommit(Certificate(1, 0, B, ()))
    signer.start_height(1 + DUPLICATE_HEIGHTS)
    assert not signer.knows_precommit(certificate)
