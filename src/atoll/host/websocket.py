"""Websockets, accepted by the API or opened to other servers, behind the small interface that services know."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import aiohttp
from aiohttp import WSMsgType, web

from atoll.domain.errors import Unavailable
from atoll.host import web as tls_web
from atoll.host.threads import in_thread

_TCP_OPTIONS = {
    socket.TCP_KEEPIDLE: 30,  # seconds
    socket.TCP_KEEPINTVL: 15,
    socket.TCP_KEEPCNT: 8,
}
LOOK_SECONDS = 30.0
SILENT_SECONDS = 300.0
"""After that a peer is gone. The kernel asks one that does not read at most two minutes apart; one answer may be lost."""
_LAST_ACK = slice(56, 60)
"""Of the kernel's struct tcp_info: milliseconds since the peer's kernel last acknowledged anything."""
_SECRET = re.compile(r"\?secret=[^'\"\s]*")


def notice_silence(raw: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
    """Find out when a peer elsewhere has gone without a word, though not before a link could have been away for two minutes.

    If nothing is under way the kernel does, by asking. If something is, it would go on sending that for a quarter of an hour;
    with TCP_USER_TIMEOUT for less, but then it also cuts off a peer that is there and merely does not read, as a terminal that
    is being paged, or a target whose disk is busy. Such a one still answers the kernel, which tells us when it last heard it.
    """
    link = raw.get_extra_info("socket")
    if link is not None and link.family in (socket.AF_INET, socket.AF_INET6):
        for option, value in _TCP_OPTIONS.items():
            link.setsockopt(socket.IPPROTO_TCP, option, value)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        _look_later(raw)


def _look_later(raw: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
    asyncio.get_running_loop().call_later(LOOK_SECONDS, _look, raw)


def _look(raw: web.WebSocketResponse | aiohttp.ClientWebSocketResponse) -> None:
    link = raw.get_extra_info("socket")
    if link is None:
        return  # it is closed
    with suppress(OSError):  # it is being closed
        told = link.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_ACK.stop)
        if int.from_bytes(told[_LAST_ACK], sys.byteorder) < SILENT_SECONDS * 1000:
            _look_later(raw)
            return
        with socket.socket(fileno=os.dup(link.fileno())) as twin:  # the loop's own one cannot be shut down
            twin.shutdown(socket.SHUT_RDWR)


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
    """A websocket of a server, while the block runs: see `web.visit`. `largest` bounds a message. Unavailable, also for a server
    that redirects: who asked for this has named that one, and none within our own network."""
    context = await in_thread(tls_web.client_context, known)
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=tls_web.CONNECT_SECONDS)
    connector = aiohttp.TCPConnector(ssl=context)
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True, trace_configs=[trace]) as session:
        try:
            async with asyncio.timeout(tls_web.CONNECT_SECONDS):
                opened = await session.ws_connect(url, max_msg_size=largest, compress=0, autoping=True)
        except (aiohttp.ClientError, ssl.SSLError, OSError, ValueError, TimeoutError) as error:
            reason = _SECRET.sub("", str(error)) or type(error).__name__
            raise Unavailable(f"{_SECRET.sub('', url)} cannot be connected to: {reason}") from error
        notice_silence(opened)
        try:
            yield WebSocket(opened)
        finally:
            await opened.close()


async def _refuse_redirect(*_: object) -> None:
    raise aiohttp.ClientError("it redirects to another place")
