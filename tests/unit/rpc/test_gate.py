"""The gate: who runs, who stands in line, who must come back; and no address takes all."""

import json

import pytest
import trio
import trio.testing

from rpc.gate import Gate
from rpc.jsonrpc import BusyError
from rpc.limits import (
    LONG_POLLS,
    LONG_POLLS_PER_ADDRESS,
    RETRY_AFTER_MS,
    RUNNING_REQUESTS,
    WAITING_REQUESTS,
    WAITING_REQUESTS_PER_ADDRESS,
)

from .test_front_door import NAMES, Hall, Method, NoParams, Registry, front_door, request


class Visitors:
    """Many clients at one gate: who is inside, who polls, who was refused."""

    def __init__(self):
        self.gate = Gate()
        self.leave = trio.Event()
        self.inside = self.polling = self.refused = self.finished = 0

    async def visit(self, client, *, polls=False):
        try:
            async with self.gate.place(client) as place:
                self.inside += 1
                try:
                    if polls:
                        async with place.waiting():
                            self.polling += 1
                            await self.leave.wait()
                    else:
                        await self.leave.wait()
                finally:
                    self.inside -= 1
                self.finished += 1
        except BusyError as error:
            self.refused += error.retry_after_ms == RETRY_AFTER_MS


def visits(*groups, polls=False):
    """(running, refused, polling) after groups of (client, count) came, and that all is given."""

    async def main():
        visitors = Visitors()
        async with trio.open_nursery() as nursery:
            for client, count in groups:
                for _ in range(count):
                    nursery.start_soon(lambda c=client: visitors.visit(c, polls=polls))
                await trio.testing.wait_all_tasks_blocked()
            found = visitors.inside, visitors.refused, visitors.polling
            visitors.leave.set()
        total = sum(count for _, count in groups)
        assert visitors.finished + visitors.refused == total
        gate = visitors.gate
        assert gate.places.value == RUNNING_REQUESTS
        assert (gate.line._count, gate.line._clients) == (0, {})
        assert (gate.polls._count, gate.polls._clients) == (0, {})
        return found

    return trio.run(main)


def test_one_address_runs_and_stands_in_line_up_to_its_share():
    room = RUNNING_REQUESTS + WAITING_REQUESTS_PER_ADDRESS
    assert visits(("a", room)) == (RUNNING_REQUESTS, 0, 0)
    assert visits(("a", room + 5)) == (RUNNING_REQUESTS, 5, 0)


def test_a_flood_from_one_address_leaves_room_for_the_next():
    flood = 10 * (RUNNING_REQUESTS + WAITING_REQUESTS_PER_ADDRESS)
    refused = flood - RUNNING_REQUESTS - WAITING_REQUESTS_PER_ADDRESS
    assert visits(("bot", flood), ("hospital", 10)) == (RUNNING_REQUESTS, refused, 0)


def test_the_whole_line_is_bounded():
    groups = [(f"bot {n}", WAITING_REQUESTS_PER_ADDRESS) for n in range(10)]
    running, refused, _ = visits(*groups)
    room = RUNNING_REQUESTS + WAITING_REQUESTS
    assert (running, refused) == (RUNNING_REQUESTS, 10 * WAITING_REQUESTS_PER_ADDRESS - room)


def test_long_polls_are_bounded_for_one_address_and_for_all():
    _, refused, polling = visits(("a", LONG_POLLS_PER_ADDRESS + 3), polls=True)
    assert (refused, polling) == (3, LONG_POLLS_PER_ADDRESS)
    groups = [(f"poller {n}", LONG_POLLS_PER_ADDRESS) for n in range(4)]
    _, refused, polling = visits(*groups, polls=True)
    assert (refused, polling) == (4 * LONG_POLLS_PER_ADDRESS - LONG_POLLS, LONG_POLLS)


@pytest.mark.parametrize("polls", [True, False])
def test_who_is_cancelled_gives_everything_back(polls):
    async def main():
        visitors = Visitors()
        async with trio.open_nursery() as nursery:
            for _ in range(RUNNING_REQUESTS + 20):
                nursery.start_soon(lambda: visitors.visit("a", polls=polls))
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        gate = visitors.gate
        return gate.places.value, gate.line._count, gate.polls._count

    assert trio.run(main) == (RUNNING_REQUESTS, 0, 0)


def test_a_full_line_is_answered_with_503_busy_and_when_to_come_back():
    async def main():
        hall = Hall()
        methods = [Method(name, NoParams, getattr(hall, name), "") for name in NAMES]
        app = front_door(Registry(methods), {})
        body = b'{"jsonrpc":"2.0","method":"busy","id":1}'
        async with trio.open_nursery() as nursery:
            for _ in range(RUNNING_REQUESTS + WAITING_REQUESTS_PER_ADDRESS):
                nursery.start_soon(app, request(body=body))
            await trio.testing.wait_all_tasks_blocked()
            refused = await app(request(body=body))
            hall.gate.set()
        return refused

    refused = trio.run(main)
    error = json.loads(refused.body)["error"]
    assert (refused.status, error["kind"]) == (503, "busy")
    assert error["retry_after_ms"] == RETRY_AFTER_MS
    assert ("Retry-After", "1") in refused.headers
