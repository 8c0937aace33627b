"""Trio made repeatable: the one module that knows names inside of it.

What it decides: the order in which trio runs tasks that are ready at the same moment, drawn from a
seed, and after how many steps of its tasks something happens to a node. A step ends at an await,
so an action before step k is one at await k.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import trio
from trio._core import _run as inside
from trio.testing import MockClock

OWNER: ContextVar[int] = ContextVar("owner")
"""The node that a task belongs to; whatever the task starts belongs to it as well."""
SWITCH = "_ALLOW_DETERMINISTIC_SCHEDULING"
GENERATOR = "_r"


@contextmanager
def owned_by(node: int) -> Iterator[None]:
    """What is started here belongs to a node."""
    token = OWNER.set(node)
    try:
        yield
    finally:
        OWNER.reset(token)


class Steps(trio.abc.Instrument):
    """Counts the steps of every node's tasks, and acts when a number is reached."""

    def __init__(self) -> None:
        self.taken: Counter[int] = Counter()
        self._due: dict[int, tuple[int, Callable[[], None]]] = {}

    def act_after(self, node: int, steps: int, action: Callable[[], None]) -> None:
        """Before the step that follows `steps` more of this node; replaces an earlier wish."""
        self._due[node] = (self.taken[node] + steps, action)

    def forget(self, node: int) -> None:
        self._due.pop(node, None)

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        owner = task.context.get(OWNER)
        if owner is None:
            return
        due = self._due.get(owner)
        if due is not None and self.taken[owner] >= due[0]:
            del self._due[owner]
            due[1]()
        self.taken[owner] += 1


def run(main: Callable[[], Awaitable[None]], seed: int, steps: Steps) -> None:
    """`trio.run` whose order of tasks depends on the seed alone."""
    for name in (SWITCH, GENERATOR):
        if not hasattr(inside, name):
            raise RuntimeError(f"this trio has no {name}; its order of tasks cannot be fixed")
    switch, generator = getattr(inside, SWITCH), getattr(inside, GENERATOR)
    state = generator.getstate()
    setattr(inside, SWITCH, True)
    generator.seed(seed)
    try:
        trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[steps])
    finally:
        setattr(inside, SWITCH, switch)
        generator.setstate(state)
