"""The trust store: who is in it, and the ways into it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Collection
from dataclasses import dataclass

from atoll.db import certificates as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import Certificate
from atoll.domain.errors import BadRequest, Conflict, Forbidden, NotFound, Unavailable
from atoll.host import passwords, x509
from atoll.host.threads import in_thread
from atoll.services.attempts import Attempts
from atoll.services.events import EventHub, EventType
from atoll.services.operations import Operation
from atoll.services.settings import PASSWORD, SettingsService
from atoll.services.trust import CertificateType, TrustStore
from atoll.services.trust_tokens import Grant, TrustTokens

_LONGEST_NAME = 255
_WAITING = 16
"""Log-ins by password that wait for their turn, each for a tenth of a second or so."""

_PROJECT_CHANGES = frozenset({"project-renamed", "project-deleted"})


@dataclass(frozen=True, slots=True)
class Entry:
    """What of an entry can be changed. `certificate` is PEM or base64 of DER; "" keeps it."""

    name: str
    type: str
    restricted: bool
    projects: tuple[str, ...]
    certificate: str = ""


class CertificateService:
    """Use cases of the trust store. A caller that is no administrator sees and changes only the entry of its own."""

    def __init__(
        self, database: Database, hub: EventHub, settings: SettingsService, store: TrustStore, tokens: TrustTokens
    ) -> None:
        self._database = database
        self._hub = hub
        self._settings = settings
        self._store = store
        self._tokens = tokens
        self._attempts = Attempts()
        self._hashing = asyncio.Lock()
        self._waiting = 0
        self._follower: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Fill the store in memory, and from now on follow the projects, whose names are in it."""
        await self.reload()
        self._follower = asyncio.create_task(self._follow_projects(), name="trust store follows projects")

    async def stop(self) -> None:
        """Follow them no more."""
        if self._follower is not None:
            self._follower.cancel()
            await asyncio.gather(self._follower, return_exceptions=True)

    async def reload(self) -> None:
        """Bring the store in memory up to date with the database."""
        async with self._database.read() as tx:
            self._store.fill(await rows.find_all(tx))

    async def _follow_projects(self) -> None:
        while True:  # round again only when the hub dropped a listener that could not keep up
            listener = self._hub.listen(frozenset({EventType.LIFECYCLE}))
            try:
                await self.reload()
                while (event := await listener.next()) is not None:
                    if event.metadata.get("action") in _PROJECT_CHANGES:
                        await self.reload()
            finally:
                self._hub.forget(listener)

    # --- reading -------------------------------------------------------------------------------------------------------

    async def find_all(self, caller: Caller) -> list[Certificate]:
        """The entries that a caller may see."""
        async with self._database.read() as tx:
            return [entry for entry in await rows.find_all(tx) if _may_see(caller, entry)]

    async def find(self, fingerprint: str, caller: Caller) -> Certificate:
        """One entry by the beginning of its fingerprint. NotFound if there is none that the caller may see."""
        async with self._database.read() as tx:
            return await _find(tx, fingerprint, caller)

    # --- adding --------------------------------------------------------------------------------------------------------

    async def add(self, der: bytes, grant: Grant, *, caller: Caller) -> str:
        """Add a certificate that holds now; returns its fingerprint. Conflict if it is there already."""
        common_name = await in_thread(x509.check_now, der)
        grant = _checked(dataclasses.replace(grant, name=grant.name or common_name))
        fingerprint = x509.fingerprint(der)
        async with self._database.write() as tx:
            await _create(tx, der, grant)
        await self.reload()
        self._hub.lifecycle("certificate-created", f"/1.0/certificates/{fingerprint}", caller=caller)
        return fingerprint

    def issue_token(self, grant: Grant, addresses: list[str], *, caller: Caller) -> Operation:
        """A token by which one client may add itself, with the rights said here, at one of the addresses."""
        if not grant.name:
            raise BadRequest("A token needs the name of the client it is for")
        return self._tokens.issue(_checked(grant), addresses, caller=caller)

    async def add_by_secret(self, der: bytes, grant: Grant, secret: str, *, caller: Caller) -> str:
        """Add a client that is not trusted yet, by the trust password or a token. Forbidden if that is wrong.

        What a token grants was said when it was made; `grant` counts for the password only.
        """
        self._attempts.check(caller.address)
        try:
            if not self._store.accepts(der, x509.fingerprint(der)):
                raise Forbidden("The certificate is not signed by the server's authority")
            if self._tokens.is_token(secret):
                await self._tokens.redeem(secret, lambda granted: self.add(der, granted, caller=caller))
                return x509.fingerprint(der)
            await self._check_password(secret, caller.address)
        except Forbidden:
            self._attempts.failed(caller.address)
            raise
        if grant.type != CertificateType.CLIENT:
            raise Forbidden("Only certificates of type client can be added with the trust password")
        return await self.add(der, grant, caller=caller)

    async def _check_password(self, password: str, address: str) -> None:
        """One at a time, for each hash takes memory; without a password it takes as long and fails.

        Whoever asks many times at once is counted before each hash, and where many wait, nobody joins them: hashing is work that
        strangers can ask for.
        """
        if self._waiting >= _WAITING:
            raise Unavailable("Too many clients are logging in at the moment", hint="try again in a minute")
        self._waiting += 1
        try:
            async with self._hashing:
                self._attempts.check(address)
                right = await in_thread(passwords.verify, self._settings.text(PASSWORD), password)
        finally:
            self._waiting -= 1
        if not right:
            raise Forbidden("Not authorized")

    # --- changing ------------------------------------------------------------------------------------------------------

    async def update(self, fingerprint: str, entry: Entry, *, caller: Caller) -> None:
        """Replace an entry; who is no administrator may only put another certificate in place of its own."""
        der = await _read(entry.certificate)
        async with self._database.write() as tx:
            present = await _find(tx, fingerprint, caller)
            if entry.type != present.type:
                raise Forbidden("The certificate type cannot be changed")
            grant = _checked(Grant(entry.name, entry.type, entry.restricted, entry.projects))
            if not caller.is_admin and grant != _grant_of(present):
                raise Forbidden("Only the certificate itself can be changed by its holder")
            changed = der is not None and x509.fingerprint(der) != present.fingerprint
            if changed and der is not None:
                await rows.delete(tx, present.id)
                await _create(tx, der, grant)
            else:
                await rows.update(
                    tx, present.id, type=grant.type, name=grant.name, restricted=grant.restricted, projects=grant.projects
                )
        await self.reload()
        current = x509.fingerprint(der) if changed and der is not None else present.fingerprint
        self._hub.lifecycle("certificate-updated", f"/1.0/certificates/{current}", caller=caller)

    async def delete(self, fingerprint: str, *, caller: Caller) -> None:
        """Trust it no more, from the next request on."""
        async with self._database.write() as tx:
            present = await _find(tx, fingerprint, caller)
            await rows.delete(tx, present.id)
        await self.reload()
        self._hub.lifecycle("certificate-deleted", f"/1.0/certificates/{present.fingerprint}", caller=caller)


def _may_see(caller: Caller, entry: Certificate) -> bool:
    return caller.is_admin or entry.fingerprint == caller.username


async def _find(tx: Transaction, fingerprint: str, caller: Caller) -> Certificate:
    try:
        fingerprint = names.fingerprint(fingerprint.lower())
    except BadRequest as error:
        raise NotFound("Certificate not found") from error
    if caller.is_admin:
        return await rows.find(tx, fingerprint)
    # Looked up by the caller's own fingerprint, so that a prefix which others share tells nothing of them.
    if not caller.username.startswith(fingerprint):
        raise NotFound("Certificate not found")
    return await rows.find(tx, caller.username)


async def _create(tx: Transaction, der: bytes, grant: Grant) -> None:
    fingerprint = x509.fingerprint(der)
    if any(entry.fingerprint == fingerprint for entry in await rows.find_all(tx)):
        raise Conflict("Certificate already in trust store")
    await rows.create(
        tx,
        fingerprint=fingerprint,
        type=grant.type,
        name=grant.name,
        pem=x509.to_pem(der),
        restricted=grant.restricted,
        projects=grant.projects,
    )


async def _read(certificate: str) -> bytes | None:
    if not certificate:
        return None
    der = x509.to_der(certificate)
    await in_thread(x509.check, der)
    return der


def _grant_of(entry: Certificate) -> Grant:
    return Grant(entry.name, entry.type, entry.restricted, tuple(sorted(entry.projects)))


def _checked(grant: Grant) -> Grant:
    """The grant with what its parts may be checked, in one order of projects."""
    if grant.type not in tuple(CertificateType):
        raise BadRequest(f"Unknown certificate type {grant.type[:40]!r}")
    if len(grant.name) > _LONGEST_NAME or not grant.name.isprintable():
        raise BadRequest(f"A certificate's name has at most {_LONGEST_NAME} printable characters")
    return dataclasses.replace(grant, projects=tuple(sorted(_projects(grant.projects))))


def _projects(projects: Collection[str]) -> set[str]:
    return {names.project(name) for name in projects}
