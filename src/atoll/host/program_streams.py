"""A program's output as it comes, and its input as it is wanted: who is slower makes the other one wait."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from atoll.host import streams
from atoll.host.archive_sandbox import Program

PIECE = 1 << 20
"""All that a pipe holds, in one message: fewer of them take less processor time."""
_PIPE_BYTES = PIECE


def _pipe() -> tuple[int, int]:
    reader, writer = streams.pipe()
    with suppress(PermissionError):  # the user's sum of pipe buffers is limited; the default size works too
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
    return reader, writer


async def pour(start: Callable[[int], Awaitable[Program]], sink: Callable[[bytes], Awaitable[None]]) -> tuple[int, str]:
    """Give the sink what a program writes to the descriptor that it is started with. Its exit code, and what it said."""
    reader, writer = _pipe()
    try:
        try:
            program = await start(writer)
        finally:
            os.close(writer)
        async with program:
            never: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            async for data in streams.chunks(reader, never, size=PIECE):
                await sink(data)
            return await program.finish()
    finally:
        os.close(reader)


async def feed(start: Callable[[int], Awaitable[Program]], source: AsyncIterator[bytes]) -> tuple[int, str]:
    """Let a program read all of the source from the descriptor that it is started with. Its exit code, and what it said; it may
    end before it has read everything."""
    reader, writer = _pipe()
    try:
        program = await start(reader)
    except BaseException:
        os.close(writer)
        raise
    finally:
        os.close(reader)
    async with program:
        try:
            async for data in source:
                await streams.write_all(writer, data)
        except BrokenPipeError:
            pass  # it has given up: its own words say why
        finally:
            os.close(writer)
        return await program.finish()
