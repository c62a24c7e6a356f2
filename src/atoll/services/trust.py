"""Who is trusted: the trust store in memory, asked once per request."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.caller import Caller, Protocol
from atoll.domain.entities import Certificate
from atoll.domain.errors import HostError
from atoll.host.pki import Authority, AuthorityFiles
from atoll.host.threads import in_thread
from atoll.host.x509 import Validity
from atoll.services.settings import SettingsService

log = logging.getLogger(__name__)

METRICS_PATH = "/1.0/metrics"
"""All that a certificate of type metrics may read."""

_VERDICTS = 1024


class CertificateType(StrEnum):
    """What a certificate is for."""

    CLIENT = "client"
    METRICS = "metrics"
    SERVER = "server"  # another server of ours: a client with all rights, as LXD has it


@dataclass(frozen=True, slots=True)
class Peer:
    """The certificate of a TLS connection."""

    der: bytes
    fingerprint: str
    validity: Validity


class TrustStore:
    """The entries by fingerprint. Filled by CertificateService, which tells it of every change.

    Whether there is an authority is found out once, by `open`. Its files are read anew when they change; from then on it is
    what they say that counts, on connections that are open too. A file that goes away, or cannot be read, changes nothing
    until the next start: nobody gets in by breaking it.
    """

    def __init__(self, settings: SettingsService, files: AuthorityFiles | None = None) -> None:
        self._settings = settings
        self._entries: dict[str, Certificate] = {}
        self._files = files
        self._stamp: tuple[int, ...] = ()
        self._authority: Authority | None = None
        self._verdicts: dict[str, bool] = {}
        self._listeners: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Read the authority, if there is one. HostError if its files cannot be used."""
        if self._files is not None:
            self._stamp = await in_thread(self._files.stamp)
            self._authority = await in_thread(self._files.load)

    async def reload_if_changed(self) -> None:
        """Go by the authority's files as they are now."""
        if self._files is None or self._authority is None:
            return
        stamp = await in_thread(self._files.stamp)
        if stamp == self._stamp:
            return
        before, self._stamp = self._stamp, stamp
        if len(stamp) < len(before):
            log.warning("A file of the certificate authority is gone; what it said holds until the next start")
            return
        try:
            self._authority = await in_thread(self._files.load) or self._authority
        except HostError as error:
            log.warning("The change of the certificate authority is not used: %s", error)
            return
        self._verdicts.clear()
        self._tell()

    def on_change(self, callback: Callable[[], None]) -> None:
        """Call back whenever somebody may have gained or lost trust."""
        self._listeners.append(callback)

    def _tell(self) -> None:
        for callback in self._listeners:
            callback()

    def fill(self, entries: Iterable[Certificate]) -> None:
        """Make these all its entries."""
        self._entries = {entry.fingerprint: entry for entry in entries}
        self._tell()

    def accepts(self, der: bytes, fingerprint: str) -> bool:
        """Whether the authority, if there is one, has signed that certificate and not revoked it. Asked of it once each."""
        if self._authority is None:
            return True
        verdict = self._verdicts.get(fingerprint)
        if verdict is None:
            if len(self._verdicts) >= _VERDICTS:  # of strangers mostly: anybody can show up with new certificates
                self._verdicts.clear()
            verdict = self._verdicts[fingerprint] = self._authority.accepts(der)
        return verdict

    def caller(self, peer: Peer | None, *, address: str, path: str) -> Caller:
        """Who the holder of a certificate is, for a request of that path. Out of date or unknown is not trusted.

        The authority comes before the store: what it has not signed, or has revoked, is nobody, entry or not. An entry comes
        before the trust that the authority's signature alone may give: who is restricted stays so.
        """
        if peer is None:
            return Caller(Protocol.TLS, address=address)
        stranger = Caller(Protocol.TLS, username=peer.fingerprint, address=address)
        if not peer.validity.holds(time.time()) or not self.accepts(peer.der, peer.fingerprint):
            return stranger
        entry = self._entries.get(peer.fingerprint)
        if entry is not None:
            return _known(entry, address, path)
        if self._authority is not None and self._settings.flag("core.trust_ca_certificates"):
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
