"""Following with witnesses: how far, what is checked, and when it is a fork."""

from dataclasses import replace

import msgspec
import pytest

from ledger.errors import Reason, Rejected, UnavailableError
from ledger.light.documents import begin_trust
from ledger.light.fork import verify_fork
from ledger.light.trust import follow as follow_one
from rpc.light import follow as following
from rpc.light.follow import Followed, Follower, ForkFoundError, Standing, WitnessReport
from rpc.light.source import Source
from tests.unit.ledger.light_chains import TERMS, LightChain, genesis_trust, members
from tests.unit.ledger.worlds import CHAIN, GENESIS, NOW, VALIDATORS
from tests.unit.rpc_light.light_node import Dead, LightNode

LATER = NOW + 1_000
LAST = 30
CHANGES = {5: members(0, 1, 2, 3, 4), 9: members(0, 1, 2, 4, 5), 20: VALIDATORS}
CHAIN_A = LightChain(CHANGES).grow(LAST)
TWINS_AT = 25
TWINS = LightChain(CHANGES, salt="twins", parted=TWINS_AT).grow(LAST)
"""More than a third sign both from height 25 on, in one round."""
OTHER_CHANGES = {5: members(0, 1, 2, 3, 4), 12: members(0, 1, 2, 3, 6)}
EARLY = LightChain(OTHER_CHANGES, salt="early", parted=7).grow(LAST)
"""Splits at height 7, and then changes its members otherwise."""
START = begin_trust(GENESIS, TERMS, (), LATER)


def follower(trust, primary, *witnesses, **settings) -> Follower:
    sources = [Source(witness) for witness in witnesses]
    return Follower(trust, Source(primary), sources, lambda: LATER, **settings)


def followed(trust, primary, *witnesses, **settings) -> Followed:
    return follower(trust, primary, *witnesses, **settings).run()


def node(chain=CHAIN_A, height=LAST, url="http://a:1", **settings) -> LightNode:
    return LightNode(chain, height, url, **settings)


def expected(height):
    trusted = genesis_trust(LATER)
    for number in range(1, height + 1):
        trusted = follow_one(trusted, CHAIN_A.blocks[number], CHAIN, TERMS, LATER)
    return trusted


def at(height):
    return START.moved(expected(height), CHAIN_A.blocks[height])


def refusal(act) -> Rejected:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value


def fork(act) -> ForkFoundError:
    with pytest.raises(ForkFoundError) as caught:
        act()
    return caught.value


@pytest.mark.parametrize("start", [0, 1, 4, 5, 8, 19, 29, 30])
@pytest.mark.parametrize("sequential", [False, True])
def test_both_ways_come_to_the_same_trust_from_wherever_they_begin(start, sequential):
    trust = at(start) if start else START
    done = followed(trust, node(), sequential=sequential)
    assert done.trust.trusted == expected(LAST)
    assert done.trust.block == CHAIN_A.blocks[LAST]
    turns = sum(first - 1 > start for first in CHANGES)
    assert done.changes == turns
    assert done.headers == (LAST - start if sequential else turns + (start < LAST))


def test_skipping_asks_for_changes_and_the_newest_header_and_goes_on_by_pages():
    far = LightChain({n: members(*range(4 + n % 2)) for n in range(2, 80)}).grow(90)
    primary, witness = node(far, 90, page=10), node(far, 90, "http://b:1", page=7)
    done = followed(START, primary, witness)
    assert (done.trust.trusted.height, done.changes) == (90, 77)
    assert done.witnesses == (WitnessReport("http://b:1", Standing.AGREES),)
    assert sum(method == "get_validator_changes" for method, _ in primary.asked) == 8
    assert len(primary.asked) < 15


def test_progress_ends_at_the_target():
    seen = []
    follower(START, node(), sequential=True).run(seen.append)
    assert (seen[-1].height, seen[-1].target, seen[-1].headers) == (LAST, LAST, LAST)


def test_a_node_behind_what_is_trusted_is_refused_and_one_without_blocks_may_come():
    found = refusal(lambda: followed(at(20), node(height=19)))
    assert found.reason is Reason.STALE
    with pytest.raises(UnavailableError, match="no block yet"):
        followed(START, node(height=0))


def test_trust_that_is_too_old_goes_nowhere():
    late = NOW + TERMS.trust_period_ms
    sources = Source(node())
    with pytest.raises(Rejected) as caught:
        Follower(START, sources, [], lambda: late).run()
    assert caught.value.reason is Reason.TRUST_EXPIRED


# ---- witnesses ----------------------------------------------------------------------------------


def test_witnesses_that_agree_are_behind_or_silent_are_told_apart(monkeypatch):
    behind = node(height=20, url="http://b:1")
    bad = node(url="http://c:1")
    bad.shown = lambda height: "00"
    other = LightChain(CHANGES, chain=replace(CHAIN, group=CHAIN.group), signers=(0,)).grow(LAST)
    weak = node(other, url="http://d:1")
    weak.chain.blocks[LAST] = msgspec.structs.replace(
        weak.chain.blocks[LAST], header=TWINS.blocks[LAST].header
    )
    good = node(url="http://e:1")
    done = followed(START, node(), behind, Dead(), bad, weak, good)
    standings = {report.witness: report.standing for report in done.witnesses}
    assert standings == {
        "http://b:1": Standing.BEHIND,
        "http://dead:1": Standing.UNREACHABLE,
        "http://c:1": Standing.FAULTY,
        "http://d:1": Standing.FAULTY,
        "http://e:1": Standing.AGREES,
    }
    assert all(report.detail for report in done.witnesses if report.standing != "agrees")


@pytest.mark.parametrize("start", [0, LAST])
def test_trust_does_not_move_when_no_witness_agrees(start):
    trust = at(start) if start else START
    with pytest.raises(UnavailableError, match=r"no witness confirms .*http://dead:1 unreachable"):
        followed(trust, node(), Dead(), node(height=LAST - 1, url="http://b:1"))


# ---- forks --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("primary", "witness"), [(CHAIN_A, TWINS), (TWINS, CHAIN_A)], ids=["ours", "theirs"]
)
@pytest.mark.parametrize("sequential", [False, True])
def test_twins_of_more_than_a_third_are_found_and_convicted(primary, witness, sequential):
    found = fork(
        lambda: followed(
            START, node(primary), node(witness, url="http://b:1"), sequential=sequential
        )
    )
    assert found.nodes == ("http://a:1", "http://b:1")
    again = verify_fork(found.evidence, CHAIN_A.ruling(found.found.height), CHAIN)
    assert again == found.found
    assert found.validators == CHAIN_A.ruling(found.found.height)
    assert len(found.found.equivocators) > found.validators.faults
    assert found.found.height >= TWINS_AT
    assert f"forked at height {found.found.height}" in str(found)


def test_a_split_before_a_change_is_traced_to_the_height_where_both_rule_together():
    for primary, witness in ((CHAIN_A, EARLY), (EARLY, CHAIN_A)):
        found = fork(
            lambda one=primary, other=witness: followed(
                START, node(one), node(other, url="http://b:1")
            )
        )
        assert 7 <= found.found.height <= 11
        assert verify_fork(found.evidence, CHAIN_A.ruling(8), CHAIN) == found.found


def test_a_node_on_another_branch_than_the_trust_kept_here_is_a_fork():
    """Nobody else is asked: the trust itself is the witness."""
    for height in (TWINS_AT, TWINS_AT + 2, LAST - 1):
        found = fork(lambda height=height: followed(at(height), node(TWINS)))
        assert found.found.height == height
        assert found.nodes == ("http://a:1", "the trust kept here")
        assert len(found.found.equivocators) > VALIDATORS.faults
    done = followed(at(LAST - 1), node())
    found = fork(lambda: followed(at(LAST - 1), node(), node(TWINS, url="http://b:1")))
    assert found.found.height == LAST - 1
    assert (found.nodes[1], done.headers) == ("http://b:1", 1)
    assert followed(at(TWINS_AT - 1), node(TWINS)).trust.trusted.height == LAST


def test_another_header_at_the_trusted_height_is_a_fork_or_a_lie():
    found = fork(lambda: followed(at(LAST), node(TWINS)))
    assert found.found.height == LAST
    found = fork(lambda: followed(at(LAST), node(), node(TWINS, url="http://b:1")))
    assert found.nodes == ("http://a:1", "http://b:1")
    liar = node()
    liar.shown = lambda height: node(TWINS).shown(height)[:-2]
    assert refusal(lambda: followed(at(LAST), liar)).reason is Reason.MALFORMED


def test_a_new_header_whose_history_lacks_the_trusted_one_is_refused_without_a_fork():
    """The node hides its other branch: nothing convicts anybody, and nothing is believed."""
    liar, honest, twins = node(TWINS), node(), node(TWINS)
    liar.get_headers = lambda first, count: (honest if first == TWINS_AT else twins).get_headers(
        first, count
    )
    found = refusal(lambda: followed(at(TWINS_AT), liar))
    assert found.reason is Reason.BAD_PROOF
    assert "a history without the trusted header" in str(found)


def test_a_primary_that_cannot_show_its_own_way_is_blamed_and_not_the_witness():
    primary = node(EARLY)
    honest = primary.get_headers

    def hides(first, count):
        return honest(LAST, 1) | {"first": first} if first < LAST else honest(first, count)

    primary.get_headers = hides
    found = refusal(lambda: followed(START, primary, node(url="http://b:1")))
    assert "http://a:1" in str(found)


def test_the_number_of_comparisons_is_bounded(monkeypatch):
    monkeypatch.setattr(following, "SKIP_BLOCKS", 0)
    found = refusal(lambda: followed(START, node(), node(EARLY, url="http://b:1")))
    assert found.reason is Reason.TOO_LARGE
