"""/internal: for `atolld`'s own commands, on the unix socket only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema.common import Body
from atoll.domain.errors import Unavailable
from atoll.host import memory
from atoll.host.threads import in_thread
from atoll.services.sql import SqlService


class Shutdown(Protocol):
    """Stops all instances, by force or not, in at most that many seconds (0: without a limit), then lets the daemon end."""

    async def __call__(self, *, force: bool, timeout: float) -> None: ...


class SqlPost(Body):
    """POST /internal/sql."""

    database: str = ""
    query: str = ""


class InternalRoutes:
    """Routes that are no part of the API."""

    def __init__(self, sql: SqlService, is_ready: Callable[[], bool], shutdown: Shutdown) -> None:
        self._sql = sql
        self._is_ready = is_ready
        self._shutdown = shutdown

    def table(self) -> Sequence[Route]:
        local = Access.LOCAL
        return (
            Route("GET", "/internal/ready", self.ready, local, "Whether the daemon has started"),
            Route("PUT", "/internal/shutdown", self.shut_down, local, "Stop instances and daemon"),
            Route("GET", "/internal/sql", self.dump, local, "Dump a database", result=dict),
            Route("POST", "/internal/sql", self.run, local, "Query a database", SqlPost, result=dict),
            Route("GET", "/internal/gc", self.collect, local, "Free unused memory"),
            Route("POST", "/internal/sql/sync", self.sync, local, "Write a database to its file", SqlPost),
        )

    async def ready(self, _: Request) -> web.StreamResponse:
        """503 until it has."""
        if not self._is_ready():
            raise Unavailable("The daemon is starting")
        return response.empty()

    async def collect(self, _: Request) -> web.StreamResponse:
        """For whoever looks for leaks: what is left after it is held by somebody."""
        await in_thread(memory.give_back)
        return response.empty()

    async def shut_down(self, request: Request) -> web.StreamResponse:
        """Answers when the instances have stopped; the daemon ends right after."""
        await self._shutdown(force=request.flag("force"), timeout=float(request.number("timeout", 300)))
        return response.empty()

    async def dump(self, request: Request) -> web.StreamResponse:
        """As statements."""
        text = await self._sql.dump(request.query("database"), schema_only=request.flag("schema"))
        return response.sync({"text": text})

    async def run(self, request: Request) -> web.StreamResponse:
        """A result for each statement."""
        body = await request.body(SqlPost)
        return response.sync({"results": await self._sql.run(body.database, body.query)})

    async def sync(self, request: Request) -> web.StreamResponse:
        """For whoever reads the file from outside."""
        body = await request.body(SqlPost)
        await self._sql.sync(body.database or request.query("database"))
        return response.empty()
