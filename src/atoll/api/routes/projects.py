"""/1.0/projects."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.api.schema.common import DescriptionConfig, Rename
from atoll.domain import entities, names
from atoll.domain.errors import Forbidden
from atoll.services.projects import ProjectService

_RENAME_SECONDS = 1.0
"""How long the answer waits for the new name to be there: pylxd asks for it without waiting for the operation."""


class ProjectRoutes:
    """Routes of projects."""

    def __init__(self, projects: ProjectService) -> None:
        self._projects = projects

    def table(self) -> Sequence[Route]:
        one, change = "/1.0/projects/{name}", DescriptionConfig
        return (
            Route("GET", "/1.0/projects", self.list_, Access.TRUSTED, "List projects", result=list[schema.Project]),
            Route("POST", "/1.0/projects", self.create, Access.ADMIN, "Create a project", schema.ProjectsPost),
            Route("GET", one, self.get, Access.TRUSTED, "Get a project", result=schema.Project),
            Route("PUT", one, self.put, Access.ADMIN, "Replace a project", change),
            Route("PATCH", one, self.patch, Access.ADMIN, "Change a project", change),
            Route("POST", one, self.rename, Access.ADMIN, "Rename a project", Rename, is_async=True),
            Route("DELETE", one, self.delete, Access.ADMIN, "Delete a project"),
            Route("GET", f"{one}/state", self.state, Access.TRUSTED, "Get a project's use of its limits", result=dict),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Those that the caller may use."""
        found = [p for p in await self._projects.find_all() if request.caller.may_use(p.name)]
        used = {p.name: await self._projects.used_by(p) for p in found} if request.recursion else {}
        return listing.answer(
            request, found, url=lambda p: f"/1.0/projects/{p.name}", render=lambda p: _project(p, used.get(p.name, []))
        )

    async def _find(self, request: Request) -> entities.Project:
        name = names.project(request.path("name"))
        if not request.caller.may_use(name):
            raise Forbidden("Not authorized")
        return await self._projects.find(name)

    async def get(self, request: Request) -> web.StreamResponse:
        project = await self._find(request)
        used = await self._projects.used_by(project)
        return response.sync(_project(project, used), etag=[project.description, project.config])

    async def create(self, request: Request) -> web.StreamResponse:
        body = await request.body(schema.ProjectsPost)
        await self._projects.create(body.name, body.description, body.config or {}, caller=request.caller)
        return response.created(f"/1.0/projects/{body.name}")

    async def put(self, request: Request) -> web.StreamResponse:
        body = await request.body(DescriptionConfig)
        project = await self._find(request)
        request.check_etag([project.description, project.config])
        await self._projects.update(project.name, *body.replacing(), caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(DescriptionConfig)
        project = await self._find(request)
        request.check_etag([project.description, project.config])
        changed = body.changing(project.description, project.config)
        await self._projects.update(project.name, *changed, caller=request.caller)
        return response.empty()

    async def rename(self, request: Request) -> web.StreamResponse:
        body = await request.body(Rename)
        project = await self._find(request)
        operation = await self._projects.rename_later(project.name, body.name, caller=request.caller)
        await operation.wait(_RENAME_SECONDS)
        return response.operation(operation)

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an empty one."""
        project = await self._find(request)
        await self._projects.delete(project.name, caller=request.caller)
        return response.empty()

    async def state(self, request: Request) -> web.StreamResponse:
        """Numbers against limits."""
        project = await self._find(request)
        return response.sync({"resources": await self._projects.resources(project)})


def _project(project: entities.Project, used_by: list[str]) -> schema.Project:
    return schema.Project(project.name, project.description, dict(project.config), used_by)
