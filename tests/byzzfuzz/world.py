"""One run: real cores, one of which lies a little, on a network that loses a little.

Time is simulated: links take 1 to 20 ms, timers what the core asks for. Faults belong to messages
of the first rounds of a height, and to the first FAULTS_END_MS; after that every height is decided
within f + 2 good rounds. Safety is watched by an oracle for each correct node, and by comparing
what they decide.
"""

import heapq
import random
from collections.abc import Callable

from consensus.core import Core
from consensus.events import (
    BlockChecked,
    BroadcastStatus,
    CheckBlock,
    Decide,
    MessageReceived,
    PeerStatus,
    SendTo,
    SetTimer,
    StartHeight,
    TimerFired,
    Verdict,
    WorkAvailable,
)
from consensus.height_state import slot_of
from consensus.messages import Message, Proposal, Signed
from consensus.next_height import MESSAGES_PER_KIND
from consensus.timeouts import Timeouts
from consensus.vote_book import faults_of
from tests.byzzfuzz.plan import BAD_BLOCK, TRICKS, Memory, Plan, draw
from tests.twins.oracle import Oracle, Violation
from tests.twins.seat import Seat, signed

HEIGHTS = 3
LINK_MS = (1, 20)
FAULTS_END_MS = 12_000
TIMEOUTS = Timeouts()
SLOW_ROUND = 2 * (TIMEOUTS.status_ms + 2 * LINK_MS[1]) // TIMEOUTS.delta_ms + 1
"""From here on timeouts exceed twice the time in which all learn what one knows."""
MOST_EVENTS = 60_000


class World:
    """The nodes of a run and everything around them."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.rng = random.Random(plan.seed)
        self.now_ms = 0
        self.events = 0
        self.nodes: list[Node] = []
        self.values: dict[int, bytes] = {}
        self._heap: list[tuple[int, int, Callable[[object], None], object]] = []
        self._limits: dict[int, int] = {}
        self.nodes = [Node(self, index) for index in range(plan.validators)]
        for node in self.nodes:
            node.begin(1)

    def after(self, delay_ms: int, handler: Callable[[object], None], payload: object) -> None:
        """Call `handler(payload)` after a delay."""
        self.events += 1
        heapq.heappush(self._heap, (self.now_ms + delay_ms, self.events, handler, payload))

    @property
    def is_calm(self) -> bool:
        """Whether the faults are over."""
        return self.now_ms >= FAULTS_END_MS

    def post(self, source: int, target: int, letter: Signed) -> None:
        """Carry a message, unless a cut takes it."""
        message = letter.message
        kind = 0 if isinstance(message, Proposal) else message.kind
        for cut in () if self.is_calm else self.plan.cuts:
            is_meant = cut.round == message.round and kind in cut.kinds
            if is_meant and cut.cells[source] != cut.cells[target]:
                return
        self.after(self.rng.randint(*LINK_MS), self.nodes[target].on_message, letter)

    def on_decided(self, node: "Node", decide: Decide) -> None:
        """A node decided; correct ones agree, on blocks that a check accepts, and in time."""
        if node.index == self.plan.byzantine:
            return
        value = self.values.setdefault(decide.height, decide.value)
        if value != decide.value or value == BAD_BLOCK:
            raise Violation(f"node {node.index} decides {decide.value!r} beside {value!r}")
        self._check_round(decide.height, decide.round)

    def _check_round(self, height: int, round_number: int) -> None:
        if self.is_calm and round_number > self._limits.get(height, self._limits[0]):
            raise Violation(f"height {height} reached round {round_number}")

    def run(self) -> None:
        """Play until every correct node has decided all heights. Raises: Violation."""
        good_rounds = faults_of(self.plan.validators) + 2
        while any(node.height <= HEIGHTS for node in self.correct()):
            at_ms, _, handler, payload = heapq.heappop(self._heap)
            if at_ms >= FAULTS_END_MS > self.now_ms or not self._limits:
                self._limits = {0: SLOW_ROUND + good_rounds}
                for node in self.correct():
                    latest = max(node.round + 1, SLOW_ROUND) + good_rounds
                    known = self._limits.get(node.height, latest)
                    self._limits[node.height] = max(known, latest)
            self.now_ms = at_ms
            handler(payload)
            if self.events > MOST_EVENTS:
                raise Violation("no end in sight")
            if self.is_calm:
                for node in self.correct():
                    self._check_round(node.height, node.round)

    def correct(self) -> list["Node"]:
        """All nodes but the Byzantine one."""
        return [node for node in self.nodes if node.index != self.plan.byzantine]


class Node:
    """One validator; the Byzantine one runs the same core, but its messages leave changed."""

    def __init__(self, world: World, index: int) -> None:
        self.world = world
        self.index = index
        self.height = 0
        self.memory = Memory([], [])
        self.early: list[Signed] = []
        self.seat = Seat(index, Core(TIMEOUTS), self._oracle(0), self._judge)

    @property
    def round(self) -> int:
        """The round its core is in."""
        return self.seat.core.status.round

    def _oracle(self, height: int) -> Oracle:
        everybody = tuple(range(self.world.plan.validators))
        return Oracle(self.index, len(everybody), lambda number: (height + number) % len(everybody))

    def begin(self, height: int) -> None:
        """Start a height; work comes a little later."""
        world, count = self.world, self.world.plan.validators
        self.height = height
        # In the order in which the core takes them up; see `consensus/next_height.py`.
        by_sender: dict[tuple[int, int], list[Signed]] = {}
        for letter in self.early:
            key = (letter.message.sender, slot_of(letter.message)[1])
            by_sender.setdefault(key, []).append(letter)
        self.early = []
        early = [letter for held in by_sender.values() for letter in held[:MESSAGES_PER_KIND]]
        event = StartHeight(height, count, self.index, tuple(range(count)))
        self.seat.start(event, self._oracle(height), early)
        world.after(world.rng.randint(0, 50), self._on_work, height)
        self._act()

    def _feed(self, event) -> None:
        self.seat.feed(event)
        self._act()

    def _act(self) -> None:
        """Do what the core asked for."""
        seat, world = self.seat, self.world
        said, asked, seat.said, seat.asked, seat.kept = seat.said, seat.asked, [], [], []
        for letter in said:
            self._say(letter)
        for effect in asked:
            match effect:
                case SetTimer(timer, after_ms):
                    world.after(after_ms, self._on_timer, timer)
                case SendTo(peer, letters):
                    for letter in letters:
                        world.post(self.index, peer[0], letter)
                case BroadcastStatus(height, round_number, step):
                    status = PeerStatus(bytes([self.index]), height, round_number, step)
                    for node in world.nodes:
                        if node is not self:
                            world.after(LINK_MS[1], node.on_status, status)
                case CheckBlock():
                    world.after(world.rng.randint(5, 3_000), self._on_checked, effect)
        if seat.decided is not None and seat.decided.height == self.height:
            world.on_decided(self, seat.decided)
            self.begin(self.height + 1)

    def _say(self, letter: Signed) -> None:
        is_liar = self.index == self.world.plan.byzantine and not self.world.is_calm
        for target in range(self.world.plan.validators):
            if target != self.index:
                for told in self._lies(target, letter) if is_liar else (letter,):
                    self.world.post(self.index, target, told)
        self.memory.sent.append(letter.message)

    def _lies(self, target: int, letter: Signed) -> list[Signed]:
        """What a victim is told in place of a message."""
        message = letter.message
        kind = 0 if isinstance(message, Proposal) else message.kind
        told = [letter]
        for lie in self.world.plan.lies:
            if (lie.round, lie.kind) == (message.round, kind) and target in lie.victims:
                changed = TRICKS[lie.trick](self.world.rng, message, self.memory)
                true = [letter] if lie.is_added else []
                told = true if changed is None else [signed(changed), *true]
        return told

    def on_message(self, letter: Signed) -> None:
        """A message arrives."""
        message: Message = letter.message
        if isinstance(message, Proposal) and message.value not in self.memory.values:
            self.memory.values.append(message.value)
        if message.height == self.height + 1 and letter not in self.early:
            self.early.append(letter)
        self._feed(MessageReceived(letter))

    def on_status(self, status: PeerStatus) -> None:
        """A peer says where it stands; one that is behind is given the block it lacks."""
        peer = self.world.nodes[status.peer[0]]
        if status.height < self.height:
            self.world.after(LINK_MS[1], peer.on_block, status.height)
        elif status.height == self.height:
            self._feed(status)

    def on_block(self, height: int) -> None:
        """A decided block with its certificate; a correct node gives what was decided."""
        if height == self.height and height in self.world.values:
            self.begin(height + 1)

    def _on_work(self, height: int) -> None:
        if height == self.height:
            self._feed(WorkAvailable(height))

    def _on_timer(self, timer) -> None:
        if timer.height == self.height:
            self._feed(TimerFired(timer))

    def _judge(self, request: CheckBlock) -> Verdict | None:
        world, plan = self.world, self.world.plan
        if request.value == BAD_BLOCK or request.value[17:25] != b"%8d" % request.height:
            return Verdict.INVALID
        if not world.is_calm and world.rng.random() < plan.slow_check:
            return None
        is_late = not world.is_calm and world.rng.random() < plan.untimely
        return Verdict.UNTIMELY if is_late else Verdict.VALID

    def _on_checked(self, request: CheckBlock) -> None:
        if request.height == self.height:
            self._feed(BlockChecked(request.height, request.round, request.value, Verdict.VALID))


def run_seed(seed: int) -> str:
    """What is wrong with the run of a seed: "" for nothing."""
    try:
        World(draw(seed)).run()
    except Violation as found:
        return str(found)
    except Exception as error:  # noqa: BLE001  # any error of a core is a finding of this seed
        return f"{type(error).__name__}: {error}"
    return ""
