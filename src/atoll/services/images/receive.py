"""Takes in the bytes of an upload: to files of a staging folder, hashed on the way, within a budget of bytes and time.

Only about a megabyte is ever in memory. An upload that fails or is cut off leaves nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from atoll.domain.errors import BadRequest, DeadlineExceeded, TooLarge, Unsupported
from atoll.domain.undo import Reverter
from atoll.host.threads import in_thread
from atoll.services.images.files import ImageFiles, cannot_store
from atoll.services.images.model import Staged

MAX_BYTES = 64 << 30
"""Of one image, packed."""

IDLE_SECONDS = 120.0
"""How long a sender may be silent."""

_BLOCK = 1 << 20

Chunks = AsyncIterator[bytes]


async def unified(files: ImageFiles, chunks: Chunks, *, limit: int = MAX_BYTES) -> Staged:
    """An image in one file. The caller discards the staging folder, or hands it on."""
    async with Reverter("receive image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        intake = _Intake(limit)
        await intake.take(chunks, folder / "meta")
        undo.success()
    return Staged(folder, intake.fingerprint, folder / "meta")


async def split(files: ImageFiles, parts: AsyncIterator[tuple[str, Chunks]], *, limit: int = MAX_BYTES) -> Staged:
    """An image in two parts, `metadata` and then `rootfs`; each part's chunks are read before the next part is asked for.

    BadRequest for other parts, Unsupported for the disk of a virtual machine (`rootfs.img`).
    """
    async with Reverter("receive image") as undo:
        folder = await files.stage()
        undo.add(files.discard, folder)
        intake = _Intake(limit)
        meta, rootfs = folder / "meta", folder / "rootfs"
        await intake.take(await _part(parts, "metadata"), meta)
        await intake.take(await _part(parts, "rootfs"), rootfs)
        await _no_more(parts)
        undo.success()
    return Staged(folder, intake.fingerprint, meta, rootfs)


async def _part(parts: AsyncIterator[tuple[str, Chunks]], wanted: str) -> Chunks:
    try:
        name, chunks = await anext(parts)
    except StopAsyncIteration as error:
        raise BadRequest(f"Invalid multipart image: there is no part {wanted!r}") from error
    if wanted == "rootfs" and name == "rootfs.img":
        raise Unsupported("The image is one of a virtual machine, which this server does not run")
    if name != wanted:
        raise BadRequest(f"Invalid multipart image: part {wanted!r} expected, not {name[:40]!r}")
    return chunks


async def _no_more(parts: AsyncIterator[tuple[str, Chunks]]) -> None:
    async for name, _ in parts:
        raise BadRequest(f"Invalid multipart image: unexpected part {name[:40]!r}")


class _Intake:
    """Writes files and hashes all that is written; the budget is for all files together."""

    def __init__(self, limit: int) -> None:
        self._limit = self._left = limit
        self._hash = hashlib.sha256()

    @property
    def fingerprint(self) -> str:
        """The hash of all files, one after the other."""
        return self._hash.hexdigest()

    async def take(self, chunks: Chunks, path: Path) -> None:
        try:
            file = await in_thread(_create, path)
            with file:
                await self._write_all(chunks, file)
                await in_thread(os.fsync, file.fileno())
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise cannot_store(error) from error

    async def _write_all(self, chunks: Chunks, file: BinaryIO) -> None:
        block = bytearray()
        async for chunk in _timely(chunks):
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge(f"The image is larger than {self._limit} bytes")
            block += chunk
            if len(block) >= _BLOCK:
                await in_thread(self._write, file, bytes(block))
                block.clear()
        await in_thread(self._write, file, bytes(block))

    def _write(self, file: BinaryIO, data: bytes) -> None:
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[file.write(view) :]


def _create(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", buffering=0)


async def _timely(chunks: Chunks) -> Chunks:
    """The chunks. DeadlineExceeded when the sender falls silent."""
    while True:
        try:
            async with asyncio.timeout(IDLE_SECONDS):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise DeadlineExceeded(f"The upload was silent for {IDLE_SECONDS:g} seconds") from error
        yield chunk
