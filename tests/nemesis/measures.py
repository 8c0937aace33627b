"""What processes take: memory, descriptors, disk; and whether memory grows.

What it decides: the slope of memory over the lives of a node. A process that was started anew
begins lower than the one before, so each life has its own level, and all lives share one slope.
What a life took while caches filled is left out.
"""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .cluster import Node

MIB = 1024 * 1024


@dataclass(frozen=True)
class Sample:
    """One look at a process. `own_mib` is anonymous memory, without files that LevelDB maps."""

    at_s: float
    age_s: float
    own_mib: float
    resident_mib: float
    descriptors: int


@dataclass
class Record:
    """All samples of one node, by life."""

    lives: list[list[Sample]] = field(default_factory=list)
    most_descriptors: int = 0
    most_tasks: int = 0
    growth: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """The node was started."""
        self.lives.append([])

    def take(self, node: Node, now_s: float, started_at_s: float) -> None:
        """Look at the process of a node, unless it just ended."""
        try:
            status = Path(f"/proc/{node.process.pid}/status").read_text()
            descriptors = len(list(Path(f"/proc/{node.process.pid}/fd").iterdir()))
        except OSError:
            return
        facts = dict(line.split(":", 1) for line in status.splitlines())
        if "RssAnon" not in facts:
            return
        own, resident = (int(facts[name].split()[0]) / 1024 for name in ("RssAnon", "VmRSS"))
        sample = Sample(now_s, now_s - started_at_s, own, resident, descriptors)
        self.lives[-1].append(sample)
        self.most_descriptors = max(self.most_descriptors, descriptors)

    def ask(self, node: Node) -> None:
        """Let a watched node collect its garbage and report; reads what it said the last time."""
        if node.report.exists():
            report = json.loads(node.report.read_text())
            self.most_tasks = max(self.most_tasks, report["tasks"])
            self.growth = report["growth"]
        node.process.send_signal(signal.SIGUSR1)

    def slope(self, warm_s: float) -> float | None:
        """MiB an hour over the parts of all lives after `warm_s`; None when there is too little."""
        warm = [
            [(one.at_s, one.own_mib) for one in life if one.age_s >= warm_s] for life in self.lives
        ]
        return slope([life for life in warm if len(life) >= 2])

    @property
    def newest_mib(self) -> float:
        """Anonymous memory at the last look."""
        return next((life[-1].own_mib for life in reversed(self.lives) if life), 0.0)


def slope(series: Sequence[Sequence[tuple[float, float]]]) -> float | None:
    """The common slope, an hour, of series of (seconds, value) that each have their own level."""
    above = below = 0.0
    for points in series:
        mean_x = sum(x for x, _ in points) / len(points)
        mean_y = sum(y for _, y in points) / len(points)
        above += sum((x - mean_x) * (y - mean_y) for x, y in points)
        below += sum((x - mean_x) ** 2 for x, _ in points)
    return None if below == 0 else above / below * 3_600


def folder_bytes(folder: Path) -> int:
    """How much the files of a folder hold; what a store deletes meanwhile counts nothing."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:
            continue
    return total
