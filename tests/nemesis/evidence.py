"""Everything that validators were seen to sign, gathered from the logs of all nodes.

What it decides: whether somebody signed twice. A node's write-ahead log holds its own messages and
those that it heard, so a contradiction shows even when its author forgot it. Files are read while
they grow; a log that was replaced is read to its end, since its descriptor is still open.
"""

import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass, field

from node import wire
from node.log_entries import ENTRY, LoggedBatch, LoggedProposal, LoggedVote
from node.log_records import record_at

from .cluster import Node, Violation

LOG_NAME = "consensus.wal"


@dataclass
class _Tail:
    """An open log and how far it is understood."""

    descriptor: int
    inode: int
    offset: int = 0

    def entries(self) -> Iterator[object]:
        """Entries that were added since the last look; a torn end waits for the next one."""
        if os.fstat(self.descriptor).st_size == 0:
            return
        # A record is bound to its place, so the log is read as a whole.
        with mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ) as data:
            while (found := record_at(data, self.offset)) is not None:
                self.offset, _, payload = found
                yield ENTRY.decode(payload)


@dataclass
class Evidence:
    """What was signed: `votes` by (sender, height, round, kind), `batches` by (node, sequence)."""

    votes: dict[tuple, tuple] = field(default_factory=dict)
    batches: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _tails: dict[str, _Tail] = field(default_factory=dict)

    def gather(self, nodes: list[Node]) -> None:
        """Read on in all logs.

        Raises: Violation when two signatures contradict each other.
        """
        for node in nodes:
            for path in sorted(node.kept.glob("*.wal")):
                descriptor = os.open(path, os.O_RDONLY)
                self._take(node, _Tail(descriptor, 0))
                os.close(descriptor)
                path.unlink()
            self._gather_current(node)

    def _gather_current(self, node: Node) -> None:
        tail = self._tails.get(node.name)
        try:
            inode = (node.data / LOG_NAME).stat().st_ino
        except FileNotFoundError:
            return
        if tail is not None:
            self._take(node, tail)
            if tail.inode == inode:
                return
            os.close(tail.descriptor)
        descriptor = os.open(node.data / LOG_NAME, os.O_RDONLY)
        tail = self._tails[node.name] = _Tail(descriptor, os.fstat(descriptor).st_ino)
        self._take(node, tail)

    def _take(self, node: Node, tail: _Tail) -> None:
        for entry in tail.entries():
            match entry:
                case LoggedVote(message):
                    vote = wire.VOTE.decode(message)
                    key = (vote.sender, vote.height, vote.round, vote.kind)
                    self.note_vote(key, (vote.block_hash, vote.valid_round), node.name)
                case LoggedProposal(message):
                    made = wire.PROPOSAL.decode(message)
                    key = (made.sender, made.height, made.round, "proposal")
                    self.note_vote(key, (made.block_hash, made.valid_round), node.name)
                case LoggedBatch(digest, _, sequence) if sequence >= 0:
                    self.note_batch(node.name, sequence, digest)

    def note_vote(self, key: tuple, value: tuple, where: str) -> None:
        """A signed message: who, height, round, kind; and for which block.

        Raises: Violation when its author signed another one there.
        """
        if self.votes.setdefault(key, value) != value:
            sender, height, round_number, kind = key
            raise Violation(
                f"double sign: validator {sender} at height {height}, round {round_number}, "
                f"kind {kind}: {_short(self.votes[key])} and {_short(value)}; "
                f"the second stands in the log of {where}"
            )

    def note_batch(self, author: str, sequence: int, digest: bytes) -> None:
        """A batch of a node with its number.

        Raises: Violation when the number was used for another one.
        """
        if self.batches.setdefault((author, sequence), digest) != digest:
            raise Violation(f"{author} used the number {sequence} for two batches")

    def close(self) -> None:
        """Close the logs."""
        for tail in self._tails.values():
            os.close(tail.descriptor)


def _short(value: tuple) -> str:
    block_hash, valid_round = value
    name = "nil" if block_hash is None else block_hash.hex()[:12]
    return f"{name} (valid round {valid_round})"
