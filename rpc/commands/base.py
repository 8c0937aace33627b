"""How commands are declared: options with their help in the catalogue, errors as exit codes.

What it decides: nothing. Modules of commands are imported when the command line starts, so they
import what is heavy inside their functions.
"""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import click

from ledger.errors import KanglianError
from node.messages import say
from rpc import console

P = ParamSpec("P")
R = TypeVar("R")
FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)
ANY_PATH = click.Path(path_type=Path, exists=True)
ROOT = "main"
"""The name of the outermost group; its commands have no prefix in the catalogue."""


def _guarded(function: Callable[P, int | None]) -> Callable[P, None]:
    """Turn an error of ours into a line and an exit code; any other is a bug and shows itself."""

    @functools.wraps(function)
    def run(*arguments: P.args, **options: P.kwargs) -> None:
        as_json = bool(options.get("as_json"))
        try:
            code = function(*arguments, **options) or 0
        except KanglianError as error:
            code = console.report(error, as_json=as_json)
        except BaseExceptionGroup as group:
            ours = console.error_in(group)
            if ours is None:
                raise
            code = console.report(ours, as_json=as_json)
        click.get_current_context().exit(code)

    return run


def option(name: str, *flags: str, **settings: Any) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """An option, `--name` unless a flag is given; its help stands in the catalogue."""
    has_flag = any(flag.startswith("--") for flag in flags)
    named = flags if has_flag else (f"--{name.replace('_', '-')}", *flags)
    return click.option(*named, help=say(f"option_{name}"), **settings)


def command(group: click.Group, name: str) -> Callable[[Callable[P, int | None]], click.Command]:
    """A command with `--json`, whose errors become exit codes."""
    path = name if group.name == ROOT else f"{group.name}_{name}"

    def declare(function: Callable[P, int | None]) -> click.Command:
        flag = option("json", "as_json", is_flag=True)
        return group.command(name, help=say(f"help_{path}"))(flag(_guarded(function)))

    return declare
