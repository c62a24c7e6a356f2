"""The websocket for files, as transports that stream use it: data that ends with a barrier, and JSON messages in between.

The barrier is LXD's: an empty text message. A peer that neither sends nor reads for IDLE_SECONDS is given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

import msgspec

from atoll.domain.errors import BadRequest, Unavailable
from atoll.host.rsync import Report
from atoll.services.instances.sockets import Socket

IDLE_SECONDS = 900.0
LARGEST_MESSAGE = 16 << 20

T = TypeVar("T")


class Files:
    """One such websocket. Every method raises Unavailable if the connection breaks."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Waits while the peer does not read."""
        with _unbroken():
            async with asyncio.timeout(IDLE_SECONDS):
                await self._socket.send(data)

    async def end(self) -> None:
        """Send the barrier: no more data comes."""
        with _unbroken():
            async with asyncio.timeout(IDLE_SECONDS):
                await self._socket.send_end()

    async def chunks(self, report: Report) -> AsyncIterator[bytes]:
        """The data that comes before the peer's barrier."""
        while (data := await self._receive()) is not None:
            report(len(data))
            yield data

    async def tell(self, message: msgspec.Struct) -> None:
        """Send a message as JSON."""
        await self.send(msgspec.json.encode(message))
        await self.end()

    async def hear(self, kind: type[T]) -> T:
        """The peer's next message. BadRequest if it is too long or not of that type; nothing but its shape is checked."""
        heard = bytearray()
        while (data := await self._receive()) is not None:
            heard += data
            if len(heard) > LARGEST_MESSAGE:
                raise BadRequest("The other server says more than can be")
        try:
            return msgspec.json.decode(heard, type=kind)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise BadRequest(f"What the other server says is malformed: {error}") from error

    async def _receive(self) -> bytes | None:
        with _unbroken():
            async with asyncio.timeout(IDLE_SECONDS):
                data = await self._socket.receive()
            if data is None and self._socket.gone:
                raise ConnectionResetError
            return data


def fit(message: msgspec.Struct) -> bool:
    """Whether a message is short enough for a peer to take it."""
    return len(msgspec.json.encode(message)) <= LARGEST_MESSAGE


@contextmanager
def _unbroken() -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise Unavailable("The connection to the other server broke") from error
    except TimeoutError as error:
        raise Unavailable("The other server has stopped sending and receiving") from error
