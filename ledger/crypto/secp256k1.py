"""ECDSA over secp256k1: sign, verify, recover; compressed keys and low-S signatures only.

Verification is the largest single cost of the node (one V is about 45 microseconds), so it calls
libsecp256k1 through coincurve's cffi handle with parsed keys kept in a small cache, instead of the
wrapper that parses key and DER signature on each call. `tests/unit/ledger/test_secp256k1.py` holds
both against each other.
Source: SEC 1 v2 sections 4.1.3-4.1.6; RFC 6979 (nonces); BIP 62 (low S).
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import coincurve
from coincurve import (
    _libsecp256k1,  # pyright: ignore[reportAttributeAccessIssue, reportUnknownVariableType]
)
from coincurve.context import GLOBAL_CONTEXT

from ledger.errors import Reason, Rejected
from ledger.ids import Signature

# cffi objects have no static types; `Any` ends in this file.
_ffi: Any = cast("Any", _libsecp256k1).ffi
_lib: Any = cast("Any", _libsecp256k1).lib
_context: Any = cast("Any", GLOBAL_CONTEXT).ctx
_signature_slot: Any = _ffi.new("secp256k1_ecdsa_signature *")
_verify: Any = _lib.secp256k1_ecdsa_verify
_parse_key: Any = _lib.secp256k1_ec_pubkey_parse
_parse_signature: Any = _lib.secp256k1_ecdsa_signature_parse_compact

Verifier = Callable[[bytes, bytes], bool]


def _parsed_key(compressed: bytes) -> Any:
    key = _ffi.new("secp256k1_pubkey *")
    if len(compressed) != 33 or not _parse_key(_context, key, compressed, len(compressed)):
        return None
    return key


def is_valid_key(compressed: bytes) -> bool:
    """Whether 33 bytes are a compressed point on the curve."""
    return _parsed_key(compressed) is not None


def verifier(compressed: bytes) -> Verifier:
    """A function (32-byte digest, 64-byte r || s) -> bool for one key, parsed once.

    A high S is refused, a rule of the library. A key that is no point refuses everything.
    """
    key = _parsed_key(compressed)

    def verify_with_key(digest: bytes, signature: bytes) -> bool:
        return (
            len(digest) == 32
            and len(signature) == 64
            and _parse_signature(_context, _signature_slot, signature) == 1
            and _verify(_context, _signature_slot, digest, key) == 1
        )

    return _refuse if key is None else verify_with_key


def _refuse(_digest: bytes, _signature: bytes) -> bool:
    return False


# Bound: about 6 MB; callers that hold a verifier need no entry here.
_cached_verifier = lru_cache(maxsize=32_768)(verifier)


def verify(compressed: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the 64-byte r || s signs the 32-byte digest."""
    return _cached_verifier(compressed)(digest, signature)


def sign(secret: bytes, digest: bytes) -> Signature:
    """64-byte r || s, low S, with the deterministic nonce of RFC 6979.

    Raises: ValueError when secret or digest is not 32 bytes, or the secret is no scalar.
    """
    if len(secret) != 32 or len(digest) != 32:
        raise ValueError("secret and digest have 32 bytes each")
    made, out = _ffi.new("secp256k1_ecdsa_signature *"), _ffi.new("unsigned char[64]")
    if not _lib.secp256k1_ecdsa_sign(_context, made, digest, secret, _ffi.NULL, _ffi.NULL):
        raise ValueError("the secret is zero or not below the group order")
    _lib.secp256k1_ecdsa_signature_serialize_compact(_context, out, made)
    return Signature(bytes(_ffi.buffer(out)))


def sign_recoverable(secret: bytes, digest: bytes) -> bytes:
    """65 bytes r || s || recovery id, from which `recover` finds the public key."""
    private_key: Any = coincurve.PrivateKey(secret)
    return private_key.sign_recoverable(digest, hasher=None)


def recover(digest: bytes, signature: bytes) -> bytes:
    """The compressed public key that made a 65-byte recoverable signature.

    Raises: Rejected(BAD_SIGNATURE).  Source: SEC 1 v2 section 4.1.6.
    """
    try:
        key = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError as error:
        raise Rejected(Reason.BAD_SIGNATURE, str(error)) from None
    compressed = key.format(compressed=True)
    # Recovery accepts a high S; verification does not, and only one form may pass.
    if not verify(compressed, digest, signature[:64]):
        raise Rejected(Reason.BAD_SIGNATURE, "not in low-S form")
    return compressed


def public_key(secret: bytes) -> bytes:
    """The 33-byte compressed public key of a 32-byte secret."""
    return coincurve.PrivateKey(secret).public_key.format(compressed=True)
