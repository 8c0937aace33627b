"""What a node may answer to a light client without wasting its memory or its time."""

import base64

import pytest

from ledger import limits
from ledger.errors import Reason, Rejected
from rpc.failure import RpcFailure
from rpc.light import source as sources
from rpc.light.source import Source, patiently
from tests.unit.rpc_light.test_follow import node


class Teller:
    """Answers what it is told to, over and over."""

    url = "http://a:1"

    def __init__(self, answer) -> None:
        self.answer = answer
        self.asked = 0

    def ask(self, _method, /, **_params):
        self.asked += 1
        if self.asked > 3_000:
            raise AssertionError("it is asked without end")
        return self.answer


def refusal(act) -> Rejected:
    with pytest.raises(Rejected) as caught:
        act()
    return caught.value


def test_batches_end_at_the_size_of_a_block_and_by_their_count():
    wire = base64.b64encode(bytes(limits.BATCH_BYTES)).decode()
    page = {"height": 9, "first": 0, "count": 256, "batches": [wire]}
    assert refusal(lambda: Source(Teller(page)).batches(1)).reason is Reason.TOO_LARGE
    for changes in ({"batches": []}, {"count": 0, "batches": [wire]}, {"count": 257}):
        assert refusal(lambda it=changes: Source(Teller({**page, **it})).batches(1)).reason is (
            Reason.MALFORMED
        )
    assert Source(Teller({**page, "count": 0, "batches": []})).batches(1) == []


def test_receipts_end_at_their_bytes_and_by_their_count(monkeypatch):
    monkeypatch.setattr(sources, "RECEIPTS_BYTES", 1_000)
    share = {"module": "emr", "level": 0, "count": 10**9}
    page = {"height": 9, "first": 0, "namespaces": [share], "receipts": ["00" * 100]}
    assert refusal(lambda: Source(Teller(page)).receipts(1)).reason is Reason.TOO_LARGE
    for changes in ({"receipts": []}, {"namespaces": []}):
        assert refusal(lambda it=changes: Source(Teller({**page, **it})).receipts(1)).reason is (
            Reason.MALFORMED
        )
    assert Source(Teller({**page, "namespaces": [], "receipts": []})).receipts(1) == {}


def test_headers_are_those_that_were_asked_for():
    chain = node()
    first = chain.get_headers(3, 2)
    assert len(Source(Teller(first)).headers(3, 64)) == 2
    for asked in ((4, 2), (3, 1), (2, 3)):
        found = refusal(lambda asked=asked: Source(Teller(first)).headers(*asked))
        assert found.reason is Reason.MALFORMED
        assert "http://a:1 answered get_headers in another form" in str(found)
    none = {**first, "light_blocks": []}
    assert refusal(lambda: Source(Teller(none)).headers(3, 2)).reason is Reason.MALFORMED


def test_changes_ascend_and_change_something():
    page = node().get_validator_changes(0)
    assert len(Source(Teller(page)).changes(0)[0]) == 3
    assert refusal(lambda: Source(Teller(page)).changes(4)).reason is Reason.MALFORMED
    twice = {**page, "light_blocks": page["light_blocks"][:1] * 2}
    idle = {**page, "light_blocks": [node().shown(6)]}
    endless = {**page, "light_blocks": [], "more": True}
    for wrong in (twice, idle, endless):
        assert refusal(lambda it=wrong: Source(Teller(it)).changes(0)).reason is Reason.MALFORMED


def test_a_node_that_is_never_ready_is_left_after_a_while(monkeypatch):
    monkeypatch.setattr(sources, "PATIENCE_PAUSE_MS", 0)
    asked = []

    def ask():
        asked.append(1)
        raise RpcFailure("unavailable", "later", {})

    with pytest.raises(RpcFailure):
        patiently(ask)
    assert len(asked) == sources.PATIENCE_TRIES + 1
