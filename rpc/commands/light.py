"""The commands `kanglian light …`: sync, get, verify. The work is in rpc/light/session.py."""
# ruff: noqa: PLC0415 - heavy modules are imported where they are needed

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from node.messages import say
from rpc import console
from rpc.commands.base import FILE, command, option

if TYPE_CHECKING:
    from rpc.light.follow import Progress
    from rpc.light.keeper import TrustKeeper
    from rpc.light.session import Proven


@click.group(help=say("help_light"))
def light() -> None:
    """Believing no node."""


@command(light, "sync")
@option("genesis", "genesis_path", type=FILE)
@option("trust", "trust_path", type=FILE)
@option("rpc", "url", required=True)
@option("witness", "witnesses", multiple=True)
@option("state", type=FILE, required=True)
@option("trust_days", type=click.IntRange(1, 3_650))
@option("sequential", is_flag=True)
def light_sync(
    genesis_path: Path | None,
    trust_path: Path | None,
    url: str,
    witnesses: tuple[str, ...],
    state: Path,
    trust_days: int | None,
    sequential: bool,
    as_json: bool,
) -> int:
    """Follow, compare, write down; then say whether it is fresh."""
    from rpc.light.session import Beginning, Session, begun, followed_view

    if state.exists() and trust_path is not None:
        raise click.UsageError(say("light_has_start", path=state))
    is_new = not state.exists()
    wish = Beginning(state, genesis_path, trust_path, witnesses, trust_days)
    keeper = begun(wish, console.now_ms)
    if keeper is None:
        raise click.UsageError(say("light_needs_start", path=state))
    if is_new:
        start = keeper.trust.trusted
        console.note(say("light_begins", height=start.height, hash=start.hash.hex()))

    def work(keeper: "TrustKeeper") -> int:
        with Session(keeper, url) as session, console.progress() as advance:
            if not session.witnesses:
                console.note(say("light_no_witness"))

            def on_progress(state: "Progress") -> None:
                advance(state.height, state.target, say("light_progress", **asdict(state)))

            done = session.sync(sequential=sequential, on_progress=on_progress)
        view = followed_view(done, console.now_ms())
        facts = {**view, "time": console.moment(done.trust.trusted.time_ms)}
        age = console.duration(console.now_ms() - done.trust.trusted.time_ms)
        lines = [say("light_synced", **facts, age=age)]
        lines += [say("light_witness", **asdict(item)).rstrip() for item in done.witnesses]
        console.show(view, "\n".join(lines), as_json=as_json)
        trusted = keeper.trust.trusted
        keeper.check_fresh(trusted.height, trusted.time_ms)
        return 0

    return _ended(work, keeper, state, as_json=as_json)


@command(light, "get")
@click.argument("name", metavar="ID")
@option("rpc", "url", required=True)
@option("state", type=FILE, required=True)
@option("light_out", "--out", "out", type=FILE)
def light_get(name: str, url: str, state: Path, out: Path | None, as_json: bool) -> int:
    """Fetch from an untrusted node, prove under the trust, say what was proven."""
    from rpc.light.keeper import TrustKeeper
    from rpc.light.session import ProvenFailure, Session, is_name, write_proof

    if not is_name(name):
        raise click.UsageError(say("light_bad_id"))

    def work(keeper: "TrustKeeper") -> int:
        with Session(keeper, url) as session:
            proven, proof = session.get(name)
        if out is not None and proof is None:
            raise click.UsageError(say("light_nothing_to_write"))
        if out is not None and proof is not None:
            write_proof(out, proof)
        console.show(_view(proven), _text(proven), as_json=as_json)
        return console.EXIT_NO if isinstance(proven, ProvenFailure) else 0

    keeper = TrustKeeper.of_file(state, console.now_ms)
    return _ended(work, keeper, state, as_json=as_json)


@command(light, "verify")
@click.argument("path", metavar="PROOF", type=FILE)
@option("state", type=FILE, required=True)
@option("light_rpc", "--rpc", "url")
@option("light_out", "--out", "out", type=FILE)
def light_verify(path: Path, state: Path, url: str | None, out: Path | None, as_json: bool) -> int:
    """The proof holds under the trust, or this ends with a reason and a code other than 0."""
    from rpc.light.keeper import TrustKeeper
    from rpc.light.session import verify_file, write_proof

    def work(keeper: "TrustKeeper") -> int:
        proven, proof = verify_file(path, keeper, url)
        if out is not None and proof is None:
            raise click.UsageError(say("light_nothing_to_write"))
        if out is not None and proof is not None:
            write_proof(out, proof)
        console.show(_view(proven), _text(proven), as_json=as_json)
        return 0

    keeper = TrustKeeper.of_file(state, console.now_ms)
    return _ended(work, keeper, state, as_json=as_json)


def _ended(
    work: "Callable[[TrustKeeper], int]", keeper: "TrustKeeper", state: Path, *, as_json: bool
) -> int:
    """The exit code of work; a fork that it finds is written down and told.

    What is stale may be fresh at another node, so it ends like a node that does not answer.
    """
    from ledger.errors import Reason, Rejected
    from rpc.light.follow import ForkFoundError
    from rpc.light.session import fork_view, write_fork

    try:
        return work(keeper)
    except Rejected as refusal:
        if refusal.reason is not Reason.STALE:
            raise
        console.report(refusal, as_json=as_json)
        return console.EXIT_UNAVAILABLE
    except ForkFoundError as fork:
        path = write_fork(state, fork, keeper)
        view = fork_view(fork, path)
        facts = {
            "height": fork.found.height,
            "nodes": ", ".join(fork.nodes),
            "signed_both": ", ".join(item.hex() for item in fork.found.signed_both),
            "guilty": ", ".join(item.hex() for item in fork.found.equivocators) or "-",
            "path": path,
        }
        console.show({"fork": view}, say("light_fork", **facts), as_json=as_json)
        return console.EXIT_FORK


def _view(proven: "Proven") -> dict[str, Any]:
    kind = type(proven).__name__.removeprefix("Proven").lower()
    return {"proven": kind, **asdict(proven)}


def _text(proven: "Proven") -> str:
    from rpc.light.session import ProvenFailure, ProvenHeader

    time = console.moment(proven.time_ms)
    age = console.duration(console.now_ms() - proven.time_ms)
    facts = {**asdict(proven), "time": time, "age": age, "trusted": proven.trusted_height}
    if isinstance(proven, ProvenHeader):
        return say("light_header", **facts)
    if isinstance(proven, ProvenFailure):
        return say("light_failed", **{**facts, "statuses": ", ".join(proven.statuses)})
    return say("light_transaction", **facts)
