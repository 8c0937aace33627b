"""The command `kanglian`: commands and their options; what they do lives below.

Every command takes `--json`; then standard output holds exactly JSON. Exit codes stand in
rpc/console.py, all texts in node/messages.py. Modules are imported inside the commands that need
them, so that `kanglian --help` comes at once.
"""
# ruff: noqa: PLC0415 - see above

import functools
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec

import click

from ledger.errors import KanglianError
from node import messages
from node.messages import say
from rpc import console

P = ParamSpec("P")
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path)

messages.language.set(messages.language_of(sys.argv, os.environ))


def _guarded(function: Callable[P, int | None]) -> Callable[P, None]:
    """Turn an error of ours into two lines and an exit code; any other is a bug and shows itself."""

    @functools.wraps(function)
    def command(*arguments: P.args, **options: P.kwargs) -> None:
        as_json = bool(options.get("as_json"))
        try:
            code = function(*arguments, **options) or 0
        except KanglianError as error:
            code = console.report(error, as_json=as_json)
        except BaseExceptionGroup as group:
            ours = _first_of(group)
            if ours is None:
                raise
            code = console.report(ours, as_json=as_json)
        click.get_current_context().exit(code)

    return command


def _first_of(group: BaseExceptionGroup[BaseException]) -> KanglianError | None:
    """The first error of ours in a group that holds nothing else."""
    ours, others = group.split(KanglianError)
    if ours is None or others is not None:
        return None
    error: BaseException = ours
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, KanglianError) else None


def _json_option(function: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--json", "as_json", is_flag=True, help=say("option_json"))(function)


def _rpc_option(function: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--rpc", "url", required=True, help=say("option_rpc"))(function)


def _passphrase_option(function: Callable[P, Any]) -> Callable[P, Any]:
    return click.option("--passphrase-file", type=FILE, help=say("option_passphrase_file"))(
        function
    )


def _now_ms() -> int:
    from node.clock import SystemClock

    return SystemClock().now_ms()


def _set_language(_context: click.Context, _option: click.Parameter, chosen: str | None) -> None:
    named = [] if chosen is None else ["--lang", chosen]
    messages.language.set(messages.language_of(named, os.environ))


@click.group(help=say("help"))
@click.version_option(package_name="kanglian", prog_name="kanglian")
@click.option(
    "--lang",
    type=click.Choice(["en", "zh"]),
    is_eager=True,
    expose_value=False,
    callback=_set_language,
    help=say("option_lang"),
)
def main() -> None:
    """Entry point of the distribution."""


# ---- development networks ---------------------------------------------------------------------


@main.group(help=say("help_devnet"))
def devnet() -> None:
    """Processes of a development network."""


@devnet.command("up", help=say("help_devnet_up"))
@click.argument("directory", type=FOLDER)
@click.option("--nodes", type=click.IntRange(1, 100), help=say("option_nodes"))
@click.option(
    "--base-port", type=int, default=26_600, show_default=True, help=say("option_base_port")
)
@click.option("--detach", is_flag=True, help=say("option_detach"))
@_json_option
@_guarded
def devnet_up(
    directory: Path, nodes: int | None, base_port: int, detach: bool, as_json: bool
) -> None:
    """Create what is absent, start what does not run, wait until all answer."""
    from genesis.networks import development_network
    from node.clock import SystemClock
    from node.devnet import Devnet, DevelopmentKeys
    from rpc.client import answers

    directory.mkdir(parents=True, exist_ok=True)
    network = development_network(directory, DevelopmentKeys(), _now_ms(), nodes, base_port)
    console.note(say("development", directory=directory))
    net = Devnet(directory, SystemClock())
    net.adopt(network)
    fresh = [node.name for node in net.state().nodes if node.pid is None]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        net.start(fresh)
        with console.progress() as advance:
            ready = iter(range(1, len(network.nodes) + 1))
            net.wait_ready(
                (),
                functools.partial(answers, genesis=network.genesis),
                lambda name: advance(
                    next(ready), len(network.nodes), say("node_ready", name=name)
                ),
            )
    except (KanglianError, KeyboardInterrupt):
        if fresh:
            net.stop(fresh)
        raise
    state = net.state()
    count = len(state.nodes)
    text = (
        say("network_detached", count=count, directory=directory)
        if detach
        else say("network_ready", count=count, account_key=state.account_key)
    )
    console.show(_plain(state), text, as_json=as_json)
    if not detach:
        _stay(net)
