"""Writes `proofs-1.json`: published vectors for every kind of proof in `docs/proofs.md`.

Another implementation needs this file, that document and `docs/format.md`, nothing else. The
chain has the genesis of `genesis`, and its validators change twice; each proof stands with what it
proves, or with our reason to refuse it. Run it from the root of the tree:
`python -m tests.vectors.make_proof_vectors`.
"""

import json
from pathlib import Path

import msgspec

from ledger.errors import Rejected
from ledger.proofs.family import verify_document
from rpc.proof_views import fact_view
from tests.fuzz.proof_mutations import text_of
from tests.unit.node_core.chains import CHAIN, GENESIS
from tests.unit.node_core.proof_world import ProofWorld

PATH = Path(__file__).with_name("proofs-1.json")
PUBLISHED = (
    *("state before", "state after", "state of no namespace", "state after two changes"),
    *("log of nothing", "log 0-0", "log 2-6", "completeness of nothing", "completeness of trial"),
    *("completeness after two changes", "receipt OK", "receipt BAD_ARGUMENTS", "event"),
    *("transaction BAD_ARGUMENTS", "transaction alone", "header 2", "header under two changes"),
    *("history 8", "history under two changes"),
)


def without_values(view: object) -> object:
    """A view without the decoded values of events, which are no part of a proof."""
    if isinstance(view, dict):
        return {name: without_values(item) for name, item in view.items() if name != "values"}
    return [without_values(item) for item in view] if isinstance(view, list) else view


def refused(world: ProofWorld) -> list[dict[str, str]]:
    """One document for each way in which each kind breaks, with our reason."""
    found: list[dict[str, str]] = []
    for name, bend in (
        ("state after: another value", _put("value", "00")),
        ("state after: the value left out", _put("value", None)),
        ("state before: a sibling dropped", _cut("way", "namespaces", "siblings")),
        ("state after: an empty sibling as a hash", _put_in(("way", "namespace", "siblings"), 0)),
        ("log 2-6: an entry dropped", _cut("run", "entries")),
        ("log 2-6: a node dropped", _cut("run", "nodes")),
        ("log 2-6: a node repeated", _repeat("run", "nodes")),
        ("completeness of trial: a block dropped", _cut("run", "blocks")),
        ("completeness of trial: a range beyond the state", _put("stop", 10_000)),
        ("completeness of nobody: another namespace without a log", _put("module", "nowhere")),
        ("receipt OK: another namespace", _put("level", 1)),
        ("event: one that is not there", _put("event", 31)),
        ("transaction alone: another operation", _put("operation", 1)),
        ("header 2: a step dropped", _cut("path")),
        ("history 8: another size", _put("size", 9)),
        ("history 8: a step repeated", _repeat("path")),
    ):
        document = json.loads(world[name.partition(":")[0]])
        bend(document)
        text = text_of(document)
        try:
            verify_document(text, GENESIS)
        except Rejected as refusal:
            found.append({"what": name, "reason": str(refusal.reason), "text": text.decode()})
        else:
            raise AssertionError(name)
    return found


def _put(member, value):
    return lambda document: document.update({member: value})


def _at(document, path):
    for member in path:
        document = document[member]
    return document


def _put_in(path, index):
    def bend(document):
        items = _at(document, path)
        items[index : index + 1] = ["00" * 32]

    return bend


def _cut(*path):
    return lambda document: _at(document, path).pop()


def _repeat(*path):
    return lambda document: _at(document, path).append(_at(document, path)[-1])


def make() -> dict[str, object]:
    """All vectors."""
    world = ProofWorld()
    proofs: list[dict[str, object]] = []
    for name in PUBLISHED:
        view = fact_view(verify_document(world[name], GENESIS), CHAIN.genesis_hash.hex())
        proofs.append({"what": name, "proves": without_values(view), "text": world[name].decode()})
    return {
        "format": "kanglian-proof-vectors/1",
        "genesis": json.loads(msgspec.json.encode(GENESIS)),
        "proofs": proofs,
        "refused": refused(world),
    }


def text_of_vectors(vectors: dict[str, object]) -> str:
    """The text of the file."""
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text_of_vectors(make()), encoding="utf-8")
