"""The voting set: order, quorum and the hashes a header holds."""

import msgpack
import pytest

from ledger.validators import Validator, ValidatorSet, validator_set
from tests.unit.ledger.worlds import SUITE, VALIDATORS


def members(count: int) -> ValidatorSet:
    return ValidatorSet(
        tuple(Validator(bytes([number]) * 32, bytes(34)) for number in range(count))
    )


@pytest.mark.parametrize(
    ("count", "faults", "quorum"),
    [(1, 0, 1), (2, 0, 2), (3, 0, 3), (4, 1, 3), (5, 1, 4), (6, 1, 5), (7, 2, 5), (10, 3, 7)],
)
def test_faults_and_quorum_of_small_sets(count, faults, quorum):
    assert (members(count).faults, members(count).quorum) == (faults, quorum)


def test_two_quorums_share_a_correct_member_and_correct_members_reach_one():
    for count in range(1, 129):
        some = members(count)
        assert 2 * some.quorum - count > some.faults
        assert count - some.faults >= some.quorum


def test_members_ascend_and_are_found_by_address():
    shuffled = validator_set(VALIDATORS.members[::-1])
    assert shuffled == VALIDATORS
    addresses = [member.address for member in VALIDATORS.members]
    assert addresses == sorted(addresses)
    assert [VALIDATORS.index_of(address) for address in addresses] == [0, 1, 2, 3]
    assert VALIDATORS.index_of(bytes(32)) is None


def test_the_hashes_are_tagged_canonical_arrays():
    array = [[member.address, member.key] for member in VALIDATORS.members]
    assert VALIDATORS.hash(SUITE) == SUITE.digest(b"kl.validators\0" + msgpack.packb(array))
    topology = [0, [member.address for member in VALIDATORS.members]]
    expected = SUITE.digest(b"kl.topology\0" + msgpack.packb(topology))
    assert VALIDATORS.topology_hash(SUITE) == expected
