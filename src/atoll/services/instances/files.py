"""Files of instances, running or not: looked at, read, written, made and removed as the instance's own root would.

All of it is done by a worker of the instance driver (`atoll.host.file_session`), never by the daemon itself. An instance that
does not run is held meanwhile, so that a start waits for what is under way; only an SFTP session, which may last for days, does
not hold it: a start then fails or, where the pool allows it, goes on beside it. Nothing here has steps that a kill could leave
half done: a file whose writing was cut off is as long as it came.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest, Conflict, TooLarge
from atoll.host.file_session import FileSession
from atoll.services.instances.core import InstanceCore, Loaded

MAX_PATH = 4096
CLIENT_SECONDS = 600.0
"""How long a client may stand still in the middle of a file: an instance that does not run is held meanwhile."""

MAX_NAMES = 16 << 20
"""Bytes of the names of one directory."""


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file. `kind` is file, directory or symlink, "" for anything else; `modified` in seconds."""

    kind: str
    uid: int
    gid: int
    mode: int
    modified: int
    size: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file's content: `content` of a regular file, `names` of a directory, sorted, `target` of a link."""

    info: FileInfo
    content: AsyncIterator[bytes]
    names: tuple[str, ...] = ()
    target: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """Attributes of what is made new: -1 and None for the defaults."""

    uid: int = -1
    gid: int = -1
    mode: int | None = None


class FileService:
    """Use cases of an instance's files."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def look(self, project: str, name: str, path: str) -> FileInfo:
        """A file's attributes, of a link itself."""
        async with self._session(project, name) as (_, session):
            message, _ = await session.ask("look", path=_checked(path))
            return _info(message)

    @asynccontextmanager
    async def fetch(self, project: str, name: str, path: str, *, caller: Caller) -> AsyncIterator[Fetched]:
        """A file with its content, which is to be read within the block. BadRequest for what is no file, directory or link."""
        async with self._session(project, name) as (loaded, session):
            message, fds = await session.ask("fetch", path=_checked(path))
            info = _info(message)
            stream = session.chunks(fds[0]) if fds else _nothing()
            names = await _names(stream) if info.kind == "directory" else ()
            yield Fetched(info, stream, names, message.get("target", ""))
        self._core.tell("instance-file-retrieved", loaded.record, context={"path": path}, caller=caller)

    async def store(
        self,
        project: str,
        name: str,
        path: str,
        chunks: AsyncIterator[bytes],
        *,
        append: bool,
        owner: Owner,
        caller: Caller,
    ) -> None:
        """Write a file. One that is there keeps its owner and mode; links are followed, as the guest would."""
        async with self._session(project, name) as (loaded, session):
            _, (pipe,) = await session.ask(
                "store", path=_checked(path), append=append, mode=owner.mode, uid=owner.uid, gid=owner.gid
            )
            await session.feed(pipe, _moving(chunks))
        self._pushed(loaded, path, caller)

    async def make_directory(self, project: str, name: str, path: str, *, owner: Owner, caller: Caller) -> None:
        """Make a directory; one that is there already is left as it is."""
        async with self._session(project, name) as (loaded, session):
            await session.ask("make-directory", path=_checked(path), mode=owner.mode, uid=owner.uid, gid=owner.gid)
        self._pushed(loaded, path, caller)

    async def make_link(self, project: str, name: str, path: str, target: str, *, owner: Owner, caller: Caller) -> None:
        """Make a symbolic link. Conflict if something else is there."""
        async with self._session(project, name) as (loaded, session):
            await session.ask("make-link", path=_checked(path), target=_checked(target), uid=owner.uid, gid=owner.gid)
        self._pushed(loaded, path, caller)

    async def remove(self, project: str, name: str, path: str, *, caller: Caller) -> None:
        """Remove a file, a link or an empty directory."""
        async with self._session(project, name) as (loaded, session):
            await session.ask("remove", path=_checked(path))
        self._core.tell("instance-file-deleted", loaded.record, context={"path": path}, caller=caller)

    @asynccontextmanager
    async def sftp(self, project: str, name: str) -> AsyncIterator[socket.socket]:
        """A stream socket on whose other end a worker speaks SFTP, while the block runs."""
        async with self._session(project, name, held=False) as (_, session):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
            ours.setblocking(False)
            with ours:
                with theirs:
                    await session.ask("sftp", fds=(theirs.fileno(),))
                yield ours

    def _pushed(self, loaded: Loaded, path: str, caller: Caller) -> None:
        self._core.tell("instance-file-pushed", loaded.record, context={"path": path}, caller=caller)

    @asynccontextmanager
    async def _session(self, project: str, name: str, *, held: bool = True) -> AsyncIterator[tuple[Loaded, FileSession]]:
        """A worker on the instance's files; `held`: nothing else happens to an instance that does not run meanwhile."""
        async with AsyncExitStack() as stack:
            holding = await stack.enter_async_context(AsyncExitStack())
            loaded = await self._core.load(project, name)
            root = None
            if not self._core.status(loaded.record).is_running:
                await holding.enter_async_context(self._core.hold(loaded.machine))
                loaded = await self._core.load(project, name)
                if not self._core.status(loaded.record).is_running:
                    root = await stack.enter_async_context(self._open_rootfs(loaded))
            if root is None or not held:
                await holding.aclose()
            yield loaded, await stack.enter_async_context(await self._core.driver.open_files(loaded.machine, root))

    def _open_rootfs(self, loaded: Loaded) -> AbstractAsyncContextManager[Path]:
        if loaded.record.phase:
            raise Conflict(f"Instance is busy: {loaded.record.phase}")
        return self._core.storage.driver(loaded.pool).open_rootfs(loaded.volume)


def _checked(path: str) -> str:
    """A path in an instance: it may be relative to its top. BadRequest for what the kernel would not take for a path."""
    if not path:
        raise BadRequest("Missing path argument")
    if "\0" in path or len(os.fsencode(path)) >= MAX_PATH:
        raise BadRequest("Not the path of a file")
    return path


async def _moving(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The chunks. BadRequest when the next one does not come."""
    while True:
        try:
            async with asyncio.timeout(CLIENT_SECONDS):
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            raise BadRequest(f"The rest of the file did not come within {CLIENT_SECONDS:g} seconds") from error
        if chunk is None:
            return
        yield chunk


def _info(message: Mapping[str, Any]) -> FileInfo:
    return FileInfo(**{field.name: message[field.name] for field in fields(FileInfo)})


async def _names(stream: AsyncIterator[bytes]) -> tuple[str, ...]:
    """Names with a NUL after each; what is not UTF-8 in one is replaced, as JSON has no place for it."""
    found = bytearray()
    async for chunk in stream:
        found += chunk
        if len(found) > MAX_NAMES:
            raise TooLarge("The directory has too many entries to list")
    return tuple(sorted(name.decode(errors="replace") for name in bytes(found).split(b"\0")[:-1]))


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
