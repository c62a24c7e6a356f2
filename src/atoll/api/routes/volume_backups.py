"""/1.0/storage-pools/POOL/volumes/custom/NAME/backups."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import expiry, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.api.schema.common import Rename
from atoll.domain import clock, entities, names
from atoll.domain.errors import BadRequest
from atoll.services.backup_records import Order
from atoll.services.volume_backups import VolumeBackups
from atoll.services.volume_urls import volume_path
from atoll.services.volumes import CUSTOM, VolumeService


class VolumeBackupRoutes:
    """Routes of a custom volume's backups."""

    def __init__(self, volumes: VolumeService, backups: VolumeBackups) -> None:
        self._volumes = volumes
        self._backups = backups

    def table(self) -> Sequence[Route]:
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
        """Oldest first; URLs do not say the project, as in LXD."""
        volume = await self._find(request)
        found = await self._backups.find_all(volume)
        base = volume_path(volume.pool, CUSTOM, f"{volume.name}/backups")
        return listing.answer(request, found, url=lambda each: f"{base}/{each.name}", render=_render)

    async def get(self, request: Request) -> web.StreamResponse:
        return response.sync(_render(await self._backups.find(await self._find(request), _backup(request))))

    async def create(self, request: Request) -> web.StreamResponse:
        """Of the volume as it is now."""
        body = await request.body(schema.VolumeBackupsPost)
        order = Order(
            name=body.name,
            expires_at=expiry.read(body.expires_at),
            alone=body.volume_only,
            compression=body.compression_algorithm,
            optimized=body.optimized_storage,
        )
        volume = await self._find(request)
        return response.operation(await self._backups.create(volume, order, asking=request.project, caller=request.caller))

    async def rename(self, request: Request) -> web.StreamResponse:
        body = await request.body(Rename)
        volume = await self._find(request)
        operation = await self._backups.rename(volume, _backup(request), body.name, asking=request.project, caller=request.caller)
        return response.operation(operation)

    async def delete(self, request: Request) -> web.StreamResponse:
        volume = await self._find(request)
        backup = _backup(request)
        return response.operation(await self._backups.delete(volume, backup, asking=request.project, caller=request.caller))

    async def export(self, request: Request) -> web.StreamResponse:
        """The file; the kernel sends it."""
        path = await self._backups.file(await self._find(request), _backup(request), caller=request.caller)
        return response.backup(path)

    async def _find(self, request: Request) -> entities.StorageVolume:
        """The volume. BadRequest for one of a type that has no backups."""
        if (type := request.path("type")) != CUSTOM:
            raise BadRequest(f"Invalid storage volume type {type[:40]!r}: only custom volumes have backups")
        pool, name = names.storage_pool(request.path("pool")), names.volume(request.path("volume"))
        return await self._volumes.find(pool, request.project, CUSTOM, name)


def _backup(request: Request) -> str:
    return names.backup(request.path("backup"))


def _render(found: entities.VolumeBackup) -> schema.VolumeBackup:
    return schema.VolumeBackup(
        name=found.name,
        created_at=found.created_at,
        expires_at=clock.shown(found.expires_at),
        volume_only=found.volume_only,
        optimized_storage=found.optimized_storage,
    )
