"""The daemon's side of a worker on a guest's files (see `file_worker`): asks it, hands streams on, and ends it.

The guest decides how long its files take, so every wait has a limit: a worker that does not answer, or a stream that stands
still, ends the session with DeadlineExceeded. The event loop is never blocked, and no thread waits for a guest.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from typing import Any, Self

from atoll.domain.errors import AtollError, BadRequest, Conflict, DeadlineExceeded, Forbidden, HostError, NotFound
from atoll.host import messages, pidfd, streams
from atoll.host.zygote import Zygote

ANSWER_SECONDS = 30.0
STREAM_SECONDS = 60.0
END_SECONDS = 5.0
CHUNK = 256 << 10

_KINDS: Mapping[int, type[AtollError]] = {
    errno.ENOENT: NotFound,
    errno.ENOTDIR: NotFound,
    errno.EACCES: Forbidden,
    errno.EPERM: Forbidden,
    errno.EEXIST: Conflict,
    **dict.fromkeys(
        (
            errno.EBUSY,
            errno.EINVAL,
            errno.EISDIR,
            errno.ELOOP,
            errno.EMLINK,
            errno.ENAMETOOLONG,
            errno.ENODEV,
            errno.ENOTEMPTY,
            errno.ENXIO,
            errno.EOVERFLOW,
            errno.EROFS,
            errno.ETXTBSY,
            errno.EXDEV,
        ),
        BadRequest,
    ),
}
"""Whose fault a failure is; any other is a HostError."""

_TEXTS = {errno.ENOENT: "Not Found", errno.ENOTDIR: "Not Found"}


class FileSession:
    """One worker. Used as an async context manager: at the end of the block it has ended, whatever it was at."""

    def __init__(self, link: socket.socket, handle: int = -1) -> None:
        """`handle` is the worker's pidfd, the session's from now on; -1 for a worker that ends by itself with its link."""
        link.setblocking(False)
        self._link = link
        self._handle = handle
        self._watch: asyncio.Task[None] | None = None
        self._streams: set[int] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()
        if self._watch is not None:
            self._watch.cancel()
        for stream in list(self._streams):
            self._release(stream)
        handle, self._handle = self._handle, -1
        if handle >= 0:
            try:
                with contextlib.suppress(TimeoutError):  # in the kernel's hands: it dies as soon as these let go
                    async with asyncio.timeout(END_SECONDS):
                        await streams.ready(handle, write=False)
            finally:
                os.close(handle)

    def kill(self) -> None:
        """End the worker now; its streams break off."""
        self._link.close()
        if self._handle >= 0:
            pidfd.send(self._handle, signal.SIGKILL)

    def kill_when(self, event: asyncio.Event) -> None:
        """End it also when that event is set: its machine has stopped, and its files shall be let go of."""

        async def watch() -> None:
            await event.wait()
            self.kill()

        self._watch = asyncio.create_task(watch(), name="end of a worker on files")

    def _release(self, stream: int) -> None:
        """Close a stream's descriptor, unless that is done already."""
        if stream in self._streams:
            self._streams.remove(stream)
            os.close(stream)

    # --- asking --------------------------------------------------------------------------------------------------------

    async def ask(self, operation: str, *, fds: tuple[int, ...] = (), **arguments: Any) -> tuple[dict[str, Any], list[int]]:
        """One of the worker's operations: its answer, and the streams beside it, for `chunks` or `feed`.

        NotFound, Forbidden, BadRequest, … for what it could not do; DeadlineExceeded when it does not answer.
        """
        try:
            messages.send(self._link, {"op": operation, **arguments}, fds)
        except OSError as error:
            raise _ended() from error
        return await self.answer()

    async def answer(self) -> tuple[dict[str, Any], list[int]]:
        """The next answer: that to `ask`, or the one after a stream."""
        async with _limit(ANSWER_SECONDS):
            while True:
                try:
                    data, fds = messages.receive(self._link)
                    break
                except BlockingIOError:
                    await streams.ready(self._link.fileno(), write=False)
                except OSError as error:
                    raise _ended() from error
        if not data:
            raise _ended()
        message: dict[str, Any] = messages.loads(data)
        if "errno" in message:
            number = message["errno"]
            raise _KINDS.get(number, HostError)(_TEXTS.get(number, message["error"]))
        self._streams.update(fds)
        return message, fds

    # --- streams -------------------------------------------------------------------------------------------------------

    async def chunks(self, stream: int) -> AsyncGenerator[bytes, None]:
        """What comes through a stream, to its end. HostError when the worker could not send it all."""
        try:
            os.set_blocking(stream, False)
            while True:
                try:
                    data = os.read(stream, CHUNK)
                except BlockingIOError:
                    async with _limit(STREAM_SECONDS):
                        await streams.ready(stream, write=False)
                    continue
                if not data:
                    break
                yield data
        finally:
            self._release(stream)
        await self.answer()

    async def feed(self, stream: int, chunks: AsyncIterator[bytes]) -> None:
        """Send chunks down a stream and wait until all are stored. If the chunks end with an error, so does the session: the
        worker is not to take it for the end."""
        try:
            os.set_blocking(stream, False)
            with contextlib.suppress(BrokenPipeError):  # the answer says why
                async for chunk in chunks:
                    await _write_all(stream, chunk)
        except BaseException:
            self.kill()
            raise
        finally:
            self._release(stream)
        await self.answer()


async def start(zygote: Zygote, place: int, *, init: int = 0) -> FileSession:
    """A worker in the machine whose init's pidfd is `place` and process id `init`; on the folder `place`, with `init` 0."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        async with _limit(ANSWER_SECONDS):
            answer = await zygote.call("files", {"init": init}, [theirs.fileno(), place])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return FileSession(ours, answer.fds[0])


@contextlib.asynccontextmanager
async def _limit(seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError as error:
        raise DeadlineExceeded(f"The instance's file system did not answer for {seconds:g} seconds") from error


def _ended() -> AtollError:
    return Conflict("The instance was stopped while its files were worked on")


async def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            async with _limit(STREAM_SECONDS):
                await streams.ready(fd, write=True)
