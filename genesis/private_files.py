"""Files that hold secrets: owner only, written whole or not at all, never replaced by accident.

What it decides: who may read such a file, and that a crash leaves the old file or the new one.
What it never does: look at the content, or put any of it into a message.
Source: POSIX.1-2017 open, link, rename, fsync; LWN "Ensuring data reaches disk" (2011).
"""

import os
import secrets
import shlex
import stat
from enum import StrEnum, unique
from pathlib import Path

from ledger.errors import UnavailableError

_OWNER_ONLY = 0o600
_EVERYBODY_READS = 0o644
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@unique
class FileProblem(StrEnum):
    """Why a file of keys or certificates cannot be used."""

    MISSING = "missing"
    """There is no such file."""
    EXISTS = "exists"
    """A file is there already, and nobody asked to replace it."""
    UNUSABLE = "unusable"
    """The system refuses to read or write it, or it is no regular file."""
    TOO_OPEN = "too_open"
    """Others than its owner may read or change it."""
    TOO_LARGE = "too_large"
    """It is larger than any file of this kind."""
    DAMAGED = "damaged"
    """Its content does not have the expected form."""
    NO_PASSPHRASE = "no_passphrase"  # noqa: S105 - the name of a problem
    """It is encrypted and no passphrase was given, or an empty one."""
    WRONG_PASSPHRASE = "wrong_passphrase"  # noqa: S105 - the name of a problem
    """The passphrase does not open it."""
    NOT_YET_VALID = "not_yet_valid"
    """The certificate's time has not begun."""
    EXPIRED = "expired"
    """The certificate's time is over."""
    MISMATCH = "mismatch"
    """Two parts that belong together do not: a key and its public key, or its certificate."""


class PrivateFileError(UnavailableError):
    """A file of keys or certificates cannot be used: which, why, and what to do about it."""

    def __init__(self, problem: FileProblem, path: Path, detail: str, remedy: str) -> None:
        self.problem = problem
        self.path = path
        self.detail = detail
        self.remedy = remedy
        super().__init__(problem, path, detail, remedy)

    def __str__(self) -> str:
        return f"{self.path}: {self.detail}; {self.remedy}"


def write_private(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file of mode 0600, durable on return; its folder must exist.

    Raises: PrivateFileError(EXISTS | UNUSABLE).
    """
    _write(path, data, _OWNER_ONLY, replace=replace)


def write_public(path: Path, data: bytes, *, replace: bool = False) -> None:
    """Write a file that everybody may read (a certificate), with the same care.

    Raises: PrivateFileError(EXISTS | UNUSABLE).
    """
    _write(path, data, _EVERYBODY_READS, replace=replace)


def read_private(path: Path, max_bytes: int) -> bytes:
    """The content of a file that only its owner may read.

    Raises: PrivateFileError(MISSING | TOO_OPEN | TOO_LARGE | UNUSABLE).
    """
    return _read(path, max_bytes, private=True)


def read_public(path: Path, max_bytes: int) -> bytes:
    """The content of a file that others may read, too.

    Raises: PrivateFileError(MISSING | TOO_LARGE | UNUSABLE).
    """
    return _read(path, max_bytes, private=False)


def _write(path: Path, data: bytes, mode: int, *, replace: bool) -> None:
    # In the same folder: a rename across file systems is a copy, and a copy can be half done.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        try:
            _write_new(temporary, data, mode)
            if replace:
                temporary.replace(path)
            else:
                path.hardlink_to(temporary)  # unlike a rename it fails if `path` exists
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        raise PrivateFileError(
            FileProblem.EXISTS, path, "exists already", "choose another name or move it away"
        ) from None
    except OSError as error:
        raise _unusable(path, "cannot be written", error) from None


def _write_new(path: Path, data: bytes, mode: int) -> None:
    # O_EXCL: nobody can have put a link there; 0600 first: no moment at which others may read.
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _OWNER_ONLY)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(descriptor, mode)  # whatever the umask says
        os.fsync(descriptor)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path, max_bytes: int, *, private: bool) -> bytes:
    try:
        # O_NONBLOCK: a pipe in the file's place must not hang a service at its start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            # The open file is judged, so that it cannot be exchanged after the check.
            _check_mode(path, os.fstat(descriptor).st_mode, private=private)
            data = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise PrivateFileError(
            FileProblem.MISSING, path, "does not exist", "check the path or create it"
        ) from None
    except OSError as error:
        raise _unusable(path, "cannot be read", error) from None
    if len(data) > max_bytes:
        raise PrivateFileError(
            FileProblem.TOO_LARGE, path, f"is larger than {max_bytes} bytes", "check the path"
        )
    return data


def _check_mode(path: Path, mode: int, *, private: bool) -> None:
    if not stat.S_ISREG(mode):
        raise PrivateFileError(
            FileProblem.UNUSABLE, path, "is not a regular file", "check the path"
        )
    if private and mode & _OTHERS:
        raise PrivateFileError(
            FileProblem.TOO_OPEN,
            path,
            f"others than its owner may use it (mode {stat.S_IMODE(mode):04o})",
            f"run: chmod 600 {shlex.quote(str(path))}",
        )


def _unusable(path: Path, what: str, error: OSError) -> PrivateFileError:
    cause = error.strerror or "unknown error"
    return PrivateFileError(
        FileProblem.UNUSABLE, path, f"{what} ({cause})", "check the folder and its permissions"
    )
