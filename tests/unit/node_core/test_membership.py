"""Whole nodes through changes of the validator set: who votes when, restarts, sync, demotion."""

import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Vote, VoteKind
from contracts.changes import Change
from ledger import limits
from ledger.batch import (
    GENESIS_BATCH,
    BatchHeader,
    batch_digest,
    build_batch,
    namespace_order,
    summarise,
)
from ledger.block import BLOCK, HEADER
from ledger.codec import encode
from ledger.errors import PeerProtocolError, Reason, Rejected
from ledger.ids import Height, Round
from ledger.transaction import Call
from ledger.votes import CERTIFICATE
from node import wire
from node.synced import append_synced
from p2p.frames import FrameKind
from p2p.scoring import Offence
from tests.unit.ledger.worlds import SUITE, key

from .chains import (
    ADMIN,
    CENTRE,
    CHAIN,
    CLINIC,
    NEWCOMERS,
    NODE_SECRETS,
    VALIDATORS,
    LocalChain,
    certify_by,
    facts,
    fetched,
    make_transaction,
    node_name,
    register,
)
from .memory_network import NAMES, MemoryNode, MemoryPeer, running, until

JOIN = Change(
    "add",
    node_name(NEWCOMERS[0]),
    name="newcomer",
    key=key(NEWCOMERS[0]),
    organisation="hospital",
    role="master",
)
LEAVING = 1
LEAVE = Change("remove", NAMES[LEAVING])


def play(main, *arguments):
    trio.run(main, *arguments, clock=MockClock(autojump_threshold=0))


def transactions(first, count=2):
    return [make_transaction(register(n), n, is_signed=True) for n in range(first, first + count)]


def governance(by, method, nonce, *arguments):
    call = Call("membership", method, encode(arguments))
    return make_transaction(call, nonce, by=by, module="system", is_signed=True)


async def enact(node, nonce, *changes):
    """Bring a change through a node; the height from which it holds."""
    proposal = governance(ADMIN, "propose", nonce, changes, "")
    node.admit([proposal])
    await until(lambda: node.disk.state.locate(proposal.id))
    last = governance(CENTRE, "vote", nonce + 2, proposal.id)
    node.admit([governance(CLINIC, "vote", nonce + 1, proposal.id), last])
    await until(lambda: node.disk.state.locate(last.id))
    (receipts,) = node.disk.state.receipts(node.disk.state.locate(last.id).height)
    assert len(receipts.receipts) == 2
    first = node.disk.state.locate(last.id).height + 2
    assert node.disk.writer.history.changes(first)[-1] == first
    return first


def signers(disk, height):
    """The names of those whose precommits the next block's certificate holds, and the stored."""
    found = set()
    stored = [disk.blocks.block(height).certificate]
    following = disk.blocks.block(height + 1)
    if following is not None:
        stored.append(BLOCK.decode(following.block).certificate)
    members = disk.writer.validators_at(height).members
    for data in stored:
        found |= {members[index].address for index, _ in CERTIFICATE.decode(data).signatures}
    return found


def voted(node):
    """The heights at which a node voted."""
    return {wire.VOTE.decode(payload).height for payload in node.of_kind(FrameKind.VOTE)}


def test_a_member_joins_votes_leaves_and_all_hold_the_same_state(tmp_path):
    disks = [LocalChain() for _ in range(5)]
    heights = []

    def nodes(life):
        return [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(5)]

    async def first_life():
        five = nodes(1)
        async with running(*five):
            five[0].admit(transactions(1))
            await until(lambda: all(node.height >= 1 for node in five))
            joined = await enact(five[0], 100, JOIN)
            await until(lambda: all(node.height >= joined for node in five))
            for number in range(6):
                five[number % 4].admit(transactions(200 + 10 * number))
                await trio.sleep(1)
            await until(lambda: all(node.mempool.waiting == 0 for node in five))
        assert min(voted(five[4])) >= joined
        assert any(NAMES[4] in signers(disks[0], h) for h in range(joined, disks[0].tip.height))
        assert all(not node.blamed for node in five)
        heights.append(joined)

    async def second_life():
        five = nodes(2)
        async with running(*five):
            left = await enact(five[4], 300, LEAVE)
            await until(lambda: all(node.height >= left for node in five))
            for number in range(5):
                five[4].admit(transactions(400 + 10 * number))
                await trio.sleep(1)
        assert voted(five[LEAVING])
        assert max(voted(five[LEAVING])) < left
        assert any(NAMES[LEAVING] in signers(disks[0], h) for h in range(heights[0], left))
        assert all(not node.blamed for node in five)

    async def third_life():
        five = nodes(3)
        async with running(*five):
            five[4].admit(transactions(500))
            await until(lambda: len({node.height for node in five}) == 1 and not five[4].mempool)
        assert voted(five[LEAVING]) == set()

    play(first_life)
    play(second_life)
    play(third_life)
    assert len({facts(disk) for disk in disks}) == 1
    assert [
        len(disks[0].writer.validators_at(h).members) for h in (heights[0] - 1, heights[0])
    ] == [
        4,
        5,
    ]


def test_a_network_cut_off_at_any_moment_of_a_change_goes_on_with_the_right_sets(tmp_path):
    """Every life ends a moment later than the one before, all through two changes."""
    disks = [LocalChain() for _ in range(5)]
    script = [
        governance(ADMIN, "propose", 1, (JOIN,), ""),
        *transactions(20, 1),
    ]
    script += [governance(by, "vote", n, script[0].id) for n, by in ((2, CLINIC), (3, CENTRE))]
    second = governance(ADMIN, "propose", 4, (LEAVE,), "")
    script += [
        second,
        *[governance(by, "vote", n, second.id) for n, by in ((5, CLINIC), (6, CENTRE))],
    ]

    async def life(number):
        five = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(5)]
        async with running(*five):
            waiting = [item for item in script if disks[2].state.locate(item.id) is None]
            five[2].admit(waiting[:1])
            await trio.sleep(1.2 + number * 0.037)
        for node in five:
            assert node.blamed == []

    for number in range(60):
        play(life, number)
        if all(disks[2].state.locate(item.id) for item in script):
            break

    async def settle():
        five = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(5)]
        async with running(*five):
            five[2].admit(transactions(900))
            await until(lambda: five[2].disk.tip.operations == len(script) + 2)
            await until(lambda: len({node.height for node in five}) == 1)

    play(settle)
    assert len({facts(disk) for disk in disks}) == 1
    history = disks[0].writer.history
    joined, left = history.changes(disks[0].tip.height)
    assert JOIN.node in history.at(joined).addresses
    assert LEAVE.node not in history.at(left).addresses


def govern(chain, nonce, *changes):
    """The same by hand: three blocks, and two in which it comes to hold."""
    proposal = governance(ADMIN, "propose", nonce, changes, "")
    chain.run(proposal)
    chain.run(governance(CLINIC, "vote", nonce + 1, proposal.id))
    (receipt,) = chain.run(governance(CENTRE, "vote", nonce + 2, proposal.id))
    assert receipt.error == ""
    return chain.tip.height + 2


def governed_chain():
    """A chain of two changes with blocks around them."""
    chain = LocalChain()
    chain.run(*transactions(1))
    joined = govern(chain, 10, JOIN)
    for _ in range(3):
        chain.decide(time=chain.tip.time + 60_000)
    left = govern(chain, 20, LEAVE)
    for _ in range(4):
        chain.decide(time=chain.tip.time + 60_000)
    return chain, joined, left


async def sync(source, target):
    """Fetch from one chain into the other, a few blocks at a time."""
    while target.tip.height < source.tip.height:
        first = target.tip.height + 1
        heights = range(first, min(first + 3, source.tip.height + 1))
        await append_synced(target.writer, fetched(source, *heights), lambda _height: None)


def test_a_node_that_syncs_from_genesis_finds_every_set_on_the_way():
    chain, joined, left = governed_chain()
    fresh = LocalChain()
    trio.run(sync, chain, fresh)
    assert facts(fresh) == facts(chain)
    for height in range(1, chain.tip.height + 3):
        members = fresh.writer.validators_at(height).members
        assert len(members) == (4 if height < joined or height >= left else 5)
    for height in range(1, chain.tip.height + 1):
        header = HEADER.decode(BLOCK.decode(chain.blocks.block(height).block).header)
        now, after = (fresh.writer.validators_at(n) for n in (height, height + 1))
        assert header.validators_hash == now.hash(chain.writer.chain.suite)
        assert header.next_validators_hash == after.hash(chain.writer.chain.suite)


@pytest.mark.parametrize("wrong", ["the new set a height early", "the old set a height late"])
def test_a_certificate_of_another_set_than_its_heights_is_refused(wrong):
    chain, joined, _ = governed_chain()
    height = joined - 1 if wrong.startswith("the new") else joined
    other = chain.writer.validators_at(joined if height < joined else joined - 1)
    fresh = copy_to(chain, height - 1)
    stored = chain.blocks.block(height)
    block = BLOCK.decode(stored.block)
    name = CERTIFICATE.decode(stored.certificate).block_hash
    forged = certify_by(other, name, height)
    with pytest.raises(Rejected) as refusal:
        fresh.writer.verify_decision(block, forged)
    assert refusal.value.reason is Reason.BAD_CERTIFICATE
    too_few = certify_by(chain.writer.validators_at(height), name, height, signers=(0, 1))
    with pytest.raises(Rejected):
        fresh.writer.verify_decision(block, too_few)
    fresh.writer.verify_decision(block, stored.certificate)


def test_the_quorum_of_a_height_is_that_of_its_own_set():
    """Three signatures decided with four members; with five they are one short."""
    chain, joined, _ = governed_chain()
    for height, count, is_enough in ((joined - 1, 3, True), (joined, 3, False), (joined, 4, True)):
        fresh = copy_to(chain, height - 1)
        stored = chain.blocks.block(height)
        name = CERTIFICATE.decode(stored.certificate).block_hash
        validators = chain.writer.validators_at(height)
        certificate = certify_by(validators, name, height, signers=range(count))
        block = BLOCK.decode(stored.block)
        if is_enough:
            fresh.writer.verify_decision(block, certificate)
        else:
            with pytest.raises(Rejected, match="fewer signatures than a quorum"):
                fresh.writer.verify_decision(block, certificate)


def copy_to(chain, height):
    """A chain that holds the same blocks up to a height."""
    copy = LocalChain()
    for number in range(1, height + 1):
        trio.run(append_synced, copy.writer, fetched(chain, number), lambda _height: None)
    return copy


def test_a_demoted_proposer_stays_demoted_when_the_set_changes(tmp_path):
    """It costs one lost round; after the change its index is another, its demotion the same."""
    disks = [LocalChain() for _ in range(5)]
    dead = 3

    async def main():
        living = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in (0, 1, 2, 4)]
        async with running(*living):
            for number in range(8):
                living[0].admit(transactions(10 * number + 1))
                await trio.sleep(3)
            joined = await enact(living[0], 500, JOIN)
            for number in range(12):
                living[0].admit(transactions(600 + 10 * number))
                await trio.sleep(3)
        rounds = [
            CERTIFICATE.decode(disks[0].blocks.block(height).certificate).round
            for height in range(1, disks[0].tip.height + 1)
        ]
        assert joined < disks[0].tip.height - 5
        assert sum(rounds) == 1
        after = disks[0].writer
        assert NAMES[dead] in after.validators.addresses
        assert after.validators.index_of(NAMES[dead]) != VALIDATORS.index_of(NAMES[dead])
        assert after.validators.index_of(NAMES[dead]) not in after.proposers()
        assert len(after.proposers()) == 4

    play(main)


def signed_vote(validators, name, height):
    """A precommit of a node under its index in a set, as a frame."""
    index = validators.index_of(name)
    vote = Vote(VoteKind.PRECOMMIT, Height(height), Round(0), None, -1, index)
    signature = SUITE.sign(NODE_SECRETS[name], wire.digest_of(vote, CHAIN))
    return FrameKind.VOTE, encode(wire.vote_message(vote, signature))


def test_votes_are_judged_by_the_set_of_their_own_height(tmp_path):
    """One block before a change both sets are in use: this height's and the next one's."""
    chain, joined, _ = governed_chain()
    old, new = (chain.writer.validators_at(height) for height in (joined - 1, joined))
    stayed = next(name for name in NAMES[:4] if old.index_of(name) != new.index_of(name))
    copy = copy_to(chain, joined - 2)

    async def main():
        node = MemoryNode(0, copy, tmp_path / "0.wal")
        receive = node.router.on_frames
        peer = MemoryPeer(NAMES[1], lambda _kind, _payload: None)
        await receive(peer, [signed_vote(new, NAMES[4], joined), signed_vote(new, stayed, joined)])
        await receive(peer, [signed_vote(old, stayed, joined - 1)])
        for validators, name, height in (
            (new, NAMES[4], joined - 1),
            (new, stayed, joined - 1),
            (old, stayed, joined),
        ):
            with pytest.raises(PeerProtocolError, match="bad_signature"):
                await receive(peer, [signed_vote(validators, name, height)])

    play(main)


def batch_by(name, anchor):
    """A batch of a node, made when its newest block was that of `anchor`."""
    order = sorted(transactions(1_000 + anchor, 1), key=namespace_order)
    header = BatchHeader(
        version=limits.PROTOCOL_VERSION,
        genesis_hash=CHAIN.genesis_hash,
        group=CHAIN.group,
        author=name,
        sequence=anchor,
        previous=GENESIS_BATCH,
        clock=0,
        anchor_height=anchor,
        anchor_hash=bytes(32),
        namespaces=summarise(order, SUITE),
    )
    signature = SUITE.sign(NODE_SECRETS[name], batch_digest(encode(header), SUITE))
    return build_batch(header, signature, order)


def test_a_batch_counts_by_whether_its_author_voted_when_it_was_made(tmp_path):
    chain, joined, left = governed_chain()
    copies = {height: copy_to(chain, height) for height in (joined - 3, left)}

    async def outcome(height, name, anchor):
        node = MemoryNode(0, copies[height], tmp_path / f"{height}.wal")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.router.verify_batches)
            peer = MemoryPeer(NAMES[2], lambda _kind, _payload: None)
            await node.router.on_frames(peer, [(FrameKind.BATCH, batch_by(name, anchor))])
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        return len(node.pool), [offence for _, offence in node.blamed]

    async def main():
        leaver, joiner = NAMES[LEAVING], NAMES[4]
        refused = (0, [Offence.STALE])
        assert await outcome(left, leaver, left - 2) == (1, [])
        assert await outcome(left, leaver, left - 1) == refused
        assert await outcome(left, joiner, joined - 1) == (1, [])
        assert await outcome(left, joiner, joined - 2) == refused
        assert await outcome(joined - 3, joiner, joined - 1) == (0, [])
        assert await outcome(joined - 3, joiner, joined - 2) == refused

    play(main)
