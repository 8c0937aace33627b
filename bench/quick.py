"""`kanglian bench quick`: how fast, how late and at what CPU cost four validators register data.

Four node processes and the generator share this machine. Transactions are signed beforehand and
leave in open loop through `send_transactions` over all nodes. CPU per transaction and node is what
all node processes used minus their idle baseline, divided by V, which is sampled during the load.
The stage table says where it goes. Signatures, TLS and fsync are all on.
"""

import http.client
import json
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import count as count_from
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bench.calibration import Calibration, cpu_seconds
from bench.load import Outcome, run_load
from genesis.networks import development_network
from ledger.addresses import AddressKind, address_of, multi_key_script, single_key_script
from ledger.crypto.keys import KeyType
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import Parts, register_arguments
from ledger.errors import UnavailableError
from node.clock import SystemClock
from node.devnet import DevelopmentKeys, Devnet, NodeState
from node.keystore import PassphraseSource, load_key
from node.stages import Stage
from rpc.client import Client, Signer

NODES = 4
IDLE_S = 4.0
STAGE_BUDGET_V = {
    Stage.SIGNATURE: 1.0,
    Stage.ADMISSION: 0.05,
    Stage.DECODE: 0.05,
    Stage.DISSEMINATION: 0.12,
    Stage.CONSENSUS: 0.06,
    Stage.EXECUTE: 0.31,
    Stage.STORE: 0.1,
    Stage.ROOTS: 0.06,
}
"""The stage budget of architecture section 10; execution holds replay, authorisation and call."""


@dataclass(frozen=True, slots=True)
class Load:
    """One run: how many keys the signing script has (a larger script, a larger transaction)."""

    script_keys: int
    rate: int
    seconds: int


FULL = (Load(1, 5_000, 15), Load(16, 5_000, 30))
GUARD = (Load(1, 4_500, 6),)


@dataclass(frozen=True, slots=True)
class Run:
    """The figures of one run."""

    tx_bytes: int
    offered_tps: int
    committed_tps: float
    p50_ms: float
    p99_ms: float
    cpu_v: float
    cpu_us: float
    v_us: float
    seconds: float
    committed: int
    refused: int
    states_equal: bool
    late_calls: int


@dataclass(frozen=True, slots=True)
class Report:
    """Everything `bench quick` measures."""

    v_us: float
    idle_cpu_percent: float
    runs: tuple[Run, ...]
    stages: dict[str, float]
    stage_budget: dict[str, float]


def main(*, json_output: bool) -> int:
    """Run the full benchmark and print it; 0 when every node ended at the same state."""
    report = measure(FULL, quiet=json_output)
    print(json.dumps(asdict(report)) if json_output else render(report))
    return 0 if all(run.states_equal for run in report.runs) else 1


def measure(loads: Sequence[Load], *, quiet: bool = True) -> Report:
    """Start a network in a temporary folder, run the loads, stop it."""
    directory = Path(tempfile.mkdtemp(prefix="kanglian-bench-"))
    devnet = Devnet(directory, SystemClock())
    try:
        _say("starting four validators", quiet=quiet)
        start_network(devnet, directory)
        return _measure(devnet, directory, loads, quiet=quiet)
    finally:
        if (directory / "devnet.json").exists():
            devnet.stop()
        shutil.rmtree(directory, ignore_errors=True)


def start_network(devnet: Devnet, directory: Path) -> None:
    """Create and start four validators; return when all answer."""
    base = 20_000 + secrets.randbelow(10_000)
    now = SystemClock().now_ms()
    network = development_network(directory, DevelopmentKeys(), now, NODES, base)
    devnet.adopt(network)
    devnet.start()
    devnet.wait_ready((), _answers, lambda _name: None)


def _answers(url: str) -> bool:
    try:
        with Client(url, timeout_ms=2_000) as client:
            return client.getinfo()["peers"] == NODES - 1
    except UnavailableError:
        return False


def _measure(devnet: Devnet, directory: Path, loads: Sequence[Load], *, quiet: bool) -> Report:
    nodes = devnet.state().nodes
    time.sleep(1.0)
    before = _cpu(nodes)
    time.sleep(IDLE_S)
    idle_per_s = (_cpu(nodes) - before) / IDLE_S / NODES
    runs: list[Run] = []
    stages: dict[str, float] = {}
    for load in loads:
        _say(f"signing {load.rate * load.seconds} transactions", quiet=quiet)
        wires = sign_load(directory, nodes[0], load)
        _say(f"{len(wires[0])} bytes at {load.rate} a second for {load.seconds} s", quiet=quiet)
        run, stages = _run(nodes, wires, load, idle_per_s)
        runs.append(run)
    v_us = sum(run.v_us for run in runs) / len(runs)
    return Report(
        v_us=round(v_us, 2),
        idle_cpu_percent=round(idle_per_s * 100, 2),
        runs=tuple(runs),
        stages=stages,
        stage_budget={stage.value: round(v * v_us, 2) for stage, v in STAGE_BUDGET_V.items()},
    )


def sign_load(directory: Path, node: NodeState, load: Load) -> list[bytes]:
    """Registrations signed by the demonstration account, or by a 1-of-n account of it."""
    key = load_key(directory / "account.json", PassphraseSource())
    with Client(node.rpc) as client:
        chain = client.chain()
        single = single_key_script(AddressKind.TERMINAL, key.public_key)
        script = single
        admin = address_of(single, INTERNATIONAL)
        if load.script_keys > 1:
            script = _department_script(key.public_key, load.script_keys)
            signer = Signer(chain, KeyType.SECP256K1, key.secret, single, admin)
            _add_account(client, signer, address_of(script, INTERNATIONAL))
    account = address_of(script, INTERNATIONAL)
    signer = Signer(chain, KeyType.SECP256K1, key.secret, script, account)
    now = SystemClock().now_ms()
    parts = Parts(b"operator", b"create", b"Observation", b"", b"record")
    wires: list[bytes] = []
    for _ in range(load.rate * load.seconds):
        registration = register_arguments(
            INTERNATIONAL, account, secrets.token_bytes(32), parts, secrets.token_bytes(32), 0, 0
        )
        wires.append(
            signer.call(
                "emr", 0, "data_index", "register", registration, now_ms=now, valid_for_ms=590_000
            )
        )
    return wires


def _department_script(key: bytes, count: int) -> bytes:
    """A 1-of-n script in which the signing key comes first, as `Signer` expects."""
    candidates = (INTERNATIONAL.public_key(number.to_bytes(32, "big")) for number in count_from(1))
    others = islice((other for other in candidates if other > key), count - 1)
    return multi_key_script(1, (key, *others))


def _add_account(client: Client, signer: Signer, account: bytes) -> None:
    from contracts.accounts import NewAccount  # noqa: PLC0415 - only this load needs it

    now = SystemClock().now_ms()
    wire = signer.call(
        "system", 0, "accounts", "add_account", NewAccount(account, "member"), now_ms=now
    )
    client.send_transaction(wire, wait="commit")


def _run(
    nodes: Sequence[NodeState], wires: list[bytes], load: Load, idle_per_s: float
) -> tuple[Run, dict[str, float]]:
    calibration = Calibration()
    ports = [urlsplit(node.rpc).port or 0 for node in nodes]
    stages_before = _stage_seconds(nodes)
    cpu_before, clock = _cpu(nodes), time.monotonic()
    outcome = trio.run(run_load, ports, wires, load.rate, calibration)
    cpu, elapsed = _cpu(nodes) - cpu_before, time.monotonic() - clock
    committed = len(outcome.latencies)
    per_node = max(committed, 1) * NODES
    busy_us = (cpu - idle_per_s * NODES * elapsed) * 1e6 / per_node
    stages = {
        stage: round((seconds - stages_before[stage]) * 1e6 / per_node, 2)
        for stage, seconds in _stage_seconds(nodes).items()
    }
    stages["rest: TLS, sockets, event loop, JSON"] = round(busy_us - sum(stages.values()), 2)
    run = _figures(outcome, load, len(wires[0]), busy_us, calibration.v_us)
    return replace(run, states_equal=states_equal(nodes)), stages


def _figures(outcome: Outcome, load: Load, size: int, busy_us: float, v_us: float) -> Run:
    latencies = sorted(outcome.latencies) or [0.0]
    seconds = max(outcome.last_commit - outcome.started, 1e-9)
    return Run(
        tx_bytes=size,
        offered_tps=load.rate,
        committed_tps=round(len(outcome.latencies) / seconds, 1),
        p50_ms=round(latencies[len(latencies) // 2] * 1_000, 1),
        p99_ms=round(latencies[len(latencies) * 99 // 100] * 1_000, 1),
        cpu_v=round(busy_us / v_us, 2),
        cpu_us=round(busy_us, 1),
        v_us=round(v_us, 2),
        seconds=round(seconds, 2),
        committed=len(outcome.latencies),
        refused=outcome.refused,
        states_equal=False,
        late_calls=outcome.late_calls,
    )


def _cpu(nodes: Sequence[NodeState]) -> float:
    return sum(cpu_seconds(node.pid) for node in nodes if node.pid is not None)


def _stage_seconds(nodes: Sequence[NodeState]) -> dict[str, float]:
    totals = dict.fromkeys((stage.value for stage in Stage), 0.0)
    for node in nodes:
        for line in _metrics(node.rpc).splitlines():
            if line.startswith("kanglian_stage_cpu_seconds{"):
                name, value = line.split('stage="')[1].split('"} ')
                totals[name] += float(value)
    return totals


def _metrics(url: str) -> str:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


def states_equal(nodes: Sequence[NodeState]) -> bool:
    """Whether all nodes hold the same newest block, which commits to the state before it."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        tips: list[tuple[int, str]] = []
        for node in nodes:
            with Client(node.rpc) as client:
                info = client.getinfo()
            tips.append((info["height"], info["latest_block_hash"]))
        if all(tip == tips[0] for tip in tips):
            return True
        time.sleep(0.2)
    return False


def render(report: Report) -> str:
    """The report for people."""
    lines = [
        f"V (one secp256k1 verification, during the load)  {report.v_us} us",
        f"idle node                                        {report.idle_cpu_percent}% CPU",
        "",
        "tx bytes  offered  committed/s  p50 ms  p99 ms  CPU us  CPU V  seconds  states equal",
    ]
    lines += [
        f"{run.tx_bytes:8d}  {run.offered_tps:7d}  {run.committed_tps:11.1f}  {run.p50_ms:6.1f}  "
        f"{run.p99_ms:6.1f}  {run.cpu_us:6.1f}  {run.cpu_v:5.2f}  {run.seconds:7.1f}  "
        f"{'yes' if run.states_equal else 'NO'}"
        for run in report.runs
    ]
    lines += ["", "stage (last run)                        us per tx and node   budget us"]
    for stage, value in report.stages.items():
        budget = report.stage_budget.get(stage)
        lines.append(f"{stage:40s}{value:18.2f}{'' if budget is None else f'{budget:12.2f}'}")
    return "\n".join(lines)


def _say(text: str, *, quiet: bool) -> None:
    if not quiet:
        print(f"… {text}", file=sys.stderr, flush=True)
