"""Every kind of document: what a node makes verifies under genesis alone, and says what is true."""

import json

import pytest
import trio

from ledger.errors import Reason, Rejected, UnavailableError
from ledger.proofs.family import FORMATS, verify_document

from .chains import GENESIS
from .proof_world import INDEX, SUPERSEDED, ProofWorld

WORLD = ProofWorld()


def fact(name):
    return verify_document(WORLD[name], GENESIS)


@pytest.mark.parametrize("name", WORLD.documents)
def test_every_document_verifies(name):
    verify_document(WORLD[name], GENESIS)
    assert verify_document(WORLD[name] + b"\n", GENESIS)


def test_every_kind_but_the_registration_is_among_them():
    formats = {json.loads(text)["format"] for text in WORLD.documents.values()}
    assert formats == set(FORMATS) - {"kanglian-proof/1", "kanglian-proof/2"}


def test_a_value_its_absence_before_and_the_absence_of_everything():
    before, after = fact("state before"), fact("state after")
    assert (before.value, before.height) == (None, WORLD.superseded_height - 1)
    assert after.value == WORLD.chain.state.get(SUPERSEDED.prefix + SUPERSEDED.path + after.key)
    assert after.value is not None
    assert (after.collection, after.key) == (SUPERSEDED, WORLD.first.id)
    for name in ("state of nothing", "state of another key", "state of no namespace"):
        assert fact(name).value is None


def test_entries_stand_where_the_node_keeps_them():
    log = INDEX.prefix + INDEX.path
    for name in WORLD.documents:
        if not name.startswith("log ") or name == "log of nothing":
            continue
        found = fact(name)
        stored = [
            WORLD.chain.state.log_entry(log, found.first + at) for at in range(len(found.entries))
        ]
        assert list(found.entries) == stored
    assert fact("log 0-0").count == len(fact(f"log 0-{WORLD.entries}").entries) == WORLD.entries
    assert fact("log before").count < WORLD.entries
    assert (fact("log of nothing").count, fact("log of nothing").entries) == (0, ())


def test_completeness_shows_the_blocks_of_the_range_and_no_others():
    for name in WORLD.documents:
        if not name.startswith("completeness"):
            continue
        found = fact(name)
        prefix = found.module.encode() + b"\0" + bytes([found.level])
        heights = [int.from_bytes(item.key, "big") for item in WORLD.log_of_blocks(prefix)]
        expected = [height for height in heights if found.start <= height <= found.stop]
        assert [block.height for block in found.blocks] == expected
        for block in found.blocks:
            receipts = {
                (item.module, item.level): item.receipts
                for item in WORLD.chain.state.receipts(block.height)
            }
            assert block.receipts == len(receipts[found.module, found.level])
    assert fact("completeness of nothing").blocks == fact("completeness of nobody").blocks == ()


def test_receipts_of_any_status_events_and_transactions():
    statuses = [fact(f"receipt {name}").receipt.status for name in ("OK", "BAD_ARGUMENTS")]
    assert statuses == [0, 10]
    assert fact("receipt of nowhere").receipt.status == 4
    failed = fact("transaction BAD_ARGUMENTS")
    assert (failed.transaction.id, failed.operation) == (WORLD.many.id, 1)
    assert failed.receipt.height == WORLD.busy_height
    found = fact("event")
    assert (found.event.contract, found.event.name) == ("data_index", "registered")
    assert found.receipt.receipt == fact("receipt OK again").receipt


def test_a_receipt_and_completeness_name_the_same_root():
    receipt = fact("receipt OK")
    blocks = {
        block.height: block
        for name in WORLD.documents
        if name.startswith("completeness ") and fact(name).module == "emr"
        for block in fact(name).blocks
    }
    block = blocks[receipt.height]
    assert (block.receipts, block.results) == (receipt.count, receipt.results)


def test_old_headers_and_old_histories():
    for name in WORLD.documents:
        if name.startswith("header"):
            found = fact(name)
            block = trio.run(WORLD.queries.block, found.header.height)
            assert (found.hash, found.header) == (block.block_hash, block.header)
        if name.startswith("history"):
            found = fact(name)
            block = trio.run(WORLD.queries.block, found.size)
            assert found.root == block.header.history_root


def test_a_header_older_than_allowed_is_stale():
    found = fact("state after")
    time_ms = found.certified.header.time
    assert verify_document(WORLD["state after"], GENESIS, time_ms) == found
    with pytest.raises(Rejected) as refusal:
        verify_document(WORLD["state after"], GENESIS, time_ms + 1)
    assert refusal.value.reason is Reason.STALE


def test_what_the_node_cannot_prove_is_named():
    proofs, height = WORLD.proofs, WORLD.height
    with pytest.raises(UnavailableError, match=f"needs header {height + 1}"):
        trio.run(proofs.state, SUPERSEDED, bytes(32), height)
    with pytest.raises(UnavailableError, match="cannot be proved any more"):
        trio.run(proofs.state, SUPERSEDED, bytes(32), 1)
    with pytest.raises(Rejected, match="no such entry"):
        trio.run(proofs.log, INDEX, (0, 99), None)
    with pytest.raises(Rejected, match="at a time"):
        trio.run(proofs.log, INDEX, (0, 101), None)
    with pytest.raises(Rejected, match="unknown_namespace"):
        trio.run(proofs.completeness, "nowhere", 0, 1, 2, None)
    with pytest.raises(UnavailableError, match="no range"):
        trio.run(proofs.completeness, "emr", 0, 1, height, None)
    with pytest.raises(Rejected, match="no such event"):
        trio.run(proofs.event, WORLD.first.id, 1)
    with pytest.raises(UnavailableError, match="below height"):
        trio.run(proofs.header, height, None)
    assert trio.run(proofs.receipt, bytes(32)) is None
