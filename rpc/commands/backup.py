"""The commands `kanglian backup …`: create, verify, restore. The work is in rpc/backups.py."""
# ruff: noqa: PLC0415 - heavy modules are imported where they are needed

from pathlib import Path

import click

from node.messages import say
from rpc.commands.base import FILE, FOLDER, command, option


@click.group(help=say("help_backup"))
def backup() -> None:
    """Backups of a chain."""


@command(backup, "create")
@click.argument("directory", type=FOLDER)
@option("config", type=FILE, required=True)
def backup_create(directory: Path, config: Path, as_json: bool) -> None:
    """A new folder with all blocks of a node."""
    from rpc.backups import create

    create(directory, config, as_json=as_json)


@command(backup, "verify")
@click.argument("directory", type=FOLDER)
@option("genesis", "genesis_path", type=FILE, required=True)
@option("live", "--rpc", "url")
def backup_verify(directory: Path, genesis_path: Path, url: str | None, as_json: bool) -> None:
    """Everything in a backup holds, or this ends with a reason and a code other than 0."""
    from rpc.backups import verify

    verify(directory, genesis_path, url, as_json=as_json)


@command(backup, "restore")
@click.argument("directory", type=FOLDER)
@option("config", type=FILE, required=True)
def backup_restore(directory: Path, config: Path, as_json: bool) -> None:
    """The data folder of a node that has none."""
    from rpc.backups import restore

    restore(directory, config, as_json=as_json)
