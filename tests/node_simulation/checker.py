"""What must hold of all nodes together, at every block, at every frame and at the end.

No two blocks or states of a height; no two votes of a node for one height, round and step; nobody
accuses, nobody blames a node for what only a liar does; what a client was told stays true.
"""

import hashlib
from typing import Any

import trio

from ledger.ids import Address
from node import wire
from p2p.frames import FrameKind
from p2p.scoring import Offence

from .machine import Machine

HARMLESS = (Offence.STALE, Offence.FRUITLESS)


class Violation(Exception):
    """A promise was broken."""


class Checker:
    """Sees everything; also hashes it, so that two runs can be compared."""

    def __init__(self) -> None:
        self._trace = hashlib.sha256()
        self._tips: dict[int, Any] = {}
        self._signed: dict[tuple[Any, ...], Any] = {}
        self.told: dict[bytes, int] = {}
        """Height by id of every transaction that some node said was committed."""
        self.votes = 0

    @property
    def trace(self) -> bytes:
        return self._trace.digest()

    def note(self, *facts: Any) -> None:
        """Something happened."""
        moment = round(trio.current_time() * 1_000_000)
        self._trace.update(repr((moment, *facts)).encode())

    def watch(self, machine: Machine) -> None:
        """Look at a new node."""
        node, broadcast, send, blame = (
            machine.node,
            machine.node.broadcast,
            machine.node.send,
            machine.node.blame,
        )

        def say(kind, payload):
            self._see(machine, kind, payload)
            return broadcast(kind, payload)

        def tell(address, kind, payload):
            self._see(machine, kind, payload)
            return send(address, kind, payload)

        node.broadcast, node.send = say, tell
        node.sync.fetch._send = node.sync._send = tell
        node.on_accused = lambda evidence: self._fail(f"{machine.index} accuses: {evidence}")
        node.sync._blame = node.router._blame = lambda *what: self._blamed(machine, blame, what)
        node.writer.on_block(lambda block: self._decided(machine, block))

    def _fail(self, problem: str) -> None:
        raise Violation(problem)

    def _blamed(self, machine: Machine, blame: Any, what: tuple[Address, Offence, str]) -> None:
        self.note("blame", machine.index, *what)
        if what[1] not in HARMLESS:
            self._fail(f"{machine.index} blames {what[0].hex()[:8]}: {what[1]}, {what[2]}")
        blame(*what)

    def _see(self, machine: Machine, kind: FrameKind, payload: bytes) -> None:
        if not machine.speaks:
            return
        self.note("sent", machine.index, int(kind), payload)
        if kind is FrameKind.VOTE:
            vote = wire.VOTE.decode(payload)
            self._sign(machine, (vote.height, vote.round, vote.kind), vote.block_hash)
        elif kind is FrameKind.PROPOSAL:
            offer = wire.PROPOSAL.decode(payload)
            content = (offer.block_hash, offer.valid_round)
            self._sign(machine, (offer.height, offer.round, 0), content)

    def _sign(self, machine: Machine, place: tuple[int, ...], content: Any) -> None:
        self.votes += 1
        before = self._signed.setdefault((machine.index, *place), content)
        if before != content:
            self._fail(f"{machine.index} signed twice at {place}: {before} and {content}")

    def _decided(self, machine: Machine, block: Any) -> None:
        if not machine.speaks:
            return
        self.compare(machine)
        for batch in block.batches:
            for transaction in batch.transactions:
                self.told.setdefault(transaction.id, block.header.height)

    def compare(self, machine: Machine) -> None:
        """The newest state of a node is that of all."""
        tip = machine.chain.tip
        self.note("tip", machine.index, tip)
        before = self._tips.setdefault(tip.height, tip)
        if before != tip:
            self._fail(f"{machine.index} has {tip}, another node {before}")

    def check_told(self, machine: Machine) -> None:
        """Nothing that was acknowledged is lost."""
        for name, height in self.told.items():
            place = machine.chain.state.locate(name)
            if place is None or place.height != height:
                self._fail(f"{machine.index} has {name.hex()} at {place}, it was told {height}")
