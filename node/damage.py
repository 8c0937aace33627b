"""The mark of damage: what was found rotten while the node ran, so that it does not start again.

Damage that shows itself when a store is opened needs no mark. What is found by a read or by the
scrub stops the node, and the next start might come past it: so it is written down, and only a
rebuild, or a complete scrub that finds nothing, takes the mark away.
Source: docs/decisions/0029-damaged-stores.md.
"""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from genesis.private_files import FileProblem, PrivateFileError, read_public, write_public
from ledger.codec import Document
from ledger.errors import KanglianError, StoreDamagedError

MARK_FILE = "damaged.json"
_MARK_BYTES = 64 * 1024


class Mark(Document, frozen=True):
    """What is damaged, in the words of the error that found it."""

    store: str
    where: str
    problem: str


def refuse_marked(data_dir: Path) -> None:
    """Raises: StoreDamagedError when damage was found before; PrivateFileError."""
    path = data_dir / MARK_FILE
    try:
        data = read_public(path, _MARK_BYTES)
    except PrivateFileError as error:
        if error.problem is FileProblem.MISSING:
            return
        raise
    try:
        mark = msgspec.json.decode(data, type=Mark)
    except msgspec.DecodeError:
        mark = Mark("blocks", MARK_FILE, "the mark of damage cannot be read itself")
    raise StoreDamagedError(mark.store, mark.where, mark.problem)


@contextmanager
def marked(data_dir: Path) -> Generator[None]:
    """Leave a mark when what runs here ends with a damaged store."""
    try:
        yield
    except (KanglianError, BaseExceptionGroup) as error:
        found = _damage_in(error)
        if found is not None:
            mark = Mark(found.store, found.where, found.problem)
            write_public(data_dir / MARK_FILE, msgspec.json.encode(mark), replace=True)
        raise


def lift(data_dir: Path) -> bool:
    """Take the mark away; whether there was one."""
    path = data_dir / MARK_FILE
    is_marked = path.exists()
    path.unlink(missing_ok=True)
    return is_marked


def _damage_in(error: BaseException) -> StoreDamagedError | None:
    if isinstance(error, StoreDamagedError):
        return error
    if isinstance(error, BaseExceptionGroup):
        inner = [_damage_in(one) for one in error.exceptions]  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType, reportUnknownArgumentType]  # a group of anything
        return next((one for one in inner if one is not None), None)
    return None
