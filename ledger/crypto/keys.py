"""Tagged public keys: one type byte, then 33 bytes of compressed point.

The type byte says how a signature is verified; it stands inside every redeem script and therefore
inside every address, so a key can never be used under another scheme.
"""

from collections.abc import Callable
from enum import IntEnum, unique

from ledger.crypto import p256, secp256k1
from ledger.ids import PublicKey, Signature


@unique
class KeyType(IntEnum):
    """The type byte of a tagged key."""

    SECP256K1 = 1
    P256 = 2


SCHEMES = {KeyType.SECP256K1: secp256k1, KeyType.P256: p256}
KEY_TYPE_NAMES = {"secp256k1": KeyType.SECP256K1, "p256": KeyType.P256}


def public_key(key_type: KeyType, secret: bytes) -> PublicKey:
    """The tagged 34-byte key of a 32-byte secret.

    Raises: ValueError when the secret is zero or not below the group order.
    """
    return PublicKey(bytes([key_type]) + SCHEMES[key_type].public_key(secret))


def sign(key_type: KeyType, secret: bytes, digest: bytes) -> Signature:
    """A 64-byte signature of a 32-byte digest under the scheme of `key_type`."""
    return SCHEMES[key_type].sign(secret, digest)


def verify(key: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the tagged 34-byte `key` made `signature`; an unknown type byte is a plain no."""
    if key[0] == KeyType.SECP256K1:
        return secp256k1.verify(key[1:], digest, signature)
    if key[0] == KeyType.P256:
        return p256.verify(key[1:], digest, signature)
    return False


def verifier(key: bytes) -> Callable[[bytes, bytes], bool]:
    """A function (digest, signature) -> bool for a valid tagged key, which is parsed once."""
    return SCHEMES[KeyType(key[0])].verifier(key[1:])


def is_valid(key: bytes) -> bool:
    """Whether 34 bytes are a tagged key of a known type with a point on its curve."""
    if len(key) != 34 or key[0] not in SCHEMES:
        return False
    return SCHEMES[KeyType(key[0])].is_valid_key(key[1:])
