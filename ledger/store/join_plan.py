"""Which items of a snapshot a joining node asks for next, and what becomes of those it gets.

What it decides: the order of questions, and when all is here. Answers come in any order and from
anybody; each is checked before anything of it is kept. What it never does: ask.
Trees are walked depth first, so that few places are open; logs grow run by run, some at a time.
Source: docs/decisions/0039-snapshots.md.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from ledger.errors import InvariantError, invariant
from ledger.ids import GenesisHash
from ledger.snapshot import (
    RUN_ENTRIES,
    Base,
    Item,
    Kind,
    WindowBlock,
    check_entries,
    check_namespaces,
    check_run,
    check_subtree,
    check_window,
    runs_of,
)
from ledger.sparse import Child
from ledger.state import LogEntry
from ledger.state_root import LogTip
from ledger.store.joined import FoundLog, JoinedState
from ledger.store.results import StateTip
from ledger.transaction import Chain

AHEAD_RUNS = 16
"""Runs of a log, and logs, that are asked for at once: 16 MiB at most wait for their turn."""

_WINDOW = Item(int(Kind.WINDOW))
_NAMESPACES = Item(int(Kind.NAMESPACES))


@dataclass(slots=True)
class _Growing:
    """A log of which runs are missing; `waiting` came before their turn."""

    found: FoundLog
    tip: LogTip | None
    installed: int
    asked: int
    waiting: dict[int, tuple[Sequence[LogEntry], list[bytes]]] = field(
        default_factory=dict[int, tuple[Sequence[LogEntry], list[bytes]]]
    )


class JoinPlan:
    """The join of one snapshot."""

    def __init__(self, base: Base, state: JoinedState, chain: Chain) -> None:
        """Begin, or go on with what `state` holds of the same snapshot."""
        state.begin(base)
        self.base = base
        self.taken = 0
        """Items that are here."""
        self._state = state
        self._chain = chain
        self._digest = chain.suite.digest
        self._ready: list[Item] = [_WINDOW, _NAMESPACES]
        self._asked: dict[Item, None] = {}
        self._children: dict[Item, Child] = {}
        self._entries: dict[Item, WindowBlock] = {}
        self._logs: deque[FoundLog] = deque()
        self._growing: dict[bytes, _Growing] = {}
        self._roots: list[tuple[bytes, Child]] = []

    @property
    def is_done(self) -> bool:
        """Whether nothing is missing any more."""
        return not (self._ready or self._asked or self._logs or self._growing)

    def next_item(self) -> Item | None:
        """An item to ask for; None while all that are known were asked for."""
        item = self._ready.pop() if self._ready else self._next_run()
        if item is not None:
            self._asked[item] = None
        return item

    def put_back(self, item: Item) -> None:
        """Nobody answered, or wrongly: ask for it again."""
        del self._asked[item]
        self._ready.append(item)

    def take(self, item: Item, data: bytes) -> None:
        """Check an item that was asked for and keep it.

        Raises: Rejected when it is not that of the snapshot; then it is still asked for.
        """
        invariant(item in self._asked, "only what was asked for is taken")
        match Kind(item.kind):
            case Kind.NAMESPACES:
                self._roots = check_namespaces(self._digest, self.base, data)
                for namespace, root in self._roots:
                    self._want_subtree(namespace, "", root)
            case Kind.SUBTREE:
                self._take_subtree(item, data)
            case Kind.RUN:
                self._take_run(item, data)
            case Kind.WINDOW:
                self._take_window(check_window(self._chain.suite, self.base, data))
            case Kind.ENTRIES:
                block = check_entries(self._digest, self._entries[item], data)
                self._state.put_entries(block)
            case Kind.HEAD:
                raise InvariantError("the head came before the plan")
        del self._asked[item]
        self._children.pop(item, None)
        self._entries.pop(item, None)
        self.taken += 1

    def finish(self) -> StateTip:
        """Make the state whole."""
        invariant(self.is_done, "a join ends when nothing is missing")
        genesis = GenesisHash(self._chain.genesis_hash)
        return self._state.finish(self.base, self._roots, genesis)

    def _want_subtree(self, namespace: bytes, place: str, child: Child) -> None:
        logs = self._state.logs_below(namespace, place)
        if logs is not None:
            self._logs += logs
            return
        item = Item(int(Kind.SUBTREE), namespace, place)
        self._children[item] = child
        self._ready.append(item)

    def _take_subtree(self, item: Item, data: bytes) -> None:
        found = check_subtree(self._digest, item.place, self._children[item], data)
        self._logs += self._state.put_subtree(item.name, item.place, found, self.base.height)
        for place, below in found.children:
            self._want_subtree(item.name, place, below)

    def _take_window(self, blocks: Sequence[WindowBlock]) -> None:
        for block in blocks:
            if not self._state.has_entries(block.height):
                item = Item(int(Kind.ENTRIES), index=block.height)
                self._entries[item] = block
                self._ready.append(item)

    def _next_run(self) -> Item | None:
        while True:
            for growing in self._growing.values():
                is_near = growing.asked < growing.installed + AHEAD_RUNS
                if growing.asked < runs_of(growing.found.head) and is_near:
                    growing.asked += 1
                    return Item(int(Kind.RUN), growing.found.log, index=growing.asked - 1)
            if not self._logs or len(self._growing) == AHEAD_RUNS:
                return None
            self._start_log(self._logs.popleft())

    def _start_log(self, found: FoundLog) -> None:
        tip = self._state.tip_of(found.log)
        count = 0 if tip is None else tip.frontier.count
        if count < found.head.count:
            runs = count // RUN_ENTRIES
            self._growing[found.log] = _Growing(found, tip, runs, runs)

    def _take_run(self, item: Item, data: bytes) -> None:
        growing = self._growing[item.name]
        growing.waiting[item.index] = check_run(self._digest, growing.found.head, item.index, data)
        while (run := growing.waiting.pop(growing.installed, None)) is not None:
            growing.tip = self._state.put_run(growing.found, growing.tip, *run)
            growing.installed += 1
        if growing.installed == runs_of(growing.found.head):
            del self._growing[item.name]
