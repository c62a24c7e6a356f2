"""/1.0/storage-pools/POOL/volumes/custom/NAME/backups."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.snapshots import expiry
from atoll.api.schema import objects as schema
from atoll.api.schema.common import Rename
from atoll.domain import clock, entities, names
from atoll.domain.errors import BadRequest
from atoll.services.backup_records import Order
from atoll.services.events import with_project
from atoll.services.storage import volume_path
from atoll.services.volume_backups import VolumeBackups
from atoll.services.volumes import CUSTOM, VolumeService


class VolumeBackupRoutes:
    """Routes of a custom volume's backups."""

    def __init__(self, volumes: VolumeService, backups: VolumeBackups) -> None:
        self._volumes = volumes
        self._backups = backups

    def table(self) -> Sequence[Route]:
        """The routes."""
        base = "/1.0/storage-pools/{pool}/volumes/{type}/{volume}/backups"
        one = f"{base}/{{backup}}"
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List backups of a volume", result=list[schema.VolumeBackup]),
            Route("POST", base, self.create, Access.PROJECT, "Back up a volume", schema.VolumeBackupsPost, is_async=True),
            Route("GET", one, self.get, Access.PROJECT, "Get a backup of a volume", result=schema.VolumeBackup),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a backup of a volume", Rename, is_async=True),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a backup of a volume", is_async=True),
            Route("GET", f"{one}/export", self.export, Access.PROJECT, "Download a backup of a volume"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Oldest first."""
        volume = await self._find(request)
        found = await self._backups.find_all(volume)
        base = volume_path(volume.pool, CUSTOM, f"{volume.name}/backups")
        return listing.answer(
            request, found, url=lambda each: with_project(f"{base}/{each.name}", volume.project), render=_backup
        )

    async def get(self, request: Request) -> web.StreamResponse:
        """One."""
        return response.sync(_backup(await self._backups.find(await self._find(request), _name(request))))

    async def create(self, request: Request) -> web.StreamResponse:
        """Of the volume as it is now."""
        body = await request.body(schema.VolumeBackupsPost)
        order = Order(
            name=body.name,
            expires_at="" if body.expires_at is None else expiry(body.expires_at),
            alone=body.volume_only,
            compression=body.compression_algorithm,
            optimized=body.optimized_storage,
        )
        return response.operation(await self._backups.create(await self._find(request), order, caller=request.caller))

    async def rename(self, request: Request) -> web.StreamResponse:
        """Give it another name."""
        body = await request.body(Rename)
        volume = await self._find(request)
        return response.operation(await self._backups.rename(volume, _name(request), body.name, caller=request.caller))

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove it."""
        volume = await self._find(request)
        return response.operation(await self._backups.delete(volume, _name(request), caller=request.caller))

    async def export(self, request: Request) -> web.StreamResponse:
        """The file; the kernel sends it."""
        path = await self._backups.file(await self._find(request), _name(request), caller=request.caller)
        headers = {"Content-Disposition": "inline;filename=backup.tar", "Content-Type": "application/octet-stream"}
        return web.FileResponse(path, headers=headers)

    async def _find(self, request: Request) -> entities.StorageVolume:
        """The volume. BadRequest for one of a type that has no backups."""
        if (type := request.path("type")) != CUSTOM:
            raise BadRequest(f"Invalid storage volume type {type[:40]!r}: only custom volumes have backups")
        pool, name = names.storage_pool(request.path("pool")), names.volume(request.path("volume"))
        return await self._volumes.find(pool, request.project, CUSTOM, name)


def _name(request: Request) -> str:
    return names.backup(request.path("backup"))


def _backup(found: entities.VolumeBackup) -> schema.VolumeBackup:
    return schema.VolumeBackup(
        name=found.name,
        created_at=found.created_at,
        expires_at=clock.shown(found.expires_at),
        volume_only=found.volume_only,
        optimized_storage=found.optimized_storage,
    )
