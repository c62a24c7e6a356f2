"""/1.0/instances/NAME/exec."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.services.instances.exec import ExecService
from atoll.services.instances.exec_run import Command


class ExecRoutes:
    """The route by which commands run in instances."""

    def __init__(self, exec_: ExecService) -> None:
        self._exec = exec_

    def table(self) -> Sequence[Route]:
        path, post = "/1.0/instances/{name}/exec", schema.InstanceExecPost
        return (Route("POST", path, self.exec, Access.PROJECT, "Run a command", post, is_async=True),)

    async def exec(self, request: Request) -> web.StreamResponse:
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
        return response.operation(
            await self._exec.start(request.project, names.instance(request.path("name")), command, caller=request.caller)
        )
