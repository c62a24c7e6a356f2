"""/1.0/instances/NAME/wait: until it is ready."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.services.instances.wait import WaitService


class WaitRoutes:
    """The route of waiting."""

    def __init__(self, waits: WaitService) -> None:
        self._waits = waits

    def table(self) -> Sequence[Route]:
        path, body = "/1.0/instances/{name}/wait", schema.InstanceWaitPost
        return (Route("POST", path, self.start, Access.PROJECT, "Wait until an instance is ready", body, is_async=True),)

    async def start(self, request: Request) -> web.StreamResponse:
        """The operation ends when all conditions were met."""
        body = await request.body(schema.InstanceWaitPost)
        name = names.instance(request.path("name"))
        operation = await self._waits.start(request.project, name, body.for_, timeout=body.timeout, caller=request.caller)
        return response.operation(operation)
