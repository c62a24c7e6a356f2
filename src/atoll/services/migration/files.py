"""The link of files, as ways that stream over it see it: data up to a barrier, and words in between as JSON.

A peer that says nothing, or does not read, for a long time is given up.
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
LARGEST_WORDS = 16 << 20

T = TypeVar("T")


class Files:
    """One link. Unavailable if it breaks, whatever is done."""

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    async def send(self, data: bytes) -> None:
        """Waits while the peer does not read."""
        with _unbroken():
            async with asyncio.timeout(IDLE_SECONDS):
                await self._socket.send(data)

    async def end(self) -> None:
        """The barrier."""
        with _unbroken():
            async with asyncio.timeout(IDLE_SECONDS):
                await self._socket.send_end()

    async def chunks(self, report: Report) -> AsyncIterator[bytes]:
        """What comes until the peer's barrier."""
        while (data := await self._receive()) is not None:
            report(len(data))
            yield data

    async def tell(self, words: msgspec.Struct) -> None:
        """Something as JSON."""
        await self.send(msgspec.json.encode(words))
        await self.end()

    async def hear(self, kind: type[T]) -> T:
        """The same from the peer. BadRequest for what is too long or is none of that kind; only its shape is checked."""
        heard = bytearray()
        while (data := await self._receive()) is not None:
            heard += data
            if len(heard) > LARGEST_WORDS:
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


def fit(words: msgspec.Struct) -> bool:
    """Whether they are few enough for a peer to hear them."""
    return len(msgspec.json.encode(words)) <= LARGEST_WORDS


@contextmanager
def _unbroken() -> Iterator[None]:
    try:
        yield
    except ConnectionError as error:
        raise Unavailable("The connection to the other server broke") from error
    except TimeoutError as error:
        raise Unavailable("The other server has stopped sending and receiving") from error
