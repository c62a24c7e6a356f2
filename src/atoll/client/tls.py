"""Servers reached by HTTPS: the client's own certificate, and the server's, known from before or vouched for by an authority.

Imported only where a remote is not local: `ssl` costs 30 ms, which is more than a whole local command.
"""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
from urllib.parse import urlsplit

from atoll.client.errors import ClientError, Unreachable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.client.http1 import Stream

PORT = 8443
_PATIENCE = 15.0
_MINUTE, _YEARS = 60, 10


class Untrusted(ClientError):
    """The server's certificate is neither the known one nor an authority's; or that of somebody else."""


class Identity:
    """The two files of this client's certificate. Without them it has none, which is enough for public servers."""

    def __init__(self, folder: str) -> None:
        self.certificate = f"{folder}/client.crt"
        self.key = f"{folder}/client.key"
        self.authority = f"{folder}/client.ca"
        """Where there is this file, servers with a certificate of that authority need no asking."""

    def present(self) -> bool:
        """Whether there is one."""
        return os.path.exists(self.certificate) and os.path.exists(self.key)

    def make(self) -> None:
        """Make one, if there is none: self-signed, good for ten years; its key is for the owner alone."""
        if self.present():
            return
        certificate, key = _self_signed()
        os.makedirs(os.path.dirname(self.key), mode=0o700, exist_ok=True)
        write_private(self.key, key)
        write_private(self.certificate, certificate)


def split(address: str, *, default: int = PORT) -> tuple[str, int]:
    """(host, port) of an https:// address. ClientError if it is none."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port or default
    except ValueError:
        host, port = None, default
    if parts.scheme != "https" or not host:
        raise ClientError(f"{address!r} is not an https:// address")
    return host, port


def connect(address: str, identity: Identity | None, *, known: bytes | None = None) -> Stream:
    """A connection to a server that has the certificate `known` (DER); if that is None, one that an authority of this system
    vouches for. Untrusted before anything is sent, Unreachable if nobody listens."""
    host, port = split(address)
    context = _context(identity)
    if known is None:
        context.check_hostname = True
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_default_certs()
        if identity is not None and os.path.exists(identity.authority):
            context.load_verify_locations(identity.authority)
    stream = _open(context, host, port)
    if known is not None and stream.getpeercert(binary_form=True) != known:
        stream.close()
        raise Untrusted(
            f"The certificate of {host}:{port} is not the one this client knows: "
            "if the server got a new one, remove the remote and add it again"
        )
    return stream


def certificate_of(address: str, identity: Identity) -> tuple[bytes, bool]:
    """(certificate of the server in DER, whether an authority of this system vouches for it). Nothing is sent to it."""
    host, port = split(address)
    try:
        connect(address, identity).close()
        vouched = True
    except Untrusted:
        vouched = False
    stream = _open(_context(identity), host, port)
    try:
        der = stream.getpeercert(binary_form=True)
    finally:
        stream.close()
    if der is None:
        raise Untrusted(f"{host}:{port} showed no certificate")
    return der, vouched


def fingerprint(der: bytes) -> str:
    """SHA-256 of a certificate in hexadecimal, as servers show it."""
    return hashlib.sha256(der).hexdigest()


def read_known(path: str) -> bytes | None:
    """The certificate (DER) in a PEM file; None if there is no such file."""
    try:
        with open(path, encoding="ascii") as file:
            return ssl.PEM_cert_to_DER_cert(file.read())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ClientError(f"{path} is not a certificate") from error


def write_known(path: str, der: bytes) -> None:
    """Remember a server's certificate."""
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    write_private(path, ssl.DER_cert_to_PEM_cert(der).encode())


def write_private(path: str, content: bytes) -> None:
    """Make or replace a file that its owner alone may read, in one step."""
    new = f"{path}.new"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600), "wb") as file:
        file.write(content)
    os.replace(new, path)


def _context(identity: Identity | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if identity is not None and identity.present():
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def _open(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    where = f"{host}:{port}"
    try:
        plain = socket.create_connection((host, port), timeout=_PATIENCE)
    except OSError as error:
        raise Unreachable(where, (error.strerror or str(error)).lower()) from error
    try:
        stream = context.wrap_socket(plain, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        plain.close()
        raise Untrusted(f"The certificate of {where} is not trusted: {error.verify_message}") from error
    except OSError as error:
        plain.close()
        raise Unreachable(where, str(error).lower()) from error
    stream.settimeout(None)
    return stream


def _self_signed() -> tuple[bytes, bytes]:
    """(certificate, key), both PEM."""
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    user = os.environ.get("USER", "root")
    key = ec.generate_private_key(ec.SECP384R1())
    common = x509.NameAttribute(NameOID.COMMON_NAME, f"{user}@{socket.gethostname()}"[:64])
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Atoll"), common])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(seconds=_MINUTE))
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA384())
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return certificate.public_bytes(serialization.Encoding.PEM), private
