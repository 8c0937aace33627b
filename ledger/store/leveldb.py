"""The store port on LevelDB: paranoid, verified reads, synced batches, never repaired.

A damaged store is named and left as it is: repair can silently drop records, so rebuilding from
peers is the only cure. Source: architecture section 8; research on LevelDB damage.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import plyvel

from ledger.errors import InvariantError, UnavailableError
from ledger.store.port import Write

# Bounds the memory of one store; the hot set of a block is far smaller.
_WRITE_BUFFER_BYTES = 32 * 1024 * 1024
_BLOCK_CACHE_BYTES = 16 * 1024 * 1024


class LevelStore:
    """One LevelDB folder, owned by this process alone."""

    def __init__(self, path: Path) -> None:
        """Open or create the folder.

        Raises: UnavailableError when it is in use or not writable, InvariantError when damaged.
        """
        self._path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = [entry.name for entry in path.iterdir()]
            # LevelDB would quietly begin a new store beside the files of the old one.
            if "CURRENT" not in names and any(name.startswith("MANIFEST") for name in names):
                raise InvariantError(self._damaged("the file CURRENT is missing"))
            self._db = plyvel.DB(
                str(path),
                create_if_missing=True,
                paranoid_checks=True,
                write_buffer_size=_WRITE_BUFFER_BYTES,
                lru_cache_size=_BLOCK_CACHE_BYTES,
                bloom_filter_bits=10,
                # Hashes, signatures and salted commitments do not compress; trying costs CPU.
                compression=None,
            )
        except plyvel.CorruptionError as error:
            raise InvariantError(self._damaged(error)) from error
        except (plyvel.Error, OSError) as error:
            raise UnavailableError(
                f"cannot open the store {path}: {error}; is another node using this data folder?"
            ) from error

    def _damaged(self, error: Exception | str) -> str:
        return f"the store {self._path} is damaged ({error}); rebuild this node from its peers"

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a key, its checksum verified."""
        try:
            return self._db.get(key, verify_checksums=True)
        except plyvel.CorruptionError as error:
            raise InvariantError(self._damaged(error)) from error

    def write(self, writes: Sequence[Write], /) -> None:
        """Apply all writes in one synced batch."""
        try:
            with self._db.write_batch(transaction=True, sync=True) as batch:
                put = batch.put
                for key, value in writes:
                    if value is None:
                        batch.delete(key)
                    else:
                        put(key, value)
        except plyvel.Error as error:
            raise UnavailableError(f"the store {self._path} cannot be written: {error}") from error

    def scan(self, start: bytes, stop: bytes, /, *, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with start <= key < stop, checksums verified."""
        try:
            # plyvel 1.5 going backwards misses a lone key that equals `start`; so it gets none.
            first = None if reverse else start
            with self._db.iterator(
                start=first, stop=stop, reverse=reverse, verify_checksums=True
            ) as pairs:
                for key, value in pairs:
                    if key < start:
                        return
                    yield key, value
        except plyvel.CorruptionError as error:
            raise InvariantError(self._damaged(error)) from error

    def close(self) -> None:
        """Close the folder so that another process may open it."""
        self._db.close()
