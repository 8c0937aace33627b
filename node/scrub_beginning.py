"""The scrub of what a store began with: state that no block wrote which is held.

It came with a snapshot, or the blocks that wrote it were pruned.
What it decides: whether values, logs and kept headers are still those that the header after the
beginning commits to. What blocks wrote later is not looked at here (node/scrub.py).
Source: docs/decisions/0039-snapshots.md.
"""

from collections.abc import Callable, Iterator

from ledger.block import HEADER, block_hash
from ledger.codec import encode
from ledger.errors import Store, StoreDamagedError
from ledger.history import EMPTY_FRONTIER, tree_head
from ledger.merkle import Digest
from ledger.state import LogWrite
from ledger.state_root import (
    LOG,
    MAP,
    log_leaves,
    log_place,
    map_place,
    namespace_of,
    state_root,
    value_digest,
)
from ledger.state_tree import proved_digest
from ledger.store.blocks import BlockStore, DecidedHeader
from ledger.store.results import HistoryNodes, StateStore, StoredWrites, pack_rows
from ledger.transaction import Chain
from ledger.validators import ValidatorSet
from ledger.votes import CERTIFICATE, verify_certificate
from node.limits import SCRUB_TRANSACTIONS, SCRUB_VALUES


class Beginning:
    """The checks of the height with which a store begins."""

    def __init__(
        self,
        chain: Chain,
        blocks: BlockStore,
        state: StateStore,
        validators_at: Callable[[int], ValidatorSet],
    ) -> None:
        self._chain = chain
        self._digest: Digest = chain.suite.digest
        self._blocks = blocks
        self._state = state
        self._validators_at = validators_at
        self._height = 0

    def check(
        self, height: int, stored: StoredWrites, committed_state: bytes, committed_history: bytes
    ) -> Iterator[None]:
        """All of it, in slices. `stored` is what is kept of the height, which may be pruned soon.

        Raises: StoreDamagedError, Rejected where a record is none.
        """
        self._height = height
        yield from self._headers()
        found = state_root(self._digest, stored.namespaces_root, stored.writes_root)
        self._require(found == committed_state, "roots are not those of the next header")
        root = tree_head(HistoryNodes(self._state), self._digest, self._height + 1)
        is_same = root.sized_root(self._digest) == committed_history
        self._require(is_same, "history is not that of the next header")
        yield
        yield from self._places()
        yield from self._values()
        yield from self._logs()

    def _places(self) -> Iterator[None]:
        """What has a place has a record; the other way round is looked at with the record."""
        after = b""
        while places := self._state.places(after, SCRUB_TRANSACTIONS):
            for _, namespace, path in places:
                key = namespace + path[1:]
                is_log = path[:1] == LOG
                found = self._state.log_tip(key) if is_log else self._state.map_value(key)
                self._require(found is not None, f"{key.hex()} has a place and is gone")
            after = places[-1][0]
            yield

    def _headers(self) -> Iterator[None]:
        """Headers from before the origin are found by hash and certified, the newest two linked."""
        origin = self._blocks.origin
        for height, decided in self._blocks.kept(origin):
            header, name = HEADER.decode(decided.header), self._hash(decided)
            is_found = header.height == height and self._blocks.height_of(name) == height
            self._require(is_found, f"header {height} is not found by its hash", Store.BLOCKS)
            if decided.certificate:
                certificate = CERTIFICATE.decode(decided.certificate)
                is_same = (certificate.height, certificate.block_hash) == (height, name)
                self._require(is_same, f"header {height} has another certificate", Store.BLOCKS)
                verify_certificate(certificate, self._validators_at(height), self._chain)
            yield
        if not origin:
            return
        newest = self._blocks.decided(origin)
        self._require(newest is not None, "the header of the origin is gone", Store.BLOCKS)
        before = self._blocks.decided(origin - 1)
        name = self._chain.genesis_hash if before is None else self._hash(before)
        is_linked = newest is not None and HEADER.decode(newest.header).previous_hash == name
        self._require(is_linked, "the header before it is another", Store.BLOCKS)

    def _hash(self, decided: DecidedHeader) -> bytes:
        return block_hash(decided.header, self._chain.suite)

    def _values(self) -> Iterator[None]:
        after = b""
        while keys := self._state.value_keys(after, SCRUB_VALUES):
            for key in keys:
                self._value(key)
            after = keys[-1]
            yield

    def _value(self, key: bytes) -> None:
        stored = self._state.map_value(key)
        if stored is None or stored.height > self._height:
            return  # a block wrote it since
        namespace, path = _split(key)
        place = map_place(self._digest, path)
        held = proved_digest(self._digest, self._state, namespace, place)
        expected = None if stored.value is None else value_digest(self._digest, stored.value)
        is_same = held == expected
        self._require(is_same, f"the value of {key.hex()} is another")
        is_placed = self._state.path_at(namespace, place) == MAP + path
        self._require(is_placed, f"the place of {key.hex()} is of another key")

    def _logs(self) -> Iterator[None]:
        after = b""
        while logs := self._state.logs(after, 1):
            yield from self._log(logs[0])
            after = logs[0]

    def _log(self, log: bytes) -> Iterator[None]:
        """All entries of a log, the nodes and keys of each piece, and the head they lead to."""
        counted, frontier = self._state.log_tip(log), EMPTY_FRONTIER
        while counted is not None and frontier.count < counted.frontier.count:
            write = self._state.log_write(log, frontier.count)
            if write is None:
                raise self._damaged(f"entry {frontier.count} of log {log.hex()} is missing")
            frontier, rows = frontier.extend(self._digest, log_leaves(self._digest, write.entries))
            is_same = self._state.log_nodes(log, write.first_sequence) == pack_rows(rows)
            self._require(is_same, f"the tree of log {log.hex()} has other nodes")
            yield
            yield from self._keys(write)
        is_same = counted is not None and counted.frontier == frontier
        self._require(is_same, f"log {log.hex()} has another count of entries")
        namespace, path = _split(log)
        place, tip = log_place(self._digest, path), self._state.log_tip(log)
        head = b"" if tip is None else encode(tip.head(self._digest))
        held = proved_digest(self._digest, self._state, namespace, place)
        is_held = held == value_digest(self._digest, head)
        self._require(is_held, f"the head of log {log.hex()} is another")
        is_placed = self._state.path_at(namespace, place) == LOG + path
        self._require(is_placed, f"the place of {log.hex()} is of another log")

    def _keys(self, write: LogWrite) -> Iterator[None]:
        for number, entry in enumerate(write.entries):
            position = write.first_sequence + number
            is_found = self._state.has_log_key(write.log, entry.key, position)
            self._require(is_found, f"entry {position} of log {write.log.hex()} has no key")
            if number % SCRUB_TRANSACTIONS == SCRUB_TRANSACTIONS - 1:
                yield

    def _damaged(self, problem: str, store: Store = Store.STATE) -> StoreDamagedError:
        return StoreDamagedError(store, f"height {self._height}, where it begins", problem)

    def _require(self, holds: object, problem: str, store: Store = Store.STATE) -> None:
        if not holds:
            raise self._damaged(problem, store)


def _split(key: bytes) -> tuple[bytes, bytes]:
    namespace = namespace_of(key)
    return namespace, key[len(namespace) :]
