"""The consortium's authority: its certificates carry TLS, and unfit files are refused by name."""

import os
import ssl
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from genesis.authority import (
    NODE_DAYS,
    ROOT_DAYS,
    create_root,
    fingerprint,
    issue_node,
    load_authority,
    load_node,
    save_authority,
    save_node,
)
from genesis.private_files import FileProblem, PrivateFileError
from ledger.errors import Reason, Rejected

NOW = datetime(2025, 11, 21, 8, 30, tzinfo=UTC)
TODAY = datetime.now(UTC)  # TLS itself reads the clock
ADDRESS = "ab" * 32


@pytest.fixture(scope="module")
def root():
    return create_root("示范市健康数据联盟", NOW)


@pytest.fixture
def saved(tmp_path, root):
    """The paths (root certificate, root key, node certificate, node key) of sound files."""
    paths = tuple(tmp_path / name for name in ("ca.crt", "ca.key", "tls.crt", "tls.key"))
    save_authority(root, paths[0], paths[1], "correct horse")
    save_node(issue_node(root, ADDRESS, NOW), paths[2], paths[3])
    return paths


def problem_of(call, *arguments) -> tuple[FileProblem, str]:
    with pytest.raises(PrivateFileError) as caught:
        call(*arguments)
    return caught.value.problem, caught.value.path.name


def parsed(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


def extension(certificate: x509.Certificate, kind):
    found = certificate.extensions.get_extension_for_class(kind)
    return found.value, found.critical


def test_a_root_signs_nodes_and_no_further_authorities(root):
    certificate = parsed(root.certificate_pem)
    certificate.verify_directly_issued_by(certificate)
    assert certificate.subject.rfc4514_string() == "CN=示范市健康数据联盟"
    assert extension(certificate, x509.BasicConstraints) == (x509.BasicConstraints(True, 0), True)
    usage, critical = extension(certificate, x509.KeyUsage)
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature, critical) == (
        True,
        True,
        False,
        True,
    )
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=ROOT_DAYS)


def test_a_node_certificate_names_its_node_and_can_sign_no_other(root):
    issued = issue_node(root, ADDRESS, NOW, hosts=("node0.example", "10.0.0.7", "::1"))
    certificate = parsed(issued.certificate_pem)
    certificate.verify_directly_issued_by(parsed(root.certificate_pem))
    names, _ = extension(certificate, x509.SubjectAlternativeName)
    assert [str(name.value) for name in names] == [
        f"kanglian:node:{ADDRESS}",
        "node0.example",
        "10.0.0.7",
        "::1",
    ]
    assert extension(certificate, x509.BasicConstraints) == (
        x509.BasicConstraints(False, None),
        True,
    )
    usage, critical = extension(certificate, x509.KeyUsage)
    assert (usage.digital_signature, usage.key_cert_sign, critical) == (True, False, True)
    assert extension(certificate, x509.ExtendedKeyUsage)[0] == x509.ExtendedKeyUsage(
        [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    )
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=NODE_DAYS)


def test_times_of_another_zone_are_the_same_instant(root):
    china = NOW.astimezone(tz=datetime.strptime("+0800", "%z").tzinfo)
    certificate = parsed(issue_node(root, ADDRESS, china).certificate_pem)
    assert certificate.not_valid_before_utc == NOW - timedelta(minutes=5)


def test_two_certificates_share_neither_serial_number_nor_key(root):
    first, second = (parsed(issue_node(root, ADDRESS, NOW).certificate_pem) for _ in range(2))
    assert first.serial_number != second.serial_number
    assert first.public_key() != second.public_key()


def test_secrets_do_not_show_in_a_repr(root):
    issued = issue_node(root, ADDRESS, NOW)
    assert "PRIVATE" not in repr(issued) + repr(root)
    assert "key" not in repr(root).replace("certificate_pem", "")


@pytest.mark.parametrize("address", ["", "ab" * 31, "AB" * 32, "kn1" + "q" * 61, "ab" * 32 + "\n"])
def test_only_a_hexadecimal_address_gets_a_certificate(root, address):
    with pytest.raises(Rejected) as caught:
        issue_node(root, address, NOW)
    assert caught.value.reason is Reason.BAD_ADDRESS


@pytest.mark.parametrize("name", ["", "x" * 65])
def test_a_root_needs_a_name_that_a_certificate_can_hold(name):
    with pytest.raises(Rejected) as caught:
        create_root(name, NOW)
    assert caught.value.reason is Reason.MALFORMED


def test_the_fingerprint_is_that_of_the_der_form(root):
    der = parsed(root.certificate_pem).public_bytes(Encoding.DER)
    assert fingerprint(root.certificate_pem) == sha256(der).digest()
    assert fingerprint(b"# a comment\n" + root.certificate_pem) == sha256(der).digest()
    with pytest.raises(Rejected):
        fingerprint(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")


def test_an_authority_comes_back_from_its_files_and_issues(saved, root):
    loaded = load_authority(saved[0], saved[1], "correct horse", NOW)
    assert loaded.certificate_pem == root.certificate_pem
    issued = parsed(issue_node(loaded, ADDRESS, NOW).certificate_pem)
    issued.verify_directly_issued_by(parsed(root.certificate_pem))
    assert b"ENCRYPTED" in saved[1].read_bytes()
    assert [path.stat().st_mode & 0o777 for path in saved] == [0o644, 0o600, 0o644, 0o600]


def test_a_key_for_development_is_plain_and_needs_no_passphrase(tmp_path, root):
    save_authority(root, tmp_path / "ca.crt", tmp_path / "ca.key", None)
    for passphrase in (None, "not needed"):
        loaded = load_authority(tmp_path / "ca.crt", tmp_path / "ca.key", passphrase, NOW)
        assert loaded.certificate_pem == root.certificate_pem


def test_node_files_come_back_as_they_were_written(tmp_path, root, saved):
    issued = issue_node(root, ADDRESS, NOW)
    save_node(issued, saved[2], saved[3], replace=True)
    assert load_node(saved[2], saved[3], saved[0], NOW) == issued


def test_files_that_exist_are_not_overwritten(saved, root):
    before = [path.read_bytes() for path in saved]
    issued = issue_node(root, ADDRESS, NOW)
    assert problem_of(save_authority, root, saved[0], saved[1], None)[0] is FileProblem.EXISTS
    assert problem_of(save_node, issued, saved[2], saved[3])[0] is FileProblem.EXISTS
    assert [path.read_bytes() for path in saved] == before


def test_an_empty_passphrase_neither_seals_nor_opens(tmp_path, saved, root):
    new = tmp_path / "new.key"
    assert problem_of(save_authority, root, tmp_path / "new.crt", new, "") == (
        FileProblem.NO_PASSPHRASE,
        "new.key",
    )
    assert not new.exists()
    assert problem_of(load_authority, saved[0], saved[1], "", NOW)[0] is FileProblem.NO_PASSPHRASE


@pytest.mark.parametrize(
    ("passphrase", "expected"),
    [(None, FileProblem.NO_PASSPHRASE), ("wrong", FileProblem.WRONG_PASSPHRASE)],
)
def test_a_sealed_key_stays_closed_without_its_passphrase(saved, passphrase, expected):
    assert problem_of(load_authority, saved[0], saved[1], passphrase, NOW) == (expected, "ca.key")


def test_each_unfit_authority_file_has_its_name(tmp_path, saved):
    certificate, key, node_certificate, node_key = saved
    text = tmp_path / "text"
    text.write_text("no certificate")
    text.chmod(0o600)
    other = ec.generate_private_key(ec.SECP256R1())
    curve = tmp_path / "curve.key"
    curve.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    curve.chmod(0o600)
    absent = tmp_path / "absent"
    expired = NOW + timedelta(days=ROOT_DAYS, seconds=1)
    early = NOW - timedelta(minutes=5, seconds=1)

    def problem(certificate, key, now=NOW):
        return problem_of(load_authority, certificate, key, "correct horse", now)

    assert [
        problem(absent, key),
        problem(certificate, absent),
        problem(text, key),
        problem(certificate, text),
        problem(certificate, curve),
        problem(certificate, node_key),
        problem(node_certificate, node_key),
        problem(certificate, key, expired),
        problem(certificate, key, early),
    ] == [
        (FileProblem.MISSING, "absent"),
        (FileProblem.MISSING, "absent"),
        (FileProblem.DAMAGED, "text"),
        (FileProblem.DAMAGED, "text"),
        (FileProblem.DAMAGED, "curve.key"),
        (FileProblem.MISMATCH, "ca.crt"),
        (FileProblem.MISMATCH, "tls.crt"),
        (FileProblem.EXPIRED, "ca.crt"),
        (FileProblem.NOT_YET_VALID, "ca.crt"),
    ]
    key.chmod(0o640)
    assert problem(certificate, key) == (FileProblem.TOO_OPEN, "ca.key")


def test_a_damaged_sealed_key_is_told_to_be_restored_from_a_copy(saved):
    body = saved[1].read_bytes()
    saved[1].write_bytes(body[:80] + b"AAAA" + body[84:])
    with pytest.raises(PrivateFileError, match="restore it from a copy"):
        load_authority(saved[0], saved[1], "correct horse", NOW)


def test_each_unfit_node_file_has_its_name(tmp_path, saved, root):
    stranger = create_root("示范市健康数据联盟", NOW)
    foreign = tmp_path / "foreign.crt"
    foreign.write_bytes(stranger.certificate_pem)
    other_certificate, other_key = tmp_path / "other.crt", tmp_path / "other.key"
    save_node(issue_node(root, ADDRESS, NOW), other_certificate, other_key)

    assert [
        problem_of(load_node, saved[2], saved[3], foreign, NOW),
        problem_of(load_node, saved[2], other_key, saved[0], NOW),
        problem_of(load_node, saved[2], saved[3], other_certificate, NOW),
        problem_of(load_node, saved[2], saved[3], saved[0], NOW + timedelta(days=NODE_DAYS + 1)),
        problem_of(load_node, saved[2], saved[1], saved[0], NOW),
    ] == [
        (FileProblem.MISMATCH, "tls.crt"),
        (FileProblem.MISMATCH, "tls.crt"),
        (FileProblem.MISMATCH, "other.crt"),
        (FileProblem.EXPIRED, "tls.crt"),
        (FileProblem.NO_PASSPHRASE, "ca.key"),
    ]


def _context(side: int, paths: tuple) -> ssl.SSLContext:
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_verify_locations(cafile=os.fspath(paths[0]))
    context.load_cert_chain(paths[1], paths[2])
    return context


def _shake_hands(server_files: tuple, client_files: tuple) -> tuple[dict, dict]:
    """A TLS handshake in memory; gives the certificate that each side sees of the other."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = _context(ssl.PROTOCOL_TLS_SERVER, server_files).wrap_bio(
        to_server, to_client, server_side=True
    )
    client = _context(ssl.PROTOCOL_TLS_CLIENT, client_files).wrap_bio(to_client, to_server)
    waiting = [client, server]
    for _ in range(6):
        for side in tuple(waiting):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
            waiting.remove(side)
    assert not waiting
    return server.getpeercert(), client.getpeercert()


def _tls_files(folder, name: str, root, address: str) -> tuple:
    paths = (folder / f"{name}.ca", folder / f"{name}.crt", folder / f"{name}.key")
    paths[0].write_bytes(root.certificate_pem)
    save_node(issue_node(root, address, TODAY), paths[1], paths[2])
    return paths


def test_tls_accepts_the_certificates_in_both_directions_under_strict_rules(tmp_path):
    root = create_root("authority", TODAY)
    seen_by_server, seen_by_client = _shake_hands(
        _tls_files(tmp_path, "server", root, "aa" * 32),
        _tls_files(tmp_path, "client", root, "bb" * 32),
    )
    assert seen_by_server["subjectAltName"] == (("URI", "kanglian:node:" + "bb" * 32),)
    assert seen_by_client["subjectAltName"] == (("URI", "kanglian:node:" + "aa" * 32),)


def test_tls_refuses_a_certificate_of_another_authority(tmp_path):
    ours, theirs = create_root("authority", TODAY), create_root("authority", TODAY)
    server = _tls_files(tmp_path, "server", ours, "aa" * 32)
    client = _tls_files(tmp_path, "client", theirs, "bb" * 32)
    with pytest.raises(ssl.SSLCertVerificationError):
        _shake_hands(server, (server[0], *client[1:]))
