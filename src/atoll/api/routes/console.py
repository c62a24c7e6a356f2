"""/1.0/instances/NAME/console: attach, show the log, clear it."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.services.instances.console import Attachment, ConsoleService

_LOG_HEADERS = {"Content-Type": "application/octet-stream", "Content-Disposition": "inline;filename=console.log"}


class ConsoleRoutes:
    """Routes of consoles."""

    def __init__(self, consoles: ConsoleService) -> None:
        self._consoles = consoles

    def table(self) -> Sequence[Route]:
        path = "/1.0/instances/{name}/console"
        body = schema.InstanceConsolePost
        return (
            Route("POST", path, self.attach, Access.PROJECT, "Attach to the console", body, is_async=True),
            Route("GET", path, self.show, Access.PROJECT, "Get the console log", result=bytes),
            Route("DELETE", path, self.clear, Access.PROJECT, "Clear the console log"),
        )

    async def attach(self, request: Request) -> web.StreamResponse:
        """Connect to it by websockets."""
        body = await request.body(schema.InstanceConsolePost)
        wanted = Attachment(body.type or "console", width=body.width, height=body.height)
        return response.operation(await self._consoles.attach(request.project, _name(request), wanted, caller=request.caller))

    async def show(self, request: Request) -> web.StreamResponse:
        """The log as it is."""
        text = await self._consoles.show(request.project, _name(request), caller=request.caller)
        return web.Response(body=text, headers=_LOG_HEADERS)

    async def clear(self, request: Request) -> web.StreamResponse:
        """Forget the log."""
        await self._consoles.clear(request.project, _name(request), caller=request.caller)
        return response.empty()


def _name(request: Request) -> str:
    return names.instance(request.path("name"))
