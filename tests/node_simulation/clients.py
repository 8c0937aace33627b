"""Clients: they send good transactions, the same ones twice, expired and forged ones, anywhere.

A good one is sent again, to another node, until the chain has it or its time is over. Whoever sent
it waits for the answer at the node that took it, or gives up. Strangers call at the other door, the
one for nodes, and must be sent away.
"""

import random
from dataclasses import dataclass
from hashlib import sha256

import trio

from ledger.crypto.keys import KeyType, public_key
from ledger.errors import PeerProtocolError, Reason, Rejected, UnavailableError
from ledger.ids import Address, GenesisHash, GroupId, Height
from ledger.transaction import Transaction
from p2p.hello import Handshake, HelloIdentity, LinkFacts
from p2p.network import HELLO_TIMEOUT_S, shake_hands
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, TIME, make_transaction, register

from .checker import Checker, fail
from .machine import NAMES, Machine
from .network import PORT, MachineTransport, Network, certificate_of, host_of

ASKED = 3
"""Of so many transactions all nodes are asked at the end."""
SECRET = sha256(b"a stranger").digest()
STRANGER = Address(sha256(b"the address of a stranger").digest())


@dataclass
class Admitted:
    """A node took a transaction in one of its lives."""

    machine: Machine
    life: int
    transaction: Transaction


class Clients:
    """All of them."""

    def __init__(self, rng: random.Random, checker: Checker) -> None:
        self._rng = rng
        self._checker = checker
        self.good: dict[bytes, Transaction] = {}
        self.admitted: list[Admitted] = []
        self.numbers = 0
        self._waiting: dict[tuple[int, int, bytes], Machine] = {}

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
        now_ms = machine.clock.now_ms()
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
        life = machine.life
        (answer,) = await machine.node.submit([wire], "client")
        if not machine.speaks or isinstance(answer, UnavailableError):
            return
        if isinstance(answer, Rejected):
            if answer.reason not in (refusal, Reason.EXPIRED, Reason.DISK_LOW):
                fail(f"{machine.index} refused with {answer}, not {refusal}")
        elif good is None:
            fail(f"{machine.index} took what is {refusal}")
        else:
            self.admitted.append(Admitted(machine, life, good))
            await self._wait(machine, good.id)

    async def _wait(self, machine: Machine, name: bytes) -> None:
        """Until the node tells the height; every third client loses patience."""
        waiter = (machine.index, machine.life, name)
        if waiter in self._waiting:
            return
        patience_s = self._rng.uniform(0.01, 2.0) if self._rng.random() < 0.3 else float("inf")
        self._waiting[waiter] = machine
        try:
            with trio.move_on_after(patience_s):
                found = await machine.node.wait_committed(name)
                if machine.speaks:
                    self._checker.hear(machine, name, found.block_height)
        finally:
            del self._waiting[waiter]

    def check_waiting(self) -> None:
        """Nobody waits for what has happened."""
        for (index, _, name), machine in self._waiting.items():
            place = machine.state.locate(name)
            if place is not None:
                fail(f"{index} does not tell that {name.hex()} is at {place.height}")

    async def check_answers(self, machines: list[Machine]) -> None:
        """All nodes say the same of what was committed, whatever they went through."""
        for name in list(self._checker.told)[-ASKED:]:
            found = [await machine.node.transaction(name) for machine in machines]
            # Transactions are compared by identity, but their bytes are the same.
            alike = {
                one and (one.transaction.wire, one.block_height, one.index, one.receipts)
                for one in found
            }
            if len(alike) != 1 or None in alike:
                fail(f"nodes say different things of {name.hex()}")

    def check_pools(self, machine: Machine, time_ms: int) -> None:
        """Nothing waits for a block that was in one, or that expired at this time of the chain."""
        state = machine.state
        for name, transaction in self.good.items():
            if not machine.node.is_pending(name):
                continue
            if state.locate(name) is not None or transaction.body.valid_until < time_ms:
                fail(f"{machine.index} keeps {name.hex()}, which came to its end")

    def check_admitted(self) -> None:
        """What a node took and still remembers waits, is committed or is expired."""
        for one in self.admitted:
            machine = one.machine
            if machine.node is None or machine.life != one.life:
                continue
            name, state = one.transaction.id, machine.state
            is_past = one.transaction.body.valid_until < state.tip.time
            is_here = machine.node.is_pending(name) or state.locate(name) is not None
            if not is_here and not is_past:
                fail(f"{machine.index} lost the admitted {name.hex()}")


class Strangers:
    """Callers that no node may link with: silent ones, babblers, and such as show a certificate."""

    def __init__(self, rng: random.Random, network: Network) -> None:
        self._rng, self._network = rng, network
        self.turned_away = 0

    async def call(self, machine: Machine) -> None:
        """Dial a node, say something, and be sent away while it lives."""
        kind = self._rng.choice(("silent", "babbling", "stranger", "impostor"))
        pretended = NAMES[(machine.index + 1) % 4] if kind == "impostor" else STRANGER
        transport = MachineTransport(self._network, None, certificate_of(pretended))
        life = machine.life
        try:
            connection = await transport.dial(host_of(machine.index), PORT)
        except UnavailableError:
            return
        stream = connection.stream
        try:
            with trio.move_on_after(2 * HELLO_TIMEOUT_S):
                if kind == "babbling":
                    await stream.send_all(self._rng.randbytes(self._rng.randint(1, 10_000)))
                elif kind != "silent":
                    facts = LinkFacts(transport.own_certificate, connection.certificate, None)
                    await shake_hands(stream, self._handshake(pretended, facts))
                while await stream.receive_some():
                    pass
        except (PeerProtocolError, trio.BrokenResourceError):
            pass
        else:
            is_waiting = stream.incoming.end_at > trio.current_time()
            if is_waiting and machine.is_up and machine.life == life:
                fail(f"{machine.index} does not send away who is {kind}")
        finally:
            await trio.aclose_forcefully(stream)
        self.turned_away += 1

    def _handshake(self, address: Address, facts: LinkFacts) -> Handshake:
        identity = HelloIdentity(
            genesis_hash=GenesisHash(CHAIN.genesis_hash),
            group=GroupId(CHAIN.group),
            address=address,
            role="master",
            digest=SUITE.digest,
            sign=lambda digest: SUITE.sign(SECRET, digest),
            verify=lambda _key, _statement, _signature: True,
            is_allowed=lambda _address: public_key(KeyType.SECP256K1, SECRET),
            is_revoked=lambda _hash: False,
        )
        return Handshake(identity, facts, nonce=self._rng.randbytes(32), height=Height(0))
