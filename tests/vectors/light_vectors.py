"""Writes `light-1.json`: published vectors of what a light client keeps and hands over.

They come from the chains of the unit tests, whose keys and nonces are fixed, so a run makes the
same bytes. Run it from the root of the tree: `python -m tests.vectors.light_vectors`.
"""

import json
from pathlib import Path

import msgspec

from ledger.codec import encode
from ledger.errors import Rejected
from ledger.history import inclusion_path
from ledger.light.documents import (
    LIGHT_PROOF_FORMAT,
    LightProof,
    Trust,
    fork_json,
    parse_fork,
    parse_light_proof,
    parse_trust,
    trust_json,
    without_certificates,
)
from ledger.light.fork import fork_evidence
from ledger.light.trust import skip
from ledger.proof import RegistrationProof
from rpc.light.anchor import Anchor
from rpc.light.keeper import TrustKeeper
from rpc.light.session import registration_of
from rpc.light.source import Source
from tests.unit.ledger.light_chains import TERMS, LightChain, genesis_trust, members
from tests.unit.ledger.worlds import CHAIN, GENESIS, NOW, SUITE, VALIDATORS
from tests.unit.node_core.chains import GENESIS as LOCAL_GENESIS
from tests.unit.node_core.chains import TIME, LocalChain, make_transaction, register
from tests.unit.rpc_light.callers import LocalCaller
from tests.unit.rpc_light.local_node import LocalNode

PATH = Path(__file__).with_name("light-1.json")
CHANGES = {5: members(0, 1, 2, 3, 4)}
HERE = LightChain(CHANGES).grow(9)
THERE = LightChain(CHANGES, salt="there", parted=8).grow(9)
LATER = NOW + 1_000
WITNESSES = ("http://127.0.0.1:26603", "http://witness.example:26601")


def trust_at(*heights: int, witnesses=WITNESSES) -> Trust:
    """The trust after skipping along these heights."""
    blocks = [HERE.blocks[height] for height in heights]
    reached = skip(genesis_trust(LATER), blocks, CHAIN, TERMS, LATER)
    return Trust(CHAIN, GENESIS.modules, TERMS, witnesses, reached, blocks[-1])


def trusts() -> dict[str, str]:
    """A header that commits to a change, and one that does not."""
    return {
        "of a change": trust_json(trust_at(4)).decode(),
        "after it": trust_json(trust_at(4, 9, witnesses=())).decode(),
    }


def light_proof(registration: RegistrationProof) -> LightProof:
    """The form alone: the headers of the proof are not those of this chain."""
    path = inclusion_path(HERE, SUITE.digest, 7, 9)
    named = tuple(item.hex() for item in path)
    return LightProof(LIGHT_PROOF_FORMAT, without_certificates(registration), 9, named)


def proven() -> dict[str, object]:
    """A re-anchored proof of a registration that holds under the trust beside it."""
    local = LocalChain()
    made = make_transaction(register(1), 1, is_signed=True)
    local.run(made)
    for _ in range(4):
        local.decide()
    keeper = TrustKeeper.of_genesis(LOCAL_GENESIS, lambda: TIME + 1_000)
    anchor = Anchor(Source(LocalCaller(LocalNode(local))), [], keeper)
    anchor.follow()
    proof = anchor.light_proof(registration_of(anchor.source.proof(made.id.hex())))
    return {
        "operation": made.id.hex(),
        "trust": trust_json(keeper.trust).decode(),
        "text": proof.to_json().decode(),
    }


def refused() -> list[dict[str, str]]:
    """Documents that must be refused, by the reader and the reason."""
    trust = trusts()["of a change"]
    document = json.loads(trust)
    found: list[dict[str, str]] = []

    def refuse(kind: str, text: str) -> None:
        try:
            READERS[kind](text.encode())
        except Rejected as refusal:
            found.append({"kind": kind, "text": text, "reason": str(refusal.reason)})
        else:
            raise AssertionError(f"accepted: {text}")

    def changed(**members: object) -> str:
        return json.dumps({**document, **members}, sort_keys=True, separators=(",", ":"))

    refuse("trust", changed(trust_period_ms=document["trust_period_ms"] + 1))
    refuse("trust", changed(genesis_hash="00" * 32))
    refuse("trust", changed(format="kanglian-trust/2"))
    refuse("trust", changed(digest="00" * 32))
    refuse("trust", changed(extra=1))
    refuse("trust", trust.replace(",", ", ", 1))
    refuse("trust", trust.replace('"group":', '"group" :', 1))
    fork = fork_text()
    refuse("fork", fork.replace(CHAIN.genesis_hash.hex(), "00" * 32))
    refuse("fork", fork[:-3])
    return found


def fork_text() -> str:
    """Two headers of height 9 that the set from height 5 on decided in one round."""
    evidence = fork_evidence(HERE.blocks[9], THERE.blocks[9], CHAIN)
    return fork_json(evidence, HERE.ruling(9), CHAIN).decode()


READERS = {
    "trust": parse_trust,
    "fork": lambda data: parse_fork(data, CHAIN),
    "light_proof": parse_light_proof,
}


def make() -> dict[str, object]:
    """All vectors."""
    evidence = fork_evidence(HERE.blocks[9], THERE.blocks[9], CHAIN)
    return {
        "genesis": json.loads(msgspec.json.encode(GENESIS)),
        "genesis_validators_hash": VALIDATORS.hash(SUITE).hex(),
        "light_blocks": {str(height): encode(HERE.blocks[height]).hex() for height in (4, 9)},
        "trusts": trusts(),
        "fork": {"text": fork_text(), "evidence": encode(evidence).hex()},
        "proof": proven(),
        "refused": refused(),
    }


def text_of(vectors: dict[str, object]) -> str:
    """The text of the file."""
    return json.dumps(vectors, ensure_ascii=False, indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    PATH.write_text(text_of(make()), encoding="utf-8")
