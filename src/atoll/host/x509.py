"""X.509 certificates: making the server's own, reading those of clients.

`cryptography` costs 70 ms and some memory to import, so it is imported only where a certificate is made or checked; what the
standard library can do it does.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.domain.errors import BadRequest

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric import ec

LARGEST = 64 * 1024
"""Characters of a certificate that a client may send."""

_PEM_HEAD = "-----BEGIN CERTIFICATE-----"
_PEM_TAIL = "-----END CERTIFICATE-----"
_YEARS = 10


@dataclass(frozen=True, slots=True)
class Validity:
    """The span in which a certificate holds, in seconds since 1970."""

    not_before: float
    not_after: float

    def holds(self, now: float) -> bool:
        """Whether `now` is in it."""
        return self.not_before <= now <= self.not_after


@dataclass(frozen=True, slots=True)
class ServerFiles:
    """The two files of the server's certificate."""

    certificate: Path
    key: Path

    def present(self) -> bool:
        """Whether both are there."""
        return self.certificate.exists() and self.key.exists()

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever one of the files does. OSError if one is missing."""
        found = [path.stat() for path in (self.certificate, self.key)]
        return tuple(number for stat in found for number in (stat.st_mtime_ns, stat.st_ino, stat.st_size))


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate, in hexadecimal."""
    return hashlib.sha256(der).hexdigest()


def to_der(text: str) -> bytes:
    """The certificate in a PEM text (the first, if there are several), or in base64 of DER. BadRequest if it is neither."""
    if len(text) > LARGEST:
        raise BadRequest(f"The certificate is larger than {LARGEST} characters")
    _, marker, behind = text.partition(_PEM_HEAD)
    body, end, _ = behind.partition(_PEM_TAIL)
    if marker and not end:
        raise BadRequest("Invalid certificate: its PEM has no end")
    try:
        der = base64.b64decode("".join((body if marker else text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("Invalid certificate: neither PEM nor base64") from error
    if not der:
        raise BadRequest("Invalid certificate: it is empty")
    return der


def to_pem(der: bytes) -> str:
    """As the trust store keeps it."""
    return ssl.DER_cert_to_PEM_cert(der)


def check(der: bytes) -> str:
    """Parse a certificate from outside; its common name, "" if it has none. BadRequest if it is none. Slow: use a thread."""
    from cryptography.x509.oid import NameOID

    names = _parse(der).subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(names[0].value) if names else ""


def check_now(der: bytes) -> str:
    """`check`; BadRequest also for a certificate that does not hold now."""
    certificate, now = _parse(der), datetime.now(UTC)
    if now < certificate.not_valid_before_utc:
        raise BadRequest("The provided certificate isn't valid yet")
    if now > certificate.not_valid_after_utc:
        raise BadRequest("The provided certificate is expired")
    return check(der)


def _parse(der: bytes) -> x509.Certificate:
    from cryptography import x509

    try:
        certificate = x509.load_der_x509_certificate(der)
        certificate.public_key()
        certificate.subject  # noqa: B018 - parsed when it is read
    except Exception as error:  # the parser raises many kinds, for unknown key types too; all mean the same to the client
        raise BadRequest("Invalid certificate: it cannot be parsed") from error
    return certificate


def validity_of_peer(decoded: Any) -> Validity:
    """The dates in what `SSLObject.getpeercert()` returns; a span that never holds where there are none."""
    try:
        return Validity(ssl.cert_time_to_seconds(decoded["notBefore"]), ssl.cert_time_to_seconds(decoded["notAfter"]))
    except (KeyError, TypeError, ValueError):
        return Validity(0.0, -1.0)


def ensure_server_files(files: ServerFiles) -> None:
    """Make the server's self-signed certificate unless both files are there. Slow: use a thread."""
    if files.present():
        return
    certificate, key = make_self_signed(socket.gethostname())
    # The key first and no certificate beside it: a kill leaves an incomplete pair, which the next start makes anew.
    files.certificate.unlink(missing_ok=True)
    _write(files.key, key)
    _write(files.certificate, certificate)


def make_self_signed(hostname: str) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM: ECDSA on P-384, ten years, for that host and loopback."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP384R1())
    certificate = _sign(key, hostname)
    return (
        certificate.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        ),
    )


def _sign(key: ec.EllipticCurvePrivateKey, hostname: str) -> x509.Certificate:
    import ipaddress
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    # A common name may have 64 characters at most; clients go by the alternative names anyway.
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Atoll"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"root@{hostname}"[:64]),
        ]
    )
    now = datetime.now(UTC)
    loopback = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    usage = x509.KeyUsage(
        digital_signature=True, key_encipherment=True, content_commitment=False, data_encipherment=False, key_agreement=False,
        key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(hostname), *loopback]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .sign(key, hashes.SHA384())
    )


def _write(path: Path, data: bytes) -> None:
    """Put a file in place whole, for root's eyes only."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
