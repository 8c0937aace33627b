"""docs/refusals.md names what clients meet: every reason of admission, every kind that passes."""

import re
from pathlib import Path

from ledger.errors import Reason
from rpc.registration import _PASSING

ROOT = Path(__file__).parents[3]
DOCUMENT = (ROOT / "docs" / "refusals.md").read_text()
ADMISSION = ("admission", "mempool", "failures", "backlog")


def test_every_reason_of_admission_is_explained():
    sources = [ROOT / "node" / f"{name}.py" for name in ADMISSION]
    sources += [ROOT / "ledger" / "transaction.py", ROOT / "ledger" / "codec.py"]
    named = {
        name for path in sources for name in re.findall(r"Reason\.([A-Z_]+)", path.read_text())
    }
    for name in sorted(named - {"BAD_BATCH"}):
        assert f"`{Reason[name]}`" in DOCUMENT


def test_what_the_client_tries_again_is_what_the_document_says_passes():
    lines = [line for line in DOCUMENT.splitlines() if line.endswith("| yes |")]
    passing = {line.split("`")[1] for line in lines} - {"too_many_connections"}
    assert passing == set(_PASSING)
