"""A command and its client, once both are there: data both ways, signals and window sizes, and each one's end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from atoll.drivers.instance.contract import ExecProcess
from atoll.host import streams
from atoll.services.instances.sockets import CONTROL, Socket, Sockets

log = logging.getLogger(__name__)

HANG_UP_SECONDS = 5.0
"""How long a command on a terminal may live on when its client has left."""

Work = Coroutine[Any, Any, None]


class Attended:
    """One command with one client. `end` is to be awaited at last, whatever happened."""

    def __init__(self, process: ExecProcess, sockets: Sockets, terminal: int | None = None) -> None:
        self._process = process
        self._sockets = sockets
        self._terminal = terminal
        self._exited = asyncio.ensure_future(process.wait())
        self._tasks: list[asyncio.Task[None]] = []

    async def run(self, outputs: Sequence[Work], *others: Work) -> int:
        """The exit status, once the outputs have come to their end; what else is under way goes on until then."""
        told = [asyncio.ensure_future(work) for work in outputs]
        self._tasks = [*told, *(asyncio.ensure_future(work) for work in (*others, self._control()))]
        code = await asyncio.shield(self._exited)  # else a cancellation would end the waiting, and leave the command running
        await asyncio.gather(*told, return_exceptions=True)
        return code

    async def end(self) -> None:
        """Nothing of it is left afterwards."""
        self._signal(signal.SIGKILL)
        for task in self._tasks:
            task.cancel()
        await asyncio.wait([*self._tasks, self._exited])

    def _signal(self, number: int) -> None:
        """Unless it has ended."""
        if not self._exited.done():
            self._process.signal(number)

    # --- data ----------------------------------------------------------------------------------------------------------

    async def output(self, fd: int, socket: Socket) -> None:
        """From the command to the client; if the client is gone the rest is thrown away."""
        try:
            async for data in streams.chunks(fd, self._exited):
                await socket.send(data)
            await socket.send_end()
        except ConnectionError:
            async for _ in streams.chunks(fd, self._exited):
                pass

    async def input(self, fd: int, socket: Socket) -> None:
        """From the client to the command, whose input is closed at the client's barrier. Owns the descriptor."""
        try:
            while (data := await socket.receive()) is not None:
                await streams.write_all(fd, data)
        except OSError:
            while await socket.receive() is not None:  # the command reads no more: so that the client is not held up
                pass
        finally:
            os.close(fd)

    async def keys(self, fd: int, socket: Socket) -> None:
        """As `input`, for a terminal: a client that leaves hangs up. Owns the descriptor."""
        await self.input(fd, socket)
        while not socket.gone:  # that it has nothing more to type does not mean that it does not look
            await socket.receive()
        self._signal(signal.SIGHUP)
        await asyncio.sleep(HANG_UP_SECONDS)
        self._signal(signal.SIGKILL)

    # --- the client's presence -----------------------------------------------------------------------------------------

    async def presence(self, outputs: Sequence[Socket]) -> None:
        """A client that has left both outputs, and never had a control channel to tell by, takes its command with it."""
        for socket in outputs:
            while not socket.gone:
                await socket.receive()
        if not self._sockets.has(CONTROL):
            self._signal(signal.SIGKILL)

    async def _control(self) -> None:
        """Window sizes and signals; when the client is gone, so is its command."""
        socket = await self._sockets.arrival(CONTROL)
        while (message := await socket.receive()) is not None:
            try:
                self._obey(json.loads(message))
            except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError, OSError) as error:
                log.debug("Control message not understood: %s", error)
        self._signal(signal.SIGKILL)

    def _obey(self, message: Mapping[str, Any]) -> None:
        match message.get("command"):
            case "window-resize" if self._terminal is not None:
                size = message["args"]
                streams.set_window(self._terminal, width=int(size["width"]), height=int(size["height"]))
            case "signal":
                number = int(message["signal"])
                if number not in signal.valid_signals():
                    raise ValueError(f"there is no signal {number}")
                self._signal(number)
            case other:
                log.debug("Unknown control command %r", other)
