"""P-256 signatures are those of WebCrypto, with S made low by the client."""

from hashlib import sha256

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

from ledger.crypto import p256

ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
SECRET = sha256(b"resident").digest()
PUBLIC = p256.public_key(SECRET)
DIGEST = sha256(b"id").digest()


def compact(r: int, s: int) -> bytes:
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def test_a_signature_made_elsewhere_passes_only_in_its_low_form():
    private = ec.derive_private_key(int.from_bytes(SECRET, "big"), ec.SECP256R1())
    for _ in range(8):
        r, s = decode_dss_signature(private.sign(DIGEST, ec.ECDSA(hashes.SHA256())))
        low, high = sorted((s, ORDER - s))
        assert p256.verify(PUBLIC, DIGEST, compact(r, low))
        assert not p256.verify(PUBLIC, DIGEST, compact(r, high))


def test_own_signatures_are_always_low():
    for number in range(16):
        digest = sha256(b"%d" % number).digest()
        signature = p256.sign(SECRET, digest)
        assert int.from_bytes(signature[32:], "big") <= ORDER // 2
        assert p256.verify(PUBLIC, digest, signature)


def test_other_signatures_and_keys_are_a_plain_no():
    good = p256.sign(SECRET, DIGEST)
    assert p256.verify(PUBLIC, DIGEST, good)
    for signature in (b"", good[:63], good + b"\0", bytes(64), b"\xff" * 64, compact(1, 0)):
        assert not p256.verify(PUBLIC, DIGEST, signature)
    assert not p256.verify(PUBLIC, sha256(b"other").digest(), good)
    assert not p256.verify(p256.public_key(sha256(b"other").digest()), DIGEST, good)
    for point in (bytes(33), b"\x02" + b"\xff" * 32, PUBLIC[:-1], b""):
        assert not p256.verify(point, DIGEST, good)
        assert not p256.is_valid_key(point)


def test_every_damaged_byte_of_a_signature_is_refused():
    good = p256.sign(SECRET, DIGEST)
    for place in range(64):
        damaged = bytearray(good)
        damaged[place] ^= 1
        assert not p256.verify(PUBLIC, DIGEST, bytes(damaged))
