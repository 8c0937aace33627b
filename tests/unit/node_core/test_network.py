"""Whole nodes on a fake network: what a router, a driver and a log must survive together."""

from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from consensus.events import Step
from consensus.messages import Proposal, Vote, VoteKind
from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import PeerProtocolError
from ledger.ids import Height, Round, ValidatorIndex
from ledger.store.memory import MemoryBodies
from node import limits, log_entries, wire
from node.log_entries import LoggedProposal, LoggedVote
from node.wal import WriteAheadLog
from p2p.frames import FrameKind
from tests.unit.ledger.worlds import SUITE

from .chains import (
    CHAIN,
    TIME,
    LocalChain,
    facts,
    make_batch,
    make_transaction,
    register,
    secret_of,
)
from .memory_network import NAMES, MemoryNode, MemoryPeer, ServingPeer, running, until


def play(main, *arguments):
    trio.run(main, *arguments, clock=MockClock(autojump_threshold=0))


def transactions(first, count):
    return [make_transaction(register(n), n, is_signed=True) for n in range(first, first + count)]


def make_nodes(tmp_path, count=4):
    return [MemoryNode(n, LocalChain(), tmp_path / f"{n}.wal") for n in range(count)]


def quiet_peer(address):
    return MemoryPeer(address, lambda _kind, _payload: None)


def signed_by(validator, message):
    return SUITE.sign(secret_of(validator), wire.digest_of(message, CHAIN))


def proposal_of(block, height, round_number=0, sender=None):
    """A proposal frame by the proposer of the round."""
    proposer = ValidatorIndex((height + round_number) % 4 if sender is None else sender)
    value = block_hash(block.header, SUITE)
    message = Proposal(Height(height), Round(round_number), value, -1, proposer)
    return encode(wire.proposal_message(message, signed_by(proposer, message), encode(block)))


def test_four_nodes_decide_the_same_blocks(tmp_path):
    async def main():
        nodes = make_nodes(tmp_path)
        async with running(*nodes):
            for number, node in enumerate(nodes):
                node.admit(transactions(10 * number + 1, 5))
            await until(lambda: all(node.disk.tip.operations == 20 for node in nodes))
            await until(lambda: len({node.height for node in nodes}) == 1)
            await trio.sleep(1)
        assert len({encode(node.disk.tip) for node in nodes}) == 1
        assert facts(nodes[0].disk) == facts(nodes[3].disk)
        assert [node.blamed for node in nodes] == [[], [], [], []]

    play(main)


def test_an_idle_network_is_silent_but_for_its_heartbeat(tmp_path):
    async def main():
        nodes = make_nodes(tmp_path)
        async with running(*nodes):
            nodes[0].admit(transactions(1, 1))
            await trio.sleep(5)
            height = nodes[0].height
            sent = len(nodes[0].sent)
            await trio.sleep(50)
            assert (nodes[0].height, len(nodes[0].sent)) == (height, sent)
            await trio.sleep(20)
            assert nodes[0].height == height + 1

    play(main)


def test_a_node_that_was_away_catches_up(tmp_path):
    async def main():
        nodes = make_nodes(tmp_path)
        async with running(*nodes[:3]):
            for number in range(5):
                nodes[0].admit(transactions(10 * number + 1, 3))
                await trio.sleep(2)
        again = [MemoryNode(n, nodes[n].disk, tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*again):
            await until(lambda: again[3].disk.tip.operations == 15)
            again[3].admit(transactions(90, 3))
            await until(lambda: all(node.disk.tip.operations == 18 for node in again))
        assert again[3].blamed == []

    play(main)


def test_a_batch_that_is_ordered_while_it_is_verified_is_not_kept(tmp_path):
    """Otherwise every block this node proposes is refused until the batch expires."""

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        batch = make_batch(transactions(1, 2 * limits.SLICE_SIGNATURES), author=1)
        verify = node.admission.verify_batch

        async def slowly(payload, signed, validators):
            found = await verify(payload, signed, validators)
            block, certificate = node.disk.next_block(batch)
            places = [node.disk.bodies.append(batch.wire)]
            await node.writer.append(block, certificate, [batch], places, lambda _height: None)
            return found

        node.admission.verify_batch = slowly
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.router.verify_batches)
            await node.router.on_frames(quiet_peer(NAMES[1]), [(FrameKind.BATCH, batch.wire)])
            await until(lambda: node.height == 1)
            await trio.sleep(0.1)
            nursery.cancel_scope.cancel()
        assert len(node.pool) == 0

    play(main)


def test_many_missing_batches_are_answered_within_the_limit_of_a_frame(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        large = [
            make_batch(
                [make_transaction(tuple(register(1_000 * n + k) for k in range(1_200)), 1_000 * n)],
                sequence=n,
            )
            for n in range(1, 5)
        ]
        for batch in large:
            node.pool.add(batch, TIME)
        assert sum(len(batch.wire) for batch in large) > 1_200_000
        received = []
        peer = MemoryPeer(NAMES[1], lambda kind, payload: received.append((kind, payload)))
        for number, batch in enumerate(large):
            request = wire.BatchRequest(number, batch.digest)
            await node.router.on_frames(peer, [(FrameKind.BATCH_REQUEST, encode(request))])
        request = wire.BatchRequest(9, bytes(32))
        await node.router.on_frames(peer, [(FrameKind.BATCH_REQUEST, encode(request))])
        expected = [wire.answer(number, batch.wire) for number, batch in enumerate(large)]
        assert received == [
            (FrameKind.BATCH_RESPONSE, payload) for payload in (*expected, wire.answer(9, b""))
        ]
        assert peer.served_bytes == sum(len(batch.wire) for batch in large)

    play(main)


def test_a_late_proposal_of_a_height_that_was_just_decided_is_harmless(tmp_path):
    """It waits in the inbox while its height is executed; its block is forgotten meanwhile."""

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        block, certificate = node.disk.next_block(make_batch(transactions(1, 1)))
        late, _ = node.disk.next_block(time=TIME + 90_000)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            node.pool.add(make_batch(transactions(1, 1)), TIME)
            peer = ServingPeer(node, NAMES[1], [(block, certificate)])
            node.sync.note(NAMES[1], 1)
            await until(lambda: peer.answered)
            frames = [(FrameKind.PROPOSAL, proposal_of(late, 1, round_number=2))]
            await node.router.on_frames(peer, frames)
            await trio.sleep(1)
            assert node.height == 1
            nursery.cancel_scope.cancel()

    play(main)


def test_a_validator_that_proposes_without_end_does_not_stop_a_node(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        blocks = [node.disk.next_block(time=TIME + 60_000 + extra)[0] for extra in range(40)]
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            for number, block in enumerate(blocks):
                payload = proposal_of(block, 1, round_number=4 * number)
                await node.router.on_frames(quiet_peer(NAMES[1]), [(FrameKind.PROPOSAL, payload)])
                await trio.sleep(0.01)
            assert node.height == 0
            nursery.cancel_scope.cancel()

    play(main)


def test_a_proposal_whose_block_is_another_is_refused(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        block, _ = node.disk.next_block(time=TIME + 60_000)
        other, _ = node.disk.next_block(time=TIME + 60_001)
        record = wire.PROPOSAL.decode(proposal_of(block, 1))
        swapped = (
            *(getattr(record, name) for name in record.__struct_fields__[:-1]),
            encode(other),
        )
        with pytest.raises(PeerProtocolError):
            await node.router.on_frames(
                quiet_peer(NAMES[1]), [(FrameKind.PROPOSAL, encode(swapped))]
            )

    play(main)


@pytest.mark.parametrize("kind", list(FrameKind))
@pytest.mark.parametrize("payload", [b"", b"\xc0", b"\x90", b"\xff" * 40, b"\x97" + b"\x00" * 7])
def test_garbage_ends_the_link_and_not_the_node(tmp_path, kind, payload):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        with pytest.raises(PeerProtocolError):
            await node.router.on_frames(quiet_peer(NAMES[1]), [(kind, payload)])

    play(main)


def test_a_vote_with_the_signature_of_another_validator_is_refused(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        vote = Vote(1, Height(1), Round(0), None, -1, ValidatorIndex(2))
        payload = encode(wire.vote_message(vote, signed_by(1, vote)))
        with pytest.raises(PeerProtocolError):
            await node.router.on_frames(quiet_peer(NAMES[1]), [(FrameKind.VOTE, payload)])

    play(main)


def nil_prevote(sender, round_number=0):
    vote = Vote(VoteKind.PREVOTE, Height(1), Round(round_number), None, -1, ValidatorIndex(sender))
    return FrameKind.VOTE, encode(wire.vote_message(vote, signed_by(sender, vote)))


@asynccontextmanager
async def one_of_four(tmp_path):
    """A node whose one link says what the test lets it say."""
    node, peer = MemoryNode(0, LocalChain(), tmp_path / "0.wal"), quiet_peer(NAMES[1])

    async def hear(*frames):
        await node.router.on_frames(peer, list(frames))
        await trio.sleep(0.1)

    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        node.router.on_connected(peer)
        yield node, hear
        nursery.cancel_scope.cancel()


def votes_held(node, round_number):
    return len(node.driver.core._state.votes.signed_in(Round(round_number)))


def test_votes_that_came_before_a_node_takes_part_count_when_they_are_sent_again(tmp_path):
    async def main():
        async with one_of_four(tmp_path) as (node, hear):
            votes = [nil_prevote(sender) for sender in (1, 2, 3)]
            await hear(*votes)
            await node.hear_everybody()
            assert votes_held(node, 0) == 0
            status = wire.StatusMessage(1, 0, int(Step.PREVOTE))
            await hear((FrameKind.STATUS, encode(status)))
            await hear(*votes)
            assert votes_held(node, 0) >= 3

    play(main)


def test_a_vote_of_a_far_round_counts_when_it_is_sent_again_near_it(tmp_path):
    async def main():
        async with one_of_four(tmp_path) as (node, hear):
            await node.hear_everybody()
            far = nil_prevote(1, 2)
            await hear(far)
            await hear(nil_prevote(1, 1), nil_prevote(2, 1))
            assert node.driver.core.status.round == 1
            await hear(far)  # in the same status interval: not looked at again
            await trio.sleep(1.1)
            await hear(far)
            assert node.driver.core.status.round == 1
            assert votes_held(node, 2) == 1

    play(main)


def own_messages(entries):
    """(height, round, kind) -> what was signed, of all own messages in a log."""
    found = {}
    for entry in entries:
        if isinstance(entry, LoggedVote) and entry.own:
            vote = wire.VOTE.decode(entry.message)
            found.setdefault((vote.height, vote.round, vote.kind), set()).add(entry.message)
        elif isinstance(entry, LoggedProposal) and entry.own:
            proposal = wire.PROPOSAL.decode(entry.message)
            found.setdefault((proposal.height, proposal.round, 0), set()).add(entry.message)
    return found


def everything(path):
    """All own messages ever logged, beyond ended heights too."""
    return own_messages(entry for _, entry in log_entries.entries_of(path.read_bytes()))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_node_restarted_at_any_record_of_its_log_never_signs_twice(tmp_path, ahead):
    """Its stores may be one block ahead of its log or not: both are what a crash leaves."""
    path = tmp_path / "2.wal"
    disks = [LocalChain() for _ in range(4)]

    async def first_life():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            for number in range(3):
                nodes[number].admit(transactions(10 * number + 1, 3))
                await trio.sleep(0.3)
            for node in nodes:
                node.log.sync()

    play(first_life)
    data = path.read_bytes()
    boundaries = [behind for behind, _ in log_entries.entries_of(data)]
    logs = {n: (tmp_path / f"{n}.wal").read_bytes() for n in (0, 1, 3)}
    assert len(boundaries) > 20

    async def second_life(length, known, copies):
        node = MemoryNode(2, copies[2], path)
        below = node.height
        lists = {n: above(data, below) for n, data in {**logs, 2: path.read_bytes()}.items()}
        for n, entries in consistent(lists).items():
            begin_log(tmp_path / f"{n}.again.wal", entries)
        others = [MemoryNode(n, copies[n], tmp_path / f"{n}.again.wal") for n in (0, 1, 3)]
        async with running(node, *others):
            node.admit(transactions(500, 2))
            await until(lambda: node.height > below)
        after = everything(path)
        assert [slot for slot, messages in after.items() if len(messages) > 1] == []
        assert {slot: after[slot] for slot in known} == known

    for length in boundaries:
        path.write_bytes(data[:length])
        log = WriteAheadLog(path)
        log.close()
        below = 0 if log.recovered.ended is None else log.recovered.ended.height
        height = min(below + ahead, disks[2].tip.height)
        copies = [copy_up_to(disk, height) for disk in disks]
        play(second_life, length, own_messages(log.recovered.entries), copies)


def above(data, height):
    """The log of a node that crashed while it worked on the height above this one."""
    fresh = log_entries.EndedHeight(height, 0, bytes(32))
    kept, ended = [fresh], fresh
    for _, entry in log_entries.entries_of(data):
        if isinstance(entry, log_entries.EndedHeight):
            if entry.height > height:
                break
            kept, ended = [], entry
        kept.append(entry)
    return kept if ended.height == height else [fresh]


def consistent(lists):
    """Cut logs to one moment: nobody remembers a message that its sender has not signed yet."""
    while True:
        own = {
            n: {item.message for item in entries if is_own(item)} for n, entries in lists.items()
        }
        cut = {n: until_unsigned(entries, own) for n, entries in lists.items()}
        if cut == lists:
            return cut
        lists = cut


def is_own(entry):
    return isinstance(entry, LoggedVote | LoggedProposal) and entry.own


def until_unsigned(entries, own):
    for place, entry in enumerate(entries):
        if isinstance(entry, LoggedVote | LoggedProposal) and (
            entry.message not in own[sender_of(entry)]
        ):
            return entries[:place]
    return entries


def begin_log(path, entries):
    path.unlink(missing_ok=True)
    log = WriteAheadLog(path)
    for entry in entries:
        log.append(entry)
    log.sync()
    log.close()


def sender_of(entry):
    schema = wire.VOTE if isinstance(entry, LoggedVote) else wire.PROPOSAL
    return schema.decode(entry.message).sender


def copy_up_to(disk, height):
    """A disk that holds the same chain up to a height."""
    copy = LocalChain(disk.bodies)
    for number in range(1, height + 1):
        stored = disk.writer.read_block(number)
        places = [copy.bodies.append(batch.wire) for batch in stored.batches]
        content = (stored.block, stored.certificate, stored.batches, places)
        trio.run(copy.writer.append, *content, lambda _height: None)
    return copy


class LostBodies(MemoryBodies):
    """Bodies that a crash took before they were synced."""

    def read(self, place):
        return None


def test_a_block_that_was_decided_before_its_bodies_were_lost_is_fetched_or_synced(tmp_path):
    """The log knows the decision, the disk lost a body, and a peer offers the whole block."""
    path, disks = tmp_path / "2.wal", [LocalChain() for _ in range(4)]

    async def first_life():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes):
            nodes[0].admit(transactions(1, 3))
            await until(lambda: nodes[2].height == 2)

    async def second_life(copy, decided):
        node = MemoryNode(2, copy, path)
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await trio.sleep(0.1)
            assert node.height == 0
            ServingPeer(node, NAMES[0], [(decided.block, decided.certificate)], decided.batches)
            node.sync.note(NAMES[0], 1)
            await trio.sleep(3)
            assert node.height == 1
            nursery.cancel_scope.cancel()

    play(first_life)
    data = path.read_bytes()
    entries = list(log_entries.entries_of(data))
    ends = [behind for behind, entry in entries if isinstance(entry, log_entries.EndedHeight)]
    first_end = next((behind for behind, _ in reversed(entries) if behind < ends[0]), 0)
    path.write_bytes(data[:first_end])
    play(second_life, LocalChain(LostBodies()), disks[2].writer.read_block(1))


def test_a_node_that_lost_all_it_had_waits_beyond_the_newest_block_it_syncs(tmp_path):
    """It may have signed at the height in progress, however many answers lie before that."""
    source = LocalChain()
    for number in range(1, 5):
        source.decide(make_batch(transactions(number, 1), sequence=number))

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        stored = [source.writer.read_block(height) for height in range(1, 5)]
        blocks = [(one.block, one.certificate) for one in stored]
        batches = [batch for one in stored for batch in one.batches]
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            ServingPeer(node, NAMES[1], blocks, batches, at_once=2)
            node.sync.note(NAMES[1], 4)
            await until(lambda: node.height == 4)
            assert not node.driver.is_voting
            nursery.cancel_scope.cancel()

    play(main)
