"""What commands show and how they end: output, progress, errors and exit codes.

What it decides: which stream a text goes to and which number a command ends with. Standard output
holds the answer alone, and exactly JSON under `--json`; everything else goes to standard error.

    0 done   1 the answer is no   2 wrong usage   3 not reachable, try later
    4 configuration, key or genesis file   5 a store is damaged   6 the chain has forked
    70 a mistake of ours

Heavy modules are imported where they are needed, so that `--help` comes at once.
"""
# ruff: noqa: PLC0415 - see above

import getpass
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from ledger.errors import (
    InvariantError,
    KanglianError,
    Reason,
    Rejected,
    StoreDamagedError,
    UnavailableError,
)
from node.clock import SystemClock
from node.messages import say

if TYPE_CHECKING:
    from pathlib import Path

    from node.keystore import PassphraseSource, PublicHalf
    from rpc.verification import Verification

EXIT_NO = 1
EXIT_UNAVAILABLE = 3
EXIT_CONFIG = 4
EXIT_DAMAGED = 5
EXIT_FORK = 6
EXIT_INTERNAL = 70
PLAIN_STEPS = 10
"""Lines that long work prints into a log file, where a moving bar would be noise."""


class Ending(NamedTuple):
    """How a failed command ends: exit code, stable kind, a heading, what to tell."""

    code: int
    kind: str
    heading: str
    message: str


def ending_of(error: KanglianError) -> Ending:
    """The exit code and the words of an error."""
    from genesis.private_files import PrivateFileError
    from node.config import ConfigError
    from node.quarantine import DuplicateInstanceError
    from rpc.client import RpcFailure
    from rpc.light.follow import ForkFoundError

    match error:
        case ForkFoundError():
            return Ending(EXIT_FORK, "fork", say("error_fork"), str(error))
        case DuplicateInstanceError():
            return Ending(EXIT_CONFIG, "duplicate_instance", say("error_duplicate"), str(error))
        case ConfigError():
            return Ending(EXIT_CONFIG, "config", say("error_config"), str(error))
        case PrivateFileError():
            return Ending(EXIT_CONFIG, error.problem, say("error_file"), str(error))
        case RpcFailure():
            code = EXIT_UNAVAILABLE if error.kind == "unavailable" else EXIT_NO
            return Ending(code, error.kind, say("error_node"), _node_words(error))
        case UnavailableError():
            return Ending(EXIT_UNAVAILABLE, "unavailable", say("error_unavailable"), str(error))
        case Rejected():
            code = EXIT_CONFIG if error.reason is Reason.BAD_GENESIS else EXIT_NO
            return Ending(code, error.reason, say("error_rejected"), str(error))
        case StoreDamagedError():
            return Ending(EXIT_DAMAGED, "damaged", say("error_damaged"), str(error))
        case InvariantError():
            return Ending(EXIT_INTERNAL, "internal", say("error_internal"), str(error))
        case _:
            return Ending(EXIT_NO, "error", say("error"), str(error))


def _node_words(failure: "KanglianError") -> str:
    from rpc.client import RpcFailure

    if not isinstance(failure, RpcFailure):
        return str(failure)
    detail = failure.data.get("detail")
    text = failure.message or failure.kind
    return f"{text}: {detail}" if detail and str(detail) not in text else text


def report(error: KanglianError, *, as_json: bool) -> int:
    """Tell what went wrong on standard error; the exit code."""
    ending = ending_of(error)
    if as_json:
        body = {"error": {"kind": ending.kind, "message": ending.message}}
        note(json.dumps(body, ensure_ascii=False))
    else:
        note(f"{ending.heading}: {ending.message}")
    return ending.code


def error_in(group: BaseExceptionGroup[BaseException]) -> KanglianError | None:
    """The first error of ours in a group that holds nothing else, or None."""
    ours, others = group.split(KanglianError)
    while isinstance(ours, BaseExceptionGroup):
        first = ours.exceptions[0]
        if isinstance(first, KanglianError):
            return first if others is None else None
        ours = first
    return None


def note(text: str) -> None:
    """A line for people, on standard error."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


def show(document: object, text: str, *, as_json: bool) -> None:
    """The answer of a command, as one JSON document or as text for people."""
    if as_json:
        import msgspec

        text = msgspec.json.format(msgspec.json.encode(document), indent=2).decode()
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def show_line(document: object) -> None:
    """One line of JSON."""
    sys.stdout.write(json.dumps(document, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def now_ms() -> int:
    """The time on this machine, in milliseconds since 1970."""
    return SystemClock().now_ms()


def utc(time_ms: int) -> datetime:
    """The aware time that certificates are issued and judged by."""
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def moment(time_ms: int) -> str:
    """A time for people, in the zone of this machine."""
    return f"{utc(time_ms).astimezone():%Y-%m-%d %H:%M:%S %z}"


def duration(milliseconds: int) -> str:
    """A span for people, in its two largest units."""
    seconds = max(milliseconds, 0) // 1000
    spans = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))
    parts = [
        f"{seconds % larger // size} {unit}"
        for (size, unit), larger in zip(spans, (10**12, 86_400, 3_600, 60), strict=True)
        if seconds % larger // size
    ]
    return " ".join(parts[:2]) or "0 s"


class Advance(Protocol):
    """How long work tells how far it is."""

    def __call__(self, done: int, total: int, text: str) -> None:
        """`done` of `total`; `text` says it in words."""
        ...


@contextmanager
def progress() -> Generator[Advance]:
    """A moving bar at a terminal; about ten plain lines elsewhere. Always on standard error."""
    if not sys.stderr.isatty():
        yield _plain_progress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (BarColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total, description=text)

        yield advance


def _plain_progress() -> Advance:
    shown = -1

    def advance(done: int, total: int, text: str) -> None:
        nonlocal shown
        step = PLAIN_STEPS * done // max(total, 1)
        if step > shown:
            shown = step
            note(text)

    return advance


def live_line(text: str) -> None:
    """Replace the last line at a terminal; say nothing elsewhere."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[2K{text}")
        sys.stderr.flush()


def passphrases(file: "Path | None", path: "Path") -> "PassphraseSource":
    """Where the passphrase of `path` comes from: file, variable, or whoever sits there."""
    import os

    from node.keystore import PassphraseSource

    def ask(_: str) -> str:
        return getpass.getpass(say("ask_passphrase", path=path) + ": ")

    return PassphraseSource(file, os.environ, ask if sys.stdin.isatty() else None)


def new_passphrase(file: "Path | None", path: "Path") -> str:
    """The passphrase of a key that is about to be made; a person types it twice.

    Raises: PrivateFileError when there is none or the two differ.
    """
    import os

    from genesis.private_files import FileProblem, PrivateFileError
    from node.keystore import PassphraseSource

    def ask_twice(_: str) -> str:
        first = getpass.getpass(say("new_passphrase", path=path) + ": ")
        if getpass.getpass(say("repeat_passphrase") + ": ") == first:
            return first
        detail, remedy = "the two passphrases differ", "try again"
        raise PrivateFileError(FileProblem.NO_PASSPHRASE, path, detail, remedy)

    prompt = ask_twice if sys.stdin.isatty() else None
    return PassphraseSource(file, os.environ, prompt).passphrase_for(path)


def authority_passphrase(path: "Path", file: "Path | None") -> str | None:
    """The passphrase of an authority's key, asked for only if the file is encrypted.

    Raises: PrivateFileError.
    """
    from genesis.authority import PEM_BYTES
    from genesis.private_files import read_private

    if b"BEGIN ENCRYPTED" not in read_private(path, PEM_BYTES):
        return None
    return passphrases(file, path).passphrase_for(path)


def transaction_text(view: dict[str, Any]) -> str:
    """A transaction and its outputs for people."""
    body = view["transaction"]
    facts = {name: body[name] for name in ("id", "module", "level", "signed_by")}
    place = {"height": view["block_height"], "index": view["index"]}
    lines = [say("transaction_lines", **facts, **place, time=moment(view["block_time"]))]
    for operation, receipt in zip(body["operations"], view["receipts"], strict=True):
        outputs = receipt["error"] or json.dumps(receipt["outputs"], ensure_ascii=False)
        call = {name: operation[name] for name in ("contract", "method")}
        lines.append(say("operation_line", **call, status=receipt["status"], outputs=outputs))
    return "\n".join(lines)


def verdict_text(verdict: "Verification", now_ms: int) -> str:
    """What a verified proof says, for people: who, what, when, and on whose word."""
    checked = [say("checked_proof")]
    if verdict.opened:
        checked.append(say("checked_opening", parts=", ".join(verdict.opened)))
    if verdict.record_checked:
        checked.append(say("checked_record"))
    return say(
        "proof_holds",
        operation=verdict.operation,
        account=verdict.account,
        organisation=verdict.organisation or say("unknown_organisation"),
        contract=verdict.contract,
        method=verdict.method,
        module=verdict.module,
        level=verdict.level,
        height=verdict.height,
        time=moment(verdict.time_ms),
        age=duration(now_ms - verdict.time_ms),
        anchor=verdict.anchor,
        checked=", ".join(checked),
    )


def public_view(public: "PublicHalf") -> dict[str, str]:
    """The public half of a key file as JSON members."""
    return {
        "address": public.address,
        "kind": public.kind.name.lower(),
        "key_type": public.key_type.name.lower(),
        "public_key": public.public_key.hex(),
    }
