"""The authenticated state as a node holds it: a tree for each namespace, and the last heights.

What it decides: the state root after each block, and what proves a value or its absence. What it
never does: write to a store; what a block changes is handed to the one write that makes the block
durable. Trees are changed in place. What a block replaced is remembered for some heights, because
the root of a height is certified by the header of the next: a proof is made for a state that is no
longer the newest.
Source: docs/format.md section 8; docs/decisions/0034-state-root.md.
"""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ledger.codec import encode
from ledger.errors import Rejected, Store, StoreDamagedError, UnavailableError
from ledger.history import EMPTY_FRONTIER
from ledger.ids import Hash
from ledger.limits import MIB
from ledger.merkle import Digest
from ledger.sparse import Change, Child, KeptNodes, SparseTree, TreeNode, hash_of, place_of
from ledger.sparse_proof import StatePath, prove, root_of_path
from ledger.state import WriteSet
from ledger.state_root import (
    LOG,
    MAP,
    LogTip,
    log_leaves,
    log_place,
    map_place,
    namespace_of,
    state_root,
    value_digest,
    writes_root,
)
from ledger.tree_node import decode_child, decode_node, encode_child, encode_node

VERSIONS = 16
"""Heights whose state can be proved: two seconds under load, hours of an idle chain."""
VERSION_BYTES = 32 * MIB
"""What they may hold; beyond it only the newest two are kept."""
# The upper four levels of nodes stay in memory: 4,369 for a large namespace, about 15 MB.
_CACHED_DIGITS = 3

Namespace = bytes
Digits = str


class TreeReader(Protocol):
    """Where committed trees are read."""

    def get(self, key: bytes, /) -> bytes | None:
        """The value of a map key."""
        ...

    def written_roots(self) -> Iterable[tuple[int, bytes, bytes]]:
        """Height, root over namespaces and root of writes of the newest heights, oldest first.

        None but the first of them wrote anything, so that all led to the newest state.
        """
        ...

    def tree_roots(self) -> Iterable[tuple[Namespace, bytes]]:
        """The encoded roots of all trees that were ever written to."""
        ...

    def tree_root(self, namespace: Namespace, /) -> bytes:
        """The encoded root of one tree, empty when there is none."""
        ...

    def tree_node(self, namespace: Namespace, place: Digits, /) -> bytes | None:
        """An encoded node."""
        ...

    def log_tip(self, log: bytes, /) -> LogTip | None:
        """What a log grows from."""
        ...


@dataclass(frozen=True, slots=True)
class GrownLog:
    """What a block did to one log: its new tip, and the nodes that became complete, by level."""

    log: bytes
    tip: LogTip
    first_sequence: int
    rows: Sequence[Sequence[bytes]]


@dataclass(frozen=True, slots=True)
class TreeChanges:
    """What a block changed, for the store, and the roots that it led to."""

    state_root: Hash
    namespaces_root: bytes
    writes_root: bytes
    nodes: Sequence[tuple[Namespace, Digits, bytes | None]]
    roots: Sequence[tuple[Namespace, bytes]]
    logs: Sequence[GrownLog]
    placed: Sequence[tuple[Namespace, Digits, bytes]]
    """What stands at the places that may be new: the byte of a map or log, and the path."""


@dataclass(slots=True)
class _Version:
    """What a block replaced, and the roots it led to."""

    height: int
    namespaces_root: bytes
    writes_root: bytes
    roots: dict[Namespace, Child] = field(default_factory=dict[Namespace, Child])
    nodes: dict[tuple[Namespace, Digits], bytes | None] = field(
        default_factory=dict[tuple[Namespace, Digits], bytes | None]
    )
    values: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    logs: dict[bytes, LogTip | None] = field(default_factory=dict[bytes, LogTip | None])
    size_bytes: int = 0
    over: "tuple[KeptNodes, Child] | None" = None
    """The tree over the namespaces of this height, once somebody asked for it."""


class _Nodes:
    """The nodes of one namespace's tree; implements `ledger.sparse.NodeStore`.

    Between `begin` and `end` it collects what changes.
    """

    __slots__ = ("_cache", "_changed", "_digest", "_namespace", "_old", "_reader")

    def __init__(self, digest: Digest, reader: TreeReader, namespace: Namespace) -> None:
        self._digest = digest
        self._reader = reader
        self._namespace = namespace
        self._cache: dict[Digits, tuple[TreeNode, bytes]] = {}
        self._old: dict[Digits, bytes | None] = {}
        self._changed: dict[Digits, TreeNode | None] = {}

    def get(self, place: Digits, /) -> TreeNode:
        node, data = self._cache.get(place) or self._read(place)
        self._old.setdefault(place, data)
        return node

    def peek(self, place: Digits) -> TreeNode:
        """A node that will not be changed."""
        return (self._cache.get(place) or self._read(place))[0]

    def _read(self, place: Digits) -> tuple[TreeNode, bytes]:
        data = self._reader.tree_node(self._namespace, place)
        where = f"node {place or 'at the root'} of the tree of {self._namespace.hex()}"
        if data is None:
            raise StoreDamagedError(Store.STATE, where, "it is missing")
        try:
            found = decode_node(self._digest, data), data
        except Rejected as refusal:
            raise StoreDamagedError(Store.STATE, where, str(refusal)) from refusal
        self._remember(place, *found)
        return found

    def _remember(self, place: Digits, node: TreeNode, data: bytes) -> None:
        if len(place) <= _CACHED_DIGITS:
            self._cache[place] = node, data

    def put(self, place: Digits, node: TreeNode, /) -> None:
        self._changed[place] = node

    def drop(self, place: Digits, /) -> None:
        self._changed[place] = None

    def taken(self) -> Iterable[tuple[Digits, bytes | None, bytes | None]]:
        """What changed: place, old and new bytes; nothing is collected any more."""
        for place, node in self._changed.items():
            old = self._old.get(place)
            if node is None:
                self._cache.pop(place, None)
                if old is not None:
                    yield place, old, None
                continue
            data = encode_node(node)
            self._remember(place, node, data)
            yield place, old, data
        self._changed.clear()
        self._old.clear()


def proved_digest(
    digest: Digest, reader: TreeReader, namespace: Namespace, place: Digits
) -> bytes | None:
    """The digest of the value that a committed tree holds at a place, read anew from the store.

    Raises: StoreDamagedError when the way there does not lead from the root.
    """
    where = f"the tree of {namespace.hex()}"
    try:
        child = decode_child(digest, reader.tree_root(namespace))
        value, path = prove(_Nodes(digest, reader, namespace), child, place)
        if root_of_path(digest, place, value, path) == hash_of(child):
            return value
    except Rejected as refusal:
        raise StoreDamagedError(Store.STATE, where, str(refusal)) from refusal
    raise StoreDamagedError(Store.STATE, where, f"the way to {place} does not lead from the root")


class StateTree:
    """All trees of a state. The store behind `reader` follows by what `apply` returns."""

    def __init__(self, digest: Digest, reader: TreeReader) -> None:
        """Raises: StoreDamagedError."""
        self._digest = digest
        self._reader = reader
        self._nodes: dict[Namespace, _Nodes] = {}
        self._trees: dict[Namespace, SparseTree] = {}
        self._namespaces = SparseTree(digest, KeptNodes())
        self._tips: dict[bytes, LogTip | None] = {}
        self._versions: deque[_Version] = deque()
        self._version_bytes = 0
        for namespace, data in reader.tree_roots():
            try:
                self._tree(namespace).root = decode_child(digest, data)
            except Rejected as refusal:
                where = f"the root of the tree of {namespace.hex()}"
                raise StoreDamagedError(Store.STATE, where, str(refusal)) from refusal
        self._namespaces.update(_over_namespaces(digest, self._roots(self._trees)))
        for height, namespaces_root, root in reader.written_roots():
            if namespaces_root != self.namespaces_root:
                detail = "the trees do not have the root that the block led to"
                raise StoreDamagedError(Store.STATE, f"height {height}", detail)
            self._versions.append(_Version(height, namespaces_root, root))

    @property
    def namespaces_root(self) -> bytes:
        """The root over all namespaces."""
        return self._namespaces.root_hash

    def view(self, height: int) -> "StateView":
        """The state after the block of a height: the newest, or one of those before it.

        Valid until the next block is applied. Raises: UnavailableError for any other height.
        """
        later: list[_Version] = []
        for version in reversed(self._versions):
            if version.height == height:
                return StateView(self._digest, self, version, later[::-1])
            later.append(version)
        oldest = self._versions[0].height if self._versions else 0
        raise UnavailableError(
            f"the state of height {height} cannot be proved any more; held are {oldest} and later"
        )

    def value(self, key: bytes) -> bytes | None:
        """The newest value of a map key."""
        return self._reader.get(key)

    def _tree(self, namespace: Namespace) -> SparseTree:
        tree = self._trees.get(namespace)
        if tree is None:
            nodes = self._nodes[namespace] = _Nodes(self._digest, self._reader, namespace)
            tree = self._trees[namespace] = SparseTree(self._digest, nodes)
        return tree

    def _roots(self, namespaces: Iterable[Namespace]) -> dict[Namespace, Child]:
        return {namespace: self._trees[namespace].root for namespace in namespaces}

    def log_tip(self, log: bytes) -> LogTip | None:
        """What a log grows from."""
        if log not in self._tips:
            self._tips[log] = self._reader.log_tip(log)
        return self._tips[log]

    def apply(self, height: int, writes: WriteSet) -> TreeChanges:
        """Apply what the block of a height wrote.

        Cost: three to five nodes for each map key and log, two hashes for each entry of a log.
        Raises: StoreDamagedError.
        """
        digest, version = self._digest, _Version(height, b"", b"")
        changes: dict[Namespace, list[Change]] = {}
        leaves: dict[bytes, list[bytes]] = {}
        grown: list[GrownLog] = []
        placed: list[tuple[Namespace, Digits, bytes]] = []
        for write in writes.logs:
            log, namespace = write.log, namespace_of(write.log)
            hashes = leaves[log] = log_leaves(digest, write.entries)
            before = version.logs[log] = self.log_tip(log)
            frontier, rows = (EMPTY_FRONTIER if before is None else before.frontier).extend(
                digest, hashes
            )
            tip = self._tips[log] = LogTip(height, frontier)
            grown.append(GrownLog(log, tip, write.first_sequence, rows))
            path = log[len(namespace) :]
            place = log_place(digest, path)
            if before is None:
                placed.append((namespace, place, LOG + path))
            value = value_digest(digest, encode(tip.head(digest)))
            changes.setdefault(namespace, []).append((place, value))
        for key, value in writes.maps:
            namespace = namespace_of(key)
            old = version.values[key] = self._reader.get(key)
            path = key[len(namespace) :]
            place = map_place(digest, path)
            if old is None:
                placed.append((namespace, place, MAP + path))
            held = None if value is None else value_digest(digest, value)
            changes.setdefault(namespace, []).append((place, held))
        nodes = self._update(changes, version)
        version.namespaces_root = self.namespaces_root
        version.writes_root = writes_root(digest, writes, leaves)
        self._keep(version)
        return TreeChanges(
            state_root=state_root(digest, version.namespaces_root, version.writes_root),
            namespaces_root=version.namespaces_root,
            writes_root=version.writes_root,
            nodes=nodes,
            roots=[(name, encode_child(self._trees[name].root)) for name in changes],
            logs=grown,
            placed=placed,
        )

    def _update(
        self, changes: dict[Namespace, list[Change]], version: _Version
    ) -> list[tuple[Namespace, Digits, bytes | None]]:
        nodes: list[tuple[Namespace, Digits, bytes | None]] = []
        for namespace, items in changes.items():
            tree = self._tree(namespace)
            version.roots[namespace] = tree.root
            items.sort()
            try:
                tree.update(items)
            except Rejected as refusal:
                where = f"the tree of {namespace.hex()}"
                raise StoreDamagedError(Store.STATE, where, str(refusal)) from refusal
            for place, old, new in self._nodes[namespace].taken():
                version.nodes[namespace, place] = old
                nodes.append((namespace, place, new))
        self._namespaces.update(_over_namespaces(self._digest, self._roots(changes)))
        return nodes

    def _keep(self, version: _Version) -> None:
        held = (*version.nodes.values(), *version.values.values())
        version.size_bytes = sum(len(item) for item in held if item is not None)
        self._versions.append(version)
        self._version_bytes += version.size_bytes
        while len(self._versions) > 2 and (
            len(self._versions) > VERSIONS or self._version_bytes > VERSION_BYTES
        ):
            self._version_bytes -= self._versions.popleft().size_bytes

    def root(self, namespace: Namespace) -> Child:
        """The newest root of a namespace's tree."""
        tree = self._trees.get(namespace)
        return None if tree is None else tree.root

    def namespaces(self) -> list[Namespace]:
        """All namespaces that have been written to."""
        return list(self._trees)

    def node(self, namespace: Namespace, place: Digits) -> TreeNode:
        """The newest node of a tree."""
        return self._nodes[namespace].peek(place)


class StateView:
    """The state after one height, for proofs: what later blocks replaced, over what is newest."""

    def __init__(
        self, digest: Digest, tree: StateTree, version: _Version, later: Sequence[_Version]
    ) -> None:
        self.height = version.height
        self.namespaces_root = version.namespaces_root
        self.writes_root = version.writes_root
        self._digest = digest
        self._tree = tree
        self._version = version
        self._later = later

    def value(self, key: bytes) -> bytes | None:
        """The value of a map key."""
        for version in self._later:
            if key in version.values:
                return version.values[key]
        return self._tree.value(key)

    def log_tip(self, log: bytes) -> LogTip | None:
        """What a log had grown to."""
        for version in self._later:
            if log in version.logs:
                return version.logs[log]
        return self._tree.log_tip(log)

    def prove(self, namespace: Namespace, place: Digits) -> tuple[bytes | None, StatePath]:
        """The value digest at a place of a namespace's tree, and the path that shows it."""
        nodes = _OldNodes(self._digest, self._tree, namespace, self._later)
        return prove(nodes, self._root(namespace), place)

    def prove_namespace(self, namespace: Namespace) -> tuple[bytes | None, StatePath]:
        """The root of a namespace's tree, and the path that shows it."""
        over = self._version.over
        if over is None:
            nodes = KeptNodes()
            tree = SparseTree(self._digest, nodes)
            roots = {name: self._root(name) for name in self._tree.namespaces()}
            found = _over_namespaces(self._digest, roots)
            tree.update([item for item in found if item[1] is not None])
            over = self._version.over = nodes, tree.root
        return prove(*over, place_of(self._digest, namespace))

    def _root(self, namespace: Namespace) -> Child:
        for version in self._later:
            if namespace in version.roots:
                return version.roots[namespace]
        return self._tree.root(namespace)


class _OldNodes:
    """The nodes of a tree as they were before some blocks; implements `NodeReader`."""

    def __init__(
        self, digest: Digest, tree: StateTree, namespace: Namespace, later: Sequence[_Version]
    ) -> None:
        self._digest = digest
        self._tree = tree
        self._namespace = namespace
        self._later = later

    def get(self, place: Digits, /) -> TreeNode:
        key = self._namespace, place
        for version in self._later:
            old = version.nodes.get(key)
            if old is not None:
                return decode_node(self._digest, old)
        return self._tree.node(self._namespace, place)


def _over_namespaces(digest: Digest, roots: dict[Namespace, Child]) -> list[Change]:
    """The changes of the tree over namespaces: an empty tree has no leaf there."""
    return sorted(
        (place_of(digest, namespace), None if root is None else hash_of(root))
        for namespace, root in roots.items()
    )
