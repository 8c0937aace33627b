"""What must hold of all nodes together, at every block, at every frame and at the end.

No two blocks or states of a height; no two votes of a node for one height, round and step; nobody
accuses, nobody blames a node for what only a liar does; what a client was told stays true; whoever
voted for a block remembers it, and holds all of the block, on a disk that lost its power.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import trio

from consensus.messages import Proposal
from ledger.batch import batch_digest, decode_batch
from ledger.block import BLOCK
from ledger.ids import Address
from node import wire
from node.journal import own_messages
from node.log_entries import entries_of
from p2p.frames import FrameKind
from p2p.scoring import Offence
from tests.unit.ledger.worlds import SUITE

from .machine import BODIES, LOG, Machine

HARMLESS = (Offence.STALE, Offence.FRUITLESS)
WORST = "nothing"
PROPOSED = 0


class Violation(Exception):
    """A promise was broken."""


def fail(problem: str) -> None:
    """Say what was broken."""
    raise Violation(problem)


class Checker:
    """Sees everything; also hashes it, so that two runs can be compared."""

    def __init__(self) -> None:
        self._trace = hashlib.sha256()
        self._tips: dict[int, Any] = {}
        self._signed: dict[tuple[Any, ...], Any] = {}
        self._batches: dict[bytes, bytes] = {}
        self._blocks: dict[bytes, tuple[bytes, ...]] = {}
        self._lost: list[str] = []
        self.told: dict[bytes, int] = {}
        """Height by id of every transaction that some node executed, or said was committed."""

    @property
    def trace(self) -> bytes:
        return self._trace.digest()

    def note(self, *facts: Any) -> None:
        """Something happened."""
        moment = round(trio.current_time() * 1_000_000)
        self._trace.update(repr((moment, *facts)).encode())

    def watch(self, machine: Machine) -> None:
        """Look at a new node: at all that it hands to its network, and at its blocks."""
        network = machine.node._network
        broadcast, send, blame = network.broadcast, network.send, network.blame

        def say(kind, payload):
            self._see(machine, kind, payload)
            return broadcast(kind, payload)

        def tell(address, kind, payload):
            self._see(machine, kind, payload)
            return send(address, kind, payload)

        router = machine.node._router
        connected = router.on_connected

        def link(peer):
            if peer._connection.stream.is_with_stranger:
                fail(f"{machine.index} links with a stranger as {peer.address.hex()[:8]}")
            connected(peer)

        router.on_connected = link
        network.broadcast, network.send = say, tell
        network.blame = lambda *what: self._blamed(machine, blame, what)
        machine.node._writer.on_block(lambda block: self._decided(machine, block))

    def _blamed(self, machine: Machine, blame: Any, what: tuple[Address, Offence, str]) -> None:
        self.note("blame", machine.index, *what)
        if what[1] not in HARMLESS:
            fail(f"{machine.index} blames {what[0].hex()[:8]}: {what[1]}, {what[2]}")
        blame(*what)

    def _see(self, machine: Machine, kind: FrameKind, payload: bytes) -> None:
        if not machine.speaks:
            return
        self.note("sent", machine.index, int(kind))
        if kind is FrameKind.VOTE:
            vote = wire.VOTE.decode(payload)
            self._sign(machine, (vote.height, vote.round, vote.kind), vote.block_hash)
        elif kind is FrameKind.PROPOSAL:
            offer = wire.PROPOSAL.decode(payload)
            self._blocks[offer.block_hash] = BLOCK.decode(offer.block).batches
            self._sign(
                machine, (offer.height, offer.round, PROPOSED), offer.block_hash, offer.valid_round
            )
        elif kind is FrameKind.BATCH:
            self._batches[batch_digest(decode_batch(payload).header, SUITE)] = payload

    def _sign(self, machine: Machine, place: tuple[int, ...], *content: Any) -> None:
        before = self._signed.setdefault((machine.index, *place), content)
        if before != content:
            fail(f"{machine.index} signed twice at {place}: {before} and {content}")

    def _decided(self, machine: Machine, block: Any) -> None:
        if not machine.speaks:
            return
        self.compare(machine)
        for batch in block.batches:
            for transaction in batch.transactions:
                self.told.setdefault(transaction.id, block.header.height)

    def hear(self, machine: Machine, name: bytes, height: int) -> None:
        """A client was told that its transaction is committed."""
        self.note("told", machine.index, name, height)
        if self.told.setdefault(name, height) != height:
            fail(f"{machine.index} tells {name.hex()} is at {height}, not {self.told[name]}")

    def compare(self, machine: Machine) -> None:
        """The newest state of a node is that of all."""
        tip = machine.tip
        self.note("tip", machine.index, tip)
        before = self._tips.setdefault(tip.height, tip)
        if before != tip:
            fail(f"{machine.index} has {tip}, another node {before}")

    def check_told(self, machine: Machine) -> None:
        """Nothing that was acknowledged is lost."""
        state = machine.state
        for name, height in self.told.items():
            place = state.locate(name)
            if place is None or place.height != height:
                fail(f"{machine.index} has {name.hex()} at {place}, it was told {height}")

    def look_at_power_cut(self, machine: Machine) -> None:
        """What was signed is remembered, also in the worst that a disk may make of a cut.

        A vote stands in the log, and says "I hold all of it". An instrument of trio calls this, so
        what is found waits for `check_power_cuts`.
        """
        image = machine.storage.wreck.image(WORST, names=False)
        stored = 0 if machine.tip is None else machine.tip.height
        bodies = b"".join(data for path, data in image.files.items() if path.parent == BODIES)
        logged = set(_places(image.files.get(LOG, b"")))
        for (index, *place), content in self._signed.items():
            if index != machine.index or place[0] <= stored:
                continue
            if tuple(place) not in logged:
                self._lost.append(f"{index} forgot what it signed at {place}")
            for digest in () if content[0] is None else self._blocks[content[0]]:
                if self._batches[digest] not in bodies:
                    self._lost.append(f"{index} lost a body of {place}, where it voted for it")

    def check_power_cuts(self) -> None:
        """No power cut took what was promised."""
        if self._lost:
            fail(self._lost[0])


def _places(log: bytes) -> Iterator[tuple[int, int, int]]:
    """Height, round and step of everything that a log says its node signed."""
    for signed in own_messages(entry for _, entry in entries_of(log)):
        message = signed.message
        step = PROPOSED if isinstance(message, Proposal) else int(message.kind)
        yield message.height, message.round, step
