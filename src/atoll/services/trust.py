"""Who is trusted: the trust store in memory, asked once per request."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.caller import Caller, Protocol
from atoll.domain.entities import Certificate
from atoll.host.pki import Authority
from atoll.host.x509 import Validity
from atoll.services.settings import SettingsService

METRICS_PATH = "/1.0/metrics"
"""All that a certificate of type metrics may read."""


class CertificateType(StrEnum):
    """What a certificate is for."""

    CLIENT = "client"
    METRICS = "metrics"


@dataclass(frozen=True, slots=True)
class Peer:
    """The certificate of a TLS connection. `signed` tells whether the authority accepts it; True where there is none."""

    der: bytes
    fingerprint: str
    validity: Validity
    signed: bool = True


class TrustStore:
    """The entries by fingerprint. Filled by CertificateService, which tells it of every change."""

    def __init__(self, settings: SettingsService, authority: Authority | None = None) -> None:
        self._settings = settings
        self._entries: dict[str, Certificate] = {}
        self.authority = authority

    def fill(self, entries: Iterable[Certificate]) -> None:
        """Make these all its entries."""
        self._entries = {entry.fingerprint: entry for entry in entries}

    def accepts(self, der: bytes) -> bool:
        """Whether the authority, if there is one, has signed that certificate."""
        return self.authority is None or self.authority.accepts(der)

    def caller(self, peer: Peer | None, *, address: str, path: str) -> Caller:
        """Who the holder of a certificate is, for a request of that path. Out of date or unknown is not trusted.

        The authority comes before the store: what it has not signed, or has revoked, is nobody, entry or not. An entry comes
        before the trust that the authority's signature alone may give: who is restricted stays so.
        """
        if peer is None:
            return Caller(Protocol.TLS, address=address)
        stranger = Caller(Protocol.TLS, username=peer.fingerprint, address=address)
        if not peer.signed or not peer.validity.holds(time.time()):
            return stranger
        entry = self._entries.get(peer.fingerprint)
        if entry is not None:
            return _known(entry, address, path)
        if self.authority is not None and self._settings.flag("core.trust_ca_certificates"):
            return Caller(Protocol.TLS, username=peer.fingerprint, address=address, trusted=True)
        return stranger


def _known(entry: Certificate, address: str, path: str) -> Caller:
    return Caller(
        Protocol.TLS,
        username=entry.fingerprint,
        address=address,
        trusted=entry.type != CertificateType.METRICS or path == METRICS_PATH,
        restricted=entry.restricted,
        projects=frozenset(entry.projects),
        certificate_type=entry.type,
    )
