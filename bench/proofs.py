"""Proofs while a chain works: queries a second of one node under 1,000 TPS, and what each costs.

Four nodes take registrations at 1,000 a second on a schedule; a process of its own asks one of
them for proofs, on a schedule as well, so that latency counts from the intended moment. Without
load the same node is then asked as fast as it answers, which gives its CPU for each query. In this
process every document is checked with all signatures of its header.
`python -m bench.proofs --seconds 10 --rate 600`
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.queues import Queue
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
import trio

from bench.calibration import Calibration, cpu_seconds
from bench.load import HttpLink, request, run_load
from bench.quick import Load, sign_load, start_network, states_equal
from genesis.networks import read_genesis
from ledger.genesis import Genesis
from ledger.ids import TransactionId
from ledger.proofs.family import verify_document
from ledger.transaction import parse_transaction
from node.clock import SystemClock
from node.devnet import Devnet, NodeState
from rpc.client import Client

TPS = 1_000
RATE = 600
SECONDS = 10
LINKS = 8
QUIET_QUERIES = 1_000
CHECKS = 200
PLACE = {"module": "emr", "level": 0, "contract": "data_index"}
KINDS = ("state", "receipt", "log")


@dataclass(frozen=True, slots=True)
class Answers:
    """What an asker heard: latencies in seconds, ascending, and how many were refused."""

    latencies: tuple[float, ...]
    refused: int
    seconds: float


def question(kind: str, number: int, known: Sequence[str]) -> bytes:
    """The body of query `number`."""
    name = known[number % len(known)]
    match kind:
        case "state":
            return request("get_state_proof", **PLACE, map="superseded", key=name)
        case "receipt":
            return request("get_receipt_proof", id=name)
        case _:
            first = number % len(known)
            return request("get_log_proof", **PLACE, log="index", first=first, count=1)


async def _ask(link: HttpLink, body: bytes, due: float, latencies: list[float]) -> bool:
    answer = await link.post(body)
    latencies.append(trio.current_time() - due)
    return b'"result"' in answer[:64]


async def _paced(port: int, bodies: Sequence[bytes], rate: int) -> Answers:
    """Every query at its moment, whatever became of those before."""
    links = [HttpLink(port) for _ in range(LINKS)]
    latencies: list[float] = []
    refused = 0

    async def one(number: int, body: bytes, due: float) -> None:
        nonlocal refused
        refused += not await _ask(links[number % LINKS], body, due, latencies)

    start = trio.current_time() + 0.1
    async with trio.open_nursery() as nursery:
        for number, body in enumerate(bodies):
            due = start + number / rate
            await trio.sleep_until(due)
            nursery.start_soon(one, number, body, due)
    seconds = trio.current_time() - start
    for link in links:
        await link.aclose()
    return Answers(tuple(sorted(latencies)), refused, seconds)


def _asker(port: int, bodies: list[bytes], rate: int, answers: "Queue[Answers]") -> None:
    answers.put(trio.run(_paced, port, bodies, rate))


def _percentile(values: Sequence[float], share: float) -> float:
    return values[min(len(values) - 1, int(len(values) * share))] * 1_000 if values else 0.0


def _under_load(
    directory: Path, nodes: Sequence[NodeState], known: Sequence[str], rate: int, seconds: int
) -> None:
    """Registrations over all nodes while the last one is asked."""
    ports = [urlsplit(node.rpc).port or 0 for node in nodes]
    bodies = [
        question(KINDS[number % len(KINDS)], number, known) for number in range(rate * seconds)
    ]
    wires = sign_load(directory, nodes[0], Load(1, TPS, seconds + 1))
    context = multiprocessing.get_context("spawn")
    answers: Queue[Answers] = context.Queue()
    asker = context.Process(target=_asker, args=(ports[-1], bodies, rate, answers))
    asker.start()
    outcome = trio.run(run_load, ports, wires, TPS, Calibration())
    heard = answers.get(timeout=60)
    asker.join()
    taken = outcome.last_commit - outcome.started
    print(
        f"under load: {len(outcome.latencies) / taken:,.0f} transactions/s of {TPS:,} offered, "
        f"p99 {_percentile(sorted(outcome.latencies), 0.99):.0f} ms; "
        f"{len(heard.latencies) / heard.seconds:,.0f} proofs/s of {rate:,} asked, "
        f"{heard.refused} refused, p50 {_percentile(heard.latencies, 0.5):.1f} ms, "
        f"p99 {_percentile(heard.latencies, 0.99):.1f} ms"
    )


async def _quickly(port: int, bodies: Sequence[bytes]) -> float:
    """Seconds for all queries, one after another on four links."""
    links = [HttpLink(port) for _ in range(4)]

    async def some(link: HttpLink, part: Sequence[bytes]) -> None:
        for body in part:
            await link.post(body)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for at, link in enumerate(links):
            nursery.start_soon(some, link, bodies[at::4])
    seconds = trio.current_time() - start
    for link in links:
        await link.aclose()
    return seconds


def _quiet(node: NodeState, known: Sequence[str], genesis: Genesis) -> None:
    """Each kind alone: what a query costs the node, what a check costs here."""
    port = urlsplit(node.rpc).port or 0
    calibration = Calibration()
    print("kind      proofs/s  node CPU us       V   check us       V   bytes")
    for kind in KINDS:
        bodies = [question(kind, number, known) for number in range(QUIET_QUERIES)]
        before = cpu_seconds(node.pid or 0)
        seconds = trio.run(_quickly, port, bodies)
        cpu_us = (cpu_seconds(node.pid or 0) - before) * 1e6 / QUIET_QUERIES
        document = _document(node.rpc, bodies[0])
        calibration.sample()
        start = time.process_time_ns()
        for _ in range(CHECKS):
            verify_document(document, genesis)
        check_us = (time.process_time_ns() - start) / 1_000 / CHECKS
        calibration.sample()
        v_us = calibration.v_us
        print(
            f"{kind:8s}  {QUIET_QUERIES / seconds:8,.0f}  {cpu_us:11.0f}  {cpu_us / v_us:6.1f}  "
            f"{check_us:9.0f}  {check_us / v_us:6.1f}  {len(document):6d}"
        )
    print(f"V {calibration.v_us:.1f} us")


def _document(url: str, body: bytes) -> bytes:
    asked = msgspec.json.decode(body)
    with Client(url) as client:
        return client.get_document(asked["method"], **asked["params"])


def _known(directory: Path, node: NodeState) -> list[str]:
    """The ids of some registrations that are on the chain."""
    wires = sign_load(directory, node, Load(1, 500, 1))
    with Client(node.rpc) as client:
        chain = client.chain()
        client.send_transactions(wires, wait="commit")
        ids = [TransactionId(parse_transaction(wire, chain).id).hex() for wire in wires]
        client.get_document("get_receipt_proof", id=ids[-1])
    return ids


def main() -> int:
    """Measure and print; 0 when all nodes agree afterwards."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=SECONDS)
    parser.add_argument("--rate", type=int, default=RATE)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kanglian-proofs-"))
    devnet = Devnet(directory, SystemClock())
    try:
        start_network(devnet, directory)
        nodes = devnet.state().nodes
        known = _known(directory, nodes[-1])
        _quiet(nodes[-1], known, read_genesis(directory / "genesis.json"))
        _under_load(directory, nodes, known, options.rate, options.seconds)
        equal = states_equal(nodes)
        print(f"{os.cpu_count()} processors; states equal: {'yes' if equal else 'NO'}")
    finally:
        if (directory / "devnet.json").exists():
            devnet.stop()
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if equal else 1


if __name__ == "__main__":
    raise SystemExit(main())
