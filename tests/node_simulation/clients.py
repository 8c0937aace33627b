"""Clients: they send good transactions, the same ones twice, expired and forged ones, anywhere.

A good one is sent again, to another node, until the chain has it or its time is over.
"""

import random
from dataclasses import dataclass

from ledger.errors import Reason, Rejected
from ledger.transaction import Transaction
from tests.unit.node_core.chains import TIME, make_transaction, register

from .checker import Violation
from .machine import Machine


@dataclass
class Admitted:
    """A node took a transaction in one of its lives."""

    machine: Machine
    life: int
    transaction: Transaction


class Clients:
    """All of them."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.good: dict[bytes, Transaction] = {}
        self.admitted: list[Admitted] = []
        self.numbers = 0
        self.refused = 0

    def make(self, now_ms: int, valid_ms: int = 500_000) -> Transaction:
        """A new registration."""
        self.numbers += 1
        return make_transaction(
            register(self.numbers),
            self.numbers,
            is_signed=True,
            valid_until=max(TIME, now_ms) + valid_ms,
        )

    def act(self, machine: Machine) -> None:
        """One client sends something to a node."""
        now_ms = machine.node.clock.now_ms()
        kind = self._rng.choice(("new", "new", "new", "twice", "short", "expired", "forged"))
        if kind == "twice" and self.good:
            self.send(machine, self._rng.choice(list(self.good.values())))
            return
        if kind == "expired":
            self._send(machine, self.make(now_ms, -2_000).wire, Reason.EXPIRED)
        elif kind == "forged":
            wire = bytearray(self.make(now_ms).wire)
            wire[-2] ^= 1
            self._send(machine, bytes(wire), Reason.BAD_SIGNATURE)
        else:
            transaction = self.make(now_ms, 3_000 if kind == "short" else 500_000)
            self.good[transaction.id] = transaction
            self.send(machine, transaction)

    def send(self, machine: Machine, transaction: Transaction) -> None:
        machine.spawn(self._submit, machine, transaction.wire, transaction, None)

    def _send(self, machine: Machine, wire: bytes, reason: Reason) -> None:
        machine.spawn(self._submit, machine, wire, None, reason)

    async def _submit(
        self, machine: Machine, wire: bytes, good: Transaction | None, refusal: Reason | None
    ) -> None:
        """As `Node.submit`."""
        node, life = machine.node, machine.life
        if node.sync.is_behind or not node.maker.is_author:
            return
        (answer,) = await node.admission.admit([wire], "client")
        node.maker.notify()
        if not machine.speaks:
            return
        if isinstance(answer, Rejected):
            self.refused += 1
            if answer.reason not in (refusal, Reason.EXPIRED):
                raise Violation(f"{machine.index} refused with {answer}, not {refusal}")
        elif good is None:
            raise Violation(f"{machine.index} took what is {refusal}")
        else:
            self.admitted.append(Admitted(machine, life, good))

    def check_admitted(self) -> None:
        """What a node took and still remembers waits, is committed or is expired."""
        for one in self.admitted:
            node = one.machine.node
            if node is None or one.machine.life != one.life:
                continue
            name, tip = one.transaction.id, one.machine.chain.tip
            is_past = one.transaction.body.valid_until < tip.time
            is_here = name in node.mempool or one.machine.chain.state.locate(name) is not None
            if not is_here and not is_past:
                raise Violation(f"{one.machine.index} lost the admitted {name.hex()}")
