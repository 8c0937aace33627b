"""What the nemesis does to a running network, one trouble at a time, and how each is healed.

Not among them: clocks. All processes of a machine share one; skew, drift and jumps are the
simulators' business.
"""

import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from .cluster import Cluster, Node
from .proxy import Flow, Proxies

FLOOD_THREADS = 4
GARBAGE_LINKS = 40
Wait = Callable[[float], None]


@dataclass
class Troubles:
    """The repertoire. `wait` passes time and goes on measuring; `restarted` is told of starts."""

    cluster: Cluster
    proxies: Proxies
    generator: random.Random
    wait: Wait
    restarted: Callable[[Node], None]
    longest_s: float

    def names(self) -> list[str]:
        """What `inflict` knows."""
        return [name for name in dir(self) if name.startswith("do_")]

    def inflict(self, name: str) -> None:
        """Cause a trouble, let it last, heal it."""
        getattr(self, name)()

    def _last(self, shortest_s: float, longest_s: float) -> None:
        self.wait(min(self.longest_s, self.generator.uniform(shortest_s, longest_s)))

    def _some(self, count: int) -> list[Node]:
        return self.generator.sample(self.cluster.nodes, count)

    def _mortals(self, count: int) -> list[Node]:
        """The first two are never killed, so that their memory is seen over the whole run."""
        return self.generator.sample(self.cluster.nodes[2:], count)

    def do_kill(self) -> None:
        """SIGKILL to one node, or to two."""
        victims = self._mortals(self.generator.choice((1, 1, 2)))
        self.cluster.kill(*victims)
        self._last(0.0, 5.0)
        for node in victims:
            self.restarted(node)

    def do_pause(self) -> None:
        """SIGSTOP to one node, or two: not dead, and not there."""
        victims = self._some(self.generator.choice((1, 1, 2)))
        for node in victims:
            node.process.send_signal(signal.SIGSTOP)
        try:
            self._last(0.1, 20.0)
        finally:
            for node in victims:
                node.process.send_signal(signal.SIGCONT)

    def do_isolate(self) -> None:
        """Nobody hears one node, and it hears nobody."""
        (victim,) = self._some(1)
        with self._cut(lambda source, target: victim.name in (source, target)):
            self._last(1.0, 20.0)

    def do_halves(self) -> None:
        """Two against two: no quorum anywhere."""
        half = [node.name for node in self._some(2)]
        with self._cut(lambda source, target: (source in half) != (target in half)):
            self._last(1.0, 15.0)

    def do_deaf(self) -> None:
        """One node is heard and hears nothing."""
        (victim,) = self._some(1)
        with self._cut(lambda _, target: target == victim.name):
            self._last(1.0, 20.0)

    def do_mute(self) -> None:
        """One node hears and is not heard."""
        (victim,) = self._some(1)
        with self._cut(lambda source, _: source == victim.name):
            self._last(1.0, 20.0)

    def do_broken_line(self) -> None:
        """Two nodes reach each other through others only."""
        pair = {node.name for node in self._some(2)}
        with self._cut(lambda source, target: {source, target} == pair):
            self._last(1.0, 20.0)

    def do_slow(self) -> None:
        """Everything to and from one node takes long and trickles."""
        (victim,) = self._some(1)

        def slow(flow: Flow) -> None:
            flow.delay_s = self.generator.uniform(0.02, 0.3)
            flow.bytes_per_s = self.generator.choice((20_000.0, 200_000.0))

        for (source, target), flow in self.proxies.flows.items():
            if victim.name in (source, target):
                slow(flow)
        self._last(5.0, 20.0)
        self.proxies.heal()

    def do_reset(self) -> None:
        """All connections are cut, several times in a row."""
        for _ in range(self.generator.randrange(1, 6)):
            self.proxies.reset()
            self._last(0.1, 1.5)

    def do_garbage(self) -> None:
        """Strangers talk nonsense to the port that nodes use among themselves."""
        (victim,) = self._some(1)
        links = []
        for _ in range(GARBAGE_LINKS):
            with suppress(OSError):
                link = socket.create_connection(("127.0.0.1", victim.p2p_port), timeout=1.0)
                links.append(link)
                link.sendall(self._nonsense())
        self._last(1.0, 8.0)
        for link in links:
            link.close()

    def _nonsense(self) -> bytes:
        junk = self.generator.randbytes(self.generator.randrange(0, 4_096))
        return self.generator.choice((b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"")) + junk

    def do_flood(self) -> None:
        """Clients ask more than anybody can answer, some of them not even in JSON."""
        (victim,) = self._some(1)
        stopping = threading.Event()
        threads = [
            threading.Thread(target=_flood, args=(victim, stopping, self.generator.randbytes(64)))
            for _ in range(FLOOD_THREADS)
        ]
        for thread in threads:
            thread.start()
        try:
            self._last(2.0, 6.0)
        finally:
            stopping.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def _cut(self, concerns: Callable[[str, str], bool]):
        for (source, target), flow in self.proxies.flows.items():
            flow.is_cut = concerns(source, target)
        try:
            yield
        finally:
            self.proxies.heal()


def _flood(node: Node, stopping: threading.Event, junk: bytes) -> None:
    bodies = [
        b'{"jsonrpc":"2.0","id":1,"method":"getinfo","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"get_block","params":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"get_consensus","params":{}}',
        b"[" * 2_000,
        junk,
    ]
    while not stopping.is_set():
        with suppress(OSError), socket.create_connection(("127.0.0.1", node.rpc_port), 1.0) as link:
            link.settimeout(1.0)
            for body in bodies * 4:
                if stopping.is_set():
                    return
                head = (
                    f"POST / HTTP/1.1\r\nHost: n\r\nContent-Type: application/json\r\n"
                    f"Content-Length: {len(body)}\r\n\r\n"
                )
                link.sendall(head.encode() + body)
                if not link.recv(65_536):
                    break
        time.sleep(0.01)
