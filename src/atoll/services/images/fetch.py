"""Fetches the files of an image that was found elsewhere into a staging folder.

Sizes are budgets, and all bytes are hashed before an image of that fingerprint is taken in. A file whose download breaks is taken
up again where it broke; only the two parts that a server of images sends at once begin anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import aiohttp

from atoll.domain import simplestreams
from atoll.domain.errors import BadRequest, TooLarge, Unavailable
from atoll.domain.simplestreams import StreamImage
from atoll.domain.undo import Reverter
from atoll.host import download, web
from atoll.host.download import Download
from atoll.host.threads import in_thread
from atoll.services.images import receive
from atoll.services.images.files import ImageFiles
from atoll.services.images.model import Staged
from atoll.services.images.sources import Found

log = logging.getLogger(__name__)

ATTEMPTS = 4
_PAUSE_SECONDS = 1.0
_PART_BLOCK = 1 << 16

Report = Callable[[str], None]
"""Told how far a download is, for people."""

Connect = Callable[[], AbstractAsyncContextManager[web.Web]]


async def image(files: ImageFiles, found: Found, report: Report) -> Staged:
    """The image's files, hashed. The caller discards the staging folder, or hands it on.

    BadRequest for another image than the one that was found, TooLarge, HostError if the host has no room, Unavailable.
    """
    staged = await (_sent(files, found, report) if found.stream is None else _parts(files, found, found.stream, report))
    if staged.fingerprint != found.fingerprint:
        await files.discard(staged.folder)
        raise BadRequest(f"{found.source.server} sent another image than it announced: the fingerprints differ")
    return staged


# --- the files of a simplestreams server -------------------------------------------------------------------------------


async def _parts(files: ImageFiles, found: Found, image: StreamImage, report: Report) -> Staged:
    """Metadata and root file system, each by its own hash, then both together."""
    room = await receive.room(files)
    if image.size > room:
        raise TooLarge(f"The image is larger than {room} bytes")
    parts = [("metadata", image.metadata, "meta")]
    if image.rootfs is not None:
        parts.append(("rootfs", image.rootfs, "rootfs"))
    async with Reverter("download image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        for name, file, place in parts:
            await _part(found, file, folder / place, _told_of(report, name))
        fingerprint = await in_thread(_hash, [folder / place for _, _, place in parts])
        undo.success()
    return Staged(folder, fingerprint, folder / "meta", folder / "rootfs" if image.rootfs else None)


async def _part(found: Found, file: simplestreams.File, path: Path, progress: download.Progress) -> None:
    loading = Download(path, limit=file.size, size=file.size)

    async def attempt(server: web.Web) -> None:
        async with server.get(file.path, loading.headers()) as answer:
            await loading.take(answer, progress)

    await _persist(_connector(found, found.source.server), attempt, file.path, attempts=ATTEMPTS)
    if loading.sha256 != file.sha256:
        raise BadRequest(f"{found.source.server} sent another file than it announced: the hash of {file.path} differs")


def _hash(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


# --- what another server's API, or a plain address, sends --------------------------------------------------------------


async def _sent(files: ImageFiles, found: Found, report: Report) -> Staged:
    """One file, or the two parts of a form."""
    address, path = (found.url, "") if found.url else (found.source.server, found.export_path())
    async with Reverter("download image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        loading = Download(folder / "meta", limit=await receive.room(files))
        whole: list[Staged] = []

        async def attempt(server: web.Web) -> None:
            async with server.get(path, loading.headers()) as answer:
                if answer.content_type == "multipart/form-data":
                    whole.append(await _split(files, answer, folder, report))
                    return
                await loading.take(answer, _told_of(report, "rootfs"))
                whole.append(Staged(folder, loading.sha256, folder / "meta"))

        # A secret opens the image once: whoever asks again would hear that there is none, not why it broke.
        await _persist(_connector(found, address), attempt, "an image", attempts=1 if found.source.secret else ATTEMPTS)
        undo.success()
    return whole[0]


async def _split(files: ImageFiles, answer: aiohttp.ClientResponse, folder: Path, report: Report) -> Staged:
    """The two parts, from their beginning."""
    for name in ("meta", "rootfs"):
        await in_thread((folder / name).unlink, missing_ok=True)
    parts = _form(aiohttp.MultipartReader.from_response(answer), report)
    return await receive.split_into(folder, parts, limit=await receive.room(files))


async def _form(
    reader: aiohttp.MultipartReader | aiohttp.multipart.MultipartResponseWrapper, report: Report
) -> AsyncIterator[tuple[str, str, AsyncIterator[bytes]]]:
    """(name, "", chunks) of each part: what the file was called where the image came from is in the server's record of it."""
    while True:
        try:
            part = await reader.next()
        except ValueError as error:
            raise BadRequest(f"The server sent a malformed image: {error}") from error
        if part is None:
            return
        if not isinstance(part, aiohttp.BodyPartReader):
            raise BadRequest("The server sent a malformed image: a part has parts itself")
        name = part.name or ""
        yield name, "", _told(web.paced(_part_chunks(part)), name, report)


async def _part_chunks(part: aiohttp.BodyPartReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await part.read_chunk(_PART_BLOCK):
            yield chunk
    except aiohttp.ClientError as error:  # some are OSErrors too, and would be taken for the disk's
        raise Unavailable(f"The connection broke: {error}") from error


async def _told(chunks: AsyncIterator[bytes], name: str, report: Report) -> AsyncIterator[bytes]:
    """The chunks; reports about every megabyte."""
    there = told = 0
    async for chunk in chunks:
        there += len(chunk)
        if there - told >= 1 << 20:
            told = there
            report(f"{name}: {there / 1e6:.2f}MB")
        yield chunk


# --- both --------------------------------------------------------------------------------------------------------------


def _connector(found: Found, address: str) -> Connect:
    return lambda: web.visit(address, known=found.source.known)


async def _persist(connect: Connect, attempt: Callable[[web.Web], Awaitable[None]], what: str, *, attempts: int) -> None:
    """Try until it is done; Unavailable when it broke too often."""
    for turn in range(attempts):
        try:
            async with connect() as server:
                await attempt(server)
            return
        except Unavailable as error:
            if turn == attempts - 1:
                raise
            log.warning("The download of %s broke and goes on: %s", what, error)
            await asyncio.sleep(_PAUSE_SECONDS * 2**turn)


def _told_of(report: Report, name: str) -> download.Progress:
    def tell(there: int, total: int, speed: float) -> None:
        amount = f"{there * 100 // total}%" if total else f"{there / 1e6:.2f}MB"
        report(f"{name}: {amount} ({speed / 1e6:.2f}MB/s)")

    return tell
