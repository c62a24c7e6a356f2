"""Consoles of instances: attaching to one over websockets, and the log of what was shown."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.drivers.instance.contract import Console, MachineId
from atoll.host import streams
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.sockets import CONTROL, Socket, Sockets
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

PATIENCE = 0.5
"""Seconds that a console waits for a client that does not read. What it does not take after that is in the log alone."""

_DATA = "0"


@dataclass(frozen=True, slots=True)
class Attachment:
    """What a client asks for. Width and height in characters; 0 leaves them as they are."""

    type: str = "console"
    width: int = 0
    height: int = 0


class ConsoleService:
    """Use cases of consoles."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations
        self._attached: set[MachineId] = set()

    async def attach(self, project: str, name: str, wanted: Attachment, *, caller: Caller) -> Operation:
        """The operation that connects a client. BadRequest if the instance does not run or has no such console, Conflict while
        somebody else is attached."""
        loaded = await self._core.load(project, name)
        _check(wanted)
        self._core.require_running(loaded)
        if loaded.machine in self._attached:
            raise Conflict("This console is already connected")
        session = _Session(self._core, self._attached, loaded.machine, wanted)
        operation = self._operations.start(
            OperationSpec(
                "Showing console",
                session.work,
                cls=OperationClass.WEBSOCKET,
                project=project,
                resources=instance_resources(name),
                caller=caller,
                cancellable=True,
                sockets=session.sockets.secrets,
                connect=session.sockets.connect,
            )
        )
        self._core.tell("instance-console", loaded.record, caller=caller, context={"type": wanted.type})
        return operation

    async def show(self, project: str, name: str, *, caller: Caller) -> bytes:
        """The end of what the instance showed since it was started last. NotFound if it never was."""
        loaded = await self._core.load(project, name)
        found = await self._core.driver.console_log(self._log_dir(loaded))
        if found is None:
            if not self._core.status(loaded.record).is_running:
                raise NotFound("There is no console log")
            found = b""
        self._core.tell("instance-console-retrieved", loaded.record, caller=caller)
        return found

    async def clear(self, project: str, name: str, *, caller: Caller) -> None:
        """Forget the log."""
        loaded = await self._core.load(project, name)
        await self._core.driver.clear_console_log(self._log_dir(loaded))
        self._core.tell("instance-console-reset", loaded.record, caller=caller)

    def _log_dir(self, loaded: Loaded) -> Path:
        return self._core.paths.logs(loaded.machine.key)


def _check(wanted: Attachment) -> None:
    if wanted.type == "vga":
        raise BadRequest("VGA console is only supported by virtual machines")
    if wanted.type != "console":
        raise BadRequest(f"Unknown console type {wanted.type[:40]!r}")


class _Session:
    """One client at a console."""

    def __init__(self, core: InstanceCore, attached: set[MachineId], machine: MachineId, wanted: Attachment) -> None:
        self._core = core
        self._attached = attached
        self._machine = machine
        self._wanted = wanted
        self.sockets = Sockets((_DATA, CONTROL))

    async def work(self, _: Operation) -> None:
        """The operation's work: until the client leaves or the machine ends."""
        try:
            socket = (await self.sockets.connected([_DATA]))[_DATA]
            console = await self._core.driver.open_console(self._machine)
            self._attached.add(self._machine)
            try:
                await self._attend(console, socket)
            finally:
                self._attached.discard(self._machine)
                console.close()
        finally:
            self.sockets.release()

    async def _attend(self, console: Console, socket: Socket) -> None:
        if self._wanted.width > 0 and self._wanted.height > 0:
            await console.resize(width=self._wanted.width, height=self._wanted.height)
        parts: tuple[Awaitable[None], ...] = (_show(console.fd, socket), _type(console.fd, socket), self._control(console))
        tasks = [asyncio.ensure_future(part) for part in parts]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _control(self, console: Console) -> None:
        """Window sizes; ends when the client leaves."""
        socket = await self.sockets.arrival(CONTROL)
        while (message := await socket.receive()) is not None:
            try:
                await _obey(json.loads(message), console)
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
                log.debug("Control message not understood: %s", error)


async def _obey(message: Mapping[str, Any], console: Console) -> None:
    """Signals are for commands: on a console they are typed."""
    if message.get("command") == "window-resize":
        size = message["args"]
        await console.resize(width=int(size["width"]), height=int(size["height"]))


async def _show(fd: int, socket: Socket) -> None:
    """To the client, until the machine ends or the client is gone.

    One process copies between the guest's terminal and this one and watches over the guest, and it waits while nobody reads: so
    this reads on whatever the client does.
    """
    never = asyncio.get_running_loop().create_future()
    sending: asyncio.Future[None] | None = None
    patience = PATIENCE
    try:
        async for data in streams.chunks(fd, never):
            if sending is not None and not sending.done():
                await asyncio.wait([sending], timeout=patience)
                if not sending.done():
                    patience = 0
                    continue
            if sending is not None:
                sending.result()
            patience = PATIENCE
            sending = asyncio.ensure_future(socket.send(data))
        if sending is not None:
            await asyncio.wait([sending], timeout=PATIENCE)
    except ConnectionError:
        return
    finally:
        if sending is not None:
            sending.cancel()
            await asyncio.wait([sending])


async def _type(fd: int, socket: Socket) -> None:
    """From the client, until it leaves."""
    terminal = os.dup(fd)  # one descriptor cannot be waited for twice
    try:
        while (data := await socket.receive()) is not None:
            await streams.write_all(terminal, data)
    except OSError as error:
        log.debug("A console takes no more input: %s", error)
    finally:
        os.close(terminal)
