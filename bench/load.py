"""Open-loop load: transactions leave on a schedule fixed beforehand, whatever the chain does.

Latency counts from the intended moment of sending to the reply of another node that names the
height, so a slow chain or a late generator cannot hide behind its own delay.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import trio

from bench.calibration import Calibration

PER_REQUEST = 100
"""Transactions of one `send_transactions` call; at 4,500 a second a call leaves every 22 ms."""
DRAIN_S = 20.0
"""How long after the last call a transaction may still commit before it counts as lost."""


class _Sent(msgspec.Struct):
    id: str = ""


class _SentResult(msgspec.Struct):
    transactions: list[_Sent]


class _SentReply(msgspec.Struct):
    result: _SentResult


class _Height(msgspec.Struct):
    height: int


class _HeightReply(msgspec.Struct):
    result: _Height


class _Block(msgspec.Struct):
    transactions: list[str]


class _BlockReply(msgspec.Struct):
    result: _Block


@dataclass(slots=True)
class Outcome:
    """What became of a run. Times in seconds of trio's clock."""

    intended: dict[str, float] = field(default_factory=dict[str, float])
    latencies: list[float] = field(default_factory=list[float])
    refused: int = 0
    started: float = 0.0
    last_commit: float = 0.0
    late_calls: int = 0
    changed: trio.Event = field(default_factory=trio.Event)

    async def wait_for(self, count: int) -> None:
        """Wait until so many transactions are committed or refused."""
        while len(self.latencies) + self.refused < count:
            await self.changed.wait()

    def note_change(self) -> None:
        """Wake who waits."""
        self.changed.set()
        self.changed = trio.Event()


class HttpLink:
    """One keep-alive connection to a node; one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stream: trio.SocketStream | None = None
        self._lock = trio.Lock()

    async def post(self, body: bytes) -> bytes:
        """The body of the reply."""
        async with self._lock:
            if self._stream is None:
                self._stream = await trio.open_tcp_stream("127.0.0.1", self._port)
            head = (
                f"POST / HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            await self._stream.send_all(head.encode() + body)
            return await self._reply(self._stream)

    async def aclose(self) -> None:
        """Close the connection."""
        if self._stream is not None:
            await trio.aclose_forcefully(self._stream)

    async def _reply(self, stream: trio.SocketStream) -> bytes:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += await _receive(stream)
        head = data[:end].lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        while len(data) < end + 4 + length:
            data += await _receive(stream)
        return data[end + 4 :]


async def _receive(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(1 << 20)
    if not data:
        raise trio.BrokenResourceError("the node closed the connection")
    return bytes(data)


def request(method: str, **params: object) -> bytes:
    """A JSON-RPC request."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return msgspec.json.encode(body)


async def run_load(
    ports: Sequence[int], wires: Sequence[bytes], rate: int, calibration: Calibration
) -> Outcome:
    """Send all transactions at `rate` a second over all nodes and wait until they are committed."""
    calls = [
        request("send_transactions", transactions=list(wires[start : start + PER_REQUEST]))
        for start in range(0, len(wires), PER_REQUEST)
    ]
    outcome = Outcome()
    entries: dict[str, int] = {}
    async with trio.open_nursery() as nursery:
        observers = [HttpLink(ports[-1]), HttpLink(ports[0])]
        height = (await _height(observers[0], 0)) + 1
        outcome.started = trio.current_time() + 0.2
        for link, watched in zip(observers, (range(len(ports) - 1), [len(ports) - 1]), strict=True):
            nursery.start_soon(_observe, link, height, outcome, entries, frozenset(watched))
        links = [[HttpLink(port) for _ in range(4)] for port in ports]
        async with trio.open_nursery() as senders:
            for number, call in enumerate(calls):
                due = outcome.started + (number + 1) * PER_REQUEST / rate
                await trio.sleep_until(due)
                if trio.current_time() > due + 0.005:
                    outcome.late_calls += 1
                node = number % len(ports)
                link = links[node][number // len(ports) % 4]
                first = outcome.started + number * PER_REQUEST / rate
                senders.start_soon(_send, link, call, node, first, rate, outcome, entries)
                if number % 5 == 0:
                    calibration.sample()
        with trio.move_on_after(DRAIN_S):
            await outcome.wait_for(len(wires))
        nursery.cancel_scope.cancel()
    for link in [*observers, *(link for row in links for link in row)]:
        await link.aclose()
    return outcome


async def _send(
    link: HttpLink,
    call: bytes,
    node: int,
    first: float,
    rate: int,
    outcome: Outcome,
    entries: dict[str, int],
) -> None:
    reply = msgspec.json.decode(await link.post(call), type=_SentReply)
    for index, item in enumerate(reply.result.transactions):
        if item.id:
            outcome.intended[item.id] = first + index / rate
            entries[item.id] = node
        else:
            outcome.refused += 1


async def _height(link: HttpLink, height: int) -> int:
    body = request("wait_height", height=height, timeout_ms=20_000)
    return msgspec.json.decode(await link.post(body), type=_HeightReply).result.height


async def _observe(
    link: HttpLink, height: int, outcome: Outcome, entries: dict[str, int], watched: frozenset[int]
) -> None:
    """Read every block of one node and note the transactions that entered at the watched others."""
    early: list[tuple[str, float]] = []
    while True:
        await _height(link, height)
        answer = await link.post(request("get_block", height=height))
        reply = msgspec.json.decode(answer, type=_BlockReply)
        now = trio.current_time()
        height += 1
        seen = early + [(item, now) for item in reply.result.transactions]
        early = []
        for item, at in seen:
            if item not in entries:
                # The block was faster than the answer of the entry node.
                early.append((item, at))
            elif entries[item] in watched:
                outcome.latencies.append(at - outcome.intended[item])
                outcome.last_commit = max(outcome.last_commit, at)
        outcome.note_change()
