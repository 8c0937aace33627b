"""What a light client costs: 10,000 headers in sequence, 100 changes of validators by skipping.

Four validators with real keys, certificates with all four signatures, so a header is at least 4 V.
`python -m bench.light` prints CPU in ms and in V, one secp256k1 verification calibrated meanwhile.
"""

import time
from collections.abc import Sequence
from hashlib import sha256

from bench.calibration import Calibration
from ledger import limits
from ledger.addresses import AddressKind, address_of, encode_text, single_key_script
from ledger.block import Header, block_hash, empty_root
from ledger.codec import encode
from ledger.crypto.suites import INTERNATIONAL as SUITE
from ledger.genesis import (
    Genesis,
    Module,
    Node,
    Organisation,
    Parameters,
    chain_of,
    genesis_validators,
)
from ledger.light.trust import LightBlock, Terms, TrustedHeader, follow, skip, trust_genesis
from ledger.transaction import Chain
from ledger.validators import Validator, ValidatorSet, validator_set
from ledger.votes import Certificate, VoteType, vote_digest

HEADERS = 10_000
CHANGES = 100
SIGNERS = 4
SLICE = 200
START_MS = 1_760_000_000_000
TERMS = Terms(trust_period_ms=30 * 86_400_000, lag_ms=1_200_000, ahead_ms=500)

_SECRETS = [sha256(b"light %d" % number).digest() for number in range(SIGNERS + 1)]
_KEYS: dict[bytes, bytes] = {SUITE.public_key(secret): secret for secret in _SECRETS}


def _script(key: bytes) -> bytes:
    return single_key_script(AddressKind.NODE, key)


def _genesis() -> Genesis:
    """A chain of four masters and nothing else."""
    nodes = [
        Node(
            name=f"node_{number}",
            address=encode_text(AddressKind.NODE, address_of(_script(key), SUITE)),
            key=key.hex(),
            organisation="city",
            role="master",
        )
        for number, key in enumerate(list(_KEYS)[:SIGNERS])
    ]
    return Genesis(
        format="kanglian-genesis/1",
        chain_name="Light client",
        group=1,
        time=START_MS,
        suite=SUITE.name,
        account_keys=("secp256k1",),
        authority=bytes(32).hex(),
        organisations=(Organisation(id="city", name="City Hospital"),),
        nodes=tuple(sorted(nodes, key=lambda node: node.address)),
        accounts=(),
        modules=(Module(name="system", max_level=0, contracts=("accounts",)),),
        parameters=Parameters(),
    )


def _sets() -> tuple[ValidatorSet, ValidatorSet]:
    """The set of genesis, and one in which the fifth stands for the first."""
    newcomer = list(_KEYS)[SIGNERS]
    first = genesis_validators(_genesis())
    stranger = Validator(address_of(_script(newcomer), SUITE), newcomer)
    return first, validator_set((*first.members[1:], stranger))


def _blocks(chain: Chain, count: int, *, changing: bool) -> list[LightBlock]:
    """Certified headers from height 1; when changing, every one commits to the other set."""
    sets = _sets()
    ruling, after = sets[0], sets[changing]
    previous: bytes = chain.genesis_hash
    blocks: list[LightBlock] = []
    for height in range(1, count + 1):
        data = encode(_header(height, previous, ruling, after))
        previous = block_hash(data, SUITE)
        blocks.append(_certified(data, previous, height, ruling, after, chain))
        ruling, after = after, ruling
    return blocks


def _certified(
    data: bytes, named: bytes, height: int, ruling: ValidatorSet, after: ValidatorSet, chain: Chain
) -> LightBlock:
    vote = vote_digest(chain, VoteType.PRECOMMIT, height, 0, named)
    signatures = tuple(
        (index, SUITE.sign(_KEYS[member.key], vote)) for index, member in enumerate(ruling.members)
    )
    certificate = encode(Certificate(height, 0, named, signatures))
    return LightBlock(data, certificate, () if after == ruling else after.members)


def _header(height: int, previous: bytes, ruling: ValidatorSet, after: ValidatorSet) -> Header:
    empty, some = empty_root(SUITE), SUITE.digest(b"root of block %d" % height)
    return Header(
        version=limits.PROTOCOL_VERSION,
        group=1,
        height=height,
        previous_hash=previous,
        time=START_MS + 1_000 * height,
        proposer=height % SIGNERS,
        validators_hash=ruling.hash(SUITE),
        next_validators_hash=after.hash(SUITE),
        topology_hash=ruling.topology_hash(SUITE),
        batches_root=some,
        stamps_root=empty,
        certificate_hash=some,
        demotions=(),
        state_root=some,
        receipts_root=some,
        messages_root=empty,
        replay_root=some,
        history_root=some,
    )


def _in_sequence(
    trusted: TrustedHeader,
    blocks: Sequence[LightBlock],
    chain: Chain,
    now_ms: int,
    calibration: Calibration,
) -> float:
    """CPU of following them one by one, in ms; V is sampled between slices."""
    spent_ns = 0
    for first in range(0, len(blocks), SLICE):
        calibration.sample()
        start = time.thread_time_ns()
        for block in blocks[first : first + SLICE]:
            trusted = follow(trusted, block, chain, TERMS, now_ms)
        spent_ns += time.thread_time_ns() - start
    return spent_ns / 1_000_000


def main() -> None:
    """Measure both and print them."""
    genesis = _genesis()
    chain = chain_of(genesis)
    now_ms = START_MS + 1_000 * HEADERS
    anchor = trust_genesis(genesis, now_ms)
    sequence = _blocks(chain, HEADERS, changing=False)
    changes = _blocks(chain, CHANGES, changing=True)
    calibration = Calibration()
    sequence_ms = _in_sequence(anchor, sequence, chain, now_ms, calibration)
    start = time.thread_time_ns()
    skip(anchor, changes, chain, TERMS, now_ms)
    changes_ms = (time.thread_time_ns() - start) / 1_000_000
    v_us = calibration.v_us
    print(f"V {v_us:.1f} us, {SIGNERS} validators")
    _report("headers in sequence", HEADERS, sequence_ms, v_us)
    _report("changes of validators", CHANGES, changes_ms, v_us)


def _report(what: str, count: int, cpu_ms: float, v_us: float) -> None:
    each_us = cpu_ms * 1_000 / count
    print(f"{count:6d} {what}: {cpu_ms:.0f} ms, {each_us:.1f} us or {each_us / v_us:.2f} V each")


if __name__ == "__main__":
    main()
