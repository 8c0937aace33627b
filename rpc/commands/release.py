"""Commands of a stopped node: what it states of itself, and its release from quarantine."""
# ruff: noqa: PLC0415 - modules are imported inside the commands that need them, as in cli.py

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from node.messages import say
from rpc import console

FILE = click.Path(path_type=Path, dir_okay=False)


def add_commands(
    node: click.Group,
    _command: Callable[..., Callable[..., object]],
    _option: Callable[..., Callable[..., Any]],
    now_ms: Callable[[], int],
) -> None:
    """Put the two commands into the group `node`."""

    def statement(config: Path, out: Path, as_json: bool) -> None:
        """Write the statement, and say whether the node is damaged."""
        view = write_statement(config, out, now_ms())
        key = "statement_damaged" if view["is_damaged"] else "statement_made"
        console.show(view, say(key, **view), as_json=as_json)

    def release(statements: tuple[Path, ...], config: Path, as_json: bool) -> None:
        """Release the node, say what it adopted and what nobody can know."""
        view = release_by(config, statements, now_ms())
        key = "released_locked" if view["locked_block"] else "released_free"
        console.show(view, say(key, **view), as_json=as_json)
        console.note(say("release_warning", **view))

    made = _option("statement_out", "--out", type=FILE, required=True)(statement)
    made = _option("config", type=FILE, required=True)(made)
    _command(node, "statement")(made)
    named = click.argument("statements", metavar="STATEMENT...", nargs=-1, required=True, type=FILE)
    _command(node, "release-quarantine")(
        named(_option("config", type=FILE, required=True)(release))
    )


def write_statement(config: Path, out: Path, now_ms: int) -> dict[str, Any]:
    """Make the statement of the stopped node of a configuration; what to show of it."""
    import msgspec

    from genesis.private_files import write_public
    from node.config import load_config
    from node.stopped import stopped_node

    loaded = load_config(config, os.environ)
    secret = console.passphrases(loaded.node.passphrase_file, loaded.node.key_file)
    with stopped_node(loaded, secret) as one:
        made = one.statement(now_ms)
    write_public(out, msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n")
    return {
        "path": str(out),
        "node": loaded.node.name,
        "height": made.height,
        "is_damaged": made.is_damaged,
    }


def release_by(config: Path, paths: tuple[Path, ...], now_ms: int) -> dict[str, Any]:
    """Release the stopped node of a configuration by statements; what to show of it."""
    from genesis.private_files import read_public
    from node.config import load_config
    from node.limits import STATEMENT_BYTES
    from node.statement import parse_statement
    from node.stopped import stopped_node

    statements = [parse_statement(read_public(path, STATEMENT_BYTES)) for path in paths]
    loaded = load_config(config, os.environ)
    secret = console.passphrases(loaded.node.passphrase_file, loaded.node.key_file)
    with stopped_node(loaded, secret) as one:
        released = one.release(statements, now_ms)
    entry = released.entry
    return {
        "node": loaded.node.name,
        "height": entry.height,
        "first_round": entry.after_round + 1,
        "locked_round": entry.locked_round,
        "locked_block": "" if entry.locked_value is None else entry.locked_value.hex(),
        "organisations": ", ".join(released.organisations),
        "intact": released.intact_nodes,
        "damaged": released.damaged_nodes,
    }
