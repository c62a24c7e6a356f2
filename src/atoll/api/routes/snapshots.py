"""/1.0/instances/NAME/snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import expiry, listing, render, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.instance_migrations import InstanceMigrations
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.services.events import with_project
from atoll.services.instances.core import InstanceCore
from atoll.services.instances.snapshots import Order, SnapshotService


class SnapshotRoutes:
    """Routes of an instance's snapshots."""

    def __init__(self, core: InstanceCore, snapshots: SnapshotService, migrations: InstanceMigrations) -> None:
        self._core = core
        self._snapshots = snapshots
        self._migrations = migrations

    def table(self) -> Sequence[Route]:
        base = "/1.0/instances/{name}/snapshots"
        one = f"{base}/{{snapshot}}"
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List snapshots", result=list[schema.SnapshotInfo]),
            Route("POST", base, self.create, Access.PROJECT, "Create a snapshot", schema.SnapshotsPost, is_async=True),
            Route("GET", one, self.get, Access.PROJECT, "Get a snapshot", result=schema.SnapshotInfo),
            Route("PUT", one, self.put, Access.PROJECT, "Change a snapshot's expiry", schema.SnapshotPut, is_async=True),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a snapshot's expiry", schema.SnapshotPut, is_async=True),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a snapshot", schema.InstancePost, is_async=True),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a snapshot", is_async=True),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Oldest first."""
        loaded, found = await self._snapshots.find_all(request.project, _name(request))
        base = f"/1.0/{request.family or 'instances'}/{loaded.record.name}/snapshots"
        sizes = await self._snapshots.sizes(loaded, found) if request.recursion else {}
        return listing.answer(
            request,
            found,
            url=lambda each: with_project(f"{base}/{each.name}", loaded.record.project),
            render=lambda each: render.snapshot(each, loaded, size=sizes.get(each.name)),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        loaded, found = await self._core.load_snapshot(request.project, _name(request), _snapshot(request))
        sizes = await self._snapshots.sizes(loaded, [found])
        return response.sync(render.snapshot(found, loaded, size=sizes.get(found.name)), etag=[found.expires_at])

    async def create(self, request: Request) -> web.StreamResponse:
        """Of the instance as it is now."""
        body = await request.body(schema.SnapshotsPost)
        order = Order(
            name=body.name,
            expires_at=None if body.expires_at is None else expiry.read(body.expires_at),
            stateful=body.stateful,
        )
        operation = await self._snapshots.create(request.project, _name(request), order, caller=request.caller)
        return response.operation(operation)

    async def put(self, request: Request) -> web.StreamResponse:
        """Change when it expires; without a time, or with Go's zero time, it never does."""
        return await self._update(request, keep=False)

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change when it expires, if that is given."""
        return await self._update(request, keep=True)

    async def _update(self, request: Request, *, keep: bool) -> web.StreamResponse:
        body = await request.body(schema.SnapshotPut)
        _, found = await self._core.load_snapshot(request.project, _name(request), _snapshot(request))
        request.check_etag([found.expires_at])
        expires_at = found.expires_at if keep and body.expires_at is None else expiry.read(body.expires_at)
        operation = await self._snapshots.update_later(
            request.project, _name(request), found.name, expires_at=expires_at, caller=request.caller
        )
        return response.operation(operation)

    async def rename(self, request: Request) -> web.StreamResponse:
        """Give it another name, or offer it to another server."""
        body = await request.body(schema.InstancePost)
        if body.migration:
            sent = await self._migrations.send(request, _name(request), body, snapshot=_snapshot(request))
            return response.operation(sent)
        operation = await self._snapshots.rename(
            request.project, _name(request), _snapshot(request), body.name, caller=request.caller
        )
        return response.operation(operation)

    async def delete(self, request: Request) -> web.StreamResponse:
        operation = await self._snapshots.delete(request.project, _name(request), _snapshot(request), caller=request.caller)
        return response.operation(operation)


def _name(request: Request) -> str:
    return names.instance(request.path("name"))


def _snapshot(request: Request) -> str:
    return names.snapshot(request.path("snapshot"))
