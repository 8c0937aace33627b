"""Bugs that other chains had in block sync (research consensus-reliability 1.9), as tests here.

A liar is linked first and asked first; two correct peers have the whole chain. Whatever the liar
does, the node ends with the chain, blames the liar alone and neither stops nor votes in between.
"""

import msgspec
import pytest
import trio
from trio.testing import MockClock

from consensus.events import Step
from consensus.messages import Vote
from ledger.batch import GENESIS_BATCH
from ledger.block import BLOCK, HEADER
from ledger.codec import encode
from ledger.errors import Reason
from ledger.ids import Height, Round, ValidatorIndex
from ledger.votes import CERTIFICATE
from node import wire
from node.log_entries import EndedHeight
from node.sync import SyncAnswer
from node.wal import WriteAheadLog
from p2p.frames import FrameKind
from p2p.scoring import Offence
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    CHAIN,
    TIME,
    LocalChain,
    certify,
    facts,
    fetched,
    make_batch,
    make_transaction,
    register,
    secret_of,
)
from tests.unit.node_core.memory_network import NAMES, MemoryNode, MemoryPeer, ServingPeer, until

LIAR, HONEST, OTHER = NAMES[1], NAMES[2], NAMES[3]
COUNT = 5


def batch_of(number, sequence=None):
    made = make_transaction(register(number), number)
    return make_batch([made], sequence=number if sequence is None else sequence)


def make_chain(count=COUNT):
    """Decided by the others: node 0 knows of no signature of its own."""
    chain = LocalChain()
    chain.signers = (1, 2, 3)
    for number in range(1, count + 1):
        chain.decide(batch_of(number))
    return chain


def play(main, path, disk=None):
    """Run `main(node)` beside a node that is empty or has a disk and a log."""

    async def bounded():
        if disk is not None:
            log = WriteAheadLog(path / "0.wal")
            log.begin(EndedHeight(disk.tip.height, 0, GENESIS_BATCH))
            log.close()
        node = MemoryNode(0, disk or LocalChain(), path / "0.wal")
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                await nursery.start(node.run)
                await main(node)
                nursery.cancel_scope.cancel()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


class Liar(ServingPeer):
    """Answers what `lie(blocks)` makes of the right blocks; `lie_batch(wire)` of a batch."""

    lie = staticmethod(lambda blocks: blocks)
    lie_batch = staticmethod(lambda wire_bytes: wire_bytes)
    tip = COUNT
    copies = 1

    def blocks_for(self, request):
        found = tuple(self.lie(self.blocks[request.start - 1 :]))
        answer = wire.answer(request.number, encode(wire.BlockResponse(self.tip, found)))
        for _ in range(self.copies - 1):
            self.deliver(FrameKind.BLOCK_RESPONSE, answer)
        return answer

    def batch_for(self, request):
        body = self.lie_batch(self.batches.get(request.digest, b""))
        return wire.answer(request.number, body)


def edited(item, **changes):
    """A synced block whose record is changed; the certificate stays."""
    block = msgspec.structs.replace(BLOCK.decode(item.block), **changes)
    return wire.SyncedBlock(encode(block), item.certificate)


def with_header(item, *, is_certified=False, **changes):
    """A synced block with a forged header, whose certificate may be of two traitors."""
    block = BLOCK.decode(item.block)
    header = encode(msgspec.structs.replace(HEADER.decode(block.header), **changes))
    forged = edited(item, header=header)
    return recertified(forged, (0, 1)) if is_certified else forged


def recertified(item, signers):
    certificate = CERTIFICATE.decode(item.certificate)
    proof = certify(certificate.block_hash, certificate.height, 0, signers)
    return wire.SyncedBlock(item.block, proof)


def shifted(item):
    """A certificate in which every signature stands under its neighbour's index."""
    certificate = CERTIFICATE.decode(item.certificate)
    signatures = [signature for _, signature in certificate.signatures]
    pairs = tuple(enumerate(signatures[1:] + signatures[:1]))
    return wire.SyncedBlock(
        item.block, encode(msgspec.structs.replace(certificate, signatures=pairs))
    )


def first(change):
    return lambda blocks: [change(blocks[0]), *blocks[1:]]


LIES = {
    "a height too high": first(lambda item: with_header(item, height=7)),
    "a height of zero": first(lambda item: with_header(item, height=1, time=1)),
    "another previous hash": first(lambda item: with_header(item, previous_hash=bytes(32))),
    "a forged header": first(lambda item: with_header(item, time=TIME + 5)),
    "a header with a minority's certificate": first(
        lambda item: with_header(item, is_certified=True, time=TIME + 5)
    ),
    "another validator set": first(lambda item: with_header(item, validators_hash=bytes(32))),
    "a certificate below a quorum": first(lambda item: recertified(item, (0, 1))),
    "a certificate of the next block": lambda blocks: [
        wire.SyncedBlock(blocks[0].block, blocks[1].certificate)
    ],
    "signatures under the wrong index": first(shifted),
    "no certificate": first(lambda item: wire.SyncedBlock(item.block, b"")),
    "no block": first(lambda item: wire.SyncedBlock(b"", item.certificate)),
    "no digests": first(lambda item: edited(item, batches=())),
    "digests of the next block": lambda blocks: [
        edited(blocks[0], batches=BLOCK.decode(blocks[1].block).batches)
    ],
    "digests that nobody has": first(lambda item: edited(item, batches=(bytes(32),))),
    "a forged certificate of the block before": lambda blocks: [
        blocks[0],
        edited(blocks[1], certificate=certify(bytes(32), 1)),
    ],
    "nothing": lambda _blocks: [],
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_t02_a_lying_sync_peer_is_blamed_and_left_and_the_chain_is_reached(tmp_path, lie):
    chain = make_chain()

    async def main(node):
        liar = Liar.of(node, LIAR, chain)
        liar.lie = lie
        for name in (HONEST, OTHER):
            ServingPeer.of(node, name, chain)
        for name in (LIAR, HONEST, OTHER):
            node.sync.note(name, COUNT)
        await until(lambda: node.height == COUNT, 120)
        assert facts(node.disk) == facts(chain)
        assert {peer for peer, _ in node.blamed} == {LIAR}
        assert (node.sync.target, node.driver.height) == (COUNT, COUNT + 1)

    play(main, tmp_path)


def test_t02_the_same_answer_again_is_unrequested(tmp_path):
    chain = make_chain()

    async def main(node):
        liar = Liar.of(node, LIAR, chain)
        liar.copies = 3
        for name in (HONEST, OTHER):
            ServingPeer.of(node, name, chain)
        node.sync.note(LIAR, COUNT)
        await until(lambda: liar.error is not None)
        node.sync.note(HONEST, COUNT)
        await until(lambda: node.height == COUNT)
        assert node.blamed == [(LIAR, Offence.UNREQUESTED)]

    play(main, tmp_path)


def altered(wire_bytes):
    """A batch with the right header and another transaction: its digest is still right."""
    signed = msgspec.msgpack.decode(wire_bytes)
    other = msgspec.msgpack.decode(batch_of(99).wire)
    return encode([signed[0], signed[1], other[2]])


def signed_by_nobody(wire_bytes):
    signed = msgspec.msgpack.decode(wire_bytes)
    return encode([signed[0], bytes(63) + b"\1", signed[2]])


@pytest.mark.parametrize(
    ("lie", "offence"),
    [
        (altered, Offence.MALFORMED),
        (signed_by_nobody, Offence.INVALID_SIGNATURE),
        (lambda _wire: batch_of(99).wire, Offence.MALFORMED),
        (lambda wire_bytes: wire_bytes[:-1], Offence.MALFORMED),
        (lambda _wire: b"", Offence.FRUITLESS),
    ],
)
def test_t02_a_lie_about_a_batch_is_the_fault_of_who_sent_it(tmp_path, lie, offence):
    chain = make_chain()

    async def main(node):
        liar = Liar.of(node, LIAR, chain)
        liar.lie_batch = lie
        node.sync.note(LIAR, COUNT)
        await until(lambda: node.blamed)
        for name in (HONEST, OTHER):
            ServingPeer.of(node, name, chain)
            node.sync.note(name, COUNT)
        await until(lambda: node.height == COUNT)
        assert set(node.blamed) == {(LIAR, offence)}
        assert facts(node.disk) == facts(chain)
        for height in range(1, COUNT + 1):
            assert node.writer.read_block(height).batches[0].wire == batch_of(height).wire

    play(main, tmp_path)


def test_t02_no_batch_is_asked_for_before_its_block_is_certified(tmp_path):
    chain = make_chain()

    async def main(node):
        liar = Liar.of(node, LIAR, chain)
        liar.lie = lambda blocks: [recertified(item, (0, 1)) for item in blocks]
        node.sync.note(LIAR, COUNT)
        await until(lambda: node.blamed)
        assert node.blamed[0] == (LIAR, Offence.INVALID_SIGNATURE)
        assert (node.sync.target, liar.asked) == (0, [(FrameKind.BLOCK_REQUEST, 1)])

    play(main, tmp_path)


@pytest.mark.parametrize("claims", [[2**63 - 1], [10**9, 2, 10**9], [9, 8, 7, 6], [0, 10**6]])
def test_t03_no_claim_moves_the_target_beyond_a_verified_certificate(tmp_path, claims):
    chain = make_chain()

    async def main(node):
        Liar.of(node, LIAR, chain).lie = lambda _blocks: []
        for name in (HONEST, OTHER):
            ServingPeer.of(node, name, chain)
            node.sync.note(name, COUNT)
        for claim in claims:
            node.sync.note(LIAR, claim)
            assert node.sync.target <= COUNT
        await until(lambda: node.height == COUNT, 120)
        await trio.sleep(30)
        assert (node.sync.target, node.sync.is_behind) == (COUNT, False)
        assert {peer for peer, _ in node.blamed} == {LIAR}

    play(main, tmp_path)


def test_t19_a_node_in_sync_signs_nothing_at_heights_that_correct_peers_have(tmp_path):
    """It has work of its own, which wakes its core at every height."""
    chain = make_chain(10)

    class FarPeer(ServingPeer):
        """Two seconds away, so that a core that takes part has time to time out and vote."""

        async def _deliver_now(self, kind, payload):
            await trio.sleep(2)
            await super()._deliver_now(kind, payload)

    async def main(node):
        for name in (LIAR, HONEST, OTHER):
            FarPeer.of(node, name, chain, at_once=1)
            node.sync.note(name, 10)
            node.driver.hear(name, 10)
        node.admit([make_transaction(register(500), 500, is_signed=True)])
        await until(lambda: node.height == 10)
        await until(lambda: node.of_kind(FrameKind.VOTE))
        await trio.sleep(5)
        signed = [wire.VOTE.decode(vote).height for vote in node.of_kind(FrameKind.VOTE)]
        signed += [wire.PROPOSAL.decode(item).height for item in node.of_kind(FrameKind.PROPOSAL)]
        assert set(signed) <= {10, 11}
        assert 11 in signed
        assert node.driver.is_voting

    play(main, tmp_path, make_chain(1))


def test_t20_rounds_that_time_out_do_not_keep_a_node_from_newer_blocks(tmp_path):
    chain = make_chain()

    async def main(node):
        await node.hear_everybody()
        node.admit([make_transaction(register(500), 500, is_signed=True)])
        for index, round_number in ((1, 5), (2, 5), (1, 9), (2, 9)):
            vote = Vote(1, Height(1), Round(round_number), None, -1, ValidatorIndex(index))
            signature = SUITE.sign(secret_of(index), wire.digest_of(vote, CHAIN))
            payload = encode(wire.vote_message(vote, signature))
            peer = MemoryPeer(NAMES[index], lambda _kind, _payload: None)
            await node.router.on_frames(peer, [(FrameKind.VOTE, payload)])
        await trio.sleep(60)
        assert (node.height, node.driver.core.status.round) == (0, 9)
        ServingPeer.of(node, HONEST, chain)
        node.sync.note(HONEST, COUNT)
        await until(lambda: node.height == COUNT)
        assert node.driver.core.status.height == COUNT + 1

    play(main, tmp_path)


def test_t24_a_block_that_is_delivered_twice_is_applied_once(tmp_path):
    chain = make_chain()

    async def main(node):
        applied = []
        node.writer.on_block(lambda block: applied.append(block.header.height))
        answers = [
            SyncAnswer(HONEST, fetched(chain, *heights))
            for heights in ((1, 2), (1, 2), (2, 3), (3,), (1, 2, 3, 4, 5))
        ]
        for answer in answers:
            node.driver.post(answer)
        for answer in answers:
            await answer.applied.wait()
        assert applied == [1, 2, 3, 4, 5]
        assert [answer.refusal for answer in answers] == [None] * 5
        assert facts(node.disk) == facts(chain)

    play(main, tmp_path)


def test_t27_a_sync_that_brings_nothing_new_changes_no_state(tmp_path):
    chain = make_chain()

    async def main(node):
        await node.hear_everybody()
        node.driver.post(SyncAnswer(HONEST, fetched(chain, 1, 2)))
        await until(lambda: node.height == 2)
        node.admit([make_transaction(register(500), 500, is_signed=True)])
        await until(lambda: node.driver.core.status.step is not Step.IDLE)
        path = tmp_path / "0.wal"
        core, entries = node.driver.core, path.stat().st_size
        before = (core._state, core._next, core.status, node.driver.is_voting, facts(node.disk))
        sent = len(node.sent)
        for blocks in ((), fetched(chain, 1), fetched(chain, 1, 2)):
            answer = SyncAnswer(HONEST, blocks)
            node.driver.post(answer)
            await answer.applied.wait()
            assert answer.refusal is None
        after = (core._state, core._next, core.status, node.driver.is_voting, facts(node.disk))
        assert after == before
        assert core._state is before[0]
        assert (path.stat().st_size, len(node.sent)) == (entries, sent)

    play(main, tmp_path)


@pytest.mark.parametrize("order", [(0, 2), (1, 0), (0, 0), (1,), (0, 1, 3), (4, 3, 2, 1, 0)])
def test_t31_heights_that_are_not_contiguous_are_refused_before_use(tmp_path, order):
    chain = make_chain()

    async def main(node):
        liar = Liar.of(node, LIAR, chain)
        liar.lie = lambda blocks: [blocks[index] for index in order if index < len(blocks)]
        node.sync.note(LIAR, COUNT)
        await until(lambda: node.blamed)
        assert node.blamed[0] == (LIAR, Offence.MALFORMED)
        assert node.height == 0
        ServingPeer.of(node, HONEST, chain)
        node.sync.note(HONEST, COUNT)
        await until(lambda: node.height == COUNT, 120)
        assert {peer for peer, _ in node.blamed} == {LIAR}

    play(main, tmp_path)


def test_t31_the_driver_refuses_a_gap_as_well(tmp_path):
    chain = make_chain()

    async def main(node):
        answer = SyncAnswer(HONEST, fetched(chain, 1, 3))
        node.driver.post(answer)
        await answer.applied.wait()
        assert (node.height, answer.refusal.reason) == (1, Reason.BAD_CERTIFICATE)

    play(main, tmp_path)
