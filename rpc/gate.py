"""The gate of the front door: how many requests run, how many stand in line, how many wait.

What it decides: who runs now, who waits a moment, and who is told at once to come back.
What it never does: look into a request. A client is the network address it calls from, and no
address can take the whole line, so a flood from one does not lock out the others.
"""

from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from typing import Self

import trio

from rpc.jsonrpc import BusyError
from rpc.limits import (
    LONG_POLLS,
    LONG_POLLS_PER_ADDRESS,
    RETRY_AFTER_MS,
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    WAITING_REQUESTS_PER_ADDRESS,
)


class _Line:
    """A bounded number of clients, bounded for each of them."""

    __slots__ = ("_clients", "_count", "_most", "_most_per_client")

    def __init__(self, most: int, most_per_client: int) -> None:
        self._most = most
        self._most_per_client = most_per_client
        self._count = 0
        self._clients: dict[str, int] = {}

    @contextmanager
    def stand(self, client: str, what: str) -> Generator[None]:
        """Be one of them for a while.

        Raises: BusyError when there are too many.
        """
        mine = self._clients.get(client, 0)
        if self._count >= self._most or mine >= self._most_per_client:
            raise BusyError(f"the node has too many {what}; try again later", RETRY_AFTER_MS)
        self._count += 1
        self._clients[client] = mine + 1
        try:
            yield
        finally:
            self._count -= 1
            left = self._clients[client] - 1
            if left:
                self._clients[client] = left
            else:
                del self._clients[client]


class Gate:
    """Places for running requests, the line before them, and the room for long polls."""

    def __init__(self) -> None:
        self.places = trio.Semaphore(RUNNING_REQUESTS, max_value=RUNNING_REQUESTS)
        self.line = _Line(WAITING_REQUESTS, WAITING_REQUESTS_PER_ADDRESS)
        self.polls = _Line(LONG_POLLS, LONG_POLLS_PER_ADDRESS)

    def place(self, client: str) -> "Place":
        """One place for a request of this client; entering it may raise BusyError."""
        return Place(self, client)


class Place:
    """One running place, held for `async with` except inside `waiting()`."""

    __slots__ = ("_client", "_gate", "_held")

    def __init__(self, gate: Gate, client: str) -> None:
        self._gate = gate
        self._client = client
        self._held = False

    async def __aenter__(self) -> Self:
        try:
            self._gate.places.acquire_nowait()
        except trio.WouldBlock:
            with self._gate.line.stand(self._client, "requests"):
                await self._gate.places.acquire()
        self._held = True
        return self

    async def __aexit__(self, *_: object) -> None:
        self._give()

    @asynccontextmanager
    async def waiting(self) -> AsyncGenerator[None]:
        """Let another request run until the block ends; after an error the place stays given.

        Raises: BusyError when too many wait already; the place is then kept.
        """
        with self._gate.polls.stand(self._client, "requests that wait for the chain"):
            self._give()
            yield
        # Its work has begun and is bounded by the polls, so it is not refused any more.
        await self._gate.places.acquire()
        self._held = True

    def _give(self) -> None:
        if self._held:
            self._held = False
            self._gate.places.release()
