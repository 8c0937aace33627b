"""One simulated network of whole nodes: from a seed, or by a short script with one death in it.

A seed draws how many nodes, their clocks, the load and the faults. When the faults stop, all nodes
run, must find each other again, and every good transaction of the clients must come to its end and
be told; then all nodes are shut down and nothing of them may be left.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest.mock import patch

import trio

from contracts.changes import Change
from ledger.codec import encode
from ledger.limits import MIB
from ledger.store import bodies
from ledger.transaction import Call, Transaction
from node import scrub_task, wal
from node.evidence import EvidenceKeeper
from tests.unit.ledger.worlds import Signer, key
from tests.unit.node_core.chains import (
    ADMIN,
    CENTRE,
    CLINIC,
    NEWCOMERS,
    make_transaction,
    node_name,
)

from . import scheduler
from .checker import Checker, Violation, fail
from .clients import Clients, Strangers
from .machine import KEPT, Machine, MachineClock, config_of
from .network import MachineTransport, Network, certificate_of

FAULTY_S = 10
SETTLE_S = 240
SOON_S = 1.5
"""Within so long whoever waits for what is executed is told, and what has expired is forgotten."""
VICTIM = 2
ALL_MEMBERS = 4
LITTLE_BYTES = 100 * MIB
SCRUB_CYCLE_MS = 30_000
"""So long the scrub of a node takes for everything: it is done once or twice in a run."""


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
def hurried() -> Iterator[None]:
    """Logs rotate, segments end and scrubs come round within a few blocks; nobody may accuse."""
    sizes = {"LOG_ROTATE_BYTES": 20_000, "LOG_BUFFER_BYTES": 1_500, "LOG_RESERVE_BYTES": 4_096}
    with (
        patch.multiple(wal, **sizes),
        patch.object(bodies, "SEGMENT_BYTES", 6_000),
        patch.object(scrub_task, "SCRUB_CYCLE_MS", SCRUB_CYCLE_MS),
        patch.object(
            EvidenceKeeper, "keep", lambda _keeper, evidence: fail(f"accused: {evidence}")
        ),
    ):
        yield


class World:
    """Machines, the network between them, clients, and the one who breaks things."""

    def __init__(self, seed: int, nodes: int) -> None:
        self.seed = seed
        self.rng = random.Random(f"node simulation {seed}")
        self.steps = scheduler.Steps()
        self.checker = Checker()
        self.clients = Clients(random.Random(f"clients {seed}"), self.checker)
        self.nodes = nodes
        self.machines: list[Machine] = []
        links = random.Random(f"links {seed}")
        self.network = Network(self.machines, links, self.checker.note)
        self.strangers = Strangers(random.Random(f"strangers {seed}"), self.network)
        self.cancellations = self.power_cuts = self.restarts = self.faults = 0
        self.simulated_s = 0.0
        self.victim_steps = 0
        self._nursery: trio.Nursery | None = None

    async def start(self, nursery: trio.Nursery, most_skew_ms: int = 0) -> None:
        """Make all machines; each starts a little later than the one before."""
        self._nursery = nursery
        for index in range(self.nodes):
            clock = MachineClock(self.rng.randint(-most_skew_ms, most_skew_ms))
            rng = random.Random(f"machine {index} of {self.seed}")
            config = config_of(index, self.nodes)
            machine = Machine(index, config, clock, rng, self.checker.watch)
            machine.transport = MachineTransport(
                self.network, machine, certificate_of(machine.address)
            )
            self.machines.append(machine)
        for machine in self.machines:
            nursery.start_soon(machine.live, self._changed)
            if most_skew_ms and self.rng.random() < 0.3:
                await trio.sleep(self.rng.uniform(0.0, 2.0))

    def _changed(self, machine: Machine) -> None:
        self.checker.note("up" if machine.is_up else "down", machine.index)

    async def restart(self, machine: Machine, after_s: float) -> None:
        """Start a node that is ending or has ended."""
        await machine.ended.wait()
        self.steps.forget(machine.index)
        await trio.sleep(after_s)
        self.restarts += 1
        if not machine.has_power:
            self.network.rebooted(machine)
        machine.renew()
        self._nursery.start_soon(machine.live, self._changed)

    def invite_stranger(self, machine: Machine) -> None:
        """Somebody calls who does not belong here; it may stay longer than the trouble lasts."""
        self._nursery.start_soon(self.strangers.call, machine)

    def kill(self, machine: Machine, kept: str | None, *, names: bool) -> None:
        """Before the next step of a node's tasks: cancelled, or without power."""
        self.checker.note("kill", machine.index, kept, names)
        if kept is None:
            self.cancellations += 1
            machine.cancel()
        else:
            self.power_cuts += 1
            self.checker.look_at_power_cut(machine)
            machine.cut_power(kept, names=names)

    async def settle(self) -> None:
        """Without faults every good transaction of the clients comes to its end everywhere."""
        self.network.heal()
        self.calm()
        for machine in self.machines:
            machine.usage.free = machine.usage.total
        with trio.move_on_after(SETTLE_S) as limit:
            while not (self._is_settled() and self._is_equal()):
                self._send_open()
                await trio.sleep(2)
        self.checker.check_power_cuts()
        if limit.cancelled_caught:
            where = [machine.tip.height for machine in self.machines]
            fail(f"no end within {SETTLE_S} s: heights {where}, {self._open()} open")
        time_ms = self.machines[0].tip.time
        await trio.sleep(SOON_S)
        self.clients.check_waiting()
        for machine in self.machines:
            self.clients.check_pools(machine, time_ms)
            self.checker.compare(machine)
            self.checker.check_told(machine)
        self.clients.check_admitted()
        await self.clients.check_answers(self.machines)

    def calm(self) -> None:
        """The network is fast."""
        weather = self.network.weather
        weather.delay_s, weather.split = (0.002, 0.008), 0.02

    def _open(self) -> int:
        return sum(not self._has_ended(name) for name in self.clients.good)

    def _has_ended(self, name: bytes) -> bool:
        state = self.machines[0].state
        body = self.clients.good[name].body
        return state.locate(name) is not None or body.valid_until < state.tip.time

    def _is_settled(self) -> bool:
        """All run, every two of them are linked, and nothing is open."""
        return self._open() == 0 and all(
            machine.is_up and len(machine.node._network.peers) == self.nodes - 1
            for machine in self.machines
        )

    def _is_equal(self) -> bool:
        return len({machine.tip.height for machine in self.machines}) == 1

    def _send_open(self) -> None:
        machine = self.rng.choice(self.machines)
        if not machine.is_up:
            return
        for name, transaction in self.clients.good.items():
            if not self._has_ended(name):
                self.clients.send(machine, transaction)
        if self._open() == 0:  # one more block makes laggards notice
            self.clients.send(machine, self.clients.make(machine.clock.now_ms()))

    async def shut_down(self, nursery: trio.Nursery) -> None:
        """All nodes end; nothing stays behind."""
        for machine in self.machines:
            machine.cancel()
        for machine in self.machines:
            await machine.ended.wait()
        nursery.cancel_scope.cancel()

    def result(self, violation: str) -> Result:
        tip = self.machines[0].tip if self.machines else None
        return Result(
            seed=self.seed,
            violation=violation,
            trace=self.checker.trace,
            simulated_s=self.simulated_s,
            blocks=0 if tip is None else tip.height,
            transactions=0 if tip is None else tip.transactions,
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
                if self.network.wires:
                    fail(f"{len(self.network.wires)} connections are left")
            finally:
                self.simulated_s = trio.current_time()
            left = trio.lowlevel.current_statistics().tasks_living - before
            if left:
                raise Violation(f"{left} tasks are left")
            # It is gone if one of its actions failed.
            trio.lowlevel.remove_instrument(self.steps)

        with hurried():
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
    if world.nodes > ALL_MEMBERS:
        nursery.start_soon(_vote_in, world)
    async with trio.open_nursery() as trouble:
        trouble.start_soon(_load, world)
        trouble.start_soon(_faults, world, trouble)
        await trio.sleep(FAULTY_S)
        trouble.cancel_scope.cancel()
    for machine in world.machines:
        world.steps.forget(machine.index)
        if machine.is_dying or machine.ended.is_set():
            nursery.start_soon(world.restart, machine, 0.0)


async def _load(world: World) -> None:
    rng = world.rng
    while True:
        await trio.sleep(rng.expovariate(3))
        up = [machine for machine in world.machines if machine.is_up]
        if up:
            world.clients.act(rng.choice(up))


FAULTS = (
    *("kill", "kill", "kill", "kill"),
    *("cut", "tear", "heal", "slow", "split", "clock", "full", "stranger", "calm"),
)
STEPS = 60
"""Of a node's tasks, so many on average to a death that was planned."""


async def _faults(world: World, trouble: trio.Nursery) -> None:
    rng, weather = world.rng, world.network.weather
    while True:
        await trio.sleep(rng.expovariate(1.6))
        world.faults += 1
        fault = rng.choice(FAULTS)
        world.checker.note("fault", fault)
        machine = rng.choice(world.machines)
        match fault:
            case "kill" if machine.is_up and not machine.is_doomed:
                machine.is_doomed = True
                kept = rng.choice((None, None, *KEPT))
                steps = int(rng.expovariate(1 / STEPS))
                trouble.start_soon(_die, world, machine, steps, kept, rng.random() < 0.5)
            case "cut":
                for _ in range(rng.randint(1, world.nodes)):
                    one, other = sorted(rng.sample(range(world.nodes), 2))
                    world.network.cut((one, other))
            case "tear":
                world.network.tear(rng.random())
            case "heal":
                world.network.heal()
            case "slow":
                weather.delay_s = (0.001, rng.choice((0.02, 0.2, 1.0)))
            case "split":
                weather.split = rng.random()
            case "clock":
                machine.jump(rng.randint(-200, 200))
            case "full":
                usage = machine.usage
                usage.free = LITTLE_BYTES if usage.free == usage.total else usage.total
            case "stranger":
                world.invite_stranger(machine)
            case _:
                world.calm()


async def _die(world: World, machine: Machine, steps: int, kept: str | None, names: bool) -> None:
    """A node dies after some steps of its tasks, and is started again after a while."""
    world.steps.act_after(machine.index, steps, lambda: world.kill(machine, kept, names=names))
    await machine.ended.wait()
    await world.restart(machine, world.rng.choice((0.0, 0.3, 3.0)))


async def _vote_in(world: World) -> None:
    """Client governance: the nodes beyond the first four become validators, one by one."""
    await trio.sleep(1)
    for number, name in enumerate(NEWCOMERS[: world.nodes - ALL_MEMBERS]):
        offer = _governance(ADMIN, "propose", number, (_addition(name),), "")
        await _bring_through(world, offer)
        for by in (CLINIC, CENTRE):
            await _bring_through(world, _governance(by, "vote", number, offer.id))
        # Until it votes it is one of the f that may be silent: another one could stop the chain.
        newcomer = world.machines[ALL_MEMBERS + number]
        while not (newcomer.is_up and newcomer.node.consensus().voting):
            await trio.sleep(0.5)


def _addition(name: str) -> Change:
    return Change(
        "add",
        node_name(name),
        name=name.replace(" ", "_"),
        key=key(name),
        organisation="hospital",
        role="master",
    )


def _governance(by: Signer, method: str, nonce: int, *arguments: object) -> Transaction:
    call = Call("membership", method, encode(arguments))
    return make_transaction(call, 1_000_000 + nonce, by=by, module="system", is_signed=True)


async def _bring_through(world: World, transaction: Transaction) -> None:
    """Send it again and again until it is executed."""
    machine = world.machines[0]
    world.clients.good[transaction.id] = transaction
    while machine.state.locate(transaction.id) is None:
        if machine.is_up:
            world.clients.send(machine, transaction)
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
                transaction = world.clients.make(machine.clock.now_ms())
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
