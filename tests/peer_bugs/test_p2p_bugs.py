"""Bugs that other chains had between peers (research consensus-reliability 1.9), as tests here."""

import random
from dataclasses import dataclass

import msgspec
import pytest
import trio
from trio.testing import MockClock

from consensus.messages import Vote
from ledger import limits as protocol
from ledger.block import block_hash
from ledger.codec import encode
from ledger.errors import PeerProtocolError, Rejected
from ledger.ids import Height, Round, ValidatorIndex
from ledger.transaction import Call
from ledger.votes import CERTIFICATE, verify_certificate
from node import limits, router, sync, wire
from p2p.frames import LINK_LIMITS, FrameKind, FrameReader
from p2p.hello import Hello, HelloRefusedError
from p2p.metering import REQUEST_BYTES, SERVED_BYTES
from p2p.scoring import Offence, PeerOffenceError
from tests.peer_bugs.slow_network import linked
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import (
    CHAIN,
    VALIDATORS,
    LocalChain,
    certify,
    make_batch,
    make_transaction,
    register,
    secret_of,
)
from tests.unit.node_core.memory_network import NAMES, MemoryNode, MemoryPeer, until
from tests.unit.p2p.test_hello import ALICE as US
from tests.unit.p2p.test_hello import BOB, hello_of, side

MBIT = 1_000_000 / 8
ODD_INTEGERS = (-(2**63), -1, 0, 1, 127, 128, 255, 256, 2**31, 2**32, 2**63 - 1, 2**63, 2**64 - 1)


def play(main):
    async def bounded():
        with trio.fail_after(10_000):
            await main()

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def peer_of(index, into=None):
    return MemoryPeer(NAMES[index], lambda kind, payload: into is None or into.append(kind))


def signed_vote(height=1, round_number=0, sender=1, value=None, kind=1):
    vote = Vote(kind, Height(height), Round(round_number), value, -1, ValidatorIndex(sender))
    return wire.vote_message(vote, SUITE.sign(secret_of(sender), wire.digest_of(vote, CHAIN)))


def signed_batch(first=1, count=2, author=1):
    made = [make_transaction(register(n), n, is_signed=True) for n in range(first, first + count)]
    return make_batch(made, sequence=first, author=author)


@dataclass(frozen=True)
class Sample:
    """A right message as a tree of values, and the places of its integers."""

    kind: FrameKind
    value: object
    number: bytes = b""

    def payload(self, place=None, integer=0):
        return self.number + encode(_replaced(self.value, place, integer))

    def places(self):
        return list(_integers(self.value, ()))


def _integers(value, path):
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield path
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _integers(item, (*path, index))


def _replaced(value, place, integer):
    if place is None:
        return value
    if not place:
        return integer
    items = list(value)
    items[place[0]] = _replaced(items[place[0]], place[1:], integer)
    return items


def tree(record):
    return msgspec.msgpack.decode(encode(record))


def samples():
    """One right message of every kind that a linked peer may send."""
    chain = LocalChain()
    block, certificate = chain.next_block()
    value = block_hash(block.header, SUITE)
    proposal = wire.ProposalMessage(1, 0, value, -1, 1, bytes(64), encode(block))
    batch = tree(msgspec.Raw(signed_batch().wire))
    answer = wire.BlockResponse(1, (wire.SyncedBlock(encode(block), certificate),))
    number = (1).to_bytes(8, "big")
    return [
        Sample(FrameKind.VOTE, tree(signed_vote())),
        Sample(FrameKind.PROPOSAL, tree(proposal)),
        Sample(FrameKind.STATUS, tree(wire.StatusMessage(1, 0, 1))),
        Sample(FrameKind.MESSAGES, tree(wire.Resent((proposal,), (signed_vote(),)))),
        Sample(FrameKind.BATCH, batch),
        Sample(FrameKind.BATCH_REQUEST, tree(wire.BatchRequest(1, bytes(32)))),
        Sample(FrameKind.BATCH_RESPONSE, batch, number),
        Sample(FrameKind.BLOCK_REQUEST, tree(wire.BlockRequest(1, 1, 1))),
        Sample(FrameKind.BLOCK_RESPONSE, tree(answer), number),
    ]


async def survives(node, peer, kind, payload):
    """Give a node a frame: it is taken, or refused as the peer's fault; nothing else."""
    try:
        await node.router.on_frames(peer, [(kind, payload)])
    except PeerProtocolError:
        return False
    return True


def test_t05_every_integer_of_every_message_at_its_edges(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        tried = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            for sample in samples():
                for place in sample.places():
                    for integer in ODD_INTEGERS:
                        payload = sample.payload(place, integer)
                        await survives(node, peer_of(1), sample.kind, payload)
                        tried += 1
            await trio.sleep(5)
            assert (node.height, node.driver.height) == (0, 1)
            assert await survives(node, peer_of(1), FrameKind.VOTE, encode(signed_vote()))
            nursery.cancel_scope.cancel()
        assert tried > 300

    play(main)


@pytest.mark.parametrize("integer", ODD_INTEGERS)
def test_t05_a_rightly_signed_vote_with_any_integer_is_harmless(tmp_path, integer):
    """What a validator signs is not wrong for being signed: indexes, heights, rounds, kinds."""

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            for place in range(5):
                fields = [1, 1, 0, None, -1, 1]
                fields[place if place < 3 else place + 1] = integer
                _kind, height, round_number, value, valid_round, sender = fields
                digest = wire.digest_of(
                    Vote(1, height, round_number, value, valid_round, sender), CHAIN
                )
                payload = encode([*fields, SUITE.sign(secret_of(1), digest)])
                await survives(node, peer_of(1), FrameKind.VOTE, payload)
            await trio.sleep(5)
            assert node.height == 0
            nursery.cancel_scope.cancel()

    play(main)


@pytest.mark.parametrize("integer", ODD_INTEGERS)
@pytest.mark.parametrize("name", ["version", "group", "height"])
def test_t05_every_integer_of_the_hello_at_its_edges(name, integer):
    fields = list(msgspec.msgpack.decode(hello_of(BOB)))
    fields[Hello.__struct_fields__.index(name)] = integer
    try:
        answer = side(US, BOB).receive(FrameKind.HELLO, encode(fields))
    except HelloRefusedError:
        return
    assert answer[0] is FrameKind.HELLO_PROOF


def test_t06_a_batch_that_is_not_what_its_header_says_is_blamed_and_never_relayed(tmp_path):
    """No block parts here: a batch is the part, its roots are the proof."""

    async def main():
        right, other = signed_batch(1), signed_batch(9)
        header, signature, _ = msgspec.msgpack.decode(right.wire)
        wrong = encode([header, signature, msgspec.msgpack.decode(other.wire)[2]])
        nodes = [MemoryNode(n, LocalChain(), tmp_path / f"{n}.wal") for n in range(1)]
        node, asker = nodes[0], []
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            await node.router.on_frames(peer_of(2), [(FrameKind.BATCH, wrong)])
            await until(lambda: node.blamed)
            request = encode(wire.BatchRequest(7, right.digest))
            peer = MemoryPeer(NAMES[3], lambda _kind, payload: asker.append(payload))
            await node.router.on_frames(peer, [(FrameKind.BATCH_REQUEST, request)])
            assert asker == [wire.answer(7, b"")]
            assert len(node.pool) == 0
            # The author signed only the header: it is not blamed for what was put behind it ...
            assert node.blamed[0] == (NAMES[2], Offence.INVALID_SIGNATURE)
            # ... and the right batch of the same digest is still taken.
            await node.router.on_frames(peer_of(1), [(FrameKind.BATCH, right.wire)])
            await until(lambda: len(node.pool) == 1)
            nursery.cancel_scope.cancel()

    play(main)


@pytest.mark.parametrize(
    "signers", [(0, 1), (0, 1, 2, 2), (0, 1, 2, 1), (3, 2, 1, 0), (0, 1, 2, 4), (0, 1, 2, 3, 3)]
)
def test_t07_signers_of_a_certificate_are_exactly_indexes_of_the_set(signers):
    """No bitmaps here: signers are listed by index, ascending, each below the validator count."""
    good = CERTIFICATE.decode(certify(bytes(32), 1))
    signatures = dict(good.signatures)
    pairs = tuple((index, signatures.get(index, bytes(64))) for index in signers)
    with pytest.raises(Rejected):
        verify_certificate(msgspec.structs.replace(good, signatures=pairs), VALIDATORS, CHAIN)


def bulky(number):
    """A transaction of 60 KB that fails cheaply: bytes without work."""
    call = Call("data_index", "nonsense", bytes(60_000))
    return make_transaction(call, number, is_signed=True)


def sent_bytes(node):
    return [peer.sent_bytes for peer in node.network.peers]


def test_t09_blocks_of_full_size_over_lines_of_10_mbit_keep_deciding(tmp_path):
    async def main():
        async with linked(tmp_path, 10 * MBIT) as nodes:
            for index, node in enumerate(nodes):
                node.admit([bulky(1_000 * index + number) for number in range(100)])
            await until(lambda: all(node.disk.tip.transactions == 400 for node in nodes), 60)
            sizes = [
                sum(len(batch.wire) for batch in nodes[0].writer.read_block(height).batches)
                for height in range(1, nodes[0].height + 1)
            ]
            assert max(sizes) > protocol.BLOCK_BYTES * 0.9
            # Every line carries what one node packed, 6 MB, and little besides: no storm.
            assert max(size for node in nodes for size in sent_bytes(node)) < 10_000_000
            assert max(node.metrics.rounds._value.get() for node in nodes) < 8
            assert [node.blamed for node in nodes] == [[]] * 4
            assert all(len(node.network.peers) == 3 for node in nodes)
            assert {peer.throttled_ms for node in nodes for peer in node.network.peers} == {0}

    play(main)


def test_t09_one_node_with_more_than_its_queues_hold_is_pulled_from(tmp_path):
    async def main():
        async with linked(tmp_path, 20 * MBIT) as nodes:
            nodes[0].admit([bulky(number) for number in range(700)])  # 42 MB
            await until(lambda: all(node.disk.tip.transactions == 700 for node in nodes), 200)
            assert max(size for node in nodes for size in sent_bytes(node)) < 65_000_000
            assert [node.blamed for node in nodes] == [[]] * 4

    play(main)


def test_t10_a_peer_that_always_lags_is_told_a_bounded_number_of_times(tmp_path):
    chain = LocalChain()
    for number in range(1, 4):
        chain.decide(signed_batch(number, 1))

    async def main():
        node, told = MemoryNode(0, chain, tmp_path / "0.wal"), []
        node.peers = {NAMES[2]: peer_of(2, others := [])}
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            peer = peer_of(1, told)
            node.peers[NAMES[1]] = peer
            node.router.on_connected(peer)
            vote = signed_vote(node.driver.height, sender=3)
            await node.router.on_frames(peer, [(FrameKind.VOTE, encode(vote))])
            told.clear()
            others.clear()
            for height in (1, node.driver.height):
                for number in range(1_000):
                    status = encode(wire.StatusMessage(height, number, 2))
                    await node.router.on_frames(peer, [(FrameKind.STATUS, status)])
                    await trio.sleep(0.002)
            await trio.sleep(5)
            most = limits.STATUS_BURST + 4 * limits.STATUS_RATE + 5
            assert 0 < told.count(FrameKind.STATUS) <= most + 5
            assert told.count(FrameKind.MESSAGES) <= most
            assert len(others) <= most + 5
            nursery.cancel_scope.cancel()

    play(main)


def test_t10_served_catch_up_is_limited_by_reading_no_further(tmp_path):
    async def main():
        async with linked(tmp_path, 1_000 * MBIT) as nodes:
            lagging, served = nodes[1], nodes[0]
            served.admit([make_transaction(register(1), 1, is_signed=True)])
            await until(lambda: served.height == 2 and lagging.height == 2)
            request = encode(wire.BlockRequest(1, 1, 64))
            lagging.sync.receive = lambda *_answer: None  # it knows that it asks too often
            began_at = trio.current_time()
            asked = 0
            while trio.current_time() < began_at + 10:
                for _ in range(16):
                    asked += lagging.network.send(NAMES[0], FrameKind.BLOCK_REQUEST, request)
                await trio.sleep(0.002)
            [link] = [item for item in served.network.peers if item.address == NAMES[1]]
            budget = SERVED_BYTES.burst + 10 * SERVED_BYTES.rate
            answers = budget / REQUEST_BYTES
            assert asked > 2 * answers
            assert link.sent_bytes < 1.1 * answers * 5_000
            assert link.throttled_ms > 5_000
            # The others have not noticed.
            served.admit([make_transaction(register(2), 2, is_signed=True)])
            await until(lambda: nodes[2].height == 4, 5)

    play(main)


def test_t11_an_oversized_proposal_is_refused_before_a_byte_of_it_is_kept():
    reader = FrameReader()
    length = 2 * protocol.BLOCK_RECORD_BYTES
    with pytest.raises(PeerProtocolError, match="PROPOSAL frame of length"):
        reader.feed(length.to_bytes(4, "big") + bytes([FrameKind.PROPOSAL]))


@pytest.mark.parametrize("size", [protocol.BLOCK_RECORD_BYTES + 1, protocol.BLOCK_RECORD_BYTES * 9])
def test_t11_a_block_above_its_limit_costs_no_signature_check(tmp_path, size):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        peer = peer_of(1)
        record = [1, 0, bytes(32), -1, 1, bytes(64), bytes(size)]
        with pytest.raises(PeerOffenceError) as caught:
            await node.router.on_frames(peer, [(FrameKind.PROPOSAL, encode(record))])
        assert (caught.value.offence, peer.signatures) == (Offence.MALFORMED, 0)

    play(main)


class NeverDecoded:
    """Stands where a decoder stands."""

    def decode(self, data):
        raise AssertionError(f"decoded {len(data)} bytes")


@pytest.mark.parametrize("kind", [FrameKind.BLOCK_RESPONSE, FrameKind.BATCH_RESPONSE])
@pytest.mark.parametrize("number", [0, 1, 2**63, 2**64 - 1])
def test_t12_an_answer_that_nobody_asked_for_is_not_decoded(tmp_path, monkeypatch, kind, number):
    def never(data):
        raise AssertionError(f"decoded {len(data)} bytes")

    monkeypatch.setattr(sync, "BLOCK_RESPONSE", NeverDecoded())
    monkeypatch.setattr(router, "decode_batch", never)
    monkeypatch.setattr("node.fetching.decode_batch", never)

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        body = bytes(LINK_LIMITS[kind] - 8)
        with pytest.raises(PeerOffenceError) as caught:
            await node.router.on_frames(peer_of(1), [(kind, wire.answer(number, body))])
        assert caught.value.offence is Offence.UNREQUESTED

    play(main)


@pytest.mark.parametrize("kind", [FrameKind.BLOCK_RESPONSE, FrameKind.BATCH_RESPONSE])
def test_t12_an_answer_is_bounded_by_its_kind_before_it_is_read(kind):
    length = 2 + LINK_LIMITS[kind]
    with pytest.raises(PeerProtocolError):
        FrameReader().feed(length.to_bytes(4, "big") + bytes([kind]))
    assert LINK_LIMITS[kind] < 1.1 * protocol.BATCH_BYTES


def test_t22_a_flat_broadcast_reaches_everybody_once_and_is_verified_once(tmp_path):
    async def main():
        async with linked(tmp_path, 100 * MBIT) as nodes:
            payload = signed_batch(author=0).wire
            before = bytes(payload)
            checked = []
            for node in nodes[1:]:
                verify = node.admission.verify_batch

                async def counted(wire_bytes, signed, validators, node=node, verify=verify):
                    checked.append((node.index, wire_bytes))
                    return await verify(wire_bytes, signed, validators)

                node.admission.verify_batch = counted
            for node in nodes:  # everybody passes it on, as nobody must
                assert node.network.broadcast(FrameKind.BATCH, payload) == 3
            await until(lambda: all(len(node.pool) or node.height for node in nodes[1:]))
            await trio.sleep(2)
            assert sorted(checked) == [(index, before) for index in (1, 2, 3)]
            assert payload == before

    play(main)


@pytest.mark.parametrize("away", [(), (1,), (2,), (3,)])
def test_t22_links_that_end_during_a_broadcast_harm_nobody(tmp_path, away):
    async def main():
        async with linked(tmp_path, 10 * MBIT) as nodes:
            for index in away:
                for node in nodes:
                    node.network.ban(NAMES[index], 3_600, "test")
            alive = [node for node in nodes if node.index not in away]
            for node in alive:
                node.admit([bulky(1_000 * node.index + number) for number in range(9)])
            count = 9 * len(alive)
            await until(lambda: all(node.disk.tip.transactions == count for node in alive), 60)

    play(main)


def mutated(generator, payload):
    """A payload with one thing wrong: bytes, length, or one value in its tree."""
    data = bytearray(payload)
    match generator.randrange(5):
        case 0:
            data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        case 1:
            del data[generator.randrange(len(data)) :]
        case 2:
            place = generator.randrange(len(data))
            data[place:place] = generator.randbytes(generator.randrange(1, 9))
        case 3:
            start, end = sorted(generator.randrange(len(data)) for _ in range(2))
            data[start:end] = data[end:] + data[:start]
        case _:
            data = bytearray(generator.randbytes(generator.randrange(64)))
    return bytes(data)


def test_t28_mutated_messages_end_a_link_at_most(tmp_path):
    generator = random.Random(28)
    right = samples()

    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        refused = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(node.run)
            for _ in range(3_000):
                sample = generator.choice(right)
                payload = mutated(generator, sample.payload())
                if sample.number and generator.random() < 0.5:
                    node.sync._requests.open(NAMES[1], sync._Question(1, 64))
                    node.sync.fetch._requests.open(NAMES[1], bytes(32))
                refused += not await survives(node, peer_of(1), sample.kind, payload)
            await trio.sleep(5)
            assert (node.height, node.driver.height) == (0, 1)
            assert node.driver.core.held_messages < 100
            nursery.cancel_scope.cancel()
        assert refused > 2_000

    play(main)
