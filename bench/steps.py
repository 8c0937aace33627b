"""How long one task keeps the event loop: the CPU of every step between two checkpoints.

A lone node runs in this process with its real stores and front door; clients in the same process
ask for what is dearest: large envelopes and their proofs, full blocks at length, old blocks, full
batches of calls, garbage at the limits of size, a backup. `python -m bench.steps` lists the worst
steps. The rule is 2 ms for everything but consensus, which owns the loop.
"""

import gc
import secrets
import socket
import sys
import tempfile
import time
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from heapq import heappush, heapreplace
from pathlib import Path

import msgspec
import trio

from bench.calibration import Calibration
from bench.load import HttpLink, request
from genesis.networks import development_network
from ledger.codec import encode
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import Parts, register_arguments
from ledger.transaction import Call, operation_ids, parse_transaction
from node.backup_channel import BackupChannel, channel_name
from node.clock import SystemClock
from node.config import load_config
from node.devnet import DevelopmentKeys
from node.keystore import PassphraseSource, load_key
from node.node import RunningNode, open_node
from rpc.client import Signer, account_signer
from rpc.http import HttpConfig, serve_http
from rpc.limits import BODY_BYTES, JSON_VALUES
from rpc.methods import build_app

WORST = 20
LIMIT_MS = 2.0
CONSENSUS = "ConsensusDriver.run"
"""The task that decides and executes: it owns the loop."""
BLOCK_TRANSACTIONS = 4_000
"""A full block of registrations."""


@dataclass(frozen=True, slots=True, order=True)
class Step:
    """One stretch of a task without a checkpoint, where it stopped, what was asked meanwhile."""

    cpu_us: int
    task: str
    until: str
    asked: str


class StepMeter(trio.abc.Instrument):
    """Keeps the worst steps of all tasks but those of the measuring clients."""

    def __init__(self) -> None:
        self.worst: list[Step] = []
        self.count = 0
        self.asked = ""
        self._start = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:  # noqa: ARG002 - trio names it
        """trio: a task goes on."""
        self._start = time.thread_time_ns()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """trio: a task waits again."""
        cpu_us = (time.thread_time_ns() - self._start) // 1_000
        self.count += 1
        if len(self.worst) == WORST and cpu_us <= self.worst[0].cpu_us:
            return
        if task.name.startswith(("bench.", "__main__.")):
            return
        step = Step(cpu_us, task.name, _place(task), self.asked)
        if len(self.worst) < WORST:
            heappush(self.worst, step)
        else:
            heapreplace(self.worst, step)

    def over(self, limit_us: float) -> list[Step]:
        """Kept steps of others than consensus that took longer, worst first."""
        found = [
            step
            for step in self.worst
            if step.cpu_us > limit_us and not step.task.endswith(CONSENSUS)
        ]
        return sorted(found, reverse=True)


def _place(task: trio.lowlevel.Task) -> str:
    """The innermost line of ours at which the task waits now."""
    place = "end"
    for frame, line in task.iter_await_frames():
        path = frame.f_code.co_filename
        if "site-packages" not in path and "contextlib" not in path:
            place = f"{Path(path).parent.name}/{Path(path).name}:{line}"
    return place


@asynccontextmanager
async def _served(directory: Path) -> AsyncGenerator[tuple[int, RunningNode]]:
    """A lone node and the port of its front door."""
    clock = SystemClock()
    with socket.create_server(("127.0.0.1", 0)) as probe:
        base_port = probe.getsockname()[1]
    files = development_network(directory, DevelopmentKeys(), clock.now_ms(), 1, base_port)
    node = open_node(load_config(files.nodes[0].config, {}), PassphraseSource())
    app = build_app(node, node.metrics.render)
    backups = BackupChannel(directory, node.chain, node.blocks, lambda: node.height)
    async with trio.open_nursery() as nursery:
        await nursery.start(node.run)
        await nursery.start(backups.run)
        port = await nursery.start(serve_http, HttpConfig("127.0.0.1", 0), app)
        # As rpc/daemon.py does: what start-up made is not walked by the collector.
        gc.collect()
        gc.freeze()
        try:
            yield port, node
        finally:
            gc.unfreeze()
            nursery.cancel_scope.cancel()


class Asker:
    """One client that asks one thing after another."""

    def __init__(self, port: int, signer: Signer, meter: StepMeter) -> None:
        self._link = HttpLink(port)
        self._meter = meter
        self.signer = signer

    async def ask(self, method: str, **params: object) -> bytes:
        """The reply to one call."""
        self._meter.asked = method
        return await self._link.post(request(method, **params))

    async def raw(self, body: bytes) -> bytes:
        """The reply to any body."""
        self._meter.asked = f"{len(body)} bytes {body[:60]!r}"
        return await self._link.post(body)

    async def aclose(self) -> None:
        """Close the connection."""
        await self._link.aclose()

    def register(self) -> Call:
        """A registration that nobody made before."""
        parts = Parts(b"operator", b"create", b"Observation", b"", b"record")
        arguments = register_arguments(
            INTERNATIONAL,
            self.signer.account,
            secrets.token_bytes(32),
            parts,
            secrets.token_bytes(32),
            0,
            0,
        )
        return Call("data_index", "register", encode(arguments))

    def wires(self, count: int) -> list[bytes]:
        """Signed registrations."""
        now_ms = SystemClock().now_ms()
        return [self.signer.sign("emr", 0, self.register(), now_ms=now_ms) for _ in range(count)]

    def envelope(self, count: int) -> bytes:
        """One signature over so many registrations."""
        calls = [self.register() for _ in range(count)]
        return self.signer.envelope("emr", 0, calls, now_ms=SystemClock().now_ms())


async def _fill(asker: Asker, node: RunningNode) -> int:
    """One full block, and its height."""
    wires = asker.wires(BLOCK_TRANSACTIONS)
    before = node.height
    for start in range(0, len(wires), 500):
        await asker.ask("send_transactions", transactions=wires[start : start + 500])
    with trio.fail_after(60):
        while node.info().pending:
            await node.wait_height(node.height + 1)
    heights = range(before + 1, node.height + 1)
    blocks = [
        (len(found.batches), height) for height in heights if (found := await node.block(height))
    ]
    return max(blocks)[1]


async def _trouble(asker: Asker, node: RunningNode) -> None:
    """Everything that is dear, once each."""
    full = await _fill(asker, node)
    await asker.ask("get_block", height=full, full=True)
    await asker.ask("get_block", height=full)
    found = await node.block(full)
    if found is not None:
        await asker.ask("get_proof", id=found.batches[-1].transactions[-1].id.hex())
    wire = asker.envelope(1_400)
    await asker.ask("send_transaction", transaction=wire, wait="commit")
    await asker.ask("wait_height", height=node.height + 1, timeout_ms=2_000)
    envelope = parse_transaction(wire, node.chain)
    await asker.ask("get_transaction", id=envelope.id.hex())
    last = operation_ids(envelope, INTERNATIONAL)[-1].hex()
    await asker.ask("get_proof", id=last)
    await _proofs(asker, node, full, last)
    for _ in range(10):
        await asker.ask("send_transaction", transaction=asker.wires(1)[0], wait="commit")
    await asker.ask("get_block", height=full, full=True)  # no longer decoded in memory
    await asker.ask("get_transaction", id=last)
    await asker.ask("send_transactions", transactions=asker.wires(700), wait="commit")
    tiny = [Call("data_index", "register", b"") for _ in range(2_000)]
    now_ms = SystemClock().now_ms()
    small = asker.signer.envelope("emr", 0, tiny, now_ms=now_ms)
    await asker.ask("send_transaction", transaction=small, wait="commit")
    await asker.ask("get_transaction", id=parse_transaction(small, node.chain).id.hex())
    call = msgspec.json.decode(request("get_block", height=full))
    await asker.raw(msgspec.json.encode([call] * 100))
    await asker.raw(msgspec.json.encode([{**call, "method": "getinfo", "params": {}}] * 100))
    await _light(asker, node, full)


async def _light(asker: Asker, node: RunningNode, full: int) -> None:
    """What clients that keep no blocks ask, of a full block and of the whole history."""
    await asker.ask("get_headers", first=1)
    await asker.ask("get_validator_changes", after=0)
    await asker.ask("get_old_header", height=1, under=node.height)
    await asker.ask("get_history_extension", old=1, new=node.height)
    for first in (0, 1):
        await asker.ask("get_batches", height=full, first=first)
        await asker.ask("get_receipts", height=full, first=first)


async def _proofs(asker: Asker, node: RunningNode, full: int, operation: str) -> None:
    """Every kind of proof, about the largest block and envelope."""
    found = await node.block(full)
    ids = [item.id.hex() for batch in found.batches for item in batch.transactions] if found else []
    collection = {"module": "emr", "level": 0, "contract": "data_index"}
    await asker.ask("get_state_proof", **collection, map="superseded", key=operation)
    for name in (operation, *ids[:1], *ids[-1:]):
        for method in ("get_receipt_proof", "get_event_proof", "get_transaction_proof"):
            await asker.ask(method, id=name)
    for first in (0, BLOCK_TRANSACTIONS // 2, BLOCK_TRANSACTIONS - 100):
        await asker.ask("get_log_proof", **collection, log="index", first=first, count=100)
    stop = node.height - 1
    await asker.ask("get_completeness_proof", module="emr", level=0, start=1, stop=stop)
    await asker.ask("get_header_proof", height=1)
    await asker.ask("get_history_proof", height=2)


async def _garbage(asker: Asker) -> None:
    """Bodies at the limits that are refused."""
    most = BODY_BYTES - 1_000
    key = b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":'
    for body in (
        b" " * most,
        b'"' + b"\\u4e2d" * (most // 6) + b'"',
        key + b'{":":"' + b"\\u4e2d" * (most // 6) + b'"}}',
        key + b'{":":' + b"9" * most + b"}}",
        key + b'{":":1.' + b"9" * most + b"}}",
        b"[" * most,
        b"[" + b",".join([b"{}"] * (JSON_VALUES - 1)) + b"]",
        key + b"[" + b",".join(b'{"%d":":"}' % n for n in range(JSON_VALUES // 2 - 2)) + b"]}",
        request("send_transactions", transactions=[b64encode(secrets.token_bytes(300_000))]),
        request("send_transaction", transaction=secrets.token_bytes(500_000)),
    ):
        await asker.raw(body)


async def _backup(directory: Path, meter: StepMeter) -> None:
    """All blocks, as fast as the node gives them."""
    meter.asked = "backup"
    link = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
    await link.connect(channel_name(directory))
    async with trio.SocketStream(link) as stream:
        await _drain(stream)


async def _pipeline(port: int) -> None:
    """Tiny requests, as many as fit into what is sent at once; the answers are read to the end."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream, trio.open_nursery() as nursery:
        nursery.start_soon(_drain, stream)
        await stream.send_all(b"GET / HTTP/1.1\r\n\r\n" * 20_000)
        await stream.send_eof()


async def _drain(stream: trio.SocketStream) -> None:
    async for _ in stream:
        pass


async def _measure(directory: Path, meter: StepMeter) -> float:
    """Run everything under the meter; V in us."""
    calibration = Calibration()
    async with _served(directory) as (port, node):
        key = load_key(directory / "account.json", PassphraseSource())
        asker = Asker(port, account_signer(key, node.chain), meter)
        trio.lowlevel.add_instrument(meter)
        calibration.sample()
        await _trouble(asker, node)
        calibration.sample()
        await _garbage(asker)
        await _pipeline(port)
        await _backup(directory, meter)
        calibration.sample()
        trio.lowlevel.remove_instrument(meter)
        await asker.aclose()
    return calibration.v_us


def measure() -> tuple[StepMeter, float]:
    """The meter after a run in a temporary folder, and V in us."""
    meter = StepMeter()
    with tempfile.TemporaryDirectory(prefix="kanglian-steps-") as directory:
        v_us = trio.run(_measure, Path(directory), meter)
    return meter, v_us


def main() -> int:
    """List the worst steps; 0 when only consensus took longer than the limit."""
    meter, v_us = measure()
    print(f"V {v_us:.1f} us, {meter.count} steps; the worst:")
    for step in sorted(meter.worst, reverse=True):
        owner = step.task.rpartition(".")[2]
        print(f"{step.cpu_us / 1_000:6.2f} ms  {owner:16s} {step.until:24s} {step.asked}")
    return 1 if meter.over(LIMIT_MS * 1_000) else 0


if __name__ == "__main__":
    sys.exit(main())
