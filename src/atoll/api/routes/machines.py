"""What is done with machines: state, exec, logs, and the state of all at once."""

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
from atoll.services.instances.exec import ExecService
from atoll.services.instances.exec_run import Command
from atoll.services.instances.logs import LogService
from atoll.services.instances.query import InstanceQuery
from atoll.services.instances.state import DEFAULT_STOP_SECONDS, InstanceRunner


class MachineRoutes:
    """Routes below an instance, and PUT of all."""

    def __init__(self, query: InstanceQuery, runner: InstanceRunner, exec_: ExecService, logs: LogService) -> None:
        self._query = query
        self._runner = runner
        self._exec = exec_
        self._logs = logs

    def table(self) -> Sequence[Route]:
        """The routes."""
        base = "/1.0/instances/{name}"
        put_all, put, post = schema.InstancesStatePut, schema.InstanceStatePut, schema.InstanceExecPost
        log = f"{base}/logs/{{file}}"
        return (
            Route("PUT", "/1.0/instances", self.put_all, Access.PROJECT, "Change the state of all", put_all, is_async=True),
            Route("GET", f"{base}/state", self.get, Access.PROJECT, "Get the state", result=schema.InstanceState),
            Route("PUT", f"{base}/state", self.put, Access.PROJECT, "Change the state", put, is_async=True),
            Route("POST", f"{base}/exec", self.exec, Access.PROJECT, "Run a command", post, is_async=True),
            Route("GET", f"{base}/logs", self.logs, Access.PROJECT, "List log files", result=list[str]),
            Route("GET", log, self.log, Access.PROJECT, "Get a log file", result=bytes),
            Route("DELETE", log, self.delete_log, Access.PROJECT, "Delete a log file"),
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

    async def exec(self, request: Request) -> web.StreamResponse:
        """Run a command."""
        body = await request.body(schema.InstanceExecPost)
        command = Command(
            command=body.command or (),
            environment=body.environment or {},
            user=body.user,
            group=body.group,
            cwd=body.cwd,
            interactive=body.interactive,
            width=body.width,
            height=body.height,
            websockets=body.wait_for_websocket,
            record=body.record_output,
        )
        return response.operation(await self._exec.start(request.project, _name(request), command, caller=request.caller))

    async def logs(self, request: Request) -> web.StreamResponse:
        """URLs of an instance's log files."""
        name = _name(request)
        files = await self._logs.find_all(request.project, name)
        return response.sync([f"/1.0/instances/{name}/logs/{file}" for file in files])

    async def log(self, request: Request) -> web.StreamResponse:
        """A log file as it is."""
        path = await self._logs.find(request.project, _name(request), request.path("file"))
        return web.FileResponse(path, headers={"Content-Type": "application/octet-stream"})

    async def delete_log(self, request: Request) -> web.StreamResponse:
        """Delete a log file that is not being written."""
        await self._logs.delete(request.project, _name(request), request.path("file"), caller=request.caller)
        return response.empty()


def _name(request: Request) -> str:
    return names.instance(request.path("name"))


def _change(body: schema.InstanceStatePut) -> dict[str, Any]:
    try:
        action = StateAction(body.action)
    except ValueError as error:
        raise BadRequest(f"action: unknown state action {body.action[:40]!r}") from error
    timeout = float(body.timeout) if body.timeout else DEFAULT_STOP_SECONDS
    return {"action": action, "timeout": timeout, "force": body.force}
