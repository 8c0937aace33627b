"""One node of a network on a recording disk: its first life, and a second one after a crash.

First life: four nodes decide a few blocks; of the third every operation of its disk is recorded,
with what it sent and what it told clients, and the state of its core after every entry of its log.
Second life: the same parts on the image that a crash left, alone, so that only memory can help it.
"""

import random
from dataclasses import dataclass, field
from pathlib import Path

import trio
from trio.testing import MockClock

from consensus.messages import Vote, VoteKind
from ledger.batch import parse_batch
from ledger.block import block_hash
from ledger.errors import KanglianError
from ledger.store.bodies import BodyFiles
from node import wire
from node.log_entries import EndedHeight, LoggedBatch, Memory
from node.signer import position_of
from p2p.frames import FrameKind
from tests.crash.disk import History, Image, RecordingDisk, RecordingStore
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, LocalChain, make_transaction, register
from tests.unit.node_core.memory_network import NAMES, MemoryNode, running, until

ME = 2
FOLDER = Path("data")
LOG = FOLDER / "consensus.wal"


class Broken(Exception):
    """A promise that a crash broke."""


@dataclass
class Life:
    """A recorded first life."""

    history: History
    cores: dict[tuple[int, int], tuple] = field(default_factory=dict)
    """(ended height, entries since) -> what the core knew then."""


class CrashChain(LocalChain):
    """Stores and bodies of the machine."""

    def __init__(self, history: History, image: Image | None = None) -> None:
        self.files = RecordingDisk(history, None if image is None else image.files)
        super().__init__(BodyFiles(FOLDER / "bodies", self.files))
        self.block_data = RecordingStore(history, "blocks")
        self.state_data = RecordingStore(history, "state")
        for name, store in ({} if image is None else image.stores).items():
            target = self.block_data if name == "blocks" else self.state_data
            target.write(list(store.scan(b"", b"\xff" * 64, reverse=False)))
        self.open()


def view(core):
    """What must be the same after a replay."""
    return core.status, core.locked, core.valid, core.held_messages


def record_life(folder: Path, seed: int, blocks: int = 4) -> Life:
    """Let four nodes decide, the third on a recording disk.

    By `seed % 4`: all is well; many messages are lost; this node is silent for want of disk space
    and only follows, every other block; one node is mute, so that its rounds time out.
    """
    life, rng = Life(History()), random.Random(seed)

    async def main():
        mine = CrashChain(life.history)
        nodes = [
            MemoryNode(n, LocalChain(), folder / f"{n}.wal") if n != ME else machine(mine)
            for n in range(4)
        ]
        watch(life, nodes[ME])
        if seed % 4 == 1:
            for node in nodes:
                make_lossy(node, rng, 0.5)
        elif seed % 4 == 3:
            make_lossy(nodes[ME - 1], rng, 1.0)
        async with running(*nodes):
            for number in range(blocks):
                nodes[ME].space.is_low = seed % 4 == 2 and number % 2 == 1
                ids = range(10 * number, 10 * number + rng.randint(1, 4))
                nodes[(ME + number) % 4].admit(work(ids))
                await until(lambda last=ids[-1]: knows(nodes[ME], last), 3_000)
            await trio.sleep(0.3)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return life


def work(ids):
    return [make_transaction(register(n), n, is_signed=True) for n in ids]


def knows(node, number):
    return node.disk.state.locate(work([number])[0].id) is not None


def make_lossy(node: MemoryNode, rng: random.Random, share: float) -> None:
    """A share of what this node tells all is lost; re-sending brings it, rounds later."""
    broadcast = node.broadcast

    def say(kind, payload):
        if kind in (FrameKind.VOTE, FrameKind.PROPOSAL) and rng.random() < share:
            return 0
        return broadcast(kind, payload)

    node.broadcast = say


def machine(chain: CrashChain) -> MemoryNode:
    return MemoryNode(ME, chain, LOG, files=chain.files)


def watch(life: Life, node: MemoryNode) -> None:
    """Record what others see of a node, and what its core knows."""
    append, core = node.log.append, node.driver.core
    step, place = core.step, [0, 0]
    note_sent(life.history, node)

    def note(entry):
        append(entry)
        place[:] = [entry.height, 0] if isinstance(entry, EndedHeight) else [place[0], place[1] + 1]

    def go(event):
        effects = step(event)
        life.cores[tuple(place)] = view(core)
        return effects

    class Watched(type(core)):
        __slots__ = ()
        step = staticmethod(go)

    node.log.append = note
    core.__class__ = Watched
    node.writer.on_block(
        lambda block: life.history.add(
            "told", block.header.height, block.block_hash, node.disk.tip.state_root
        )
    )


def survive(life: Life, image: Image) -> History:
    """A second life on an image, and everything that must hold in it; what it did.

    Raises: Broken.
    """
    history = History()

    async def main():
        try:
            node = machine(CrashChain(history, image))
            note_sent(history, node)
            await node.writer.recover(node.log, node.driver.end_height)
        except KanglianError as error:
            raise Broken(f"it does not open: {error}") from error
        check_memory(node, image)
        check_chain(node, image)
        check_bodies(node, image)
        await check_replay(life, node, image)
        node.log.close()

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return history


def note_sent(history: History, node: MemoryNode) -> None:
    broadcast = node.broadcast

    def say(kind, payload):
        history.add("sent", kind, payload)
        return broadcast(kind, payload)

    node.broadcast = say


def own(image: Image):
    """Consensus messages that left before the crash."""
    for kind, payload in sent(image):
        if kind is FrameKind.VOTE:
            yield wire.signed_vote(wire.VOTE.decode(payload))
        elif kind is FrameKind.PROPOSAL:
            yield wire.signed_proposal(wire.PROPOSAL.decode(payload))


def sent(image: Image):
    return [item[1:] for item in image.seen if item[0] == "sent"]


def check_memory(node, image):
    """Whoever signed remembers it; an honest disk never costs a node its vote."""
    memory = node.driver._gate.memory
    if memory is Memory.LOST or (memory is Memory.NEW and any(own(image))):
        raise Broken(f"its memory is {memory.name} after an honest crash")
    numbers = [
        parse_batch(payload, CHAIN).header.sequence
        for kind, payload in sent(image)
        if kind is FrameKind.BATCH
    ]
    if any(number >= node.maker.state.sequence for number in numbers):
        raise Broken("it would use the number of a batch again")


def check_chain(node, image):
    """What was told is there, and the state is what the blocks lead to."""
    told = {item[1]: item[2:] for item in image.seen if item[0] == "told"}
    tip = node.disk.tip
    if tip.height != node.disk.blocks.height or tip.height < max(told, default=0):
        raise Broken(f"state {tip.height}, blocks {node.disk.blocks.height}, told {max(told)}")
    for height, (digest, root) in told.items():
        block = node.writer.read_block(height)
        if block_hash(block.block.header, SUITE) != digest:
            raise Broken(f"another block {height}")
        if height == tip.height and tip.state_root != root:
            raise Broken(f"another state at {height}")


def lost_bodies(node):
    """Bodies that the log names and the disk does not have: they were never synced."""
    named = [one for one in node.log.recovered.entries if isinstance(one, LoggedBatch)]
    return [one for one in named if node.pool.body(one.place) is None]


def check_bodies(node, image):
    """A vote for a block said "I hold all of it"."""
    voted = any(
        isinstance(signed.message, Vote)
        and signed.message.height == node.height + 1
        and signed.message.value is not None
        for signed in own(image)
    )
    if voted and lost_bodies(node):
        raise Broken("a body it answered for is lost")


async def check_replay(life, node, image):
    """The core knows again what it knew, and nothing is signed that contradicts what left."""
    recovered, driver = node.log.recovered, node.driver
    key = (recovered.ended.height, len(recovered.entries))
    before = {position_of(one.message): one for one in own(image)}
    for name in NAMES:
        driver._gate.hear(name, node.height)
    if not driver._open_gate():
        raise Broken("its gate stays closed")
    if driver._gate.voting_from > node.height + 1:
        raise Broken(f"quarantine until {driver._gate.voting_from} after an honest crash")
    try:
        driver._resume()
    except KanglianError as error:
        raise Broken(f"it cannot resume: {error}") from error
    known = life.cores.get(key)
    if (
        known is not None
        and recovered.entries
        and not recovered.is_mended
        and not lost_bodies(node)
        and view(driver.core) != known
    ):
        raise Broken(f"its core knows {view(driver.core)} instead of {known}")
    await driver._settle()
    for kind, payload in node.sent:
        signed = None
        if kind is FrameKind.VOTE:
            signed = wire.signed_vote(wire.VOTE.decode(payload))
        elif kind is FrameKind.PROPOSAL:
            signed = wire.signed_proposal(wire.PROPOSAL.decode(payload))
        if signed is not None:
            check_slot(before, signed)
            value = signed.message.value
            if value is not None and node.candidates.missing(value):
                raise Broken("it signs for a block whose bodies it lacks")
    for place in before:
        if place.height == node.height + 1 and place > driver._signer.last:
            raise Broken(f"it could sign {place} again")


def check_slot(before, signed):
    place = position_of(signed.message)
    if place in before and before[place].message != signed.message:
        raise Broken(f"it signs {signed.message} after {before[place].message}")
    is_vote = isinstance(signed.message, Vote) and signed.message.kind in VoteKind
    before[place] = signed if is_vote else before.get(place, signed)
