"""The websockets of an operation: each has a name and a secret, and is connected once."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any, Protocol

from atoll.domain.errors import BadRequest
from atoll.services.operations import OperationClass, OperationSpec, new_secret

CONTROL = "control"
CONNECT_SECONDS = 10.0
LARGEST_MESSAGE = 16 << 20
"""Bytes of a message from a stranger. What LXD says of an instance is one: the configuration of all its snapshots is in it."""


class Socket(Protocol):
    """A websocket, seen from here."""

    async def send(self, data: bytes) -> None:
        """Binary data; waits while the peer does not read. ConnectionError when it is gone."""

    async def send_end(self) -> None:
        """No more data comes: LXD's barrier, an empty text message."""

    async def receive(self) -> bytes | None:
        """Data of the peer; None at its barrier or when it is gone."""

    @property
    def gone(self) -> bool:
        """Whether the peer has left, or said that it does: after its barrier it has not."""

    async def close(self) -> None:
        """Close the connection."""


class Sockets:
    """What an operation's work waits for, and what the websocket route hands its connections to (`connect`)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.secrets = {name: new_secret() for name in names}
        self._arrived: dict[str, asyncio.Future[Socket]] = {}
        self._over = asyncio.Event()

    def declare(self, spec: OperationSpec) -> OperationSpec:
        """The operation as one that a stranger connects these websockets of. Its creator finds the secrets in the metadata, each
        by its name."""
        return dataclasses.replace(
            spec,
            cls=OperationClass.WEBSOCKET,
            sockets=self.secrets,
            connect=self.connect,
            private=self.secrets,
            largest_message=LARGEST_MESSAGE,
        )

    async def connect(self, name: str, socket: Any) -> None:
        """A websocket came in; its connection is held until `release`. BadRequest for a second one."""
        future = self._arrival(name)
        if future.done():
            raise BadRequest("This descriptor is connected already")
        future.set_result(socket)
        await self._over.wait()
        await socket.close()  # here, not in the work's own course: a peer may take its time to answer

    async def arrival(self, name: str) -> Socket:
        """One of them, as soon as it is connected. Who is cancelled meanwhile takes it from nobody else, and a client that comes
        after that is not refused."""
        return await asyncio.shield(self._arrival(name))

    async def connected(self, names: Sequence[str]) -> dict[str, Socket]:
        """Several. BadRequest if the client does not connect them in time."""
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return {name: await self.arrival(name) for name in names}
        except TimeoutError as error:
            raise BadRequest("The client did not connect its websockets in time") from error

    def has(self, name: str) -> bool:
        """Whether it was ever connected."""
        return name in self._arrived and self._arrived[name].done()

    def release(self) -> None:
        """The work is over: close them, and do not keep them as long as the operation is still known."""
        self._over.set()
        self._arrived.clear()

    def _arrival(self, name: str) -> asyncio.Future[Socket]:
        if name not in self._arrived:
            self._arrived[name] = asyncio.get_running_loop().create_future()
        return self._arrived[name]
