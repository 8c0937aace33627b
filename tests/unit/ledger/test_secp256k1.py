"""The raw path to libsecp256k1 agrees with its wrapper and with another library."""

from hashlib import sha256

import coincurve
import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    Prehashed,
    encode_dss_signature,
)

from ledger.crypto import keys, secp256k1
from ledger.crypto.keys import KeyType
from ledger.crypto.suites import INTERNATIONAL, suite_named
from ledger.errors import Reason, Rejected

ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
SECRETS = [sha256(b"secret %d" % number).digest() for number in range(8)]
DIGESTS = [sha256(b"digest %d" % number).digest() for number in range(8)]


def der(signature: bytes) -> bytes:
    return encode_dss_signature(
        int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:64], "big")
    )


def cryptography_verifies(public: bytes, digest: bytes, signature: bytes) -> bool:
    parsed = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256K1(), public)
    try:
        parsed.verify(der(signature), digest, ec.ECDSA(Prehashed(hashes.SHA256())))
    except (InvalidSignature, ValueError):
        return False
    return True


def high(signature: bytes) -> bytes:
    other = ORDER - int.from_bytes(signature[32:64], "big")
    return signature[:32] + other.to_bytes(32, "big")


def test_good_signatures_pass_here_and_in_both_oracles():
    for secret in SECRETS:
        public = secp256k1.public_key(secret)
        for digest in DIGESTS:
            signature = secp256k1.sign(secret, digest)
            assert secp256k1.verify(public, digest, signature)
            assert coincurve.PublicKey(public).verify(der(signature), digest, hasher=None)
            assert cryptography_verifies(public, digest, signature)


def test_damaged_signatures_fail_here_and_in_both_oracles():
    public, digest = secp256k1.public_key(SECRETS[0]), DIGESTS[0]
    good = secp256k1.sign(SECRETS[0], digest)
    for place in range(64):
        damaged = bytearray(good)
        damaged[place] ^= 1 << place % 8
        assert not secp256k1.verify(public, digest, bytes(damaged))
        assert not coincurve.PublicKey(public).verify(der(bytes(damaged)), digest, hasher=None)
        assert not cryptography_verifies(public, digest, bytes(damaged))
    assert not secp256k1.verify(public, DIGESTS[1], good)
    assert not secp256k1.verify(secp256k1.public_key(SECRETS[1]), digest, good)


def test_a_high_s_is_refused_though_the_mathematics_holds():
    public, digest = secp256k1.public_key(SECRETS[0]), DIGESTS[0]
    signature = high(secp256k1.sign(SECRETS[0], digest))
    assert cryptography_verifies(public, digest, signature)
    assert not secp256k1.verify(public, digest, signature)


def test_other_signatures_are_a_plain_no():
    public, digest = secp256k1.public_key(SECRETS[0]), DIGESTS[0]
    good = secp256k1.sign(SECRETS[0], digest)
    order = ORDER.to_bytes(32, "big")
    for signature in (
        b"",
        good[:63],
        good + b"\0",
        bytes(64),
        b"\xff" * 64,
        bytes(32) + good[32:],
        good[:32] + bytes(32),
        order + good[32:],
        good[:32] + order,
    ):
        assert not secp256k1.verify(public, digest, signature)
    assert not secp256k1.verify(public, digest[:31], good)
    for point in (bytes(33), b"\x02" + b"\xff" * 32, b"\x05" + public[1:]):
        assert not secp256k1.verify(point, digest, good)
        assert not secp256k1.is_valid_key(point)
    assert not secp256k1.is_valid_key(public[:-1])
    assert not secp256k1.is_valid_key(coincurve.PublicKey(public).format(compressed=False))


def test_signing_is_deterministic_and_recoverable():
    for secret in SECRETS:
        public = secp256k1.public_key(secret)
        signature = secp256k1.sign_recoverable(secret, DIGESTS[0])
        assert signature == secp256k1.sign_recoverable(secret, DIGESTS[0])
        assert signature[:64] == secp256k1.sign(secret, DIGESTS[0])
        assert secp256k1.recover(DIGESTS[0], signature) == public


def test_recovery_refuses_a_high_s_and_broken_signatures():
    good = secp256k1.sign_recoverable(SECRETS[0], DIGESTS[0])
    flipped = high(good) + bytes([good[64] ^ 1])
    for signature in (flipped, b"", good[:64], good[:64] + b"\x04", bytes(65), b"\xff" * 65):
        with pytest.raises(Rejected) as caught:
            secp256k1.recover(DIGESTS[0], signature)
        assert caught.value.reason is Reason.BAD_SIGNATURE


def test_the_nonce_is_that_of_rfc_6979():
    # Key 1 and SHA-256 of "Satoshi Nakamoto": a vector known from many secp256k1 libraries.
    signature = secp256k1.sign((1).to_bytes(32, "big"), sha256(b"Satoshi Nakamoto").digest())
    assert signature.hex() == (
        "934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8"
        "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"
    )


def test_tagged_keys_choose_their_scheme():
    for key_type in KeyType:
        public = keys.public_key(key_type, SECRETS[0])
        signature = keys.sign(key_type, SECRETS[0], DIGESTS[0])
        assert (len(public), public[0]) == (34, key_type)
        assert keys.is_valid(public)
        assert keys.verify(public, DIGESTS[0], signature)
        for other in (0, 3, 255, 3 - key_type):
            assert not keys.verify(bytes([other]) + public[1:], DIGESTS[0], signature)
    assert not keys.is_valid(b"")
    assert not keys.is_valid(b"\x03" + bytes(33))


def test_a_secret_outside_the_group_makes_no_key():
    for number in (0, ORDER, 2**256 - 1):
        with pytest.raises(ValueError):
            keys.public_key(KeyType.SECP256K1, number.to_bytes(32, "big"))


def test_the_international_suite_takes_only_its_own_keys():
    digest = INTERNATIONAL.digest(b"abc")
    assert digest.hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    signature = INTERNATIONAL.sign(SECRETS[0], digest)
    assert INTERNATIONAL.verify(INTERNATIONAL.public_key(SECRETS[0]), digest, signature)
    resident = keys.public_key(KeyType.P256, SECRETS[0])
    own = keys.sign(KeyType.P256, SECRETS[0], digest)
    assert not INTERNATIONAL.verify(resident, digest, own)
    assert suite_named("international") is INTERNATIONAL
    with pytest.raises(Rejected) as caught:
        suite_named("national2")
    assert caught.value.reason is Reason.BAD_GENESIS
