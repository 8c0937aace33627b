"""Proof of completeness: all that the blocks of a range hold of a namespace, nothing left out.

What it decides: whether the entries of a namespace's log of blocks that a document shows are all of
heights `start` to `stop`. They stand at consecutive positions under a certified state root. An
entry below `start`, or the beginning of the log, shows that none is missing before; one above
`stop`, or the end of the log, that none is missing behind. There is one such neighbour at most on
either side, so that the document has one form.
A namespace that genesis does not name has no such log, though blocks may hold refused transactions
of it: there nothing is complete.
Source: docs/proofs.md section 6; docs/format.md section 8; docs/decisions/0036-proof-family.md.
"""

from collections.abc import Generator
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from msgspec import Meta

from ledger.codec import Document, Schema, encode
from ledger.data_index import Hex32
from ledger.errors import Reason, Rejected
from ledger.genesis import Genesis
from ledger.ids import Level, Name
from ledger.merkle import Digest
from ledger.proofs.anchor import Anchor, Certified, Trust, verify_anchor
from ledger.proofs.log import JsonSize, LogReader, Nodes, Run, read_run, verify_run
from ledger.proofs.positions import JsonCount
from ledger.proofs.state import StateWay, state_way
from ledger.state import LogEntry, namespace_prefix
from ledger.state_proof import prove_log_head
from ledger.state_root import BLOCKS_LOG, BlockEntry
from ledger.state_tree import StateView

COMPLETENESS_FORMAT = "kanglian-completeness/1"
COMPLETENESS_BLOCKS = 1_000
"""Blocks of one document: two and a half minutes under load, 250 KiB."""
STEP_BLOCKS = 32
"""Blocks between two looks at an event loop: half a millisecond to read them."""

_ENTRY = Schema(BlockEntry, max_bytes=128)


class BlockDocument(Document, frozen=True):
    """An entry of the log: what a block holds of the namespace, counts and sized roots."""

    batches: Hex32
    height: JsonSize
    receipts: JsonCount
    results: Hex32
    transactions: JsonCount


class BlocksDocument(Document, frozen=True):
    """Entries from position `first` on, of a log of `count` whose last one came at `height`."""

    blocks: Annotated[
        tuple[BlockDocument, ...], Meta(min_length=1, max_length=COMPLETENESS_BLOCKS + 2)
    ]
    count: JsonSize
    first: JsonCount
    height: JsonCount
    nodes: Nodes


class CompletenessDocument(Document, frozen=True):
    """The document; `run` is null when no block up to the anchor holds anything of the namespace.

    `start` and `stop` are the first and the last height of the range.
    """

    anchor: Anchor
    format: Literal["kanglian-completeness/1"]
    level: Level
    module: Name
    run: BlocksDocument | None
    start: JsonSize
    stop: JsonSize
    way: StateWay


@dataclass(frozen=True, slots=True)
class CompletenessFact:
    """Of heights `start` to `stop`, these blocks and no others hold something of the namespace."""

    certified: Certified
    module: str
    level: int
    start: int
    stop: int
    blocks: tuple[BlockEntry, ...]


def is_named(genesis: Genesis, module: str, level: int) -> bool:
    """Whether genesis names a namespace, so that its blocks are logged."""
    return any(item.name == module and level <= item.max_level for item in genesis.modules)


def prove_completeness(
    view: StateView,
    digest: Digest,
    module: str,
    level: int,
    reader: LogReader,
    start: int,
    stop: int,
    anchor: Anchor,
) -> Generator[None, None, CompletenessDocument]:
    """The document of the heights `start` to `stop`, in steps; the view is used in the first only.

    `stop` is not above the height of the view, and genesis names the namespace.
    Raises: Rejected(BAD_PROOF) for a range of more blocks than a document holds, which names the
        height up to which they fit.  Cost: as for a log, and O(log count) entries to find them.
    """
    prefix = namespace_prefix(module, level)
    tip = view.log_tip(prefix + BLOCKS_LOG)
    way = state_way(prove_log_head(view, digest, prefix, BLOCKS_LOG))
    run = None
    if tip is not None:
        count = tip.frontier.count
        inside = yield from _first_at(reader, count, start)
        behind = yield from _first_at(reader, count, stop + 1)
        if behind - inside > COMPLETENESS_BLOCKS:
            fits = _block_of(reader.entry(inside + COMPLETENESS_BLOCKS)).height - 1
            detail = f"a proof shows {COMPLETENESS_BLOCKS} blocks; ask up to the height that fits"
            raise Rejected(Reason.TOO_LARGE, detail, blocks=behind - inside, fits=fits)
        shown = max(0, inside - 1), min(behind + 1, count)
        head = tip.head(digest)
        found = yield from read_run(reader, digest, head, *shown, step_entries=STEP_BLOCKS)
        run = yield from _document_of(found)
    return CompletenessDocument(
        anchor=anchor,
        format=COMPLETENESS_FORMAT,
        level=level,
        module=module,
        run=run,
        start=start,
        stop=stop,
        way=way,
    )


def verify_completeness(document: CompletenessDocument, trust: Trust) -> CompletenessFact:
    """What a document proves.

    Raises: Rejected.  Cost: the anchor, a hash for each level of both trees, block and node.
    """
    certified = verify_anchor(document.anchor, trust)
    start, stop = document.start, document.stop
    if not start <= stop < certified.header.height:
        detail = "the range is empty or reaches beyond the state"
        raise Rejected(Reason.BAD_PROOF, detail, start=start, stop=stop)
    if not is_named(trust.genesis, document.module, document.level):
        detail = "genesis does not name the namespace, so its blocks are not counted"
        raise Rejected(Reason.UNKNOWN_NAMESPACE, detail)
    prefix = namespace_prefix(document.module, document.level)
    shown = () if document.run is None else tuple(map(_block, document.run.blocks))
    run = None if document.run is None else _run_of(document.run, shown)
    verify_run(document.way, run, certified, trust, prefix, BLOCKS_LOG)
    if run is not None:
        _check_neighbours(shown, run, start, stop)
    return CompletenessFact(
        certified=certified,
        module=document.module,
        level=document.level,
        start=start,
        stop=stop,
        blocks=tuple(item for item in shown if start <= item.height <= stop),
    )


def _check_neighbours(shown: tuple[BlockEntry, ...], run: Run, start: int, stop: int) -> None:
    """One entry stands on either side of the range, or the log begins or ends there."""
    heights = [item.height for item in shown]
    if any(low >= high for low, high in pairwise(heights)):
        raise Rejected(Reason.BAD_PROOF, "blocks of a log ascend")
    before = sum(height < start for height in heights)
    behind = sum(height > stop for height in heights)
    if before > 1 or (not before and run.first > 0):
        detail = "one block before the range, or the beginning of the log"
        raise Rejected(Reason.BAD_PROOF, detail, shown=before, first=run.first)
    if behind > 1 or (not behind and run.first + len(heights) < run.count):
        detail = "one block behind the range, or the end of the log"
        raise Rejected(Reason.BAD_PROOF, detail, shown=behind, count=run.count)


def _first_at(reader: LogReader, count: int, height: int) -> Generator[None, None, int]:
    """The position of the first block at a height or above, `count` when there is none."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if _block_of(reader.entry(middle)).height < height:
            low = middle + 1
        else:
            high = middle
        yield
    return low


def _block_of(entry: LogEntry) -> BlockEntry:
    return _ENTRY.decode(entry.data)


def _document_of(run: Run) -> Generator[None, None, BlocksDocument]:
    blocks: list[BlockDocument] = []
    for entry in run.entries:
        item = _block_of(entry)
        blocks.append(
            BlockDocument(
                batches=item.batches.hex(),
                height=item.height,
                receipts=item.receipts,
                results=item.results.hex(),
                transactions=item.transactions,
            )
        )
        if len(blocks) % STEP_BLOCKS == 0:
            yield
    return BlocksDocument(
        blocks=tuple(blocks),
        count=run.count,
        first=run.first,
        height=run.height,
        nodes=tuple(item.hex() for item in run.nodes),
    )


def _block(shown: BlockDocument) -> BlockEntry:
    batches, results = bytes.fromhex(shown.batches), bytes.fromhex(shown.results)
    return BlockEntry(shown.height, shown.transactions, batches, shown.receipts, results)


def _run_of(document: BlocksDocument, shown: tuple[BlockEntry, ...]) -> Run:
    entries = tuple(LogEntry(item.height.to_bytes(8, "big"), encode(item)) for item in shown)
    nodes = tuple(bytes.fromhex(item) for item in document.nodes)
    return Run(document.count, document.height, document.first, entries, nodes)
