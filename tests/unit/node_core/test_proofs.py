"""Proofs of heights around changes of the validators verify from genesis alone."""

import msgspec
import pytest
import trio

from contracts.changes import Change
from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import encode
from ledger.errors import KanglianError, Reason, Rejected
from ledger.proof import AnchoredProof, RegistrationProof, parse_proof, verify_registration
from ledger.succession import describe_change
from ledger.validators import Validator, validator_set
from ledger.votes import CERTIFICATE
from node.queries import Queries
from tests.unit.ledger.worlds import SUITE, key

from .chains import (
    GENESIS,
    NEWCOMERS,
    LocalChain,
    certify_by,
    make_transaction,
    node_name,
    register,
)
from .test_membership import JOIN, LEAVE, govern


class Proved:
    """A chain of two changes with a registration in every block but the votes."""

    def __init__(self):
        self.chain = LocalChain()
        self.queries = Queries(self.chain.writer)
        self.number = 0
        self.heights = {}
        self.register(2)
        self.joined = govern(self.chain, 500, JOIN)
        self.register(4)
        self.left = govern(self.chain, 600, LEAVE)
        self.register(4)

    def register(self, count):
        for _ in range(count):
            self.number += 1
            (receipt,) = self.chain.run(
                make_transaction(register(self.number), self.number, is_signed=True)
            )
            self.heights[self.chain.tip.height] = receipt.id

    def proof(self, height):
        return trio.run(self.queries.proof, self.heights[height])


WORLD = Proved()
PROVED = sorted(WORLD.heights)[:-1]
LAST = WORLD.proof(PROVED[-1])


@pytest.mark.parametrize("height", PROVED)
def test_every_registration_verifies_whatever_set_decided_it(height):
    proof = WORLD.proof(height)
    assert parse_proof(proof.to_json()) == proof
    verdict = verify_registration(proof, GENESIS)
    assert (verdict.height, verdict.operation) == (height, WORLD.heights[height])
    changes = sum(first <= height + 1 for first in (WORLD.joined, WORLD.left))
    kind = AnchoredProof if changes else RegistrationProof
    assert isinstance(proof, kind)
    assert not changes or len(proof.changes) == changes


def test_both_forms_and_both_sides_of_each_change_are_among_them():
    assert {WORLD.joined, WORLD.joined - 2} & set(PROVED) == {WORLD.joined}
    assert any(height + 1 < WORLD.joined for height in PROVED)
    assert any(WORLD.joined <= height and height + 1 < WORLD.left for height in PROVED)
    assert any(height + 1 == WORLD.joined for height in PROVED)


def altered_changes():
    first, second = LAST.changes
    named = first.validators
    certificate = CERTIFICATE.decode(bytes.fromhex(first.certificate))
    following = WORLD.chain.writer.validators_at(WORLD.joined)
    forged = certify_by(following, certificate.block_hash, certificate.height).hex()
    return {
        "none": None,
        "the first left out": (second,),
        "the second left out": (first,),
        "in another order": (second, first),
        "one twice": (first, first, second),
        "another member": (
            msgspec.structs.replace(first, validators=(*named[:-1], second.validators[0])),
            second,
        ),
        "a member less": (msgspec.structs.replace(first, validators=named[:-1]), second),
        "members in another order": (
            msgspec.structs.replace(first, validators=named[::-1]),
            second,
        ),
        "the certificate of the other change": (
            msgspec.structs.replace(first, certificate=second.certificate),
            second,
        ),
        "a certificate by the set that follows": (
            msgspec.structs.replace(first, certificate=forged),
            second,
        ),
        "the header of the other change": (
            msgspec.structs.replace(first, header=second.header),
            second,
        ),
    }


@pytest.mark.parametrize("what", altered_changes())
def test_changes_that_do_not_lead_from_genesis_to_the_headers_are_refused(what):
    changes = altered_changes()[what]
    proof = LAST.registration
    if changes is not None:
        proof = msgspec.structs.replace(LAST, changes=changes)
    with pytest.raises(Rejected) as refusal:
        verify_registration(proof, GENESIS)
    assert refusal.value.reason in {Reason.BAD_PROOF, Reason.BAD_CERTIFICATE}


def test_a_change_beyond_the_headers_is_refused():
    early = next(height for height in PROVED if WORLD.joined <= height < WORLD.left - 1)
    proof = msgspec.structs.replace(WORLD.proof(early), changes=LAST.changes)
    with pytest.raises(Rejected, match="beyond the proof"):
        verify_registration(proof, GENESIS)


def test_a_change_that_changes_nothing_is_refused():
    """Otherwise any header could be put in, and the proof would have many forms."""
    stored = WORLD.chain.blocks.block(1)
    idle = describe_change(
        BLOCK.decode(stored.block).header,
        stored.certificate,
        WORLD.chain.writer.validators_at(1),
    )
    proof = msgspec.structs.replace(LAST, changes=(idle, *LAST.changes))
    with pytest.raises(Rejected, match="commits to other validators"):
        verify_registration(proof, GENESIS)


def test_every_altered_byte_of_the_changes_is_noticed():
    data = LAST.to_json()
    stop = data.index(b'],"format"')
    for place in range(12, stop, 97):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(KanglianError):
            verify_registration(parse_proof(changed), GENESIS)


def test_a_set_that_no_ruling_set_committed_to_cannot_certify_the_next_header():
    """The newcomer's friends name themselves and sign what they like."""
    proof = WORLD.proof(WORLD.joined - 1)
    (change,) = proof.changes
    friends = validator_set(Validator(node_name(name), key(name)) for name in NEWCOMERS[4:8])
    header = HEADER.decode(bytes.fromhex(proof.registration.next_header))
    forged = encode(msgspec.structs.replace(header, validators_hash=friends.hash(SUITE)))
    certificate = certify_by(friends, block_hash(forged, SUITE), WORLD.joined)
    own = describe_change(bytes.fromhex(change.header), bytes.fromhex(change.certificate), friends)
    registration = msgspec.structs.replace(
        proof.registration, next_header=forged.hex(), next_certificate=certificate.hex()
    )
    altered = msgspec.structs.replace(proof, changes=(own,), registration=registration)
    with pytest.raises(Rejected, match="commits to other validators"):
        verify_registration(altered, GENESIS)


def test_changes_cannot_go_in_a_circle():
    chain = LocalChain()
    govern(chain, 500, JOIN)
    chain.decide()
    chain.decide()
    govern(chain, 600, Change("remove", JOIN.node))
    for number in range(1, 5):
        (receipt,) = chain.run(make_transaction(register(number), number, is_signed=True))
    chain.decide()
    proof = trio.run(Queries(chain.writer).proof, receipt.id)
    assert verify_registration(proof, GENESIS)
    circle = msgspec.structs.replace(proof, changes=proof.changes * 2)
    with pytest.raises(Rejected, match="must ascend"):
        verify_registration(circle, GENESIS)
