"""A node process: the running node and its front door under one roof, until a signal says stop.

SIGTERM and SIGINT stop accepting, let requests in flight finish, close the stores and return. What
goes wrong at the start is named by the exception; what breaks a promise later stops the process.
"""

import ctypes
import gc
import signal

import structlog
import trio

from ledger.limits import MIB
from node import logs
from node.backup_channel import BackupChannel
from node.config import NodeConfig
from node.damage import marked
from node.folder_lock import locked
from node.joining import SnapshotJoin, may_join
from node.keystore import PassphraseSource
from node.node import Prepared, RunningNode, prepare, start_node
from rpc.http import App, HttpConfig, serve_http
from rpc.methods import build_app

_log = structlog.get_logger("node")
# Hot-path records are not tracked by the collector and the rest rarely forms cycles: looking less
# often saves a twentieth of a node's CPU, and bounds garbage in cycles to about 100 MB.
_GC_ALLOCATIONS = 400_000
# mallopt(3). Batches and blocks come and go by the half megabyte: given back to the kernel each
# time, their pages are cleared and faulted in again, one for every fourth transaction.
_M_TRIM_THRESHOLD, _TRIM_BYTES = -1, 64 * MIB
_M_MMAP_THRESHOLD, _MMAP_BYTES = -3, 4 * MIB


async def run(config: NodeConfig, passphrase: PassphraseSource) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises: what `prepare` raises; FolderInUseError when another process has the data folder;
        UnavailableError when a port is taken.
    """
    logs.configure(config.log)
    with locked(config.node.data_dir):
        prepared = prepare(config, passphrase)
        if not await _joined(prepared):
            return
        node = start_node(prepared)
        app = build_app(node, node.metrics.render)
        door = HttpConfig(config.rpc.listen_host, config.rpc.listen_port)
        data_dir = config.node.data_dir
        backups = BackupChannel(data_dir, node.chain, node.blocks, lambda: node.height)
        with marked(data_dir):
            await _serve(node, door, app, backups)


async def _joined(prepared: Prepared) -> bool:
    """Join from a snapshot if the node is to; whether it goes on, and was not told to stop.

    Raises: UnavailableError, StoreDamagedError.
    """
    config, ports = prepared.config, prepared.ports
    is_done = False
    try:
        if not may_join(config, ports):
            is_done = True
            return True
        join = SnapshotJoin(config, prepared.genesis, prepared.key, ports)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
            await join.run()
            is_done = True
            nursery.cancel_scope.cancel()
        return is_done
    finally:
        if not is_done:
            ports.close()


async def _serve(node: RunningNode, door: HttpConfig, app: App, backups: BackupChannel) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_stop_on_signal, nursery.cancel_scope)
        await nursery.start(node.run)
        await nursery.start(backups.run)
        await nursery.start(serve_http, door, app)
        _log.info("rpc_ready", host=door.host, port=door.port)
        _keep_memory()


def _keep_memory() -> None:
    """Suit the two allocators to a process that does the same for months."""
    # What start-up made lives as long as the process: keep the collector from walking it.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GC_ALLOCATIONS, 10, 50)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # the C library is another one: it has its own ways
        mallopt(_M_TRIM_THRESHOLD, _TRIM_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MMAP_BYTES)


async def _stop_on_signal(scope: trio.CancelScope) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            _log.info("stopping", signal=signal.Signals(number).name)
            scope.cancel()
            return
