"""`python -m tests.nemesis.soak --minutes M`: a real network under load and trouble, for long.

Four nodes, mixed load, and every half minute a nemesis: kills, pauses, partitions, slow links,
torn links, garbage, floods. Memory, descriptors and disk are measured all the while. At the end all
nodes must hold one state with everything that was acknowledged. One line of figures; the exit code
is 1 after a violation, or when memory grows in a run of an hour or more.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from ledger.errors import KanglianError

from .audit import audit
from .clients import Load, Mix
from .cluster import PLAIN, Cluster, Node, Start, Violation, last_words
from .kill9 import tell
from .measures import MIB, Record, folder_bytes
from .proxy import Proxies
from .troubles import Troubles
from .watch import Watch

SLOPE_LIMIT_MIB_H = 1.0
SLOPE_AFTER_MINUTES = 60.0
"""A shorter run sees caches fill; it reports and does not judge."""
SAMPLE_S = 5.0
REPORT_S = 60.0
READY_S = 20.0
WATCH_S = 0.5
PROGRESS_S = 60.0
VALID_FOR_MS = 150_000
"""How long the replay window remembers a transaction; longer than any trouble and its end."""
WARM_S = 2_400.0
"""Small caches are full after some minutes, the tables that stores hold open after half an hour."""
MIX = Mix(
    envelopes=10,
    supersedes=10,
    bad_inputs=10,
    reads=20,
    repeats=5,
    valid_for_ms=VALID_FOR_MS,
)


class Soak:
    """One run."""

    def __init__(self, seed: int, rate: float, interval_s: float, *, traced: bool = False) -> None:
        self.violation: str | None = None
        self.folder = Path(tempfile.mkdtemp(prefix="kanglian-soak-"))
        self.troubles: Counter[str] = Counter()
        self.minutes = 0.0
        self.transactions = 0
        self.disk_bytes = 0
        self.records: dict[str, Record] = {}
        self._seed = seed
        self._rate = rate
        self._interval_s = interval_s
        self._traced = traced
        self._started_at: dict[str, float] = {}
        self._due = {self._sample: 0.0, self._ask: 0.0, self._look: 0.0, self._progress: 0.0}

    def run(self, minutes: float) -> None:
        """Soak for so long, heal, and audit."""
        self._began_at = time.monotonic()
        try:
            with Cluster(self.folder) as self._cluster, Proxies(self._cluster.nodes) as proxies:
                for node in self._cluster.nodes:
                    self._start(node)
                self._cluster.start_all()
                with Load(self._cluster, self._rate, MIX, self._seed, 4) as self._load:
                    self._watch = Watch(self._cluster.nodes, self._load)
                    self._cluster.begun()
                    self._trouble(minutes, proxies)
                    self._load.finish()
                self._end()
        except (Violation, KanglianError) as violation:
            self.violation = str(violation)
            (self.folder / "violation.txt").write_text(f"{violation}\nseed {self._seed}\n")
            return
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(self.folder)
            raise
        except BaseException as error:
            error.add_note(f"kept in {self.folder}")
            raise
        shutil.rmtree(self.folder)

    def _trouble(self, minutes: float, proxies: Proxies) -> None:
        generator = random.Random(self._seed)
        longest_s = 0.7 * self._interval_s
        troubles = Troubles(self._cluster, proxies, generator, self._wait, self._start, longest_s)
        end = self._began_at + minutes * 60
        names: list[str] = []
        while time.monotonic() < end:
            began_at = time.monotonic()
            if not names:
                names = troubles.names()
                generator.shuffle(names)
            name = names.pop()
            troubles.inflict(name)
            self.troubles[name.removeprefix("do_")] += 1
            self._wait(max(0.0, min(end, began_at + self._interval_s) - time.monotonic()))
        proxies.heal()

    def _start(self, node: Node) -> None:
        """The first node runs as it is; the others have small caches and collect when asked."""
        is_plain = self._is_plain(node)
        how = PLAIN if is_plain else Start(watched=True, traced=self._traced)
        self._cluster.start(node, how)
        self._started_at[node.name] = time.monotonic()
        self.records.setdefault(node.name, Record()).begin()

    def _is_plain(self, node: Node) -> bool:
        return node is self._cluster.nodes[0]

    def _wait(self, seconds: float) -> None:
        """Let time pass; measure and watch meanwhile."""
        end = time.monotonic() + seconds
        while (now := time.monotonic()) < end:
            for task, every_s in (
                (self._sample, SAMPLE_S),
                (self._look, WATCH_S),
                (self._ask, REPORT_S),
                (self._progress, PROGRESS_S),
            ):
                if now >= self._due[task]:
                    self._due[task] = now + every_s
                    task()
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    def _running(self) -> list[Node]:
        return [node for node in self._cluster.nodes if node.process is not None]

    def _sample(self) -> None:
        now = time.monotonic()
        for node in self._running():
            self.records[node.name].take(node, now, self._started_at[node.name])

    def _ask(self) -> None:
        for node in self._running():
            is_able = time.monotonic() > self._started_at[node.name] + READY_S
            if is_able and not self._is_plain(node):
                self.records[node.name].ask(node)

    def _look(self) -> None:
        for node in self._running():
            if node.process.poll() is not None:
                raise Violation(f"{node.name} ended by itself: {last_words(node)}")
            if not _is_stopped(node):
                self._watch.look(node)
        self._watch.logs()
        self._watch.clients()

    def _progress(self) -> None:
        self.minutes = (time.monotonic() - self._began_at) / 60
        self.transactions = len(self._load.account.acknowledged)
        memory = " ".join(f"{one.newest_mib:.0f}" for one in self.records.values())
        tell(f"{self.summary()}; height {self._watch.best}; own memory {memory} MB")

    def _end(self) -> None:
        self._cluster.agree()
        self._sample()
        self._look()
        self.minutes = (time.monotonic() - self._began_at) / 60
        self._cluster.stop(*self._cluster.nodes)
        self._watch.logs()
        account = self._load.account
        audit(self._cluster, account, self._watch.evidence)
        self.transactions = len(account.acknowledged)
        self.disk_bytes = folder_bytes(self._cluster.nodes[0].data)

    @property
    def slopes(self) -> dict[str, float | None]:
        """MiB an hour by node; a short run is warm in its last third."""
        warm_s = min(WARM_S, self.minutes * 60 * 2 / 3)
        return {name: record.slope(warm_s) for name, record in self.records.items()}

    @property
    def leaks(self) -> bool:
        """Whether memory of the watched node that is never killed grew after it was warm.

        The plain node is not judged: its write buffers fill for hours. Nor are those that die every
        few minutes: they are never warm.
        """
        if self.minutes < SLOPE_AFTER_MINUTES:
            return False
        watched = list(self.slopes.values())[1]
        return watched is None or watched >= SLOPE_LIMIT_MIB_H

    def summary(self) -> str:
        slopes = " ".join("-" if one is None else f"{one:+.1f}" for one in self.slopes.values())
        most = " ".join(str(one.most_descriptors) for one in self.records.values())
        return (
            f"minutes {self.minutes:.1f}, nemeses {self.troubles.total()}, "
            f"transactions {self.transactions}, RSS slope {slopes} MB/h per node, fds {most}, "
            f"violations {int(self.violation is not None)}"
        )

    def details(self) -> str:
        """What does not fit into the one line."""
        kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(self.troubles.items()))
        tasks = " ".join(str(one.most_tasks) for one in self.records.values())
        each = self.disk_bytes / max(1, self.transactions)
        memory = " ".join(f"{one.newest_mib:.0f}" for one in self.records.values())
        return (
            f"nemeses: {kinds}; tasks at most {tasks}; own memory {memory} MB; "
            f"disk {self.disk_bytes / MIB:.1f} MB a node, {each:.0f} bytes a transaction"
        )


def _is_stopped(node: Node) -> bool:
    try:
        text = Path(f"/proc/{node.process.pid}/stat").read_text()
    except OSError:
        return True
    return text.rpartition(")")[2].split()[0] == "T"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rate", type=float, default=120.0, help="transactions a second")
    parser.add_argument("--interval", type=float, default=30.0, help="seconds from trouble to next")
    parser.add_argument("--trace", action="store_true", help="tell what grows, by tracemalloc")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tell(f"seed {options.seed}")
    soak = Soak(options.seed, options.rate, options.interval, traced=options.trace)
    soak.run(options.minutes)
    tell(soak.details())
    for name, record in soak.records.items():
        for line in record.growth if options.trace else ():
            tell(f"{name} grew: {line}")
    if soak.violation is not None:
        tell(f"VIOLATION: {soak.violation}\nkept in {soak.folder}")
    if soak.leaks:
        tell(f"memory grows by {SLOPE_LIMIT_MIB_H} MB an hour or more")
    tell(soak.summary())
    return int(soak.violation is not None or soak.leaks)


if __name__ == "__main__":
    sys.exit(main())
