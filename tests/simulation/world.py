"""One run: a seed in, a verdict and a trace hash out. No clock, no thread, one random source."""

import hashlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from consensus.messages import Message, Proposal, Signed
from tests.simulation import adversary
from tests.simulation.chain import Members
from tests.simulation.checker import Checker, Violation
from tests.simulation.clock import NodeClock
from tests.simulation.nemesis import Nemesis
from tests.simulation.network import Network, Schedule
from tests.simulation.replica import Replica, Shared
from tests.simulation.scenario import FAULTS_END_MS, GOOD_CLOCK_MS, RUN_MS, Scenario, draw

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
    kinds: dict[str, int] = field(default_factory=dict[str, int])


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
        self.genesis: Members = tuple(range(scenario.validators))
        self.approved: list[Members] = []
        self.checker = Checker(scenario, self.verify, self.approved)
        self.steps = 0
        self._hasher = hashlib.sha256()
        self._print_line = print_line
        self._signatures: dict[bytes, tuple[int, Message]] = {}
        self._work_ms: dict[int, int] = {}
        self._calm_height: int | None = None
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
            distort=adversary.distort,
            approved=self.approved,
        )
        self.nodes: list[Replica] = []
        # Nodes speak as soon as they boot, so their addresses come first.
        self.network.handlers = [
            partial(self._deliver, index) for index in range(scenario.instances)
        ]
        for index in range(scenario.instances):
            voice = adversary.speak if scenario.identity(index) in scenario.adversaries else None
            node = make_node(index, shared, voice)
            node.clock = NodeClock(0, self.rng.randint(-1, 1) * scenario.drift_ppm)
            self.nodes.append(node)

    def _deliver(self, index: int, payload: object) -> None:
        self.nodes[index].on_payload(payload)

    # What the nodes share

    def sign(self, identity: int, message: Message) -> Signed:
        """H(key || message), kept in a registry: nobody can make another's signature."""
        if isinstance(message, Proposal):
            kind = 0
        else:
            kind = int(message.kind)
            self.checker.on_any_vote(identity, message)
        numbers = (message.sender, kind, message.height, message.round, message.valid_round)
        key = b"%d %s " % (identity, message.value or b"nil") + b"%d %d %d %d %d" % numbers
        signature = hashlib.sha256(key).digest()
        self._signatures[signature] = (identity, message)
        self._hasher.update(signature)
        return Signed(message, signature)

    def verify(self, signed: Signed, members: Members) -> bool:
        """Whether the member that a message names signed exactly this message."""
        known = self._signatures.get(signed.signature)
        if known is None:
            return False
        identity, original = known
        message = signed.message
        if original is not message and original != message:
            return False
        return 0 <= message.sender < len(members) and members[message.sender] == identity

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

    # The end of the faults

    def on_calm(self, _: None) -> None:
        """The faults end: links and disks are good, machines stay up, clocks are right."""
        for node in self.nodes:
            node.fuse = None
            node.files.is_full = node.files.fails_sync = False
            node.clock.set(self.rng.randint(-GOOD_CLOCK_MS, GOOD_CLOCK_MS))
            node.paused_until_ms = 0
            node.on_resume(node.incarnation)
            node.on_boot(None)
        self.note("the faults end")
        self.on_owed(None)

    def on_owed(self, _: None) -> None:
        """From here on progress is owed: once no block's time is in the future any more."""
        ahead_ms = max(node.chain.time_ms for node in self._live()) - self.schedule.now_ms
        if ahead_ms > 0:
            self.schedule.after(ahead_ms, self.on_owed, None)
            return
        rounds: dict[int, int] = {}
        for node in self._live():
            status = node.core.status
            rounds[status.height] = max(rounds.get(status.height, 0), status.round)
        self._calm_height = max(rounds)
        self.checker.on_faults_end(rounds)
        self.note("progress is owed")

    def _live(self) -> list[Replica]:
        """The nodes that must make progress: all correct ones that were ever started."""
        return [node for node in self.nodes if node.is_correct and node.is_up]

    # The run

    def run(self) -> Result:
        """Play until the time is over and every correct node has decided a further height."""
        self.schedule.after(FAULTS_END_MS, self.on_calm, None)
        violation = ""
        try:
            self._begin()
            self._play()
        except Violation as found:
            violation = str(found)
        except Exception as error:  # noqa: BLE001  # any error of a core is a finding of this seed
            violation = f"{type(error).__name__}: {error}"
        return Result(
            self.scenario.seed,
            self.schedule.now_ms,
            self.network.counts.total(),
            max(len(node.chain.blocks) for node in self.nodes),
            self.steps,
            violation,
            self._hasher.digest(),
            dict(self.network.counts),
        )

    def _begin(self) -> None:
        """The validators of genesis start, and some spares as observers."""
        Nemesis(self).start()
        for node in self.nodes:
            if node.identity < self.scenario.validators or self.rng.random() < 0.5:
                node.install()

    def _play(self) -> None:
        update, schedule = self._hasher.update, self.schedule
        while True:
            event = schedule.pop()
            if event is None:
                raise Violation("nothing is left to happen")
            sequence, handler, payload = event
            update(b"%d %d " % (schedule.now_ms, sequence))
            self.steps += 1
            handler(payload)
            if schedule.now_ms >= RUN_MS and self._is_done():
                return

    def _is_done(self) -> bool:
        """Whether every correct node is past the height at which the faults ended."""
        if self._calm_height is None:
            return False
        waiting = [node for node in self._live() if len(node.chain.blocks) < self._calm_height]
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
