"""Accepting websockets."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

from aiohttp import web

from atoll.host import websocket
from atoll.host.websocket import WebSocket

__all__ = ["MAX_CONTROL", "WebSocket", "accept", "while_open"]

MAX_CONTROL = 1 << 20
"""Bytes of a message that is not data, as of a window's size."""


async def accept(request: web.Request, *, largest: int = 0) -> web.WebSocketResponse:
    """Upgrade a request; `largest` bounds a message (0: no bound, for streams that are read piecewise anyway)."""
    accepted = web.WebSocketResponse(max_msg_size=largest, timeout=2.0, compress=False, heartbeat=None)
    await accepted.prepare(request)
    websocket.notice_silence(accepted)
    return accepted


async def while_open(socket: web.WebSocketResponse, sending: Coroutine[None, None, None]) -> None:
    """Let that send until the client goes, whatever the client says meanwhile."""
    sender = asyncio.ensure_future(sending)
    try:
        async for _ in socket:
            pass
    finally:
        sender.cancel()
        await asyncio.wait([sender])
