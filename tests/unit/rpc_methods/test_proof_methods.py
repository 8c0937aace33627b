"""The methods and commands of proofs: what is asked for comes in its one form, and verifies."""

import json

import pytest
from click.testing import CliRunner

import cli
from genesis.networks import write_genesis
from ledger.proofs.family import verify_document
from tests.unit.node_core.chains import GENESIS
from tests.unit.node_core.proof_world import ProofWorld
from tests.unit.rpc_methods.memory_chain import MemoryNode, served
from tests.unit.rpc_methods.test_methods import ask

WORLD = ProofWorld()
TOP = WORLD.height
INDEX = {"module": "emr", "level": 0, "contract": "data_index", "log": "index"}
SUPERSEDED = {"module": "emr", "level": 0, "contract": "data_index", "map": "superseded"}
ID = WORLD.last.id.hex()


class ProvingNode(MemoryNode):
    """Proofs are of the world, all else is of an empty chain."""

    proofs = WORLD.proofs


NODE = ProvingNode()
QUESTIONS = {
    "get_state_proof": {**SUPERSEDED, "key": WORLD.first.id.hex()},
    "get_log_proof": {**INDEX, "first": 2, "count": 3},
    "get_completeness_proof": {"module": "emr", "level": 0, "start": 1, "stop": TOP - 1},
    "get_receipt_proof": {"id": ID},
    "get_event_proof": {"id": ID, "event": 0},
    "get_transaction_proof": {"id": ID},
    "get_header_proof": {"height": 2},
    "get_history_proof": {"height": 2, "under": TOP - 1},
}
COMMANDS = {
    "state": ("emr/0/data_index/superseded", WORLD.first.id.hex()),
    "log": ("emr/0/data_index/index", "--first", 2, "--count", 3),
    "completeness": ("emr/0", 1, TOP - 1),
    "receipt": (ID,),
    "event": (ID, 0),
    "transaction": (ID,),
    "header": (2,),
    "history": (2, "--under", TOP - 1),
}
WORDS = {
    "state": "the map data_index.superseded of emr level 0 had under key",
    "log": "3 of them shown, from position 2 on",
    "completeness": f"of heights 1 to {TOP - 1}, ",
    "receipt": "at index 0 of 1: OK",
    "event": "announced data_index.registered",
    "transaction": "operation 0 calls data_index.register in emr level 0",
    "header": "the chain decided the header",
    "history": "the history below height 2",
}


def canonical(value) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


@pytest.mark.parametrize("method", QUESTIONS)
def test_every_method_answers_with_a_document_that_verifies(method):
    document = canonical(ask(NODE, method, QUESTIONS[method]))
    assert verify_document(document, GENESIS)


def test_the_head_of_a_log_is_asked_for_without_a_count():
    document = ask(NODE, "get_log_proof", INDEX)
    assert (document["run"]["entries"], document["run"]["first"]) == ([], 0)


def test_what_is_not_there_is_refused_by_name():
    unknown = ask(NODE, "get_receipt_proof", {"id": "00" * 32})
    assert (unknown["code"], unknown["data"]["kind"]) == (-32040, "not_found")
    early = ask(NODE, "get_state_proof", {**QUESTIONS["get_state_proof"], "height": TOP})
    assert early["data"]["kind"] == "unavailable"
    assert f"needs header {TOP + 1}" in early["message"]
    strange = ask(
        NODE, "get_completeness_proof", {"module": "x", "level": 0, "start": 1, "stop": 1}
    )
    assert strange["data"]["kind"] == "unknown_namespace"
    many = ask(NODE, "get_log_proof", {**INDEX, "count": 101})
    assert many["data"]["kind"] == "invalid_params"


@pytest.fixture(scope="module")
def door(tmp_path_factory):
    folder = tmp_path_factory.mktemp("proofs")
    write_genesis(folder / "genesis.json", GENESIS)
    with served(NODE) as url:
        yield folder, url


def run(*arguments):
    return CliRunner().invoke(cli.main, ["--lang", "en", *map(str, arguments)])


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_command_gets_a_proof_that_the_other_command_verifies_in_words(door, kind):
    folder, url = door
    path = folder / f"{kind}.json"
    got = run("proof", "get", kind, *COMMANDS[kind], "--rpc", url, "--out", path)
    assert got.exit_code == 0, got.output
    assert str(path) in got.stdout
    alone = run("proof", "get", kind, *COMMANDS[kind], "--rpc", url, "--json")
    assert alone.stdout_bytes + b"\n" == path.read_bytes()
    verified = run("proof", "verify", path, "--genesis", folder / "genesis.json")
    assert verified.exit_code == 0, verified.output
    assert verified.stdout.startswith("HOLDS: ")
    assert WORDS[kind] in verified.stdout
    view = json.loads(
        run("proof", "verify", path, "--genesis", folder / "genesis.json", "--json").stdout
    )
    assert view["header_height"] in {
        TOP,
        TOP - 1,
        TOP - 2,
        WORLD.chain.state.locate(WORLD.last.id).height + 1,
    }
    assert len(view["anchor"]) == 64


def test_a_changed_file_is_refused_and_so_is_an_old_header(door):
    folder, url = door
    path, genesis = folder / "own.json", folder / "genesis.json"
    run("proof", "get", "state", *COMMANDS["state"], "--rpc", url, "--out", path)
    old = run("proof", "verify", path, "--genesis", genesis, "--max-age", 60)
    assert old.exit_code == 1
    assert "stale" in old.stderr
    path.write_bytes(path.read_bytes().replace(b'"value":"', b'"value":"00'))
    changed = run("proof", "verify", path, "--genesis", genesis)
    assert changed.exit_code == 1
    assert "bad_proof" in changed.stderr


def test_an_opening_belongs_to_a_registration_alone(door):
    folder, url = door
    path, genesis = folder / "other.json", folder / "genesis.json"
    run("proof", "get", "receipt", ID, "--rpc", url, "--out", path)
    refused = run("proof", "verify", path, "--genesis", genesis, "--opening", path)
    assert (refused.exit_code, "bad_opening" in refused.stderr) == (1, True)


def test_a_collection_of_another_form_is_a_wrong_call(door):
    _, url = door
    for written in ("emr", "emr/0/data_index", "emr/x/data_index/superseded"):
        assert run("proof", "get", "state", written, "00", "--rpc", url).exit_code == 2
