"""The commands `kanglian proof …`: get documents of every kind from a node, verify them offline."""
# ruff: noqa: PLC0415 - heavy modules are imported where they are needed

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from node.messages import say
from rpc import console
from rpc.commands.base import FILE, command, option

HEIGHT = click.IntRange(min=0)


@click.group(help=say("help_proof"))
def proof() -> None:
    """Proofs of every kind."""


@command(proof, "verify")
@click.argument("path", metavar="FILE", type=FILE)
@option("genesis", "genesis_path", type=FILE, required=True)
@option("record", "record_path", type=FILE)
@option("opening", "opening_path", type=FILE)
@option("max_age", "max_age_s", "--max-age", type=click.IntRange(min=1))
def proof_verify(
    path: Path,
    genesis_path: Path,
    record_path: Path | None,
    opening_path: Path | None,
    max_age_s: int | None,
    as_json: bool,
) -> None:
    """Everything given holds, or this ends with a reason and a code other than 0."""
    from rpc.verification import Verification, verify_files

    if record_path is not None and opening_path is None:
        raise click.UsageError(say("record_needs_opening"))
    now_ms = console.now_ms()
    not_before_ms = 0 if max_age_s is None else now_ms - 1_000 * max_age_s
    verdict = verify_files(path, genesis_path, record_path, opening_path, not_before_ms)
    if isinstance(verdict, Verification):
        console.show(verdict, console.verdict_text(verdict, now_ms), as_json=as_json)
        return
    from rpc.proof_views import fact_text, fact_view

    fact, anchor = verdict.fact, verdict.anchor
    console.show(fact_view(fact, anchor), fact_text(fact, anchor, now_ms), as_json=as_json)


@proof.group(help=say("help_proof_get"))
def get() -> None:
    """Documents from a node."""


def _asking(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of every command that asks a node."""
    for declare in (
        option("proof_out", "out", "--out", type=FILE),
        option("rpc", "url", required=True),
    ):
        function = declare(function)
    return function


def _get(method: str, url: str, out: Path | None, *, as_json: bool, **params: object) -> None:
    """Ask a node, and print or write the document."""
    from genesis.private_files import write_public
    from rpc.client import Client

    with Client(url) as client:
        document = client.get_document(method, **params)
    if out is not None:
        write_public(out, document + b"\n")
        text = say("proof_written", path=out, size=len(document))
    else:
        text = say("proof_got", size=len(document))
    sys.stdout.write(document.decode() if as_json else text + "\n")


def _namespace(written: str) -> dict[str, object]:
    """Module and level of MODULE/LEVEL."""
    module, _, level = written.partition("/")
    if not module or not level.isascii() or not level.isdigit():
        raise click.BadParameter(f"{written!r} is not of the form MODULE/LEVEL")
    return {"module": module, "level": int(level)}


def _collection(written: str, kind: str) -> dict[str, object]:
    """The parameters of MODULE/LEVEL/CONTRACT/NAME, the name as a map or a log."""
    parts = written.split("/")
    if len(parts) != 4:
        raise click.BadParameter(f"{written!r} is not of the form MODULE/LEVEL/CONTRACT/NAME")
    return {**_namespace("/".join(parts[:2])), "contract": parts[2], kind: parts[3]}


@command(get, "state")
@click.argument("collection", metavar="MODULE/LEVEL/CONTRACT/MAP")
@click.argument("key")
@option("proof_height", "height", "--height", type=HEIGHT)
@_asking
def get_state(
    collection: str, key: str, height: int | None, url: str, out: Path | None, as_json: bool
) -> None:
    """A value or its absence."""
    params = _collection(collection, "map")
    _get("get_state_proof", url, out, as_json=as_json, **params, key=key, height=height)


@command(get, "log")
@click.argument("collection", metavar="MODULE/LEVEL/CONTRACT/LOG")
@option("first", type=HEIGHT, default=0, show_default=True)
@option("count", type=click.IntRange(min=0), default=0, show_default=True)
@option("proof_height", "height", "--height", type=HEIGHT)
@_asking
def get_log(
    collection: str,
    first: int,
    count: int,
    height: int | None,
    url: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """The head of a log and entries of it."""
    params = {**_collection(collection, "log"), "first": first, "count": count, "height": height}
    _get("get_log_proof", url, out, as_json=as_json, **params)


@command(get, "completeness")
@click.argument("namespace", metavar="MODULE/LEVEL")
@click.argument("start", type=HEIGHT)
@click.argument("stop", type=HEIGHT)
@option("proof_height", "height", "--height", type=HEIGHT)
@_asking
def get_completeness(
    namespace: str,
    start: int,
    stop: int,
    height: int | None,
    url: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """All of a range."""
    params = {**_namespace(namespace), "start": start, "stop": stop, "height": height}
    _get("get_completeness_proof", url, out, as_json=as_json, **params)


@command(get, "receipt")
@click.argument("operation", metavar="ID")
@_asking
def get_receipt(operation: str, url: str, out: Path | None, as_json: bool) -> None:
    """What became of an operation."""
    _get("get_receipt_proof", url, out, as_json=as_json, id=operation)


@command(get, "event")
@click.argument("operation", metavar="ID")
@click.argument("index", type=click.IntRange(min=0))
@_asking
def get_event(operation: str, index: int, url: str, out: Path | None, as_json: bool) -> None:
    """One event."""
    _get("get_event_proof", url, out, as_json=as_json, id=operation, event=index)


@command(get, "transaction")
@click.argument("operation", metavar="ID")
@_asking
def get_transaction(operation: str, url: str, out: Path | None, as_json: bool) -> None:
    """A transaction with its outcome."""
    _get("get_transaction_proof", url, out, as_json=as_json, id=operation)


@command(get, "header")
@click.argument("height", type=HEIGHT)
@option("under", type=HEIGHT)
@_asking
def get_header(height: int, under: int | None, url: str, out: Path | None, as_json: bool) -> None:
    """An old header."""
    _get("get_header_proof", url, out, as_json=as_json, height=height, under=under)


@command(get, "history")
@click.argument("height", type=HEIGHT)
@option("under", type=HEIGHT)
@_asking
def get_history(height: int, under: int | None, url: str, out: Path | None, as_json: bool) -> None:
    """An old history."""
    _get("get_history_proof", url, out, as_json=as_json, height=height, under=under)
