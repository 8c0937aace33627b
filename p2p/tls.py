"""TLS 1.3, mutual, under the consortium CA: the contexts and what we read from a certificate.

What it decides: which TLS a link speaks and which certificates chain to our CA.
What it never does: decide who a peer is. Host names mean nothing here (nodes move, hospitals use
bare IP addresses): identity is the SAN URI plus the signed hello, see p2p/hello.py.
No session tickets and no 0-RTT: every link proves both keys afresh.
Source: RFC 8446; architecture section 4 (admission).
"""

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.errors import PeerProtocolError, UnavailableError
from ledger.ids import TimestampMs
from p2p.hello import CertificateIdentity


def _no_password() -> str:
    """Without it OpenSSL would ask at the terminal and hang a service."""
    return ""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files lie; `password` is called only if the private key is encrypted."""

    certificate: Path
    key: Path
    authority: Path
    password: Callable[[], str] = _no_password


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of links that others dial. Raises: UnavailableError naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    return _hardened(context, files)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """The context of links that we dial. Raises: UnavailableError naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return _hardened(context, files)


def _hardened(context: ssl.SSLContext, files: TlsFiles) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(files.certificate, files.key, files.password)
    except OSError as error:  # ssl.SSLError is one
        raise UnavailableError(
            f"cannot use certificate {files.certificate} with key {files.key}: {error}"
        ) from error
    try:
        context.load_verify_locations(cafile=files.authority)
    except OSError as error:
        raise UnavailableError(
            f"cannot use the authority certificate {files.authority}: {error}"
        ) from error
    return context


def read_own_certificate(path: Path) -> CertificateIdentity:
    """The identity in our own PEM file. Raises: UnavailableError naming the file."""
    try:
        return _identity(x509.load_pem_x509_certificate(path.read_bytes()))
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UnavailableError(f"cannot read certificate {path}: {error}") from error


def read_peer_certificate(certificate_der: bytes) -> CertificateIdentity:
    """The identity in a peer's DER certificate, whose chain TLS has verified.

    Raises: PeerProtocolError when its key or names cannot be read.
    """
    try:
        return _identity(x509.load_der_x509_certificate(certificate_der))
    except (ValueError, UnsupportedAlgorithm, x509.DuplicateExtension) as error:
        raise PeerProtocolError(f"unreadable certificate: {error}") from error


def _identity(certificate: x509.Certificate) -> CertificateIdentity:
    expires_ms = TimestampMs(int(certificate.not_valid_after_utc.timestamp() * 1_000))
    spki_der = certificate.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return CertificateIdentity(sha256(spki_der).digest(), (), expires_ms)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return CertificateIdentity(sha256(spki_der).digest(), tuple(uris), expires_ms)
