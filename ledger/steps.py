"""Long computations that pause: generators that yield where a caller may look at other work.

They decide what they would decide at once; only who drives them differs.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """The result of steps, without any pause."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
