"""The commands that talk to a node or verify what came from one, as a person runs them."""

import json
import socket

import pytest
from click.testing import CliRunner

import cli
from genesis.networks import write_genesis
from ledger.addresses import AddressKind
from node.keystore import Cost, new_secret, save_key
from tests.unit.rpc_methods.memory_chain import (
    ACCOUNT_SECRET,
    NODE_SECRET,
    MemoryNode,
    served,
    small_genesis,
)

RESOURCES = [{"resourceType": "Patient", "id": f"p{number}", "note": "患者"} for number in range(3)]


@pytest.fixture
def place(tmp_path_factory):
    """A served chain with its genesis, an account key and a bundle of three records."""
    folder = tmp_path_factory.mktemp("commands")
    node = MemoryNode()
    write_genesis(folder / "genesis.json", node.genesis)
    write_genesis(folder / "other.json", small_genesis("another"))
    save_key(folder / "account.json", ACCOUNT_SECRET, AddressKind.TERMINAL, None)
    save_key(folder / "node.json", NODE_SECRET, AddressKind.NODE, None)
    entries = [{"resource": resource} for resource in RESOURCES]
    bundle = json.dumps({"resourceType": "Bundle", "entry": entries}, ensure_ascii=False)
    (folder / "bundle.json").write_text(bundle, encoding="utf-8")
    with served(node) as url:
        yield node, folder, url


def run(*arguments):
    return CliRunner().invoke(cli.main, ["--lang", "en", *map(str, arguments)])


@pytest.fixture
def registered(place):
    node, folder, url = place
    result = run(
        "register", folder / "bundle.json", "--rpc", url, "--key", folder / "account.json",
        "--out", folder / "out", "--genesis", folder / "genesis.json", "--json",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    node.decide()
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    proofs = []
    for name in lines[-1]["transactions"]:
        proof = run("tx", "proof", name, "--rpc", url, "--json")
        path = folder / f"{name}.proof.json"
        path.write_bytes(proof.stdout_bytes)
        proofs.append((name, path))
    return lines, proofs


def test_registering_prints_json_lines_and_ends_with_the_ids(place, registered):
    _, folder, _ = place
    lines, _ = registered
    assert lines[-2] == {"registered": 3, "total": 3, "height": 1}
    names = lines[-1]["transactions"]
    assert len(names) == 3
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        f"{name}.{end}" for name in names for end in ("record", "opening.json")
    )


def test_a_registered_record_verifies_offline_with_everything_given(place, registered):
    _, folder, _ = place
    for name, path in registered[1]:
        result = run(
            "proof", "verify", path, "--genesis", folder / "genesis.json",
            "--record", folder / "out" / f"{name}.record",
            "--opening", folder / "out" / f"{name}.opening.json", "--json",
        )  # fmt: skip
        assert result.exit_code == 0, result.stderr
        verdict = json.loads(result.stdout)
        assert (verdict["operation"], verdict["height"]) == (name, 1)
        assert verdict["opened"] == ["head", "middle", "record", "remarks", "tail"]
        assert verdict["record_checked"] is True
        assert verdict["organisation"] == "示范市第一人民医院"


def test_the_summary_for_people_names_who_when_and_the_anchor(place, registered):
    node, folder, _ = place
    result = run("proof", "verify", registered[1][0][1], "--genesis", folder / "genesis.json")
    assert result.exit_code == 0
    assert result.stdout.startswith("HOLDS: ")
    for fact in ("示范市第一人民医院", "height 1", node.chain.genesis_hash.hex(), "checked: proof"):
        assert fact in result.stdout


@pytest.mark.parametrize("which", ["proof", "record", "opening"])
def test_any_changed_file_makes_the_verdict_no(place, registered, tmp_path, which):
    _, folder, _ = place
    name, proof = registered[1][0]
    files = {
        "proof": proof,
        "record": folder / "out" / f"{name}.record",
        "opening": folder / "out" / f"{name}.opening.json",
    }
    original = files[which].read_bytes()
    files[which] = tmp_path / which
    for place_of_change in range(5, len(original) - 1, max(1, len(original) // 12)):
        changed = bytearray(original)
        changed[place_of_change] ^= 1
        files[which].write_bytes(changed)
        result = run(
            "proof", "verify", files["proof"], "--genesis", folder / "genesis.json",
            "--record", files["record"], "--opening", files["opening"], "--json",
        )  # fmt: skip
        assert result.exit_code == 1, place_of_change
        assert result.stdout == ""
        assert json.loads(result.stderr)["error"]["kind"].startswith(
            ("bad_", "non_", "wrong_", "malf", "unsup")
        )


def test_a_proof_holds_for_its_own_chain_alone(place, registered):
    _, folder, _ = place
    result = run("proof", "verify", registered[1][0][1], "--genesis", folder / "other.json")
    assert result.exit_code == 1
    assert "wrong_chain" in result.stderr


def test_a_record_without_an_opening_is_a_usage_error(place, registered):
    _, folder, _ = place
    arguments = ("--genesis", folder / "genesis.json", "--record", folder / "bundle.json")
    result = run("proof", "verify", registered[1][0][1], *arguments)
    assert result.exit_code == 2
    assert "--opening" in result.stderr


def test_a_missing_proof_file_is_named(place):
    _, folder, _ = place
    result = run("proof", "verify", folder / "no.json", "--genesis", folder / "genesis.json")
    assert result.exit_code == 4
    assert "no.json: does not exist" in result.stderr


def test_a_transaction_is_shown_with_its_outputs(place, registered):
    _, _, url = place
    name = registered[1][0][0]
    plain = run("tx", "get", name, "--rpc", url)
    document = json.loads(run("tx", "get", name, "--rpc", url, "--json").stdout)
    assert "data_index.register: OK" in plain.stdout
    assert document["transaction"]["id"] == name
    assert document["receipt"]["outputs"] == {"sequence": 0}


def test_the_proof_for_people_says_how_to_save_and_verify_it(place, registered):
    _, _, url = place
    result = run("tx", "proof", registered[1][0][0], "--rpc", url)
    assert "kanglian proof verify" in result.stdout


def test_an_unknown_transaction_is_a_no_with_its_kind(place):
    _, _, url = place
    result = run("tx", "get", "ab" * 32, "--rpc", url, "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert json.loads(result.stderr)["error"]["kind"] == "not_found"


def test_info_shows_the_chain_in_both_languages(place):
    node, _, url = place
    english = run("info", "--rpc", url)
    chinese = run("--lang", "zh", "info", "--rpc", url)
    document = json.loads(run("info", "--rpc", url, "--json").stdout)
    assert "height " in english.stdout
    assert "高度 " in chinese.stdout
    assert document["genesis_hash"] == node.chain.genesis_hash.hex()


def test_a_node_that_is_not_there_ends_with_3():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = run("info", "--rpc", url, "--json")
    assert result.exit_code == 3
    assert json.loads(result.stderr)["error"]["kind"] == "unavailable"


def register(place, *extra, key="account.json", file="bundle.json"):
    _, folder, url = place
    return run("register", folder / file, "--rpc", url, "--key", folder / key, *extra)


def test_an_envelope_registers_as_well_and_warns_that_no_opening_is_kept(place):
    result = register(place, "--envelope", 2)
    assert result.exit_code == 0
    assert "without --out" in result.stderr
    assert "3 resources registered" in result.stderr
    assert result.stdout == ""


def test_a_refusal_on_chain_ends_with_1(place):
    result = register(place, "--level", 9)
    assert result.exit_code == 1
    assert "UNKNOWN_NAMESPACE" in result.stderr


def test_another_chain_than_that_of_the_genesis_is_refused(place):
    _, folder, _ = place
    result = register(place, "--genesis", folder / "other.json")
    assert result.exit_code == 1
    assert "wrong_chain" in result.stderr


def test_the_key_of_a_node_registers_nothing(place):
    result = register(place, key="node.json")
    assert result.exit_code == 1
    assert "terminal key" in result.stderr


def test_a_key_that_is_not_on_the_allow_list_is_told_so(place):
    _, folder, _ = place
    save_key(folder / "stranger.json", new_secret(), AddressKind.TERMINAL, None)
    result = register(place, key="stranger.json")
    assert result.exit_code == 1
    assert "unknown_account" in result.stderr


def test_a_wrong_passphrase_names_the_file_and_what_to_do(place, monkeypatch):
    _, folder, _ = place
    cheap = Cost(1, 8 * 1024)
    path = folder / "sealed.json"
    if not path.exists():
        save_key(path, ACCOUNT_SECRET, AddressKind.TERMINAL, "right", cost=cheap)
    monkeypatch.setenv("KANGLIAN_PASSPHRASE", "wrong")
    wrong = register(place, key="sealed.json")
    monkeypatch.setenv("KANGLIAN_PASSPHRASE", "right")
    right = register(place, key="sealed.json")
    monkeypatch.delenv("KANGLIAN_PASSPHRASE")
    none = register(place, key="sealed.json")
    assert (wrong.exit_code, right.exit_code, none.exit_code) == (4, 0, 4)
    assert "sealed.json: the passphrase does not open it; try again" in wrong.stderr
    assert "name a passphrase file" in none.stderr


def test_an_unsound_record_is_named_and_nothing_is_registered(place):
    node, folder, _ = place
    (folder / "broken.json").write_text('{"resourceType": "Patient",')
    before = node.info().transactions
    result = register(place, file="broken.json")
    assert result.exit_code == 1
    assert "broken.json" in result.stderr
    assert node.info().transactions == before


def test_a_path_that_does_not_exist_is_named(place):
    result = register(place, file="nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
