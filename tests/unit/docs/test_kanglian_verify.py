"""The independent verifier agrees with the library, and needs nothing of the project."""

import json
import sys
from pathlib import Path
from random import Random

import msgspec
import pytest

from docs import kanglian_verify
from docs.kanglian_verify import Refused, check_opening, check_proof, is_signed, read_genesis
from ledger.data_index import PartLabel, open_parts, parse_opening, verify_opening
from ledger.errors import Reason, Rejected
from ledger.genesis import genesis_hash, parse_genesis
from ledger.proof import parse_proof, verify_registration
from ledger.receipts import Status
from ledger.transaction import operation_ids
from tests.fuzz.mutations import mutated
from tests.fuzz.proof_mutations import mirrored
from tests.fuzz.proofs import WORLDS, by_independent, by_library
from tests.unit.docs.auditor import FILE, Auditor
from tests.unit.ledger.test_proof import BLOCKS, ENVELOPE, PLAIN
from tests.unit.ledger.worlds import (
    BOARD,
    GENESIS,
    HOSPITAL,
    RESIDENT,
    SUITE,
    key,
    parts,
    secret,
    sign_p256,
    two_blocks,
)

GENESIS_FILE = msgspec.json.encode(GENESIS)
CHAIN = read_genesis(GENESIS_FILE)
VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors/format-2.json").read_text(encoding="utf-8")
)
PROOF = BLOCKS.proof(ENVELOPE, 1).to_json()


def why(call, *arguments) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    return caught.value.why


@pytest.mark.parametrize(
    "world", WORLDS, ids=["every transaction", "changing validators", "family"]
)
def test_both_verifiers_say_the_same_of_every_good_proof(world):
    for data in world.proofs:
        verdict = by_independent(world, data)
        assert isinstance(verdict, dict), verdict
        assert verdict == by_library(world, data)


def test_single_multi_signature_and_p256_accounts_envelopes_and_all_kinds_are_among_them():
    first, second, third = WORLDS
    accounts = {by_independent(first, data)["account"] for data in first.proofs}
    assert accounts == {signer.address.hex() for signer in (HOSPITAL, BOARD, RESIDENT)}
    assert any(b'"operation":2' in data for data in first.proofs)
    forms = {json.loads(data)["format"] for data in (*second.proofs, *third.proofs)}
    assert forms == set(kanglian_verify.KINDS)


def test_published_genesis_and_proofs_hold():
    chain = read_genesis(json.dumps(VECTORS["genesis"]["json"], indent=1).encode())
    assert chain.genesis_hash.hex() == VECTORS["genesis"]["hash"]
    for published in VECTORS["proofs"]:
        verdict = check_proof(published["text"].encode(), chain)
        assert verdict.facts["operation"] == published["operation"]
        assert verdict.facts["organisation"] == "City Hospital 市医院"


PARSERS = {
    "transaction": lambda data: kanglian_verify.read_transaction(data, CHAIN),
    "certificate": lambda data: kanglian_verify.decode(data, "certificate", 16_384),
    "header": lambda data: kanglian_verify.read_header(data, CHAIN, "header"),
    "proof": lambda data: check_proof(data, CHAIN),
}


@pytest.mark.parametrize("number", range(len(VECTORS["refused"])))
def test_what_must_be_refused_is_refused(number):
    case = VECTORS["refused"][number]
    assert why(PARSERS[case["kind"]], bytes.fromhex(case["bytes"]))


def test_published_transactions_are_read_and_their_signatures_valid():
    for published in VECTORS["transactions"].values():
        found = kanglian_verify.read_transaction(bytes.fromhex(published["wire"]), CHAIN)
        kanglian_verify.check_signatures(found, is_signed)
        assert found.identity.hex() == published["id"]
        ids = [found.operation(index).hex() for index in range(len(found.calls))]
        assert ids == published["operation_ids"]


def test_both_refuse_a_failed_operation_by_the_name_of_its_status():
    failing = operation_ids(ENVELOPE, SUITE)[1]
    data = (
        two_blocks(BLOCKS.batches, lambda found: Status.REVERTED if found == failing else Status.OK)
        .proof(ENVELOPE, 1)
        .to_json()
    )
    with pytest.raises(Rejected) as caught:
        verify_registration(parse_proof(data), GENESIS)
    assert (caught.value.reason, caught.value.detail) == (Reason.NOT_SUCCESSFUL, "reverted")
    assert why(check_proof, data, CHAIN).endswith("was not successful: reverted")


def test_of_two_signatures_that_the_curve_accepts_only_the_one_with_low_s_holds():
    digest = secret("digest")
    ours = SUITE.sign(secret("hospital"), digest)
    browsers = sign_p256(secret("resident"), digest)
    for public, signature, curve in ((key("hospital"), ours, 0), (RESIDENT_KEY, browsers, 1)):
        assert is_signed(public, digest, signature)
        assert not is_signed(public, digest, mirrored(signature, curve))
        assert not is_signed(public, secret("another"), signature)
        assert not is_signed(public, digest, bytes(64))
        assert not is_signed(b"\x03" + public[1:], digest, signature)


RESIDENT_KEY = kanglian_verify.decode(RESIDENT.script, "script", 1_024)[2][0]


def test_both_verifiers_agree_on_openings_and_records():
    verdict = verify_registration(parse_proof(PROOF), GENESIS)
    facts = check_proof(PROOF, CHAIN)
    whole = open_parts(SUITE, verdict.operation, verdict.account, secret("R 3"), parts(3))
    other = open_parts(SUITE, verdict.operation, verdict.account, secret("R 4"), parts(3))
    samples = [whole.to_json(), whole.only(PartLabel.TAIL).to_json(), other.to_json()]
    generator, agreed = Random(1), []
    for number in range(1_500):
        data = samples[number] if number < 3 else mutated(generator, samples, is_json=True)
        record = (parts(3).record, None, b"another")[number % 3]
        try:
            opening = parse_opening(data)
            verify_opening(
                opening, verdict.registration, verdict.operation, verdict.account, SUITE, record
            )
            library = tuple(part.label.value for part in opening.parts)
        except Rejected:
            library = None
        try:
            independent = tuple(check_opening(data, record, facts))
        except Refused:
            independent = None
        assert library == independent, data
        agreed.append(library)
    assert ("head", "middle", "record", "remarks", "tail") in agreed
    assert agreed.count(None) > 1_000


def test_both_read_the_same_genesis_files_and_name_them_alike():
    samples = [json.dumps(json.loads(GENESIS_FILE)).encode()]
    generator, accepted = Random(2), 0
    for _ in range(1_500):
        data = mutated(generator, samples, is_json=True)
        try:
            library = genesis_hash(parse_genesis(data))
        except Rejected:
            library = None
        try:
            independent = read_genesis(data).genesis_hash
        except Refused:
            independent = None
        assert library == independent, data
        accepted += library is not None
    assert 20 < accepted < 1_000


@pytest.mark.parametrize(
    "value", [0, 127, 128, 2**64 - 1, -1, -32, -33, -128, -129, -(2**63), "", "中" * 99, b"", None]
)
def test_the_canonical_form_is_that_of_the_library(value):
    for wrapped in (value, [value] * 17, [[value, True], False]):
        data = msgspec.msgpack.encode(wrapped)
        assert kanglian_verify.encode(wrapped) == data
        assert kanglian_verify.decode(data, "value", 10_000) == wrapped


# ---- the command, alone -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Runs the file without the folder of the project and with one library; exit code, output."""
    auditor = Auditor(tmp_path_factory.mktemp("auditor") / "folder")
    verdict = verify_registration(parse_proof(PROOF), GENESIS)
    opening = open_parts(SUITE, verdict.operation, verdict.account, secret("R 3"), parts(3))
    auditor.put("proof", PROOF)
    auditor.put("bad", PROOF.replace(b'"operation":1', b'"operation":0'))
    auditor.put("genesis", GENESIS_FILE)
    auditor.put("opening", opening.to_json())
    auditor.put("record", parts(3).record)
    return auditor.run


def test_the_file_runs_with_nothing_but_cryptography(alone):
    code, output = alone(
        "proof", "--genesis", "genesis", "--opening", "opening", "--record", "record", "--json"
    )
    assert code == 0, output
    found = json.loads(output)
    assert found["verified"] is True
    assert found["operation"] == operation_ids(ENVELOPE, SUITE)[1].hex()
    assert found["opened"] == ["head", "middle", "record", "remarks", "tail"]
    assert found["record_checked"] is True


def test_a_refusal_and_a_wrong_call_have_their_own_exit_codes(alone):
    assert alone("proof", "--genesis", "genesis")[0] == 0
    code, output = alone("bad", "--genesis", "genesis")
    assert (code, output) == (1, "REFUSED: receipt.id: is that of another operation\n")
    assert alone("bad", "--genesis", "genesis", "--lang", "zh")[1].startswith("不成立 (执行回执)")
    assert alone("proof", "--genesis", "proof")[0] == 1
    time = json.loads(alone("proof", "--genesis", "genesis", "--json")[1])["time_ms"]
    assert alone("proof", "--genesis", "genesis", "--not-before", str(time))[0] == 0
    code, output = alone("proof", "--genesis", "genesis", "--not-before", str(time + 1))
    assert (code, output.startswith("REFUSED: stale: ")) == (1, True)
    assert alone("proof", "--genesis", "nowhere")[0] == 2
    assert alone("proof")[0] == 2
    assert alone("proof", "--genesis", "genesis", "--record", "record")[0] == 2


def test_the_file_imports_the_standard_library_and_cryptography_alone():
    names = {
        line.split()[1].partition(".")[0]
        for line in FILE.read_text("utf-8").splitlines()
        if line.startswith(("import ", "from "))
    }
    assert names - sys.stdlib_module_names == {"cryptography"}


def test_a_plain_transaction_has_its_own_id_as_operation():
    verdict = check_proof(BLOCKS.proof(PLAIN).to_json(), CHAIN)
    assert verdict.facts["operation"] == verdict.facts["transaction"] == PLAIN.id.hex()
