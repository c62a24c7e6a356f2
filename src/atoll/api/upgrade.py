"""Connections that leave HTTP: after the answer 101 their bytes belong to another protocol.

aiohttp knows upgrades to websockets only, so the connection is taken from it: its transport gets another protocol, and aiohttp
hears of it again when it is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import hdrs, web

from atoll.domain.errors import BadRequest

CHUNK = 256 << 10
STREAM_LIMIT = 1 << 20


class _Taken(asyncio.StreamReaderProtocol):
    """The connection's new protocol: a pair of streams, whose end the old one is told of."""

    def __init__(self, reader: asyncio.StreamReader, before: asyncio.BaseProtocol) -> None:
        super().__init__(reader)
        self._before = before

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._before.connection_lost(exc)


@asynccontextmanager
async def accepted(raw: web.Request, protocol: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Answer 101, and the connection's streams while the block runs; after it the connection is closed.

    Nothing may have been sent on the connection before. ConnectionError if it is lost already.
    """
    transport = raw.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("The client has gone")
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=STREAM_LIMIT)
    taken = _Taken(reader, raw.protocol)
    transport.set_protocol(taken)
    taken.connection_made(transport)
    writer = asyncio.StreamWriter(transport, taken, reader, loop)
    try:
        writer.write(f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {protocol}\r\nConnection: Upgrade\r\n\r\n".encode())
        await writer.drain()
        yield reader, writer
    finally:
        transport.close()


def require(raw: web.Request, protocol: str) -> None:
    """BadRequest unless the request asks for that upgrade."""
    if raw.headers.get(hdrs.UPGRADE, "").lower() != protocol:
        raise BadRequest("Missing or invalid upgrade header")


async def relay(
    one: tuple[asyncio.StreamReader, asyncio.StreamWriter], other: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    """Carry bytes both ways until either side ends or breaks off."""
    ways = [asyncio.create_task(_carry(one[0], other[1])), asyncio.create_task(_carry(other[0], one[1]))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
