"""Runs the ordinary command line in a process that ends itself at a chosen moment.

What it decides: where a node may die (`POINTS`), and which mistakes can be planted in it (`BUGS`).
The product knows nothing of this: its functions are wrapped here before the command starts, and at
the chosen call the process sends itself SIGKILL. Names are looked up at once, so that a function
that moved is noticed instead of never being hit.
Source: research consensus-reliability sections 1.5 and 4.3; fail points of FreeBSD and TiKV.
"""

import argparse
import functools
import gc
import importlib
import inspect
import json
import os
import signal
import stat
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from p2p.frames import FrameKind

from .mistakes import BUGS

LOG_NAME = "consensus.wal"
MOMENTS = ("before", "after")


@dataclass(frozen=True)
class Point:
    """A function at whose calls a node may die; `applies` tells which of its calls count."""

    target: str
    applies: Callable[..., bool] = lambda *_: True
    rotates: bool = False


def _is_folder(descriptor, *_):
    return stat.S_ISDIR(os.fstat(descriptor).st_mode)


def _name_of(descriptor):
    return str(Path(f"/proc/self/fd/{descriptor}").readlink())


def _is_log(descriptor, *_):
    return _name_of(descriptor).endswith(LOG_NAME)


def _is_body(descriptor, *_):
    return _name_of(descriptor).endswith(".bodies")


def _names_log(_source, target, **_):
    return os.fspath(target).endswith(LOG_NAME)


POINTS = {
    "log.append": Point("node.wal:WriteAheadLog.append"),
    "log.write": Point("node.wal:WriteAheadLog._write"),
    "log.sync": Point("os:fdatasync", _is_log),
    "log.own": Point("node.journal:own_entry"),
    "log.end_height": Point("node.wal:WriteAheadLog.end_height"),
    "rotation.begin": Point("node.wal:WriteAheadLog._rotate", rotates=True),
    "rotation.rename": Point("os:replace", _names_log, rotates=True),
    "rotation.folder": Point("os:fsync", _is_folder, rotates=True),
    "send.message": Point(
        "node.node:RunningNode.broadcast",
        lambda _node, kind, _payload: kind in {FrameKind.VOTE, FrameKind.PROPOSAL},
    ),
    "send.batch": Point("node.node:RunningNode._publish"),
    "send.bytes": Point("p2p.peer:Peer._send"),
    "batch.made": Point("node.batch_maker:BatchMaker._make"),
    "body.append": Point("ledger.store.bodies:BodyFiles.append"),
    "body.sync": Point("os:fdatasync", _is_body),
    "block.batch": Point("ledger.store.blocks:BlockStore.append"),
    "state.execute": Point("node.executor:Executor.execute"),
    "state.batch": Point("ledger.store.results:StateStore.commit"),
    "store.write": Point("ledger.store.leveldb:LevelStore.write"),
    "core.step": Point("consensus.core:Core.step"),
    "sync.append": Point("node.driver:append_synced"),
    "answer.wake": Point("node.node:RunningNode._on_block"),
    "answer.form": Point("rpc.methods:sent_view"),
    "answer.send": Point(
        "rpc.http:_Connection._send", lambda _connection, data: b'"block_height"' in data
    ),
    "start.stores": Point("ledger.store.leveldb:LevelStore.__init__"),
    "start.bodies": Point("ledger.store.bodies:BodyFiles._start_segment"),
    "start.log": Point("node.wal:WriteAheadLog.__init__"),
    "start.window": Point("node.executor:Executor._restore_window"),
    "start.recover": Point("node.chain_writer:ChainWriter.recover"),
    "start.replay": Point("node.journal:replay"),
}
"""Each is hit before and after the call. A body or a log is named by its file, not by its code."""

SMALL_CACHES = {
    "ledger.store.leveldb:_WRITE_BUFFER_BYTES": 1024 * 1024,
    "ledger.store.leveldb:_BLOCK_CACHE_BYTES": 1024 * 1024,
    "ledger.store.leveldb:_OPEN_TABLES": 74,  # the least that LevelDB takes
    "ledger.store.leveldb:_TABLE_BYTES": 256 * 1024,
    "ledger.store.results:_CACHED_VALUES": 1_024,
    "node.limits:VERIFIED_CACHE": 1_024,
}
"""Bounded stores that take hours to fill at a moderate load, and would look like a leak."""

LABELS = tuple(f"{name}:{moment}" for name in POINTS for moment in MOMENTS)


@dataclass
class Trigger:
    """Dies at the `calls`-th passage of `label`, and leaves a note that it was here."""

    label: str
    calls: int
    note: Path

    def passes(self, label: str) -> None:
        if label != self.label:
            return
        self.calls -= 1
        if self.calls == 0:
            self.note.write_text(label)
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)  # the signal may take a moment to arrive; nothing may happen meanwhile


def find(target: str):
    """The owner, the attribute's name and the function that a target names."""
    module, _, path = target.partition(":")
    owner = importlib.import_module(module)
    *parents, name = path.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    return owner, name, getattr(owner, name)


def wrapped(point: Point, name: str, trigger: Trigger):
    """The function of a point with the trigger on both sides of it."""
    _, _, function = find(point.target)

    def passes(moment, arguments):
        if point.applies(*arguments):
            trigger.passes(f"{name}:{moment}")

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def later(*arguments, **settings):
            passes("before", arguments)
            result = await function(*arguments, **settings)
            passes("after", arguments)
            return result

        return later

    @functools.wraps(function)
    def now(*arguments, **settings):
        passes("before", arguments)
        result = function(*arguments, **settings)
        passes("after", arguments)
        return result

    return now


def arm(trigger: Trigger) -> None:
    """Wrap the function of the trigger's point."""
    name = trigger.label.rpartition(":")[0]
    point = POINTS[name]
    if point.rotates:
        _rotate_early()
    owner, attribute, _ = find(point.target)
    setattr(owner, attribute, wrapped(point, name, trigger))


def _rotate_early() -> None:
    """Let the log start anew at every height instead of after 64 MiB."""
    change("node.wal:LOG_ROTATE_BYTES", 1)


def change(target: str, value: int) -> None:
    """Give a constant another value."""
    owner, attribute, _ = find(target)
    setattr(owner, attribute, value)


def keep_rotated_logs(folder: Path) -> None:
    """Link every log that is about to be replaced into `folder`, as evidence of what it says."""
    replace = os.replace

    def linking(source, target, **settings):
        if os.fspath(target).endswith(LOG_NAME) and Path(target).exists():
            folder.mkdir(exist_ok=True)
            os.link(target, folder / f"{time.monotonic_ns()}.wal")
        replace(source, target, **settings)

    os.replace = linking


def report_on_signal(path: Path, *, traced: bool) -> None:
    """On SIGUSR1, collect garbage and write to `path` what is left and, traced, what grew."""
    if traced:
        tracemalloc.start(8)
    earlier: list[tracemalloc.Snapshot] = []

    def write(*_):
        garbage = gc.collect()
        report = {"garbage": garbage, "tasks": _tasks(), "growth": []}
        if traced:
            snapshot = tracemalloc.take_snapshot()
            if earlier:
                changes = snapshot.compare_to(earlier.pop(), "lineno")
                report["growth"] = [str(change) for change in changes[:30]]
            earlier.append(snapshot)
        path.with_suffix(".new").write_text(json.dumps(report))
        path.with_suffix(".new").replace(path)

    signal.signal(signal.SIGUSR1, write)


def _tasks() -> int:
    try:
        return trio.lowlevel.current_statistics().tasks_living
    except RuntimeError:
        return 0  # before the loop runs


def main() -> None:
    """`python -m tests.nemesis.launcher [options] -- node run --config …`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--point", help="POINT:before or POINT:after")
    parser.add_argument("--calls", type=int, default=1)
    parser.add_argument("--note", type=Path)
    parser.add_argument("--kept", type=Path)
    parser.add_argument("--bug", choices=sorted(BUGS))
    parser.add_argument("--report", type=Path, help="keep caches small, report on SIGUSR1")
    parser.add_argument("--trace", action="store_true")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()
    if options.kept is not None:
        keep_rotated_logs(options.kept)
    if options.point is not None:
        arm(Trigger(options.point, options.calls, options.note))
    if options.bug is not None:
        # After the point, so that a mistake that takes a call apart has the point in its middle.
        BUGS[options.bug]()
    if options.report is not None:
        for target, value in SMALL_CACHES.items():
            change(target, value)
        report_on_signal(options.report, traced=options.trace)
    sys.argv = ["kanglian", *options.command]
    from cli import main as command

    command()


if __name__ == "__main__":
    main()
