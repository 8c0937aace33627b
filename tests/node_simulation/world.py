"""One simulated network of whole nodes: from a seed, or by a short script with one death in it.

A seed draws how many nodes, their clocks, the load and the faults. When the faults stop, all nodes
run and every good transaction of the clients must come to its end; then all nodes are shut down and
nothing of them may be left.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import trio

from contracts.changes import Change
from ledger.codec import encode
from ledger.store import bodies
from ledger.transaction import Call
from node import wal
from tests.unit.ledger.worlds import key
from tests.unit.node_core.chains import (
    ADMIN,
    CENTRE,
    CLINIC,
    NEWCOMERS,
    make_transaction,
    node_name,
)

from . import scheduler
from .checker import Checker, Violation
from .clients import Clients
from .machine import KEPT, Machine
from .network import Network

FAULTY_S = 12
SETTLE_S = 240
VICTIM = 2
ALL_MEMBERS = 4


@dataclass(frozen=True)
class Result:
    """What came of a run; equal for equal seeds."""

    seed: int
    violation: str
    trace: bytes
    simulated_s: float
    blocks: int = 0
    transactions: int = 0
    cancellations: int = 0
    power_cuts: int = 0
    restarts: int = 0
    faults: int = 0
    steps: int = 0
    victim_steps: int = 0


@contextmanager
def small_files() -> Iterator[None]:
    """Logs rotate and segments end within a few blocks."""
    sizes = {"LOG_ROTATE_BYTES": 20_000, "LOG_BUFFER_BYTES": 1_500, "LOG_RESERVE_BYTES": 4_096}
    with patch.multiple(wal, **sizes), patch.object(bodies, "SEGMENT_BYTES", 6_000):
        yield


class World:
    """Machines, the network between them, clients, and the one who breaks things."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"node simulation {seed}")
        self.steps = scheduler.Steps()
        self.checker = Checker()
        self.clients = Clients(random.Random(f"clients {seed}"))
        self.nodes = nodes
        self.machines: list[Machine] = []
        self.network = Network(self.machines, random.Random(f"links {seed}"))
        self.cancellations = self.power_cuts = self.restarts = self.faults = 0
        self.simulated_s = 0.0
        self.victim_steps = 0
        self._nursery: trio.Nursery | None = None

    async def start(self, nursery: trio.Nursery, most_skew_ms: int = 0) -> None:
        """Make all machines; each starts a little later than the one before."""
        self._nursery = nursery
        for index in range(self.nodes):
            skew_ms = self.rng.randint(-most_skew_ms, most_skew_ms)
            self.machines.append(Machine(index, skew_ms, self.checker.watch))
        for machine in self.machines:
            nursery.start_soon(machine.live, self._changed)
            if most_skew_ms and self.rng.random() < 0.3:
                await trio.sleep(self.rng.uniform(0.0, 2.0))
        nursery.start_soon(self.network.run)

    def _changed(self, machine: Machine) -> None:
        self.checker.note("up" if machine.is_up else "down", machine.index)
        self.network.forget(machine)

    async def restart(self, machine: Machine, after_s: float) -> None:
        """Start a node that is ending or has ended."""
        await machine.ended.wait()
        self.steps.forget(machine.index)
        await trio.sleep(after_s)
        self.restarts += 1
        machine.renew()
        self._nursery.start_soon(machine.live, self._changed)

    def kill(self, machine: Machine, kept: str | None, *, names: bool) -> None:
        """Before the next step of a node's tasks: cancelled, or without power."""
        self.checker.note("kill", machine.index, kept, names)
        if kept is None:
            self.cancellations += 1
            machine.cancel()
        else:
            self.power_cuts += 1
            machine.cut_power(kept, names=names)

    async def settle(self) -> None:
        """Without faults every good transaction of the clients comes to its end everywhere."""
        self.network.heal()
        self.network.weather.delay_s = (0.002, 0.008)
        self.network.weather.duplicate = self.network.weather.reorder = 0.0
        with trio.move_on_after(SETTLE_S) as limit:
            while not (self._is_settled() and self._is_equal()):
                self._send_open()
                await trio.sleep(2)
        if limit.cancelled_caught:
            where = [machine.chain.tip.height for machine in self.machines]
            raise Violation(f"no end within {SETTLE_S} s: heights {where}, {self._open()} open")
        for machine in self.machines:
            self.checker.compare(machine)
            self.checker.check_told(machine)
        self.clients.check_admitted()

    def _open(self) -> int:
        return sum(not self._has_ended(name) for name in self.clients.good)

    def _has_ended(self, name: bytes) -> bool:
        chain = self.machines[0].chain
        body = self.clients.good[name].body
        return chain.state.locate(name) is not None or body.valid_until < chain.tip.time

    def _is_settled(self) -> bool:
        return self._open() == 0 and all(machine.is_up for machine in self.machines)

    def _is_equal(self) -> bool:
        return len({machine.chain.tip.height for machine in self.machines}) == 1

    def _send_open(self) -> None:
        machine = self.rng.choice(self.machines)
        if not machine.is_up:
            return
        for name, transaction in self.clients.good.items():
            if not self._has_ended(name):
                self.clients.send(machine, transaction)
        if self._open() == 0:  # one more block makes laggards notice
            self.clients.send(machine, self.clients.make(machine.node.clock.now_ms()))

    async def shut_down(self, nursery: trio.Nursery) -> None:
        """All nodes end; nothing stays behind."""
        for machine in self.machines:
            machine.cancel()
        for machine in self.machines:
            await machine.ended.wait()
        nursery.cancel_scope.cancel()

    def result(self, violation: str) -> Result:
        chain = self.machines[0].chain if self.machines else None
        return Result(
            seed=self.seed,
            violation=violation,
            trace=self.checker.trace,
            simulated_s=self.simulated_s,
            blocks=0 if chain is None else chain.tip.height,
            transactions=0 if chain is None else chain.tip.transactions,
            cancellations=self.cancellations,
            power_cuts=self.power_cuts,
            restarts=self.restarts,
            faults=self.faults,
            steps=sum(self.steps.taken.values()),
            victim_steps=self.victim_steps,
        )

    def run(self, plot) -> Result:
        """Run a plot from start to shutdown."""

        async def main():
            before = trio.lowlevel.current_statistics().tasks_living
            try:
                async with trio.open_nursery() as nursery:
                    await plot(self, nursery)
                    await self.settle()
                    await self.shut_down(nursery)
            finally:
                self.simulated_s = trio.current_time()
            left = trio.lowlevel.current_statistics().tasks_living - before
            if left:
                raise Violation(f"{left} tasks are left")
            # It is gone if one of its actions failed.
            trio.lowlevel.remove_instrument(self.steps)

        with small_files():
            try:
                scheduler.run(main, self.seed, self.steps)
            except (Exception, ExceptionGroup) as error:  # noqa: BLE001 - whatever escapes is a find
                return self.result(" / ".join(dict.fromkeys(_leaves(error))))
        return self.result("")


def _leaves(error: BaseException) -> Iterator[str]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
        return
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = "" if place is None else f"{place.tb_frame.f_code.co_name}:{place.tb_lineno}"
    yield f"{type(error).__name__} in {where}: {error}"


async def troubled(world: World, nursery: trio.Nursery) -> None:
    """Load and faults for a while, as the seed draws them."""
    rng = world.rng
    await world.start(nursery, most_skew_ms=rng.choice((0, 50, 200)))
    async with trio.open_nursery() as trouble:
        trouble.start_soon(_load, world)
        trouble.start_soon(_faults, world, trouble)
        if world.nodes > ALL_MEMBERS:
            trouble.start_soon(_vote_in, world)
        await trio.sleep(FAULTY_S)
        trouble.cancel_scope.cancel()
    for machine in world.machines:
        world.steps.forget(machine.index)
        if machine.is_dying or machine.ended.is_set():
            nursery.start_soon(world.restart, machine, 0.0)


async def _load(world: World) -> None:
    rng = world.rng
    while True:
        await trio.sleep(rng.expovariate(4))
        up = [machine for machine in world.machines if machine.is_up]
        if up:
            world.clients.act(rng.choice(up))


async def _faults(world: World, trouble: trio.Nursery) -> None:
    rng, weather = world.rng, world.network.weather
    while True:
        await trio.sleep(rng.expovariate(1.2))
        world.faults += 1
        fault = rng.choice(("kill", "kill", "kill", "cut", "heal", "slow", "mess", "clock", "calm"))
        world.checker.note("fault", fault)
        if fault == "kill":
            machine = rng.choice(world.machines)
            if machine.is_up and not machine.is_doomed:
                machine.is_doomed = True
                kept = rng.choice((None, None, *KEPT))
                steps = int(rng.expovariate(1 / 60))
                trouble.start_soon(_die, world, machine, steps, kept, rng.random() < 0.5)
        elif fault == "cut":
            for _ in range(rng.randint(1, world.nodes)):
                one, other = sorted(rng.sample(range(world.nodes), 2))
                world.network.cut((one, other))
        elif fault == "heal":
            world.network.heal()
        elif fault == "slow":
            weather.delay_s = (0.001, rng.choice((0.02, 0.2, 1.0)))
        elif fault == "mess":
            weather.duplicate, weather.reorder = rng.random() / 2, rng.random() / 2
        elif fault == "clock":
            rng.choice(world.machines).jump(rng.randint(-200, 200))
        else:
            weather.delay_s, weather.duplicate, weather.reorder = (0.002, 0.008), 0.0, 0.0


async def _die(world: World, machine: Machine, steps: int, kept: str | None, names: bool) -> None:
    """A node dies after some steps of its tasks, and is started again after a while."""
    world.steps.act_after(machine.index, steps, lambda: world.kill(machine, kept, names=names))
    await machine.ended.wait()
    await world.restart(machine, world.rng.choice((0.0, 0.3, 3.0)))


async def _vote_in(world: World) -> None:
    """Client governance: the nodes beyond the first four become validators, if it comes through."""
    changes = tuple(
        Change(
            "add",
            node_name(name),
            name=name.replace(" ", "_"),
            key=key(name),
            organisation="hospital",
            role="master",
        )
        for name in NEWCOMERS[: world.nodes - ALL_MEMBERS]
    )

    def call(by, method, nonce, *arguments):
        what = Call("membership", method, encode(arguments))
        return make_transaction(what, nonce, by=by, module="system", is_signed=True)

    await trio.sleep(1)
    offer = call(ADMIN, "propose", 1_000_000, changes, "")
    votes = [call(by, "vote", 1_000_001, offer.id) for by in (CLINIC, CENTRE)]
    for transaction in (offer, *votes):
        world.clients.good[transaction.id] = transaction
        while world.machines[0].chain.state.locate(transaction.id) is None:
            if world.machines[0].is_up:
                world.clients.send(world.machines[0], transaction)
            await trio.sleep(1)


def run_seed(seed: int) -> Result:
    """The run of a seed."""
    nodes = random.Random(f"size {seed}").choice((4, 4, 4, 5, 7))
    return World(seed, nodes).run(troubled)


def run_script(number: int | None, *, without_power: bool = False) -> Result:
    """A short script in which one node dies before its step `number`, and comes back.

    Without a number nothing dies; the result says how many steps there are to die at.
    """

    async def script(world: World, nursery: trio.Nursery) -> None:
        await world.start(nursery)
        victim = world.machines[VICTIM]
        if number is not None:
            nursery.start_soon(_die_once, world, victim)
        for index in range(4):
            await trio.sleep(0.4)
            machine = world.machines[(VICTIM + index) % 4]
            if machine.is_up:
                transaction = world.clients.make(machine.node.clock.now_ms())
                world.clients.good[transaction.id] = transaction
                world.clients.send(machine, transaction)
        await trio.sleep(1)
        world.victim_steps = world.steps.taken[VICTIM]
        world.steps.forget(VICTIM)

    async def _die_once(world: World, victim: Machine) -> None:
        kept = KEPT[number % len(KEPT)] if without_power else None
        world.steps.act_after(
            VICTIM, number, lambda: world.kill(victim, kept, names=number % 2 == 0)
        )
        await victim.ended.wait()
        await world.restart(victim, 0.0)

    return World(0, 4).run(script)
