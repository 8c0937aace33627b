"""Kills real nodes, mostly two by turns and sometimes all at once, and watches the others.

What it decides: who dies next, when and where. Every node has a plan of starts that end in death;
when the plan is used up it is started plainly, and once it has caught up it is free to be chosen
again. Two nodes are in such trouble at a time, so the chain stands still and goes on by turns.
"""

import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from .clients import Load
from .cluster import PLAIN, Cluster, Node, Start, Violation, last_words
from .launcher import LABELS
from .watch import Watch

IN_TROUBLE = (1, 2, 2)
"""One of four down: the chain flows. Two: it stands still, and votes of one round meet restarts."""
WATCH_S = 0.1
GATHER_S = 0.5
FIRE_S = 2.5
"""A point that a recovered node does not reach within this is given up: it dies where it is."""
STUCK_S = 60.0
TOGETHER_EVERY = 25


@dataclass(frozen=True)
class Death:
    """How one life of a node ends: at a point's n-th passage, or after so many seconds."""

    label: str | None
    calls: int
    after_s: float


@dataclass
class Life:
    """A node and what is planned for it."""

    node: Node
    plan: deque[Death] = field(default_factory=deque)
    death: Death | None = None
    started_at: float = 0.0
    restart_at: float = 0.0
    dies_at: float = 0.0
    is_recovered: bool = True

    @property
    def is_free(self) -> bool:
        return self.is_recovered and self.death is None and self.node.process is not None


@dataclass
class Tally:
    """The figures of all hunts of a run."""

    kills: Counter = field(default_factory=Counter)
    covered: set[str] = field(default_factory=set)
    recoveries_s: list[float] = field(default_factory=list)
    acknowledged: int = 0
    heights: int = 0
    networks: int = 0

    @property
    def total(self) -> int:
        return self.kills.total()


class Deck:
    """Deaths in shuffled order: every point once, with deaths at random moments in between."""

    def __init__(self, generator: random.Random, labels: tuple[str, ...] = LABELS) -> None:
        self._random = generator
        self._labels = labels
        self._cards: list[Death] = []

    def draw(self) -> Death:
        if not self._cards:
            cards = [Death(label, self._calls(label), STUCK_S) for label in self._labels]
            cards += [self._moment(3.0) for _ in range(len(cards) // 4)]
            cards += [self._moment(0.9) for _ in range(len(cards) // 4)]
            self._random.shuffle(cards)
            self._cards = cards
        return self._cards.pop()

    def _calls(self, label: str) -> int:
        """Often the first passage, which is early in recovery; sometimes one far into the work."""
        if label.startswith("start."):
            return 1  # a start opens everything once
        is_rare = label.startswith(("rotation.", "sync.", "answer.", "batch.", "send.batch"))
        return self._random.choice((1, 1, 2) if is_rare else (1, 2, 3, 5, 8, 13, 21))

    def _moment(self, longest_s: float) -> Death:
        return Death(None, 1, self._random.uniform(0.0, longest_s))


class Hunt:
    """One network under kills."""

    def __init__(
        self, cluster: Cluster, load: Load, deck: Deck, generator: random.Random, tally: Tally
    ) -> None:
        self.lives = [Life(node) for node in cluster.nodes]
        self.watch = Watch(cluster.nodes, load)
        self._cluster = cluster
        self._deck = deck
        self._random = generator
        self._tally = tally
        self._bug: str | None = None
        self._next_watch = 0.0
        self._next_gather = 0.0
        self._until_together = TOGETHER_EVERY
        self._in_trouble = IN_TROUBLE[0]

    def plant(self, bug: str) -> None:
        """Let every start from now on carry a mistake."""
        self._bug = bug

    def run(self, kills: int, on_kill) -> None:
        """Kill so many times, then let everybody recover.

        Raises: Violation.
        """
        goal = self._tally.total + kills
        while self._tally.total < goal:
            before = self._tally.total
            self._choose_victims()
            self._step()
            if self._tally.total > before:
                on_kill()
        armed = [life for life in self.lives if life.death is not None]
        for life in self.lives:
            life.plan.clear()
        self._kill([life for life in armed if life.node.process is not None], "random")
        while not all(life.is_free for life in self.lives):
            self._step()

    def _step(self) -> None:
        time.sleep(0.02)
        now = time.monotonic()
        for life in self.lives:
            if life.node.process is None:
                if now >= life.restart_at:
                    self._start(life)
            else:
                self._attend(life, now)
        if now >= self._next_watch:
            self._next_watch = now + WATCH_S
            for life in self.lives:
                self._look(life)
        if now >= self._next_gather:
            self._next_gather = now + GATHER_S
            self.watch.logs()
        self.watch.clients()

    def _choose_victims(self) -> None:
        if self._until_together <= 0:
            self._until_together = TOGETHER_EVERY
            count = self._random.choice((2, 3, len(self.lives), len(self.lives)))
            together = self._random.sample(self.lives, count)
            self._kill([life for life in together if life.node.process is not None], "together")
            return
        free = [life for life in self.lives if life.is_free]
        if len(self.lives) - len(free) < self._in_trouble and free:
            self._in_trouble = self._random.choice(IN_TROUBLE)
            life = self._random.choice(free)
            for _ in range(self._random.randrange(2, 7)):
                life.plan.append(self._deck.draw())
            self._kill([life], "random")

    def _kill(self, lives: list[Life], kind: str) -> None:
        self._cluster.kill(*[life.node for life in lives])
        for life in lives:
            self._died(life, kind)

    def _died(self, life: Life, kind: str) -> None:
        self._tally.kills[kind if life.is_recovered else f"{kind}, not yet recovered"] += 1
        self._until_together -= 1
        life.death = None
        life.is_recovered = False
        pause = self._random.choice((0.0, 0.0, 0.1, 0.4, 1.5))
        life.restart_at = time.monotonic() + self._random.uniform(0.0, pause)

    def _start(self, life: Life) -> None:
        self.watch.evidence.gather([life.node])
        life.death = life.plan.popleft() if life.plan else None
        how = PLAIN
        if life.death is not None and life.death.label is not None:
            how = Start(life.death.label, life.death.calls, self._bug)
        elif self._bug is not None:
            how = Start(bug=self._bug)
        life.is_recovered = False
        life.started_at = time.monotonic()
        life.dies_at = life.started_at + (0.0 if life.death is None else life.death.after_s)
        self._cluster.start(life.node, how)

    def _attend(self, life: Life, now: float) -> None:
        """See whether a node died as planned, or is due to."""
        node, death = life.node, life.death
        if node.process.poll() is not None:
            code = self._cluster.bury(node)
            if not node.note.exists():
                raise Violation(f"{node.name} ended by itself with {code}: {last_words(node)}")
            label = node.note.read_text()
            self._tally.covered.add(label)
            self._died(life, "point")
        elif death is not None and now >= life.dies_at:
            self._kill([life], "random")
        elif not life.is_recovered and now > life.started_at + STUCK_S:
            raise Violation(f"{node.name} does not recover within {STUCK_S} s: {last_words(node)}")

    def _look(self, life: Life) -> None:
        height = self.watch.look(life.node)
        if height is not None and not life.is_recovered and height >= self.watch.best - 1:
            life.is_recovered = True
            self._tally.recoveries_s.append(time.monotonic() - life.started_at)
            if life.death is not None and life.death.label is not None:
                life.dies_at = time.monotonic() + FIRE_S
