"""The faults from outside, each at random moments until the faults end.

Partitions and clogs; crashes; pauses; clocks that step, freeze, or run away; full and failing
disks; lost, damaged or old data; and changes of membership, which are no fault but meet all.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.events import Step
from tests.simulation import log
from tests.simulation.chain import Members, may_change
from tests.simulation.checker import faults_in
from tests.simulation.replica import Replica
from tests.simulation.scenario import BAD_CLOCK_MS, FAULTS_END_MS, GOOD_CLOCK_MS

if TYPE_CHECKING:
    from tests.simulation.world import World

PAUSE_MS = (100, 60_000)
LURK_MS = 20


class Nemesis:
    """Plans the faults of one world."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._rng = world.rng
        self._schedule = world.schedule
        self._counts = world.network.counts
        self._backups: dict[int, tuple[object, int]] = {}
        self._lurking: set[int] = set()

    def start(self) -> None:
        """Skew the clocks and plan the first fault of each kind."""
        scenario, rng = self._world.scenario, self._rng
        for node in self._world.nodes:
            is_bad = rng.random() < scenario.skewed
            span_ms = BAD_CLOCK_MS if is_bad else GOOD_CLOCK_MS
            node.clock.set(rng.randint(-span_ms, span_ms))
        self._plan(scenario.partition_every_ms, self.on_cut)
        self._plan(scenario.clog_every_ms, self.on_clog)
        self._plan(scenario.crash_every_ms, self.on_crash)
        self._plan(scenario.pause_every_ms, self.on_pause)
        self._plan(scenario.clock_every_ms, self.on_clock)
        self._plan(scenario.disk_every_ms, self.on_disk)
        self._plan(scenario.damage_every_ms, self.on_damage)
        self._plan(scenario.change_every_ms, self.on_change)

    def _plan(self, every_ms: int, handler: Callable[[int], None]) -> None:
        if every_ms:
            after_ms = 1 + int(self._rng.expovariate(1 / every_ms))
            if self._schedule.now_ms + after_ms < FAULTS_END_MS:
                self._schedule.after(after_ms, handler, every_ms)

    def _node(self) -> Replica:
        return self._rng.choice(self._world.nodes)

    def on_cut(self, every_ms: int) -> None:
        """Start a partition."""
        self._world.network.cut()
        self._world.note("a partition")
        self._plan(every_ms, self.on_cut)

    def on_clog(self, every_ms: int) -> None:
        """Clog links."""
        self._world.network.clog()
        self._world.note("links are clogged")
        self._plan(every_ms, self.on_clog)

    def on_crash(self, every_ms: int) -> None:
        """Stop a node now, or at one of its next effects, or cut the power of all."""
        rng, node = self._rng, self._node()
        kind = rng.random()
        if kind < 0.03:
            self._world.note("the power fails everywhere")
            for each in self._world.nodes:
                each.crash(is_power_cut=True)
        elif kind < 0.2:
            node.crash()
        elif node.fuse is None:
            node.fuse = rng.randint(0, 12)
        self._plan(every_ms, self.on_crash)

    def on_pause(self, every_ms: int) -> None:
        """Let a node stand still: mostly briefly, at times for the rest of the faults."""
        rng, node = self._rng, self._node()
        most_ms = PAUSE_MS[1] if rng.random() < 0.1 else 3_000
        for_ms = min(rng.randint(PAUSE_MS[0], most_ms), FAULTS_END_MS - self._schedule.now_ms)
        self._counts["pause"] += 1
        self._world.note(f"node {node.index} pauses for {for_ms} ms")
        node.pause(for_ms)
        self._plan(every_ms, self.on_pause)

    def on_clock(self, every_ms: int) -> None:
        """Step a clock forwards or backwards, stop it, or set it right."""
        rng, node, now_ms = self._rng, self._node(), self._schedule.now_ms
        self._counts["clock"] += 1
        kind = rng.random()
        if kind < 0.3:
            node.clock.freeze(now_ms, min(now_ms + rng.randint(100, 5_000), FAULTS_END_MS))
        else:
            span_ms = BAD_CLOCK_MS if kind < 0.7 else GOOD_CLOCK_MS
            node.clock.set(rng.randint(-span_ms, span_ms))
        self._plan(every_ms, self.on_clock)

    def on_disk(self, every_ms: int) -> None:
        """A disk is full for a while, or fails its next sync."""
        rng, node = self._rng, self._node()
        if rng.random() < 0.5:
            node.files.is_full = True
        else:
            node.files.fails_sync = True
        self._counts["disk fault"] += 1
        left_ms = FAULTS_END_MS - self._schedule.now_ms
        self._schedule.after(min(rng.randint(100, 6_000), left_ms), self.on_disk_well, node)
        self._plan(every_ms, self.on_disk)

    def on_disk_well(self, node: Replica) -> None:
        """The operator made room, or put in another disk."""
        node.files.is_full = node.files.fails_sync = False

    def on_damage(self, every_ms: int) -> None:
        """A node that may lose data does: so that it can know it, or so that it cannot."""
        scenario, rng = self._world.scenario, self._rng
        identity = rng.choice((*scenario.damaged, *scenario.forgetful))
        node = self._world.nodes[identity]
        self._counts["damage"] += 1
        if identity in scenario.damaged:
            damage = rng.choice((self._flip, self._flip, self._wipe_log, self._go_back, self._lurk))
        else:
            damage = rng.choice((self._back_up, self._restore, node.crash))
        if damage == node.crash:
            node.crash(is_power_cut=True)
        else:
            damage(node)
        self._plan(every_ms, self.on_damage)

    def _flip(self, node: Replica) -> None:
        """One bit between two starts: two in one synced batch could hide a vote for good."""
        if not node.is_up:
            return
        node.crash()
        if node.files.exists(log.LOG):
            file = node.files.open(log.LOG)
            if file.size():
                # The newest records matter most: half the flips hit the last sectors.
                last = 1024 if self._rng.random() < 0.5 else file.size()
                position = file.size() - 1 - self._rng.randrange(min(last, file.size()))
                file.flip(position, self._rng.randrange(8))
                self._world.note(f"a bit of the log of node {node.index} flips at {position}")

    def _wipe_log(self, node: Replica) -> None:
        node.crash()
        node.files.lose(log.LOG)
        self._world.note(f"node {node.index} loses its log")

    def _go_back(self, node: Replica) -> None:
        """Restore an old backup of the blocks, or none; a log is never part of it."""
        self._wipe_log(node)
        blocks = len(node.chain.blocks)
        kept = self._rng.choice((0, self._rng.randint(0, blocks), max(0, blocks - 1), blocks))
        node.chain.cut(kept)
        self._world.checker.on_loss(node.identity, kept)
        self._world.note(f"node {node.index} goes back to block {kept}")

    def _lurk(self, node: Replica) -> None:
        """Wait for the worst moment: the node has voted where few others have arrived."""
        if node.index not in self._lurking:
            self._lurking.add(node.index)
            self._schedule.after(0, self.on_lurk, node)

    def on_lurk(self, node: Replica) -> None:
        """Strike, or wait on."""
        if self._schedule.now_ms >= FAULTS_END_MS:
            return
        if node.is_up and self._is_ahead(node):
            self._lurking.discard(node.index)
            self._go_back(node)
        else:
            self._schedule.after(LURK_MS, self.on_lurk, node)

    def _is_ahead(self, node: Replica) -> bool:
        members = self._world.checker.members(self._world.checker.decided + 1)
        behind = sum(self._world.nodes[member].height < node.height for member in members)
        return node.core.status.step >= Step.PREVOTE and behind >= 2 * len(members) // 3

    def _back_up(self, node: Replica) -> None:
        self._backups[node.index] = (node.files.copy(), node.chain.synced)

    def _restore(self, node: Replica) -> None:
        """Put an old log back, with the blocks of then or those of now, and tell nobody."""
        if node.index in self._backups:
            files, blocks = self._backups.pop(node.index)
            node.crash()
            node.files = files
            if self._rng.random() < 0.5:
                node.chain.cut(min(blocks, len(node.chain.blocks)))
            self._world.note(f"node {node.index} runs from a backup")

    def on_change(self, every_ms: int) -> None:
        """The consortium votes: members leave, spares and former members join."""
        approved, checker = self._world.approved, self._world.checker
        newest = checker.members(checker.decided + 2)
        if (approved[-1] if approved else self._world.genesis) == newest:
            after = self._draw_change(newest)
            if may_change(newest, after) and self._is_tolerable(after):
                approved.append(after)
                self._counts["change"] += 1
                self._world.note(f"members are to be {after}")
                for identity in after:
                    if self._world.nodes[identity].incarnation == 0:
                        self._world.nodes[identity].install()
        self._plan(every_ms, self.on_change)

    def _draw_change(self, members: Members) -> Members:
        rng = self._rng
        identities = range(self._world.scenario.identities)
        outside = [node for node in identities if node not in members]
        leaving = rng.sample(members, rng.randint(0, faults_in(members)))
        joining = rng.sample(outside, rng.randint(0, len(outside)))
        return tuple(sorted({*members, *joining}.difference(leaving)))

    def _is_tolerable(self, members: Members) -> bool:
        """Whether a set survives its faulty members."""
        faulty = sum(node in members for node in self._world.scenario.faulty)
        return faulty <= faults_in(members)
