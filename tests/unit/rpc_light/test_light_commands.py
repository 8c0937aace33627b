"""`kanglian light` as a person runs it, against honest, lying, late and forked nodes."""

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from contracts.changes import Change
from genesis.networks import write_genesis
from ledger.addresses import decode_text
from ledger.light.documents import parse_fork, parse_trust
from ledger.light.fork import verify_fork
from rpc import console
from rpc.light import anchor, follow, source
from tests.unit.ledger.worlds import key
from tests.unit.node_core.chains import (
    CHAIN,
    GENESIS,
    NEWCOMERS,
    TIME,
    VALIDATORS,
    LocalChain,
    make_transaction,
    node_name,
    register,
)
from tests.unit.node_core.test_membership import govern
from tests.unit.rpc_light.callers import told
from tests.unit.rpc_light.local_node import LocalNode
from tests.unit.rpc_light.worlds import BROKEN, World
from tests.unit.rpc_methods.memory_chain import served, small_genesis

NOW = TIME + 60_000


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """The clock of the command line, which the test may move."""
    moment = [NOW]
    monkeypatch.setattr(console, "now_ms", lambda: moment[0])
    monkeypatch.setattr(anchor, "FOLLOW_MS", 10)
    monkeypatch.setattr(follow, "WITNESS_WAIT_MS", 10)
    monkeypatch.setattr(source, "PATIENCE_PAUSE_MS", 1)
    return moment


class Place:
    """A folder with a genesis, a trust to be, and one served chain."""

    def __init__(self, folder, node, url):
        self.folder, self.node, self.url = folder, node, url
        self.state, self.genesis = folder / "trust.json", folder / "genesis.json"
        write_genesis(self.genesis, GENESIS)

    def run(self, *arguments, code=0, lang="en"):
        result = CliRunner().invoke(cli.main, ["--lang", lang, "light", *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    def sync(self, *arguments, code=0, url=None):
        begin = () if self.state.exists() else ("--genesis", self.genesis)
        where = ("--rpc", url or self.url, "--state", self.state)
        return self.run("sync", *begin, *where, *arguments, code=code)

    def get(self, name, *arguments, code=0):
        where = ("--rpc", self.url, "--state", self.state)
        return self.run("get", name, *where, *arguments, code=code)

    def verify(self, path, *arguments, code=0):
        return self.run("verify", path, "--state", self.state, *arguments, code=code)

    def trust(self):
        return parse_trust(self.state.read_bytes())


@pytest.fixture
def place(tmp_path):
    node = LocalNode(World().local)
    with served(node) as url:
        yield Place(tmp_path, node, url)


def register_one(node, number):
    made = make_transaction(register(number), number, is_signed=True)
    node.local.run(made)
    node.local.decide()
    return made.id.hex()


# ---- sync ---------------------------------------------------------------------------------------


def test_sync_begins_at_genesis_follows_the_changes_and_keeps_its_trust(place):
    said = json.loads(place.sync("--json").stdout)
    tip = place.node.local.tip
    assert (said["height"], said["hash"]) == (tip.height, tip.block_hash.hex())
    assert (said["headers"], said["changes"], said["validators"]) == (3, 2, 4)
    assert said["genesis_hash"] == CHAIN.genesis_hash.hex()
    assert stat.S_IMODE(place.state.stat().st_mode) == 0o600
    assert place.trust().trusted.hash == tip.block_hash
    register_one(place.node, 50)
    again = json.loads(place.sync("--json", "--sequential").stdout)
    assert (again["height"], again["headers"]) == (tip.height + 2, 2)
    assert json.loads(place.sync("--json").stdout)["headers"] == 0


def test_sync_says_what_it_did_in_both_languages(place):
    result = place.sync()
    assert f"trust begins with header 0, {CHAIN.genesis_hash.hex()}" in result.stderr
    assert "no witness was named" in result.stderr
    assert f"height {place.node.height} of {place.node.height}" in result.stderr
    assert "2 changes of validators" in result.stdout
    where = ("--rpc", place.url, "--state", place.state)
    assert "次验证者变更" in place.run("sync", *where, lang="zh").stdout


def test_sync_of_a_new_file_needs_a_beginning_and_of_an_old_one_takes_no_other(place):
    where = ("--rpc", place.url, "--state", place.state)
    result = place.run("sync", *where, code=2)
    assert "begin with --genesis FILE or --trust FILE" in result.stderr
    place.sync()
    result = place.run("sync", *where, "--trust", place.state, code=2)
    assert "holds a trust already" in result.stderr


def test_trust_may_begin_with_that_of_somebody_else(place):
    place.sync("--witness", place.url + "/")
    second = place.folder / "second.json"
    register_one(place.node, 51)
    begin = ("--trust", place.state, "--rpc", place.url, "--state", second)
    result = place.run("sync", *begin)
    height = place.node.height - 2
    assert f"trust begins with header {height}, {place.trust().trusted.hash.hex()}" in result.stderr
    assert parse_trust(second.read_bytes()).trusted.height == place.node.height
    assert parse_trust(second.read_bytes()).witnesses == ()


def test_the_period_of_trust_is_what_was_said_and_ends(place, clock):
    place.sync("--trust-days", 3)
    assert place.trust().terms.trust_period_ms == 3 * 86_400_000
    clock[0] += 3 * 86_400_000
    result = place.sync("--json", code=1)
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["kind"] == "trust_expired"
    assert "begin a new trust with that of somebody you know (--trust)" in error["message"]


def test_a_clock_that_went_back_is_named(place, clock):
    place.sync()
    clock[0] -= 20_000
    for result in (place.sync("--json", code=1), place.get(1, "--json", code=1)):
        error = json.loads(result.stderr.splitlines()[-1])["error"]
        assert error["kind"] == "from_future"
        assert "check the clock of this machine" in error["message"]


def test_a_trust_of_another_chain_is_refused_by_name(place):
    other = place.folder / "other.json"
    write_genesis(other, small_genesis("another"))
    place.sync()
    result = place.sync("--genesis", other, code=1)
    assert "the trust is of another chain than the genesis file names" in result.stderr
    fresh = ("--state", place.folder / "fresh.json", "--rpc", place.url)
    result = place.run("sync", "--genesis", other, *fresh, code=1)
    assert not (place.folder / "fresh.json").exists()


def test_a_damaged_trust_is_named_and_left_as_it_is(place):
    place.sync()
    data = bytearray(place.state.read_bytes())
    data[200] ^= 1
    place.state.write_bytes(data)
    result = place.sync("--json", code=4)
    error = json.loads(result.stderr.splitlines()[-1])["error"]
    assert error["kind"] == "damaged"
    assert str(place.state) in error["message"]
    assert "sync again from genesis" in error["message"]
    assert place.state.read_bytes() == bytes(data)
    place.state.chmod(0o644)
    result = place.get(1, "--json", code=4)
    assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "too_open"


def test_a_chain_that_stands_still_is_stale_and_its_headers_are_kept(place, clock):
    clock[0] = place.node.local.tip.time + GENESIS.parameters.heartbeat_ms + 60_001
    result = place.sync("--json", code=3)
    assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "stale"
    assert place.trust().trusted.height == place.node.height


def test_witnesses_are_compared_and_remembered(place):
    with served(LocalNode(place.node.local)) as other:
        said = json.loads(place.sync("--json", "--witness", other).stdout)
        assert said["witnesses"] == [{"witness": other, "standing": "agrees", "detail": ""}]
        assert f"witness {other}: agrees" in place.sync().stdout
    result = place.sync(code=3)
    assert "no witness confirms" in result.stderr
    result = place.sync("--witness", "https://h:1", code=1)
    assert "'https://h:1' is no address of a witness" in result.stderr


# ---- forks --------------------------------------------------------------------------------------


def forked():
    """Two nodes of one chain whose four members, all twins, decided two heights three."""
    made = [LocalChain(), LocalChain()]
    for number, local in enumerate(made):
        for common in (1, 2):
            local.run(make_transaction(register(common), common, is_signed=True))
        local.run(make_transaction(register(10 + number), 10 + number, is_signed=True))
        local.decide()
    return [LocalNode(local) for local in made]


def test_a_fork_gives_evidence_and_its_own_exit_code_and_trust_stays(tmp_path):
    one, other = forked()
    with served(one) as url, served(other) as witness:
        place = Place(tmp_path, one, url)
        result = place.sync("--json", "--witness", witness, code=6)
        fork = json.loads(result.stdout)["fork"]
        assert not place.state.exists()
        assert (fork["height"], fork["nodes"]) == (4, [url, witness])
        evidence, validators = parse_fork(Path(fork["evidence"]).read_bytes(), CHAIN)
        assert validators == VALIDATORS
        found = verify_fork(evidence, VALIDATORS, CHAIN)
        assert [item.hex() for item in found.equivocators] == fork["equivocators"]
        assert len(found.equivocators) == 4
        assert json.loads(place.sync("--json", "--witness", witness, code=6).stdout)["fork"] == fork
        text = place.sync("--witness", witness, code=6).stdout
        assert "THE CHAIN HAS FORKED at height 4" in text
        assert len(list(tmp_path.glob("*.fork-*"))) == 1


def test_a_node_on_another_branch_than_the_kept_trust_is_a_fork_for_every_command(tmp_path):
    one, other = forked()
    with served(one) as url, served(other) as twin:
        place = Place(tmp_path, one, url)
        place.sync()
        kept = place.state.read_bytes()
        assert "the trust kept here" in place.sync(url=twin, code=6).stdout
        place.url = twin
        name = told(other, "get_block", {"height": 3})["transactions"][0]
        assert "the trust kept here" in place.get(name, code=6).stdout
        assert place.state.read_bytes() == kept


# ---- get ----------------------------------------------------------------------------------------


def test_get_proves_headers_by_height_and_hash(place):
    place.sync()
    header = told(place.node, "get_block_header", {"height": 2})
    for name in ("2", header["hash"]):
        said = json.loads(place.get(name, "--json").stdout)
        assert said == {
            "proven": "header",
            "height": 2,
            "hash": header["hash"],
            "time_ms": header["header"]["time"],
            "trusted_height": place.node.height,
            "header": header["header_bytes"],
        }
    assert "PROVEN: header 2" in place.get(2).stdout


def test_get_proves_an_operation_that_succeeded_and_one_that_failed(place):
    place.sync()
    name = register_one(place.node, 60)
    said = json.loads(place.get(name, "--json").stdout)
    assert (said["proven"], said["operation"], said["method"]) == ("operation", name, "register")
    assert said["trusted_height"] == place.node.height == place.trust().trusted.height
    made = make_transaction(BROKEN, 61, is_signed=True)
    place.node.local.run(made)
    place.node.local.decide()
    said = json.loads(place.get(made.id.hex(), "--json", code=1).stdout)
    assert (said["proven"], said["statuses"]) == ("failure", ["BAD_ARGUMENTS"])
    assert "did not succeed: BAD_ARGUMENTS" in place.get(made.id.hex(), code=1).stdout


def test_what_lies_below_the_trusted_header_is_proven_after_the_trust_has_expired(place, clock):
    old = told(place.node, "get_block", {"height": 1})["transactions"][0]
    place.sync()
    register_one(place.node, 63)
    clock[0] += 15 * 86_400_000
    kept = place.trust().trusted.height
    for name in (old, "2"):
        assert json.loads(place.get(name, "--json").stdout)["trusted_height"] == kept
    result = place.get(kept + 1, "--json", code=1)
    assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "trust_expired"


def test_get_of_what_the_node_does_not_have_is_no_proof_of_anything(place):
    place.sync()
    result = place.get("ab" * 32, "--json", code=1)
    assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "not_found"
    result = place.get(10_000, code=3)
    assert "shows no height 10000 yet" in result.stderr
    for name in ("zz", "0", "AB" * 32, "1" * 19):
        assert "ID is a height" in place.get(name, code=2).stderr


def test_a_proof_is_written_for_operations_alone_and_never_over_a_file(place):
    place.sync()
    out = place.folder / "a.json"
    assert "there is none here" in place.get(1, "--out", out, code=2).stderr
    assert not out.exists()
    name = register_one(place.node, 62)
    place.get(name, "--out", out)
    assert "exists already" in place.get(name, "--out", out, code=4).stderr


# ---- verify -------------------------------------------------------------------------------------


def test_a_written_proof_verifies_without_a_node_and_is_led_on_by_any(place):
    place.sync()
    name = register_one(place.node, 70)
    first, second = place.folder / "a.json", place.folder / "b.json"
    place.get(name, "--out", first)
    assert f"PROVEN: {name}" in place.verify(first).stdout
    register_one(place.node, 71)
    place.sync()
    result = place.verify(first, code=3)
    assert "need not be trusted" in result.stderr
    place.verify(first, "--rpc", place.url, "--out", second)
    assert json.loads(place.verify(second, "--json").stdout)["operation"] == name


def retire(local):
    """Every member of genesis leaves, one after another, and a newcomer takes its place."""
    for index, organisation in enumerate(("hospital", "clinic", "centre", "university")):
        (leaving,) = [
            decode_text(node.address)[1]
            for node in GENESIS.nodes
            if node.organisation == organisation
        ]
        name = NEWCOMERS[index]
        coming = Change(
            "add",
            node_name(name),
            name=name.replace(" ", "_"),
            key=key(name),
            organisation=organisation,
            role="master",
        )
        govern(local, 900 + 10 * index, coming, Change("remove", leaving))
    local.decide()
    local.decide()


def test_a_proof_far_older_than_the_validators_of_the_trust_is_led_to_it_by_one_path(tmp_path):
    """All members of its time have left; only the history is asked."""
    node = LocalNode()
    old = register_one(node, 1)
    made = told(node, "get_proof", {"id": old})
    retire(node.local)
    assert not set(node.local.writer.validators.members) & set(VALIDATORS.members)
    with served(node) as url:
        place = Place(tmp_path, node, url)
        path = tmp_path / "old.json"
        path.write_text(json.dumps(made, sort_keys=True, separators=(",", ":")))
        assert json.loads(place.sync("--json").stdout)["changes"] == 4
        assert "carries no path" in place.verify(path, code=3).stderr
        out = tmp_path / "led-on.json"
        said = json.loads(place.verify(path, "--rpc", url, "--out", out, "--json").stdout)
        assert (said["operation"], said["height"]) == (old, 1)
        assert json.loads(place.verify(out, "--json").stdout) == said


def test_a_past_made_with_retired_keys_is_refused(tmp_path):
    """Whoever got hold of all old keys decides another block 1, with certificates that verify."""
    node, forger = LocalNode(), LocalNode()
    register_one(node, 1)
    retire(node.local)
    name = register_one(forger, 2)
    made = told(forger, "get_proof", {"id": name})
    with served(node) as url:
        place = Place(tmp_path, node, url)
        place.sync()
        path = tmp_path / "forged.json"
        path.write_text(json.dumps(made, sort_keys=True, separators=(",", ":")))
        genesis = CliRunner().invoke(
            cli.main, ["proof", "verify", str(path), "--genesis", str(place.genesis)]
        )
        assert genesis.exit_code == 0  # from genesis alone nobody can tell
        result = place.verify(path, "--rpc", url, "--json", code=1)
        assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "bad_proof"


def test_a_proof_newer_than_the_trust_verifies_by_its_validators_while_it_lasts(place, clock):
    place.sync()
    name = register_one(place.node, 72)
    path = place.folder / "new.json"
    made = told(place.node, "get_proof", {"id": name})
    path.write_text(json.dumps(made, sort_keys=True, separators=(",", ":")))
    assert json.loads(place.verify(path, "--json").stdout)["operation"] == name
    assert "there is none here" in place.verify(path, "--out", place.folder / "x", code=2).stderr
    clock[0] += 15 * 86_400_000
    result = place.verify(path, "--json", code=1)
    assert json.loads(result.stderr.splitlines()[-1])["error"]["kind"] == "trust_expired"


def test_a_proof_that_somebody_led_to_a_newer_trust_asks_for_a_node(place):
    place.sync()
    name = register_one(place.node, 76)
    begin = ("--trust", place.state, "--rpc", place.url)
    newer, path = place.folder / "newer.json", place.folder / "p.json"
    place.run("sync", *begin, "--state", newer)
    place.run("get", name, "--rpc", place.url, "--state", newer, "--out", path)
    assert "need not be trusted" in place.verify(path, code=3).stderr
    said = json.loads(place.verify(path, "--rpc", place.url, "--json").stdout)
    assert (said["operation"], said["trusted_height"]) == (name, place.node.height)


def test_a_proof_of_the_trusted_height_verifies_without_a_path(place):
    name = register_one(place.node, 73)
    place.sync()
    path = place.folder / "here.json"
    made = told(place.node, "get_proof", {"id": name})
    path.write_text(json.dumps(made, sort_keys=True, separators=(",", ":")))
    assert json.loads(place.verify(path, "--json").stdout)["operation"] == name


def test_every_changed_part_of_a_re_anchored_proof_is_refused(place):
    place.sync()
    name = register_one(place.node, 74)
    register_one(place.node, 75)
    path = place.folder / "a.json"
    place.get(name, "--out", path)
    data = path.read_bytes()
    bad = place.folder / "bad.json"
    for start in range(40, len(data) - 2, 37):
        changed = bytearray(data)
        changed[start] ^= 1
        bad.write_bytes(changed)
        result = CliRunner().invoke(
            cli.main, ["light", "verify", str(bad), "--state", str(place.state)]
        )
        assert result.exit_code != 0, start
    document = json.loads(data)
    document["registration"]["certificate"] = "01"
    bad.write_text(json.dumps(document, sort_keys=True, separators=(",", ":")))
    assert "a certificate that nothing needs" in place.verify(bad, code=1).stderr
