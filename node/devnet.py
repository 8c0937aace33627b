"""The processes of a development network: start, look, stop.

What it decides: which process is ours. A pid from a file may have been given to a stranger since,
so nothing is ever signalled unless its command line names the node's configuration.
What it never does: create keys or genesis (genesis/networks.py), or talk to a node: whether one
answers is asked through a probe that the caller brings.
Linux: it reads /proc. State stands in DIR/devnet.json, output in DIR/<node>/node.log.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgspec

from genesis.networks import DevelopmentNetwork
from genesis.private_files import read_public, write_public
from ledger.addresses import AddressKind
from ledger.codec import Document
from ledger.errors import Reason, Rejected, UnavailableError
from node.clock import Clock
from node.config import OVERRIDE_PREFIX, load_config
from node.keystore import load_public, new_secret, save_key

STATE_FILE = "devnet.json"
STATE_BYTES = 1024 * 1024
START_TIMEOUT_MS = 60_000
"""Python, LevelDB and a handshake take about a second; a busy machine takes a while longer."""
STOP_TIMEOUT_MS = 10_000
"""A node writes its last block and closes its stores within a second."""
KILL_TIMEOUT_MS = 5_000
POLL_MS = 50
INTERRUPTS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
LOG_LINES = 5

Probe = Callable[[str], bool]
"""Whether the node at this RPC address answers."""


class DevelopmentKeys:
    """Key files without encryption, made when absent: the port `KeyFiles` of genesis/networks."""

    def ensure(self, path: Path, kind: AddressKind) -> bytes:
        """The tagged 34-byte public key of the file.

        Raises: PrivateFileError.
        """
        if path.exists():
            return load_public(path).public_key
        path.parent.mkdir(parents=True, exist_ok=True)
        return save_key(path, new_secret(), kind, None).public_key


class NodeState(Document, frozen=True):
    """One node; `pid` null when it does not run."""

    name: str
    rpc: str
    pid: int | None


class DevnetState(Document, frozen=True):
    """The file DIR/devnet.json; paths are absolute."""

    genesis: str
    account_key: str
    nodes: tuple[NodeState, ...]


@contextmanager
def uninterrupted() -> Generator[None]:
    """Put an interrupt off to the end of a short step that would leave processes behind.

    Signals reach the main thread only; elsewhere there is nothing to put off.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: list[int] = []

    def note(number: int, _frame: object) -> None:
        arrived.append(number)

    handlers = [signal.signal(number, note) for number in INTERRUPTS]
    try:
        yield
    finally:
        for number, handler in zip(INTERRUPTS, handlers, strict=True):
            signal.signal(number, handler)
    if arrived:
        raise KeyboardInterrupt


@dataclass(frozen=True, slots=True)
class Devnet:
    """The processes of the network in one folder."""

    directory: Path
    clock: Clock

    def adopt(self, network: DevelopmentNetwork) -> None:
        """Write devnet.json for the files of a network; nodes that run keep their pid.

        Raises: ConfigError, UnavailableError.
        """
        path = self.directory / STATE_FILE
        running = {node.name: node.pid for node in self.state().nodes} if path.exists() else {}
        nodes: list[NodeState] = []
        for files in network.nodes:
            rpc = load_config(files.config, {}).rpc
            address = f"http://{rpc.listen_host}:{rpc.listen_port}"
            nodes.append(NodeState(files.name, address, running.get(files.name)))
        genesis, account_key = network.genesis.resolve(), network.account_key.resolve()
        self._write(DevnetState(str(genesis), str(account_key), tuple(nodes)))

    def state(self) -> DevnetState:
        """What devnet.json says, with the pid of every node that does not run taken out.

        Raises: UnavailableError when there is none, Rejected(MALFORMED) when it is damaged.
        """
        path = self.directory / STATE_FILE
        if not path.exists():
            raise UnavailableError(
                f"no network in {self.directory}; create one with: "
                f"kanglian devnet up {self.directory}"
            )
        try:
            state = msgspec.json.decode(read_public(path, STATE_BYTES), type=DevnetState)
        except msgspec.DecodeError as error:
            detail = f"{path}: {error}; delete it and run `kanglian devnet up` again"
            raise Rejected(Reason.MALFORMED, detail) from None
        nodes = tuple(
            msgspec.structs.replace(node, pid=node.pid if self._is_ours(node) else None)
            for node in state.nodes
        )
        return msgspec.structs.replace(state, nodes=nodes)

    def start(self, names: Sequence[str] = ()) -> DevnetState:
        """Start the named nodes, or all; one that runs is left alone.

        Raises: UnavailableError, Rejected(MALFORMED) for a name that is not in the network.
        """
        state = self.state()
        for chosen in self._chosen(state, names):
            if chosen.pid is not None:
                continue
            # A process that no file names could never be stopped: note each one at once.
            with uninterrupted():
                started = msgspec.structs.replace(
                    chosen, pid=_spawn(self._config(chosen), self._log(chosen))
                )
                nodes = tuple(started if node == chosen else node for node in state.nodes)
                state = msgspec.structs.replace(state, nodes=nodes)
                self._write(state)
        return state

    def wait_ready(
        self, names: Sequence[str], probe: Probe, on_ready: Callable[[str], None]
    ) -> None:
        """Wait until the named nodes, or all, answer.

        Raises: UnavailableError with the last lines of its log when one ends or stays silent.
        """
        deadline = self.clock.now_ms() + START_TIMEOUT_MS
        waiting = self._chosen(self.state(), names)
        while waiting:
            for node in waiting:
                if not self._is_ours(node):
                    raise UnavailableError(f"{node.name} ended at once: {self._last_words(node)}")
            answering = [node for node in waiting if probe(node.rpc)]
            for node in answering:
                on_ready(node.name)
            waiting = [node for node in waiting if node not in answering]
            if waiting and self.clock.now_ms() > deadline:
                names_left = ", ".join(node.name for node in waiting)
                raise UnavailableError(f"no answer from {names_left}; see {self._log(waiting[0])}")
            if waiting:
                time.sleep(POLL_MS / 1000)

    def stop(self, names: Sequence[str] = ()) -> None:
        """Ask the named nodes, or all, to stop (SIGTERM); end them after ten seconds (SIGKILL).

        Raises: UnavailableError when a process does not end at all.
        """
        running = [node for node in self._chosen(self.state(), names) if node.pid is not None]
        self._signal(running, signal.SIGTERM)
        self._signal(self._await_end(running, STOP_TIMEOUT_MS), signal.SIGKILL)
        self._ended(self._await_end(running, KILL_TIMEOUT_MS))

    def kill(self, name: str) -> None:
        """End one node at once (SIGKILL), as a power cut would.

        Raises: UnavailableError when it does not run or does not end, Rejected(MALFORMED).
        """
        (node,) = self._chosen(self.state(), (name,))
        if node.pid is None:
            raise UnavailableError(f"{name} does not run")
        self._signal([node], signal.SIGKILL)
        self._ended(self._await_end([node], KILL_TIMEOUT_MS))

    def _ended(self, left: Sequence[NodeState]) -> None:
        self._write(self.state())
        if left:
            names = ", ".join(f"{node.name} (pid {node.pid})" for node in left)
            raise UnavailableError(f"these processes do not end: {names}")

    def _chosen(self, state: DevnetState, names: Sequence[str]) -> list[NodeState]:
        known = {node.name: node for node in state.nodes}
        for name in names:
            if name not in known:
                detail = f"no node {name} in {self.directory}; it has {', '.join(known)}"
                raise Rejected(Reason.MALFORMED, detail)
        return [known[name] for name in names] if names else list(state.nodes)

    def _signal(self, nodes: Iterable[NodeState], number: signal.Signals) -> None:
        for node in nodes:
            if node.pid is not None and self._is_ours(node):
                try:
                    os.kill(node.pid, number)
                except ProcessLookupError:
                    continue  # it ended between the look and the signal

    def _await_end(self, nodes: Sequence[NodeState], timeout_ms: int) -> list[NodeState]:
        """Those of the nodes that still run at the time limit."""
        deadline = self.clock.now_ms() + timeout_ms
        left = [node for node in nodes if node.pid is not None and _holds_files(node.pid)]
        while left and self.clock.now_ms() < deadline:
            time.sleep(POLL_MS / 1000)
            left = [node for node in left if node.pid is not None and _holds_files(node.pid)]
        return left

    def _is_ours(self, node: NodeState) -> bool:
        """Whether the pid is a living process that runs this node's configuration."""
        if node.pid is None:
            return False
        _reap(node.pid)
        try:
            arguments = Path(f"/proc/{node.pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        return os.fsencode(self._config(node)) in arguments

    def _config(self, node: NodeState) -> Path:
        return (self.directory / node.name / "node.toml").resolve()

    def _log(self, node: NodeState) -> Path:
        return self.directory / node.name / "node.log"

    def _last_words(self, node: NodeState) -> str:
        try:
            lines = self._log(node).read_text(errors="replace").splitlines()
        except OSError:
            lines = []
        return " | ".join(lines[-LOG_LINES:]) or f"it left no message in {self._log(node)}"

    def _write(self, state: DevnetState) -> None:
        text = msgspec.json.format(msgspec.json.encode(state), indent=2) + b"\n"
        write_public(self.directory / STATE_FILE, text, replace=True)


def _spawn(config: Path, log: Path) -> int:
    """Start a node in a session of its own, so that no terminal's Ctrl-C reaches it by accident."""
    arguments = [sys.executable, "-P", "-m", "cli", "node", "run", "--config", str(config)]
    # An override would put all nodes of the network onto one port.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(OVERRIDE_PREFIX)
    }
    appending = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        return os.posix_spawn(
            sys.executable,
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(log), appending, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
    except OSError as error:
        raise UnavailableError(f"cannot start {config}: {error.strerror}") from None


def _holds_files(pid: int) -> bool:
    """Whether a process may still hold its ports and stores.

    A dying process loses its command line before its files, so only a zombie or none is the end.
    Source: proc(5), /proc/[pid]/stat; the state follows the name in parentheses.
    """
    _reap(pid)
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] not in {"Z", "X"}


def _reap(pid: int) -> None:
    """Take a dead child's entry off the process table; other people's children are theirs."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return
