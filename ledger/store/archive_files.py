"""A backup on a disk: written once into a folder of its own, read block by block.

What it decides: when a folder is a backup. The manifest gets its name when all else is durable, so
a folder without one was never finished; every file is named by it, and whole.
What it never does: overwrite, repair, or leave anything out silently.
Source: docs/backup.md; LWN "Ensuring data reaches disk" (2011).
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ledger.block import BLOCK
from ledger.codec import encode
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.limits import MIB
from ledger.store.archive import (
    CHUNK_BYTES,
    CHUNKS,
    MANIFEST_BYTES,
    MANIFEST_FILE,
    ArchivedBlock,
    Chunk,
    Manifest,
    bad_backup,
    check_link,
    chunk_name,
    frame,
    manifest_bytes,
    parse_manifest,
    seal,
    take_block,
)
from ledger.store.blocks import StoredBlock
from ledger.store.disk import OPERATING_SYSTEM_DISK, Disk, File
from ledger.transaction import Chain

_UNFINISHED_FILE = "manifest.unfinished"
_PIECE_BYTES = MIB


class ArchiveWriter:
    """Writes a backup; it is none before `finish`."""

    def __init__(self, folder: Path, chain: Chain, disk: Disk = OPERATING_SYSTEM_DISK) -> None:
        """Make the folder.

        Raises: Rejected(OCCUPIED) when it holds anything, UnavailableError.
        """
        self._folder = folder
        self._chain = chain
        self._disk = disk
        self._chunks: list[Chunk] = []
        self._open: _OpenChunk | None = None
        self._newest: StoredBlock | None = None
        self._tip = bytes(chain.genesis_hash)
        self.height = 0
        try:
            disk.create_folder(folder)
            names = disk.names(folder)
        except OSError as error:
            raise _unusable(folder, error) from error
        if names:
            detail = "a backup needs a folder of its own; name another one"
            raise Rejected(Reason.OCCUPIED, detail, folder=str(folder), holds=names[0])

    def add(self, archived: ArchivedBlock) -> None:
        """Write the next block, if it is that.

        Raises: Rejected as `check_link`, UnavailableError when the disk refuses.
        """
        height = self.height + 1
        self._tip = check_link(archived, height, self._tip, self._chain)
        records = (encode(archived.stored), *archived.batches)
        try:
            if self._open is None:
                self._open = self._begin_chunk(height)
            self._open.add(b"".join(map(frame, records)), len(archived.batches))
            self.height, self._newest = height, archived.stored
            if self._open.size >= CHUNK_BYTES:
                self._end_chunk()
        except OSError as error:
            raise _unusable(self._folder, error) from error

    def _begin_chunk(self, height: int) -> "_OpenChunk":
        if len(self._chunks) == CHUNKS:
            raise bad_backup("the chain is longer than a backup can be", chunks=CHUNKS)
        name = chunk_name(len(self._chunks))
        return _OpenChunk(name, self._disk.create(self._folder / name), height)

    def _end_chunk(self) -> None:
        if self._open is not None:
            self._chunks.append(self._open.end(self.height))
            self._open = None

    def finish(self, chain_name: str, created_ms: int) -> Manifest:
        """Make everything durable, then give the manifest its name.

        Raises: Rejected(BAD_BACKUP) when there is no block, UnavailableError.
        """
        newest = self._newest
        if newest is None:
            raise bad_backup("the chain has no block yet, so there is nothing to keep")
        try:
            self._end_chunk()
            manifest = seal(
                Manifest(
                    format="kanglian-backup/1",
                    chain_name=chain_name,
                    genesis_hash=self._chain.genesis_hash.hex(),
                    group=self._chain.group,
                    height=self.height,
                    block_hash=self._tip.hex(),
                    header=BLOCK.decode(newest.block).header.hex(),
                    certificate=newest.certificate.hex(),
                    created_ms=created_ms,
                    chunks=tuple(self._chunks),
                    sha256="",
                )
            )
            self._name(manifest_bytes(manifest))
        except OSError as error:
            raise _unusable(self._folder, error) from error
        return manifest

    def _name(self, manifest: bytes) -> None:
        self._disk.sync_folder(self._folder)
        unfinished = self._folder / _UNFINISHED_FILE
        file = self._disk.create(unfinished)
        file.write(manifest, 0)
        file.sync()
        file.close()
        self._disk.replace(unfinished, self._folder / MANIFEST_FILE)
        self._disk.sync_folder(self._folder)


class _OpenChunk:
    """The chunk that is being written."""

    def __init__(self, name: str, file: File, first_height: int) -> None:
        self.size = 0
        self._name = name
        self._file = file
        self._first_height = first_height
        self._batches = 0
        self._hash = hashlib.sha256()
        self._buffer = bytearray()

    def add(self, data: bytes, batches: int) -> None:
        """Append the records of a block."""
        self._hash.update(data)
        self._buffer += data
        self.size += len(data)
        self._batches += batches
        if len(self._buffer) >= _PIECE_BYTES:
            self._flush()

    def _flush(self) -> None:
        self._file.write(bytes(self._buffer), self.size - len(self._buffer))
        self._buffer.clear()

    def end(self, last_height: int) -> Chunk:
        """Make the content durable; the name is not yet."""
        self._flush()
        self._file.sync()
        self._file.close()
        found, first = self._hash.hexdigest(), self._first_height
        return Chunk(self._name, self.size, found, first, last_height, self._batches)


# ---- reading ----------------------------------------------------------------------------------


def read_manifest(folder: Path, disk: Disk = OPERATING_SYSTEM_DISK) -> Manifest:
    """The manifest of a finished backup whose files are all there, and no others.

    Raises: Rejected(HALF_FINISHED | BAD_BACKUP) naming the file, UnavailableError.
    """
    try:
        names = disk.names(folder)
        if MANIFEST_FILE not in names:
            detail = "the backup has no manifest: it was never finished; make another one"
            raise Rejected(Reason.HALF_FINISHED, detail, folder=str(folder))
        file = disk.open(folder / MANIFEST_FILE, writing=False)
        data = file.read(min(file.size(), MANIFEST_BYTES + 1), 0)
        file.close()
    except OSError as error:
        raise _unusable(folder, error) from error
    manifest = parse_manifest(data)
    known = {MANIFEST_FILE, *(chunk.file for chunk in manifest.chunks)}
    for name in sorted(known.difference(names)):
        raise bad_backup("a file is missing", file=name)
    for name in sorted(set(names) - known):
        raise bad_backup("there is a file that the manifest does not name", file=name)
    return manifest


def check_chunk(folder: Path, chunk: Chunk, disk: Disk = OPERATING_SYSTEM_DISK) -> None:
    """A chunk has the length and the hash that the manifest says.

    Raises: Rejected(BAD_BACKUP) naming the file, UnavailableError.  Cost: one read of the file.
    """
    found = hashlib.sha256()
    try:
        file = disk.open(folder / chunk.file, writing=False)
        size = file.size()
        for start in range(0, size, _PIECE_BYTES):
            found.update(file.read(min(_PIECE_BYTES, size - start), start))
        file.close()
    except OSError as error:
        raise _unusable(folder / chunk.file, error) from error
    if size != chunk.size:
        raise bad_backup(f"it has {size} bytes, not {chunk.size}", file=chunk.file)
    if found.hexdigest() != chunk.sha256:
        raise bad_backup("its content is not what was written", file=chunk.file)


def read_chunk(
    folder: Path, chunk: Chunk, disk: Disk = OPERATING_SYSTEM_DISK
) -> Iterator[ArchivedBlock]:
    """The blocks of a chunk in order, with one of them in memory at a time.

    Raises: Rejected(BAD_BACKUP | MALFORMED …), UnavailableError.
    """
    try:
        file = disk.open(folder / chunk.file, writing=False)
    except OSError as error:
        raise _unusable(folder / chunk.file, error) from error
    try:
        source, batches = _Source(file, chunk), 0
        for _ in range(chunk.first_height, chunk.last_height + 1):
            archived = take_block(source.read)
            batches += len(archived.batches)
            yield archived
        if (source.at, batches) != (chunk.size, chunk.batches):
            raise bad_backup("it holds other records than the manifest counts", file=chunk.file)
    finally:
        file.close()


class _Source:
    """Reads a chunk from its beginning, a piece at a time."""

    def __init__(self, file: File, chunk: Chunk) -> None:
        self.at = 0
        self._file = file
        self._chunk = chunk
        self._piece = b""
        self._piece_at = 0

    def read(self, length: int) -> bytes:
        """Exactly so many bytes.

        Raises: Rejected(BAD_BACKUP) behind the end, UnavailableError.
        """
        start = self.at - self._piece_at
        if start + length > len(self._piece):
            try:
                self._piece = self._file.read(max(length, _PIECE_BYTES), self.at)
            except OSError as error:
                raise _unusable(Path(self._chunk.file), error) from error
            self._piece_at, start = self.at, 0
        data = self._piece[start : start + length]
        if len(data) < length:
            raise bad_backup("it ends within a record", file=self._chunk.file)
        self.at += length
        return data


def _unusable(path: Path, error: OSError) -> UnavailableError:
    return UnavailableError(f"cannot use {path}: {error.strerror or error}")
