"""A second reading of docs/format.md, from the vectors alone and without our own code.

It imports nothing of Kanglian: SHA-256, msgpack, ECDSA and the text of the document; the
formulas are in `by_definition.py`. What it can check, another implementation can.
"""

import hmac
import json
from base64 import b64decode
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import msgpack
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature

from tests.vectors.by_definition import (
    head,
    leaf,
    namespace_tree,
    node,
    root,
    sized,
    sparse,
    tagged,
    written,
)

VECTORS = json.loads(Path(__file__).with_name("format-2.json").read_text(encoding="utf-8"))
CURVES = {1: ec.SECP256K1(), 2: ec.SECP256R1()}


def verify(key: bytes, digest: bytes, signature: bytes) -> None:
    """Section 1.4: the type byte chooses curve and message."""
    public = ec.EllipticCurvePublicKey.from_encoded_point(CURVES[key[0]], key[1:])
    message = digest if key[0] == 1 else sha256(digest).digest()
    r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
    public.verify(encode_dss_signature(r, s), message, ec.ECDSA(Prehashed(hashes.SHA256())))


def from_path(entry: bytes, position: dict) -> bytes:
    """The sized root a path leads to, from the top down instead of from the leaf up."""
    path = [bytes.fromhex(step) for step in position["path"]]

    def walk(index: int, count: int) -> bytes:
        if count == 1:
            return leaf(entry)
        step, split = path.pop(), 1 << (count - 1).bit_length() - 1
        if index < split:
            return node(walk(index, split), step)
        return node(step, walk(index - split, count - split))

    found = walk(position["index"], position["count"])
    assert not path
    return sized(position["count"], found)


GENESIS_HASH = bytes.fromhex(VECTORS["genesis"]["hash"])
GROUP = VECTORS["genesis"]["json"]["group"]


def positional(value: object) -> object:
    if isinstance(value, dict):
        return [positional(item) for item in value.values()]
    return [positional(item) for item in value] if isinstance(value, list) else value


def validators() -> list[list[bytes]]:
    """Section 2: address and key of every master, ascending."""
    keys = [bytes.fromhex(item["key"]) for item in VECTORS["genesis"]["json"]["nodes"]]
    return sorted([tagged("kl.address", msgpack.packb([0, 1, [key]])), key] for key in keys)


def test_genesis_and_validators():
    array = positional(VECTORS["genesis"]["json"])
    assert tagged("kl.genesis", msgpack.packb(array)) == GENESIS_HASH
    assert [address.hex() for address, _ in validators()] == VECTORS["genesis"]["validators"]
    found = tagged("kl.validators", msgpack.packb(validators())).hex()
    assert found == VECTORS["genesis"]["validators_hash"]
    topology = [0, [address for address, _ in validators()]]
    found = tagged("kl.topology", msgpack.packb(topology)).hex()
    assert found == VECTORS["genesis"]["topology_hash"]


def test_addresses():
    for item in VECTORS["addresses"]:
        script = bytes.fromhex(item["script"])
        assert tagged("kl.address", script).hex() == item["address"]
        kind = msgpack.unpackb(script)[0]
        assert item["text"][:3] == ["kn1", "kt1", "km1"][kind]


def test_transactions():
    for item in VECTORS["transactions"].values():
        wire = bytes.fromhex(item["wire"])
        body, script, signatures, operations = msgpack.unpackb(wire)
        identity = tagged("kl.transaction", body)
        assert (body.hex(), identity.hex()) == (item["body"], item["id"])
        assert leaf(b"kl.transaction-leaf\0" + wire).hex() == item["leaf"]
        _, threshold, keys = msgpack.unpackb(script)
        assert len(signatures) == threshold
        for index, signature in signatures:
            verify(keys[index], identity, signature)
        if operations is None:
            assert item["operation_ids"] == [item["id"]]
        else:
            entries = [b"kl.operation\0" + msgpack.packb(call) for call in operations]
            assert root(entries).hex() == item["operations_root"]
            assert msgpack.unpackb(body)[-1][:3] == [1, len(operations), root(entries)]
            ids = [
                tagged("kl.operation-id", identity + index.to_bytes(4, "big")).hex()
                for index in range(len(operations))
            ]
            assert ids == item["operation_ids"]


def batch_shares() -> dict[tuple[str, int], list[list]]:
    """Section 5: per namespace the digest, count and root of each batch, from the wires."""
    shares: dict[tuple[str, int], list[list]] = {}
    for item in VECTORS["blocks"]["batches"]:
        header, signature, wires = msgpack.unpackb(bytes.fromhex(item["wire"]))
        digest = tagged("kl.batch", header)
        assert digest.hex() == item["digest"]
        fields = msgpack.unpackb(header)
        verify(dict(map(tuple, validators()))[fields[3]], digest, signature)
        for module, level, count, summary_root in fields[9]:
            own = [b"kl.transaction-leaf\0" + wire for wire in wires[:count]]
            del wires[:count]
            assert root(own) == summary_root
            shares.setdefault((module, level), []).append([digest, count, summary_root])
        assert wires == []
    return shares


def test_blocks():
    blocks = VECTORS["blocks"]
    entries = []
    for (module, level), items in sorted(batch_shares().items()):
        share = root([b"kl.namespace-batch\0" + msgpack.packb(item) for item in items])
        entry = [module, level, sum(item[1] for item in items), share]
        entries.append(b"kl.namespace\0" + msgpack.packb(entry))
    header = msgpack.unpackb(bytes.fromhex(blocks["header"]))
    assert header[9] == root(entries)
    following = msgpack.unpackb(bytes.fromhex(blocks["next_header"]))
    assert following[3].hex() == blocks["hash"]
    assert following[11].hex() == blocks["certificate_hash"]
    assert tagged("kl.header", bytes.fromhex(blocks["header"])).hex() == blocks["hash"]
    certificate = tagged("kl.certificate", bytes.fromhex(blocks["certificate"]))
    assert certificate.hex() == blocks["certificate_hash"]
    entries = []
    for item in blocks["receipts"]:
        own = [b"kl.receipt\0" + bytes.fromhex(receipt) for receipt in item["receipts"]]
        entry = [item["module"], item["level"], len(own), root(own)]
        entries.append(b"kl.namespace-receipts\0" + msgpack.packb(entry))
    assert following[14] == root(entries)
    assert root([]).hex() == VECTORS["empty_root"]


def certified(header: bytes, certificate: bytes) -> list:
    """Section 6.3: the fields of a header that a quorum signed."""
    fields = msgpack.unpackb(header)
    height, round_number, block, signatures = msgpack.unpackb(certificate)
    assert (height, block) == (fields[2], tagged("kl.header", header))
    assert len(signatures) >= 2 * len(validators()) // 3 + 1
    assert all(low[0] < high[0] for low, high in pairwise(signatures))
    vote = [GENESIS_HASH, GROUP, 2, height, round_number, block, -1]
    digest = tagged("kl.vote", msgpack.packb(vote))
    for index, signature in signatures:
        verify(validators()[index][1], digest, signature)
    assert fields[6] == tagged("kl.validators", msgpack.packb(validators()))
    return fields


def test_votes():
    for vote in VECTORS["votes"]:
        block = vote["block_hash"] and bytes.fromhex(vote["block_hash"])
        array = [GENESIS_HASH, GROUP, vote["type"], vote["height"], vote["round"], block]
        digest = tagged("kl.vote", msgpack.packb([*array, vote["valid_round"]]))
        assert digest.hex() == vote["digest"]
        verify(validators()[0][1], digest, bytes.fromhex(vote["signature_of_validator_0"]))
    item = VECTORS["proposal"]
    array = [GENESIS_HASH, GROUP, item["height"], item["round"], bytes.fromhex(item["block_hash"])]
    digest = tagged("kl.proposal", msgpack.packb([*array, item["valid_round"]]))
    assert digest.hex() == item["digest"]
    verify(validators()[0][1], digest, bytes.fromhex(item["signature_of_validator_0"]))


def test_trees():
    item = VECTORS["merkle"]
    entries = [bytes.fromhex(entry) for entry in item["entries"]]
    for size in range(8):
        assert head([leaf(entry) for entry in entries[:size]]).hex() == item["heads"][size]
        assert root(entries[:size]).hex() == item["sized_roots"][size]
    for index, path in enumerate(item["inclusion_paths_of_7"]):
        position = {"index": index, "count": 7, "path": path}
        assert from_path(entries[index], position).hex() == item["sized_roots"][7]
    item = VECTORS["history"]
    entries = [b"kl.history\0" + bytes.fromhex(block) for block in item["block_hashes"]]
    assert root(entries).hex() == item["sized_root"]
    count, peaks = msgpack.unpackb(bytes.fromhex(item["frontier"]))
    leaves = [leaf(entry) for entry in entries]
    assert (count, peaks) == (7, [head(leaves[:4]), head(leaves[4:6]), head(leaves[6:])])
    position = {"index": 4, "count": 7, "path": item["inclusion_path_of_4"]}
    assert from_path(entries[4], position).hex() == item["sized_root"]


def test_state():
    maps, logs, heights = {}, {}, {}
    namespaces = [b"emr\0\0", b"trial\0\3"]
    for height, item in enumerate(VECTORS["state"]):
        new_maps, new_logs = msgpack.unpackb(bytes.fromhex(item["writes"]))
        maps |= dict(new_maps)
        for log, first, entries in new_logs:
            assert len(logs.setdefault(log, [])) == first
            logs[log] += entries
            heights[log] = height
        roots = {name: namespace_tree(name, maps, logs, heights) for name in namespaces}
        pairs = {
            tagged("kl.state-key", name): one for name, one in roots.items() if one != bytes(32)
        }
        namespaces_root = sparse(pairs)
        assert namespaces_root.hex() == item["namespaces_root"]
        entries = [written(name, new_maps, new_logs) for name in namespaces]
        writes_root = root([entry for entry in entries if entry is not None])
        assert writes_root.hex() == item["writes_root"]
        assert tagged("kl.state", namespaces_root + writes_root).hex() == item["state_root"]


def replay_root(blocks: list[list], time: int) -> bytes:
    """Section 8: the window after a block of this time, blocks as [height, time, namespaces]."""
    oldest = (time - 600_000) // 10_000
    spans: dict[tuple[str, int], dict[int, list[bytes]]] = {}
    for height, block_time, namespaces in blocks:
        for module, level, count, entries in namespaces:
            assert len(msgpack.unpackb(entries)) == count > 0
            entry = msgpack.packb([height, count, tagged("kl.replay-entries", entries)])
            if block_time // 10_000 >= oldest:
                found = spans.setdefault((module, level), {})
                found.setdefault(block_time // 10_000, []).append(b"kl.replay-block\0" + entry)
    namespaces = []
    for (module, level), found in sorted(spans.items()):
        entries = [
            b"kl.replay-span\0" + msgpack.packb([span, root(items)])
            for span, items in sorted(found.items())
        ]
        entry = msgpack.packb([module, level, root(entries)])
        namespaces.append(b"kl.replay-namespace\0" + entry)
    return root(namespaces)


def test_replay_window():
    blocks = [msgpack.unpackb(bytes.fromhex(item["block"])) for item in VECTORS["replay"]]
    for number, item in enumerate(VECTORS["replay"]):
        seen = blocks[: number + 1]
        assert replay_root(seen, seen[-1][1]).hex() == item["root"]


def test_the_next_header_commits_to_the_window():
    """Every transaction of the published block succeeded, so its entries follow from it."""
    entries: dict[tuple[str, int], list] = {}
    for item in VECTORS["blocks"]["batches"]:
        for wire in msgpack.unpackb(bytes.fromhex(item["wire"]))[2]:
            body = msgpack.unpackb(wire)[0]
            fields = msgpack.unpackb(body)
            entry = [tagged("kl.transaction", body), fields[8], True]
            entries.setdefault((fields[3], fields[4]), []).append(entry)
    namespaces = [
        [module, level, len(found), msgpack.packb(found)]
        for (module, level), found in sorted(entries.items())
    ]
    header = msgpack.unpackb(bytes.fromhex(VECTORS["blocks"]["header"]))
    following = msgpack.unpackb(bytes.fromhex(VECTORS["blocks"]["next_header"]))
    assert following[16] == replay_root([[header[2], header[4], namespaces]], header[4])


def test_data_index():
    item = VECTORS["data_index"]
    secret, account = bytes.fromhex(item["secret"]), bytes.fromhex(item["account"])
    assert tagged("kl.random", secret).hex() == item["random"]
    keyed = hmac.digest(
        bytes.fromhex(item["organisation_secret"]),
        b"kl.object\0" + item["identifier"].encode(),
        "sha256",
    )
    assert keyed.hex() == item["object"]
    opened = json.loads(item["opening"])["parts"]
    for label, part in item["parts"].items():
        salt = hmac.digest(secret, b"kl.salt\0" + label.encode(), "sha256")
        content = bytes.fromhex(part["bytes"])
        commitment = tagged("kl.commitment", msgpack.packb([account, label, salt, content]))
        assert (salt.hex(), commitment.hex()) == (part["salt"], part["commitment"])
        assert opened[label]["salt"] == part["salt"]
        if opened[label]["content"] is not None:
            assert b64decode(opened[label]["content"]) == content
    for text in (item["opening"], item["opening_of_tail"]):
        document = json.loads(text)
        canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert canonical == text


def test_proofs():
    for item in VECTORS["proofs"]:
        proof = json.loads(item["text"])
        raw = {name: bytes.fromhex(value) for name, value in proof.items() if is_hex(name, value)}
        body, _, _, operations = msgpack.unpackb(raw["transaction"])
        module, level = msgpack.unpackb(body)[3:5]
        operation = tagged("kl.transaction", body)
        if operations is not None:
            index = proof["operation"].to_bytes(4, "big")
            operation = tagged("kl.operation-id", operation + index)
        assert operation.hex() == item["operation"]
        header = certified(raw["header"], raw["certificate"])
        following = certified(raw["next_header"], raw["next_certificate"])
        assert following[2] == header[2] + 1
        assert following[3] == tagged("kl.header", raw["header"])
        own = proof["transaction_position"]
        entry = from_path(b"kl.transaction-leaf\0" + raw["transaction"], own)
        entry = msgpack.packb([raw["batch"], own["count"], entry])
        entry = from_path(b"kl.namespace-batch\0" + entry, proof["batch_position"])
        entry = msgpack.packb([module, level, proof["namespace_transactions"], entry])
        assert from_path(b"kl.namespace\0" + entry, proof["namespace_position"]) == header[9]
        own = proof["receipt_position"]
        entry = from_path(b"kl.receipt\0" + raw["receipt"], own)
        entry = b"kl.namespace-receipts\0" + msgpack.packb([module, level, own["count"], entry])
        assert from_path(entry, proof["receipts_position"]) == following[14]
        assert msgpack.unpackb(raw["receipt"])[:2] == [operation, 0]


def is_hex(name: str, value: object) -> bool:
    return isinstance(value, str) and name != "format"
