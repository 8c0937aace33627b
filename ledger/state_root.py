"""What the state root is made of: the hashes over values, logs, namespaces and a block's writes.

What it decides: nothing; it names the bytes that are hashed. What it never does: read a store.
Every namespace has a sparse tree with a leaf for each map key and one for the head of each log, so
that an entry costs no update of the tree. The roots of all namespaces stand in a sparse tree of
their own. Beside it stands what the block wrote, by namespace: so everything that a store keeps of
a block can be compared with a header for as long as it is kept.
Source: docs/format.md section 8; docs/decisions/0034-state-root.md.
"""

from collections.abc import Iterable, Mapping, Sequence

from ledger.codec import Record, Schema, encode
from ledger.history import FRONTIER_BYTES, Frontier
from ledger.ids import Bytes32, Count, Hash, Level, Name
from ledger.merkle import LEAF, Digest, root_of_entries
from ledger.sparse import place_of
from ledger.state import LogEntry, WriteSet

STATE_TAG = b"kl.state\0"
VALUE_TAG = b"kl.state-value\0"
LOG_ENTRY_TAG = b"kl.log-entry\0"
APPENDED_TAG = b"kl.appended\0"
WRITES_TAG = b"kl.writes\0"
NAMESPACE_WRITES_TAG = b"kl.namespace-writes\0"
BLOCKS_LOG = b"\0blocks"
"""The path of the log of a namespace's blocks; no contract has a name that begins so."""

# The first byte of a key in a namespace's tree.
MAP = b"\0"
LOG = b"\1"
_ENTRY = LEAF + LOG_ENTRY_TAG


class LogHead(Record, frozen=True):
    """The leaf of a log: how many entries, the height of the last one, their sized root."""

    count: Count
    height: Count
    root: Bytes32


class LogTip(Record, frozen=True):
    """What a log grows from: the height of its last entry and its frontier."""

    height: int
    frontier: Frontier

    def head(self, digest: Digest) -> LogHead:
        """The leaf that stands for the log."""
        return LogHead(self.frontier.count, self.height, self.frontier.sized_root(digest))


class BlockEntry(Record, frozen=True):
    """The entry of a block in the log of a namespace: what the block holds of the namespace.

    `transactions` and `batches` are count and root of its share in the batches root of the block's
    header, `receipts` and `results` those of its share in the receipts root of the next one.
    """

    height: Count
    transactions: Count
    batches: Bytes32
    receipts: Count
    results: Bytes32


class Appended(Record, frozen=True):
    """What a block appended to one log: where, how many, and the hash over the leaf hashes."""

    path: bytes
    first_sequence: int
    count: int
    leaves: bytes


class NamespaceWrites(Record, frozen=True):
    """One namespace and the hash of what a block wrote there."""

    module: Name
    level: Level
    digest: Bytes32


LOG_HEAD = Schema(LogHead, max_bytes=64)
LOG_TIP = Schema(LogTip, max_bytes=FRONTIER_BYTES + 16)


def namespace_of(key: bytes) -> bytes:
    """The namespace prefix with which a key or the name of a log begins."""
    return key[: key.index(b"\0") + 2]


def map_place(digest: Digest, path: bytes) -> str:
    """Where a map key stands in the tree of its namespace."""
    return place_of(digest, MAP + path)


def log_place(digest: Digest, path: bytes) -> str:
    """Where the head of a log stands in the tree of its namespace."""
    return place_of(digest, LOG + path)


def value_digest(digest: Digest, value: bytes) -> bytes:
    """What the leaf of a key holds of its value, or of a log's head."""
    return digest(VALUE_TAG + value)


def log_leaves(digest: Digest, entries: Iterable[LogEntry]) -> list[bytes]:
    """The leaf hashes of log entries."""
    return [digest(_ENTRY + encode(entry)) for entry in entries]


def writes_root(digest: Digest, writes: WriteSet, leaves: Mapping[bytes, Sequence[bytes]]) -> bytes:
    """The sized root over what each namespace wrote; `leaves` are the new leaf hashes by log."""
    found: dict[bytes, tuple[list[tuple[bytes, bytes | None]], list[Appended]]] = {}
    for key, value in writes.maps:
        prefix = namespace_of(key)
        found.setdefault(prefix, ([], []))[0].append((key[len(prefix) :], value))
    for write in writes.logs:
        prefix, hashes = namespace_of(write.log), leaves[write.log]
        appended = Appended(
            path=write.log[len(prefix) :],
            first_sequence=write.first_sequence,
            count=len(hashes),
            leaves=digest(APPENDED_TAG + b"".join(hashes)),
        )
        found.setdefault(prefix, ([], []))[1].append(appended)
    entries = [
        NamespaceWrites(
            module=prefix[:-2].decode(), level=prefix[-1], digest=digest(WRITES_TAG + encode(parts))
        )
        for prefix, parts in sorted(found.items())
    ]
    return root_of_entries(digest, [NAMESPACE_WRITES_TAG + encode(entry) for entry in entries])


def state_root(digest: Digest, namespaces: bytes, writes: bytes) -> Hash:
    """What the next header holds: the root over all namespaces and that of the block's writes."""
    return Hash(digest(STATE_TAG + namespaces + writes))
