"""The consortium's certificate authority: one root, and TLS certificates of its nodes.

What it decides: what a root and a node certificate contain, and whether such files can be used.
What it never does: read a clock (the caller says what time it is) or decide who is admitted: a
certificate is one condition beside the allow-list and the signed hello.
Keys are Ed25519: small, deterministic, spoken by every TLS 1.3 of ours in both directions. Browsers
do not accept it, so a certificate for a browser's HTTPS comes from elsewhere.
Source: RFC 5280 (profile), RFC 8410 (Ed25519), RFC 8446 (TLS 1.3), architecture section 4.
"""

import ipaddress
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from genesis.private_files import (
    FileProblem,
    PrivateFileError,
    read_private,
    read_public,
    write_private,
    write_public,
)
from ledger.errors import Reason, Rejected

ROOT_DAYS = 3_650
"""A root outlives the contracts of a consortium; replacing it touches every node."""
NODE_DAYS = 90
"""A lost TLS key is worthless after a quarter, without any revocation list."""
PEM_BYTES = 16 * 1024
"""Ten times our own certificates and keys."""
_CLOCK_SKEW = timedelta(minutes=5)  # a node whose clock is behind accepts a fresh certificate
_ADDRESS = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Authority:
    """The root certificate (PEM) and the key that signs certificates of nodes."""

    certificate_pem: bytes
    key: Ed25519PrivateKey = field(repr=False)


@dataclass(frozen=True, slots=True)
class NodeCredentials:
    """What a node shows on a link: its certificate and the key of it, both PEM, not encrypted."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)


def create_root(name: str, now: datetime, *, days: int = ROOT_DAYS) -> Authority:
    """A new self-signed root that signs nodes and no further authorities.

    `name`: 1 to 64 characters, shown to people; `now`: an aware time.
    Raises: Rejected(MALFORMED) for a name of another length.
    """
    if not 1 <= len(name) <= 64:
        raise Rejected(Reason.MALFORMED, "an authority's name has 1 to 64 characters")
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    certificate = (
        _builder(subject, subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, None)
    )
    return Authority(certificate.public_bytes(Encoding.PEM), key)


def issue_node(
    authority: Authority,
    address_hex: str,
    now: datetime,
    *,
    hosts: tuple[str, ...] = (),
    days: int = NODE_DAYS,
) -> NodeCredentials:
    """A new TLS key and its certificate, which names the node `kanglian:node:<address_hex>`.

    `hosts` (DNS names or IP addresses) help foreign tools; our nodes ignore them.
    Raises: Rejected(BAD_ADDRESS) unless `address_hex` is 64 lower-case digits.
    """
    if not _ADDRESS.fullmatch(address_hex):
        raise Rejected(Reason.BAD_ADDRESS, "expected the 64 hexadecimal digits of a node's address")
    root = x509.load_pem_x509_certificate(authority.certificate_pem)
    key = Ed25519PrivateKey.generate()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, address_hex)])
    uri = x509.UniformResourceIdentifier(f"kanglian:node:{address_hex}")
    roles = (ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    certificate = (
        _builder(subject, root.subject, key.public_key(), now, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        .add_extension(x509.SubjectAlternativeName([uri, *map(_host, hosts)]), critical=False)
        .add_extension(issuer, critical=False)
        .sign(authority.key, None)
    )
    return NodeCredentials(certificate.public_bytes(Encoding.PEM), _key_pem(key, NoEncryption()))


def fingerprint(certificate_pem: bytes) -> bytes:
    """SHA-256 of the certificate's DER form: the `authority` of a genesis record.

    Raises: Rejected(MALFORMED) when the bytes are not one certificate in PEM.
    """
    return sha256(_parsed(certificate_pem).public_bytes(Encoding.DER)).digest()


def public_key_hash(certificate_pem: bytes) -> bytes:
    """SHA-256 of the certificate's SubjectPublicKeyInfo: its name in revocations.

    Raises: Rejected(MALFORMED) when the bytes are not one certificate in PEM.
    """
    key = _parsed(certificate_pem).public_key()
    return sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()


def _parsed(certificate_pem: bytes) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(certificate_pem)
    except (ValueError, UnsupportedAlgorithm):
        raise Rejected(Reason.MALFORMED, "not a certificate in PEM form") from None


def save_authority(
    authority: Authority, certificate_path: Path, key_path: Path, passphrase: str | None
) -> None:
    """Write root certificate and key; `None` leaves the key in plain, for development only.

    The key is sealed as PKCS #8 (RFC 8018), with the 2,048 rounds of PBKDF2 that OpenSSL's readers
    expect: few, so the strength has to come from a long passphrase.
    Raises: PrivateFileError(EXISTS | UNUSABLE | NO_PASSPHRASE).
    """
    if passphrase == "":
        raise _empty_passphrase(key_path)
    sealing = NoEncryption() if passphrase is None else BestAvailableEncryption(_octets(passphrase))
    # The key first: a certificate without its key would look like a finished authority.
    write_private(key_path, _key_pem(authority.key, sealing))
    write_public(certificate_path, authority.certificate_pem)


def load_authority(
    certificate_path: Path, key_path: Path, passphrase: str | None, now: datetime
) -> Authority:
    """The root of two files, fit to issue certificates at `now`.

    `passphrase` is not used when the key is in plain.
    Raises: PrivateFileError, any problem except EXISTS.
    """
    certificate = _load_root(certificate_path, now)
    key = _load_key(key_path, passphrase)
    _check_pair(certificate, certificate_path, key, key_path)
    return Authority(certificate.public_bytes(Encoding.PEM), key)


def save_node(
    credentials: NodeCredentials,
    certificate_path: Path,
    key_path: Path,
    *,
    replace: bool = False,
) -> None:
    """Write a node's TLS certificate and key; `replace` renews those of a running node.

    Raises: PrivateFileError(EXISTS | UNUSABLE).
    """
    write_private(key_path, credentials.key_pem, replace=replace)
    write_public(certificate_path, credentials.certificate_pem, replace=replace)


def load_node(
    certificate_path: Path, key_path: Path, root_path: Path, now: datetime
) -> NodeCredentials:
    """A node's TLS files, checked against each other, the root and the time.

    TLS reads the files itself; this says in plain words beforehand what would go wrong.
    Raises: PrivateFileError, any problem except EXISTS.
    """
    root = _load_root(root_path, now)
    certificate = _load_certificate(certificate_path, now)
    key = _load_key(key_path, None)
    _check_pair(certificate, certificate_path, key, key_path)
    try:
        certificate.verify_directly_issued_by(root)
    except (ValueError, TypeError, InvalidSignature):
        raise PrivateFileError(
            FileProblem.MISMATCH,
            certificate_path,
            f"was not issued by the authority {root_path}",
            "ask this consortium's authority for a certificate",
        ) from None
    return NodeCredentials(certificate.public_bytes(Encoding.PEM), _key_pem(key, NoEncryption()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Ed25519PublicKey, now: datetime, days: int
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - _CLOCK_SKEW)
        .not_valid_after(now.astimezone(UTC) + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _host(text: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(text))
    except ValueError:
        return x509.DNSName(text)


def _octets(passphrase: str) -> bytes:
    # What is no UTF-8 in the environment comes as lone surrogates, and goes back to its bytes.
    return passphrase.encode("utf-8", "surrogateescape")


def _key_pem(key: Ed25519PrivateKey, sealing: KeySerializationEncryption) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, sealing)


def _load_certificate(path: Path, now: datetime) -> x509.Certificate:
    try:
        certificate = x509.load_pem_x509_certificate(read_public(path, PEM_BYTES))
    except (ValueError, UnsupportedAlgorithm):
        raise _damaged(path, "is not a certificate in PEM form") from None
    if now < certificate.not_valid_before_utc:
        raise PrivateFileError(
            FileProblem.NOT_YET_VALID,
            path,
            f"is valid from {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on",
            "check the clock of this machine",
        )
    if now > certificate.not_valid_after_utc:
        raise PrivateFileError(
            FileProblem.EXPIRED,
            path,
            f"expired on {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            "ask the consortium's authority for a new certificate, and check the clock",
        )
    return certificate


def _load_root(path: Path, now: datetime) -> x509.Certificate:
    certificate = _load_certificate(path, now)
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except (ValueError, x509.ExtensionNotFound, x509.DuplicateExtension):
        raise _damaged(path, "has no readable basic constraints") from None
    if not constraints.value.ca:
        raise PrivateFileError(
            FileProblem.MISMATCH,
            path,
            "is a node's certificate, not the authority's",
            "give the root certificate of the consortium",
        )
    return certificate


def _load_key(path: Path, passphrase: str | None) -> Ed25519PrivateKey:
    pem = read_private(path, PEM_BYTES)
    if passphrase == "":
        raise _empty_passphrase(path)
    encrypted = b"BEGIN ENCRYPTED PRIVATE KEY" in pem
    if encrypted and passphrase is None:
        raise PrivateFileError(
            FileProblem.NO_PASSPHRASE, path, "is encrypted", "give its passphrase"
        )
    secret = _octets(passphrase) if encrypted and passphrase else None
    try:
        key = load_pem_private_key(pem, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        if not encrypted:
            raise _damaged(path, "is not a private key in PEM form") from None
        raise PrivateFileError(
            FileProblem.WRONG_PASSPHRASE,
            path,
            "the passphrase does not open it",
            "try again; if it is the right one, the file is damaged: restore it from a copy",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise _damaged(path, "is a key of another kind than Ed25519")
    return key


def _check_pair(
    certificate: x509.Certificate, certificate_path: Path, key: Ed25519PrivateKey, key_path: Path
) -> None:
    if certificate.public_key() != key.public_key():
        raise PrivateFileError(
            FileProblem.MISMATCH,
            certificate_path,
            f"does not belong to the key in {key_path}",
            "use the certificate and the key that were made together",
        )


def _damaged(path: Path, detail: str) -> PrivateFileError:
    return PrivateFileError(FileProblem.DAMAGED, path, detail, "restore it from a copy")


def _empty_passphrase(path: Path) -> PrivateFileError:
    return PrivateFileError(
        FileProblem.NO_PASSPHRASE, path, "the passphrase is empty", "give one of some length"
    )
