"""Images of other servers: looking them up and fetching them, by simplestreams, by another server's API, or by a plain URL.

Nothing that a server says is believed: paths are confined to its address, sizes are budgets, and all bytes are hashed before an
image of that fingerprint is taken in. A download that breaks is taken up again where it broke.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import aiohttp
import msgspec

from atoll.domain import names, simplestreams
from atoll.domain.entities import ImageSource
from atoll.domain.errors import AtollError, BadRequest, NotFound, Unavailable, Unsupported
from atoll.domain.simplestreams import StreamImage
from atoll.domain.undo import Reverter
from atoll.host import web
from atoll.host.threads import in_thread
from atoll.services.images import receive
from atoll.services.images.files import ImageFiles
from atoll.services.images.model import Staged
from atoll.services.images.stream_cache import StreamCache

log = logging.getLogger(__name__)

LARGEST_DOCUMENT = 64 << 20
ATTEMPTS = 4
_PAUSE_SECONDS = 1.0
LXD, SIMPLESTREAMS, DIRECT = "lxd", "simplestreams", "direct"
PROTOCOLS = (LXD, SIMPLESTREAMS, DIRECT)

Report = Callable[[str], None]
"""Told how far a download is, for people."""


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
        parts = urlsplit(self.server)
        if parts.scheme != "https" or not parts.hostname or not self.server.isprintable():
            raise BadRequest(f"The address {self.server[:80]!r} of an image server is not an https:// one")
        if self.protocol != DIRECT and not self.alias and not self.fingerprint:
            raise BadRequest("source: an alias or a fingerprint is required")
        if self.fingerprint:
            names.fingerprint(self.fingerprint)
        if self.type != simplestreams.CONTAINER:
            raise Unsupported("Images of virtual machines are not supported")

    @property
    def known(self) -> bytes | None:
        """The certificate in DER. BadRequest if it is none."""
        if not self.certificate:
            return None
        try:
            return ssl.PEM_cert_to_DER_cert(self.certificate)
        except ValueError as error:
            raise BadRequest("source.certificate: not a certificate in PEM") from error

    @property
    def record(self) -> ImageSource:
        """As it is remembered, to look for newer versions."""
        return ImageSource(self.server, self.protocol, self.certificate, self.alias or self.fingerprint, self.type)


@dataclass(frozen=True, slots=True)
class Found:
    """An image that a server has: `stream` by simplestreams, at `url` by a plain address, else by the server's API."""

    source: Source
    fingerprint: str
    stream: StreamImage | None = None
    url: str = ""


class ImageSources:
    """Looks images up, and fetches them into staging folders."""

    def __init__(self, files: ImageFiles, cache: Path, architecture: str) -> None:
        self._files = files
        self._architecture = architecture
        self._streams = StreamCache(cache)

    async def look(self, source: Source) -> Found:
        """What the source has now. NotFound if it has no such image, Unavailable if it cannot be asked."""
        source.check()
        async with web.visit(source.server, known=source.known) as server:
            if source.protocol == SIMPLESTREAMS:
                return await self._look_in_streams(server, source)
            if source.protocol == LXD:
                return await _ask_server(server, source)
            return await _ask_address(server, source, self._architecture)

    async def fetch(self, found: Found, report: Report) -> Staged:
        """The image's files, hashed. The caller discards the staging folder, or hands it on."""
        if found.stream is not None:
            return await self._fetch_parts(found, found.stream, report)
        address = found.url or found.source.server
        async with web.visit(address, known=found.source.known) as server:
            path = "" if found.url else _image_path(found.source, found.fingerprint, "/export")
            async with server.get(path) as answer:
                staged = await self._receive(answer, report)
        if staged.fingerprint != found.fingerprint:
            await self._files.discard(staged.folder)
            raise BadRequest(f"{found.source.server} sent another image than it announced: the fingerprints differ")
        return staged

    # --- simplestreams -------------------------------------------------------------------------------------------------

    async def _look_in_streams(self, server: web.Web, source: Source) -> Found:
        images = await self._streams.images(server)
        wanted = source.fingerprint or source.alias
        chosen = simplestreams.choose(images, wanted, kind=source.type, architecture=self._architecture)
        if chosen is None:
            raise NotFound(f"The image server {source.server} has no image {wanted[:80]!r} for {self._architecture}")
        return Found(source, chosen.fingerprint, stream=chosen)

    async def _fetch_parts(self, found: Found, image: StreamImage, report: Report) -> Staged:
        if image.size > receive.MAX_BYTES:
            raise BadRequest(f"The image is larger than {receive.MAX_BYTES} bytes")
        async with Reverter("download image") as undo:
            folder = await self._files.stage()
            undo.add(self._files.discard, folder)
            parts = [("metadata", image.metadata, folder / "meta")]
            if image.rootfs is not None:
                parts.append(("rootfs", image.rootfs, folder / "rootfs"))
            for name, file, path in parts:
                await _persist(found.source, file, path, _telling(report, name, file.size))
            fingerprint = await in_thread(_hash, [path for _, _, path in parts])
            if fingerprint != image.fingerprint:
                raise BadRequest(f"{found.source.server} announced another image than it has: the fingerprints differ")
            undo.success()
        return Staged(folder, fingerprint, folder / "meta", folder / "rootfs" if image.rootfs else None)

    async def _receive(self, answer: aiohttp.ClientResponse, report: Report) -> Staged:
        total = answer.content_length or 0
        if answer.content_type == "multipart/form-data":
            return await receive.split(self._files, _parts(aiohttp.MultipartReader.from_response(answer), report))
        return await receive.unified(self._files, _told(answer.content.iter_any(), "image", total, report))


async def _persist(source: Source, file: simplestreams.File, path: Path, progress: web.Progress) -> None:
    """Download a file, over as many connections as it takes."""
    for attempt in range(ATTEMPTS):
        try:
            async with web.visit(source.server, known=source.known) as server:
                await server.download(file.path, path, sha256=file.sha256, size=file.size, progress=progress)
            return
        except Unavailable as error:
            if attempt == ATTEMPTS - 1:
                raise
            log.warning("The download of %s broke and goes on: %s", file.path, error)
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)


def _telling(report: Report, name: str, size: int) -> web.Progress:
    return lambda there, speed: report(f"{name}: {there * 100 // max(size, 1)}% ({speed / 1e6:.2f}MB/s)")


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# --- another server ----------------------------------------------------------------------------------------------------


def _image_path(source: Source, fingerprint: str, what: str = "") -> str:
    query = urlencode({key: value for key, value in (("project", source.project), ("secret", source.secret)) if value})
    return f"1.0/images/{quote(fingerprint, safe='')}{what}" + (f"?{query}" if query else "")


async def _ask_server(server: web.Web, source: Source) -> Found:
    fingerprint = source.fingerprint
    if not fingerprint:
        query = f"?{urlencode({'project': source.project})}" if source.project else ""
        about = await _metadata(server, f"1.0/images/aliases/{quote(source.alias, safe='')}{query}")
        fingerprint = str(about.get("target") or "")
    about = await _metadata(server, _image_path(source, fingerprint))
    fingerprint = names.fingerprint(str(about.get("fingerprint") or ""))
    if about.get("type") not in ("container", "", None):
        raise Unsupported("Images of virtual machines are not supported")
    return Found(source, fingerprint)


async def _metadata(server: web.Web, path: str) -> dict[str, Any]:
    """What another server's API answers. BadRequest for what is no envelope."""
    document = await server.document(path, limit=LARGEST_DOCUMENT)
    try:
        content = msgspec.json.decode(document.body if document else b"")
        metadata: dict[str, Any] = content["metadata"]
    except (msgspec.DecodeError, RecursionError, KeyError, TypeError) as error:
        raise BadRequest(f"{server.address} does not answer as a server of images does") from error
    if not isinstance(metadata, dict):
        raise BadRequest(f"{server.address} does not answer as a server of images does")
    return metadata


async def _ask_address(server: web.Web, source: Source, architecture: str) -> Found:
    """A URL whose answer to HEAD says where the image is and what its hash is."""
    answer = await server.head("", {"LXD-Server-Architectures": architecture, "LXD-Server-Version": "5.0.2"})
    url, fingerprint = answer.get("LXD-Image-URL", ""), answer.get("LXD-Image-Hash", "").lower()
    if not url or not fingerprint:
        raise BadRequest(f"{source.server} answers without the headers LXD-Image-URL and LXD-Image-Hash")
    if urlsplit(url).scheme != "https":
        raise BadRequest("The address in LXD-Image-URL is not an https:// one")
    return Found(source, names.fingerprint(fingerprint), url=url)


async def _told(chunks: AsyncIterator[bytes], name: str, total: int, report: Report) -> AsyncIterator[bytes]:
    """The chunks; reports about every megabyte."""
    there = told = 0
    async for chunk in chunks:
        there += len(chunk)
        if there - told >= 1 << 20:
            told = there
            report(f"{name}: {there * 100 // total}%" if total else f"{name}: {there / 1e6:.2f}MB")
        yield chunk


async def _parts(
    reader: aiohttp.MultipartReader | aiohttp.multipart.MultipartResponseWrapper, report: Report
) -> AsyncIterator[tuple[str, AsyncIterator[bytes]]]:
    """(name, chunks) of each part."""
    while True:
        try:
            part = await reader.next()
        except (ValueError, AtollError) as error:
            raise BadRequest(f"The image server sent a malformed image: {error}") from error
        if part is None:
            return
        if not isinstance(part, aiohttp.BodyPartReader):
            raise BadRequest("The image server sent a malformed image")
        yield part.name or "", _told(_part_chunks(part), part.name or "part", 0, report)


async def _part_chunks(part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(1 << 16):
        yield chunk
