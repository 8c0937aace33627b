"""The block store: what was decided, durable before it is executed.

One synced write per block holds the block, the certificate that decided it and the places of the
batches it orders, whose bodies are durable before. Keys: `h` height, `n` block hash, `b` batch
digest, `t` tip; of a store that does not begin with the first block, `f` the first height that is
here wholly, and `c` headers that are known below it: docs/decisions/0039-snapshots.md.
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


class StoredBlock(Record, frozen=True):
    """Block bytes and the bytes of a certificate that decided it."""

    block: bytes
    certificate: bytes


class DecidedHeader(Record, frozen=True):
    """A header and a certificate that decided it; empty where a later one vouches for it alone."""

    header: bytes
    certificate: bytes


_DECIDED = Schema(DecidedHeader, max_bytes=HEADER_BYTES + CERTIFICATE_BYTES + 64)
_BLOCK = Schema(Block, max_bytes=BLOCK_RECORD_BYTES)
_PLACE = Schema(Place, max_bytes=64)
_STORED = Schema(StoredBlock, max_bytes=BLOCK_RECORD_BYTES + CERTIFICATE_BYTES + 64)


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
        writes.append((_TIP, height.to_bytes(8, "big")))
        self._store.write(writes)
        self.height, self.first = height, Height(height + 1)

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

    def kept(self) -> list[tuple[int, DecidedHeader]]:
        """The headers that are kept of blocks which are not here, ascending by height."""
        pairs = self._store.scan(b"c", b"d", reverse=False)
        return [(int.from_bytes(key[1:], "big"), _DECIDED.decode(data)) for key, data in pairs]

    def block(self, height: int) -> StoredBlock | None:
        """The block at a height, or None above the tip and below `first`."""
        data = self._store.get(b"h" + height.to_bytes(8, "big"))
        return None if data is None else _STORED.decode(data)

    def height_of(self, block_hash: bytes) -> Height | None:
        """The height of a block hash."""
        data = self._store.get(b"n" + block_hash)
        return None if data is None else Height(int.from_bytes(data, "big"))

    def has_batch(self, digest: bytes) -> bool:
        """Whether some block orders this batch."""
        return self._store.get(b"b" + digest) is not None

    def batch(self, digest: bytes) -> bytes | None:
        """The bytes of a batch that some block orders.

        Raises: StoreDamagedError when the body is gone.
        """
        data = self._store.get(b"b" + digest)
        if data is None:
            return None
        place = _PLACE.decode(data)
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
