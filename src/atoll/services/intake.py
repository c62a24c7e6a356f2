"""Takes in the bytes of an upload: to new files, hashed on the way, within a budget of bytes and time.

Only about a megabyte is ever in memory. What a failure leaves is a partial file: the caller discards its folder.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from atoll.domain.errors import DeadlineExceeded, HostError, TooLarge
from atoll.host.threads import in_thread

IDLE_SECONDS = 120.0
"""How long a sender may be silent."""

_BLOCK = 1 << 20

Chunks = AsyncIterator[bytes]


class Intake:
    """Writes files and hashes all that is written; the budget is for all files together. `what` it is, in messages."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = self._left = limit
        self._hash = hashlib.sha256()

    @property
    def fingerprint(self) -> str:
        """The hash of all files, one after the other."""
        return self._hash.hexdigest()

    async def take(self, chunks: Chunks, path: Path) -> None:
        """All chunks into the new file. TooLarge beyond the budget, DeadlineExceeded for a silent sender, HostError if the host
        has no room."""
        try:
            file = await in_thread(_create, path)
            with file:
                await self._write_all(chunks, file)
                await in_thread(os.fsync, file.fileno())
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise HostError(f"Cannot store the {self._what}: {error.strerror or error}") from error

    async def _write_all(self, chunks: Chunks, file: BinaryIO) -> None:
        block = bytearray()
        async for chunk in _timely(chunks):
            self._left -= len(chunk)
            if self._left < 0:
                raise TooLarge(f"The {self._what} is larger than {self._limit} bytes")
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
