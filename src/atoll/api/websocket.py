"""Accepting websockets."""

from __future__ import annotations

from aiohttp import web

from atoll.host import websocket
from atoll.host.websocket import WebSocket

__all__ = ["MAX_CONTROL", "WebSocket", "accept"]

MAX_CONTROL = 1 << 20
"""Bytes of a message that is not data: of a window's size, or what a migration says of an instance with all its snapshots."""


async def accept(request: web.Request, *, largest: int = 0) -> web.WebSocketResponse:
    """Upgrade a request; `largest` bounds a message (0: no bound, for streams that are read piecewise anyway)."""
    accepted = web.WebSocketResponse(max_msg_size=largest, timeout=2.0, compress=False, heartbeat=None)
    await accepted.prepare(request)
    link = request.transport.get_extra_info("socket") if request.transport is not None else None
    if link is not None:
        websocket.notice_silence(link)
    return accepted
