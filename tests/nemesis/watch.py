"""What is looked at all the time: heights, blocks, complaints in the logs, signatures.

What it decides: whether something that was seen contradicts something that was seen before.
"""

from dataclasses import dataclass, field

from .clients import Load
from .cluster import Node, Violation, look
from .evidence import Evidence

BAD_WORDS = (
    "equivocation",
    "quarantine",
    "traceback",
    "log_damaged",
    "peer_banned",
    "sync_refused",
    "mistake in",
)


@dataclass
class Watch:
    """Everything that was seen of the nodes of one cluster."""

    nodes: list[Node]
    load: Load
    evidence: Evidence = field(default_factory=Evidence)
    heights: dict[str, int] = field(default_factory=dict)
    _hashes: dict[int, tuple[str, str]] = field(default_factory=dict)
    _read: dict[str, int] = field(default_factory=dict)

    @property
    def best(self) -> int:
        return max(self.heights.values(), default=0)

    def look(self, node: Node) -> int | None:
        """The height of a node, None when it does not answer.

        Raises: Violation when a height goes back, or has two blocks.
        """
        found = look(node)
        if found is None:
            return None
        height, block = found["height"], found["latest_block_hash"]
        earlier = self.heights.get(node.name, 0)
        if height < earlier:
            raise Violation(f"{node.name} told height {earlier} and now {height}")
        self.heights[node.name] = height
        known, by = self._hashes.setdefault(height, (block, node.name))
        if known != block:
            raise Violation(f"block {height} is {known} on {by} and {block} on {node.name}")
        return height

    def clients(self) -> None:
        """Raises: Violation when clients were told what cannot be."""
        if self.load.account.wrong:
            raise Violation(self.load.account.wrong[0])

    def logs(self) -> None:
        """Read on in what nodes signed and in what they say.

        Raises: Violation.
        """
        self.evidence.gather(self.nodes)
        for node in self.nodes:
            offset = self._read.get(node.name, 0)
            with node.log.open("rb") as log:
                log.seek(offset)
                text = log.read()
            whole = text.rfind(b"\n") + 1
            self._read[node.name] = offset + whole
            for line in text[:whole].decode(errors="replace").splitlines():
                if any(word in line.lower() for word in BAD_WORDS):
                    raise Violation(f"{node.name} says: {line}")
