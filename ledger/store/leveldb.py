"""The store port on LevelDB: paranoid, verified reads, synced batches, never repaired.

A damaged store is named and left as it is: repair can silently drop records, so rebuilding is the
only cure. Before LevelDB may open a folder, its files must continue one another
(ledger/store/descriptor.py), because LevelDB would open one with a hole and tidy up the evidence.
A failed write is final: nothing is written after it, so that no later block can be durable where an
earlier one is not.
Source: architecture section 8; research on LevelDB damage; docs/decisions/0029-damaged-stores.md.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import plyvel

from ledger.errors import InvariantError, StoreDamagedError, UnavailableError
from ledger.store.descriptor import DescriptorError, check_continuity, read_descriptor
from ledger.store.port import Write

# Bounds the memory of one store; the hot set of a block is far smaller.
_WRITE_BUFFER_BYTES = 32 * 1024 * 1024
_BLOCK_CACHE_BYTES = 16 * 1024 * 1024
# Of each table that is open some 70 KB of index and filter stay in memory: 70 MB for 2 GB of data.
_OPEN_TABLES = 1_000
_TABLE_BYTES = 2 * 1024 * 1024
# What LevelDB keeps in a folder that holds nothing yet.
_WITHOUT_DATA = ("LOCK", "LOG", "LOG.old")


class LevelStore:
    """One LevelDB folder, owned by this process alone; the folder's name is the store's."""

    def __init__(self, path: Path, *, syncs: bool = True) -> None:
        """Open or create the folder; opening makes durable what the last owner wrote.

        Without `syncs`, writes are durable once the store was closed and opened again: for work
        that begins anew, or is refused, after a crash.
        Raises: UnavailableError when it is in use or not writable, StoreDamagedError.
        """
        self._path = path
        self._syncs = syncs
        self._is_failed = False
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._check_files()
            self._db = plyvel.DB(
                str(path),
                create_if_missing=True,
                paranoid_checks=True,
                write_buffer_size=_WRITE_BUFFER_BYTES,
                lru_cache_size=_BLOCK_CACHE_BYTES,
                max_open_files=_OPEN_TABLES,
                max_file_size=_TABLE_BYTES,
                bloom_filter_bits=10,
                # Hashes, signatures and salted commitments do not compress; trying costs CPU.
                compression=None,
            )
        except plyvel.CorruptionError as error:
            raise self._damaged(self._suspects(), error) from error
        except (plyvel.Error, OSError) as error:
            raise self._in_use(error) from error

    def _check_files(self) -> None:
        names = [entry.name for entry in self._path.iterdir() if entry.name not in _WITHOUT_DATA]
        # LevelDB would quietly begin a new store beside the files of the old one.
        if "CURRENT" not in names:
            if names:
                raise self._damaged("CURRENT", "the file is missing")
            return
        try:
            check_continuity(self._path)
        except (DescriptorError, FileNotFoundError) as error:
            # The files of a store in use change under the reader's eyes.
            if is_in_use(self._path):
                raise self._in_use(error) from error
            if isinstance(error, FileNotFoundError):
                raise self._damaged(str(error.filename), "the file is missing") from error
            raise self._damaged(error.file, error.problem) from error

    def _in_use(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"cannot open the store {self._path}: {_words(error)}; "
            "is another node using this data folder?"
        )

    def _damaged(self, where: str, problem: Exception | str) -> StoreDamagedError:
        return StoreDamagedError(self._path.name, where, _words(problem))

    def _suspects(self, key: bytes | None = None) -> str:
        """The files in which damage must lie: tables that may hold a key, else descriptor and logs.

        LevelDB names a file only when it is missing.
        """
        try:
            found = read_descriptor(self._path)
        except (DescriptorError, OSError) as error:
            return str(error)
        logs = sorted(path.name for path in self._path.glob("*.log"))
        files = [found.file, *logs] if key is None else found.tables_with(key)
        return " or ".join(files) or "a table"

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key, its checksum verified."""
        return self.read(self._db, key)

    def read(self, source: "plyvel.DB | plyvel.Snapshot", key: bytes) -> bytes | None:
        """The same from the database or a snapshot of it."""
        try:
            return source.get(key, verify_checksums=True)
        except plyvel.Error as error:
            raise self._damaged(self._suspects(key), error) from error

    def write(self, writes: Sequence[Write], /) -> None:
        """Apply all writes in one batch. The first failure is the last write."""
        if self._is_failed:
            raise UnavailableError(f"the store {self._path} failed before and is not written again")
        try:
            with self._db.write_batch(transaction=True, sync=self._syncs) as batch:
                put = batch.put
                for key, value in writes:
                    if value is None:
                        batch.delete(key)
                    else:
                        put(key, value)
        except plyvel.CorruptionError as error:
            # Found while tables were merged in the background; LevelDB tells the next writer.
            self._is_failed = True
            raise self._damaged("a table", error) from error
        except plyvel.Error as error:
            self._is_failed = True
            raise UnavailableError(
                f"the store {self._path} cannot be written ({_words(error)}); is the disk full?"
            ) from error

    def scan(self, start: bytes, stop: bytes, /, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, checksums verified."""
        return self.walk(self._db, start, stop, reverse=reverse)

    def walk(
        self, source: "plyvel.DB | plyvel.Snapshot", start: bytes, stop: bytes, *, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        """The same over the database or a snapshot of it."""
        last = start
        try:
            # plyvel 1.5 going backwards misses a lone key that equals `start`; so it gets none.
            first = None if reverse else start
            with source.iterator(
                start=first, stop=stop, reverse=reverse, verify_checksums=True
            ) as pairs:
                for key, value in pairs:
                    if key < start:
                        return
                    last = key
                    yield key, value
        except plyvel.Error as error:
            raise self._damaged(f"behind key {last.hex()}", error) from error

    def snapshot(self) -> "LevelSnapshot":
        """What the store holds now; it costs the disk what is replaced while it is open."""
        return LevelSnapshot(self, self._db.snapshot())

    def close(self) -> None:
        """Close the folder so that another process may open it."""
        self._db.close()


class LevelSnapshot:
    """A store as it was at one moment."""

    def __init__(self, store: LevelStore, source: "plyvel.DB | plyvel.Snapshot") -> None:
        self._store = store
        self._source = source

    def get(self, key: bytes, /) -> bytes | None:
        """The value that a key had."""
        return self._store.read(self._source, key)

    def write(self, _writes: Sequence[Write], /) -> None:
        """Raises: InvariantError."""
        raise InvariantError("a snapshot of a store is not written")

    def scan(self, start: bytes, stop: bytes, /, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop."""
        return self._store.walk(self._source, start, stop, reverse=reverse)

    def snapshot(self) -> "LevelSnapshot":
        """Raises: InvariantError."""
        raise InvariantError("a snapshot of a snapshot is not taken")

    def close(self) -> None:
        """Let the store forget what was replaced since."""
        self._source.close()


def _words(problem: Exception | str) -> str:
    """The text of an error; plyvel hands LevelDB's message on as bytes."""
    first = problem.args[0] if isinstance(problem, plyvel.Error) and problem.args else problem
    return first.decode(errors="replace") if isinstance(first, bytes) else str(first)


def is_in_use(folder: Path) -> bool:
    """Whether a process holds the lock of a store.  Source: proc(5), /proc/locks.

    Asking the file itself would cost this process its own locks on it when it is closed again.
    """
    try:
        return f":{(folder / 'LOCK').stat().st_ino} " in Path("/proc/locks").read_text()
    except OSError:
        return False
