"""/1.0/instances/NAME/state, and the state of all instances at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from atoll.api import render, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.domain.errors import BadRequest
from atoll.domain.status import StateAction
from atoll.services.instances.query import InstanceQuery
from atoll.services.instances.state import DEFAULT_STOP_SECONDS, InstanceRunner


class InstanceStateRoutes:
    """Routes that show and change whether instances run."""

    def __init__(self, query: InstanceQuery, runner: InstanceRunner) -> None:
        self._query = query
        self._runner = runner

    def table(self) -> Sequence[Route]:
        path = "/1.0/instances/{name}/state"
        put_all, put = schema.InstancesStatePut, schema.InstanceStatePut
        return (
            Route("PUT", "/1.0/instances", self.put_all, Access.PROJECT, "Change the state of all", put_all, is_async=True),
            Route("GET", path, self.get, Access.PROJECT, "Get the state", result=schema.InstanceState),
            Route("PUT", path, self.put, Access.PROJECT, "Change the state", put, is_async=True),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        """Figures of one."""
        loaded = await self._query.find(request.project, _name(request))
        state, disk = await self._query.state(loaded)
        return response.sync(render.state(state, disk))

    async def put(self, request: Request) -> web.StreamResponse:
        """Start, stop, restart, freeze, unfreeze one."""
        body = await request.body(schema.InstanceStatePut)
        operation = await self._runner.change(
            request.project, _name(request), **_change(body), stateful=body.stateful, caller=request.caller
        )
        return response.operation(operation)

    async def put_all(self, request: Request) -> web.StreamResponse:
        """The same for all of a project that it makes sense for."""
        body = await request.body(schema.InstancesStatePut)
        if body.state is None:
            raise BadRequest("state: must be given")
        operation = await self._runner.change_all(request.project, **_change(body.state), caller=request.caller)
        return response.operation(operation)


def _name(request: Request) -> str:
    return names.instance(request.path("name"))


def _change(body: schema.InstanceStatePut) -> dict[str, Any]:
    try:
        action = StateAction(body.action)
    except ValueError as error:
        raise BadRequest(f"action: unknown state action {body.action[:40]!r}") from error
    timeout = float(body.timeout) if body.timeout else DEFAULT_STOP_SECONDS
    return {"action": action, "timeout": timeout, "force": body.force}
