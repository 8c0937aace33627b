"""`make demo`: the main job of Kanglian on four real nodes, told step by step.

What it decides: whether each step really held; a step that did not ends the demonstration with its
name and exit code 1. Nodes are stopped however it ends. The folder `demo-network` stays for the
curious; the next run replaces it, but only if this program made it.
"""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from bench.demo_folder import free_base_port, replace_folder, write_records
from genesis.networks import development_network
from genesis.private_files import read_public, write_public
from ledger.errors import KanglianError, Reason, Rejected
from node import messages
from node.clock import SystemClock
from node.devnet import (
    INTERRUPTS,
    STATE_FILE,
    DevelopmentKeys,
    DevnetState,
    NodeState,
    uninterrupted,
)
from node.keystore import PassphraseSource, load_key
from node.messages import say
from rpc import console
from rpc.client import Client, Signer, account_signer, glance
from rpc.development import Network, node_line
from rpc.fhir import FILE_BYTES
from rpc.registration import Progress, Registered, Registrar, Settings
from rpc.verification import Verification, verify_files

DIRECTORY = "demo-network"
NODES = 4
VICTIM = "node3"
RECORDS = 450
"""Fifty visits of nine records: some seconds of registering."""
AGREEMENT_TIMEOUT_S = 30.0
"""A node that was away for seconds needs less than one to catch up."""
POLL_S = 0.05
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as shells count."""


_screen = Console(highlight=False, soft_wrap=True)


class DemoFailedError(KanglianError):
    """A step of the demonstration did not hold."""


@dataclass(frozen=True, slots=True)
class Registrations:
    """What was registered in one go, in the order of the files."""

    done: tuple[Registered, ...]
    seconds: float

    @property
    def rate(self) -> int:
        """Registrations a second."""
        return round(len(self.done) / self.seconds)


@dataclass(frozen=True, slots=True)
class Evidence:
    """The files that together convince somebody who trusts nothing but genesis."""

    genesis: Path
    proof: Path
    record: Path
    opening: Path

    def verify(self) -> Verification:
        """Check all of it offline.

        Raises: Rejected.
        """
        found = verify_files(self.proof, self.genesis, self.record, self.opening)
        if not isinstance(found, Verification):
            raise Rejected(Reason.BAD_PROOF, "not the proof of a registration")
        return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demonstration in the current folder; 0 only if every step held."""
    parser = argparse.ArgumentParser(prog="python -m bench.demo")
    parser.add_argument("--records", type=int, default=RECORDS, help="how many, 10 or more")
    options = parser.parse_args(arguments)
    if options.records < 10:
        parser.error("10 records are the least that shows anything")
    messages.language.set(messages.language_of([], os.environ))
    # A closed terminal or a supervisor must stop the nodes as Ctrl-C does.
    for number in INTERRUPTS:
        signal.signal(number, signal.default_int_handler)
    try:
        run(Path(DIRECTORY), options.records)
    except KanglianError as error:
        return console.report(error, as_json=False)
    except KeyboardInterrupt:
        console.note(say("demo_interrupted"))
        return EXIT_INTERRUPTED
    return 0


def run(directory: Path, count: int) -> None:
    """Every step in order, in `directory`.

    Raises: DemoFailedError when a step did not hold; UnavailableError, RpcFailure, Rejected.
    """
    started = time.monotonic()
    replace_folder(directory)
    network = Network(directory)
    _heading(say("demo_network"))
    with _running(network, free_base_port(NODES)) as state:
        _show_nodes(network)
        _heading(say("demo_records"))
        files = write_records(directory / "records", count)
        _print(say("demo_records_made", count=count, directory=directory / "records"))
        split = count * 2 // 3
        with Client(state.nodes[0].rpc) as client:
            signer = _signer(state, client)
            _heading(say("demo_register"))
            first = register(client, signer, directory, files[:split])
            _heading(say("demo_look"))
            chosen = first.done[split // 2]
            _look(client, first, chosen)
            _heading(say("demo_proof"))
            evidence = _prove(client, directory, state, chosen, files[split // 2])
            changes = _change_bytes(evidence, directory / "changed")
            died_at = _kill(network)
            second = register(client, signer, directory, files[split:])
            _bring_back(network, client, second, died_at)
    _heading(say("demo_done"))
    seconds = first.seconds + second.seconds
    facts = {"count": count, "rate": round(count / seconds), "changes": changes, "name": VICTIM}
    _print(say("demo_summary", **facts, seconds=f"{time.monotonic() - started:.0f}"))
    _heading(say("demo_next"))
    _print(say("demo_commands", **_places(directory, state, evidence)))


@contextmanager
def _running(network: Network, base_port: int) -> Generator[DevnetState]:
    """Four linked nodes, stopped at the end whatever happens."""
    processes, now_ms = network.processes, SystemClock().now_ms()
    try:
        processes.adopt(
            development_network(network.directory, DevelopmentKeys(), now_ms, NODES, base_port)
        )
        with uninterrupted():
            processes.start()
        state = network.raise_up(NODES, base_port)
        links = [NODES - 1] * NODES
        _await(lambda: [look and look["peers"] for _, look in network.looks()] == links, "links")
        yield state
    finally:
        if (network.directory / STATE_FILE).exists():
            with uninterrupted():
                processes.stop()


def register(
    client: Client, signer: Signer, directory: Path, files: Sequence[Path]
) -> Registrations:
    """Register files and keep their openings.

    Raises: DemoFailedError when one of them has another receipt than OK.
    """
    settings = Settings(out=directory / "openings", source="kanglian demo")
    clock = client.signing_clock(SystemClock().now_ms)
    registrar = Registrar(client, signer, settings, clock)
    started = time.monotonic()
    with console.progress() as advance:

        def on_progress(state: Progress) -> None:
            advance(state.registered, state.total, say("register_progress", **asdict(state)))

        done = registrar.run(files, on_progress)
    made = Registrations(tuple(done), time.monotonic() - started)
    statuses = [one.status for one in done]
    _require(statuses == ["OK"] * len(files), "every record is registered with a receipt OK")
    facts = {"count": len(done), "seconds": f"{made.seconds:.1f}", "rate": made.rate}
    _print(say("demo_registered", **facts))
    return made


def _signer(state: DevnetState, client: Client) -> Signer:
    key = load_key(Path(state.account_key), PassphraseSource())
    return account_signer(key, client.chain())


def _show_nodes(network: Network) -> None:
    for node, look in network.looks():
        _print(node_line(node, look))


def _look(client: Client, made: Registrations, chosen: Registered) -> None:
    info = client.getinfo()
    found = (info["operations"], info["masters"], info["peers"])
    _require(found == (len(made.done), NODES, NODES - 1), "getinfo counts every registration")
    _print(say("info_lines", **info))
    view = client.get_transaction(chosen.id)
    place = (view["block_height"], view["receipt"]["status"])
    _require(place == (chosen.block_height, "OK"), "get_transaction finds what was acknowledged")
    _print(console.transaction_text(view))


def _prove(
    client: Client, directory: Path, state: DevnetState, chosen: Registered, file: Path
) -> Evidence:
    """Save the proof of a registration and verify it with its record and opening."""
    openings = directory / "openings"
    evidence = Evidence(
        genesis=directory / Path(state.genesis).name,
        proof=directory / "proof.json",
        record=openings / f"{chosen.id}.record",
        opening=openings / f"{chosen.id}.opening.json",
    )
    write_public(evidence.proof, client.get_proof(chosen.id).to_json())
    verdict = evidence.verify()
    proven = (verdict.operation, verdict.height, verdict.record_checked, len(verdict.opened))
    _require(proven == (chosen.id, chosen.block_height, True, 5), "the proof holds in every part")
    same = read_public(file, FILE_BYTES).strip() == read_public(evidence.record, FILE_BYTES)
    _require(same, "the proven record is the file, byte for byte")
    _print(console.verdict_text(verdict, SystemClock().now_ms()))
    return evidence


def _change_bytes(evidence: Evidence, directory: Path) -> int:
    """Change one byte in a copy of each file; how many copies were refused, which is all."""
    directory.mkdir()
    names = ("record", "opening", "proof")
    for name in names:
        original: Path = getattr(evidence, name)
        data = bytearray(read_public(original, FILE_BYTES))
        data[len(data) // 2] ^= 1
        copy = directory / original.name
        write_public(copy, bytes(data))
        files = {item: getattr(evidence, item) for item in ("genesis", *names)}
        try:
            Evidence(**{**files, name: copy}).verify()
        except Rejected as refusal:
            _print(say("demo_changed", file=name, reason=refusal.reason))
        else:
            raise DemoFailedError(f"a changed {name} was not refused")
    return len(names)


def _kill(network: Network) -> int:
    """End a node as a power cut would; the height it had."""
    _heading(say("demo_kill", name=VICTIM))
    rpc = _node(network, VICTIM).rpc
    look = glance(rpc)
    network.processes.kill(VICTIM)
    _require(look is not None and glance(rpc) is None, f"{VICTIM} lived and is dead")
    _print(say("node_killed", name=VICTIM))
    return 0 if look is None else int(look["height"])


def _bring_back(network: Network, client: Client, missed: Registrations, died_at: int) -> None:
    """Start the dead node and wait until all four hold the same state, with everything in it."""
    _require(_node(network, VICTIM).pid is None, f"{VICTIM} stayed dead")
    _heading(say("demo_return", name=VICTIM))
    started = time.monotonic()
    with uninterrupted():
        network.processes.start((VICTIM,))
    network.start_again(VICTIM)
    last = missed.done[-1]

    def agree() -> bool:
        looks = [look for _, look in network.looks() if look is not None]
        tips = [(look["height"], look["latest_block_hash"], look["operations"]) for look in looks]
        # The block after the last registration commits to the state that it left.
        return tips[1:] == tips[:1] * (NODES - 1) and tips[0][0] > last.block_height

    _await(agree, f"{VICTIM} catches up")
    seconds = f"{time.monotonic() - started:.1f}"
    with Client(_node(network, VICTIM).rpc) as returned:
        info = returned.getinfo()
        knows = returned.get_transaction(last.id) == client.get_transaction(last.id)
    _require(knows, f"{VICTIM} knows what was registered while it was dead")
    facts = {"height": info["height"], "block": info["latest_block_hash"][:16]}
    blocks = info["height"] - died_at
    _print(say("demo_caught_up", name=VICTIM, blocks=blocks, seconds=seconds, **facts))
    _show_nodes(network)


def _node(network: Network, name: str) -> NodeState:
    return next(node for node in network.processes.state().nodes if node.name == name)


def _places(directory: Path, state: DevnetState, evidence: Evidence) -> dict[str, object]:
    command = Path(sys.executable).with_name("kanglian")
    return {
        "directory": directory,
        "kanglian": os.path.relpath(command),
        "rpc": state.nodes[0].rpc,
        **asdict(evidence),
        "changed": directory / "changed" / evidence.record.name,
    }


def _await(condition: Callable[[], bool], step: str) -> None:
    """Ask until the condition holds.

    Raises: DemoFailedError naming the step after half a minute.
    """
    deadline = time.monotonic() + AGREEMENT_TIMEOUT_S
    while not condition():
        _require(time.monotonic() < deadline, step)
        time.sleep(POLL_S)


def _require(condition: object, step: str) -> None:
    if not condition:
        raise DemoFailedError(f"this step did not hold: {step}")


def _heading(text: str) -> None:
    _screen.print()
    _screen.print(text, style="bold", markup=False)


def _print(text: str) -> None:
    for line in text.splitlines():
        _screen.print("     " + line, markup=False)


if __name__ == "__main__":
    sys.exit(main())
