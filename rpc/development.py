"""A development network, from the command line's point of view: raise it, look at it, stay with it.

What it decides: when a network counts as up (every node answers, for this chain) and what is undone
when it does not come up. Processes are node/devnet.py, files are genesis/networks.py.
"""

import signal
import time
from dataclasses import dataclass
from pathlib import Path

from genesis.networks import development_network, read_genesis
from ledger.errors import KanglianError
from ledger.genesis import genesis_hash
from node.clock import SystemClock
from node.devnet import DevelopmentKeys, Devnet, DevnetState, NodeState
from node.messages import say
from rpc import console
from rpc.client import Json, glance

LOOK_PAUSE_S = 1
"""How often the live line is written anew."""


@dataclass(frozen=True, slots=True)
class Network:
    """The network of one folder."""

    directory: Path

    @property
    def processes(self) -> Devnet:
        """Its processes."""
        return Devnet(self.directory, SystemClock())

    def raise_up(self, nodes: int | None, base_port: int) -> DevnetState:
        """Create what is absent, start what does not run, and wait until every node answers.

        What this call started is stopped again when that fails or somebody interrupts.
        Raises: ConfigError, UnavailableError, Rejected(BAD_GENESIS).
        """
        clock = SystemClock()
        files = development_network(
            self.directory, DevelopmentKeys(), clock.now_ms(), nodes, base_port
        )
        console.note(say("development", directory=self.directory))
        processes = self.processes
        processes.adopt(files)
        fresh = [node.name for node in processes.state().nodes if node.pid is None]
        # A supervisor stops us as a person does: what we started must not outlive an accident.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            if fresh:
                processes.start(fresh)
            self._wait_ready([node.name for node in processes.state().nodes])
        except (KanglianError, KeyboardInterrupt):
            if fresh:
                processes.stop(fresh)
            raise
        return processes.state()

    def start_again(self, name: str) -> DevnetState:
        """Start one node and wait until it answers.

        Raises: UnavailableError, Rejected(MALFORMED).
        """
        self.processes.start((name,))
        self._wait_ready([name])
        return self.processes.state()

    def looks(self) -> list[tuple[NodeState, Json | None]]:
        """Every node with what it says of itself, None when it does not run or answer."""
        nodes = self.processes.state().nodes
        return [(node, None if node.pid is None else glance(node.rpc)) for node in nodes]

    def stay(self) -> None:
        """Show the heights until somebody says stop; then stop all nodes."""
        try:
            while True:
                heights = ["-" if look is None else str(look["height"]) for _, look in self.looks()]
                console.live_line(say("live_height", heights=" ".join(heights)))
                time.sleep(LOOK_PAUSE_S)
        except KeyboardInterrupt:
            console.note("\n" + say("network_stopping"))
            self.processes.stop()
            console.note(say("network_stopped"))

    def _wait_ready(self, names: list[str]) -> None:
        processes = self.processes
        genesis = read_genesis(Path(processes.state().genesis))
        chain = genesis_hash(genesis).hex()
        done = 0

        def answers(url: str) -> bool:
            # Another network on the same port would answer as well, but for another chain.
            look = glance(url)
            return look is not None and look["genesis_hash"] == chain

        with console.progress() as advance:

            def on_ready(name: str) -> None:
                nonlocal done
                done += 1
                advance(done, len(names), say("node_ready", name=name))

            processes.wait_ready(names, answers, on_ready)


def node_view(node: NodeState) -> Json:
    """One node as it stands in devnet.json."""
    return {"name": node.name, "rpc": node.rpc, "pid": node.pid}


def node_line(node: NodeState, look: Json | None) -> str:
    """One node for people."""
    facts = node_view(node)
    if node.pid is None:
        return say("node_down", **facts)
    if look is None:
        return say("node_silent", **facts)
    return say("node_line", **facts, height=look["height"], peers=look["peers"])
