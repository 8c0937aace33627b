"""A real network proves everything it can to an auditor who has one file, Python and a library."""

import json

import msgspec
import pytest

from ledger.data_index import Supersession
from ledger.ids import TransactionId
from ledger.proofs.family import verify_document
from rpc.client import RpcFailure
from tests.e2e.checks import check_clean_logs
from tests.e2e.running import CLOCK, RealNetwork
from tests.unit.docs.auditor import Auditor

COLLECTION = {"module": "emr", "level": 0, "contract": "data_index"}


@pytest.fixture(scope="module")
def proved(tmp_path_factory):
    """Documents of every kind, each from another node, and the genesis that they hold under."""
    folder = tmp_path_factory.mktemp("family")
    with RealNetwork(folder / "network", 4) as network:
        network.connected(*network.names)
        first, second = network.register(1), network.register(2, "node1")
        with network.client() as client:
            wire = supersede(network, client, first["id"])
            done = client.send_transaction(wire, wait="commit")
            assert done["status"] == "OK"
            again = supersede(network, client, first["id"])
            failed = client.send_transaction(again, wait="commit")
            assert failed["status"] == "REVERTED"
            client.wait_height(failed["block_height"] + 1)
        height = network.agree()["height"]
        questions = {
            "state": ("get_state_proof", {**COLLECTION, "map": "superseded", "key": first["id"]}),
            "absence": (
                "get_state_proof",
                {**COLLECTION, "map": "superseded", "key": second["id"]},
            ),
            "log": ("get_log_proof", {**COLLECTION, "log": "index", "count": 2}),
            "completeness": (
                "get_completeness_proof",
                {"module": "emr", "level": 0, "start": 1, "stop": height - 1},
            ),
            "receipt": ("get_receipt_proof", {"id": failed["id"]}),
            "event": ("get_event_proof", {"id": first["id"]}),
            "transaction": ("get_transaction_proof", {"id": failed["id"]}),
            "header": ("get_header_proof", {"height": 1}),
            "history": ("get_history_proof", {"height": 2}),
        }
        documents = {}
        for number, (kind, (method, params)) in enumerate(questions.items()):
            with network.client(network.names[number % 4]) as client:
                documents[kind] = client.get_document(method, **params)
        with network.client() as client, pytest.raises(RpcFailure, match="no such event"):
            client.get_document("get_event_proof", id=failed["id"])
        check_clean_logs(network)
        return network.genesis, documents, failed


def supersede(network, client, index: str) -> bytes:
    arguments = Supersession(TransactionId(bytes.fromhex(index)), 0, 2, None)
    clock = client.signing_clock(CLOCK.now_ms)
    return network.signer.call("emr", 0, "data_index", "supersede", arguments, now_ms=clock())


def test_an_auditor_with_one_file_verifies_every_kind(proved, tmp_path):
    genesis, documents, failed = proved
    auditor = Auditor(tmp_path / "auditor")
    auditor.put("genesis", msgspec.json.encode(genesis))
    found = {}
    for kind, data in documents.items():
        auditor.put(kind, data)
        code, output = auditor.run(kind, "--genesis", "genesis", "--json")
        assert code == 0, f"{kind}: {output}"
        found[kind] = json.loads(output)
        assert verify_document(data, genesis)
    assert found["state"]["value"]
    assert found["absence"]["value"] is None
    assert (found["log"]["count"], len(found["log"]["entries"])) == (2, 2)
    assert found["completeness"]["transactions"] == 4
    assert found["receipt"]["operation"] == failed["id"]
    assert (found["receipt"]["status"], found["receipt"]["error"]) == (
        "REVERTED",
        "ALREADY_SUPERSEDED",
    )
    assert found["event"]["name"] == "registered"
    assert found["transaction"]["method"] == "supersede"
    assert found["header"]["height"] == 1
    assert found["history"]["size"] == 2


def test_a_changed_digit_anywhere_is_refused_by_the_auditor_and_by_us(proved, tmp_path):
    genesis, documents, _ = proved
    auditor = Auditor(tmp_path / "auditor")
    auditor.put("genesis", msgspec.json.encode(genesis))
    for kind, data in documents.items():
        place = data.index(b'"header":"') + 40
        digit = b"0" if data[place : place + 1] != b"0" else b"1"
        auditor.put(kind, data[:place] + digit + data[place + 1 :])
        code, output = auditor.run(kind, "--genesis", "genesis")
        assert (code, output.startswith("REFUSED: ")) == (1, True)
