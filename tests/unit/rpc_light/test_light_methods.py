"""What a node answers to clients that keep no blocks: whole, in order, bounded."""

import base64

import pytest
import trio

from ledger.batch import parse_batch
from ledger.block import HEADER, block_hash
from ledger.light.history import (
    HISTORY_EXTENSION,
    OLD_HEADER,
    verify_extension,
    verify_old_header,
)
from ledger.light.trust import LIGHT_BLOCK, Terms, follow, skip, trust_genesis
from ledger.validators import Validator, ValidatorSet
from node import limits
from tests.unit.ledger.worlds import SUITE
from tests.unit.node_core.chains import CHAIN, GENESIS, TIME
from tests.unit.rpc_light.local_node import LocalNode
from tests.unit.rpc_light.worlds import World
from tests.unit.rpc_methods.test_methods import ask

WORLD = World()
NODE = LocalNode(WORLD.local)
LAST = NODE.height
TERMS = Terms(trust_period_ms=10**9, lag_ms=60_000, ahead_ms=500)
NOW = TIME + 60_000


def blocks(answer):
    return [LIGHT_BLOCK.decode(bytes.fromhex(item)) for item in answer["light_blocks"]]


def followed(height):
    trusted = trust_genesis(GENESIS, NOW)
    for block in blocks(ask(NODE, "get_headers", {"first": 1, "count": height})):
        trusted = follow(trusted, block, CHAIN, TERMS, NOW)
    return trusted


def test_headers_come_in_order_and_lead_from_genesis_to_the_tip():
    answer = ask(NODE, "get_headers", {"first": 1})
    assert (answer["height"], answer["first"], len(answer["light_blocks"])) == (LAST, 1, LAST)
    assert followed(LAST).height == LAST
    assert (
        ask(NODE, "get_headers", {"first": LAST - 1})["light_blocks"] == answer["light_blocks"][-2:]
    )
    one = ask(NODE, "get_headers", {"first": 3, "count": 1})["light_blocks"]
    assert one == answer["light_blocks"][2:3]


def test_changes_are_the_headers_that_commit_to_other_validators_and_skipping_follows_them():
    answer = ask(NODE, "get_validator_changes", {"after": 0})
    found = blocks(answer)
    heights = [HEADER.decode(block.header).height for block in found]
    assert heights == [WORLD.joined - 1, WORLD.left - 1]
    assert not answer["more"]
    (newest,) = blocks(ask(NODE, "get_headers", {"first": LAST}))
    reached = skip(trust_genesis(GENESIS, NOW), [*found, newest], CHAIN, TERMS, NOW)
    assert reached.hash == WORLD.local.tip.block_hash


def test_changes_after_a_height_leave_out_what_that_header_commits_to():
    first, second = WORLD.joined - 1, WORLD.left - 1
    for after, expected in ((first - 1, [first, second]), (first, [second]), (second, [])):
        answer = ask(NODE, "get_validator_changes", {"after": after})
        assert [HEADER.decode(block.header).height for block in blocks(answer)] == expected


def test_a_page_of_changes_says_whether_there_are_more():
    answer = ask(NODE, "get_validator_changes", {"after": 0, "count": 1})
    (first,) = blocks(answer)
    assert answer["more"]
    assert HEADER.decode(first.header).height == WORLD.joined - 1
    assert ask(NODE, "get_validator_changes", {"after": LAST})["light_blocks"] == []


def test_every_height_has_the_validators_that_its_header_commits_to():
    for block in blocks(ask(NODE, "get_headers", {"first": 1})):
        header = HEADER.decode(block.header)
        named = ask(NODE, "get_validators", {"height": header.height})["validators"]
        members = [Validator(bytes.fromhex(m["address"]), bytes.fromhex(m["key"])) for m in named]
        assert ValidatorSet(tuple(members)).hash(SUITE) == header.validators_hash
    after = ask(NODE, "get_validators", {"height": LAST + 1})["validators"]
    assert len(after) == len(WORLD.local.writer.validators.members)


def test_every_old_header_and_every_extension_verify_under_a_trusted_one():
    trusted = [None, *(followed(height) for height in range(1, LAST + 1))]
    for height in range(1, LAST):
        record = ask(NODE, "get_old_header", {"height": height, "under": LAST})["old_header"]
        known = verify_old_header(OLD_HEADER.decode(bytes.fromhex(record)), trusted[LAST], CHAIN)
        assert known.hash == trusted[height].hash
        answer = ask(NODE, "get_history_extension", {"old": height, "new": LAST})
        proof = HISTORY_EXTENSION.decode(bytes.fromhex(answer["extension"]))
        verify_extension(proof, trusted[height], trusted[LAST], CHAIN)


def test_batches_and_receipts_of_a_block_are_told_whole():
    height = WORLD.local.state.locate(WORLD.mixed.id).height
    answer = ask(NODE, "get_batches", {"height": height})
    wires = [base64.b64decode(item) for item in answer["batches"]]
    (batch,) = [parse_batch(wire, CHAIN) for wire in wires]
    assert answer["count"] == 1
    assert [item.id for item in batch.transactions] == [WORLD.mixed.id]
    receipts = ask(NODE, "get_receipts", {"height": height})
    (stored,) = WORLD.local.state.receipts(height)
    assert receipts["namespaces"] == [{"module": "emr", "level": 0, "count": 2}]
    assert receipts["receipts"] == [item.hex() for item in stored.receipts]
    rest = ask(NODE, "get_receipts", {"height": height, "first": 1})
    assert rest["receipts"] == receipts["receipts"][1:]
    assert ask(NODE, "get_batches", {"height": height, "first": 1})["batches"] == []


def test_a_page_ends_when_it_is_long_but_never_before_its_first_part(monkeypatch):
    monkeypatch.setattr(limits, "LIGHT_PAGE_BYTES", 10)
    assert len(ask(NODE, "get_headers", {"first": 1})["light_blocks"]) == 1
    changes = ask(NODE, "get_validator_changes", {"after": 0})
    assert (len(changes["light_blocks"]), changes["more"]) == (1, True)
    height = WORLD.local.state.locate(WORLD.mixed.id).height
    assert len(ask(NODE, "get_batches", {"height": height})["batches"]) == 1
    assert len(ask(NODE, "get_receipts", {"height": height})["receipts"]) == 1


@pytest.mark.parametrize(
    ("method", "params", "kind"),
    [
        ("get_headers", {"first": LAST + 1}, "not_found"),
        ("get_headers", {"first": 0}, "invalid_params"),
        ("get_headers", {"first": 1, "count": 65}, "invalid_params"),
        ("get_validator_changes", {"after": -1}, "invalid_params"),
        ("get_validators", {"height": LAST + 2}, "not_found"),
        ("get_old_header", {"height": LAST, "under": LAST}, "not_found"),
        ("get_old_header", {"height": 1, "under": LAST + 1}, "not_found"),
        ("get_old_header", {"height": 0, "under": LAST}, "invalid_params"),
        ("get_history_extension", {"old": LAST, "new": LAST - 1}, "not_found"),
        ("get_history_extension", {"old": 1, "new": LAST + 1}, "not_found"),
        ("get_batches", {"height": LAST + 1}, "not_found"),
        ("get_receipts", {"height": LAST + 1}, "not_found"),
        ("get_receipts", {"height": 1, "first": 20_001}, "invalid_params"),
    ],
)
def test_what_is_not_there_or_too_much_is_refused_by_name(method, params, kind):
    assert ask(NODE, method, params)["data"]["kind"] == kind


def test_pages_are_collected_in_steps():
    """At least one look at the loop for every 16 headers."""
    looks = 0

    class Count(trio.abc.Instrument):
        def before_task_step(self, task):
            nonlocal looks
            looks += 1

    async def main():
        return await NODE.light.headers(1, 64)

    found = trio.run(main, instruments=[Count()])
    assert len(found) == LAST > limits.SLICE_HEADERS
    assert looks > LAST // limits.SLICE_HEADERS
    assert block_hash(LIGHT_BLOCK.decode(found[-1]).header, SUITE) == WORLD.local.tip.block_hash
