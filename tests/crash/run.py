"""Crash a node after every operation of its disk, in every way, and see what it remembers.

A bit also flips in each record that was synced with a message that left.

`python -m tests.crash.run --seeds N [--first S]` ends with one line of figures; its exit code is 1
if any promise was broken.
"""

import argparse
import sys
import tempfile
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

import structlog

from ledger.store import bodies
from node import wal
from node.log_entries import ENTRY, is_own
from node.log_records import HEAD_BYTES, record_at
from tests.crash.disk import DATA, History, Image, Wreck
from tests.crash.machine import LOG, Broken, Life, record_life, survive

AGAIN_EVERY = 12
"""Every so many images the recovery itself is crashed as well, after each of its operations."""


@dataclass
class Figures:
    """What was tried, and what broke: message -> the first place where it did."""

    lives: int = 0
    operations: int = 0
    images: int = 0
    broken: dict[str, str] = field(default_factory=dict)
    times: Counter = field(default_factory=Counter)

    def __str__(self) -> str:
        return (
            f"{self.lives} lives, {self.operations} disk operations, {self.images} images, "
            f"{self.times.total()} broken promises"
        )


def small_files() -> None:
    """Let rotation, new segments and unsynced writes happen in lives of a few blocks."""
    wal.LOG_ROTATE_BYTES, wal.LOG_BUFFER_BYTES, wal.LOG_RESERVE_BYTES = 5_000, 1_500, 4_096
    bodies.SEGMENT_BYTES = 3_000


def images_of(history: History) -> Iterator[tuple[str, Image]]:
    """Every image that a crash may leave, once, with the place of the crash."""
    wreck = Wreck()
    for index, operation in enumerate(history.operations):
        wreck.follow(operation)
        seen = []
        for kept in DATA if wreck.is_pending else ("all",):
            for names in (True, False):
                image = wreck.image(kept, names=names)
                if image.files not in seen:
                    seen.append(image.files)
                    how = f"{kept} of the data, {'all' if names else 'certain'} names"
                    yield f"after {index} {operation[:2]}: {how}", image


def flips_of(history: History) -> Iterator[tuple[str, Image]]:
    """What is certain after each message that left, with a bit flipped in what was synced with it.

    No later record says of those that they were durable, so they look like the end that a crash
    tears; but the message behind them stands, and has left.
    """
    wreck, seen = Wreck(), b""
    for index, operation in enumerate(history.operations):
        wreck.follow(operation)
        image = wreck.image("nothing", names=False) if operation[0] == "sent" else None
        data = b"" if image is None else image.files.get(LOG, b"")
        if image is None or data == seen:
            continue
        seen = data
        for offset in unvouched(data):
            damaged = bytearray(data)
            damaged[offset + HEAD_BYTES] ^= 0x01
            files = {**image.files, LOG: bytes(damaged)}
            yield f"after {index}, a bit flips at {offset}", replace(image, files=files)


def unvouched(data: bytes) -> list[int]:
    """The records that were synced with an own entry at the end of a log, and stand before it."""
    found, offset = [], 0
    while (record := record_at(data, offset)) is not None:
        found.append((offset, record))
        offset = record.behind
    if not found or not is_own(ENTRY.decode(found[-1][1].payload)):
        return []
    return [offset for offset, _ in found[:-1] if offset >= found[-1][1].durable]


def crash_everywhere(life: Life, figures: Figures) -> Iterator[None]:
    """Try every image of a life, flipped bits too, and of some recoveries; yields after each.

    Adds to `figures`.
    """
    figures.lives += 1
    figures.operations += len(life.history.operations)
    for place, image in chain(images_of(life.history), flips_of(life.history)):
        recovery = attempt(life, image, place, figures)
        yield
        if recovery is None or figures.images % AGAIN_EVERY:
            continue
        for again, second in images_of(recovery):
            both = replace(second, seen=image.seen + second.seen)
            if len(second.stores) == 2:  # before that the second life had not begun
                attempt(Life(recovery), both, f"{place}; {again}", figures)
                yield


def attempt(life: Life, image: Image, place: str, figures: Figures) -> History | None:
    """One second life."""
    figures.images += 1
    try:
        return survive(life, image)
    except Broken as broken:
        kind = str(broken)[:48]
        figures.times[kind] += 1
        figures.broken.setdefault(kind, f"{place}: {broken}")
        return None


def main() -> int:
    """Run, print, exit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    small_files()
    figures = Figures()
    for seed in range(options.first, options.first + options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            deque(crash_everywhere(record_life(Path(folder), seed), figures), maxlen=0)
    for kind, where in figures.broken.items():
        sys.stdout.write(f"{figures.times[kind]} times, first {where[:900]}\n")
    sys.stdout.write(f"{figures}\n")
    return 1 if figures.broken else 0


if __name__ == "__main__":
    sys.exit(main())
