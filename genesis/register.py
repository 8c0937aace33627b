"""The authority's register: which certificate it issued to which node, and which it took back.

What it decides: whether a node may have a further certificate. It binds the authority alone; the
chain learns of a revocation by a proposal of the members, since links are judged by on-chain facts.
Times are milliseconds. The file lies beside the authority's key and holds no secret.
Source: architecture section 4; docs/decisions/0024-membership.md.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from genesis.authority import PEM_BYTES, public_key_hash
from genesis.private_files import read_public, write_public
from ledger.addresses import decode_text
from ledger.codec import Document
from ledger.errors import Reason, Rejected
from ledger.genesis import Hex32

REGISTER_BYTES = 16 * 1024 * 1024
"""About 50,000 certificates: twelve years of a thousand nodes that renew every quarter."""


class Issued(Document, frozen=True):
    """One certificate, by the SHA-256 of its public key; `revoked` null while it counts."""

    address: str
    certificate: Hex32
    issued: int
    revoked: int | None = None
    reason: Annotated[str, Meta(max_length=256)] = ""


class Register(Document, frozen=True):
    """Every certificate in the order of issue."""

    format: Literal["kanglian-register/1"] = "kanglian-register/1"
    certificates: tuple[Issued, ...] = ()


def read_register(path: Path) -> Register:
    """The register of a file; empty when there is none yet.

    Raises: PrivateFileError, Rejected(MALFORMED).
    """
    if not path.exists():
        return Register()
    try:
        return msgspec.json.decode(read_public(path, REGISTER_BYTES), type=Register)
    except msgspec.DecodeError as error:
        detail = f"{path}: {error}; restore it from a copy"
        raise Rejected(Reason.MALFORMED, detail) from None


def write_register(path: Path, register: Register) -> None:
    """Replace the file, durably and in one step.

    Raises: PrivateFileError.
    """
    text = msgspec.json.format(msgspec.json.encode(register), indent=2) + b"\n"
    write_public(path, text, replace=True)


def check_issue(register: Register, address: str, *, readmit: bool) -> None:
    """Refuse a certificate to a node whose last one was revoked, unless it is readmitted.

    Raises: Rejected(REVOKED).
    """
    own = [item for item in register.certificates if item.address == address]
    if own and own[-1].revoked is not None and not readmit:
        raise Rejected(
            Reason.REVOKED,
            f"the last certificate of {address} was revoked ({own[-1].reason}); "
            "if the node may come back, say --readmit",
        )


def with_issued(register: Register, address: str, certificate: bytes, now_ms: int) -> Register:
    """The register with one more certificate."""
    issued = Issued(address, certificate.hex(), now_ms)
    return Register(certificates=(*register.certificates, issued))


def revoke_node(
    path: Path, address: str, reason: str, certificate_file: Path | None, now_ms: int
) -> tuple[Issued, ...]:
    """Revoke every certificate of a node in a register file; those that are so only now.

    `certificate_file` enters one that was issued before there was a register.
    Raises: PrivateFileError, Rejected(BAD_ADDRESS | MALFORMED).
    """
    decode_text(address)
    register = read_register(path)
    if certificate_file is not None:
        name = public_key_hash(read_public(certificate_file, PEM_BYTES))
        if name.hex() not in [item.certificate for item in register.certificates]:
            register = with_issued(register, address, name, now_ms)
    changed, revoked = with_revoked(register, address, reason, now_ms)
    write_register(path, changed)
    return revoked


def with_revoked(
    register: Register, address: str, reason: str, now_ms: int
) -> tuple[Register, tuple[Issued, ...]]:
    """The register with every certificate of a node revoked, and those that are so only now.

    Raises: Rejected(MALFORMED) when the node has none left to revoke.
    """
    changed = [
        msgspec.structs.replace(item, revoked=now_ms, reason=reason)
        if item.address == address and item.revoked is None
        else item
        for item in register.certificates
    ]
    revoked = tuple(
        new for old, new in zip(register.certificates, changed, strict=True) if new != old
    )
    if not revoked:
        detail = (
            f"the register has no valid certificate of {address}; name its file with --certificate"
        )
        raise Rejected(Reason.MALFORMED, detail)
    return Register(certificates=tuple(changed)), revoked
