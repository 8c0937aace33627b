"""The voting set: who may sign for a height, and how many of them decide.

Weights are equal. Members stand in ascending order of address; an index into that order is the only
way a signer is ever named, so there are never two ways to resolve one.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from ledger import limits
from ledger.codec import Record, encode
from ledger.crypto.suite import CryptoSuite
from ledger.ids import Address, Bytes32, Hash, PublicKeyBytes, ValidatorIndex

VALIDATORS_TAG = b"kl.validators\0"
TOPOLOGY_TAG = b"kl.topology\0"


class Validator(Record, frozen=True):
    """One member: node address and tagged public key."""

    address: Bytes32
    key: PublicKeyBytes


class Topology(Record, frozen=True):
    """How broadcasts travel: mode 0 is flat (everyone gets everything), then the masters."""

    mode: Annotated[int, Meta(ge=0, le=1)]
    masters: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.VALIDATORS)]


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """The members in their order. Tolerates `faults` of them failing in any way."""

    members: tuple[Validator, ...]

    @property
    def faults(self) -> int:
        """The largest number of faulty members the set survives: f = floor((n - 1) / 3)."""
        return (len(self.members) - 1) // 3

    @property
    def quorum(self) -> int:
        """floor(2n / 3) + 1: two quorums share a correct member."""
        return 2 * len(self.members) // 3 + 1

    def index_of(self, address: Address) -> ValidatorIndex | None:
        """The index of a node, or None when it does not vote."""
        for index, member in enumerate(self.members):
            if member.address == address:
                return ValidatorIndex(index)
        return None

    @property
    def addresses(self) -> tuple[bytes, ...]:
        """The node addresses of the members in their order."""
        return tuple(member.address for member in self.members)

    def hash(self, suite: CryptoSuite) -> Hash:
        """What a header commits to."""
        return suite_hash(suite, VALIDATORS_TAG, encode(self.members))

    def topology_hash(self, suite: CryptoSuite) -> Hash:
        """The hash of the flat topology, the only mode of protocol version 1."""
        topology = Topology(mode=0, masters=self.addresses)
        return suite_hash(suite, TOPOLOGY_TAG, encode(topology))


def suite_hash(suite: CryptoSuite, tag: bytes, data: bytes) -> Hash:
    """A domain-separated hash."""
    return Hash(suite.digest(tag + data))


def validator_set(members: Iterable[Validator]) -> ValidatorSet:
    """The set of these members in ascending order of address."""
    return ValidatorSet(tuple(sorted(members, key=lambda member: member.address)))
