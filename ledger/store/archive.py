"""The form of a backup: records of decided blocks in chunks, and the manifest of the chunks.

What it decides: whether bytes are a manifest, whether its chunks follow one another, and whether a
block follows the one before it. What it never does: touch a file, verify a signature or execute a
block (node/backup.py does, with the rules of sync).
Source: docs/backup.md; docs/decisions/0037-backup.md.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ledger import limits
from ledger.batch import batch_digest, decode_batch
from ledger.block import BLOCK, HEADER, block_hash
from ledger.codec import Document, encode
from ledger.errors import Reason, Rejected
from ledger.genesis import Hex32
from ledger.limits import MIB
from ledger.store.blocks import STORED_BLOCK, STORED_BLOCK_BYTES, BlockStore, StoredBlock
from ledger.succession import Hex
from ledger.transaction import Chain
from ledger.votes import CERTIFICATE

MANIFEST_FILE = "manifest.json"
CHUNK_BYTES = 64 * MIB
"""A chunk ends with the block that reaches this: sixteen to a gigabyte, each copied in moments."""
CHUNKS = 65_536
"""4 TiB; as many as a manifest that is read at once may name."""
MANIFEST_BYTES = 16 * MIB
"""65,536 chunks of 200 bytes each, and the tip."""
LENGTH_BYTES = 4

_Positive = Annotated[int, Meta(ge=1)]
_Count = Annotated[int, Meta(ge=0)]


class Chunk(Document, frozen=True):
    """A file of consecutive blocks: its length, its SHA-256, and what stands in it."""

    file: str
    size: _Positive
    sha256: Hex32
    first_height: _Positive
    last_height: _Positive
    batches: _Count


class Manifest(Document, frozen=True):
    """What a backup holds; `sha256` is that of this document with an empty `sha256`.

    `header` and `certificate` are those of the newest block. `created_ms` is what the clock of the
    machine said; nobody signs it.
    """

    format: Literal["kanglian-backup/1"]
    chain_name: str
    genesis_hash: Hex32
    group: _Count
    height: _Positive
    block_hash: Hex32
    header: Hex
    certificate: Hex
    created_ms: _Count
    chunks: Annotated[tuple[Chunk, ...], Meta(min_length=1, max_length=CHUNKS)]
    sha256: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")]

    @property
    def size(self) -> int:
        """The length of all chunks in bytes."""
        return sum(chunk.size for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    """A block, a certificate that decided it, and the bytes of the batches that it orders."""

    stored: StoredBlock
    batches: tuple[bytes, ...]


def bad_backup(detail: str, **facts: str | int) -> Rejected:
    """The refusal of a backup that is not what it should be."""
    return Rejected(Reason.BAD_BACKUP, detail, **facts)


def chunk_name(number: int) -> str:
    """The file of a chunk, counted from 0."""
    return f"{number + 1:08d}.chunk"


# ---- records ----------------------------------------------------------------------------------


def block_records(blocks: BlockStore, height: int) -> Iterator[bytes]:
    """The records of a stored block: the block with its certificate, then each of its batches.

    Raises: StoreDamagedError.  Cost: one or two reads for each record.
    """
    stored = blocks.block(height)
    if stored is None:
        raise bad_backup("this node does not hold the block", height=height)
    yield encode(stored)
    for digest in BLOCK.decode(stored.block).batches:
        yield blocks.batches([digest])[0]


def frame(record: bytes) -> bytes:
    """A record behind its length."""
    return len(record).to_bytes(LENGTH_BYTES, "big") + record


def take_record(read: Callable[[int], bytes], max_bytes: int) -> bytes:
    """The next record; `read` gives exactly so many bytes or raises.

    Raises: Rejected(BAD_BACKUP) when it is longer than that, and what `read` raises.
    """
    length = int.from_bytes(read(LENGTH_BYTES), "big")
    if length > max_bytes:
        raise bad_backup("a record is too long", record_bytes=length, limit_bytes=max_bytes)
    return read(length)


def take_block(read: Callable[[int], bytes]) -> ArchivedBlock:
    """The next block with its batches, as `block_records` gave them.

    Raises: Rejected, and what `read` raises.
    """
    stored = STORED_BLOCK.decode(take_record(read, STORED_BLOCK_BYTES))
    count = len(BLOCK.decode(stored.block).batches)
    batches = tuple(take_record(read, limits.BATCH_BYTES) for _ in range(count))
    return ArchivedBlock(stored, batches)


def check_link(archived: ArchivedBlock, height: int, previous: bytes, chain: Chain) -> bytes:
    """The hash of a block that follows `previous` and has the certificate and batches it names.

    Signatures are not looked at.
    Raises: Rejected.  Cost: a hash of the header and one for each batch.
    """
    block = BLOCK.decode(archived.stored.block)
    header = HEADER.decode(block.header)
    found = block_hash(block.header, chain.suite)
    certificate = CERTIFICATE.decode(archived.stored.certificate)
    digests = tuple(
        batch_digest(decode_batch(wire).header, chain.suite) for wire in archived.batches
    )
    for holds, problem in (
        (header.height == height, "a block of another height"),
        (header.previous_hash == previous, "a block that does not follow the one before"),
        (
            (certificate.height, certificate.block_hash) == (height, found),
            "a certificate of another block",
        ),
        (digests == block.batches, "other batches than the block orders"),
    ):
        if not holds:
            raise bad_backup(problem, height=height)
    return found


# ---- the manifest -----------------------------------------------------------------------------


def seal(manifest: Manifest) -> Manifest:
    """The manifest with its checksum."""
    return msgspec.structs.replace(manifest, sha256=_checksum(manifest))


def manifest_bytes(manifest: Manifest) -> bytes:
    """The only bytes of a manifest: JSON, two spaces deep, one line feed at the end."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def _checksum(manifest: Manifest) -> str:
    bare = msgspec.structs.replace(manifest, sha256="")
    return hashlib.sha256(manifest_bytes(bare)).hexdigest()


def parse_manifest(data: bytes) -> Manifest:
    """The manifest of exactly these bytes.

    Raises: Rejected(BAD_BACKUP).
    """
    if len(data) > MANIFEST_BYTES:
        raise bad_backup("the manifest is too long", file=MANIFEST_FILE)
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise bad_backup(f"the manifest cannot be read ({error})", file=MANIFEST_FILE) from None
    if manifest_bytes(manifest) != data or _checksum(manifest) != manifest.sha256:
        raise bad_backup("the manifest is not what was written", file=MANIFEST_FILE)
    expected = 1
    for number, chunk in enumerate(manifest.chunks):
        is_next = (chunk.file, chunk.first_height) == (chunk_name(number), expected)
        if not is_next or chunk.last_height < chunk.first_height:
            raise bad_backup("the chunks do not follow one another", file=chunk.file)
        expected = chunk.last_height + 1
    if expected != manifest.height + 1:
        raise bad_backup("the chunks do not end at the height of the manifest", file=MANIFEST_FILE)
    return manifest


def check_chain(manifest: Manifest, chain: Chain) -> None:
    """The backup is of this chain.

    Raises: Rejected(WRONG_CHAIN).
    """
    if (manifest.genesis_hash, manifest.group) != (chain.genesis_hash.hex(), chain.group):
        raise Rejected(
            Reason.WRONG_CHAIN,
            f"the backup is of the chain {manifest.chain_name!r}, which has another genesis",
            backup=manifest.genesis_hash,
            expected=chain.genesis_hash.hex(),
        )
