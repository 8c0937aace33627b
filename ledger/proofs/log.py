"""Proof of a log: how many entries it has after a block, and which stand at given positions.

What it decides: whether a document leads from a run of entries to the state root of a certified
header. A run of no entries proves the head of the log alone: its count and root, hence that nothing
stands at the count or beyond. A log that was never written to is proved by its absence.
Source: docs/proofs.md section 5; docs/format.md section 8.
"""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol

from msgspec import Meta

from ledger.codec import Document, encode
from ledger.data_index import Hex32
from ledger.errors import Reason, Rejected
from ledger.history import NodeReader
from ledger.ids import Level, Name
from ledger.log_run import RUN_NODES, head_of_run, run_nodes
from ledger.merkle import Digest, root_of_entries, sized_root
from ledger.proofs.anchor import Anchor, Certified, Trust, verify_anchor
from ledger.proofs.positions import JSON_INT_MAX, JsonCount
from ledger.proofs.state import Collection, HexBytes, StateWay, state_proof, state_way
from ledger.state import LogEntry
from ledger.state_proof import prove_log_head, verify_log_head
from ledger.state_root import LogHead, log_leaves
from ledger.state_tree import StateView

LOG_FORMAT = "kanglian-log/1"
LOG_PROOF_ENTRIES = 100
"""A page, as for queries; 100 entries of 4 KiB are 800 KiB of hexadecimal."""

JsonSize = Annotated[int, Meta(ge=1, le=JSON_INT_MAX)]
Nodes = Annotated[tuple[Hex32, ...], Meta(max_length=RUN_NODES)]


class EntryDocument(Document, frozen=True):
    """One entry: its bytes, and the key under which it is found."""

    data: HexBytes
    key: HexBytes


class RunDocument(Document, frozen=True):
    """Entries from position `first` on, of a log of `count` whose last one came at `height`."""

    count: JsonSize
    entries: Annotated[tuple[EntryDocument, ...], Meta(max_length=LOG_PROOF_ENTRIES)]
    first: JsonCount
    height: JsonCount
    nodes: Nodes


class LogDocument(Document, frozen=True):
    """The document; `run` is null when the log has no entry."""

    anchor: Anchor
    contract: Name
    format: Literal["kanglian-log/1"]
    level: Level
    log: Name
    module: Name
    run: RunDocument | None
    way: StateWay


@dataclass(frozen=True, slots=True)
class LogFact:
    """After block `height` the log had so many entries, and these from position `first` on.

    `root` is the sized root over all entries, `last_height` that of the block of the last one.
    """

    certified: Certified
    height: int
    collection: Collection
    count: int
    last_height: int
    root: bytes
    first: int
    entries: tuple[LogEntry, ...]


class LogReader(NodeReader, Protocol):
    """One log as a store keeps it."""

    def entry(self, index: int, /) -> LogEntry:
        """The entry at a position below the count."""
        ...


@dataclass(frozen=True, slots=True)
class Run:
    """Verified or stored entries of a log of `count`, and the nodes beside them."""

    count: int
    height: int
    first: int
    entries: tuple[LogEntry, ...]
    nodes: tuple[bytes, ...]


def read_run(
    reader: LogReader, digest: Digest, head: LogHead, first: int, stop: int, step_entries: int = 1
) -> Generator[None, None, Run]:
    """The entries [first, stop) of a log of that head, in steps; none of them for its head alone.

    What a log holds below a count never changes, so later blocks do not disturb the steps. Each
    reads `step_entries`; one that stands among the appends of a full block takes a millisecond.
    """
    entries: list[LogEntry] = []
    for position in range(first, stop):
        entries.append(reader.entry(position))
        if len(entries) % step_entries == 0:
            yield
    nodes = yield from run_nodes(reader, digest, first, stop, head.count)
    return Run(head.count, head.height, first, tuple(entries), nodes)


def head_of(run: Run, digest: Digest) -> LogHead:
    """The head of the log that a run leads to.

    Raises: Rejected(BAD_PROOF).
    """
    leaves = log_leaves(digest, run.entries)
    head = head_of_run(digest, leaves, run.first, run.count, run.nodes)
    return LogHead(run.count, run.height, sized_root(digest, run.count, head))


def prove_log(
    view: StateView,
    digest: Digest,
    collection: Collection,
    reader: LogReader,
    positions: tuple[int, int],
    anchor: Anchor,
) -> Generator[None, None, LogDocument]:
    """The document of the entries [first, stop) of a log, in steps; for (0, 0) of its head.

    The view is used in the first step only.
    Raises: Rejected(BAD_PROOF) when the log had no such entries.
    """
    first, stop = positions
    tip = view.log_tip(collection.prefix + collection.path)
    count = 0 if tip is None else tip.frontier.count
    if stop > count:
        raise Rejected(Reason.BAD_PROOF, "the log has no such entry", last=stop - 1, count=count)
    way = state_way(prove_log_head(view, digest, collection.prefix, collection.path))
    run = None
    if tip is not None:
        found = yield from read_run(reader, digest, tip.head(digest), first, stop)
        run = RunDocument(
            count=found.count,
            entries=tuple(EntryDocument(item.data.hex(), item.key.hex()) for item in found.entries),
            first=first,
            height=found.height,
            nodes=tuple(item.hex() for item in found.nodes),
        )
    return LogDocument(
        anchor=anchor,
        contract=collection.contract,
        format=LOG_FORMAT,
        level=collection.level,
        log=collection.name,
        module=collection.module,
        run=run,
        way=way,
    )


def verify_run(
    way: StateWay, run: Run | None, certified: Certified, trust: Trust, prefix: bytes, path: bytes
) -> LogHead | None:
    """The head of a log, of which a run shows entries, under the state root of a certified header.

    Raises: Rejected.
    """
    digest = trust.chain.suite.digest
    value = None if run is None else encode(head_of(run, digest))
    proof = state_proof(way, value)
    return verify_log_head(proof, digest, certified.header.state_root, prefix, path)


def verify_log(document: LogDocument, trust: Trust) -> LogFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, a hash for each level of both trees, entry and node.
    """
    certified, digest = verify_anchor(document.anchor, trust), trust.chain.suite.digest
    collection = Collection(document.module, document.level, document.contract, document.log)
    run = None if document.run is None else _run_of(document.run)
    head = verify_run(document.way, run, certified, trust, collection.prefix, collection.path)
    if head is None or run is None:
        head, run = LogHead(0, 0, root_of_entries(digest, ())), Run(0, 0, 0, (), ())
    return LogFact(
        certified=certified,
        height=certified.header.height - 1,
        collection=collection,
        count=head.count,
        last_height=head.height,
        root=head.root,
        first=run.first,
        entries=run.entries,
    )


def _run_of(shown: RunDocument) -> Run:
    entries = tuple(
        LogEntry(bytes.fromhex(item.key), bytes.fromhex(item.data)) for item in shown.entries
    )
    nodes = tuple(bytes.fromhex(item) for item in shown.nodes)
    return Run(shown.count, shown.height, shown.first, entries, nodes)
