"""A worker thread between jailed programs: the decompressor writes, the thread inspects, tar or a file receives.

The parts end in order whatever happens: first the programs are killed, then the thread (whose pipes have closed) is awaited,
then the descriptors are closed.
"""

from __future__ import annotations

import asyncio
import fcntl
import io
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from atoll.domain.errors import BadRequest, DeadlineExceeded
from atoll.host import archive_sandbox
from atoll.host.archive_kind import Kind
from atoll.host.archive_sandbox import Jail, Program
from atoll.host.archive_tar import Budget, Source
from atoll.host.threads import in_thread

Progress = Callable[[int], None]
"""Told, on the event loop and a few times a second, how many bytes of the archive have been read or written so far."""

PIPE_BYTES = 1 << 20
_TICK_SECONDS = 0.2
_DECOMPRESSOR_MEMORY = 2 << 30

R = TypeVar("R")


def pipe() -> tuple[BinaryIO, BinaryIO]:
    """A pipe as (read end, write end) with buffers as large as its own."""
    read_end, write_end = os.pipe()
    with suppress(PermissionError):  # the user's sum of pipe buffers is limited; the default size works too
        fcntl.fcntl(write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return os.fdopen(read_end, "rb", buffering=PIPE_BYTES), os.fdopen(write_end, "wb", buffering=PIPE_BYTES)


@asynccontextmanager
async def time_limit(seconds: float, what: str) -> AsyncIterator[None]:
    """DeadlineExceeded when the block takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"{what} did not end within {seconds:g} seconds") from error


class Worker:
    """Blocking work in a thread that an async block watches over."""

    def __init__(self, progress: Progress | None, position: Callable[[], int]) -> None:
        self._progress = progress
        self._position = position
        self._task: asyncio.Task[object] | None = None

    async def run(self, function: Callable[[], R]) -> R:
        """What the function returns or raises. When cancelled, it still runs: see `settle`."""
        task = asyncio.create_task(in_thread(function))
        self._task = task
        while not (await asyncio.wait({task}, timeout=_TICK_SECONDS))[0]:
            if self._progress is not None:
                self._progress(self._position())
        return await task

    async def settle(self) -> None:
        """Wait for the thread, after what it reads from and writes to has ended."""
        if self._task is not None:
            await asyncio.wait({self._task})
            with suppress(asyncio.CancelledError):
                self._task.exception()  # seen: `run` raised it, or something that matters more


@dataclass(frozen=True, slots=True)
class Opened:
    """An archive being read: its plain tar stream, its decompressor if it has one, and the worker to read it with."""

    source: Source
    decompressor: Program | None
    worker: Worker

    async def verify(self) -> None:
        """After the stream's end: BadRequest if the decompressor found fault with the file."""
        if self.decompressor is None:
            return
        code, said = await self.decompressor.finish()
        if code:
            raise BadRequest(f"The archive cannot be decompressed: {said[-300:]}")


@asynccontextmanager
async def open_tar(path: Path, kind: Kind, budget: Budget, *, progress: Progress | None = None) -> AsyncIterator[Opened]:
    """The plain tar stream of an archive, decompressed in a jail."""
    async with AsyncExitStack() as stack:
        archive = stack.enter_context(await in_thread(path.open, "rb", buffering=0))
        worker = Worker(progress, lambda: os.lseek(archive.fileno(), 0, os.SEEK_CUR))
        if kind.decompressor is None:
            source = Source(io.BufferedReader(io.FileIO(archive.fileno(), closefd=False), PIPE_BYTES), budget)
            stack.push_async_callback(worker.settle)
            stack.callback(source.stop)
            yield Opened(source, None, worker)
            return
        read_end, write_end = pipe()
        stack.enter_context(read_end)
        source = Source(read_end, budget)
        stack.push_async_callback(worker.settle)
        stack.callback(source.stop)
        with write_end:
            jail = Jail(memory_bytes=_DECOMPRESSOR_MEMORY)
            program = await archive_sandbox.start(kind.decompressor, jail, stdin=archive.fileno(), stdout=write_end)
        yield Opened(source, await stack.enter_async_context(program), worker)
