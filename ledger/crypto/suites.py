"""The `international` suite: SHA-256 and ECDSA over secp256k1."""

from dataclasses import dataclass
from hashlib import sha256

from ledger.crypto import keys, secp256k1
from ledger.crypto.suite import CryptoSuite
from ledger.errors import Reason, Rejected
from ledger.ids import Hash, PublicKey, Signature


# Compared by identity: a suite is part of keys of caches that every transaction looks into.
@dataclass(frozen=True, slots=True, eq=False)
class International:
    """SHA-256 (FIPS 180-4) and secp256k1 (SEC 2)."""

    name: str = "international"

    def digest(self, data: bytes, /) -> Hash:
        """SHA-256 of `data`."""
        # Seven hashes a transaction: a call of the NewType would cost a fifth of each.
        return sha256(data).digest()  # pyright: ignore[reportReturnType]

    def sign(self, secret: bytes, digest: bytes, /) -> Signature:
        """A deterministic low-S signature (RFC 6979)."""
        return secp256k1.sign(secret, digest)

    def verify(self, public_key: bytes, digest: bytes, signature: bytes, /) -> bool:
        """Whether the tagged key made this low-S signature."""
        return public_key[0] == keys.KeyType.SECP256K1 and secp256k1.verify(
            public_key[1:], digest, signature
        )

    def is_key(self, public_key: bytes, /) -> bool:
        """Whether these are a tagged compressed point on secp256k1."""
        return keys.is_valid(public_key) and public_key[0] == keys.KeyType.SECP256K1

    def public_key(self, secret: bytes, /) -> PublicKey:
        """The tagged public key of a secret."""
        return keys.public_key(keys.KeyType.SECP256K1, secret)


INTERNATIONAL = International()
_SUITES: dict[str, CryptoSuite] = {INTERNATIONAL.name: INTERNATIONAL}


def suite_named(name: str) -> CryptoSuite:
    """The suite that genesis names.

    Raises: Rejected(BAD_GENESIS) for a name this version does not implement.
    """
    suite = _SUITES.get(name)
    if suite is None:
        raise Rejected(Reason.BAD_GENESIS, "unknown crypto suite", suite=name)
    return suite
