"""The block store: what was decided, durable before it is executed.

One synced write per block holds the block, the certificate that decided it and the places of the
batches it orders, whose bodies are durable before. Keys: `h` height, `n` block hash, `b` batch
digest, `t` tip.
"""

from collections.abc import Sequence

from ledger.codec import Record, Schema, encode
from ledger.errors import Store, StoreDamagedError, invariant
from ledger.ids import BatchDigest, BlockHash, Height
from ledger.limits import BLOCK_RECORD_BYTES, CERTIFICATE_BYTES
from ledger.store.port import Bodies, KeyValueStore, Place, Write

_TIP = b"t"


class StoredBlock(Record, frozen=True):
    """Block bytes and the bytes of a certificate that decided it."""

    block: bytes
    certificate: bytes


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

    def block(self, height: int) -> StoredBlock | None:
        """The block at a height, or None above the tip."""
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
