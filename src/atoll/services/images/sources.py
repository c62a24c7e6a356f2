"""Images of other servers, looked up: by simplestreams, by another server's API, or by a plain URL.

Servers are not trusted: they are asked by HTTPS only, the size of answers is limited, and what comes has to match a fingerprint.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import msgspec

from atoll.domain import clock, names, simplestreams
from atoll.domain.entities import DEFAULT_PROJECT, ImageSource
from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.domain.simplestreams import StreamImage
from atoll.host import web
from atoll.services.images.stream_cache import StreamCache

LARGEST_DESCRIPTION = 1 << 20
LXD, SIMPLESTREAMS, DIRECT = "lxd", "simplestreams", "direct"
PROTOCOLS = (LXD, SIMPLESTREAMS, DIRECT)


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look for an image. `certificate` (PEM) is the one a server is known by; `secret` opens a private image."""

    server: str
    protocol: str
    alias: str = ""
    fingerprint: str = ""
    certificate: str = ""
    secret: str = ""
    project: str = ""
    type: str = simplestreams.CONTAINER

    def check(self) -> None:
        """BadRequest for what cannot be a source."""
        if self.protocol not in PROTOCOLS:
            raise BadRequest(f"Invalid protocol {self.protocol[:40]!r} of an image source")
        check_address(self.server)
        if self.protocol != DIRECT and not self.alias and not self.fingerprint:
            raise BadRequest("source: an alias or a fingerprint is required")
        if self.fingerprint:
            names.fingerprint(self.fingerprint)
        if self.type != simplestreams.CONTAINER:
            raise Unsupported("Images of virtual machines are not supported")

    @property
    def known(self) -> bytes | None:
        """The certificate in DER. BadRequest if it is none."""
        return certificate_der(self.certificate)

    @property
    def record(self) -> ImageSource:
        """As it is remembered, to look for newer versions."""
        project = "" if self.project == DEFAULT_PROJECT else self.project
        return ImageSource(self.server, self.protocol, self.certificate, self.alias or self.fingerprint, self.type, project)


class _Told(msgspec.Struct):
    """What another server's API says of an image, as far as it is taken over."""

    properties: dict[str, str] | None = None
    expires_at: str = clock.NEVER
    filename: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of an image where it comes from; its owner may have changed it since the image was made. `expires_at` in
    seconds, 0 for never; `properties` None where they are not told."""

    properties: Mapping[str, str] | None
    expires_at: int
    filename: str


@dataclass(frozen=True, slots=True)
class Found:
    """An image that a server has: `stream` by simplestreams, at `url` by a plain address, else by the server's API, which has a
    `record` of it."""

    source: Source
    fingerprint: str
    stream: StreamImage | None = None
    url: str = ""
    record: Record | None = None

    @property
    def key(self) -> tuple[str, ...]:
        """The same for all whose downloads can be one: the same image of the same server, believed for the same reason."""
        return (self.source.server, self.source.protocol, self.source.certificate, self.url, self.fingerprint)

    def export_path(self) -> str:
        """Where the server's API has the image itself."""
        return _image_path(self.source, self.fingerprint, "/export")


class ImageSources:
    """Looks images up. `architecture` is the host's, for requests that name none."""

    def __init__(self, cache: Path, architecture: str) -> None:
        self._architecture = architecture
        self._streams = StreamCache(cache)

    async def look(self, source: Source, *, architecture: str = "", at_once: bool = False) -> Found:
        """What the source has: now, if it is to be asked `at_once`, else minutes ago. NotFound if it has no such image,
        Unavailable if it cannot be asked."""
        source.check()
        architecture = architecture or self._architecture
        async with web.visit(source.server, known=source.known) as server:
            if source.protocol == SIMPLESTREAMS:
                images = await self._streams.images(server, at_once=at_once)
                return _choose(images, source, architecture)
            if source.protocol == LXD:
                return await _ask_server(server, source)
            return await _ask_address(server, source, architecture)


def _choose(images: list[StreamImage], source: Source, architecture: str) -> Found:
    wanted = source.fingerprint or source.alias
    chosen = simplestreams.choose(images, wanted, kind=source.type, architecture=architecture)
    if chosen is None:
        raise NotFound(f"The image server {source.server} has no image {wanted[:80]!r} for {architecture}")
    return Found(source, chosen.fingerprint, stream=chosen)


def check_address(address: str) -> None:
    """BadRequest for what is no address of a server."""
    try:
        parts = urlsplit(address)
        whole = parts.scheme == "https" and bool(parts.hostname) and address.isprintable()
    except ValueError:
        whole = False
    if not whole:
        raise BadRequest(f"The address {address[:80]!r} of a server is not an https:// one")


def certificate_der(pem: str) -> bytes | None:
    """A certificate as a client names it, in DER; None for none. BadRequest if it is no certificate."""
    if not pem:
        return None
    try:
        return ssl.PEM_cert_to_DER_cert(pem)
    except ValueError as error:
        raise BadRequest("source.certificate: not a certificate in PEM") from error


# --- another server ----------------------------------------------------------------------------------------------------


def _image_path(source: Source, fingerprint: str, what: str = "") -> str:
    query = urlencode({key: value for key, value in (("project", source.project), ("secret", source.secret)) if value})
    return f"1.0/images/{quote(fingerprint, safe='')}{what}" + (f"?{query}" if query else "")


async def _ask_server(server: web.Web, source: Source) -> Found:
    asked = source.fingerprint
    if not asked:
        query = f"?{urlencode({'project': source.project})}" if source.project else ""
        about = await metadata(server, f"1.0/images/aliases/{quote(source.alias, safe='')}{query}")
        asked = names.fingerprint(str(about.get("target") or ""))
    about = await metadata(server, _image_path(source, asked))
    fingerprint = names.whole_fingerprint(str(about.get("fingerprint") or ""))
    if not fingerprint.startswith(asked):
        raise BadRequest(f"{source.server} answers with another image than it was asked for")
    if about.get("type") not in ("container", "", None):
        raise Unsupported("Images of virtual machines are not supported")
    return Found(source, fingerprint, record=_record(server, about))


def _record(server: web.Web, about: dict[str, Any]) -> Record:
    """BadRequest for what is no record of an image."""
    try:
        told = msgspec.convert(about, _Told)
        expires = max(0, int(clock.parse(told.expires_at)))
    except (msgspec.ValidationError, ValueError, OverflowError) as error:
        raise BadRequest(f"{server.address} does not describe the image as a server of images does") from error
    return Record(told.properties, expires, _filename(told.filename))


def _filename(text: str) -> str:
    """A name that other servers take and this one does not is no reason to refuse the image."""
    try:
        return names.filename(text)
    except BadRequest:
        return ""


async def metadata(server: web.Web, path: str, **options: Any) -> dict[str, Any]:
    """What another server's API answers to a GET. BadRequest for what is no envelope."""
    document = await server.document(path, limit=LARGEST_DESCRIPTION, **options)
    return envelope(server, document.body if document else b"")


def envelope(server: web.Web, body: bytes) -> dict[str, Any]:
    """The metadata of an answer. BadRequest for what is no envelope with a map."""
    try:
        content = msgspec.json.decode(body)
        found: dict[str, Any] = content["metadata"]
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise BadRequest(f"{server.address} does not answer as a server of images does") from error
    if not isinstance(found, dict):
        raise BadRequest(f"{server.address} does not answer as a server of images does")
    return found


async def _ask_address(server: web.Web, source: Source, architecture: str) -> Found:
    """A URL whose answer to HEAD says where the image is and what its hash is."""
    answer = await server.head("", {"LXD-Server-Architectures": architecture, "LXD-Server-Version": "5.0.2"})
    url, fingerprint = answer.get("LXD-Image-URL", ""), answer.get("LXD-Image-Hash", "").lower()
    if not url or not fingerprint:
        raise BadRequest(f"{source.server} answers without the headers LXD-Image-URL and LXD-Image-Hash")
    if urlsplit(url).scheme != "https":
        raise BadRequest("The address in LXD-Image-URL is not an https:// one")
    return Found(source, names.whole_fingerprint(fingerprint), url=url)
