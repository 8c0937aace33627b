"""The state that the decided blocks lead to, by the definitions of docs/format.md alone.

It knows no tree, no store and no crash: for each height it hashes everything there is. Whatever a
node commits to, holds or proves is compared with that.
"""

from dataclasses import dataclass, field
from hashlib import sha256

import msgpack

from ledger.errors import Rejected
from ledger.proofs.log import head_of
from ledger.state_proof import verify_log_head, verify_value
from ledger.state_root import BLOCKS_LOG
from tests.simulation.state import KEYS, LOG, NAMESPACES, Shown, touched_by
from tests.vectors.by_definition import namespace_tree, root, sparse, tagged, written

Entry = list[bytes]


@dataclass(slots=True)
class _Moment:
    """Everything there is after a height."""

    maps: dict[bytes, bytes | None] = field(default_factory=dict[bytes, bytes | None])
    logs: dict[bytes, list[Entry]] = field(default_factory=dict[bytes, list[Entry]])
    heights: dict[bytes, int] = field(default_factory=dict[bytes, int])
    root: bytes = b""


class StateModel:
    """The state after each decided height; height 0 is genesis, which writes nothing."""

    def __init__(self) -> None:
        self._moments = [_Moment()]
        self._seal([], [])

    def root(self, height: int) -> bytes:
        """The state root after a height."""
        return self._moments[height].root

    def follow(self, height: int, nonce: int, value: bytes) -> None:
        """Take the next decided block; one that is known already says nothing new."""
        if height < len(self._moments):
            return
        before = self._moments[-1]
        now = _Moment(
            dict(before.maps),
            {log: list(entries) for log, entries in before.logs.items()},
            dict(before.heights),
        )
        self._moments.append(now)
        maps: list[tuple[bytes, bytes | None]] = []
        logs: list[tuple[bytes, int, list[Entry]]] = []
        for item in touched_by(nonce):
            if item.key is not None:
                maps.append((item.namespace + item.key, item.value))
            visits = [[b"%d" % number, value] for number in range(item.entries)]
            count = item.entries + 1
            results = sha256(b"results" + value).digest()
            about = msgpack.packb([height, count, value, count, results])
            blocks = [[height.to_bytes(8, "big"), about]]
            for log, entries in ((BLOCKS_LOG, blocks), (LOG, visits)):
                if entries:
                    name = item.namespace + log
                    logs.append((name, len(now.logs.setdefault(name, [])), entries))
                    now.logs[name] += entries
                    now.heights[name] = height
        now.maps |= dict(maps)
        self._seal(maps, logs)

    def _seal(
        self,
        maps: list[tuple[bytes, bytes | None]],
        logs: list[tuple[bytes, int, list[Entry]]],
    ) -> None:
        now, pairs, wrote = self._moments[-1], dict[bytes, bytes](), list[bytes]()
        for namespace in NAMESPACES:
            tree = namespace_tree(namespace, now.maps, now.logs, now.heights)
            if tree != bytes(32):
                pairs[tagged("kl.state-key", namespace)] = tree
            entry = written(namespace, maps, logs)
            if entry is not None:
                wrote.append(entry)
        now.root = tagged("kl.state", sparse(pairs) + root(wrote))

    def fault_in(self, height: int, namespace: bytes, key: bytes, shown: Shown) -> str:
        """What is wrong with what a node shows of a height; empty when all of it holds."""
        now = self._moments[height]
        blocks = now.logs.get(namespace + BLOCKS_LOG, [])
        try:
            value = verify_value(shown.key, _digest, now.root, namespace, key)
            head = verify_log_head(shown.blocks, _digest, now.root, namespace, BLOCKS_LOG)
            led_to = None if shown.newest is None else head_of(shown.newest, _digest)
        except Rejected as refusal:
            return str(refusal)
        if value != now.maps.get(namespace + key):
            return f"{key!r} is shown as {value!r}"
        if (0 if head is None else head.count) != len(blocks):
            return f"{len(blocks)} blocks hold something of {namespace!r}, shown are {head}"
        entries = () if shown.newest is None else shown.newest.entries
        if led_to != head or [[item.key, item.data] for item in entries] != blocks[-1:]:
            return f"the newest block of {namespace!r} is shown as {shown.newest}"
        return ""


def question(height: int, node: int) -> tuple[bytes, bytes]:
    """The namespace and the key that a client asks a node about."""
    number = height * 31 + node * 17
    return NAMESPACES[number % 2], b"key%d" % (number // 2 % KEYS)


def _digest(data: bytes, /) -> bytes:
    return sha256(data).digest()
