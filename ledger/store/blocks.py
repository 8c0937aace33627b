"""The block store: what was decided, durable before it is executed.

One synced write per block holds the block, the certificate that decided it and the batches it
orders. Keys: `h` height, `n` block hash, `b` batch digest, `t` tip.
"""

from collections.abc import Sequence

from ledger.codec import Record, Schema, encode
from ledger.errors import InvariantError, invariant
from ledger.ids import BatchDigest, BlockHash, Height
from ledger.limits import BLOCK_RECORD_BYTES, CERTIFICATE_BYTES
from ledger.store.port import KeyValueStore, Write

_TIP = b"t"


class StoredBlock(Record, frozen=True):
    """Block bytes and the bytes of a certificate that decided it."""

    block: bytes
    certificate: bytes


_STORED = Schema(StoredBlock, max_bytes=BLOCK_RECORD_BYTES + CERTIFICATE_BYTES + 64)


class BlockStore:
    """Blocks by height and hash, batches by digest."""

    def __init__(self, store: KeyValueStore) -> None:
        self._store = store
        tip = store.get(_TIP)
        self.height = Height(0 if tip is None else int.from_bytes(tip, "big"))

    def append(
        self,
        height: Height,
        block_hash: BlockHash,
        stored: StoredBlock,
        batches: Sequence[tuple[BatchDigest, bytes]],
    ) -> None:
        """Make the next block durable. Heights have no gaps."""
        invariant(height == self.height + 1, f"block {height} does not follow {self.height}")
        key = height.to_bytes(8, "big")
        writes: list[Write] = [(b"b" + digest, wire) for digest, wire in batches]
        writes.append((b"h" + key, encode(stored)))
        writes.append((b"n" + block_hash, key))
        writes.append((_TIP, key))
        self._store.write(writes)
        self.height = height

    def block(self, height: int) -> StoredBlock | None:
        """The block at a height, or None above the tip."""
        data = self._store.get(b"h" + height.to_bytes(8, "big"))
        return None if data is None else _STORED.decode(data)

    def height_of(self, block_hash: bytes) -> Height | None:
        """The height of a block hash."""
        data = self._store.get(b"n" + block_hash)
        return None if data is None else Height(int.from_bytes(data, "big"))

    def batch(self, digest: bytes) -> bytes | None:
        """The bytes of a batch that some block orders."""
        return self._store.get(b"b" + digest)

    def batches(self, digests: Sequence[bytes]) -> list[bytes]:
        """The bytes of a stored block's batches.

        Raises: InvariantError when one is missing.
        """
        found: list[bytes] = []
        for digest in digests:
            wire = self._store.get(b"b" + digest)
            if wire is None:
                raise InvariantError(f"batch {digest.hex()} of a stored block is missing")
            found.append(wire)
        return found
