"""Websockets, as services see them."""

from __future__ import annotations

from aiohttp import WSMsgType, web

MAX_CONTROL = 64 << 10


class WebSocket:
    """An aiohttp websocket behind the small interface that the exec service knows."""

    def __init__(self, raw: web.WebSocketResponse) -> None:
        self._raw = raw

    async def send(self, data: bytes) -> None:
        """Binary data; waits while the peer does not read."""
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
        return None

    async def close(self) -> None:
        """Close the connection, waiting a little for the peer to do so too."""
        await self._raw.close()


async def accept(request: web.Request, *, largest: int = 0) -> web.WebSocketResponse:
    """Upgrade a request; `largest` bounds a message (0: no bound, for streams that are read piecewise anyway)."""
    socket = web.WebSocketResponse(max_msg_size=largest, timeout=2.0, compress=False, heartbeat=None)
    await socket.prepare(request)
    return socket
