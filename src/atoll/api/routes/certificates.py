"""/1.0/certificates: the trust store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.domain.entities import Certificate
from atoll.domain.errors import BadRequest, DeadlineExceeded, Forbidden
from atoll.host import x509
from atoll.services.certificates import CertificateService, Entry
from atoll.services.server import ServerInfo
from atoll.services.trust import CertificateType
from atoll.services.trust_tokens import Grant

BODY_SECONDS = 20.0
"""A stranger's body has to be here by then."""


class CertificatesPost(msgspec.Struct):
    """Body of POST. `password` is the trust password or a token."""

    name: str | None = None
    type: str | None = None
    certificate: str | None = None
    restricted: bool | None = None
    projects: list[str] | None = None
    password: str | None = None
    token: bool | None = None


class CertificatePut(msgspec.Struct):
    """Body of PUT; of PATCH too, where what is absent stays."""

    name: str | msgspec.UnsetType | None = msgspec.UNSET
    type: str | msgspec.UnsetType | None = msgspec.UNSET
    certificate: str | msgspec.UnsetType | None = msgspec.UNSET
    restricted: bool | msgspec.UnsetType | None = msgspec.UNSET
    projects: list[str] | msgspec.UnsetType | None = msgspec.UNSET


class CertificateRoutes:
    """The trust store's routes. `client_certificate` tells the certificate (DER) that a connection came with."""

    def __init__(
        self, certificates: CertificateService, info: ServerInfo, client_certificate: Callable[[web.Request], bytes | None]
    ) -> None:
        self._certificates = certificates
        self._info = info
        self._client_certificate = client_certificate

    def table(self) -> Sequence[Route]:
        every, one = "/1.0/certificates", "/1.0/certificates/{fingerprint}"
        return (
            Route("GET", every, self.list, Access.TRUSTED, "Get the trusted certificates", tag="certificates"),
            Route("POST", every, self.post, Access.PUBLIC, "Add a trusted certificate", CertificatesPost, tag="certificates"),
            Route("GET", one, self.get, Access.TRUSTED, "Get the trusted certificate", tag="certificates"),
            Route("PUT", one, self.put, Access.TRUSTED, "Update the trusted certificate", CertificatePut, tag="certificates"),
            Route("PATCH", one, self.patch, Access.TRUSTED, "Partially update the trusted certificate", CertificatePut,
                  tag="certificates"),
            Route("DELETE", one, self.delete, Access.TRUSTED, "Delete the trusted certificate", tag="certificates"),
        )  # fmt: skip

    async def list(self, request: Request) -> web.Response:
        """URLs, or whole entries."""
        found = await self._certificates.find_all(request.caller)
        if request.recursion:
            return response.sync([_wire(entry) for entry in found])
        return response.sync([f"/1.0/certificates/{entry.fingerprint}" for entry in found])

    async def get(self, request: Request) -> web.Response:
        entry = await self._certificates.find(request.path("fingerprint"), request.caller)
        return response.sync(_wire(entry), etag=_wire(entry))

    async def post(self, request: Request) -> web.Response:
        """Add a certificate or, with `token`, make a token by which a client adds its own."""
        body = await _within(request)
        grant = Grant(body.name or "", body.type or CertificateType.CLIENT, bool(body.restricted), tuple(body.projects or ()))
        if not request.caller.is_admin:
            der = self._own(request, body)
            fingerprint = await self._certificates.add_by_secret(der, grant, _secret(body), caller=request.caller)
        elif body.token:
            addresses = list(await self._info.addresses())
            return response.operation(self._certificates.issue_token(grant, addresses, caller=request.caller))
        else:
            fingerprint = await self._certificates.add(self._own(request, body), grant, caller=request.caller)
        return response.created(f"/1.0/certificates/{fingerprint}")

    def _own(self, request: Request, body: CertificatesPost) -> bytes:
        """The certificate in the body, else the one the client came with."""
        if body.certificate:
            return x509.to_der(body.certificate)
        der = self._client_certificate(request.raw)
        if der is None:
            raise BadRequest("No client certificate provided")
        return der

    async def put(self, request: Request) -> web.Response:
        """Replace an entry."""
        body = await request.body(CertificatePut)
        entry = await self._certificates.find(request.path("fingerprint"), request.caller)
        request.check_etag(_wire(entry))
        blank = Entry("", "", restricted=False, projects=())
        await self._certificates.update(entry.fingerprint, _merge(blank, body), caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.Response:
        """Change what is given."""
        body = await request.body(CertificatePut)
        entry = await self._certificates.find(request.path("fingerprint"), request.caller)
        request.check_etag(_wire(entry))
        present = Entry(entry.name, entry.type, entry.restricted, entry.projects)
        await self._certificates.update(entry.fingerprint, _merge(present, body), caller=request.caller)
        return response.empty()

    async def delete(self, request: Request) -> web.Response:
        """Take an entry out."""
        await self._certificates.delete(request.path("fingerprint"), caller=request.caller)
        return response.empty()


async def _within(request: Request) -> CertificatesPost:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body(CertificatesPost)
    except TimeoutError as error:
        raise DeadlineExceeded(f"The request body did not arrive within {BODY_SECONDS:g} seconds") from error


def _secret(body: CertificatesPost) -> str:
    if not body.password:
        raise Forbidden("Not authorized")
    return body.password


def _merge(entry: Entry, body: CertificatePut) -> Entry:
    """The entry with what the body has; null counts as empty."""
    unset = msgspec.UNSET
    return Entry(
        name=entry.name if body.name is unset else body.name or "",
        type=entry.type if body.type is unset else body.type or "",
        restricted=entry.restricted if body.restricted is unset else bool(body.restricted),
        projects=entry.projects if body.projects is unset else tuple(body.projects or ()),
        certificate="" if body.certificate is unset else body.certificate or "",
    )


def _wire(entry: Certificate) -> dict[str, Any]:
    return {
        "name": entry.name,
        "type": entry.type,
        "restricted": entry.restricted,
        "projects": list(entry.projects),
        "certificate": entry.certificate,
        "fingerprint": entry.fingerprint,
    }
