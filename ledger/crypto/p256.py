"""ECDSA-SHA-256 over P-256, for accounts whose keys live in browsers and phones.

WebCrypto signs ECDSA-SHA-256 over a message; our message is the 32-byte id. It does not normalise
S, so the client does, and only low S passes here.
Source: FIPS 186-5 section 6; W3C Web Cryptography API (ECDSA, P-256); architecture section 3.
"""

from collections.abc import Callable
from functools import lru_cache, partial

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)

from ledger.ids import Signature

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_ALGORITHM = ec.ECDSA(hashes.SHA256())
# Bound: about 2 KB each; P-256 keys belong to single residents, who sign rarely.
_CACHED_KEYS = 4_096


@lru_cache(maxsize=_CACHED_KEYS)
def _parsed_key(compressed: bytes) -> ec.EllipticCurvePublicKey | None:
    try:
        return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), compressed)
    except ValueError:
        return None


def is_valid_key(compressed: bytes) -> bool:
    """Whether 33 bytes are a compressed point on the curve."""
    return len(compressed) == 33 and _parsed_key(compressed) is not None


def verify(compressed: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the 64-byte r || s with low S is an ECDSA-SHA-256 signature of the 32-byte id."""
    key = _parsed_key(compressed)
    if key is None or len(signature) != 64:
        return False
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:], "big")
    if s > _ORDER // 2:
        return False
    try:
        key.verify(encode_dss_signature(r, s), digest, _ALGORITHM)
    except (InvalidSignature, ValueError):
        return False
    return True


def verifier(compressed: bytes) -> Callable[[bytes, bytes], bool]:
    """A function (32-byte id, 64-byte r || s) -> bool for one key."""
    return partial(verify, compressed)


def sign(secret: bytes, digest: bytes) -> Signature:
    """64-byte r || s with low S over SHA-256 of the 32-byte id; the nonce is random."""
    key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
    r, s = decode_dss_signature(key.sign(digest, _ALGORITHM))
    return Signature(r.to_bytes(32, "big") + min(s, _ORDER - s).to_bytes(32, "big"))


def public_key(secret: bytes) -> bytes:
    """The 33-byte compressed public key of a 32-byte secret."""
    key = ec.derive_private_key(int.from_bytes(secret, "big"), ec.SECP256R1())
    return key.public_key().public_bytes(
        serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
    )
