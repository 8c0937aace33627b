"""What a light client keeps is read back as it was, or refused by name; nothing is repaired."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.errors import Reason, Rejected
from ledger.light.documents import (
    TRUST_BYTES,
    WITNESSES,
    begin_trust,
    fork_json,
    is_light_proof,
    parse_fork,
    parse_light_proof,
    parse_trust,
    trust_json,
)
from ledger.light.fork import fork_evidence
from ledger.light.trust import follow
from tests.unit.ledger.light_chains import TERMS
from tests.unit.ledger.worlds import CHAIN, GENESIS, busy_batches, secret, two_blocks
from tests.vectors.light_vectors import HERE, LATER, THERE, light_proof, trust_at

KEPT = trust_at(4)
DATA = trust_json(KEPT)


def refusal(act, *arguments) -> Reason:
    with pytest.raises(Rejected) as caught:
        act(*arguments)
    return caught.value.reason


def test_a_trust_is_read_back_whole_and_goes_on_where_it_stood():
    again = parse_trust(DATA)
    assert again == KEPT
    assert again.trusted.next_validators == HERE.ruling(5)
    onward = follow(again.trusted, HERE.blocks[5], CHAIN, TERMS, LATER)
    assert onward.height == 5
    moved = again.moved(onward, HERE.blocks[5])
    assert parse_trust(trust_json(moved)) == moved


def test_trust_at_genesis_is_the_genesis_and_stands_in_no_file():
    start = begin_trust(GENESIS, TERMS, (), LATER)
    assert (start.trusted.height, start.block, start.chain) == (0, None, CHAIN)


def test_every_changed_byte_of_a_trust_is_refused():
    for place in range(len(DATA) - 1):
        for change in (1, 0x20):
            changed = DATA[:place] + bytes([DATA[place] ^ change]) + DATA[place + 1 :]
            with pytest.raises(Rejected):
                parse_trust(changed)


@given(st.integers(0, len(DATA) - 2), st.integers(1, 40))
def test_a_torn_or_patched_trust_is_refused(start, count):
    for changed in (DATA[:start], DATA[:start] + DATA[start + count :] + b" "):
        with pytest.raises(Rejected):
            parse_trust(changed)


def test_a_trust_whose_digest_is_right_and_whose_header_nobody_decided_is_refused():
    """Who edits the file by hand and computes the digest again still needs a quorum."""
    forged = replace(KEPT, chain=replace(CHAIN, genesis_hash=secret("another")))
    assert refusal(parse_trust, trust_json(forged)) is Reason.BAD_CERTIFICATE
    other = replace(KEPT.trusted, validators=HERE.ruling(5))
    assert refusal(parse_trust, trust_json(replace(KEPT, trusted=other))) is Reason.BAD_CERTIFICATE
    early = replace(KEPT.trusted, taken_ms=1)
    assert refusal(parse_trust, trust_json(replace(KEPT, trusted=early))) is Reason.FROM_FUTURE
    alone = replace(KEPT, block=HERE.blocks[3])
    assert refusal(parse_trust, trust_json(replace(alone, chain=forged.chain))) is (
        Reason.BAD_CERTIFICATE
    )


def test_a_trust_has_limits():
    assert refusal(parse_trust, b" " * (TRUST_BYTES + 1)) is Reason.TOO_LARGE
    many = tuple(f"http://h{number}:1" for number in range(WITNESSES + 1))
    assert refusal(parse_trust, trust_json(replace(KEPT, witnesses=many))) is Reason.MALFORMED
    for url in ("https://h:1", "http://", "http://h:1/ä", "http://" + "h" * 300):
        odd = replace(KEPT, witnesses=(url,))
        assert refusal(parse_trust, trust_json(odd)) is Reason.MALFORMED
    unordered = replace(KEPT, modules=GENESIS.modules[::-1])
    assert refusal(parse_trust, trust_json(unordered)) is Reason.MALFORMED


def test_evidence_is_read_back_and_is_of_one_chain():
    evidence = fork_evidence(HERE.blocks[9], THERE.blocks[9], CHAIN)
    data = fork_json(evidence, HERE.ruling(9), CHAIN)
    assert parse_fork(data, CHAIN) == (evidence, HERE.ruling(9))
    other = replace(CHAIN, genesis_hash=secret("another"))
    assert refusal(parse_fork, data, other) is Reason.WRONG_CHAIN
    assert refusal(parse_fork, data[:-5], CHAIN) is Reason.MALFORMED


def test_a_re_anchored_proof_is_told_from_a_plain_one_and_read_back():
    batches = busy_batches()
    plain = two_blocks(batches).proof(batches[0].transactions[0])
    made = light_proof(plain)
    assert is_light_proof(made.to_json())
    assert not is_light_proof(plain.to_json())
    assert parse_light_proof(made.to_json() + b"\n") == made
    assert refusal(parse_light_proof, plain.to_json()) is Reason.BAD_PROOF
    assert refusal(parse_light_proof, made.to_json()[:-1]) is Reason.BAD_PROOF
