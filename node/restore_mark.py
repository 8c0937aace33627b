"""The mark of a restore: a data folder that is being filled from a backup says so until it is full.

The mark is written before anything else and taken away last, so what a crash leaves is never taken
for a node's data. It names the backup: the same restore may go on where it ended.
Source: docs/decisions/0037-backup.md.
"""

from pathlib import Path

import msgspec

from genesis.private_files import FileProblem, PrivateFileError, read_public, write_public
from ledger.codec import Document
from ledger.errors import Reason, Rejected
from ledger.store.disk import OPERATING_SYSTEM_DISK

MARK_FILE = "restoring.json"
_MARK_BYTES = 4 * 1024


class _Mark(Document, frozen=True):
    """The checksum of the manifest that is restored."""

    backup: str


def refuse_unfinished(data_dir: Path) -> None:
    """Raises: Rejected(HALF_FINISHED) when a restore was interrupted here; PrivateFileError."""
    if restoring(data_dir) is not None:
        raise Rejected(
            Reason.HALF_FINISHED,
            "a restore into this data folder was interrupted; run the same "
            "`kanglian backup restore` again, or move the folder away",
            folder=str(data_dir),
        )


def restoring(data_dir: Path) -> str | None:
    """The backup that is being restored here, "" if the mark cannot be read, None without one.

    Raises: PrivateFileError.
    """
    try:
        data = read_public(data_dir / MARK_FILE, _MARK_BYTES)
    except PrivateFileError as error:
        if error.problem is FileProblem.MISSING:
            return None
        raise
    try:
        return msgspec.json.decode(data, type=_Mark).backup
    except msgspec.DecodeError:
        return ""


def mark(data_dir: Path, backup: str) -> None:
    """From now on the folder is unfinished; durable on return.  Raises: PrivateFileError."""
    write_public(data_dir / MARK_FILE, msgspec.json.encode(_Mark(backup)), replace=True)


def unmark(data_dir: Path) -> None:
    """The folder is a node's; durable on return.  Raises: OSError."""
    OPERATING_SYSTEM_DISK.remove(data_dir / MARK_FILE)
    OPERATING_SYSTEM_DISK.sync_folder(data_dir)
