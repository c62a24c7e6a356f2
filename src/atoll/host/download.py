"""A file of another server on its way to disk, over as many connections as it takes.

What came before a connection broke does not come again, if the server can send the rest: it is asked for with the ETag of the
beginning, so that a file which changed meanwhile comes whole. Whoever wants the file checks `sha256` when it is whole.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import aiohttp

from atoll.domain.errors import BadRequest, HostError, TooLarge, Unavailable
from atoll.host import web
from atoll.host.threads import in_thread

_BLOCK = 1 << 20

Progress = Callable[[int, int, float], None]
"""(bytes that are there, bytes it will have or 0, bytes a second)"""


class Download:
    """One file. `size` is what it must have, where that was announced; otherwise at most `limit` bytes are taken."""

    def __init__(self, path: Path, *, limit: int, size: int | None = None) -> None:
        self._path = path
        self._limit = limit if size is None else size
        self._exact = size is not None
        self._total = size or 0
        self._etag = ""
        self._there = 0
        self._digest: Any = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what is there, in hexadecimal."""
        return str(self._digest.hexdigest())

    def headers(self) -> Mapping[str, str]:
        """With which to ask for what is missing."""
        asked = {"Accept-Encoding": "identity"}
        if self._there:
            asked["Range"] = f"bytes={self._there}-"
        if self._there and self._etag:
            asked["If-Range"] = self._etag
        return asked

    async def take(self, answer: aiohttp.ClientResponse, progress: Progress) -> None:
        """Write what an answer to `headers` brings. Unavailable if it ends too early: then it can go on with another answer.

        BadRequest or TooLarge for what is not the file, HostError if the host has no room, DeadlineExceeded for a drip.
        """
        self._begin(answer)
        try:
            with await in_thread(_open, self._path, self._there) as file:
                await self._copy(answer, file, progress)
        except _Disk as error:
            raise HostError(f"Cannot store the image: {error}") from error
        if self._there < self._total:
            raise Unavailable(f"{answer.url.origin()} ended a file too early")

    def _begin(self, answer: aiohttp.ClientResponse) -> None:
        """Settle where this answer goes on, and how much there will be."""
        if self._there and answer.status == 206:
            if not answer.headers.get("Content-Range", "").startswith(f"bytes {self._there}-"):
                raise BadRequest(f"{answer.url.origin()} sends another part of a file than it was asked for")
        else:
            self._there, self._digest = 0, hashlib.sha256()
        etag = answer.headers.get("ETag", "")
        self._etag = "" if etag.startswith("W/") else etag
        if not self._exact:
            self._total = self._there + (answer.content_length or 0) if answer.content_length else 0

    async def _copy(self, answer: aiohttp.ClientResponse, file: FileIO, progress: Progress) -> None:
        begun, start = time.monotonic(), self._there
        pending = bytearray()

        def tell() -> None:
            progress(self._there, self._total, (self._there - start) / max(time.monotonic() - begun, 0.001))

        try:
            async for chunk in web.paced(answer.content.iter_any()):
                pending += chunk
                if self._there + len(pending) > self._limit:
                    pending.clear()
                    raise TooLarge(f"A file of {answer.url.origin()} is larger than {self._limit} bytes")
                if len(pending) >= _BLOCK:
                    block, pending = bytes(pending), bytearray()
                    await in_thread(self._write, file, block)
                    tell()
        except (aiohttp.ClientError, TimeoutError, ConnectionError):
            await in_thread(self._write, file, bytes(pending))  # what came before the connection broke need not come again
            raise
        await in_thread(self._write, file, bytes(pending))
        tell()
        await in_thread(_flush, file)

    def _write(self, file: FileIO, block: bytes) -> None:
        view = memoryview(block)
        try:
            while view:
                view = view[file.write(view) :]
        except OSError as error:
            raise _Disk(error.strerror or str(error)) from error
        self._digest.update(block)
        self._there += len(block)


class _Disk(Exception):
    """The disk, and not the network, is what failed."""


def _open(path: Path, present: int) -> FileIO:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.ftruncate(descriptor, present)
        os.lseek(descriptor, present, os.SEEK_SET)
    except OSError as error:
        raise _Disk(error.strerror or str(error)) from error
    return FileIO(descriptor, "w")


def _flush(file: FileIO) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise _Disk(error.strerror or str(error)) from error
