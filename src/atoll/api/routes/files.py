"""/1.0/instances/NAME/files and /sftp: files of instances."""

from __future__ import annotations

import asyncio
import logging
import os
import posixpath
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import formatdate
from urllib.parse import parse_qs, quote

from aiohttp import web

from atoll.api import image_transfer, response, upgrade
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.domain import clock, names
from atoll.domain.errors import AtollError, BadRequest
from atoll.services.instances import files
from atoll.services.instances.files import MAX_PATH, Fetched, FileInfo, FileService, Owner

log = logging.getLogger(__name__)

_BODY = {"Content-Type": "application/octet-stream"}
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.+~^,@ -]+")


class FileRoutes:
    """Routes of an instance's files."""

    def __init__(self, files: FileService) -> None:
        self._files = files

    def table(self) -> Sequence[Route]:
        path = "/1.0/instances/{name}/files"
        return (
            Route("GET", path, self.get, Access.PROJECT, "Get a file", result=bytes),
            Route("POST", path, self.post, Access.PROJECT, "Create or replace a file"),
            Route("DELETE", path, self.delete, Access.PROJECT, "Delete a file"),
            Route("GET", "/1.0/instances/{name}/sftp", self.sftp, Access.PROJECT, "Get the instance SFTP connection"),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        """A file's bytes, a directory's names, a link's target; its attributes in the headers."""
        name, path = names.instance(request.path("name")), _path(request)
        if request.raw.method == "HEAD":
            info = await self._files.look(request.project, name, path)
            return web.Response(headers={"Content-Type": "application/json", **_headers(info)})
        async with self._files.fetch(request.project, name, path, caller=request.caller) as found:
            headers = _headers(found.info)
            if found.info.kind == "directory":
                return response.sync(found.names, headers=headers)
            headers |= {**_BODY, **_download(path, found.info)}
            if found.info.kind == "symlink":
                return web.Response(body=os.fsencode(_absolute(path, found.target)), headers=headers)
            try:
                return await _send(request.raw, found, headers)
            except ConnectionError:
                return _gone(request.raw)

    async def post(self, request: Request) -> web.StreamResponse:
        """Make a file from the body, a directory, or a link to what the body names."""
        project, name, path = request.project, names.instance(request.path("name")), _path(request)
        headers = request.raw.headers
        owner = Owner(_number(headers, "X-LXD-uid"), _number(headers, "X-LXD-gid"), _mode(headers))
        write = headers.get("X-LXD-write", "") or "overwrite"
        if write not in ("overwrite", "append"):
            raise BadRequest(f"Bad file write mode: {write[:40]}")
        match headers.get("X-LXD-type", "") or "file":
            case "file":
                chunks = image_transfer.chunks(request.raw)
                await self._files.store(project, name, path, chunks, append=write == "append", owner=owner, caller=request.caller)
            case "directory":
                await self._files.make_directory(project, name, path, owner=owner, caller=request.caller)
            case "symlink":
                target = os.fsdecode(await request.read(MAX_PATH))
                await self._files.make_link(project, name, path, target, owner=owner, caller=request.caller)
            case other:
                raise BadRequest(f"Bad file type: {other[:40]}")
        return response.empty()

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove a file or an empty directory."""
        name = names.instance(request.path("name"))
        await self._files.remove(request.project, name, _path(request), caller=request.caller)
        return response.empty()

    async def sftp(self, request: Request) -> web.StreamResponse:
        """Speak SFTP on this connection, until either side ends it."""
        upgrade.require(request.raw, "sftp")
        async with self._files.sftp(request.project, names.instance(request.path("name"))) as worker:
            inside = await asyncio.open_connection(sock=worker, limit=upgrade.STREAM_LIMIT)
            try:
                with suppress(ConnectionError):
                    async with upgrade.accepted(request.raw, "sftp") as outside:
                        await upgrade.relay(inside, outside)
            finally:
                inside[1].transport.abort()
        return _gone(request.raw)


def _path(request: Request) -> str:
    """The path, whose bytes need not be UTF-8; a relative one begins at the instance's top."""
    query = parse_qs(request.raw.rel_url.raw_query_string, errors="surrogateescape")
    return query.get("path", [""])[0]


def _absolute(link: str, target: str) -> str:
    """Where a link points, as LXD tells it: from the top, whatever is written in the link."""
    return posixpath.normpath(posixpath.join("/", posixpath.dirname(link), target))


def _headers(info: FileInfo) -> dict[str, str]:
    """LXD's headers; the time is written as Go writes it."""
    modified = datetime.fromtimestamp(max(0, min(info.modified, clock.LATEST)), UTC)
    return {
        "X-LXD-uid": str(info.uid),
        "X-LXD-gid": str(info.gid),
        "X-LXD-mode": f"{info.mode & 0o777:04o}",
        "X-LXD-modified": f"{modified:%Y-%m-%d %H:%M:%S} +0000 UTC",
        "X-LXD-type": info.kind or "file",
    }


def _download(path: str, info: FileInfo) -> dict[str, str]:
    name = path.rstrip("/").rpartition("/")[2]
    shown = name if _PLAIN_NAME.fullmatch(name) else quote(os.fsencode(name))
    return {
        "Content-Disposition": f"inline;filename={shown}",
        "Last-Modified": formatdate(max(0, min(info.modified, clock.LATEST)), usegmt=True),
    }


async def _send(raw: web.Request, found: Fetched, headers: Mapping[str, str]) -> web.StreamResponse:
    """The content as it comes, its length told where it is known: files of /proc have none, and are sent in chunks."""
    answer = web.StreamResponse(headers=headers)
    first = await anext(found.content, b"")
    size = found.info.size if first else 0
    if size or not first:
        answer.content_length = size
    await answer.prepare(raw)
    try:
        sent = await _send_all(answer, first, found.content, size)
    except (AtollError, TimeoutError) as error:
        raise _broken_off(raw, str(error) or "the client does not read") from error
    if sent < size:
        raise _broken_off(raw, "it became shorter while it was sent")
    await answer.write_eof()
    return answer


async def _send_all(answer: web.StreamResponse, chunk: bytes, rest: AsyncIterator[bytes], size: int) -> int:
    """How much was sent: no more than `size` unless that is 0, whatever the file has grown to."""
    sent = 0
    while chunk:
        if size:
            chunk = chunk[: size - sent]
        async with asyncio.timeout(files.CLIENT_SECONDS):
            await answer.write(chunk)
        sent += len(chunk)
        chunk = await anext(rest, b"") if sent != size else b""
    return sent


def _gone(raw: web.Request) -> web.Response:
    """For a client that has left, which is nobody's fault: an answer that nobody gets."""
    if raw.transport is not None:
        raw.transport.abort()
    return web.Response()


def _broken_off(raw: web.Request, reason: str) -> ConnectionResetError:
    """The answer has begun: all that can be said is that it does not end as it should."""
    log.warning("%s was broken off: %s", raw.path_qs, reason)
    return ConnectionResetError(reason)


def _number(headers: Mapping[str, str], name: str) -> int:
    """An id; -1, which leaves it as it is, where none is given or it is no number (as LXD takes it)."""
    text = headers.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 11 and int(text) < (1 << 32) - 1 else -1


def _mode(headers: Mapping[str, str]) -> int | None:
    """Permissions: octal with a 0 before it, decimal without, as LXD has it."""
    text = headers.get("X-LXD-mode", "")
    try:
        if not (text.isascii() and text.isdigit() and len(text) < 8):
            return None
        return int(text, 8 if text.startswith("0") else 10) & 0o777
    except ValueError:
        return None
