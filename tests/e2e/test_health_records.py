"""The main job on real input: sixty synthetic patients, every resource registered and proven."""

from pathlib import Path

import pytest

from ledger.crypto.suites import INTERNATIONAL
from ledger.data_index import parse_opening, verify_opening
from ledger.errors import Rejected
from ledger.proof import parse_proof, verify_registration
from rpc.client import Client
from rpc.fhir import find_files
from rpc.registration import Registrar, Settings
from tests.e2e.running import CLOCK, RealNetwork

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "fhir-r4"
RESOURCES = 10_294


@pytest.mark.skipif(not DATA.is_dir(), reason="../shared/data/fhir-r4 is not beside this tree")
def test_sixty_patients_are_registered_and_every_proof_holds_offline(tmp_path):
    out = tmp_path / "out"
    with RealNetwork(tmp_path / "network", 4) as network:
        genesis = network.genesis
        with Client(network.urls["node0"], genesis) as client:
            clock = client.signing_clock(CLOCK.now_ms)
            settings = Settings("emr", 0, 0, out, "test")
            registrar = Registrar(client, network.signer, settings, clock)
            registered = registrar.run(find_files([DATA]), lambda _progress: None)
        assert len(registered) == RESOURCES
        with Client(network.urls["node2"], genesis) as client:
            proofs = [client.get_proof(one.id).to_json() for one in registered]
    for one, data in zip(registered, proofs, strict=True):
        check(genesis, out, one.id, data)
    for position in range(0, len(proofs[0]), 97):
        changed = bytearray(proofs[0])
        changed[position] ^= 1
        with pytest.raises(Rejected):
            check(genesis, out, registered[0].id, bytes(changed))


def check(genesis, out, operation, data):
    verdict = verify_registration(parse_proof(data), genesis)
    assert verdict.operation.hex() == operation
    opening = parse_opening((out / f"{operation}.opening.json").read_bytes())
    record = (out / f"{operation}.record").read_bytes()
    registration, account = verdict.registration, verdict.account
    verify_opening(opening, registration, verdict.operation, account, INTERNATIONAL, record)
