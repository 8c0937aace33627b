"""Completeness of a range: every range and every run that somebody might show for it."""

import msgspec
import pytest

from docs import kanglian_verify
from ledger.codec import encode
from ledger.errors import Reason, Rejected
from ledger.merkle import root_of_entries
from ledger.proofs import completeness
from ledger.proofs.anchor import Trust, make_anchor
from ledger.proofs.completeness import prove_completeness, verify_completeness
from ledger.proofs.family import document_json
from ledger.proofs.log import read_run
from ledger.state import LogEntry, LogWrite, WriteSet, namespace_prefix
from ledger.state_root import BLOCKS_LOG, BlockEntry
from ledger.state_tree import StateTree
from ledger.steps import finish
from tests.unit.ledger.memory_trees import MemoryTrees
from tests.unit.ledger.worlds import (
    CHAIN,
    GENESIS,
    SUITE,
    block_hash,
    make_certificate,
    make_header,
    secret,
)

digest = SUITE.digest
PREFIX = namespace_prefix("emr", 0)
LOG = PREFIX + BLOCKS_LOG
TRUST = Trust(GENESIS, CHAIN)
AUDITOR = kanglian_verify.read_genesis(msgspec.json.encode(GENESIS))
HEIGHTS = (2, 3, 7, 8, 12)
LAST = 14


def entry(height):
    root = root_of_entries(digest, [b"%d" % height])
    data = encode(BlockEntry(height, 1 + height % 3, root, 2 + height % 3, root))
    return LogEntry(height.to_bytes(8, "big"), data)


class Chain:
    """A namespace with transactions at these heights, up to the state of the last one."""

    def __init__(self, heights, last):
        self.store = MemoryTrees()
        self.tree = StateTree(digest, self.store)
        for position, height in enumerate(heights):
            self._write(height, WriteSet((), (LogWrite(LOG, position, (entry(height),)),)))
        changes = self._write(last, WriteSet((), ()))
        header = msgspec.structs.replace(
            make_header(last + 1, previous_hash=secret("before")), state_root=changes.state_root
        )
        data = encode(header)
        certificate = encode(make_certificate(last + 1, block_hash(data, SUITE)))
        self.anchor = make_anchor(data, certificate, ())
        self.view = self.tree.view(last)
        self.reader = self.store.log(LOG)

    def _write(self, height, writes):
        changes = self.tree.apply(height, writes)
        self.store.commit(height, writes, changes)
        return changes

    def steps(self, start, stop, module="emr", level=0):
        reader, anchor = self.reader, self.anchor
        return prove_completeness(self.view, digest, module, level, reader, start, stop, anchor)

    def prove(self, start, stop, **namespace):
        return finish(self.steps(start, stop, **namespace))


CHAIN_OF_FIVE = Chain(HEIGHTS, LAST)


def both(document):
    """The heights that both verifiers say are all, None when both refuse."""
    try:
        ours = [block.height for block in verify_completeness(document, TRUST).blocks]
    except Rejected:
        ours = None
    try:
        verdict = kanglian_verify.check_proof(document_json(document), AUDITOR)
        theirs = [block["height"] for block in verdict.facts["blocks"]]
    except kanglian_verify.Refused:
        theirs = None
    assert ours == theirs
    return ours


def test_every_range_shows_exactly_its_blocks():
    for start in range(1, LAST + 1):
        for stop in range(start, LAST + 1):
            found = both(CHAIN_OF_FIVE.prove(start, stop))
            assert found == [height for height in HEIGHTS if start <= height <= stop]


def runs():
    """Every run of neighbours that the log has, as a document shows it."""
    for first in range(len(HEIGHTS)):
        for stop in range(first + 1, len(HEIGHTS) + 1):
            head = CHAIN_OF_FIVE.view.log_tip(LOG).head(digest)
            run = finish(read_run(CHAIN_OF_FIVE.reader, digest, head, first, stop))
            yield finish(completeness._document_of(run))


def test_of_all_runs_of_the_log_one_alone_does_for_a_range():
    """A true run that leaves out a block of the range, or shows more than a neighbour, fails."""
    everything = list(runs())
    for start in range(1, LAST + 1):
        for stop in range(start, LAST + 1):
            made = CHAIN_OF_FIVE.prove(start, stop)
            accepted = [
                run
                for run in everything
                if both(msgspec.structs.replace(made, run=run)) is not None
            ]
            assert accepted == [made.run]
            assert both(msgspec.structs.replace(made, run=None)) is None


def test_a_run_of_entries_that_are_no_neighbours_fails():
    made = CHAIN_OF_FIVE.prove(1, LAST)
    for left_out in range(len(HEIGHTS)):
        blocks = made.run.blocks[:left_out] + made.run.blocks[left_out + 1 :]
        for count in (made.run.count, made.run.count - 1):
            run = msgspec.structs.replace(made.run, blocks=blocks, count=count)
            assert both(msgspec.structs.replace(made, run=run)) is None


def test_a_range_beyond_the_state_or_of_nothing_is_refused():
    made = CHAIN_OF_FIVE.prove(1, LAST)
    for start, stop in ((1, LAST + 1), (3, 2), (LAST + 1, LAST + 1)):
        assert both(msgspec.structs.replace(made, start=start, stop=stop)) is None


@pytest.mark.parametrize(("module", "level"), [("trial", 0), ("emr", 3)])
def test_a_namespace_without_a_block_has_none_and_one_without_a_name_no_proof(module, level):
    assert both(CHAIN_OF_FIVE.prove(1, LAST, module=module, level=level)) == []
    for strange in (("nowhere", 0), ("emr", 4), ("trial", 2)):
        document = CHAIN_OF_FIVE.prove(1, LAST, module=strange[0], level=strange[1])
        with pytest.raises(Rejected) as caught:
            verify_completeness(document, TRUST)
        assert caught.value.reason is Reason.UNKNOWN_NAMESPACE
        assert both(document) is None


def test_a_long_range_is_proved_in_pieces_and_in_small_steps():
    long = Chain(range(1, 2_400, 2), 2_500)
    with pytest.raises(Rejected) as caught:
        long.prove(10, 2_500)
    fits = caught.value.facts["fits"]
    first, rest = both(long.prove(10, fits)), both(long.prove(fits + 1, 2_500))
    assert first + rest == list(range(11, 2_400, 2))
    assert len(first) == completeness.COMPLETENESS_BLOCKS
    with pytest.raises(Rejected):
        long.prove(10, fits + 1)
    assert most_entries(long, 10, fits) <= completeness.STEP_BLOCKS


def most_entries(chain, start, stop):
    """The most entries that one step of a proof reads."""
    taken, most, read = [], 0, chain.reader.entry
    chain.reader.entry = lambda index, /: taken.append(index) or read(index)
    for _ in chain.steps(start, stop):
        most = max(most, len(taken))
        taken.clear()
    assert most > 0
    return most
