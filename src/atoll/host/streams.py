"""Descriptors of pipes and terminals on the event loop, without buffers of their own: back-pressure is the kernel's."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator, Iterable
from typing import Any

CHUNK = 1 << 16
LAST = 1 << 20
"""More than a pipe or terminal holds: how much is read after the writer has ended."""


def pipe() -> tuple[int, int]:
    """(reader, writer), close-on-exec, blocking: `chunks` and `write_all` switch their own end."""
    return os.pipe2(os.O_CLOEXEC)


def close(fds: Iterable[int]) -> None:
    """Close each once, however often it is named."""
    for fd in set(fds):
        os.close(fd)


def set_window(fd: int, *, width: int, height: int) -> None:
    """Size of a terminal in characters."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


async def ready(fd: int, *, write: bool, until: asyncio.Future[Any] | None = None) -> None:
    """Wait until the descriptor can be read or written, or `until` is done."""
    loop = asyncio.get_running_loop()
    woken: asyncio.Future[None] = loop.create_future()

    def done(_: object = None) -> None:
        if not woken.done():
            woken.set_result(None)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, done)
    if until is not None:
        until.add_done_callback(done)
    try:
        await woken
    finally:
        remove(fd)
        if until is not None:
            until.remove_done_callback(done)


async def chunks(fd: int, ended: asyncio.Future[Any], *, size: int = CHUNK) -> AsyncIterator[bytes]:
    """What comes out of a pipe or terminal, until its end; once `ended` is done, until nothing more is there right now.

    The second half is for a command whose children keep the pipe open after it: their output is not waited for, nor is there an
    end to it if it never pauses.
    """
    os.set_blocking(fd, False)
    rest = LAST
    while rest > 0:
        over = ended.done()  # asked first: what was written before the end is read after it
        try:
            data = os.read(fd, size)
        except BlockingIOError:
            if over:
                return
            await ready(fd, write=False, until=ended)
            continue
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose other side is closed
                return
            raise
        if not data:
            return
        if over:
            rest -= len(data)
        yield data


async def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting while the reader does not read. BrokenPipeError when there is none any more."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await ready(fd, write=True)
