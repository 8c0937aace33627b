"""The block store: what was decided, durable before it is executed.

One synced write per block holds the block, the certificate that decided it and the places of the
batches it orders, whose bodies are durable before. Keys: `h` height, `n` block hash, `b` batch
digest, `t` tip; of a store that does not hold all blocks, `f` the first height that is here
wholly, `c` headers that are known below it, `o` the height after which it began, and `g` the first
segment of bodies that is kept: docs/decisions/0039-snapshots.md.
"""

from collections.abc import Sequence

from ledger.block import Block
from ledger.codec import Record, Schema, encode
from ledger.errors import Store, StoreDamagedError, invariant
from ledger.ids import BatchDigest, BlockHash, Height
from ledger.limits import BLOCK_RECORD_BYTES, CERTIFICATE_BYTES, HEADER_BYTES
from ledger.store.port import Bodies, KeyValueStore, Place, Write

_TIP = b"t"
_FIRST = b"f"
_ORIGIN = b"o"
_SEGMENT = b"g"


class StoredBlock(Record, frozen=True):
    """Block bytes and the bytes of a certificate that decided it."""

    block: bytes
    certificate: bytes


class DecidedHeader(Record, frozen=True):
    """A header and a certificate that decided it; empty where a later one vouches for it alone."""

    header: bytes
    certificate: bytes


class _Origin(Record, frozen=True):
    """Where a store began; the hash guards the height against a flipped bit."""

    height: int
    block_hash: bytes


_ORIGIN_RECORD = Schema(_Origin, max_bytes=64)
_DECIDED = Schema(DecidedHeader, max_bytes=HEADER_BYTES + CERTIFICATE_BYTES + 64)
_BLOCK = Schema(Block, max_bytes=BLOCK_RECORD_BYTES)
_PLACE = Schema(Place, max_bytes=64)
STORED_BLOCK_BYTES = BLOCK_RECORD_BYTES + CERTIFICATE_BYTES + 64
"""A block, a certificate, and what their encoding adds."""
STORED_BLOCK = Schema(StoredBlock, max_bytes=STORED_BLOCK_BYTES)


class BlockStore:
    """Blocks by height and hash, batches by digest."""

    def __init__(self, store: KeyValueStore, bodies: Bodies) -> None:
        self._store = store
        self.bodies = bodies
        tip = store.get(_TIP)
        self.height = Height(0 if tip is None else int.from_bytes(tip, "big"))
        first = store.get(_FIRST)
        self.first = Height(1 if first is None else int.from_bytes(first, "big"))
        """The lowest height whose block and bodies are here."""
        self.origin = self._find_origin()
        """The height after which this store began: 0, or that of a snapshot.

        Batches that were ordered up to it are not known; those of pruned blocks are.
        """
        segment = store.get(_SEGMENT)
        self.first_segment = 0 if segment is None else int.from_bytes(segment, "big")
        """The first segment of bodies that is kept."""

    def _find_origin(self) -> int:
        """Raises: StoreDamagedError when it is not the height of a header that is kept."""
        data = self._store.get(_ORIGIN)
        if data is not None:
            origin = _ORIGIN_RECORD.decode(data)
            if self.height_of(origin.block_hash) == origin.height < self.first:
                return origin.height
        elif self.first == 1 or all(self.decided(height) for height in range(1, self.first)[:2]):
            return 0
        raise StoreDamagedError(Store.BLOCKS, "its origin", "it is missing or another")

    def begin(
        self, height: Height, headers: Sequence[tuple[int, BlockHash, DecidedHeader]]
    ) -> None:
        """Begin with the block after `height`, of an empty store; headers below it are kept.

        Doing it again, for a join that was interrupted, replaces what was begun.
        """
        invariant(self.first > self.height, "blocks are here already")
        writes: list[Write] = []
        for number, name, decided in headers:
            key = number.to_bytes(8, "big")
            writes += [(b"c" + key, encode(decided)), (b"n" + name, key)]
        writes.append((_FIRST, (height + 1).to_bytes(8, "big")))
        writes.append((_ORIGIN, encode(_Origin(height, headers[-1][1]))))
        writes.append((_TIP, height.to_bytes(8, "big")))
        self._store.write(writes)
        self.height, self.first, self.origin = height, Height(height + 1), height

    def prune(self, first: int) -> None:
        """Forget the blocks below a height in one write; their headers and certificates stay.

        So do the digests of their batches, because no batch is ordered twice.
        """
        invariant(first <= self.height, "the newest block is never pruned")
        writes: list[Write] = []
        for height in range(self.first, first):
            key, decided = height.to_bytes(8, "big"), self.decided(height)
            if decided is None:
                raise StoreDamagedError(Store.BLOCKS, f"height {height}", "the block is missing")
            writes += [(b"c" + key, encode(decided)), (b"h" + key, None)]
        writes.append((_FIRST, first.to_bytes(8, "big")))
        self._store.write(writes)
        self.first = Height(first)

    def drop_bodies(self, segment: int) -> None:
        """Delete the segments of bodies before one; no block or batch that is kept lies there."""
        self._store.write([(_SEGMENT, segment.to_bytes(8, "big"))])
        self.first_segment = segment
        self.bodies.drop_before(segment)

    def place(self, digest: bytes) -> Place | None:
        """Where the body of a batch lies that some block orders."""
        data = self._store.get(b"b" + digest)
        return None if data is None else _PLACE.decode(data)

    def decided(self, height: int) -> DecidedHeader | None:
        """The header of a height and its certificate, also where no more is kept of the block."""
        stored = self.block(height)
        if stored is not None:
            return DecidedHeader(_BLOCK.decode(stored.block).header, stored.certificate)
        data = self._store.get(b"c" + height.to_bytes(8, "big"))
        return None if data is None else _DECIDED.decode(data)

    def append(
        self,
        height: Height,
        block_hash: BlockHash,
        stored: StoredBlock,
        batches: Sequence[tuple[BatchDigest, Place]],
    ) -> None:
        """Make the next block durable, the bodies at these places first. Heights have no gaps."""
        invariant(height == self.height + 1, f"block {height} does not follow {self.height}")
        key = height.to_bytes(8, "big")
        self.bodies.sync()
        writes: list[Write] = [(b"b" + digest, encode(place)) for digest, place in batches]
        writes.append((b"h" + key, encode(stored)))
        writes.append((b"n" + block_hash, key))
        writes.append((_TIP, key))
        self._store.write(writes)
        self.height = height

    def kept(self, height: int) -> list[tuple[int, DecidedHeader]]:
        """The headers up to a height that are kept of blocks which are not here, ascending."""
        stop = b"c" + (height + 1).to_bytes(8, "big")
        pairs = self._store.scan(b"c", stop, reverse=False)
        return [(int.from_bytes(key[1:], "big"), _DECIDED.decode(data)) for key, data in pairs]

    def block(self, height: int) -> StoredBlock | None:
        """The block at a height, or None above the tip and below `first`."""
        data = self._store.get(b"h" + height.to_bytes(8, "big"))
        return None if data is None else STORED_BLOCK.decode(data)

    def height_of(self, block_hash: bytes) -> Height | None:
        """The height of a block hash."""
        data = self._store.get(b"n" + block_hash)
        return None if data is None else Height(int.from_bytes(data, "big"))

    def has_batch(self, digest: bytes) -> bool:
        """Whether some block orders this batch."""
        return self._store.get(b"b" + digest) is not None

    def batch(self, digest: bytes) -> bytes | None:
        """The bytes of a batch that some block orders; None when they were pruned.

        Raises: StoreDamagedError when the body is gone.
        """
        place = self.place(digest)
        if place is None or place.segment < self.first_segment:
            return None
        body = self.bodies.read(place)
        if body is None:
            where = f"segment {place.segment}, byte {place.offset}"
            problem = f"the body of batch {digest.hex()} is cut off or rotten"
            raise StoreDamagedError(Store.BODIES, where, problem)
        return body

    def batches(self, digests: Sequence[bytes]) -> list[bytes]:
        """The bytes of a stored block's batches.

        Raises: StoreDamagedError when one is missing.
        """
        found: list[bytes] = []
        for digest in digests:
            wire = self.batch(digest)
            if wire is None:
                raise StoreDamagedError(
                    Store.BLOCKS, f"batch {digest.hex()}", "the place of its body is missing"
                )
            found.append(wire)
        return found
