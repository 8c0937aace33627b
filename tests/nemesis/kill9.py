"""`python -m tests.nemesis.kill9 --kills N`: real nodes die by SIGKILL, and nothing is lost.

Four nodes, stubborn clients, deaths at named points and at random moments, of one, two and all
nodes, in the midst of recovery too. A fresh network every so many kills bounds the disk. It ends
with one line of figures; the exit code is 1 when a promise was broken, and the folder is kept.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from ledger.errors import KanglianError

from .audit import audit
from .clients import Account, Load, Mix
from .cluster import PLAIN, Cluster, Start, Violation
from .hunt import Deck, Hunt, Tally
from .launcher import LABELS
from .mistakes import BUGS

NETWORK_KILLS = 250
"""Then a new network: the folder of the old one has grown to some 100 MB."""
RECOVERY_LIMIT_S = 10.0
BLIND_AFTER = 12 * len(LABELS)
"""By now every point was drawn several times; one that was never hit has moved away."""
PROGRESS_S = 15.0


def tell(line: str) -> None:
    """Print a line at once, for whoever reads a log."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


class Run:
    """Networks one after another, until there were enough kills."""

    def __init__(self, seed: int, rate: float, bug: str | None = None, labels=LABELS) -> None:
        self.tally = Tally()
        self.violation: str | None = None
        self.folder: Path | None = None
        self._random = random.Random(seed)
        self._seed = seed
        self._rate = rate
        self._bug = bug
        self._labels = labels
        self._began_at = time.monotonic()
        self._told_at = self._began_at
        self._account = Account()

    def kill(self, kills: int) -> None:
        """Kill so many times, or until something is wrong."""
        deck = Deck(self._random, self._labels)
        while self.tally.total < kills and self.violation is None:
            self._one_network(min(NETWORK_KILLS, kills - self.tally.total), deck)

    def _one_network(self, kills: int, deck: Deck) -> None:
        folder = Path(tempfile.mkdtemp(prefix="kanglian-kill9-"))
        tally = self.tally
        tally.networks += 1
        try:
            with Cluster(folder) as cluster:
                cluster.start_all(PLAIN if self._bug is None else Start(bug=self._bug))
                load = Load(cluster, self._rate, Mix(), self._seed + tally.networks)
                self._account = load.account
                with load:
                    cluster.begun()
                    hunt = Hunt(cluster, load, deck, self._random, tally)
                    if self._bug is not None:
                        hunt.plant(self._bug)
                    hunt.run(kills, self._tell)
                    load.finish()
                    cluster.agree()
                if load.account.wrong:
                    raise Violation(load.account.wrong[0])
                cluster.stop(*cluster.nodes)
                hunt.watch.logs()
                tally.heights += audit(cluster, load.account, hunt.watch.evidence)
                hunt.watch.evidence.close()
                tally.acknowledged += len(load.account.acknowledged)
                self._account = Account()
        except (Violation, KanglianError) as violation:
            self.violation, self.folder = str(violation), folder
            (folder / "violation.txt").write_text(f"{violation}\nseed {self._seed}\n")
            return
        except (KeyboardInterrupt, SystemExit):
            shutil.rmtree(folder)
            raise
        except BaseException as error:
            error.add_note(f"kept in {folder}")
            raise
        shutil.rmtree(folder)

    def _tell(self) -> None:
        now = time.monotonic()
        if now >= self._told_at + PROGRESS_S:
            self._told_at = now
            tell(f"{now - self._began_at:.0f} s: {self.summary()}")

    @property
    def unseen(self) -> list[str]:
        return sorted(set(self._labels) - self.tally.covered)

    @property
    def slow(self) -> int:
        return sum(one > RECOVERY_LIMIT_S for one in self.tally.recoveries_s)

    def summary(self) -> str:
        tally = self.tally
        lost, twice, signs = (
            int(any(word in (self.violation or "") for word in words))
            for words in (("lost:",), ("twice",), ("double sign", "equivocation"))
        )
        acknowledged = tally.acknowledged + len(self._account.acknowledged)
        times = sorted(tally.recoveries_s) or [0.0]
        p50, p99 = (times[min(len(times) - 1, len(times) * part // 100)] for part in (50, 99))
        return (
            f"kills {tally.total}, points covered {len(tally.covered)} of {len(self._labels)}, "
            f"acknowledged {acknowledged}, lost {lost}, twice {twice}, double signs {signs}, "
            f"recovery p50/p99/max {p50:.1f}/{p99:.1f}/{times[-1]:.1f} s, "
            f"violations {int(self.violation is not None)}"
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    parser.add_argument("--rate", type=float, default=40.0, help="transactions a second")
    parser.add_argument("--bug", choices=sorted(BUGS), help="plant a mistake that must be found")
    parser.add_argument("--points", default="", help="only points whose name begins so")
    options = parser.parse_args()
    labels = tuple(label for label in LABELS if label.startswith(options.points))
    # A stop from outside must not leave nodes behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    tell(f"seed {options.seed}")
    run = Run(options.seed, options.rate, options.bug, labels)
    began_at = time.monotonic()
    run.kill(options.kills)
    kinds = ", ".join(f"{kind} {count}" for kind, count in sorted(run.tally.kills.items()))
    tell(
        f"{time.monotonic() - began_at:.0f} s, {run.tally.networks} networks, "
        f"{run.tally.heights} heights compared; kills by kind: {kinds}"
    )
    failed = run.violation is not None
    if failed:
        tell(f"VIOLATION: {run.violation}\nkept in {run.folder}")
    if run.slow:
        failed = True
        tell(f"{run.slow} recoveries took longer than {RECOVERY_LIMIT_S} s")
    if run.unseen:
        failed = failed or run.tally.total >= BLIND_AFTER
        tell(f"never hit: {', '.join(run.unseen)}")
    tell(run.summary())
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
