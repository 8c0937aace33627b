"""docs/refusals.md names what clients meet: every passing kind of the client, and every reason."""

from pathlib import Path

from ledger.errors import Reason
from rpc.registration import _PASSING

DOCUMENT = (Path(__file__).parents[3] / "docs" / "refusals.md").read_text()
ELSEWHERE = {
    *("bad_address", "bad_batch", "bad_block", "bad_certificate", "bad_proof", "bad_opening"),
    *("bad_genesis", "not_successful"),
}


def test_every_reason_of_admission_is_explained():
    for reason in (item for item in Reason if item not in ELSEWHERE):
        assert f"`{reason}`" in DOCUMENT, reason


def test_what_the_client_tries_again_is_what_the_document_says_passes():
    lines = [line for line in DOCUMENT.splitlines() if line.endswith("| yes |")]
    passing = {line.split("`")[1] for line in lines} - {"too_many_connections"}
    assert passing == set(_PASSING)
