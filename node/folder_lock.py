"""One process owns a data folder: a lock of the operating system, which a crash releases.

Two instances on one folder would sign with one memory and two minds. The stores have locks of their
own, but a node must fail before it opens anything, with an error that names the other process.
Source: research consensus-reliability section 1.5, "Duplicate instance".
"""

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from ledger.errors import UnavailableError
from ledger.store.disk import OPERATING_SYSTEM_DISK

LOCK_FILE = "in-use.lock"


class FolderInUseError(UnavailableError):
    """Another process has the data folder."""


@contextmanager
def locked(folder: Path) -> Generator[None]:
    """Own a data folder while the block runs; it is made when it is not there.

    Raises: FolderInUseError, UnavailableError.
    """
    path = folder / LOCK_FILE
    try:
        OPERATING_SYSTEM_DISK.create_folder(folder)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise UnavailableError(f"cannot open {path}: {error}") from error
    try:
        _take(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 20, 0).decode(errors="replace") or "unknown"
        raise FolderInUseError(
            f"the data folder {folder} is in use by process {owner}; stop that one first, or give "
            "this node a folder of its own in its configuration"
        ) from None
    except OSError as error:
        raise UnavailableError(f"cannot lock {folder}: {error}") from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
