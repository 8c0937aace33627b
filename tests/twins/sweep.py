"""Works through numbered tasks in order, in several processes, until a time is over."""

import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Finding = tuple[int, str]
"""The number of a scenario or seed, and what is wrong with it."""
Task = Callable[[int], list[Finding]]


@dataclass(slots=True)
class Swept:
    """How far a sweep came: every number below `next` was done, from where it began."""

    next: int
    findings: list[Finding] = field(default_factory=list)


def sweep(task: Task, numbers: range, *, seconds: float, jobs: int) -> Swept:
    """Do `numbers` in order, and no more once `seconds` have passed. `task` has no state."""
    swept = Swept(numbers.start)
    deadline = time.monotonic() + seconds
    if jobs == 1:
        _take(map(task, numbers), swept, deadline)
        return swept
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        _take(pool.imap(task, numbers), swept, deadline)
    return swept


def _take(results: Iterator[list[Finding]], swept: Swept, deadline: float) -> None:
    for findings in results:
        swept.findings += findings
        swept.next += 1
        if time.monotonic() >= deadline:
            return
