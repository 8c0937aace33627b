"""A machine that lost everything joins from snapshots: some servers lie, and it dies on the way.

The checker sees whether it signs twice afterwards; at its end it must have the state of the others.
"""

import random
from dataclasses import replace
from typing import Any

import trio

from ledger.snapshot import Kind
from node import limits
from node.config import NodeConfig, StoreSection, SyncSection
from node.joining import SnapshotJoin
from node.pruning import Pruning
from node.snapshots import Snapshots
from node.wire import SnapshotPart

from . import world as world_module
from .checker import fail
from .clients import Clients
from .machine import KEPT, NAMES, Machine, Storage
from .world import World

JOINER, LIAR = 3, 1
KEPT_BLOCKS = 30
LOAD = 40
STEPS = 400
"""Of the joiner's tasks, at most so many to a death; a whole join takes about as many."""


class JoiningWorld(World):
    """Four machines, one of which begins anew; none knows where older ids stand at the end."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed, 4)
        self.refused: list[tuple[bytes, str]] = []
        self.resumed = 0

    async def settle(self) -> None:
        """All have one tip, and the joiner votes again."""
        self.calm()
        with trio.move_on_after(120) as limit:
            while not (self._is_settled() and self._is_equal() and self._votes()):
                for name, transaction in self.clients.good.items():
                    if not self._has_ended(name):  # it died with the pool of the joiner
                        self.clients.send(self.machines[0], transaction)
                self.send_one(self.machines[0])
                await trio.sleep(1)
        if limit.cancelled_caught:
            fail(f"no end: {[machine.is_up for machine in self.machines]}")
        for machine in self.machines:
            self.checker.compare(machine)
        if self.machines[JOINER].node.info().lowest < 2:
            fail("it did not join from a snapshot")

    def _votes(self) -> bool:
        return self.machines[JOINER].node.consensus().voting

    def send_one(self, machine: Machine) -> None:
        """A new registration."""
        transaction = self.clients.make(machine.clock.now_ms())
        self.clients.good[transaction.id] = transaction
        self.clients.send(machine, transaction)


def lie(rng: random.Random, kinds: tuple[Kind, ...]) -> Any:
    """A `Snapshots.part` that changes a byte of every item of these kinds."""
    true_part = Snapshots.part

    async def part(self: Snapshots, request: Any) -> SnapshotPart:
        found = await true_part(self, request)
        if not found.data or Kind(request.item.kind) not in kinds:
            return found
        data = bytearray(found.data)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return SnapshotPart(found.height, found.size, bytes(data))

    return part


async def rejoin(world: JoiningWorld, nursery: trio.Nursery) -> None:
    """Load; one machine loses everything, and joins while another lies; it dies now and then."""
    rng = world.rng
    await world.start(nursery)
    for number in range(LOAD):
        await trio.sleep(0.05)
        world.send_one(world.machines[number % 4])
    joiner, liar = world.machines[JOINER], world.machines[LIAR]
    joiner.cancel()
    await joiner.ended.wait()
    joiner.storage = Storage()
    joiner.config = replace(joiner.config, sync=SyncSection(snapshot=True))
    kinds = rng.choice((tuple(Kind), *((kind,) for kind in Kind)))
    snapshots = liar.node._snapshots
    snapshots.part = lie(rng, kinds).__get__(snapshots)
    for _ in range(rng.choice((0, 1, 3))):
        await world.restart(joiner, 0.0)
        world.steps.act_after(JOINER, rng.randint(1, STEPS), _death(world, joiner, rng))
        with trio.move_on_after(20):
            await joiner.ended.wait()
        world.steps.forget(JOINER)
        joiner.cancel()
        world.send_one(world.machines[0])
    if joiner.ended.is_set() or joiner.is_dying:
        await world.restart(joiner, 0.0)


def _death(world: JoiningWorld, joiner: Machine, rng: random.Random) -> Any:
    kept = rng.choice((None, *KEPT))

    def die() -> None:
        world.checker.note("kill", kept)
        if kept is None:
            joiner.cancel()
        else:
            joiner.cut_power(kept, names=rng.random() < 0.5)

    return die


def run_joining(seed: int, patch: Any) -> tuple[Any, JoiningWorld]:
    """The run of a seed. `patch` is pytest's: it shows who was refused."""
    world = JoiningWorld(seed)
    distrust = SnapshotJoin._distrust

    def watched(self: SnapshotJoin, source: Any, refusal: Any) -> None:
        world.refused.append((source.peer.address, str(refusal)))
        distrust(self, source, refusal)

    patch.setattr(SnapshotJoin, "_distrust", watched)
    result = world.run(rejoin)
    if not result.violation and {name for name, _ in world.refused} - {NAMES[LIAR]}:
        return replace(result, violation="an honest server was refused"), world
    return result, world


def prune_soon(patch: Any) -> list[int]:
    """All machines but the first keep few blocks; how many steps of pruning there were, so far."""
    steps = [0]
    true_step, plain = Pruning.step, world_module.config_of

    def step(self: Pruning) -> bool:
        is_pruned = true_step(self)
        steps[0] += is_pruned
        return is_pruned

    async def unanswered(*_: object) -> None:
        """What is pruned is not answered."""

    def config(index: int, nodes: int) -> NodeConfig:
        return replace(
            plain(index, nodes), store=StoreSection(keep_blocks=KEPT_BLOCKS if index else 0)
        )

    patch.setattr(limits, "PRUNED_HEIGHTS", 4)
    patch.setattr(limits, "PRUNE_TICK_MS", 100)
    patch.setattr(Pruning, "step", step)
    patch.setattr(Clients, "check_answers", unanswered)
    patch.setattr(world_module, "config_of", config)
    return steps
