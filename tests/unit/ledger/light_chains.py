"""Chains of certified headers for tests of the light client: real keys, real history roots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from ledger.block import block_hash
from ledger.codec import encode
from ledger.history import EMPTY_FRONTIER, Frontier, history_entry
from ledger.light.trust import LightBlock, Terms, TrustedHeader, trust_genesis
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet, validator_set
from ledger.votes import Certificate, VoteType, vote_digest
from tests.unit.ledger.worlds import CHAIN, GENESIS, SUITE, VALIDATORS, key, make_header, secret

SECRETS = {key(name): secret(name) for name in [f"validator {number}" for number in range(16)]}
TERMS = Terms(trust_period_ms=1_000_000, lag_ms=10_000, ahead_ms=500)


def members(*numbers: int) -> ValidatorSet:
    """The set of these validators; 0 to 3 are those of genesis."""
    return validator_set(
        Validator(_address(f"validator {number}"), key(f"validator {number}")) for number in numbers
    )


def _address(name: str) -> bytes:
    own = {member.key: member.address for member in VALIDATORS.members}
    return own.get(key(name), secret(f"address of {name}"))


def certify(
    height: int,
    digest: bytes,
    ruling: ValidatorSet,
    *,
    signers: Sequence[int] = (),
    round_number: int = 0,
    chain: Chain = CHAIN,
) -> bytes:
    """A certificate by these signers; a quorum where none are named."""
    vote = vote_digest(chain, VoteType.PRECOMMIT, height, round_number, digest)
    signatures = tuple(
        (index, SUITE.sign(SECRETS[ruling.members[index].key], vote))
        for index in signers or range(ruling.quorum)
    )
    return encode(Certificate(height, round_number, digest, signatures))


@dataclass
class LightChain:
    """Headers from height 1 on. `changes` says which set rules from a height on."""

    changes: Mapping[int, ValidatorSet] = field(default_factory=dict[int, ValidatorSet])
    chain: Chain = CHAIN
    salt: str = ""
    parted: int = 1
    """From this height on the headers are those of another branch, which `salt` names."""
    rounds: int = 0
    signers: Sequence[int] = ()
    blocks: dict[int, LightBlock] = field(default_factory=dict[int, LightBlock])
    frontier: Frontier = EMPTY_FRONTIER
    nodes: dict[tuple[int, int], bytes] = field(default_factory=dict[tuple[int, int], bytes])

    def get(self, level: int, index: int, /) -> bytes:
        """A node of the history."""
        return self.nodes[level, index]

    def ruling(self, height: int) -> ValidatorSet:
        """V(height)."""
        begun = [first for first in self.changes if first <= height]
        return self.changes[max(begun)] if begun else VALIDATORS

    def grow(self, last: int) -> "LightChain":
        """The chain up to a height."""
        previous: bytes = self.chain.genesis_hash
        self._append(previous)
        for height in range(1, last + 1):
            ruling, after = self.ruling(height), self.ruling(height + 1)
            made = make_header(
                height, previous_hash=previous, validators=ruling, group=self.chain.group
            )
            header = msgspec.structs.replace(
                made,
                next_validators_hash=after.hash(SUITE),
                history_root=self.frontier.sized_root(SUITE.digest),
                state_root=secret(f"{self.salt if height >= self.parted else ''} state {height}"),
            )
            self.blocks[height] = self.certified(header, ruling, after)
            previous = block_hash(self.blocks[height].header, SUITE)
            self._append(previous)
        return self

    def certified(self, header, ruling: ValidatorSet, after: ValidatorSet) -> LightBlock:
        """A header that the ruling set signed, whatever it says."""
        data = encode(header)
        certificate = certify(
            header.height,
            block_hash(data, SUITE),
            ruling,
            signers=self.signers,
            round_number=self.rounds,
            chain=self.chain,
        )
        return LightBlock(data, certificate, () if after == ruling else after.members)

    def _append(self, digest: bytes) -> None:
        self.frontier, nodes = self.frontier.append(SUITE.digest, history_entry(digest))
        self.nodes |= {(node.level, node.index): node.hash for node in nodes}


def genesis_trust(now_ms: int = GENESIS.time) -> TrustedHeader:
    return trust_genesis(GENESIS, now_ms)
