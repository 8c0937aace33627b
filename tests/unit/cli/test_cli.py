"""Commands that need no node: keys, authority, genesis, configuration, help."""

import json
import stat
import subprocess
import sys
from importlib.metadata import version

import click
import pytest
import trio
from click.testing import CliRunner

import cli
from genesis.authority import public_key_hash
from ledger.errors import InvariantError, Reason, Rejected, UnavailableError
from node.keystore import load_public
from rpc import console


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("KANGLIAN_PASSPHRASE", raising=False)

    def invoke(*arguments):
        return CliRunner().invoke(cli.main, ["--lang", "en", *map(str, arguments)])

    return invoke


def error_of(result):
    assert result.stdout == ""
    return json.loads(result.stderr)["error"]


def all_commands(command=cli.main, path=()):
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from all_commands(inner, (*path, name))
    else:
        yield path, command


@pytest.mark.parametrize(("path", "command"), list(all_commands()))
def test_every_command_takes_json_and_explains_itself(run, path, command):
    result = run(*path, "--help")
    assert result.exit_code == 0
    assert "--json" in result.stdout
    assert all(one.help for one in command.params if isinstance(one, click.Option))


def test_the_module_runs_as_the_command_does_and_speaks_the_language_of_the_locale():
    arguments = [sys.executable, "-m", "cli", "--help"]
    result = subprocess.run(
        arguments, capture_output=True, text=True, check=True, env={"LC_ALL": "zh_CN.UTF-8"}
    )
    assert "许可链" in result.stdout


def test_help_loads_no_heavy_module():
    code = (
        "import sys, cli; print([name for name in sys.modules "
        "if name in ('trio', 'coincurve', 'plyvel', 'cryptography', 'nacl', 'rich', 'msgspec')])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_the_version_is_that_of_the_distribution(run):
    assert run("--version").stdout == f"kanglian, version {version('kanglian')}\n"


def test_a_key_without_encryption_is_made_with_a_loud_notice(run, tmp_path):
    result = run("key", "new", "account.json", "--unencrypted", "--json")

    assert result.exit_code == 0
    assert "DEVELOPMENT KEY" in result.stderr
    view = json.loads(result.stdout)
    assert view["address"].startswith("kt1")
    assert view["address"] == load_public(tmp_path / "account.json").address
    assert stat.S_IMODE((tmp_path / "account.json").stat().st_mode) == 0o600
    assert json.loads(run("key", "show", "account.json", "--json").stdout) == view
    assert run("key", "address", "account.json").stdout == view["address"] + "\n"


def test_a_key_of_a_node_is_sealed_by_the_passphrase_of_a_file(run, tmp_path):
    (tmp_path / "pass").write_text("long and secret\n")
    (tmp_path / "pass").chmod(0o600)
    arguments = ("--kind", "node", "--passphrase-file", "pass")
    result = run("key", "new", "node.json", *arguments)
    assert result.exit_code == 0
    assert "kn1" in result.stdout
    assert "long and secret" not in (tmp_path / "node.json").read_text()
    assert "kind        node" in run("key", "show", "node.json").stdout


def test_without_any_passphrase_no_key_is_made(run, tmp_path):
    result = run("key", "new", "account.json", "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (4, "no_passphrase")
    assert not (tmp_path / "account.json").exists()


def test_a_passphrase_file_that_others_may_read_is_refused_with_the_command_that_helps(
    run, tmp_path
):
    (tmp_path / "pass").write_text("x")
    (tmp_path / "pass").chmod(0o644)
    result = run("key", "new", "account.json", "--passphrase-file", "pass")
    assert result.exit_code == 4
    assert "chmod 600" in result.stderr


def test_a_key_is_never_overwritten(run, tmp_path):
    run("key", "new", "account.json", "--unencrypted")
    before = (tmp_path / "account.json").read_bytes()
    result = run("key", "new", "account.json", "--unencrypted", "--json")
    assert (result.exit_code, error_of_last(result)["kind"]) == (4, "exists")
    assert (tmp_path / "account.json").read_bytes() == before


def error_of_last(result):
    return json.loads(result.stderr.splitlines()[-1])["error"]


def test_a_damaged_key_file_is_named(run, tmp_path):
    (tmp_path / "account.json").write_text("{")
    (tmp_path / "account.json").chmod(0o600)
    result = run("key", "show", "account.json", "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (4, "damaged")


def test_an_authority_issues_a_certificate_for_a_node(run, tmp_path):
    run("key", "new", "node.json", "--kind", "node", "--unencrypted")
    address = run("key", "address", "node.json").stdout.strip()
    made = run("ca", "init", "ca", "--name", "示范联盟", "--unencrypted", "--json")
    issued = run("ca", "issue", address, "--authority", "ca", "--out", "node", "--json")
    again = run("ca", "issue", address, "--authority", "ca", "--out", "node", "--json")

    assert (made.exit_code, issued.exit_code) == (0, 0)
    assert len(json.loads(made.stdout)["fingerprint"]) == 64
    assert json.loads(issued.stdout)["address"] == address
    assert stat.S_IMODE((tmp_path / "node/tls.key").stat().st_mode) == 0o600
    assert (again.exit_code, error_of(again)["kind"]) == (4, "exists")


def test_a_sealed_authority_asks_for_its_passphrase(run, monkeypatch):
    monkeypatch.setenv("KANGLIAN_PASSPHRASE", "right")
    run("ca", "init", "ca")
    run("key", "new", "node.json", "--kind", "node", "--unencrypted")
    address = run("key", "address", "node.json").stdout.strip()
    monkeypatch.setenv("KANGLIAN_PASSPHRASE", "wrong")
    wrong = run("ca", "issue", address, "--authority", "ca", "--out", "node", "--json")
    monkeypatch.setenv("KANGLIAN_PASSPHRASE", "right")
    right = run("ca", "issue", address, "--authority", "ca", "--out", "node")
    assert (wrong.exit_code, error_of(wrong)["kind"]) == (4, "wrong_passphrase")
    assert right.exit_code == 0


def test_a_mistyped_address_gets_no_certificate(run):
    run("ca", "init", "ca", "--unencrypted")
    result = run("ca", "issue", "kn1x", "--authority", "ca", "--out", "node", "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (1, "bad_address")


def test_a_genesis_is_built_from_a_description(run, tmp_path):
    run("ca", "init", "ca", "--unencrypted")
    run("key", "new", "node.json", "--kind", "node", "--unencrypted")
    key = json.loads(run("key", "show", "node.json", "--json").stdout)["public_key"]
    (tmp_path / "consortium.toml").write_text(
        'chain_name = "small"\nauthority_certificate = "ca/authority.crt"\n'
        'organisations = [{id = "one", name = "One"}]\n'
        f'nodes = [{{name = "node0", key = "{key}", organisation = "one"}}]\n'
        'modules = [{name = "system", max_level = 0, contracts = ["accounts"]}]\n'
    )

    result = run("genesis", "build", "consortium.toml", "--out", "genesis.json", "--json")

    assert result.exit_code == 0
    view = json.loads(result.stdout)
    assert (view["nodes"], view["accounts"], len(view["genesis_hash"])) == (1, 0, 64)
    (tmp_path / "consortium.toml").write_text("chain_name = 3")
    wrong = run("genesis", "build", "consortium.toml", "--out", "other.json", "--json")
    assert (wrong.exit_code, error_of(wrong)["kind"]) == (4, "bad_genesis")


def test_a_node_without_its_configuration_says_what_to_do(run):
    result = run("node", "run", "--config", "absent.toml", "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (4, "config")
    assert "kanglian devnet up" in error_of(result)["message"]


def test_a_network_of_three_nodes_is_refused_before_anything_is_written(run, tmp_path):
    result = run("devnet", "up", "net", "--nodes", 3, "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (4, "bad_genesis")
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


@pytest.mark.parametrize("command", ["status", "down"])
def test_a_folder_without_a_network_ends_with_3(run, command):
    result = run("devnet", command, "nowhere", "--json")
    assert (result.exit_code, error_of(result)["kind"]) == (3, "unavailable")


@pytest.mark.parametrize("arguments", [("devnet", "up"), ("info",), ("no",), ("tx", "get", "x")])
def test_wrong_usage_ends_with_2(run, arguments):
    assert run(*arguments).exit_code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnavailableError("no"), 3),
        (ExceptionGroup("nursery", [ExceptionGroup("inner", [UnavailableError("no")])]), 3),
        (InvariantError("broken"), 70),
        (Rejected(Reason.MALFORMED), 1),
    ],
)
def test_an_error_of_ours_becomes_an_exit_code_even_inside_groups(run, monkeypatch, error, code):
    def fail(*_):
        raise error

    monkeypatch.setattr(trio, "run", fail)
    monkeypatch.setattr("node.config.load_config", lambda *_: Fields())
    assert run("node", "run", "--config", "node.toml", "--json").exit_code == code


class Fields:
    """A configuration as far as the command looks at it."""

    @property
    def node(self):
        return self

    key_file = passphrase_file = None


def test_a_group_that_holds_a_bug_shows_itself():
    group = ExceptionGroup("nursery", [UnavailableError("no"), KeyError("bug")])
    assert console.error_in(group) is None
    assert console.error_in(ExceptionGroup("one", [KeyError("bug")])) is None


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0 s"), (59_999, "59 s"), (3_600_000, "1 h"), (90_061_000, "1 d 1 h"), (-5, "0 s")],
)
def test_a_span_is_told_in_its_two_largest_units(milliseconds, text):
    assert console.duration(milliseconds) == text


def test_plain_progress_says_about_ten_lines(capsys):
    with console.progress() as advance:
        for done in range(1, 1_001):
            advance(done, 1_000, f"{done}")
    assert len(capsys.readouterr().err.splitlines()) == 11


def issued_certificate(run):
    """The address of a node that has a certificate of the authority `ca`."""
    run("key", "new", "node.json", "--kind", "node", "--unencrypted")
    address = run("key", "address", "node.json").stdout.strip()
    run("ca", "init", "ca", "--unencrypted")
    assert run("ca", "issue", address, "--authority", "ca", "--out", "node").exit_code == 0
    return address


def test_a_revoked_node_gets_no_certificate_until_it_is_readmitted(run, tmp_path):
    address = issued_certificate(run)
    name = public_key_hash((tmp_path / "node" / "tls.crt").read_bytes()).hex()
    revoked = run("ca", "revoke", address, "--authority", "ca", "--reason", "stolen", "--json")
    assert json.loads(revoked.stdout) == {"address": address, "certificates": [name]}
    again = run("ca", "issue", address, "--authority", "ca", "--out", "next", "--json")
    assert (again.exit_code, error_of(again)["kind"]) == (1, "revoked")
    assert "stolen" in again.stderr
    assert not (tmp_path / "next").exists()
    back = run("ca", "issue", address, "--authority", "ca", "--out", "next", "--readmit")
    assert back.exit_code == 0
    renewed = run("ca", "issue", address, "--authority", "ca", "--out", "third")
    assert renewed.exit_code == 0
    register = json.loads((tmp_path / "ca" / "register.json").read_text())
    assert [item["revoked"] is None for item in register["certificates"]] == [False, True, True]


def test_a_revocation_says_what_the_members_have_to_propose(run, tmp_path):
    address = issued_certificate(run)
    name = public_key_hash((tmp_path / "node" / "tls.crt").read_bytes()).hex()
    text = run("ca", "revoke", address, "--authority", "ca", "--reason", "stolen").stdout
    assert f"kanglian member propose revoke {address} {name}" in text


def test_only_what_the_register_knows_is_revoked_or_what_a_file_shows(run, tmp_path):
    address = issued_certificate(run)
    (tmp_path / "ca" / "register.json").unlink()
    options = ("--authority", "ca", "--reason", "lost", "--json")
    unknown = run("ca", "revoke", address, *options)
    assert (unknown.exit_code, error_of(unknown)["kind"]) == (1, "malformed")
    assert "--certificate" in unknown.stderr
    wrong = run("ca", "revoke", "kn1x", *options)
    assert error_of(wrong)["kind"] == "bad_address"
    shown = run("ca", "revoke", address, *options, "--certificate", "node/tls.crt")
    assert len(json.loads(shown.stdout)["certificates"]) == 1
    twice = run("ca", "revoke", address, *options)
    assert error_of(twice)["kind"] == "malformed"


def test_a_damaged_register_is_named_and_nothing_is_issued(run, tmp_path):
    address = issued_certificate(run)
    (tmp_path / "ca" / "register.json").write_text("{")
    result = run("ca", "issue", address, "--authority", "ca", "--out", "next", "--json")
    assert error_of(result)["kind"] == "malformed"
    assert "register.json" in result.stderr
    assert not (tmp_path / "next").exists()
