"""What the demonstration stands on: its folder, free ports, and made-up records.

What it decides: whether a folder may be replaced. Only one that carries the marker may; whatever
else has the name is left alone.
"""

import shutil
import socket
from pathlib import Path

from genesis.networks import BASE_PORT
from genesis.private_files import write_public
from genesis.records import make_records
from ledger.errors import UnavailableError
from node.devnet import STATE_FILE
from rpc.development import Network

MARKER = ".kanglian-demo"
"""Stands in a folder that may be removed by the next run."""
SEED = 1
PORT_TRIES = 100


def replace_folder(directory: Path) -> None:
    """An empty folder of ours; what an earlier demonstration left is stopped and removed.

    Raises: UnavailableError for a folder that is not ours, or that cannot be written.
    """
    if directory.is_symlink() or directory.exists():
        if directory.is_symlink() or not (directory / MARKER).is_file():
            raise UnavailableError(
                f"{directory} was not made by the demonstration and is left alone; move it away"
            )
        if (directory / STATE_FILE).exists():
            Network(directory).processes.stop()
    try:
        shutil.rmtree(directory, ignore_errors=not directory.exists())
        directory.mkdir(mode=0o700)
    except OSError as error:
        raise UnavailableError(f"{error.filename}: {error.strerror}") from None
    write_public(directory / MARKER, b"Made by `make demo`, which may remove this folder.\n")


def free_base_port(nodes: int) -> int:
    """The first of two free ports a node in a row on this machine.

    Raises: UnavailableError.
    """
    count = 2 * nodes
    for base in range(BASE_PORT, BASE_PORT + PORT_TRIES * count, count):
        if all(_is_free(port) for port in range(base, base + count)):
            return base
    raise UnavailableError(f"no {count} free ports in a row from {BASE_PORT} on")


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True


def write_records(directory: Path, count: int) -> list[Path]:
    """Files of one record each, in order."""
    directory.mkdir()
    files: list[Path] = []
    for name, data in make_records(count, SEED):
        files.append(directory / name)
        write_public(files[-1], data)
    return files
