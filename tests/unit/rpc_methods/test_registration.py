"""Registration over a chain in memory, with a line that fails as lines do."""

import json
import stat
from dataclasses import replace

import pytest

from ledger.data_index import parse_opening, verify_opening
from ledger.errors import Reason, Rejected, UnavailableError
from ledger.proof import verify_registration
from rpc.client import RpcFailure
from rpc.registration import PATIENCE_MS, Progress, Registrar, Settings, organisation_secret
from tests.unit.rpc_methods.memory_chain import TIME, MemoryNode, account_signer_of
from tests.unit.rpc_methods.test_methods import ask, text


class Line:
    """A sender over a node; `faults` are raised before, or after, a call arrives."""

    def __init__(self, node, faults=()):
        self.node = node
        self.faults = list(faults)
        self.calls = []

    def send_transactions(self, wires, wait, timeout_ms):
        self.calls.append((len(wires), wait))
        fault = self.faults.pop(0) if self.faults else None
        if fault == "lost request":
            raise UnavailableError("connection refused")
        params = {"transactions": [text(wire) for wire in wires], "wait": wait, "timeout_ms": 0}
        answer = ask(self.node, "send_transactions", params)["transactions"]
        if fault == "lost answer":
            raise UnavailableError("connection reset")
        if fault is not None:
            return [{"error": {"kind": fault, "message": "later"}} for _ in wires]
        return answer


def bundle(*identifiers):
    entries = [{"resource": {"resourceType": "Patient", "id": name}} for name in identifiers]
    return json.dumps({"resourceType": "Bundle", "entry": entries}, indent=1).encode()


@pytest.fixture
def files(tmp_path):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_bytes(bundle("p1", "p2", "p3"))
    second.write_bytes(b'  {"resourceType": "Observation", "id": "o1"}  ')
    return [first, second]


def registrar(line, settings=Settings(), pauses=None):  # noqa: B008 - a frozen value
    signer = account_signer_of(line.node.genesis)
    slept = [] if pauses is None else pauses
    return Registrar(line, signer, settings, lambda: TIME, sleep=slept.append)


def nothing(_):
    return None


@pytest.mark.parametrize("envelope", [0, 1, 2, 500])
def test_every_resource_gets_an_id_of_its_own_in_the_order_of_the_input(files, envelope):
    node = MemoryNode()

    done = registrar(Line(node), Settings(envelope=envelope)).run(files, nothing)

    assert [one.identifier for one in done] == ["p1", "p2", "p3", "o1"]
    assert [one.status for one in done] == ["OK"] * 4
    found = [ask(node, "get_transaction", {"id": one.id}) for one in done]
    assert [view["block_height"] for view in found] == [one.block_height for one in done]
    assert all(view["receipt"]["status"] == "OK" for view in found)


@pytest.mark.parametrize("envelope", [0, 500])
def test_record_and_opening_verify_against_the_proof(files, envelope, tmp_path):
    node = MemoryNode()
    out = tmp_path / "out"
    done = registrar(Line(node), Settings(envelope=envelope, out=out)).run(files, nothing)
    node.decide()

    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert len(list(out.iterdir())) == 8
    for one in done:
        opening_file, record_file = out / f"{one.id}.opening.json", out / f"{one.id}.record"
        assert stat.S_IMODE(opening_file.stat().st_mode) == 0o600
        verdict = verify_registration(node.made_proof(bytes.fromhex(one.id)), node.genesis)
        opening = parse_opening(opening_file.read_bytes())
        record = record_file.read_bytes()
        arguments = (verdict.registration, verdict.operation, verdict.account, node.chain.suite)
        verify_opening(opening, *arguments, record)
        with pytest.raises(Rejected):
            verify_opening(opening, *arguments, record + b" ")
    assert (out / f"{done[3].id}.record").read_bytes() == files[1].read_bytes().strip()


def test_the_same_object_registered_again_extends_its_history(files):
    node = MemoryNode()
    registrar(Line(node)).run(files, nothing)
    done = registrar(Line(node)).run(files, nothing)
    view = ask(node, "get_transaction", {"id": done[0].id})
    arguments = view["transaction"]["operations"][0]["arguments"]
    query = {
        "organisation": "demo_hospital",
        "object": arguments["object"],
        "after": -1,
        "limit": 10,
    }
    params = {"module": "emr", "level": 0, "contract": "data_index", "method": "history"}
    history = ask(node, "call", {**params, "arguments": query})["result"]
    assert [item["sequence"] for item in history["items"]] == [0, 4]


@pytest.mark.parametrize(
    "faults",
    [
        ["lost request"],
        ["lost answer"],
        ["pool_full", "sender_limit", "unavailable"],
        [None, "lost request"],
        [None, "lost answer", "pool_full"],
    ],
)
def test_a_failing_line_is_asked_again_and_nothing_is_registered_twice(files, faults):
    node = MemoryNode()
    pauses = []

    done = registrar(Line(node, faults), pauses=pauses).run(files, nothing)

    assert [one.status for one in done] == ["OK"] * 4
    assert node.info().transactions == 4
    assert pauses
    assert pauses == sorted(pauses)


def test_a_chain_that_stands_still_is_given_up_with_what_was_acknowledged(files):
    pauses = []
    line = Line(MemoryNode(), ["lost request"] * 10_000)
    with pytest.raises(UnavailableError, match="connection refused; 0 of 4 were acknowledged"):
        registrar(line, pauses=pauses).run(files, nothing)
    assert PATIENCE_MS <= sum(pauses) * 1000 <= PATIENCE_MS + 10_000


def test_a_transaction_that_stays_pending_counts_as_waiting(files):
    line = Line(MemoryNode(decides=False))
    with pytest.raises(UnavailableError, match="the chain decides nothing"):
        registrar(line).run(files, nothing)


def test_a_refusal_that_will_not_pass_ends_the_run_at_once(files):
    node = MemoryNode()
    line = Line(node)
    stranger = replace(account_signer_of(node.genesis, bytes(31) + b"\x44"))
    with pytest.raises(RpcFailure) as failure:
        Registrar(line, stranger, Settings(), lambda: TIME).run(files, nothing)
    assert failure.value.kind == "unknown_account"
    assert len(line.calls) == 1


def test_an_unsound_file_is_named_and_nothing_is_sent(files):
    line = Line(MemoryNode())
    files[1].write_bytes(b'{"id": "x"}')
    with pytest.raises(Rejected) as refusal:
        registrar(line).run(files, nothing)
    assert refusal.value.reason is Reason.MALFORMED
    assert str(files[1]) in refusal.value.detail
    assert line.calls == []


def test_progress_ends_with_everything_registered(files):
    seen = []
    registrar(Line(MemoryNode())).run(files, seen.append)
    assert seen[-1] == Progress(4, 4, 1)


def test_pseudonyms_depend_on_the_account_and_not_on_the_chain():
    one = account_signer_of(MemoryNode().genesis)
    other = replace(one, secret=bytes(31) + b"\x11")
    assert organisation_secret(one) != organisation_secret(other)
    assert organisation_secret(one) == organisation_secret(replace(one, account=bytes(32)))


@pytest.mark.parametrize("envelope", [-1, 501])
def test_an_envelope_of_impossible_size_is_refused(envelope):
    with pytest.raises(Rejected):
        registrar(Line(MemoryNode()), Settings(envelope=envelope))
