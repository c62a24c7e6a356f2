"""Websockets, accepted by the API or opened to other servers, behind the small interface that services know."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import WSMsgType, web

from atoll.domain.errors import Unavailable
from atoll.host import web as tls_web
from atoll.host.threads import in_thread

_TCP_OPTIONS = {
    socket.TCP_KEEPIDLE: 10,  # seconds
    socket.TCP_KEEPINTVL: 5,
    socket.TCP_KEEPCNT: 4,
    socket.TCP_USER_TIMEOUT: 30_000,  # milliseconds
}


def notice_silence(link: socket.socket) -> None:
    """Let the kernel find out when a peer elsewhere has gone without a word."""
    if link.family in (socket.AF_INET, socket.AF_INET6):
        for option, value in _TCP_OPTIONS.items():
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)


class WebSocket:
    """An aiohttp websocket of either side."""

    def __init__(self, raw: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
        self._raw = raw
        self._gone = False

    async def send(self, data: bytes) -> None:
        """Binary data; waits while the peer does not read. ConnectionError when it is gone."""
        if self._raw.closed:
            raise ConnectionResetError("The websocket is closed")
        await self._raw.send_bytes(data)

    async def send_end(self) -> None:
        """LXD's barrier."""
        if not self._raw.closed:
            await self._raw.send_str("")

    async def receive(self) -> bytes | None:
        """Data of the peer; None at its barrier or when it is gone. Text with content is data too (control messages)."""
        message = await self._raw.receive()
        if message.type is WSMsgType.BINARY:
            return bytes(message.data)
        if message.type is WSMsgType.TEXT and message.data:
            return str(message.data).encode()
        self._gone = message.type is not WSMsgType.TEXT
        return None

    @property
    def gone(self) -> bool:
        """Whether the peer has left, or said that it does."""
        return self._gone or self._raw.closed

    async def close(self) -> None:
        """Close the connection, waiting a little for the peer to do so too."""
        await self._raw.close()


@asynccontextmanager
async def connect(url: str, *, known: bytes | None, largest: int) -> AsyncIterator[WebSocket]:
    """A websocket of a server, while the block runs: see `web.visit`. `largest` bounds a message. Unavailable."""
    context = await in_thread(tls_web.client_context, known)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=tls_web.CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True) as session:
        try:
            async with asyncio.timeout(tls_web.CONNECT_SECONDS):
                opened = await session.ws_connect(url, max_msg_size=largest, compress=0, autoping=True)
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError, TimeoutError) as error:
            place = url.partition("?")[0]  # what follows is a secret
            reason = str(error).replace(url, place) or type(error).__name__
            raise Unavailable(f"{place} cannot be connected to: {reason}") from error
        link = opened.get_extra_info("socket")
        if link is not None:
            notice_silence(link)
        try:
            yield WebSocket(opened)
        finally:
            await opened.close()
