"""One key on two hosts, and old copies of a data folder: found, named, and never a second vote."""

import shutil

import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Vote, VoteKind
from ledger.codec import encode
from ledger.ids import Height, Round, ValidatorIndex
from node import wire
from node.driver_parts import TwinSeen
from node.limits import DUPLICATE_HEIGHTS
from node.log_entries import EndedHeight, entries_of
from node.quarantine import DuplicateInstanceError
from node.wal import WriteAheadLog
from p2p.frames import FrameKind
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    CHAIN,
    LocalChain,
    certify,
    make_batch,
    make_transaction,
    register,
    secret_of,
)
from tests.unit.node_core.memory_network import (
    NAMES,
    MemoryNode,
    MemoryPeer,
    ServingPeer,
    running,
    until,
)
from tests.unit.node_core.test_network import copy_up_to, own_messages


def play(main):
    trio.run(main, clock=MockClock(autojump_threshold=0))


def some(number):
    return [make_transaction(register(number), number, is_signed=True)]


def make_nodes(folder, disks=None):
    disks = disks or [LocalChain() for _ in range(4)]
    return [MemoryNode(n, disks[n], folder / f"{n}.wal") for n in range(4)]


def stopped_by(group):
    """The one error in nested groups."""
    while isinstance(group, BaseExceptionGroup):
        (group,) = group.exceptions
    return group


def status(height):
    return (FrameKind.STATUS, encode(wire.StatusMessage(height, 0, 4)))


async def hear(node, tip):
    """Let the other validators say which block they have."""
    for name in NAMES:
        if name != node.address:
            peer = MemoryPeer(name, lambda _kind, _payload: None)
            await node.router.on_frames(peer, [status(tip + 1)])


def vote_of(validator, height, round_number=0, value=None):
    vote = Vote(
        VoteKind.PREVOTE, Height(height), Round(round_number), value, -1, ValidatorIndex(validator)
    )
    signature = SUITE.sign(secret_of(validator), wire.digest_of(vote, CHAIN))
    return FrameKind.VOTE, encode(wire.vote_message(vote, signature))


def test_a_message_with_our_signature_that_we_did_not_send_stops_the_node_by_name(tmp_path):
    """FISCO #3617: one identity on two hosts broke consensus."""

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        with pytest.raises(BaseExceptionGroup) as stop:
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await hear(node, 0)
                await until(lambda: node.driver.is_voting)
                peer = MemoryPeer(NAMES[1], lambda _kind, _payload: None)
                await node.router.on_frames(peer, [vote_of(0, 1)])
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
        error = stopped_by(stop.value)
        assert isinstance(error, DuplicateInstanceError)
        assert "another instance runs with the same key" in str(error)
        assert node.of_kind(FrameKind.VOTE) == []
        again = WriteAheadLog(tmp_path / "0.wal")
        again.close()
        assert again.recovered.ended.voting_from == 1 + DUPLICATE_HEIGHTS + 1

    play(main)


@pytest.mark.parametrize("heard", [True, False])
def test_a_twin_at_the_other_end_of_a_link_stops_the_node_at_once(tmp_path, heard):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        with pytest.raises(BaseExceptionGroup) as stop:
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                if heard:
                    await hear(node, 0)
                await trio.sleep(0.5)
                node.driver.post(TwinSeen("198.51.100.7:26600"))
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
        assert "198.51.100.7:26600 proved" in str(stopped_by(stop.value))
        again = WriteAheadLog(tmp_path / "0.wal")
        again.close()
        assert again.recovered.ended.voting_from == 1 + DUPLICATE_HEIGHTS + 1

    play(main)


def test_our_own_messages_passed_on_by_peers_are_no_alarm(tmp_path):
    async def main():
        nodes = make_nodes(tmp_path)
        async with running(*nodes):
            nodes[0].admit(some(1))
            await until(lambda: nodes[1].of_kind(FrameKind.VOTE))
            for payload in nodes[0].of_kind(FrameKind.VOTE):
                peer = MemoryPeer(NAMES[1], lambda _kind, _payload: None)
                await nodes[0].router.on_frames(peer, [(FrameKind.VOTE, payload)])
            await until(lambda: all(node.height >= 2 for node in nodes))

    play(main)


def test_an_old_copy_of_the_data_folder_never_signs_what_was_signed_after_it_was_made(tmp_path):
    """Copied at height 2, restored when the chain is further: its own signatures tell it."""
    disks, copied = [LocalChain() for _ in range(4)], {}

    async def first_life():
        nodes = make_nodes(tmp_path, disks)
        async with running(*nodes):
            for number in range(4):
                nodes[number].admit(some(number + 1))
                await until(lambda n=number: all(node.height >= n + 1 for node in nodes))
                for node in nodes:
                    node.log.sync()
                if number == 0:
                    shutil.copy(tmp_path / "3.wal", tmp_path / "copy.wal")
                    copied["height"] = ended_in(tmp_path / "copy.wal")
            await trio.sleep(1)
            for node in nodes:
                node.log.sync()

    play(first_life)
    before = own_messages(entry for _, entry in entries_of((tmp_path / "3.wal").read_bytes()))
    shutil.copy(tmp_path / "copy.wal", tmp_path / "3.wal")
    disks[3] = copy_up_to(disks[3], copied["height"])

    async def second_life():
        nodes = make_nodes(tmp_path, disks)
        tip = nodes[0].height
        async with running(*nodes):
            for number in range(30):
                nodes[number % 3].admit(some(100 + number))
                await until(lambda n=number: nodes[3].disk.tip.operations >= n + 5)
                if nodes[3].driver.is_voting:
                    break
            assert nodes[3].height >= copied["height"] + DUPLICATE_HEIGHTS
            assert nodes[3].height > tip
            nodes[3].admit(some(900))
            await until(lambda: nodes[3].of_kind(FrameKind.VOTE))

    play(second_life)
    after = own_messages(entry for _, entry in entries_of((tmp_path / "3.wal").read_bytes()))
    both = [place for place in after if place in before and after[place] != before[place]]
    assert both == []


def ended_in(path):
    entries = [entry for _, entry in entries_of(path.read_bytes())]
    return [entry.height for entry in entries if isinstance(entry, EndedHeight)][-1]


def log_that_ended(path, height):
    log = WriteAheadLog(path)
    log.begin(EndedHeight(height, 0, bytes(32)))
    log.close()


@pytest.mark.parametrize(("signers", "is_free"), [((0, 1, 2), False), ((1, 2, 3), True)])
def test_our_signature_in_the_very_last_block_bars_us_and_its_absence_does_not(
    tmp_path, signers, is_free
):
    """T-14: CometBFT's look at the last block looked at none (#5668)."""
    source = LocalChain()
    for number in range(3):
        source.decide(make_batch(some(number), sequence=number))
    node_chain = copy_up_to(source, 2)

    async def main():
        node = MemoryNode(0, node_chain, tmp_path / "0.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await hear(node, 3)
            await trio.sleep(0.5)
            blocks = [source.writer.read_block(height) for height in (1, 2, 3)]
            forged = certify(blocks[2].block_hash, 3, signers=signers)
            certificates = (blocks[0].certificate, blocks[1].certificate, forged)
            shown = zip((one.block for one in blocks), certificates, strict=True)
            ServingPeer(node, NAMES[1], shown, blocks[2].batches)
            node.sync.note(NAMES[1], 3)
            await until(lambda: node.height == 3)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert node.driver.is_voting == is_free
        assert node.driver._gate.voting_from == (0 if is_free else 3 + DUPLICATE_HEIGHTS + 1)

    log_that_ended(tmp_path / "0.wal", 2)
    play(main)


@pytest.mark.parametrize(("ended", "is_free"), [(2, False), (3, True)])
def test_our_signature_in_the_last_block_of_our_own_store_needs_a_log_that_knows_it(
    tmp_path, ended, is_free
):
    """A crash leaves a log one height behind, but then it holds the precommit."""
    chain = LocalChain()
    for number in range(3):
        chain.decide(make_batch(some(number), sequence=number))
    log_that_ended(tmp_path / "0.wal", ended)

    async def main():
        node = MemoryNode(0, chain, tmp_path / "0.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await hear(node, 3)
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert node.driver.is_voting == is_free

    play(main)
