"""An application while it is served: what makes the handlers of connections, whoever accepts those."""

from __future__ import annotations

import asyncio
from typing import Any

from aiohttp import web

from atoll.domain.errors import HostError

IDLE_SECONDS = 60.0
"""How long a connection may take to bring its next whole request head; a slow one is closed as an idle one is."""

LONGEST_LINE = 16 * 1024
"""Bytes of a request line or of one header."""


class Serving:
    """Serves one application from `start` to `stop`. `options` are those of `web.AppRunner` that differ between doors."""

    def __init__(self, *, shutdown_seconds: float, **options: Any) -> None:
        self._options = {"shutdown_timeout": shutdown_seconds, **options}
        self._runner: web.AppRunner | None = None

    @property
    def is_started(self) -> bool:
        """Whether connections can be served."""
        return self._runner is not None

    @property
    def server(self) -> web.Server:
        """Makes what serves a connection. HostError before the start."""
        if self._runner is None or self._runner.server is None:
            raise HostError("The listeners are not started")
        return self._runner.server

    async def start(self, app: web.Application) -> None:
        """From now on `server` makes the handlers of connections."""
        self._runner = web.AppRunner(
            app,
            handle_signals=False,
            access_log=None,
            keepalive_timeout=IDLE_SECONDS,
            max_line_size=LONGEST_LINE,
            max_field_size=LONGEST_LINE,
            **self._options,
        )
        await self._runner.setup()

    async def stop(self) -> None:
        """Let requests under way end, for a while."""
        if self._runner is not None:
            await self._runner.cleanup()

    def transports(self) -> list[asyncio.Transport]:
        """Of the open connections."""
        if self._runner is None or self._runner.server is None:
            return []
        return [each.transport for each in self._runner.server.connections if isinstance(each.transport, asyncio.Transport)]
