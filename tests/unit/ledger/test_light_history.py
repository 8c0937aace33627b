"""An old header is known through the history of a trusted one, and through nothing else."""

from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ledger.block import HEADER, block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.light.history import (
    HISTORY_EXTENSION,
    OLD_HEADER,
    HistoryExtension,
    KnownHeader,
    OldHeader,
    prove_extension,
    prove_old_header,
    verify_extension,
    verify_old_header,
)
from ledger.light.trust import TrustedHeader, skip
from tests.unit.ledger.light_chains import TERMS, LightChain, genesis_trust
from tests.unit.ledger.worlds import CHAIN, NOW, SUITE, secret

LAST = 70
ONE = LightChain().grow(LAST)
BRANCH = LightChain(salt="branch", parted=40).grow(LAST)
HEIGHTS = st.integers(1, LAST)


def trusted_at(height: int, chain: LightChain = ONE) -> TrustedHeader:
    return skip(genesis_trust(), [chain.blocks[height]], CHAIN, TERMS, NOW + LAST)


TRUSTED = {height: trusted_at(height) for height in range(1, LAST + 1)}


def proved(height: int, under: int) -> OldHeader:
    return prove_old_header(ONE.blocks[height].header, ONE, SUITE.digest, under)


def extended(old: int, new: int) -> HistoryExtension:
    return prove_extension(ONE, SUITE.digest, old, new)


def old_refusal(proof: OldHeader, trusted: TrustedHeader) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_old_header(proof, trusted, CHAIN)
    return caught.value.reason


def extension_refusal(proof: HistoryExtension, old: TrustedHeader, new: TrustedHeader) -> Reason:
    with pytest.raises(Rejected) as caught:
        verify_extension(proof, old, new, CHAIN)
    return caught.value.reason


def broken_paths(path: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
    """Every path that one mistake makes of this one."""
    broken = [(*path, path[-1] if path else bytes(32)), (bytes(32), *path)]
    for place in range(len(path)):
        before, own, after = path[:place], path[place], path[place + 1 :]
        broken += [
            (*before, *after),
            (*before, own, own, *after),
            (*before, bytes(32), own, *after),
            (*before, bytes([own[0] ^ 1]) + own[1:], *after),
            before,
        ]
        if after:
            broken.append((*before, after[0], own, *after[1:]))
    return [item for item in broken if item != path]


def test_every_older_header_is_known_under_every_trusted_one():
    for under in (2, 3, 33, 64, LAST):
        for height in range(1, under):
            header = ONE.blocks[height].header
            known = verify_old_header(
                OLD_HEADER.decode(encode(proved(height, under))), TRUSTED[under], CHAIN
            )
            assert known == KnownHeader(HEADER.decode(header), block_hash(header, SUITE))


def test_the_trust_period_does_not_matter_for_what_lies_behind():
    ancient = replace(TRUSTED[LAST], time_ms=0, taken_ms=0)
    assert verify_old_header(proved(3, LAST), ancient, CHAIN).header.height == 3


@given(HEIGHTS, HEIGHTS)
@settings(max_examples=80)
def test_every_broken_path_is_refused(first, second):
    height, under = sorted((first, second))
    if height == under:
        return
    proof = proved(height, under)
    for path in broken_paths(proof.path):
        broken = msgspec.structs.replace(proof, path=path)
        assert old_refusal(broken, TRUSTED[under]) is Reason.BAD_PROOF


@given(HEIGHTS, HEIGHTS, HEIGHTS)
@settings(max_examples=80)
def test_a_path_of_another_size_is_refused(first, second, other):
    height, under = sorted((first, second))
    if under in {height, other}:
        return
    assert old_refusal(proved(height, under), TRUSTED[other]) is Reason.BAD_PROOF


def test_another_header_or_the_trusted_one_itself_is_refused():
    proof = proved(5, LAST)
    swapped = msgspec.structs.replace(proof, header=ONE.blocks[6].header)
    assert old_refusal(swapped, TRUSTED[LAST]) is Reason.BAD_PROOF
    forged = msgspec.structs.replace(HEADER.decode(proof.header), state_root=secret("other"))
    altered = msgspec.structs.replace(proof, header=encode(forged))
    assert old_refusal(altered, TRUSTED[LAST]) is Reason.BAD_PROOF
    own = msgspec.structs.replace(proof, header=ONE.blocks[LAST].header)
    assert old_refusal(own, TRUSTED[LAST]) is Reason.BAD_PROOF


def test_a_header_of_another_branch_is_refused():
    proof = prove_old_header(BRANCH.blocks[50].header, BRANCH, SUITE.digest, LAST)
    assert verify_old_header(proof, trusted_at(LAST, BRANCH), CHAIN).header.height == 50
    assert old_refusal(proof, TRUSTED[LAST]) is Reason.BAD_PROOF


def test_nothing_comes_before_genesis():
    assert old_refusal(OldHeader(ONE.blocks[1].header, ()), genesis_trust()) is Reason.BAD_PROOF
    head = SUITE.digest(b"")
    empty = HistoryExtension(head, head, ())
    assert extension_refusal(empty, genesis_trust(), TRUSTED[1]) is Reason.BAD_PROOF


def test_a_proof_of_any_size_is_bounded():
    for size in (64, 10_000):
        proof = OldHeader(ONE.blocks[1].header, (bytes(32),) * size)
        assert old_refusal(proof, TRUSTED[LAST]) is Reason.BAD_PROOF
        with pytest.raises(Rejected):
            OLD_HEADER.decode(encode(proof))
    long = HistoryExtension(bytes(32), bytes(32), (bytes(32),) * 65)
    with pytest.raises(Rejected):
        HISTORY_EXTENSION.decode(encode(long))


@given(HEIGHTS, HEIGHTS)
@settings(max_examples=80)
def test_every_history_is_the_beginning_of_every_later_one(first, second):
    old, new = sorted((first, second))
    proof = extended(old, new)
    verify_extension(HISTORY_EXTENSION.decode(encode(proof)), TRUSTED[old], TRUSTED[new], CHAIN)
    for path in broken_paths(proof.path):
        broken = msgspec.structs.replace(proof, path=path)
        assert extension_refusal(broken, TRUSTED[old], TRUSTED[new]) is Reason.BAD_PROOF


def test_other_heads_sizes_or_directions_are_refused():
    proof = extended(20, 60)
    for fields in ({"old_head": bytes(32)}, {"new_head": bytes(32)}):
        broken = msgspec.structs.replace(proof, **fields)
        assert extension_refusal(broken, TRUSTED[20], TRUSTED[60]) is Reason.BAD_PROOF
    assert extension_refusal(proof, TRUSTED[21], TRUSTED[60]) is Reason.BAD_PROOF
    assert extension_refusal(proof, TRUSTED[20], TRUSTED[61]) is Reason.BAD_PROOF
    swapped = HistoryExtension(proof.new_head, proof.old_head, proof.path)
    assert extension_refusal(swapped, TRUSTED[60], TRUSTED[20]) is Reason.BAD_PROOF


def test_a_branch_does_not_extend_what_it_left():
    old, new = TRUSTED[60], trusted_at(LAST, BRANCH)
    proof = prove_extension(BRANCH, SUITE.digest, 60, LAST)
    assert extension_refusal(proof, old, new) is Reason.BAD_PROOF
    mixed = msgspec.structs.replace(proof, old_head=extended(60, LAST).old_head)
    assert extension_refusal(mixed, old, new) is Reason.BAD_PROOF
    # Header 40 commits to what lies before it, which both branches share.
    shared = prove_extension(BRANCH, SUITE.digest, 40, LAST)
    verify_extension(shared, TRUSTED[40], new, CHAIN)
