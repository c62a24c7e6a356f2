"""/1.0/instances/NAME/backups."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import expiry, listing, render, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import instances as schema
from atoll.api.schema.common import Rename
from atoll.domain import names
from atoll.services.backup_records import Order
from atoll.services.instances.backups import BackupService


class BackupRoutes:
    """Routes of an instance's backups."""

    def __init__(self, backups: BackupService) -> None:
        self._backups = backups

    def table(self) -> Sequence[Route]:
        base = "/1.0/instances/{name}/backups"
        one = f"{base}/{{backup}}"
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List backups", result=list[schema.InstanceBackup]),
            Route("POST", base, self.create, Access.PROJECT, "Create a backup", schema.InstanceBackupsPost, is_async=True),
            Route("GET", one, self.get, Access.PROJECT, "Get a backup", result=schema.InstanceBackup),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a backup", Rename, is_async=True),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a backup", is_async=True),
            Route("GET", f"{one}/export", self.export, Access.PROJECT, "Download a backup"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Oldest first; URLs do not say the project, as in LXD."""
        loaded, found = await self._backups.find_all(request.project, _name(request))
        base = f"/1.0/{request.family or 'instances'}/{loaded.record.name}/backups"
        return listing.answer(request, found, url=lambda each: f"{base}/{each.name}", render=render.backup)

    async def get(self, request: Request) -> web.StreamResponse:
        _, found = await self._backups.find(request.project, _name(request), _backup(request))
        return response.sync(render.backup(found))

    async def create(self, request: Request) -> web.StreamResponse:
        """Of the instance as it is now."""
        body = await request.body(schema.InstanceBackupsPost)
        order = Order(
            name=body.name,
            expires_at=expiry.read(body.expires_at),
            alone=body.instance_only or body.container_only,
            compression=body.compression_algorithm,
            optimized=body.optimized_storage,
        )
        return response.operation(await self._backups.create(request.project, _name(request), order, caller=request.caller))

    async def rename(self, request: Request) -> web.StreamResponse:
        body = await request.body(Rename)
        operation = await self._backups.rename(
            request.project, _name(request), _backup(request), body.name, caller=request.caller
        )
        return response.operation(operation)

    async def delete(self, request: Request) -> web.StreamResponse:
        operation = await self._backups.delete(request.project, _name(request), _backup(request), caller=request.caller)
        return response.operation(operation)

    async def export(self, request: Request) -> web.StreamResponse:
        """The file; the kernel sends it."""
        path = await self._backups.file(request.project, _name(request), _backup(request), caller=request.caller)
        return response.backup(path)


def _name(request: Request) -> str:
    return names.instance(request.path("name"))


def _backup(request: Request) -> str:
    return names.backup(request.path("backup"))
