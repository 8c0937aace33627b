"""TLS contexts and certificates: strict settings, readable refusals, no prompt at a terminal."""

import ssl
from dataclasses import replace
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ledger.errors import PeerProtocolError, UnavailableError
from p2p.hello import CertificateIdentity
from p2p.tls import (
    TlsFiles,
    client_context,
    read_own_certificate,
    read_peer_certificate,
    server_context,
)
from tests.unit.p2p.certificates import TestAuthority

URI = "kanglian:node:" + 64 * "a"


@pytest.fixture
def authority(tmp_path):
    return TestAuthority(tmp_path)


def test_both_contexts_speak_tls_1_3_only_and_demand_a_certificate(authority) -> None:
    files = authority.issue("node", (URI,))
    server, client = server_context(files), client_context(files)
    for context in (server, client):
        assert context.minimum_version is ssl.TLSVersion.TLSv1_3
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname is False
        assert len(context.get_ca_certs()) == 1
    assert server.num_tickets == 0


def test_a_certificate_is_read_as_key_hash_and_uris(authority) -> None:
    files = authority.issue("node", (URI,))
    certificate = x509.load_pem_x509_certificate(files.certificate.read_bytes())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    expires_ms = int(certificate.not_valid_after_utc.timestamp()) * 1_000
    expected = CertificateIdentity(sha256(key).digest(), (URI,), expires_ms)
    assert read_own_certificate(files.certificate) == expected
    assert read_peer_certificate(certificate.public_bytes(Encoding.DER)) == expected


def test_a_certificate_without_names_has_no_uris(authority) -> None:
    assert read_own_certificate(authority.issue("node", ()).certificate).uris == ()


def test_bytes_that_are_no_certificate_are_the_fault_of_the_peer() -> None:
    with pytest.raises(PeerProtocolError, match="unreadable certificate"):
        read_peer_certificate(b"0\x03\x02\x01\x01")


def test_an_encrypted_key_opens_with_its_password(authority) -> None:
    files = authority.issue("node", (URI,), password="correct horse")
    assert server_context(files)
    wrong = replace(files, password=lambda: "wrong")
    with pytest.raises(UnavailableError, match=r"node\.key"):
        server_context(wrong)


def test_an_encrypted_key_without_a_password_fails_and_does_not_ask(authority) -> None:
    files = authority.issue("node", (URI,), password="correct horse")
    silent = TlsFiles(files.certificate, files.key, files.authority)
    with pytest.raises(UnavailableError, match=r"node\.key"):
        client_context(silent)


@pytest.mark.parametrize("missing", ["certificate", "key", "authority"])
def test_a_missing_file_is_named(authority, tmp_path, missing) -> None:
    files = replace(authority.issue("node", (URI,)), **{missing: tmp_path / "gone.pem"})
    with pytest.raises(UnavailableError, match=r"gone\.pem"):
        server_context(files)


def test_our_own_unreadable_certificate_is_named(tmp_path) -> None:
    (tmp_path / "bad.pem").write_text("nonsense")
    with pytest.raises(UnavailableError, match=r"bad\.pem"):
        read_own_certificate(tmp_path / "bad.pem")
