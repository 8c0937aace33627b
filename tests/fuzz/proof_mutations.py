"""Mutations of proofs: documents bent where a verifier of `docs/format.md` section 11 may break.

Two families. Most bend a valid proof, which no verifier may then accept, unless only its
certificates changed and both are still valid. Some are *recertified*: a bent header, receipt or
transaction that everybody who has to nevertheless signed, so that what is behind the hashes is
reached as well; there, two verifiers only have to agree. The same generator makes the same proof.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ledger.addresses import AddressKind
from ledger.codec import encode
from ledger.crypto.keys import KeyType
from ledger.merkle import root_of_entries
from ledger.votes import VoteType, vote_digest
from tests.fuzz.mutations import INTEGERS, _bent, _leaf_bent, decode, mutated
from tests.fuzz.mutations import encode as encode_anything
from tests.unit.ledger.worlds import (
    BOARD,
    CHAIN,
    HOSPITAL,
    P256_ORDER,
    RESIDENT,
    SUITE,
    VALIDATOR_NAMES,
    VALIDATOR_SECRETS,
    key,
    secret,
    sign_p256,
)

Proof = dict[str, object]
POSITIONS = (
    *("transaction_position", "batch_position", "namespace_position"),
    *("receipt_position", "receipts_position"),
)
RECORDS = ("transaction", "header", "next_header", "certificate", "next_certificate", "receipt")
CERTIFICATES = ("certificate", "next_certificate")
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
LONE: Proof = {"count": 1, "index": 0, "path": []}


@dataclass(frozen=True)
class Mutant:
    """A bent proof: which kind of bending, its bytes, and whether all who have to signed it."""

    kind: str
    data: bytes
    is_recertified: bool = False


def text_of(document: object) -> bytes:
    """The one form of a document."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def registration(document: Proof) -> Proof:
    """The members of the registration inside either form; the same object, to be changed."""
    return document.get("registration", document)


def pick(generator: Random, items):
    """One of a sequence; quicker than `choice`."""
    return items[int(generator.random() * len(items))]


# ---- valid proofs, bent -------------------------------------------------------------------------


def hex_changed(generator: Random, document: Proof, _other: Proof) -> None:
    own = registration(document)
    member = pick(generator, (*RECORDS, "batch"))
    data = bytearray.fromhex(own[member])
    at = int(generator.random() * len(data))
    match int(generator.random() * 5):
        case 0 | 1:
            data[at] ^= 1 << int(generator.random() * 8)
        case 2:
            data[at] = int(generator.random() * 256)
        case 3:
            del data[at:]
        case _:
            data.insert(at, 0)
    own[member] = bytes(data).hex()


def path_changed(generator: Random, document: Proof, other: Proof) -> None:
    position = registration(document)[pick(generator, POSITIONS)]
    path = position["path"]
    at = int(generator.random() * (len(path) + 1))
    match int(generator.random() * 8):
        case 0 if path:
            del path[at % len(path)]
        case 1:
            path.insert(at, generator.randbytes(32).hex())
        case 2 if len(path) > 1:
            path[0], path[-1] = path[-1], path[0]
        case 3 if path:
            path.insert(at, pick(generator, path))
        case 4:
            del path[at:]
        case 5:
            path[:] = registration(other)[pick(generator, POSITIONS)]["path"]
        case 6 if path:
            step = bytearray.fromhex(pick(generator, path))
            step[int(generator.random() * 32)] ^= 1 << int(generator.random() * 8)
            path[at % len(path)] = step.hex()
        case _:
            path.extend([generator.randbytes(32).hex()] * int(1 + generator.random() * 70))


def number_changed(generator: Random, document: Proof, _other: Proof) -> None:
    own = registration(document)
    place = pick(generator, (*POSITIONS, *POSITIONS, "operation", "namespace_transactions"))
    holder, member = own, place
    if place in POSITIONS:
        holder, member = own[place], pick(generator, ("index", "count"))
    value = holder[member]
    holder[member] = pick(
        generator, (value + 1, value - 1, value ^ 1, value * 2, *INTEGERS, 2**53 - 1, True, None)
    )


def members_exchanged(generator: Random, document: Proof, other: Proof) -> None:
    own, foreign = registration(document), registration(other)
    for _ in range(1 + int(generator.random() * 3)):
        member = pick(generator, (*RECORDS, *POSITIONS, "batch", "operation"))
        own[member] = foreign[member]


def halves_exchanged(generator: Random, document: Proof, other: Proof) -> None:
    """All that belongs together taken from another proof, or the two headers swapped."""
    own, foreign = registration(document), registration(other)
    groups = (
        ("header", "certificate"),
        ("next_header", "next_certificate"),
        ("header", "certificate", "next_header", "next_certificate"),
        ("receipt", "receipt_position"),
        ("receipt", "receipt_position", "receipts_position"),
        ("transaction", "transaction_position", "operation"),
        ("batch", "transaction", "transaction_position", "batch_position", "operation"),
    )
    chosen = int(generator.random() * (len(groups) + 2))
    if chosen < len(groups):
        for member in groups[chosen]:
            own[member] = foreign[member]
        return
    pairs = [("header", "next_header"), ("certificate", "next_certificate")]
    for left, right in pairs if chosen == len(groups) else pairs[1:]:
        own[left], own[right] = own[right], own[left]


def signatures_changed(generator: Random, document: Proof, other: Proof) -> None:
    """Signers left out, doubled, in another order, renamed; signatures mirrored, zero, foreign."""
    own = registration(document)
    member = pick(generator, (*CERTIFICATES, "transaction"))
    place = 2 if member == "transaction" else 3
    record = decode(bytes.fromhex(own[member]))
    signatures = record[place]
    at = int(generator.random() * len(signatures))
    index, signature = signatures[at]
    match int(generator.random() * 10):
        case 9:  # the same array with a longer head
            own[member] = "dc0004" + own[member][2:]
            return
        case 0:
            del signatures[at]
        case 1:
            signatures.insert(at, signatures[at])
        case 2:
            signatures.reverse()
        case 3:
            signatures[at] = [pick(generator, (index + 1, index ^ 1, 127, 128, -1)), signature]
        case 4:
            signatures[at] = [index, mirrored(signature, pick(generator, (0, 1)))]
        case 5:
            half = pick(generator, (bytes(32), b"\xff" * 32, SECP256K1_ORDER.to_bytes(32, "big")))
            whole = half + signature[32:] if generator.random() < 0.5 else signature[:32] + half
            signatures[at] = [index, whole]
        case 6:
            forged = bytearray(signature)
            forged[int(generator.random() * 64)] ^= 1 << int(generator.random() * 8)
            signatures[at] = [index, bytes(forged)]
        case 7:
            foreign = decode(bytes.fromhex(registration(other)[member]))[place]
            signatures[at] = [index, foreign[0][1]]
        case _:
            signatures.append([len(signatures), signature])
    own[member] = encode_anything(record).hex()


def mirrored(signature: bytes, curve: int) -> bytes:
    """The other signature that the equation of ECDSA accepts: s of the higher half."""
    order = (SECP256K1_ORDER, P256_ORDER)[curve]
    s = int.from_bytes(signature[32:], "big")
    return signature[:32] + ((order - s) % 2**256).to_bytes(32, "big")


def record_bent(generator: Random, document: Proof, _other: Proof) -> None:
    own = registration(document)
    member = pick(generator, RECORDS)
    own[member] = encode_anything(_bent(generator, decode(bytes.fromhex(own[member])), 0)).hex()


def members_changed(generator: Random, document: Proof, other: Proof) -> None:
    """A member missing, added, renamed or of another type, in any of the objects."""
    own = registration(document)
    objects = [document, own, *(own[place] for place in POSITIONS)]
    if "changes" in document:
        objects += [document["changes"][0], document["changes"][0]["validators"][0]]
    chosen = pick(generator, objects)
    member = pick(generator, sorted(chosen))
    match int(generator.random() * 6):
        case 0:
            del chosen[member]
        case 1:
            chosen[pick(generator, ("a", "zone", member + "2", ""))] = chosen[member]
        case 2:
            chosen[member] = other.get(member)
        case 3 if isinstance(chosen[member], str):
            chosen[member] = pick(
                generator,
                (chosen[member].upper(), chosen[member] + "0", "", chosen[member] + "\n"),
            )
        case _:
            leaf = _leaf_bent(generator, chosen[member])
            chosen[member] = leaf.hex() if isinstance(leaf, bytes) else leaf


def changes_bent(generator: Random, document: Proof, other: Proof) -> None:
    """Steps between sets left out, doubled, in another order or exchanged; sets with others."""
    if "changes" not in document:
        if "changes" not in other:
            document["format"] = "kanglian-proof/2"
            return
        whole = {"changes": other["changes"], "format": "kanglian-proof/2"}
        whole["registration"] = dict(document)
        document.clear()
        document.update(whole)
        return
    changes = document["changes"]
    at = int(generator.random() * len(changes))
    change, named = changes[at], changes[at]["validators"]
    match int(generator.random() * 9):
        case 0:
            del changes[at]
        case 1:
            changes.insert(at, change)
        case 2:
            changes.reverse()
        case 3:
            del named[int(generator.random() * len(named))]
        case 4:
            named.reverse()
        case 5:
            named.append(pick(generator, pick(generator, changes)["validators"]))
        case 6:
            member = pick(generator, ("header", "certificate", "validators"))
            change[member] = pick(generator, changes)[member]
        case 7:
            holder = pick(generator, (change, pick(generator, named)))
            member = pick(generator, sorted(set(holder) - {"validators"}))
            data = bytearray.fromhex(holder[member])
            data[int(generator.random() * len(data))] ^= 1 << int(generator.random() * 8)
            holder[member] = bytes(data).hex()
        case _:
            inner = registration(document)
            document.clear()
            document.update(inner)


BENDERS: tuple[Callable[[Random, Proof, Proof], None], ...] = (
    hex_changed,
    path_changed,
    path_changed,
    number_changed,
    members_exchanged,
    halves_exchanged,
    signatures_changed,
    signatures_changed,
    record_bent,
    members_changed,
    changes_bent,
)


def bent(generator: Random, data: bytes, others: list[bytes]) -> Mutant:
    """A proof with one place bent, now and then two, or its text bent as any JSON is."""
    if generator.random() < 0.06:
        return Mutant("text", mutated(generator, [data], is_json=True))
    document, other = json.loads(data), json.loads(pick(generator, others))
    bender = pick(generator, BENDERS)
    bender(generator, document, other)
    if bender is path_changed and generator.random() < 0.1:
        hex_changed(generator, document, other)
    return Mutant(bender.__name__, text_of(document))


# ---- recertified: bent behind the hashes --------------------------------------------------------

NAMED_KEYS = {key(name): name for name in ("hospital", "board a", "board b", "board c", "node x")}
RESIDENT_KEY = key("resident", KeyType.P256)


def sign_by(public: bytes, digest: bytes) -> bytes:
    """The signature of a named key; zeros for one that nobody has."""
    if public == RESIDENT_KEY:
        return sign_p256(secret("resident"), digest)
    name = NAMED_KEYS.get(public)
    return SUITE.sign(secret(name), digest) if name else bytes(64)


def recertified(generator: Random, data: bytes) -> Mutant:
    """A proof of the hand-made world whose bent part was included, executed and certified."""
    own = json.loads(data)
    header, following = (decode(bytes.fromhex(own[name])) for name in ("header", "next_header"))
    target = pick(generator, ("transaction", "script", "body", "receipt", "header", "following"))
    if target in {"transaction", "script", "body"}:
        identity = _transaction(generator, own, target)
        header[9] = _lone_batch(generator, own)
        receipt = decode(bytes.fromhex(own["receipt"]))
        receipt[0], own["operation"] = identity, 0
        own["receipt"] = encode_anything(receipt).hex()
    if target == "receipt":
        receipt = decode(bytes.fromhex(own["receipt"]))
        own["receipt"] = encode_anything(_bent(generator, receipt, 0)).hex()
    if target not in {"header", "following"}:
        following[14] = _lone_receipt(own)
    if target == "header":
        header = _bent(generator, header, 0)
    own["header"], own["certificate"], block = _certified(generator, header, 7)
    following[3] = block
    if target == "following":
        following = _bent(generator, following, 0)
    own["next_header"], own["next_certificate"], _ = _certified(generator, following, 8)
    return Mutant(f"recertified {target}", text_of(own), is_recertified=True)


def _certified(generator: Random, header: object, height: int) -> tuple[str, str, bytes]:
    """A header in hexadecimal, a certificate of it that may be odd, and its hash."""
    data = encode_anything(header)
    block = SUITE.digest(b"kl.header\0" + data)
    number = 0
    if generator.random() < 0.1:
        number = pick(generator, [item for item in INTEGERS if 0 <= item < 2**63])
    vote = vote_digest(CHAIN, VoteType.PRECOMMIT, height, number, block)
    signers = pick(generator, ((0, 1, 2), (1, 2, 3), (0, 1, 2, 3)))
    signatures = [[index, SUITE.sign(VALIDATOR_SECRETS[index], vote)] for index in signers]
    return data.hex(), encode_anything([height, number, block, signatures]).hex(), block


def _lone_batch(generator: Random, own: Proof) -> bytes:
    """The batches root of a block that holds this transaction alone; sets the positions."""
    for place in POSITIONS[:3]:
        own[place] = LONE
    wire = bytes.fromhex(own["transaction"])
    leaves = root_of_entries(SUITE.digest, [b"kl.transaction-leaf\0" + wire])
    entry = encode((bytes.fromhex(own["batch"]), 1, leaves))
    share = root_of_entries(SUITE.digest, [b"kl.namespace-batch\0" + entry])
    count = pick(generator, (1, 1, 1, 0, 2, 2**53 - 1))
    own["namespace_transactions"] = count
    entry = encode_anything([*namespace(own), count, share])
    return root_of_entries(SUITE.digest, [b"kl.namespace\0" + entry])


def _lone_receipt(own: Proof) -> bytes:
    """The receipts root of a block with this receipt alone; sets the positions."""
    for place in POSITIONS[3:]:
        own[place] = LONE
    entry = b"kl.receipt\0" + bytes.fromhex(own["receipt"])
    entry = encode_anything([*namespace(own), 1, root_of_entries(SUITE.digest, [entry])])
    return root_of_entries(SUITE.digest, [b"kl.namespace-receipts\0" + entry])


def namespace(own: Proof) -> list[object]:
    """Module and level that a wire names, whatever they are; zeros when it names none."""
    try:
        return decode(decode(bytes.fromhex(own["transaction"]))[0])[3:5]
    except (TypeError, ValueError, IndexError):
        return ["emr", 0]


def _transaction(generator: Random, own: Proof, target: str) -> bytes:
    """Puts a bent transaction, signed by its keys, into the proof; the id of its operation 0."""
    body_bytes, script, _, operations = decode(bytes.fromhex(own["transaction"]))
    body = decode(body_bytes)
    if target == "script":
        script = encode_anything(_script(generator))
        address = SUITE.digest(b"kl.address\0" + script)
        body[5 if generator.random() < 0.5 else 6] = address
    if target == "body":
        body = _body(generator, body)
        script = pick(generator, (script, HOSPITAL.script, BOARD.script, RESIDENT.script))
        if generator.random() < 0.8 and isinstance(body, list) and len(body) > 6:
            body[5], body[6] = SUITE.digest(b"kl.address\0" + script), None
    body_bytes = encode_anything(body)
    identity = SUITE.digest(b"kl.transaction\0" + body_bytes)
    wire = [body_bytes, script, _signatures(generator, script, identity), operations]
    if target == "transaction":
        wire = _bent(generator, wire, 0)
    own["transaction"] = encode_anything(wire).hex()
    if operations is None:
        return identity
    return SUITE.digest(b"kl.operation-id\0" + identity + bytes(4))


def _body(generator: Random, body: list[object]) -> object:
    """One field at its limits, or any place bent."""
    if generator.random() < 0.4:
        return _bent(generator, body, 0)
    if generator.random() < 0.3:
        registered = decode(body[11][3]) if body[11][0] == 0 else None
        kind = pick(generator, (0, 1, 2, 2, 3, 4))
        arguments = pick(generator, (registered, [bytes(32), 7, kind, registered]))
        if generator.random() < 0.6 and arguments:
            arguments = _bent(generator, arguments, 0)
        method = pick(generator, ("register", "supersede", "other"))
        body[11] = [0, "data_index", method, encode_anything(arguments)]
        return body
    names = ("", "a", "a" * 32, "a" * 33, "A", "a-b", "a_9", "9a", "é", "a\n")
    field = int(generator.random() * 12)
    body[field] = {
        3: pick(generator, names),
        4: pick(generator, INTEGERS),
        7: bytes(pick(generator, (15, 16, 17))),
        8: pick(generator, INTEGERS),
        9: pick(generator, INTEGERS),
        10: pick(generator, (None, bytes(32), bytes(31))),
        11: [
            0,
            pick(generator, names),
            pick(generator, names),
            bytes(pick(generator, (0, 1, 60_000, 70_000))),
        ],
    }.get(field, body[field])
    return body


def _script(generator: Random) -> list[object]:
    """A script of named keys that may break any rule of section 3."""
    count = pick(generator, (1, 1, 1, 2, 3, 4, 5))
    keys = sorted(generator.sample([*NAMED_KEYS, RESIDENT_KEY], count))
    if generator.random() < 0.15:
        keys = pick(generator, (keys[::-1], [*keys, keys[-1]], [], keys * 4))
    if generator.random() < 0.1:
        keys.append(
            pick(
                generator, (bytes(34), b"\x02" + bytes(33), b"\x03" + keys[0][1:] if keys else b"")
            )
        )
    threshold = pick(generator, (1, 1, 2, 3, len(keys), 0, len(keys) + 1))
    kind = pick(generator, (*AddressKind, 2, 2, 3))
    return [int(kind), threshold, keys]


def _signatures(generator: Random, script: bytes, identity: bytes) -> list[object]:
    """As many as the script wants, by its first or last keys; now and then one more or less."""
    try:
        _, threshold, keys = decode(script)
        wanted = max(0, min(int(threshold) + pick(generator, (0, 0, 0, 0, 1, -1)), len(keys)))
        first = pick(generator, (0, len(keys) - wanted))
        return [[at, sign_by(keys[at], identity)] for at in range(first, first + wanted)]
    except (TypeError, ValueError):
        return [[0, bytes(64)]]


__all__ = ["VALIDATOR_NAMES", "Mutant", "bent", "recertified", "registration", "text_of"]
