"""Releases on a chain whose masters changed: each height is judged by the set that rules it."""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Proposal, Vote, VoteKind
from contracts.changes import Change
from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.genesis import node_address
from ledger.ids import Height, Round
from ledger.membership import newest_change
from ledger.store.memory import MemoryStore
from ledger.store.results import StateStore
from node import wire
from node.identity import Identity
from node.rulers import Rulers
from node.statement import statement_digest
from node.stopped import StoppedNode
from tests.unit.ledger.worlds import SUITE, key
from tests.unit.node_core.chains import (
    ADMIN,
    CENTRE,
    CHAIN,
    CLINIC,
    GENESIS,
    NEWCOMERS,
    NODE_SECRETS,
    UNIVERSITY,
    LocalChain,
    certify_by,
    node_name,
)
from tests.unit.node_core.memory_network import NAMES, MemoryNode, running, until
from tests.unit.node_core.test_membership import JOIN, copy_to, enact, governance, transactions

from .test_release import lose_precommits

OF = {node.organisation: node_address(node) for node in GENESIS.nodes}
"""The master of genesis of each organisation."""
NEWCOMER = NAMES[4]
LEAVER = OF["clinic"]


def joins(number, organisation):
    name = NEWCOMERS[number]
    return Change(
        "add",
        node_name(name),
        name=f"newcomer{number}",
        key=key(name),
        organisation=organisation,
        role="master",
    )


def change(chain, nonce, *changes):
    """All who may vote for it, and the last block before it holds is decided; its first height."""
    proposal = governance(ADMIN, "propose", nonce, changes, "")
    chain.run(proposal)
    for voter in (CLINIC, CENTRE, UNIVERSITY):
        if newest_change(chain.state.get) <= chain.tip.height:
            nonce += 1
            chain.run(governance(voter, "vote", nonce, proposal.id))
    first = newest_change(chain.state.get)
    chain.decide()
    assert chain.tip.height == first - 1
    return first


@pytest.fixture(scope="module")
def joined():
    """A chain that ends right before the height at which a fifth master begins to vote."""
    chain = LocalChain()
    assert change(chain, 10, JOIN) == chain.tip.height + 1
    return chain


@pytest.fixture(scope="module")
def left(joined):
    """The same chain later, right before the height at which the clinic's master has left."""
    chain = copy_to(joined, joined.tip.height)
    change(chain, 20, Change("remove", LEAVER))
    return chain


def stopped(name, disk, folder, rulers=None):
    """A node with this disk and no log: it is in quarantine."""
    identity = Identity("tested", name, b"", NODE_SECRETS[name], SUITE)
    rulers = rulers or Rulers(GENESIS, disk.state)
    return StoppedNode(CHAIN, identity, disk.blocks, rulers, folder / f"{name.hex()}.wal")


def statements(disk, folder, *names):
    return [stopped(name, disk, folder).statement(0) for name in names]


def changed(statement, name, **changes):
    """A statement with other fields, signed anew by the node that made it."""
    unsigned = msgspec.structs.replace(statement, **changes)
    signature = SUITE.sign(NODE_SECRETS[name], statement_digest(unsigned, SUITE))
    return msgspec.structs.replace(unsigned, signature=signature.hex())


def refused(node, found, words):
    with pytest.raises(Rejected, match=words) as refusal:
        node.release(found, 0)
    assert refusal.value.reason is Reason.BAD_STATEMENT
    return refusal.value.facts


# ---- who may state ----


def test_a_master_that_was_voted_in_states_for_its_organisation(joined, tmp_path):
    found = statements(joined, tmp_path, NEWCOMER, OF["clinic"], OF["centre"])
    release = stopped(OF["clinic"], joined, tmp_path).release(found, 0)
    assert release.organisations == ("centre", "clinic", "hospital")
    assert release.entry.height == joined.tip.height + 1


def test_a_master_that_was_voted_in_is_released_as_well(joined, tmp_path):
    found = statements(joined, tmp_path, OF["hospital"], OF["clinic"], OF["centre"])
    release = stopped(NEWCOMER, joined, tmp_path).release(found, 0)
    assert release.entry.height == joined.tip.height + 1


def test_one_height_before_its_first_a_newcomer_neither_states_nor_is_released(joined, tmp_path):
    disk = copy_to(joined, joined.tip.height - 1)
    three = statements(disk, tmp_path, OF["hospital"], OF["clinic"], OF["centre"])
    newcomers = statements(disk, tmp_path, NEWCOMER)
    height = joined.tip.height
    node = stopped(OF["clinic"], disk, tmp_path)
    facts = refused(node, [*newcomers, *three], "no master at that height: leave")
    assert facts == {"node": "newcomer", "height": height}
    assert refused(stopped(NEWCOMER, disk, tmp_path), three, "does not vote") == {"height": height}
    assert node.release(three, 0).entry.height == height


def test_a_master_that_was_voted_out_states_nothing_and_is_named(left, tmp_path):
    three = statements(left, tmp_path, OF["hospital"], OF["centre"], OF["university"])
    leavers = statements(left, tmp_path, LEAVER)
    node = stopped(OF["centre"], left, tmp_path)
    facts = refused(node, [*leavers, *three], "no master at that height: leave")
    name = next(one.name for one in GENESIS.nodes if one.organisation == "clinic")
    assert facts == {"node": name, "height": left.tip.height + 1}
    assert refused(stopped(LEAVER, left, tmp_path), three, "does not vote")
    assert node.release(three, 0).organisations == ("centre", "hospital", "university")


def test_at_the_last_height_before_it_leaves_a_master_still_states(left, tmp_path):
    disk = copy_to(left, left.tip.height - 1)
    found = statements(disk, tmp_path, LEAVER, OF["hospital"], OF["centre"])
    release = stopped(OF["centre"], disk, tmp_path).release(found, 0)
    assert release.organisations == ("centre", "clinic", "hospital")


def test_a_decided_block_that_only_a_leaver_holds_is_not_left_out(left, tmp_path):
    """Without its statement the others would be released at a height that is decided already."""
    disk = copy_to(left, left.tip.height - 1)
    three = statements(disk, tmp_path, OF["hospital"], OF["centre"], OF["university"])
    leavers = statements(left, tmp_path, LEAVER)
    facts = refused(stopped(OF["centre"], disk, tmp_path), [*leavers, *three], "fetch the block")
    assert facts["height"] == left.tip.height


def test_a_node_that_nobody_ever_voted_in_states_nothing(left, tmp_path):
    three = statements(left, tmp_path, OF["hospital"], OF["centre"], OF["university"])
    strangers = statements(left, tmp_path, node_name(NEWCOMERS[7]))
    node = stopped(OF["centre"], left, tmp_path)
    assert refused(node, [*strangers, *three], "not made by a node of this chain")


# ---- whose organisations count ----


def test_the_quorum_of_organisations_is_of_those_that_run_masters_at_that_height(joined, tmp_path):
    """Four organisations, then three, two, and three again; of two both are a quorum."""
    chain = copy_to(joined, joined.tip.height)
    change(chain, 20, Change("remove", OF["clinic"]))
    change(chain, 30, joins(1, "hospital"))
    change(chain, 40, Change("remove", OF["university"]))
    node = stopped(OF["centre"], chain, tmp_path)
    two = statements(chain, tmp_path, NEWCOMER, OF["centre"])
    assert node.release(two, 0).organisations == ("centre", "hospital")
    assert refused(node, two[:1], "too few organisations") == {"count": 1, "needed": 2}
    proposed = joins(2, "clinic")
    change(chain, 50, proposed)
    node = stopped(OF["hospital"], chain, tmp_path)
    two = statements(chain, tmp_path, NEWCOMER, OF["centre"])
    assert refused(node, two, "too few organisations") == {"count": 2, "needed": 3}
    third = statements(chain, tmp_path, proposed.node)
    assert node.release([*two, *third], 0).organisations == ("centre", "clinic", "hospital")


def test_a_master_that_came_back_counts_for_the_organisation_it_came_back_for(left, tmp_path):
    chain = copy_to(left, left.tip.height)
    again = Change(
        "add",
        LEAVER,
        name="again",
        key=SUITE.public_key(NODE_SECRETS[LEAVER]),
        organisation="university",
        role="master",
    )
    change(chain, 30, again)
    found = statements(chain, tmp_path, LEAVER, OF["centre"], OF["hospital"])
    release = stopped(OF["centre"], chain, tmp_path).release(found, 0)
    assert release.organisations == ("centre", "hospital", "university")


# ---- which set judges a signature ----


def test_a_certificate_is_judged_by_the_set_of_its_own_height(joined, tmp_path):
    """The last block before a change is decided by four, and the new five judge what follows."""
    height = joined.tip.height
    rulers = Rulers(GENESIS, joined.state)
    assert [len(rulers.at(n).members) for n in (height, height + 1)] == [4, 5]
    name = joined.tip.block_hash
    node = stopped(OF["centre"], joined, tmp_path)
    honest = statements(joined, tmp_path, NEWCOMER, OF["clinic"], OF["centre"])
    for forged in (
        certify_by(rulers.at(height + 1), name, height),
        certify_by(rulers.at(height), name, height, signers=(0, 1)),
    ):
        lying = changed(honest[0], NEWCOMER, certificate=forged.hex())
        with pytest.raises(Rejected) as refusal:
            node.release([lying, *honest[1:]], 0)
        assert refusal.value.reason is Reason.BAD_CERTIFICATE
    assert node.release(honest, 0)


def test_three_signatures_decide_before_the_fifth_master_votes_and_not_after(joined, tmp_path):
    chain = copy_to(joined, joined.tip.height)
    chain.decide()
    height = chain.tip.height
    honest = statements(chain, tmp_path, NEWCOMER, OF["clinic"], OF["centre"])
    rulers = Rulers(GENESIS, chain.state)
    three, four = (
        certify_by(rulers.at(height), chain.tip.block_hash, height, signers=range(count)).hex()
        for count in (3, 4)
    )
    node = stopped(OF["centre"], chain, tmp_path)
    with pytest.raises(Rejected, match="fewer signatures than a quorum"):
        node.release([changed(honest[0], NEWCOMER, certificate=three), *honest[1:]], 0)
    assert node.release([changed(honest[0], NEWCOMER, certificate=four), *honest[1:]], 0)


def prevotes(chain, ruling, count):
    """A proposal of the next block and `count` prevotes for it, under indexes in a set."""
    height = chain.tip.height + 1
    block, _ = chain.next_block()
    value = block_hash(block.header, SUITE)
    votes = []
    for index, address in enumerate(ruling.addresses[:count]):
        vote = Vote(VoteKind.PREVOTE, Height(height), Round(0), value, -1, index)
        signature = SUITE.sign(NODE_SECRETS[address], wire.digest_of(vote, CHAIN))
        votes.append(encode(wire.vote_message(vote, signature)).hex())
    message = Proposal(Height(height), Round(0), value, -1, 0)
    signature = SUITE.sign(NODE_SECRETS[ruling.addresses[0]], wire.digest_of(message, CHAIN))
    proposal = wire.proposal_message(message, signature, encode(block))
    return {"proposal": encode(proposal).hex(), "prevotes": tuple(votes)}, value


@pytest.mark.parametrize(("before", "enough"), [(1, 3), (0, 4)])
def test_a_quorum_of_prevotes_is_one_of_the_set_of_their_height(joined, tmp_path, before, enough):
    """Of four masters at the height before the change, of five at the change itself."""
    disk = copy_to(joined, joined.tip.height - before)
    ruling = Rulers(GENESIS, disk.state).at(disk.tip.height + 1)
    names = [OF[organisation] for organisation in ("hospital", "clinic", "centre")]
    honest = statements(disk, tmp_path, *names)
    node = stopped(OF["centre"], disk, tmp_path)
    lock, _ = prevotes(disk, ruling, enough - 1)
    refused(node, [changed(honest[0], names[0], **lock), *honest[1:]], "no quorum")
    lock, value = prevotes(disk, ruling, enough)
    release = node.release([changed(honest[0], names[0], **lock), *honest[1:]], 0)
    assert (release.entry.locked_round, release.entry.locked_value) == (0, value)


def test_prevotes_under_the_indexes_of_another_set_are_of_nobody(joined, tmp_path):
    old = Rulers(GENESIS, joined.state).at(joined.tip.height)
    names = [OF[organisation] for organisation in ("hospital", "clinic", "centre")]
    honest = statements(joined, tmp_path, *names)
    lock, _ = prevotes(joined, old, 4)
    lying = changed(honest[0], names[0], **lock)
    refused(stopped(OF["centre"], joined, tmp_path), [lying, *honest[1:]], "signature is wrong")


def test_older_statements_are_judged_by_their_own_sets(joined, tmp_path):
    """Whoever is a master at the height in progress states, wherever its chain ends."""
    older = copy_to(joined, 1)
    found = [
        *statements(joined, tmp_path, OF["clinic"]),
        *statements(older, tmp_path, NEWCOMER, OF["centre"]),
    ]
    release = stopped(OF["clinic"], joined, tmp_path).release(found, 0)
    assert release.organisations == ("centre", "clinic", "hospital")


# ---- what this node may not know ----


def test_a_node_that_is_too_far_behind_to_know_the_set_follows_first(joined, tmp_path):
    found = statements(joined, tmp_path, NEWCOMER, OF["clinic"], OF["centre"])
    height = joined.tip.height
    behind = stopped(OF["clinic"], copy_to(joined, height - 2), tmp_path)
    facts = refused(behind, found, "does not know yet who votes")
    assert facts == {"height": height + 1, "newest_block": height - 2}
    enough = stopped(OF["clinic"], copy_to(joined, height - 1), tmp_path)
    assert enough.release(found, 0).entry.height == height + 1


def test_a_node_without_state_does_not_take_the_members_of_genesis_for_those_of_now(
    joined, tmp_path
):
    found = statements(joined, tmp_path, OF["hospital"], OF["clinic"], OF["centre"])
    empty = Rulers(GENESIS, StateStore(MemoryStore()))
    lost = stopped(OF["clinic"], joined, tmp_path, empty)
    refused(lost, found, "does not know yet who votes")
    with pytest.raises(Rejected, match="does not know yet who votes"):
        lost.statement(0)


def test_a_state_one_block_behind_the_blocks_still_knows_the_next_set(joined, tmp_path):
    """So a power cut leaves it; two behind is lost state, which a start names."""
    height = joined.tip.height
    one, two = (Rulers(GENESIS, copy_to(joined, height - n).state) for n in (1, 2))
    assert stopped(OF["clinic"], joined, tmp_path, one).statement(0).height == height
    with pytest.raises(Rejected, match="does not know yet who votes"):
        stopped(OF["clinic"], joined, tmp_path, two).statement(0)


def test_statements_older_than_the_own_state_release_nobody(left, tmp_path):
    disk = copy_to(left, left.tip.height - 1)
    found = statements(disk, tmp_path, OF["hospital"], OF["centre"], OF["university"])
    node = stopped(OF["centre"], disk, tmp_path, Rulers(GENESIS, left.state))
    refused(node, found, "newer blocks than any statement")


# ---- whole nodes ----


def test_a_chain_of_five_whose_newcomer_lost_its_memory_goes_on_after_a_release(tmp_path):
    """Two of five forget, the one that joined among them, while a block is locked."""
    disks = [LocalChain() for _ in range(5)]
    lost = (3, 4)
    locked = []

    def nodes():
        return [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(5)]

    def files(n):
        identity = Identity("tested", NAMES[n], b"", NODE_SECRETS[NAMES[n]], SUITE)
        disks[n].open()
        rulers = Rulers(GENESIS, disks[n].state)
        return StoppedNode(CHAIN, identity, disks[n].blocks, rulers, tmp_path / f"{n}.wal")

    async def first_life():
        five = nodes()
        async with running(*five):
            five[0].admit(transactions(1))
            joined = await enact(five[0], 100, JOIN)
            await until(lambda: all(node.height >= joined for node in five))
            await trio.sleep(5)
            for node in five:
                lose_precommits(node)
            five[0].admit(transactions(200))
            await until(lambda: all(node.driver.core.locked[1] for node in five))
            locked.append((five[0].height + 1, five[0].driver.core.locked[1]))
            for node in five:
                node.log.sync()

    async def goes_on():
        height, _ = locked[0]
        five = nodes()
        async with running(*five):
            await until(lambda: all(node.height >= height for node in five), 300)
            five[4].admit(transactions(300))
            await until(lambda: not five[4].mempool and five[4].mempool.waiting == 0, 300)

    trio.run(first_life, clock=MockClock(autojump_threshold=0))
    for n in lost:
        (tmp_path / f"{n}.wal").unlink()
    found = [files(n).statement(0) for n in range(5)]
    assert [one.is_damaged for one in found] == [False, False, False, True, True]
    for n in lost:
        entry = files(n).release(found, 0).entry
        assert (entry.height, entry.locked_value) == locked[0]
        assert len(entry.prevotes) >= 4
    trio.run(goes_on, clock=MockClock(autojump_threshold=0))
    height, value = locked[0]
    decided = [disk.writer.read_block(height).block.header for disk in disks]
    assert {block_hash(header, SUITE) for header in decided} == {value}
