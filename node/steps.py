"""Driving a long computation of the ledger with a look at the event loop after every step."""

from collections.abc import Generator
from typing import TypeVar

import trio

T = TypeVar("T")


async def in_steps(steps: Generator[None, None, T]) -> T:
    """The result of steps."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value
        await trio.lowlevel.checkpoint()
