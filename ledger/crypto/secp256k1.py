"""ECDSA over secp256k1: sign, verify, recover; compressed keys and low-S signatures only.

Verification is the largest single cost of the node (one V is about 45 microseconds), so it calls
libsecp256k1 through coincurve's cffi handle with parsed keys kept in a small cache, instead of the
wrapper that parses key and DER signature on each call. `tests/unit/ledger/test_secp256k1.py` holds
both against each other.
Source: SEC 1 v2 sections 4.1.3-4.1.6; RFC 6979 (nonces); BIP 62 (low S).
"""

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
_parse_signature: Any = _lib.secp256k1_ecdsa_signature_parse_compact

# Bound: 64 bytes each plus overhead, about 6 MB; more accounts than sign within one minute.
_CACHED_KEYS = 32_768


@lru_cache(maxsize=_CACHED_KEYS)
def _parsed_key(compressed: bytes) -> Any:
    key = _ffi.new("secp256k1_pubkey *")
    if not _lib.secp256k1_ec_pubkey_parse(_context, key, compressed, len(compressed)):
        return None
    return key


def is_valid_key(compressed: bytes) -> bool:
    """Whether 33 bytes are a compressed point on the curve."""
    return len(compressed) == 33 and _parsed_key(compressed) is not None


def verify(compressed: bytes, digest: bytes, signature: bytes) -> bool:
    """Whether the 64-byte r || s signs the 32-byte digest; a high S is refused (library rule)."""
    key = _parsed_key(compressed)
    if key is None or len(digest) != 32 or len(signature) != 64:
        return False
    if not _parse_signature(_context, _signature_slot, signature):
        return False
    return _verify(_context, _signature_slot, digest, key) == 1


def sign(secret: bytes, digest: bytes) -> Signature:
    """64-byte r || s, low S, with the deterministic nonce of RFC 6979."""
    return Signature(sign_recoverable(secret, digest)[:64])


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
