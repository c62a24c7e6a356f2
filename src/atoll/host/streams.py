"""Descriptors of pipes and terminals on the event loop, without buffers of their own: back-pressure is the kernel's."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
import termios
from collections.abc import AsyncIterator

CHUNK = 1 << 16


def pipe() -> tuple[int, int]:
    """(reader, writer), close-on-exec, blocking: `chunks` and `write_all` switch their own end."""
    return os.pipe2(os.O_CLOEXEC)


def set_window(fd: int, *, width: int, height: int) -> None:
    """Size of a terminal in characters."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", height & 0xFFFF, width & 0xFFFF, 0, 0))


async def _ready(fd: int, *, write: bool, until: asyncio.Event | None = None) -> bool:
    """Wait until the descriptor can be read or written; False when `until` was set first."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[bool] = loop.create_future()

    def done(result: bool) -> None:
        if not future.done():
            future.set_result(result)

    add, remove = (loop.add_writer, loop.remove_writer) if write else (loop.add_reader, loop.remove_reader)
    add(fd, done, True)
    watcher = asyncio.ensure_future(until.wait()) if until is not None else None
    if watcher is not None:
        watcher.add_done_callback(lambda _: done(False))
    try:
        return await future
    finally:
        remove(fd)
        if watcher is not None:
            watcher.cancel()


async def chunks(fd: int, ended: asyncio.Event) -> AsyncIterator[bytes]:
    """What comes out of a pipe or terminal, until its end; once `ended` is set, until nothing more is there right now.

    The second half is for a command whose children keep the pipe open after it: their output is not waited for.
    """
    os.set_blocking(fd, False)
    while True:
        try:
            data = os.read(fd, CHUNK)
        except BlockingIOError:
            if ended.is_set() or not await _ready(fd, write=False, until=ended):
                try:
                    data = os.read(fd, CHUNK)
                except (BlockingIOError, OSError):
                    return
            else:
                continue
        except OSError as error:
            if error.errno == errno.EIO:  # a terminal whose other side is closed
                return
            raise
        if not data:
            return
        yield data


async def write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting while the reader does not read. BrokenPipeError when there is none any more."""
    os.set_blocking(fd, False)
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            await _ready(fd, write=True)
