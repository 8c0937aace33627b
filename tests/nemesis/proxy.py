"""A TCP proxy in front of every node for every other one, so that links can be cut and slowed.

What it decides: nothing; it moves bytes as its `Flow`s say. Nodes dial each other through it. A cut
holds bytes back and closes nothing, as a dead line does: what was sent arrives when it heals. It
needs neither privileges nor namespaces of the kernel.
"""

import itertools
import threading
from dataclasses import dataclass, field

import trio

from .cluster import Node, peers_through

CHUNK_BYTES = 64 * 1024
POLL_S = 0.02


@dataclass
class Flow:
    """The bytes from one node to another; plain attributes, set from the thread of the nemesis."""

    is_cut: bool = False
    delay_s: float = 0.0
    bytes_per_s: float = 0.0


@dataclass
class Proxies:
    """All proxies of a cluster in one thread; use it as a context."""

    nodes: list[Node]
    flows: dict[tuple[str, str], Flow] = field(default_factory=dict)

    def __post_init__(self) -> None:
        pairs = list(itertools.permutations([node.name for node in self.nodes], 2))
        self.flows = {pair: Flow() for pair in pairs}
        self._links: dict[trio.CancelScope, None] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=[self._serve], daemon=True)

    def __enter__(self):
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._token.run_sync_soon(self._scope.cancel)
        self._thread.join()

    def heal(self) -> None:
        """Let all bytes through again."""
        for flow in self.flows.values():
            flow.is_cut, flow.delay_s, flow.bytes_per_s = False, 0.0, 0.0

    def reset(self) -> None:
        """Close every connection there is."""

        def close():
            for scope in self._links:
                scope.cancel()

        self._token.run_sync_soon(close)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        by_name = {node.name: node for node in self.nodes}
        async with trio.open_nursery() as nursery:
            self._scope = nursery.cancel_scope
            ports: dict[str, dict[str, int]] = {name: {} for name in by_name}
            for dialer, listener in self.flows:
                handler = self._handler(dialer, listener, by_name[listener].p2p_port)
                (listening,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                ports[dialer][listener] = listening.socket.getsockname()[1]
                nursery.start_soon(trio.serve_listeners, handler, [listening])
            for node in self.nodes:
                peers_through(node, ports[node.name], self.nodes)
            self._ready.set()

    def _handler(self, dialer: str, listener: str, port: int):
        async def carry(inbound: trio.SocketStream) -> None:
            with trio.CancelScope() as scope:
                self._links[scope] = None
                try:
                    outbound = await trio.open_tcp_stream("127.0.0.1", port)
                    async with outbound, trio.open_nursery() as nursery:
                        there, back = self.flows[dialer, listener], self.flows[listener, dialer]
                        nursery.start_soon(self._pump, inbound, outbound, there, scope)
                        nursery.start_soon(self._pump, outbound, inbound, back, scope)
                except OSError:
                    pass  # the node is down, and the dialer will find its link closed
                finally:
                    del self._links[scope]

        return carry

    async def _pump(
        self,
        source: trio.SocketStream,
        sink: trio.SocketStream,
        flow: Flow,
        scope: trio.CancelScope,
    ) -> None:
        try:
            while data := await source.receive_some(CHUNK_BYTES):
                while flow.is_cut:
                    await trio.sleep(POLL_S)
                pause_s = flow.delay_s
                if flow.bytes_per_s:
                    pause_s += len(data) / flow.bytes_per_s
                if pause_s:
                    await trio.sleep(pause_s)
                await sink.send_all(data)
        except trio.BrokenResourceError:
            pass
        scope.cancel()
