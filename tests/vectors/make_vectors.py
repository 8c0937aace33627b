"""Writes `format-2.json`: published vectors for every signed or hashed byte format.

Another implementation needs this file and `docs/format.md`, nothing else. Every secret is the
SHA-256 of its name and every signature has the nonce of RFC 6979, so a run makes the same bytes.
Run it from the root of the tree: `python -m tests.vectors.make_vectors`.
"""

import json
from pathlib import Path

import msgspec

from ledger.addresses import AddressKind, encode_text, single_key_script
from ledger.batch import Batch
from ledger.block import Block, certificate_hash, empty_root
from ledger.codec import encode
from ledger.data_index import PartLabel, commitment, object_id, open_parts, salt
from ledger.genesis import GENESIS_TAG, genesis_hash
from ledger.history import EMPTY_FRONTIER, consistency_path, history_entry
from ledger.history import inclusion_path as history_path
from ledger.merkle import inclusion_path, leaf_hash, root_of_entries, tree_head
from ledger.replay import NO_NAMESPACE, CommittedWindow, replay_block
from ledger.state import LogEntry, LogWrite, WriteSet, namespace_prefix
from ledger.state_tree import StateTree
from ledger.transaction import Transaction, operation_ids, operations_root
from ledger.votes import VoteType, proposal_digest, vote_digest
from tests.unit.ledger.memory_trees import MemoryTrees
from tests.unit.ledger.worlds import (
    BOARD,
    CHAIN,
    GENESIS,
    HEIGHT,
    HOSPITAL,
    RESIDENT,
    SUITE,
    VALIDATOR_NAMES,
    VALIDATOR_SECRETS,
    VALIDATORS,
    TwoBlocks,
    busy_batches,
    key,
    parts,
    secret,
    two_blocks,
)

PATH = Path(__file__).with_name("format-2.json")


def positional(value: object) -> object:
    """The arrays that the genesis hash is taken over."""
    if isinstance(value, dict):
        return [positional(item) for item in value.values()]
    return [positional(item) for item in value] if isinstance(value, list) else value


def genesis() -> dict[str, object]:
    text = msgspec.json.encode(GENESIS)
    return {
        "json": json.loads(text),
        "hashed": (GENESIS_TAG + encode(positional(json.loads(text)))).hex(),
        "hash": genesis_hash(GENESIS).hex(),
        "validators": [member.address.hex() for member in VALIDATORS.members],
        "validators_hash": VALIDATORS.hash(SUITE).hex(),
        "topology_hash": VALIDATORS.topology_hash(SUITE).hex(),
    }


def addresses() -> list[dict[str, object]]:
    node = single_key_script(AddressKind.NODE, key("validator 0"))
    found = [
        {"script": signer.script.hex(), "address": signer.address.hex(), "text": signer.text}
        for signer in (HOSPITAL, RESIDENT, BOARD)
    ]
    address = SUITE.digest(b"kl.address\0" + node)
    text = encode_text(AddressKind.NODE, address)
    return [{"script": node.hex(), "address": address.hex(), "text": text}, *found]


def transaction(item: Transaction) -> dict[str, object]:
    found: dict[str, object] = {
        "wire": item.wire.hex(),
        "body": encode(item.body).hex(),
        "id": item.id.hex(),
        "leaf": item.leaf.hex(),
        "operation_ids": [operation.hex() for operation in operation_ids(item, SUITE)],
    }
    if item.is_envelope:
        found["operations_root"] = operations_root(item.operations, SUITE).hex()
    return found


def batch(item: Batch) -> dict[str, object]:
    return {
        "wire": item.wire.hex(),
        "header": encode(item.header).hex(),
        "digest": item.digest.hex(),
        "signature": item.signature.hex(),
    }


def votes() -> list[dict[str, object]]:
    block = secret("block")
    found: list[dict[str, object]] = []
    for vote_type, digest, valid_round in (
        (VoteType.PREVOTE, block, -1),
        (VoteType.PREVOTE, block, 2),
        (VoteType.PREVOTE, None, -1),
        (VoteType.PRECOMMIT, block, -1),
        (VoteType.PRECOMMIT, None, -1),
    ):
        signed = vote_digest(CHAIN, vote_type, 7, 3, digest, valid_round=valid_round)
        found.append(
            {
                "type": int(vote_type),
                "height": 7,
                "round": 3,
                "block_hash": digest.hex() if digest else None,
                "valid_round": valid_round,
                "digest": signed.hex(),
                "signature_of_validator_0": SUITE.sign(VALIDATOR_SECRETS[0], signed).hex(),
            }
        )
    return found


def proposal() -> dict[str, object]:
    signed = proposal_digest(CHAIN, 7, 3, secret("block"), -1)
    return {
        "height": 7,
        "round": 3,
        "block_hash": secret("block").hex(),
        "valid_round": -1,
        "digest": signed.hex(),
        "signature_of_validator_0": SUITE.sign(VALIDATOR_SECRETS[0], signed).hex(),
    }


def merkle() -> dict[str, object]:
    entries = [b"entry %d" % number for number in range(7)]
    leaves = [leaf_hash(SUITE.digest, entry) for entry in entries]
    sizes = range(8)
    return {
        "entries": [entry.hex() for entry in entries],
        "leaves": [leaf.hex() for leaf in leaves],
        "heads": [tree_head(SUITE.digest, leaves[:size]).hex() for size in sizes],
        "sized_roots": [root_of_entries(SUITE.digest, entries[:size]).hex() for size in sizes],
        "inclusion_paths_of_7": [
            [step.hex() for step in inclusion_path(SUITE.digest, leaves, index)]
            for index in range(7)
        ],
    }


class Nodes(dict[tuple[int, int], bytes]):
    """A node store in memory."""

    def get(self, level: int, index: int, /) -> bytes:
        return self[level, index]


def history() -> dict[str, object]:
    frontier, nodes = EMPTY_FRONTIER, Nodes()
    hashes = [secret(f"block {number}") for number in range(7)]
    for block in hashes:
        frontier, complete = frontier.append(SUITE.digest, history_entry(block))
        nodes.update({(node.level, node.index): node.hash for node in complete})
    return {
        "block_hashes": [block.hex() for block in hashes],
        "frontier": encode(frontier).hex(),
        "sized_root": frontier.sized_root(SUITE.digest).hex(),
        "inclusion_path_of_4": [step.hex() for step in history_path(nodes, SUITE.digest, 4, 7)],
        "consistency_paths_to_7": [
            [step.hex() for step in consistency_path(nodes, SUITE.digest, old, 7)]
            for old in range(8)
        ],
    }


def data_index() -> dict[str, object]:
    own, index = secret("R 1"), secret("index")
    found = {}
    for label in PartLabel:
        part, part_salt = parts(1).get(label), salt(SUITE, own, label)
        value = commitment(SUITE, HOSPITAL.address, label, part_salt, part)
        found[label.value] = {
            "bytes": part.hex(),
            "salt": part_salt.hex(),
            "commitment": value.hex(),
        }
    whole = open_parts(SUITE, index, HOSPITAL.address, own, parts(1))
    return {
        "account": HOSPITAL.address.hex(),
        "secret": own.hex(),
        "parts": found,
        "organisation_secret": secret("organisation").hex(),
        "identifier": "patient-1",
        "object": object_id(SUITE, secret("organisation"), "patient-1").hex(),
        "random": SUITE.digest(b"kl.random\0" + own).hex(),
        "opening": whole.to_json().decode(),
        "opening_of_tail": whole.only(PartLabel.TAIL).to_json().decode(),
    }


def state() -> list[dict[str, object]]:
    """Two blocks on two namespaces: values, a deletion, logs that grow."""
    emr, trial = namespace_prefix("emr", 0), namespace_prefix("trial", 3)
    blocks = (
        WriteSet(
            maps=((emr + b"key", b"value"), (emr + b"other", b"1"), (trial + b"key", b"2")),
            logs=(LogWrite(emr + b"log", 0, (LogEntry(b"k", b"first"), LogEntry(b"k", b"2nd"))),),
        ),
        WriteSet(
            maps=((emr + b"other", None), (emr + b"third", b"3"), (trial + b"key", None)),
            logs=(LogWrite(emr + b"log", 2, (LogEntry(b"l", b"third"),)),),
        ),
    )
    store, found = MemoryTrees(), list[dict[str, object]]()
    tree = StateTree(SUITE.digest, store)
    for height, writes in enumerate(blocks):
        changes = tree.apply(height, writes)
        store.commit(height, writes, changes)
        found.append(
            {
                "writes": encode(writes).hex(),
                "namespaces_root": changes.namespaces_root.hex(),
                "writes_root": changes.writes_root.hex(),
                "state_root": changes.state_root.hex(),
            }
        )
    return found


def replay() -> list[dict[str, object]]:
    """A window that grows, forgets its first span, and forgets everything."""
    window, found = CommittedWindow(SUITE), []
    start = 1_760_000_000_000
    for height, (after_ms, counts) in enumerate(
        (
            (0, {("emr", 0): 2, ("trial", 1): 1}),
            (9_999, {("emr", 0): 1}),
            (10_000, {("emr", 2): 1, NO_NAMESPACE: 1}),
            (600_000, {}),
            (609_999, {("emr", 0): 1}),
            (610_000, {}),
            (1_300_000, {}),
        ),
        start=1,
    ):
        entries = {
            key: [
                (secret(f"{height} {key} {number}"), start + after_ms + number, number % 2 == 0)
                for number in range(count)
            ]
            for key, count in counts.items()
        }
        block = replay_block(height, start + after_ms, entries)
        window.add(block)
        found.append({"block": encode(block).hex(), "root": window.root().hex()})
    return found


def blocks(found: TwoBlocks) -> dict[str, object]:
    digests = tuple(item.digest for item in found.batches)
    block = Block(header=found.header, certificate=b"", batches=digests)
    return {
        "batches": [batch(item) for item in found.batches],
        "header": found.header.hex(),
        "hash": SUITE.digest(b"kl.header\0" + found.header).hex(),
        "certificate": found.certificate.hex(),
        "certificate_hash": certificate_hash(found.certificate, SUITE).hex(),
        "block": encode(block).hex(),
        "receipts": [
            {"module": module, "level": level, "receipts": [item.hex() for item in items]}
            for (module, level), items in sorted(found.receipts.items())
        ],
        "next_header": found.next_header.hex(),
        "next_certificate": found.next_certificate.hex(),
    }


def refused(found: TwoBlocks) -> list[dict[str, object]]:
    """Bytes that an implementation must refuse, each with our reason."""
    wire = next(item for item in found.batches[0].transactions if not item.is_envelope).wire
    proof = found.proof(found.batches[0].transactions[0]).to_json().decode()
    cases = [
        ("transaction", "non_canonical", b"\xdc\x00\x04" + wire[1:]),
        ("transaction", "malformed", wire + b"\0"),
        ("transaction", "malformed", wire[:-1]),
        ("transaction", "wrong_chain", wire.replace(CHAIN.genesis_hash, bytes(32), 1)),
        ("certificate", "non_canonical", b"\x94\xcc\x07" + found.certificate[2:]),
        ("header", "malformed", found.header + b"\0"),
        ("proof", "bad_proof", proof.replace(":", ": ", 1).encode()),
        ("proof", "bad_proof", proof.replace('"operation":0', '"operation":0.0').encode()),
        ("proof", "bad_proof", (proof + "\n\n").encode()),
    ]
    return [{"kind": kind, "reason": reason, "bytes": data.hex()} for kind, reason, data in cases]


def make() -> dict[str, object]:
    """All vectors, in the order of `docs/format.md`."""
    names = (*VALIDATOR_NAMES, "hospital", "resident", "board a", "board b", "board c")
    found = two_blocks(busy_batches())
    first, second = found.batches
    envelope = next(item for item in first.transactions if item.is_envelope)
    single = next(item for item in first.transactions if not item.is_envelope)
    return {
        "format": "kanglian-vectors/1",
        "suite": "international",
        "secrets": {name: secret(name).hex() for name in names},
        "public_keys": {name: key(name).hex() for name in names if name != "resident"},
        "genesis": genesis(),
        "addresses": addresses(),
        "transactions": {
            "single": transaction(single),
            "envelope": transaction(envelope),
            "multi_signature": transaction(
                next(item for item in second.transactions if item.script == BOARD.script)
            ),
            "p256": transaction(
                next(item for item in second.transactions if item.script == RESIDENT.script)
            ),
        },
        "height": HEIGHT,
        "blocks": blocks(found),
        "empty_root": empty_root(SUITE).hex(),
        "votes": votes(),
        "proposal": proposal(),
        "merkle": merkle(),
        "history": history(),
        "state": state(),
        "replay": replay(),
        "data_index": data_index(),
        "proofs": [
            {
                "operation": operation_ids(item, SUITE)[index].hex(),
                "text": found.proof(item, index).to_json().decode(),
            }
            for item, index in ((single, 0), (envelope, 1))
        ],
        "refused": refused(found),
    }


def text_of(vectors: dict[str, object]) -> str:
    """The text of the file."""
    return json.dumps(vectors, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text_of(make()), encoding="utf-8")
