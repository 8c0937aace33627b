"""Four real nodes on loopback: files, processes, and what they say of themselves.

What it decides: nothing. It starts and ends processes that it owns, and never signals another. A
node is started by the ordinary command line, or through the launcher when it is to die at a point.
"""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from genesis.networks import development_network, read_genesis
from ledger.errors import UnavailableError
from ledger.genesis import chain_of
from node.clock import SystemClock
from node.config import OVERRIDE_PREFIX, load_config
from node.devnet import DevelopmentKeys
from node.keystore import PassphraseSource, load_key
from rpc.client import Client, RpcFailure, account_signer
from tests.e2e.running import free_ports

CLOCK = SystemClock()
GLANCE_MS = 2_000
READY_S = 60
IDLE_TALK = ("peer_connected", "peer_disconnected", "dial_failed", "inbound_refused", "_ready")


class Violation(Exception):
    """A promise of the chain was broken; the text says which, where, and how it shows."""


@dataclass(frozen=True)
class Start:
    """How a node is started: dying at a point, with a mistake planted, under watch; or plainly."""

    point: str | None = None
    calls: int = 1
    bug: str | None = None
    watched: bool = False
    traced: bool = False


PLAIN = Start()


@dataclass
class Node:
    """One node of the cluster; `process` is None while it is down."""

    name: str
    directory: Path
    rpc_port: int
    p2p_port: int
    address: str
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen | None = None
    client: Client | None = None

    @property
    def data(self) -> Path:
        return self.directory / "data"

    @property
    def log(self) -> Path:
        return self.directory / "node.log"

    @property
    def note(self) -> Path:
        return self.directory / "died-at"

    @property
    def report(self) -> Path:
        return self.directory / "report.json"

    @property
    def kept(self) -> Path:
        return self.directory / "kept"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.rpc_port}"


class Cluster:
    """A network in a folder; as a context it leaves no process behind."""

    def __init__(self, directory: Path, count: int = 4) -> None:
        self.directory = directory
        base_port = free_ports(2 * count)
        files = development_network(directory, DevelopmentKeys(), CLOCK.now_ms(), count, base_port)
        self.genesis = read_genesis(files.genesis)
        self.chain = chain_of(self.genesis)
        key = load_key(files.account_key, PassphraseSource(None, {}, None))
        self.signer = account_signer(key, self.chain)
        addresses = {node.name: node.address for node in self.genesis.nodes}
        self.nodes = []
        for entry in files.nodes:
            config = load_config(entry.config, {})
            ports = config.rpc.listen_port, config.p2p.listen_port
            self.nodes.append(Node(entry.name, entry.directory, *ports, addresses[entry.name]))

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            self.kill(node)

    def start(self, node: Node, how: Start = PLAIN) -> None:
        """Start a node that is down; returns at once."""
        arguments = ["node", "run", "--config", str(node.directory / "node.toml")]
        if how == PLAIN:
            command = ["-m", "cli", *arguments]
        else:
            command = ["-m", "tests.nemesis.launcher", *_options(node, how), "--", *arguments]
        node.note.unlink(missing_ok=True)
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(OVERRIDE_PREFIX)
        }
        with node.log.open("ab") as log:
            node.process = subprocess.Popen(
                [sys.executable, "-P", *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=inherited | node.environment,
                start_new_session=True,
            )
        node.client = Client(node.url, self.genesis, GLANCE_MS)

    def kill(self, *nodes: Node) -> None:
        """SIGKILL at the same moment; then see them gone."""
        running = [node for node in nodes if node.process is not None]
        for node in running:
            node.process.kill()
        for node in running:
            self.bury(node)

    def bury(self, node: Node) -> int:
        """Wait for the end of a process; its exit code."""
        code = node.process.wait()
        node.process = None
        node.client.close()
        return code

    def stop(self, *nodes: Node) -> None:
        """SIGTERM, which every node answers with exit code 0 within ten seconds."""
        for node in nodes:
            node.process.send_signal(signal.SIGTERM)
        for node in nodes:
            try:
                node.process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                raise Violation(f"{node.name} does not end on SIGTERM") from None
            code = self.bury(node)
            if code != 0:
                raise Violation(f"{node.name} ended with {code} on SIGTERM: {last_words(node)}")

    def start_all(self, how: Start = PLAIN) -> None:
        """Start what is down and wait until everybody is linked to everybody."""
        for node in self.nodes:
            if node.process is None:
                self.start(node, how)
        deadline = time.monotonic() + READY_S
        links = len(self.nodes) - 1
        while True:
            looks = [look(node) for node in self.nodes]
            if all(found is not None and found["peers"] == links for found in looks):
                return
            for node in self.nodes:
                if node.process.poll() is not None:
                    raise Violation(f"{node.name} ended by itself: {last_words(node)}")
            if time.monotonic() > deadline:
                stands = [found and (found["height"], found["peers"]) for found in looks]
                raise Violation(f"not linked within {READY_S} s: {stands}")
            time.sleep(0.1)

    def begun(self) -> None:
        """Wait until every node has decided: one that misses the first block is in quarantine.

        That is right: it cannot know whether it is a new node or one that lost its data.
        """
        deadline = time.monotonic() + READY_S
        while any((look(node) or {"height": 0})["height"] < 2 for node in self.nodes):
            if time.monotonic() > deadline:
                raise Violation(f"no two blocks on all nodes within {READY_S} s")
            time.sleep(0.1)

    def agree(self, timeout_s: float = READY_S) -> int:
        """Wait until all nodes stand at one block with nothing pending; its height."""
        deadline = time.monotonic() + timeout_s
        while True:
            looks = [look(node) for node in self.nodes]
            facts = {
                found and (found["height"], found["latest_block_hash"], found["pending"])
                for found in looks
            }
            first = looks[0]
            if len(facts) == 1 and first is not None and first["pending"] == 0:
                return first["height"]
            for node in self.nodes:
                if node.process.poll() is not None:
                    raise Violation(f"{node.name} ended by itself: {last_words(node)}")
            if time.monotonic() > deadline:
                stands = [
                    found and {key: found[key] for key in ("height", "pending", "peers")}
                    for found in looks
                ]
                raise Violation(f"no one state within {timeout_s} s: {stands}")
            time.sleep(0.1)


def _options(node: Node, how: Start) -> list[str]:
    options = ["--kept", str(node.kept)]
    if how.bug is not None:
        options += ["--bug", how.bug]
    if how.point is not None:
        options += ["--point", how.point, "--calls", str(how.calls), "--note", str(node.note)]
    if how.watched:
        options += ["--report", str(node.report)]
    if how.traced:
        options.append("--trace")
    return options


def look(node: Node) -> dict | None:
    """What `getinfo` says, None when the node does not answer."""
    if node.process is None:
        return None
    try:
        return node.client.getinfo()
    except (UnavailableError, RpcFailure):
        return None


def last_words(node: Node) -> str:
    """The end of a node's log, without the comings and goings of its links."""
    lines = node.log.read_text(errors="replace").splitlines()
    return " | ".join([line for line in lines if not any(one in line for one in IDLE_TALK)][-4:])


def peers_through(node: Node, ports: dict[str, int], nodes: list[Node]) -> None:
    """Let a node dial its peers at other ports than theirs: `ports` by the peer's name."""
    peers = ", ".join(
        f'{{address = {json.dumps(peer.address)}, host = "127.0.0.1", port = {ports[peer.name]}}}'
        for peer in nodes
        if peer is not node
    )
    node.environment[f"{OVERRIDE_PREFIX}P2P__PEERS"] = f"[{peers}]"
