"""/1.0/instances/NAME/logs."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.domain import names
from atoll.services.instances.logs import LogService


class LogRoutes:
    """Routes of an instance's log files."""

    def __init__(self, logs: LogService) -> None:
        self._logs = logs

    def table(self) -> Sequence[Route]:
        base = "/1.0/instances/{name}/logs"
        one = f"{base}/{{file}}"
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List log files", result=list[str]),
            Route("GET", one, self.get, Access.PROJECT, "Get a log file", result=bytes),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a log file"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """URLs of an instance's log files."""
        name = _name(request)
        files = await self._logs.find_all(request.project, name)
        return response.sync([f"/1.0/instances/{name}/logs/{file}" for file in files])

    async def get(self, request: Request) -> web.StreamResponse:
        """A log file as it is."""
        path = await self._logs.retrieve(request.project, _name(request), request.path("file"), caller=request.caller)
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def delete(self, request: Request) -> web.StreamResponse:
        """Delete a log file that is not being written."""
        await self._logs.delete(request.project, _name(request), request.path("file"), caller=request.caller)
        return response.empty()


def _name(request: Request) -> str:
    return names.instance(request.path("name"))
