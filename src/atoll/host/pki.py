"""A certificate authority of clients: `server.ca` and the revocation list `ca.crl` in the state directory.

Where there is one, only clients with a certificate signed by it are considered at all; the trust store comes after.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from atoll.domain.errors import HostError

if TYPE_CHECKING:
    from cryptography import x509


class Authority:
    """One authority, with the serial numbers it has revoked."""

    def __init__(self, certificate: x509.Certificate, revoked: frozenset[int]) -> None:
        self._certificate = certificate
        self._revoked = revoked

    def accepts(self, der: bytes) -> bool:
        """Whether it signed that certificate and has not revoked it. Dates are checked by the trust store, for all alike."""
        from cryptography import x509
        from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm

        try:
            client = x509.load_der_x509_certificate(der)
            client.verify_directly_issued_by(self._certificate)
        except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
            return False
        return client.serial_number not in self._revoked


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """The two files of an authority; without the first there is none, without the second nothing is revoked."""

    certificate: Path
    revoked: Path

    @classmethod
    def of(cls, root: Path) -> Self:
        """Those of a state directory."""
        return cls(root / "server.ca", root / "ca.crl")

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever one of the files does, or comes, or goes."""
        return tuple(number for path in (self.certificate, self.revoked) for number in _stamp(path))

    def load(self) -> Authority | None:
        """The authority; None if there is none. HostError if its files cannot be used: failing open is no way. Slow: use a
        thread."""
        if not self.certificate.exists():
            return None
        from cryptography import x509

        try:
            certificate = x509.load_pem_x509_certificate(self.certificate.read_bytes())
            return Authority(certificate, _revoked(self.revoked, certificate))
        except (ValueError, OSError) as error:
            raise HostError(f"{self.certificate} or ca.crl beside it cannot be used: {error}") from error


def _stamp(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino, found.st_size


def _revoked(file: Path, authority: x509.Certificate) -> frozenset[int]:
    if not file.exists():
        return frozenset()
    from cryptography import x509

    revocations = x509.load_pem_x509_crl(file.read_bytes())
    if not revocations.is_signature_valid(authority.public_key()):  # type: ignore[arg-type]  # a key no authority can have is refused
        raise ValueError("the revocation list is not signed by the authority")
    return frozenset(entry.serial_number for entry in revocations)
