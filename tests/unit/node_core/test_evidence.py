"""Evidence on its way to the chain: reported once, kept over crashes, dropped when settled."""

import trio
from trio.testing import MockClock

from consensus.messages import Evidence, Signed, Vote, VoteKind
from contracts.evidence import OffenceQuery
from ledger.addresses import AddressKind, single_key_script
from ledger.codec import encode
from ledger.ids import Height, Round
from ledger.limits import EVIDENCE_HEIGHTS
from ledger.receipts import RECEIPT, Status
from node import wire
from node.evidence import HELD_REPORTS, EvidenceKeeper
from node.identity import Identity
from node.queries import Queries
from p2p.frames import FrameKind
from tests.unit.ledger.worlds import SUITE

from .chains import CHAIN, NODE_SECRETS, LocalChain, facts, make_transaction, register
from .memory_network import NAMES, MemoryNode, MemoryPeer, running, until

TRAITOR = 3


def play(main, *arguments):
    trio.run(main, *arguments, clock=MockClock(autojump_threshold=0))


def vote(value, height, round_number=0, sender=TRAITOR):
    message = Vote(VoteKind.PREVOTE, Height(height), Round(round_number), value, -1, sender)
    return Signed(message, SUITE.sign(NODE_SECRETS[NAMES[sender]], wire.digest_of(message, CHAIN)))


def frame(signed):
    return FrameKind.VOTE, encode(wire.vote_message(signed.message, signed.signature))


def equivocation(height, round_number=0):
    return Evidence(vote(b"a" * 32, height, round_number), vote(b"b" * 32, height, round_number))


def keeper_of(node, folder):
    """A keeper for a node, told by its driver."""
    secret = NODE_SECRETS[node.address]
    script = single_key_script(AddressKind.NODE, SUITE.public_key(secret))
    identity = Identity("me", node.address, script, secret, SUITE)
    has_offence = Queries(node.writer).has_offence
    keeper = EvidenceKeeper(folder, identity, node.writer, node.clock, has_offence)
    node.on_accused = keeper.keep
    return keeper


async def admit(node, wires):
    answers = await node.admission.admit(wires)
    node.maker.notify()
    return answers


def start(nursery, node, folder):
    keeper = keeper_of(node, folder)
    nursery.start_soon(keeper.run, lambda wires: admit(node, wires), lambda: node.maker.is_author)
    return keeper


def reports(disk):
    """Status and error of every report on chain."""
    found = []
    for height in range(1, disk.tip.height + 1):
        for result in disk.state.receipts(height):
            if result.module == "system":
                found += [RECEIPT.decode(item) for item in result.receipts]
    return [receipt.error or Status(receipt.status).name for receipt in found]


def test_an_equivocation_that_all_nodes_see_is_reported_once(tmp_path):
    disks = [LocalChain() for _ in range(4)]

    async def main():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes) as nursery:
            for index in range(3):
                start(nursery, nodes[index], tmp_path / str(index))
            await until(lambda: all(node.driver._gate.is_open for node in nodes))
            peer = MemoryPeer(NAMES[TRAITOR], lambda _kind, _payload: None)
            for node in nodes[:3]:
                for value in (b"a" * 32, b"b" * 32):
                    await node.router.on_frames(peer, [frame(vote(value, 1))])
            nodes[0].admit([make_transaction(register(1), 1, is_signed=True)])
            await until(lambda: not any(tmp_path.glob("*/*.evidence")) and nodes[0].height > 1)
            await trio.sleep(10)
        assert [len(node.accused) for node in nodes] == [1, 1, 1, 0]

    play(main)
    assert reports(disks[0]) == ["OK"]
    found = disks[0].read("system", 0, "evidence", "get", NAMES[TRAITOR], 1, 0, 1)
    assert found.first.slot == (1, 0, 1, TRAITOR)
    assert len({facts(disk) for disk in disks}) == 1


def test_evidence_outlives_a_crash_and_is_reported_by_the_next_life(tmp_path):
    disks = [LocalChain() for _ in range(4)]
    folder = tmp_path / "evidence"

    async def alone():
        node = MemoryNode(0, disks[0], tmp_path / "0.wal")
        keeper_of(node, folder).keep(equivocation(1))
        assert [path.name for path in folder.iterdir()] == ["1-0-1-3.evidence"]

    async def together():
        nodes = [MemoryNode(n, disks[n], tmp_path / f"{n}.wal") for n in range(4)]
        async with running(*nodes) as nursery:
            start(nursery, nodes[0], folder)
            nodes[1].admit([make_transaction(register(1), 1, is_signed=True)])
            await until(lambda: not any(folder.iterdir()))

    play(alone)
    play(together)
    assert reports(disks[0]) == ["OK"]


def test_a_crash_before_the_file_is_made_up_for_by_the_log(tmp_path):
    disk = LocalChain()

    async def see():
        node = MemoryNode(0, disk, tmp_path / "0.wal")
        async with running(node):
            await node.hear_everybody()
            peer = MemoryPeer(NAMES[TRAITOR], lambda _kind, _payload: None)
            for value in (b"a" * 32, b"b" * 32):
                await node.router.on_frames(peer, [frame(vote(value, 1))])
            await until(lambda: node.accused)
            node.log.sync()

    async def remember():
        node = MemoryNode(0, disk, tmp_path / "0.wal")
        async with running(node):
            await node.hear_everybody()
            await until(lambda: node.accused)
        assert node.accused == [equivocation(1)]

    play(see)
    play(remember)


def test_a_damaged_file_is_named_and_left_and_the_others_count(tmp_path, capsys):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        folder = tmp_path / "evidence"
        keeper_of(node, folder).keep(equivocation(1))
        bad = folder / "0-damaged.evidence"
        bad.write_bytes(b"rot")
        bad.chmod(0o600)
        again = keeper_of(node, folder)
        assert list(again._held) == [(1, 0, 1, TRAITOR)]
        assert bad.exists()

    play(main)
    assert "0-damaged.evidence" in capsys.readouterr().out


def test_memory_and_disk_are_bounded_however_much_a_traitor_signs(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        keeper = keeper_of(node, tmp_path / "evidence")
        for number in range(HELD_REPORTS + 5):
            keeper.keep(equivocation(1, number))
        assert len(list((tmp_path / "evidence").iterdir())) == HELD_REPORTS

    play(main)


def test_what_the_chain_has_is_forgotten(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        keeper = keeper_of(node, tmp_path / "evidence")
        keeper.keep(equivocation(1))
        asked = []
        keeper._is_recorded = lambda query: bool(asked.append(query)) or len(asked) > 1
        keeper._forget_settled()
        assert any((tmp_path / "evidence").iterdir())
        keeper._forget_settled()
        assert not any((tmp_path / "evidence").iterdir())
        assert asked == [OffenceQuery(NAMES[TRAITOR], 1, 0, 1)] * 2

    play(main)


def test_what_the_chain_will_not_take_any_more_is_forgotten(tmp_path):
    async def main():
        node = MemoryNode(0, LocalChain(), tmp_path / "0.wal")
        keeper = keeper_of(node, tmp_path / "evidence")
        keeper.keep(equivocation(1))
        keeper._writer = FarAhead(node.writer, EVIDENCE_HEIGHTS + 1)
        keeper._forget_settled()
        assert any((tmp_path / "evidence").iterdir())
        keeper._writer = FarAhead(node.writer, EVIDENCE_HEIGHTS + 2)
        keeper._forget_settled()
        assert not any((tmp_path / "evidence").iterdir())

    play(main)


class FarAhead:
    """A chain whose tip is far beyond what is on disk."""

    def __init__(self, writer, height):
        self._writer = writer
        self.height = height

    @property
    def tip(self):
        return self

    def validators_at(self, height):
        return self._writer.validators_at(height)
