"""Snapshots: what a node is told that joins without the past, and how each piece of it is checked.

What it decides: whether a piece (an *item*) is that of the state after a height which the chain has
certified. The head comes first: it leads from genesis to the header after that height. Each other
item is checked alone, against a hash that an item before it or the head has shown, so that whoever
sends a wrong one is known at once. What it never does: ask, store, or believe a count of items.
Source: docs/decisions/0039-snapshots.md; docs/format.md section 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum, unique
from itertools import pairwise
from typing import Annotated, Any

from msgspec import Meta

from ledger import limits
from ledger.block import HEADER, Header, block_hash, certificate_hash
from ledger.codec import Record, Schema
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis, chain_of
from ledger.history import Frontier
from ledger.ids import BlockHash, Bytes32, Count, Level
from ledger.light.trust import (
    LIGHT_BLOCK_BYTES,
    SKIP_BLOCKS,
    LightBlock,
    Terms,
    skip,
    trust_genesis,
)
from ledger.merkle import Digest, head_from_path, sized_root, tree_head
from ledger.replay import ENTRIES_TAG, SPAN_MS, CommittedWindow, NamespaceEntries, ReplayBlock
from ledger.sparse import (
    CHILDREN,
    Child,
    KeptNodes,
    Leaf,
    SparseTree,
    TreeNode,
    hash_of,
    make_leaf,
    place_of,
)
from ledger.state import LogEntry
from ledger.state_root import LOG, LOG_HEAD, MAP, LogHead, log_leaves, state_root, value_digest
from ledger.store.blocks import DecidedHeader
from ledger.tree_node import decode_child, decode_node, encode_node

SNAPSHOT_KEYS = 512
"""Keys of one subtree: about 3 ms to find and 10 ms to check; of a million keys 4,096 have 244."""
SNAPSHOT_BYTES = 1 * limits.MIB
"""Where a subtree ends that has fewer keys but large values; a single one may reach over."""
RUN_LEVEL = 8
RUN_ENTRIES = 1 << RUN_LEVEL
"""Entries of a log in one item: 1 MiB of the largest."""
AHEAD_MS = 60_000
"""A header further ahead of this node's clock is not believed: one of the two is wrong."""
# What one item may hold. The head holds every change of validators, the window a digest for each
# block and namespace of ten minutes, entries those of one block.
HEAD_BYTES = SKIP_BLOCKS * LIGHT_BLOCK_BYTES + limits.MIB
NAMESPACES_BYTES = 2 * limits.MIB
SUBTREE_BYTES = 2 * limits.MIB
RUN_BYTES = 2 * limits.MIB
WINDOW_BYTES = 16 * limits.MIB
ENTRIES_BYTES = limits.BLOCK_BYTES
_NAME_BYTES = 1 * limits.KIB
# A trust period bounds what old keys can do to whoever trusts them; who joins by genesis trusts
# those of genesis, however old, as block sync does.
_FOR_EVER = Terms(trust_period_ms=2**62, lag_ms=2**62, ahead_ms=AHEAD_MS)


@unique
class Kind(IntEnum):
    """What an item holds."""

    HEAD = 0
    NAMESPACES = 1
    SUBTREE = 2
    RUN = 3
    WINDOW = 4
    ENTRIES = 5


ITEM_BYTES = {
    Kind.HEAD: HEAD_BYTES,
    Kind.NAMESPACES: NAMESPACES_BYTES,
    Kind.SUBTREE: SUBTREE_BYTES,
    Kind.RUN: RUN_BYTES,
    Kind.WINDOW: WINDOW_BYTES,
    Kind.ENTRIES: ENTRIES_BYTES,
}
"""The most bytes of an item of each kind."""


class Item(Record, frozen=True):
    """Which piece is meant.

    `name` is a namespace, or a log with its namespace; `place` the digits of a subtree; `index` the
    number of a run, or the height of entries.
    """

    kind: Annotated[int, Meta(ge=0, le=5)]
    name: Annotated[bytes, Meta(max_length=_NAME_BYTES)] = b""
    place: Annotated[str, Meta(max_length=64, pattern=r"^[0-9a-f]*\Z")] = ""
    index: Count = 0


class SnapshotHead(Record, frozen=True):
    """The beginning of a snapshot of height h.

    `changes` are the last headers of sets that ruled before; `before` and `header` are those of
    h - 1 and h, `certificate` is the one of h that header h + 1 commits to, `following` is that
    header. `transactions` and `operations` stand under no root.
    """

    changes: Annotated[tuple[LightBlock, ...], Meta(max_length=SKIP_BLOCKS - 1)]
    before: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    header: Annotated[bytes, Meta(max_length=limits.HEADER_BYTES)]
    certificate: Annotated[bytes, Meta(max_length=limits.CERTIFICATE_BYTES)]
    following: LightBlock
    namespaces_root: Bytes32
    writes_root: Bytes32
    history: Frontier
    transactions: Count
    operations: Count


class NamespaceRoot(Record, frozen=True):
    """The root of the tree of a namespace: a hash, or the place and digest of its lone key."""

    namespace: Annotated[bytes, Meta(max_length=64)]
    root: Annotated[bytes, Meta(min_length=32, max_length=64)]


class PlacedValue(Record, frozen=True):
    """What a leaf stands for: the byte of a map or log with the path, and the value or log head."""

    path: Annotated[bytes, Meta(min_length=1, max_length=_NAME_BYTES)]
    value: Annotated[bytes, Meta(max_length=limits.MAP_VALUE_BYTES)]


class SubtreeItem(Record, frozen=True):
    """Either a node, or every leaf below it, ascending by place."""

    node: Annotated[bytes, Meta(max_length=2 * limits.KIB)]
    leaves: Annotated[tuple[PlacedValue, ...], Meta(max_length=SNAPSHOT_KEYS)]


class RunItem(Record, frozen=True):
    """The entries of a log from a multiple of RUN_ENTRIES on, and the path to its head."""

    entries: Annotated[tuple[LogEntry, ...], Meta(max_length=RUN_ENTRIES)]
    path: Annotated[tuple[Bytes32, ...], Meta(max_length=limits.PROOF_PATH)]


class WindowEntries(Record, frozen=True):
    """What a block added to the replay window of a namespace: how many entries, and their hash."""

    module: str
    level: Level
    count: Count
    digest: Bytes32


class WindowBlock(Record, frozen=True):
    """What one block added to the window, and the ten seconds in which its time lies."""

    height: Count
    span: Annotated[int, Meta(ge=0, le=2**63 // SPAN_MS - 1)]
    namespaces: tuple[WindowEntries, ...]


HEAD = Schema(SnapshotHead, max_bytes=HEAD_BYTES)
NAMESPACES = Schema(tuple[NamespaceRoot, ...], max_bytes=NAMESPACES_BYTES)
SUBTREE = Schema(SubtreeItem, max_bytes=SUBTREE_BYTES)
RUN = Schema(RunItem, max_bytes=RUN_BYTES)
WINDOW = Schema(tuple[WindowBlock, ...], max_bytes=WINDOW_BYTES)
ENTRIES = Schema(tuple[NamespaceEntries, ...], max_bytes=ENTRIES_BYTES)


@dataclass(frozen=True, slots=True)
class Base:
    """A height whose state may be joined: the certified header after it, and what it commits to."""

    head: SnapshotHead
    encoded: bytes
    header: Header
    following: Header
    block_hash: BlockHash

    @property
    def height(self) -> int:
        """The height of the snapshot."""
        return self.header.height


def check_head(data: bytes, genesis: Genesis, now_ms: int) -> Base:
    """What a head shows, if the validators of genesis and their successors have decided it.

    Raises: Rejected.  Cost: one V for each signature of each change and of the last header.
    """
    head, chain = HEAD.decode(data), chain_of(genesis)
    digest = chain.suite.digest
    trusted = trust_genesis(genesis, now_ms)
    trusted = skip(trusted, (*head.changes, head.following), chain, _FOR_EVER, now_ms)
    following = HEADER.decode(head.following.header)
    header, name = HEADER.decode(head.header), block_hash(head.header, chain.suite)
    before = block_hash(head.before, chain.suite) if head.before else chain.genesis_hash
    height, history = header.height, head.history
    for is_right, what in (
        (name == following.previous_hash, "the header before the certified one"),
        (height + 1 == following.height, "its height"),
        (before == header.previous_hash, "the header before that"),
        (
            certificate_hash(head.certificate, chain.suite) == following.certificate_hash,
            "its votes",
        ),
        (
            state_root(digest, head.namespaces_root, head.writes_root) == following.state_root,
            "the parts of the state root",
        ),
        (
            history.count == height + 1 and len(history.peaks) == history.count.bit_count(),
            "the size of the history",
        ),
        (history.sized_root(digest) == following.history_root, "the history"),
    ):
        _require(is_right, f"the head of a snapshot shows another: {what}")
    return Base(head, data, header, following, name)


def kept_headers(base: Base, suite: CryptoSuite) -> list[tuple[int, BlockHash, DecidedHeader]]:
    """What a node that begins with a snapshot keeps of the blocks up to its height.

    Every change of validators, for proofs; and the two newest, whose demotions the next header
    follows from.
    """
    head, found = base.head, dict[int, DecidedHeader]()
    if head.before:
        found[base.height - 1] = DecidedHeader(head.before, b"")
    for change in head.changes:
        height = HEADER.decode(change.header).height
        found[height] = DecidedHeader(change.header, change.certificate)
    found[base.height] = DecidedHeader(head.header, head.certificate)
    return [
        (height, block_hash(decided.header, suite), decided)
        for height, decided in sorted(found.items())
    ]


def check_namespaces(digest: Digest, base: Base, data: bytes) -> list[tuple[bytes, Child]]:
    """The namespaces that hold anything, each with the root of its tree, ascending.

    Raises: Rejected.
    """
    found = [(item.namespace, decode_child(digest, item.root)) for item in NAMESPACES.decode(data)]
    _ascend([name for name, _ in found], "namespaces")
    leaves = [make_leaf(digest, place_of(digest, name), hash_of(root)) for name, root in found]
    leaves.sort(key=_place)
    root = SparseTree(digest, KeptNodes()).grown("", leaves)
    _require(hash_of(root) == base.head.namespaces_root, "other namespaces than the state root has")
    return found


@dataclass(frozen=True, slots=True)
class Subtree:
    """A checked part of a tree: nodes by place; children still to be asked for, or all leaves.

    `values` are place, path and value of map keys; `logs` place, path and head of logs.
    """

    nodes: dict[str, TreeNode]
    children: Sequence[tuple[str, Child]]
    values: Sequence[tuple[str, bytes, bytes]]
    logs: Sequence[tuple[str, bytes, LogHead]]


def check_subtree(digest: Digest, place: str, expected: Child, data: bytes) -> Subtree:
    """What stands below a place of a tree, where `expected` stands for all of it.

    Raises: Rejected.  Cost: about 10 us for each leaf.
    """
    item = SUBTREE.decode(data)
    _require(bool(item.node) != bool(item.leaves), "a subtree is a node or leaves")
    if item.node:
        node = decode_node(digest, item.node)
        is_same = isinstance(expected, bytes) and node.cells[1] == expected
        _require(is_same and encode_node(node) == item.node, "another node")
        children = [
            (f"{place}{digit:x}", child)
            for digit, child in enumerate(node.cells[CHILDREN:])
            if child is not None
        ]
        return Subtree({place: node}, children, (), ())
    values: list[tuple[str, bytes, bytes]] = []
    logs: list[tuple[str, bytes, LogHead]] = []
    leaves: list[Leaf] = []
    for path, value in ((leaf.path, leaf.value) for leaf in item.leaves):
        where = place_of(digest, path)
        leaves.append(make_leaf(digest, where, value_digest(digest, value)))
        if path[:1] == LOG:
            logs.append((where, path[1:], LOG_HEAD.decode(value)))
        else:
            _require(path[:1] == MAP, "a path is of a map or a log")
            values.append((where, path[1:], value))
    places = [leaf.place for leaf in leaves]
    _ascend(places, "leaves")
    _require(all(where.startswith(place) for where in places), "a leaf of another subtree")
    kept = KeptNodes()
    root = SparseTree(digest, kept).grown(place, leaves)
    _require(hash_of(root) == hash_of(expected), "other leaves than the tree has")
    return Subtree(kept.nodes, (), values, logs)


def runs_of(head: LogHead) -> int:
    """How many runs the entries of a log fill."""
    return -(-head.count // RUN_ENTRIES)


def check_run(
    digest: Digest, head: LogHead, index: int, data: bytes
) -> tuple[Sequence[LogEntry], list[bytes]]:
    """The entries of a run of a log, and their leaf hashes.

    Runs are the nodes of the RFC 6962 tree RUN_LEVEL levels up, the last one with its own head.
    Raises: Rejected.
    """
    item = RUN.decode(data)
    expected = min(RUN_ENTRIES, head.count - index * RUN_ENTRIES)
    _require(len(item.entries) == expected, "a run has another number of entries")
    leaves = log_leaves(digest, item.entries)
    top = head_from_path(digest, tree_head(digest, leaves), index, runs_of(head), item.path)
    _require(sized_root(digest, head.count, top) == head.root, "other entries than the log has")
    return item.entries, leaves


def check_window(suite: CryptoSuite, base: Base, data: bytes) -> tuple[WindowBlock, ...]:
    """Which blocks added what to the replay window, by hash.

    Raises: Rejected.  Cost: about 65 hashes for each block and namespace.
    """
    blocks = WINDOW.decode(data)
    _ascend([block.height for block in blocks], "blocks of the replay window")
    spans = [block.span for block in blocks]
    _require(spans == sorted(spans), "spans of the replay window do not ascend")
    window, gone = CommittedWindow(suite), list[int]()
    for block in blocks:
        _require(block.namespaces != (), "a block that added nothing")
        added = [(item.module, item.level, item.count, item.digest) for item in block.namespaces]
        _ascend([item[:2] for item in added], "namespaces of the replay window")
        gone += window.add_digests(block.height, block.span * SPAN_MS, added)
    newest = (base.height, base.header.time // SPAN_MS)
    is_late = any((block.height, block.span) > newest for block in blocks[-1:])
    _require(not is_late, "the replay window reaches beyond the snapshot")
    gone += window.add_digests(base.height, base.header.time, ())
    _require(not gone, "the replay window holds what it has forgotten")
    _require(window.root() == base.following.replay_root, "another replay window")
    return blocks


def check_entries(digest: Digest, expected: WindowBlock, data: bytes) -> ReplayBlock:
    """What one block added to the replay window; of its time only the span is known.

    Raises: Rejected.
    """
    namespaces = ENTRIES.decode(data)
    found = tuple(
        WindowEntries(item.module, item.level, item.count, digest(ENTRIES_TAG + item.entries))
        for item in namespaces
    )
    _require(found == expected.namespaces, "other entries than the replay window has")
    return ReplayBlock(expected.height, expected.span * SPAN_MS, namespaces)


def _place(leaf: Leaf) -> str:
    return leaf.place


def _ascend(items: Sequence[Any], what: str) -> None:
    is_ascending = all(low < high for low, high in pairwise(items))
    _require(is_ascending, f"{what} do not ascend")


def _require(holds: object, problem: str) -> None:
    if not holds:
        raise Rejected(Reason.BAD_PROOF, problem)
