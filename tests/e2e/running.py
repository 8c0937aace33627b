"""Real networks for tests: processes on loopback, free ports, and nothing left behind."""

import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from genesis.networks import development_network, read_genesis
from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import Parts, register_arguments
from ledger.errors import UnavailableError
from ledger.genesis import chain_of, genesis_hash
from node.clock import SystemClock
from node.devnet import DevelopmentKeys, Devnet
from node.keystore import PassphraseSource, load_key
from rpc.client import Client, RpcFailure, account_signer, glance

CLOCK = SystemClock()
SETTLE_S = 45
"""Longest wait for a network to do what it should; a busy machine needs more than an idle one."""


def free_ports(count: int) -> int:
    """The first of `count` consecutive ports, below the range that the system gives out itself."""
    generator = random.SystemRandom()
    while True:
        base = generator.randrange(10_000, 31_000)
        if all(_is_free(port) for port in range(base, base + count)):
            return base


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def until(condition, what: str, timeout_s: float = SETTLE_S):
    """The first true answer of `condition`, asked ten times a second."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s} s: {what}")
        time.sleep(0.1)


def registration(number: int, level: int = 0):
    """Minimal arguments of `data_index.register`, different for every number."""
    secret = number.to_bytes(32, "big")
    parts = Parts(b"head", b"middle", b"tail", b"", f"record {number}".encode())
    return register_arguments(INTERNATIONAL, bytes(32), secret, parts, secret, 0, level)


class RealNetwork:
    """A development network in a folder; use it as a context."""

    def __init__(self, directory: Path, nodes: int) -> None:
        self.directory = directory
        base_port = free_ports(2 * nodes)
        files = development_network(directory, DevelopmentKeys(), CLOCK.now_ms(), nodes, base_port)
        self.devnet = Devnet(directory, CLOCK)
        self.devnet.adopt(files)
        self.genesis = read_genesis(files.genesis)
        self.names = [node.name for node in self.devnet.state().nodes]
        self.urls = {node.name: node.rpc for node in self.devnet.state().nodes}
        self.base_port = base_port
        key = load_key(files.account_key, PassphraseSource(None, {}, None))
        self.signer = account_signer(key, chain_of(self.genesis))

    def __enter__(self):
        try:
            self.start(*self.names)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.devnet.state().nodes:
            if node.pid is not None:
                self.devnet.kill(node.name)

    def start(self, *names: str) -> None:
        self.devnet.start(names)
        self.devnet.wait_ready(names, self._is_ours, lambda _: None)

    def answers(self, name: str) -> bool:
        return self._is_ours(self.urls[name])

    def _is_ours(self, url: str) -> bool:
        look = glance(url)
        return look is not None and look["genesis_hash"] == genesis_hash(self.genesis).hex()

    def kill(self, *names: str) -> None:
        """SIGKILL to all of them at the same moment, then see them gone."""
        for name in names:
            os.kill(self.pid(name), signal.SIGKILL)
        for name in names:
            try:
                self.devnet.kill(name)
            except UnavailableError:
                continue  # it is gone already, and devnet.json says so

    def pid(self, name: str) -> int:
        (found,) = [node.pid for node in self.devnet.state().nodes if node.name == name]
        return found

    def client(self, name: str = "node0", timeout_ms: int = 75_000) -> Client:
        return Client(self.urls[name], self.genesis, timeout_ms)

    def look(self, name: str) -> dict:
        with self.client(name) as client:
            return client.getinfo()

    def registration(self, number: int, **settings) -> bytes:
        now_ms = settings.pop("now_ms", CLOCK.now_ms())
        return self.signer.call(
            "emr", 0, "data_index", "register", registration(number), now_ms=now_ms, **settings
        )

    def register(self, number: int, name: str = "node0", timeout_ms: int = 30_000) -> dict:
        with self.client(name) as client:
            return client.send_transaction(self.registration(number), "commit", timeout_ms)

    def connected(self, *names: str) -> None:
        """Wait until each of these nodes is linked to all others of them."""
        for name in names:
            until(
                lambda name=name: self.look(name)["peers"] >= len(names) - 1,
                f"{name} is linked to {len(names) - 1} nodes",
            )

    def agree(self, *names: str) -> dict:
        """Wait until the nodes stand at one latest block and nothing is pending; what they say."""

        def same():
            try:
                looks = [self.look(name) for name in names or self.names]
            except (UnavailableError, RpcFailure):
                return None
            facts = {
                (
                    look["height"],
                    look["latest_block_hash"],
                    look["transactions"],
                    look["operations"],
                    look["pending"],
                )
                for look in looks
            }
            return looks[0] if len(facts) == 1 and looks[0]["pending"] == 0 else None

        return until(same, f"one state on {', '.join(names or self.names)}; {self.stands()}")

    def stands(self) -> str:
        looks = {name: glance(url) for name, url in self.urls.items()}
        return str(
            {
                name: look and (look["height"], look["pending"], look["peers"])
                for name, look in looks.items()
            }
        )

    def log(self, name: str) -> str:
        return (self.directory / name / "node.log").read_text(errors="replace")

    def metric(self, name: str, metric: str) -> float:
        """One sample of GET /metrics."""
        address = self.urls[name].removeprefix("http://")
        connection = http.client.HTTPConnection(address, timeout=10)
        try:
            connection.request("GET", "/metrics")
            text = connection.getresponse().read().decode()
        finally:
            connection.close()
        (value,) = [
            line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(metric + " ")
        ]
        return float(value)


@contextmanager
def foreground(config: Path, environment: dict[str, str] | None = None):
    """`kanglian node run` as our own child, so that its exit code can be read."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", "--lang", "en", "node", "run", "--config", str(config)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **(environment or {})},
        cwd=config.parent,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()
