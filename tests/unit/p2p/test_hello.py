"""The hello: every refusal has its cause, and nothing that was overheard or bent passes."""

from collections.abc import Collection
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.codec import encode
from ledger.errors import LocalProtocolError
from ledger.ids import Address, GenesisHash, GroupId, Height
from p2p.frames import FrameKind
from p2p.hello import (
    LINK_VERSION,
    CertificateIdentity,
    Handshake,
    Hello,
    HelloIdentity,
    HelloRefusal,
    HelloRefusedError,
    LinkFacts,
    RemoteNode,
)
from tests.unit.p2p.memory_transport import GENESIS, GROUP, TestNode

ALICE, BOB, MALLORY = TestNode(1), TestNode(2), TestNode(3)


def side(
    node: TestNode,
    peer: TestNode,
    *,
    identity: HelloIdentity | None = None,
    peer_certificate: CertificateIdentity | None = None,
    expected: Address | None = None,
    nonce: bytes = bytes(32),
    nonces: Collection[bytes] = (),
) -> Handshake:
    facts = LinkFacts(node.certificate, peer_certificate or peer.certificate, expected)
    own, height = identity or node.identity(ALICE, BOB), Height(node.number)
    return Handshake(own, facts, nonce=nonce, height=height, nonces=nonces)


def refusal(handshake: Handshake, kind: FrameKind, payload: bytes) -> HelloRefusal:
    with pytest.raises(HelloRefusedError) as caught:
        handshake.receive(kind, payload)
    assert handshake.remote is None
    return caught.value.refusal


def hello_of(node: TestNode, **changes: object) -> bytes:
    values: dict[str, object] = {
        "version": LINK_VERSION,
        "genesis_hash": GENESIS,
        "group": GROUP,
        "address": node.address,
        "role": "master",
        "nonce": bytes(32),
        "height": 0,
    }
    return encode(Hello(**{**values, **changes}))


def test_two_admitted_nodes_accept_each_other() -> None:
    alice = side(ALICE, BOB, nonce=b"a" * 32, expected=BOB.address)
    bob = side(BOB, ALICE, nonce=b"b" * 32)
    proof_of_bob = bob.receive(*alice.opening)
    proof_of_alice = alice.receive(*bob.opening)
    assert alice.receive(*proof_of_bob) is None
    assert bob.receive(*proof_of_alice) is None
    assert alice.remote == RemoteNode(BOB.address, BOB.public_key, "master", Height(2))
    assert bob.remote == RemoteNode(ALICE.address, ALICE.public_key, "master", Height(1))


def test_nobody_is_accepted_before_the_proof() -> None:
    alice = side(ALICE, BOB)
    alice.receive(*side(BOB, ALICE).opening)
    assert alice.remote is None


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"version": LINK_VERSION + 1}, HelloRefusal.WRONG_VERSION),
        ({"genesis_hash": GenesisHash(bytes(32))}, HelloRefusal.WRONG_CHAIN),
        ({"group": GroupId(GROUP + 1)}, HelloRefusal.WRONG_CHAIN),
        ({"address": ALICE.address}, HelloRefusal.SELF),
        ({"address": MALLORY.address}, HelloRefusal.CERTIFICATE_MISMATCH),
        ({"address": bytes(31)}, HelloRefusal.MALFORMED),
        ({"nonce": bytes(31)}, HelloRefusal.MALFORMED),
        ({"role": "Not A Name"}, HelloRefusal.MALFORMED),
        ({"height": -1}, HelloRefusal.MALFORMED),
    ],
)
def test_a_hello_with_one_wrong_field_is_refused(changes, expected) -> None:
    assert refusal(side(ALICE, BOB), FrameKind.HELLO, hello_of(BOB, **changes)) is expected


def test_the_unchanged_hello_of_these_cases_is_answered() -> None:
    answer = side(ALICE, BOB).receive(FrameKind.HELLO, hello_of(BOB))
    assert answer is not None
    assert answer[0] is FrameKind.HELLO_PROOF


@pytest.mark.parametrize("payload", [b"", b"\xc0", b"garbage", hello_of(BOB) + b"\x00"])
def test_bytes_that_are_no_hello_are_malformed(payload) -> None:
    assert refusal(side(ALICE, BOB), FrameKind.HELLO, payload) is HelloRefusal.MALFORMED


@given(st.binary(max_size=300), st.integers(0, 160), st.integers(0, 255))
def test_garbage_and_a_changed_byte_end_in_a_refusal_or_an_answer(garbage, place, value) -> None:
    changed = bytearray(hello_of(BOB))
    changed[place % len(changed)] = value
    for payload in (garbage, bytes(changed)):
        try:
            answer = side(ALICE, BOB).receive(FrameKind.HELLO, payload)
        except HelloRefusedError:
            continue
        assert answer is not None
        assert payload != garbage


def test_a_node_off_the_allow_list_is_refused() -> None:
    alice = side(ALICE, BOB, identity=ALICE.identity(MALLORY))
    assert refusal(alice, FrameKind.HELLO, hello_of(BOB)) is HelloRefusal.NOT_ALLOWED


def test_another_admitted_node_than_the_dialled_one_is_refused() -> None:
    alice = side(ALICE, BOB, expected=MALLORY.address)
    assert refusal(alice, FrameKind.HELLO, hello_of(BOB)) is HelloRefusal.WRONG_NODE


@pytest.mark.parametrize("uris", [(), (MALLORY.uri,), (BOB.uri, MALLORY.uri), (BOB.uri.upper(),)])
def test_a_certificate_that_does_not_name_exactly_this_node_is_refused(uris) -> None:
    certificate = CertificateIdentity(BOB.certificate.public_key_hash, uris)
    alice = side(ALICE, BOB, peer_certificate=certificate)
    assert refusal(alice, FrameKind.HELLO, hello_of(BOB)) is HelloRefusal.CERTIFICATE_MISMATCH


def test_a_revoked_certificate_is_refused_whatever_else_is_right() -> None:
    identity = ALICE.identity(ALICE, BOB, revoked=[BOB.certificate.public_key_hash])
    alice = side(ALICE, BOB, identity=identity)
    assert refusal(alice, FrameKind.HELLO, hello_of(BOB)) is HelloRefusal.REVOKED


def test_a_proved_twin_is_told_from_ourselves_and_from_a_liar() -> None:
    nonces = {b"a" * 32}
    alice, twin = (side(ALICE, ALICE, nonce=letter * 32) for letter in (b"a", b"t"))
    answer = alice.receive(*twin.opening)
    assert answer is not None
    twins_answer = twin.receive(*alice.opening)
    assert refusal(alice, *twins_answer) is HelloRefusal.TWIN
    assert refusal(twin, *answer) is HelloRefusal.TWIN
    itself = side(ALICE, ALICE, nonce=b"b" * 32, nonces=nonces)
    assert refusal(itself, *alice.opening) is HelloRefusal.SELF
    liar = side(ALICE, ALICE, nonce=b"b" * 32)
    liar.receive(FrameKind.HELLO, hello_of(ALICE, nonce=b"l" * 32))
    assert refusal(liar, FrameKind.HELLO_PROOF, bytes(64)) is HelloRefusal.BAD_PROOF


def test_a_twin_that_answers_where_another_was_dialled_is_still_a_twin() -> None:
    alice = side(ALICE, ALICE, expected=BOB.address, nonce=b"a" * 32)
    twin = side(ALICE, ALICE, nonce=b"t" * 32)
    alice.receive(*twin.opening)
    assert refusal(alice, *twin.receive(*alice.opening)) is HelloRefusal.TWIN


def test_our_own_hello_reflected_is_refused() -> None:
    alice = side(ALICE, BOB)
    assert refusal(alice, *alice.opening) is HelloRefusal.SELF


def proof(signer: Handshake, peer: Handshake) -> bytes:
    answer = signer.receive(*peer.opening)
    assert answer is not None
    return answer[1]


def test_a_proof_replayed_on_a_later_link_is_refused() -> None:
    old = proof(side(BOB, ALICE), side(ALICE, BOB, nonce=b"1" * 32))
    alice = side(ALICE, BOB, nonce=b"2" * 32)
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, FrameKind.HELLO_PROOF, old) is HelloRefusal.BAD_PROOF


def test_our_own_proof_reflected_is_refused() -> None:
    alice = side(ALICE, BOB)
    ours = proof(alice, side(BOB, ALICE))
    assert refusal(alice, FrameKind.HELLO_PROOF, ours) is HelloRefusal.BAD_PROOF


def test_a_proof_with_swapped_roles_is_refused() -> None:
    # Bob signs as if he were Alice talking to Bob: right key, right values, wrong order.
    bob = BOB.identity(ALICE, BOB)
    swapped = replace(ALICE.identity(ALICE, BOB), sign=bob.sign)
    false = proof(side(ALICE, BOB, identity=swapped), side(BOB, ALICE))
    alice = side(ALICE, BOB)
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, FrameKind.HELLO_PROOF, false) is HelloRefusal.BAD_PROOF


def test_a_proof_relayed_from_another_tls_link_is_refused() -> None:
    # Mallory shows Alice a certificate that names Bob but holds Mallory's key, and relays Bob.
    forged = CertificateIdentity(MALLORY.certificate.public_key_hash, (BOB.uri,))
    alice = side(ALICE, BOB, peer_certificate=forged)
    relayed = proof(side(BOB, ALICE), side(ALICE, BOB))
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, FrameKind.HELLO_PROOF, relayed) is HelloRefusal.BAD_PROOF


def test_a_proof_by_another_key_is_refused() -> None:
    impostor = replace(BOB.identity(ALICE, BOB), sign=MALLORY.identity().sign)
    false = proof(side(BOB, ALICE, identity=impostor), side(ALICE, BOB))
    alice = side(ALICE, BOB)
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, FrameKind.HELLO_PROOF, false) is HelloRefusal.BAD_PROOF


def test_a_proof_signs_both_names_nonces_and_keys_with_the_signers_first() -> None:
    signed = []

    def sign(digest):
        signed.append(digest)
        return bytes(64)

    alice = replace(ALICE.identity(ALICE, BOB), sign=sign)
    bob = side(BOB, ALICE, nonce=b"b" * 32)
    proof(side(ALICE, BOB, identity=alice, nonce=b"a" * 32), bob)
    keys = (ALICE.certificate.public_key_hash, BOB.certificate.public_key_hash)
    nodes = (ALICE.address, BOB.address, b"a" * 32, b"b" * 32)
    assert signed == [sha256(b"kl.hello" + encode((GENESIS, GROUP, *nodes, *keys))).digest()]


@pytest.mark.parametrize("size", [0, 63, 65])
def test_a_proof_of_the_wrong_size_is_malformed(size) -> None:
    alice = side(ALICE, BOB)
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, FrameKind.HELLO_PROOF, bytes(size)) is HelloRefusal.MALFORMED


def test_a_proof_before_the_hello_and_a_second_hello_are_out_of_order() -> None:
    assert refusal(side(ALICE, BOB), FrameKind.HELLO_PROOF, bytes(64)) is HelloRefusal.OUT_OF_ORDER
    alice = side(ALICE, BOB)
    alice.receive(*side(BOB, ALICE).opening)
    assert refusal(alice, *side(BOB, ALICE).opening) is HelloRefusal.OUT_OF_ORDER


def test_a_handshake_that_ended_takes_no_more_frames() -> None:
    alice = side(ALICE, BOB)
    refusal(alice, FrameKind.HELLO, b"")
    with pytest.raises(LocalProtocolError):
        alice.receive(FrameKind.HELLO, hello_of(BOB))
