"""A certificate authority for tests: Ed25519 certificates that name a node in a SAN URI."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from p2p.tls import TlsFiles

NOW = datetime.now(UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class TestAuthority:
    """Issues certificates below `folder`."""

    __test__ = False

    def __init__(self, folder: Path, name: str = "consortium") -> None:
        self.folder = folder
        self.name = _name(name)
        self.key = Ed25519PrivateKey.generate()
        self.path = folder / f"{name}.pem"
        certificate = (
            self._builder(self.name, self.key, timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self.key, None)
        )
        self.path.write_bytes(certificate.public_bytes(Encoding.PEM))

    def _builder(
        self, subject: x509.Name, key: Ed25519PrivateKey, until: timedelta
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW - timedelta(hours=1))
            .not_valid_after(NOW + until)
        )

    def issue(
        self,
        label: str,
        uris: tuple[str, ...],
        *,
        password: str | None = None,
        until: timedelta = timedelta(hours=1),
    ) -> TlsFiles:
        key = Ed25519PrivateKey.generate()
        usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = self._builder(_name(label), key, until).add_extension(
            x509.ExtendedKeyUsage(usages), critical=False
        )
        if uris:
            names = [x509.UniformResourceIdentifier(uri) for uri in uris]
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        encryption = BestAvailableEncryption(password.encode()) if password else NoEncryption()
        files = TlsFiles(
            certificate=self.folder / f"{label}.pem",
            key=self.folder / f"{label}.key",
            authority=self.path,
            **({"password": lambda: password} if password else {}),
        )
        files.certificate.write_bytes(builder.sign(self.key, None).public_bytes(Encoding.PEM))
        files.key.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption))
        return files
