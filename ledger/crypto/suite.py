"""The crypto suite of a chain: one digest and one signature scheme, chosen in genesis.

Accounts, votes, batches and stamps of a chain all use its suite. `international` is here; a
national suite (SM2, SM3) joins by implementing the same protocol.
"""

from typing import Protocol

from ledger.ids import Hash, PublicKey, Signature


class CryptoSuite(Protocol):
    """What the ledger needs of cryptography; every method is a pure function."""

    @property
    def name(self) -> str:
        """The name that genesis uses."""
        ...

    def digest(self, data: bytes, /) -> Hash:
        """The 32-byte hash of `data`."""
        ...

    def sign(self, secret: bytes, digest: bytes, /) -> Signature:
        """64 bytes over a 32-byte digest; deterministic where the scheme allows it."""
        ...

    def verify(self, public_key: bytes, digest: bytes, signature: bytes, /) -> bool:
        """Whether `signature` (64 bytes) of `digest` was made by the tagged 34-byte key."""
        ...

    def is_key(self, public_key: bytes, /) -> bool:
        """Whether 34 bytes are a tagged key of this suite's own scheme, with a valid point."""
        ...

    def public_key(self, secret: bytes, /) -> PublicKey:
        """The tagged 34-byte public key of a 32-byte secret."""
        ...
