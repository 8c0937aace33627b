"""`kanglian bench flood`: do clients who flood one node keep the chain from making blocks?

Four real validators register data at a fixed rate, entering at three of them. First alone, then
while the fourth is flooded by many connections at once: valid reads, the dearest reads, garbage at
the limits of size, requests that trickle, clients that do not read. What counts is the interval
between blocks, by their agreed times, and that every transaction is committed. The flooding
clients run in a process of their own and share the machine, so they cost the nodes CPU as well.
"""

import json
import multiprocessing
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bench.calibration import Calibration
from bench.load import Outcome, request, run_load
from bench.quick import Load, sign_load, start_network, states_equal
from node.clock import SystemClock
from node.devnet import Devnet
from rpc.client import Client
from rpc.limits import BODY_BYTES

RATE = 1_000
SECONDS = 20
READERS, HEAVY, GARBAGE, SLOW, DEAF, COMERS = 40, 16, 16, 24, 8, 24
"""Connections of each kind: with the observers about as many as one address may keep."""


@dataclass(frozen=True, slots=True)
class Phase:
    """The chain over one phase; intervals are those of the agreed block times."""

    name: str
    blocks: int
    interval_p50_ms: int
    interval_p99_ms: int
    latency_p50_ms: float
    latency_p99_ms: float
    offered: int
    committed: int


@dataclass(frozen=True, slots=True)
class Report:
    """Both phases, and what the flood heard."""

    phases: tuple[Phase, ...]
    answers: dict[str, int]
    states_equal: bool


def main(*, json_output: bool) -> int:
    """Measure and print; 0 when every transaction was committed and all nodes agree."""
    report = measure()
    print(json.dumps(asdict(report)) if json_output else render(report))
    whole = all(phase.committed == phase.offered for phase in report.phases)
    return 0 if whole and report.states_equal else 1


def measure(seconds: int = SECONDS) -> Report:
    """Start a network in a temporary folder, measure without and with the flood, stop it."""
    directory = Path(tempfile.mkdtemp(prefix="kanglian-flood-"))
    devnet = Devnet(directory, SystemClock())
    try:
        start_network(devnet, directory)
        return _measure(devnet, directory, seconds)
    finally:
        if (directory / "devnet.json").exists():
            devnet.stop()
        shutil.rmtree(directory, ignore_errors=True)


def _measure(devnet: Devnet, directory: Path, seconds: int) -> Report:
    nodes = devnet.state().nodes
    ports = [urlsplit(node.rpc).port or 0 for node in nodes]
    load = Load(1, RATE, seconds)
    quiet = _phase("quiet", nodes[0].rpc, ports, sign_load(directory, nodes[0], load))
    context = multiprocessing.get_context("spawn")
    stop, answers = context.Event(), context.Queue()
    flood = context.Process(target=_flood, args=(ports[-1], stop, answers))
    wires = sign_load(directory, nodes[0], load)
    flood.start()
    try:
        time.sleep(1.0)
        flooded = _phase("flood", nodes[0].rpc, ports, wires)
    finally:
        stop.set()
        heard = answers.get(timeout=60)
        flood.join()
    time.sleep(2.0)  # until the flooded node has seen that its clients are gone
    return Report((quiet, flooded), dict(heard.most_common()), states_equal(nodes))


def _phase(name: str, url: str, ports: list[int], wires: list[bytes]) -> Phase:
    """Register `wires` through all nodes but the last; the blocks of that time."""
    with Client(url) as client:
        first = client.getinfo()["height"] + 1
        outcome = trio.run(run_load, ports[:-1], wires, RATE, Calibration())
        last = client.getinfo()["height"]
        headers = [client.get_block_header(height) for height in range(first, last + 1)]
    return _figures(name, outcome, [header["header"] for header in headers], len(wires))


def _figures(name: str, outcome: Outcome, headers: list[dict[str, int]], offered: int) -> Phase:
    times = [header["time"] for header in headers]
    intervals = sorted(late - early for early, late in pairwise(times)) or [0]
    latencies = sorted(outcome.latencies) or [0.0]
    return Phase(
        name=name,
        blocks=len(headers),
        interval_p50_ms=intervals[len(intervals) // 2],
        interval_p99_ms=intervals[len(intervals) * 99 // 100],
        latency_p50_ms=round(latencies[len(latencies) // 2] * 1_000, 1),
        latency_p99_ms=round(latencies[len(latencies) * 99 // 100] * 1_000, 1),
        offered=offered,
        committed=len(outcome.latencies),
    )


# ---- the flood ---------------------------------------------------------------------------------


def _flood(port: int, stop: Event, answers: "Queue[Counter[str]]") -> None:
    """Run in a process of its own until told to stop; then say what was heard."""
    heard: Counter[str] = Counter()
    trio.run(_flood_until, port, stop, heard)
    answers.put(heard)


async def _flood_until(port: int, stop: Event, heard: Counter[str]) -> None:
    junk = b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":{":":"' + b"\\u4e2d" * 100_000
    kinds: tuple[tuple[int, Callable[[], Awaitable[None]]], ...] = (
        (READERS, lambda: _asking(port, request("getinfo"), heard)),
        (HEAVY, lambda: _asking(port, request("get_block", full=True), heard)),
        (GARBAGE, lambda: _asking(port, junk[:BODY_BYTES], heard)),
        (SLOW, lambda: _trickling(port, heard)),
        (DEAF, lambda: _deaf(port, heard)),
        (COMERS, lambda: _coming(port, heard)),
    )
    async with trio.open_nursery() as nursery:
        for count, kind in kinds:
            for _ in range(count):
                nursery.start_soon(_forever, kind, heard)
        while not stop.is_set():  # noqa: ASYNC110 - the event is of another process
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()


async def _forever(kind: Callable[[], Awaitable[None]], heard: Counter[str]) -> None:
    while True:
        try:
            await kind()
        except (trio.BrokenResourceError, OSError):
            heard["closed"] += 1
        await trio.sleep(0.01)


async def _asking(port: int, body: bytes, heard: Counter[str]) -> None:
    """One request after another on one connection."""
    head = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        while True:
            await stream.send_all(head % len(body) + body)
            await _answer(stream, heard)


async def _trickling(port: int, heard: Counter[str]) -> None:
    """A request that never ends."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        for byte in b"POST / HTTP/1.1\r\nContent-Length: 100000\r\nX: " + b"y" * 10_000:
            await stream.send_all(bytes([byte]))
            await trio.sleep(0.2)
        await _answer(stream, heard)


async def _deaf(port: int, heard: Counter[str]) -> None:
    """Large questions whose answers are never read."""
    body = request("get_block", full=True)
    head = b"POST / HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        while True:
            await stream.send_all(head % len(body) + body)
            heard["never read"] += 1


async def _coming(port: int, heard: Counter[str]) -> None:
    """A connection for every request, as a script in a loop has it."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET /metrics HTTP/1.1\r\nConnection: close\r\n\r\n")
        await _answer(stream, heard)


async def _answer(stream: trio.SocketStream, heard: Counter[str]) -> None:
    """Read one answer and count its status, or the name of its refusal."""
    data = b""
    while (end := data.find(b"\r\n\r\n")) < 0:
        data += await _some(stream)
    head = data[:end].lower()
    size = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    while len(data) < end + 4 + size:
        data += await _some(stream)
    status = data[9:12].decode()
    if status == "200":
        heard["200"] += 1
        return
    heard[f"{status} {json.loads(data[end + 4 :])['error']['kind']}"] += 1


async def _some(stream: trio.SocketStream) -> bytes:
    data = await stream.receive_some(1 << 18)
    if not data:
        raise trio.BrokenResourceError("the node closed the connection")
    return bytes(data)


def render(report: Report) -> str:
    """The report for people."""
    lines = ["phase   blocks  interval p50  p99 ms  latency p50    p99 ms  offered  committed"]
    lines += [
        f"{phase.name:7s} {phase.blocks:6d}  {phase.interval_p50_ms:12d}  "
        f"{phase.interval_p99_ms:6d}  {phase.latency_p50_ms:11.1f}  {phase.latency_p99_ms:8.1f}  "
        f"{phase.offered:7d}  {phase.committed:9d}"
        for phase in report.phases
    ]
    lines += ["", "what the flood heard"]
    lines += [f"{count:10,d}  {answer}" for answer, count in report.answers.items()]
    lines += ["", f"states equal: {'yes' if report.states_equal else 'NO'}"]
    return "\n".join(lines)
