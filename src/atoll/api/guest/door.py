"""The guest API's socket, and who is at the other end of each connection.

A caller is identified when its connection is accepted, before a byte of it is read: by then the process that connected is most
likely still there, and the kernel keeps it for us in any case. Connections of one instance have a bound, so that none can use up
what all need.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from atoll.api.serving import Serving
from atoll.api.tls_listener import BACKLOG
from atoll.domain.errors import AtollError, HostError, NotFound
from atoll.drivers.instance.contract import MachineId, Resident
from atoll.host import peer
from atoll.host.peer import Peer
from atoll.host.threads import in_thread

log = logging.getLogger(__name__)

MOST_OF_ONE = 128
"""Connections of one instance, or of all that belong to none."""

SHUTDOWN_SECONDS = 2.0

_AT_ONCE = 32
_LOOKS = 4
_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class GuestCaller:
    """Who connected: a process of a machine, as that machine's root or not."""

    machine: MachineId
    is_root: bool


Identify = Callable[[Peer], Awaitable[Resident | None]]


class GuestDoor:
    """The listener of one daemon; `start` takes the application."""

    def __init__(self, path: Path, identify: Identify) -> None:
        self._path = path
        self._identify = identify
        self._callers: dict[object, GuestCaller | None] = {}  # of those connections that were open when the last one came
        self._places = asyncio.Semaphore(_AT_ONCE)
        self._turn = asyncio.Lock()
        self._home = peer.pid_namespace(os.getpid())
        self._tasks: set[asyncio.Task[None]] = set()
        # Whoever listens to events without a websocket is gone only when its handler is cancelled.
        self._serving = Serving(shutdown_seconds=SHUTDOWN_SECONDS, handler_cancellation=True)
        self._socket: socket.socket

    def caller(self, raw: web.Request) -> GuestCaller | None:
        """Who sent a request; None for a stranger."""
        return self._callers.get(raw.protocol)

    # --- life ----------------------------------------------------------------------------------------------------------

    async def start(self, app: web.Application) -> None:
        """Listen."""
        await self._serving.start(app)
        self._socket = await in_thread(_bind, self._path)
        self._spawn(self._accept())

    async def stop(self) -> None:
        """Close all. The socket's file stays: to guests that look for it, the interface is there all the time."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._socket.close()
        await self._serving.stop()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # --- connections ---------------------------------------------------------------------------------------------------

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                link, _ = await loop.sock_accept(self._socket)
            except OSError as error:  # of the connection, or for want of descriptors: others may do better
                self._places.release()
                log.warning("A guest could not connect: %s", error)
                await asyncio.sleep(_PAUSE_SECONDS)
                continue
            except asyncio.CancelledError:
                self._places.release()
                raise
            self._spawn(self._welcome(link))

    async def _welcome(self, link: socket.socket) -> None:
        """Find out who it is, and let it speak; a stranger too, to be told that it may not."""
        try:
            caller = await self._who(link)
            async with self._turn:  # who is counted is connected before the next one counts
                if self._connected(caller) < MOST_OF_ONE:
                    await self._serve(link, caller)
                else:
                    link.close()
        except OSError as error:  # it has gone already
            link.close()
            log.debug("A guest's connection broke: %s", error)
        except BaseException:
            link.close()
            raise
        finally:
            self._places.release()

    def _connected(self, caller: GuestCaller | None) -> int:
        """How many connections the instance of a caller has; for a stranger, those of all strangers."""
        self._callers = {handler: self._callers.get(handler) for handler in self._serving.server.connections}
        return sum(1 for other in self._callers.values() if _machine(other) == _machine(caller))

    async def _serve(self, link: socket.socket, caller: GuestCaller | None) -> None:
        handler = self._serving.server()
        self._callers[handler] = caller  # before it can hear anything
        link.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: handler, link)

    async def _who(self, link: socket.socket) -> GuestCaller | None:
        try:
            with contextlib.closing(await in_thread(peer.of, link)) as process:
                found = await self._patiently(process)
        except NotFound:
            return None
        except (AtollError, OSError) as error:
            log.warning("A guest cannot be identified: %s", error)
            return None
        return GuestCaller(found.machine, process.uid == found.root) if found is not None else None

    async def _patiently(self, process: Peer) -> Resident | None:
        """Whose process it is. The first ones of a machine may be there before its start is known to have worked; of those
        beside the daemon, none is."""
        found = await self._identify(process)
        for _ in range(_LOOKS):
            if found is not None or peer.pid_namespace(process.pid) in (0, self._home) or not process.is_alive:
                break
            await asyncio.sleep(_PAUSE_SECONDS)
            found = await self._identify(process)
        return found


def _machine(caller: GuestCaller | None) -> MachineId | None:
    return caller.machine if caller is not None else None


def _bind(path: Path) -> socket.socket:
    """A socket that every user may connect to, whose ids the host cannot know; in place of a dead daemon's."""
    aside = path.with_name(path.name + ".new")
    aside.unlink(missing_ok=True)
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        link.bind(str(aside))
        aside.chmod(0o666)
        link.listen(BACKLOG)
        aside.replace(path)
    except OSError as error:
        link.close()
        raise HostError(f"Cannot listen on {path}: {error.strerror or error}") from error
    return link
