"""A certificate authority of our own and the server's certificate: made, renewed and rotated without anybody waiting.

Pilots pin trust anchors, a *set* (``ca.pem`` holds one or more). `rotate` adds a new authority: the server then shows a
certificate of the new one together with the new one's certificate signed by the old. A pilot that pinned only the old
anchor follows that chain, one that pinned the new one needs no chain: both are served at the same moment.
Keys are ECDSA P-256: every OpenSSL that a worker node may have knows it, and a handshake costs a tenth of RSA's.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from pilotage.wholefile import write_whole

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

AUTHORITY_DAYS = 3650
SERVER_DAYS = 90
RENEW_DAYS = 30
"""A server certificate with less than this left is made anew; an authority with less than SERVER_DAYS is rotated."""


_CERTIFICATE = re.compile("-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """Where the PEM files are: the server's chain, its key, the anchors that clients trust; and the names certified.

    Ours keep key and chain in one file, which is replaced in one step, so that they always belong together.
    """

    cert: Path
    key: Path
    ca: Path
    hosts: tuple[str, ...] = ()

    def anchors(self) -> list[str]:
        """The trust anchors as PEM texts, for the profile's ``service.trust``; newest first."""
        return split(self.ca.read_text())


def split(text: str) -> list[str]:
    """The certificates of a PEM file, one text each."""
    return [match + "\n" for match in _CERTIFICATE.findall(text)]


def ensure(directory: Path, hosts: Iterable[str]) -> TlsFiles:
    """Authority and server certificate in ``directory``, made when missing, renewed when old or for other hosts.

    ``hosts``: names and addresses by which pilots and users reach the service. Safe to call at every start and every
    hour; it writes only when something must change.
    """
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    names = tuple(sorted(set(hosts)))
    files = TlsFiles(directory / "server.pem", directory / "server.pem", directory / "ca.pem", names)
    authority = directory / "authority.pem"
    if not authority.exists() or _days_left(authority) < SERVER_DAYS:
        _add_authority(directory)
    if not _serves(files):
        _issue(directory, files)
    return files


def rotate(directory: Path, hosts: Iterable[str]) -> TlsFiles:
    """A new authority and a server certificate of it; the old anchors stay in the set until they expire."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    _add_authority(directory)
    (directory / "server.pem").unlink(missing_ok=True)
    return ensure(directory, hosts)


def _add_authority(directory: Path) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

    old = directory / "authority.pem"
    key = ec.generate_private_key(ec.SECP256R1())
    serial = x509.random_serial_number()
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, f"Pilotage authority {serial:x}"[:32])])
    own = _authority(subject, key, subject, key, serial)
    bridges: list[str] = []
    if old.exists():
        parent = _load(old.read_text())
        bridges = [_pem(_authority(subject, key, parent.subject, _load_key(old), x509.random_serial_number()))]
    # The bridges of the times before serve those who pinned an anchor before the last one.
    bridges += split(_read(directory / "bridge.pem"))
    anchors = [own] + [c for c in map(_load, split(_read(directory / "ca.pem"))) if c.not_valid_after_utc > _now()]
    # The order matters after a crash: the set of anchors grows first, and what signs changes last.
    write_whole(directory / "ca.pem", "".join(_pem(c) for c in anchors), 0o644)
    write_whole(directory / "bridge.pem", "".join(bridges), 0o644)
    write_whole(old, _key_pem(key) + _pem(own), 0o600)


def _authority(
    subject: x509.Name,
    key: EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: EllipticCurvePrivateKey,
    serial: int,
) -> x509.Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    return (
        _builder(subject, issuer, AUTHORITY_DAYS, serial)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )


def _issue(directory: Path, files: TlsFiles) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID

    parent = _load((directory / "authority.pem").read_text())
    signer = _load_key(directory / "authority.pem")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, files.hosts[0][:64])])
    certificate = (
        _builder(subject, parent.subject, SERVER_DAYS, x509.random_serial_number())
        .public_key(key.public_key())
        .add_extension(x509.SubjectAlternativeName([_general_name(h) for h in files.hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    write_whole(files.cert, _key_pem(key) + _pem(certificate) + _read(directory / "bridge.pem"), 0o600)


def _serves(files: TlsFiles) -> bool:
    """Whether the server's certificate is there, fresh, by the present authority, and for the wanted hosts."""
    from cryptography import x509

    if not files.cert.exists():
        return False
    certificate = _load(files.cert.read_text())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    parent = _load((files.ca.parent / "authority.pem").read_text())
    return (
        certificate.not_valid_after_utc - _now() > timedelta(days=RENEW_DAYS)
        and set(names) == {_general_name(h) for h in files.hosts}
        and certificate.issuer == parent.subject
    )


def _builder(subject: x509.Name, issuer: x509.Name, days: int, serial: int) -> x509.CertificateBuilder:
    from cryptography import x509

    # A day back: worker nodes' clocks are often late.
    begin = _now() - timedelta(days=1)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).serial_number(serial)
    return builder.not_valid_before(begin).not_valid_after(_now() + timedelta(days=days))


def _general_name(host: str) -> x509.GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _days_left(path: Path) -> float:
    return (_load(path.read_text()).not_valid_after_utc - _now()).total_seconds() / 86400


def _now() -> datetime:
    return datetime.now(UTC)


def _load(pem: str) -> x509.Certificate:
    from cryptography import x509

    return x509.load_pem_x509_certificate(split(pem)[0].encode())


def _load_key(path: Path) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    key = load_pem_private_key(path.read_bytes().partition(b"-----BEGIN CERT")[0], None)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise ValueError(f"{path} does not hold an elliptic-curve key")
    return key


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode()


def _key_pem(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""
