"""Links between machines: cut, healed, slow; frames arrive late, twice or in another order.

A link is up when both nodes are and nobody cut it; what is under way when it goes down is lost.
Votes, proposals and batches may overtake each other; questions, answers and claims keep their
order, as one connection would keep it.
"""

import heapq
import random
from collections.abc import Callable, Sequence
from itertools import combinations, count

import trio

from p2p.frames import FrameKind
from tests.unit.node_core.memory_network import MemoryPeer

from .machine import Machine

LOOSE = (FrameKind.VOTE, FrameKind.PROPOSAL, FrameKind.BATCH)


class Weather:
    """What the network does at present; a seed changes it."""

    def __init__(self) -> None:
        self.delay_s = (0.002, 0.008)
        self.duplicate = self.reorder = 0.0
        self.cut: set[tuple[int, int]] = set()


class Line:
    """Frames on their way to one node."""

    def __init__(self, weather: Weather, rng: random.Random, sees: Callable[[], bool]) -> None:
        self._weather, self._rng, self._sees = weather, rng, sees
        self._frames: list[tuple[float, int, FrameKind, bytes]] = []
        self._last = 0.0
        self._numbers = count()
        self._wake = trio.Event()
        self.scope = trio.CancelScope()

    def push(self, kind: FrameKind, payload: bytes) -> None:
        if not self._sees():
            return
        copies = 1 + (kind in LOOSE and self._rng.random() < self._weather.duplicate)
        for _ in range(copies):
            arrival = trio.current_time() + self._rng.uniform(*self._weather.delay_s)
            if kind not in LOOSE or self._rng.random() >= self._weather.reorder:
                arrival = self._last = max(arrival, self._last)
            heapq.heappush(self._frames, (arrival, next(self._numbers), kind, payload))
        self._wake.set()

    async def deliver(self, receiver: Machine, peer: MemoryPeer) -> None:
        node = receiver.node
        with self.scope:
            while True:
                self._wake = trio.Event()
                due = self._frames[0][0] if self._frames else float("inf")
                if due > trio.current_time():
                    with trio.move_on_at(due):
                        await self._wake.wait()
                    continue
                _, _, kind, payload = heapq.heappop(self._frames)
                await trio.lowlevel.checkpoint()
                if receiver.speaks:
                    await node.router.on_frames(peer, [(kind, payload)])


class Network:
    """All links."""

    def __init__(self, machines: Sequence[Machine], rng: random.Random) -> None:
        self.weather = Weather()
        self.machines = machines
        self._rng = rng
        self._links: dict[tuple[int, int], tuple[Line, Line]] = {}
        self.opened = 0

    async def run(self) -> None:
        """Open links again and again, each after a moment."""
        pairs = list(combinations(range(len(self.machines)), 2))
        while True:
            for pair in pairs:
                one, other = (self.machines[index] for index in pair)
                is_wanted = pair not in self._links and pair not in self.weather.cut
                if is_wanted and one.is_up and other.is_up and self._rng.random() < 0.5:
                    self._open(pair, one, other)
            await trio.sleep(self._rng.uniform(0.01, 0.1))

    def _open(self, pair: tuple[int, int], one: Machine, other: Machine) -> None:
        self.opened += 1
        lines = tuple(
            Line(self.weather, self._rng, lambda sender=sender: sender.speaks)
            for sender in (one, other)
        )
        there, back = lines
        to_other = MemoryPeer(other.address, there.push)
        to_one = MemoryPeer(one.address, back.push)
        self._links[pair] = lines
        one.node.peers[other.address] = to_other
        other.node.peers[one.address] = to_one
        other.spawn(there.deliver, other, to_one)
        one.spawn(back.deliver, one, to_other)
        one.node.router.on_connected(to_other)
        other.node.router.on_connected(to_one)

    def cut(self, pair: tuple[int, int]) -> None:
        """No frames between two nodes until `heal`."""
        self.weather.cut.add(pair)
        self._close(pair)

    def heal(self) -> None:
        """Nothing is cut."""
        self.weather.cut.clear()

    def forget(self, machine: Machine) -> None:
        """A node is up or gone: none of its links is."""
        for pair in [pair for pair in self._links if machine.index in pair]:
            self._close(pair)

    def _close(self, pair: tuple[int, int]) -> None:
        lines = self._links.pop(pair, None)
        if lines is None:
            return
        for line in lines:
            line.scope.cancel()
        one, other = (self.machines[index] for index in pair)
        for here, there in ((one, other), (other, one)):
            peer = here.node.peers.pop(there.address, None)
            if peer is not None and here.is_up:
                here.node.router.on_disconnected(peer)
