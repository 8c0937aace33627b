"""One run: a seed in, a verdict and a trace hash out. No clock, no thread, one random source."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from consensus.messages import Message, Proposal, Signed
from ledger.codec import encode
from tests.simulation import adversary
from tests.simulation.checker import Checker, Violation
from tests.simulation.network import Network, Schedule
from tests.simulation.replica import Replica, Shared
from tests.simulation.scenario import FAULTS_END_MS, RUN_MS, Scenario, draw

HANG_MS = 600_000
"""Simulated time after which a run that still waits for progress is a violation by itself."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to; `violation` is empty when nothing was found."""

    seed: int
    simulated_ms: int
    faults: int
    heights: int
    steps: int
    violation: str
    trace: bytes


class World:
    """The nodes of a run and everything around them."""

    def __init__(
        self,
        scenario: Scenario,
        make_node: Callable[..., Replica] = Replica,
        print_line: Callable[[str], None] | None = None,
    ) -> None:
        self.scenario = scenario
        self.rng = random.Random(scenario.seed ^ 0x5EED)
        self.schedule = Schedule()
        self.network = Network(scenario, self.schedule, self.rng)
        self.checker = Checker(scenario, self.verify)
        self.steps = 0
        self._hasher = hashlib.sha256()
        self._print_line = print_line
        self._signatures: dict[bytes, Message] = {}
        self._work_ms: dict[int, int] = {}
        self._calm_height = 0
        shared = Shared(
            scenario=scenario,
            schedule=self.schedule,
            network=self.network,
            checker=self.checker,
            rng=self.rng,
            sign=self.sign,
            verify=self.verify,
            work_after_ms=self.work_after_ms,
            note=self.note,
        )
        self.nodes: list[Replica] = []
        # Nodes speak as soon as they boot, so their addresses come first.
        self.network.handlers = [
            partial(self._deliver, index) for index in range(scenario.validators)
        ]
        for index in range(scenario.validators):
            voice = adversary.speak if index in scenario.adversaries else None
            self.nodes.append(make_node(index, shared, voice))

    def _deliver(self, index: int, payload: object) -> None:
        self.nodes[index].on_payload(payload)

    # What the nodes share

    def sign(self, node: int, message: Message) -> Signed:
        """H(key || message), kept in a registry: nobody can make another's signature."""
        value = message.value
        if isinstance(message, Proposal):
            kind = 0
        else:
            kind = int(message.kind)
            self.checker.on_any_vote(node, message)
        fields = (node, kind, message.height, message.round, value, message.valid_round)
        signature = hashlib.sha256(encode(fields)).digest()
        self._signatures[signature] = message
        self._hasher.update(signature)
        return Signed(message, signature)

    def verify(self, signed: Signed) -> bool:
        """Whether the message's sender made this signature for exactly this message."""
        known = self._signatures.get(signed.signature)
        return known is signed.message or known == signed.message

    def work_after_ms(self, height: int) -> int:
        """When a node hears of work: at about the same time everywhere; some miss it for long."""
        if height not in self._work_ms:
            mean_ms = self.scenario.idle_mean_ms
            idle_ms = int(self.rng.expovariate(1 / mean_ms)) if mean_ms else 0
            self._work_ms[height] = min(idle_ms, 10_000)
        missed_ms = 4_000 if self.rng.random() < self.scenario.missed_work else 0
        return self._work_ms[height] + missed_ms + int(self.rng.random() * 50)

    def note(self, text: str) -> None:
        """Add a line to the trace."""
        self._hasher.update(text.encode())
        if self._print_line is not None:
            self._print_line(f"{self.schedule.now_ms:>7} ms  {text}")

    # Faults from outside

    def on_cut(self, _: None) -> None:
        """Start a partition and plan the next."""
        if self.schedule.now_ms < FAULTS_END_MS:
            self.network.cut()
            self.note("a partition")
            self._plan(self.scenario.partition_every_ms, self.on_cut)

    def on_crash(self, _: None) -> None:
        """Stop a node now, or at one of its next effects, and plan the next."""
        if self.schedule.now_ms >= FAULTS_END_MS:
            return
        node = self.nodes[self.rng.choice(self.scenario.correct)]
        if self.rng.random() < 0.2:
            node.crash()
        elif node.fuse is None:
            node.fuse = self.rng.randint(0, 12)
        self._plan(self.scenario.crash_every_ms, self.on_crash)

    def _plan(self, every_ms: int, handler: Callable[[None], None]) -> None:
        if every_ms:
            self.schedule.after(1 + int(self.rng.expovariate(1 / every_ms)), handler, None)

    def on_calm(self, _: None) -> None:
        """The faults end: links are good, machines stay up, and progress is owed."""
        rounds: dict[int, int] = {}
        for node in self._correct():
            node.fuse = None
            node.on_boot(None)
            status = node.core.status
            rounds[status.height] = max(rounds.get(status.height, 0), status.round)
        self._calm_height = max(rounds)
        self.checker.on_faults_end(rounds)
        self.note("the faults end")

    def _correct(self) -> list[Replica]:
        return [self.nodes[index] for index in self.scenario.correct]

    # The run

    def run(self) -> Result:
        """Play until the time is over and every correct node has decided a further height."""
        self._plan(self.scenario.partition_every_ms, self.on_cut)
        self._plan(self.scenario.crash_every_ms, self.on_crash)
        self.schedule.after(FAULTS_END_MS, self.on_calm, None)
        violation = ""
        try:
            self._play()
        except Violation as found:
            violation = str(found)
        except Exception as error:  # noqa: BLE001  # any error of a core is a finding of this seed
            violation = f"{type(error).__name__}: {error}"
        heights = max(len(node.disk.chain.blocks) for node in self.nodes)
        return Result(
            self.scenario.seed,
            self.schedule.now_ms,
            self.network.faults,
            heights,
            self.steps,
            violation,
            self._hasher.digest(),
        )

    def _play(self) -> None:
        update = self._hasher.update
        while True:
            event = self.schedule.pop()
            if event is None:
                raise Violation("nothing is left to happen")
            sequence, handler, payload = event
            update(b"%d %d " % (self.schedule.now_ms, sequence))
            self.steps += 1
            handler(payload)
            if self.schedule.now_ms >= RUN_MS and self._is_done():
                return

    def _is_done(self) -> bool:
        """Whether every correct node is past the height at which the faults ended."""
        waiting = [
            node for node in self._correct() if len(node.disk.chain.blocks) < self._calm_height
        ]
        for node in waiting:
            status = node.core.status
            if status.round > self.checker.round_limit(status.height):
                raise Violation(f"node {node.index} found no decision: {status}")
        if waiting and self.schedule.now_ms > HANG_MS:
            raise Violation(f"node {waiting[0].index} hangs at {waiting[0].core.status}")
        return not waiting


def run_seed(seed: int, print_line: Callable[[str], None] | None = None) -> Result:
    """Run the scenario of a seed."""
    scenario = draw(seed)
    if print_line is not None:
        print_line(str(scenario))
    return World(scenario, print_line=print_line).run()
