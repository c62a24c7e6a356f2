"""/1.0/storage-pools/POOL/volumes/TYPE/NAME/snapshots."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import expiry, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes import volume_views
from atoll.api.routes.volume_migrations import VolumeMigrations
from atoll.api.schema import objects as schema
from atoll.domain import clock, entities, names
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.volume_snapshots import VolumeSnapshots
from atoll.services.volume_urls import volume_path, volume_url
from atoll.services.volumes import CUSTOM, VolumeService


class VolumeSnapshotRoutes:
    """Routes of a volume's snapshots."""

    def __init__(
        self,
        volumes: VolumeService,
        snapshots: VolumeSnapshots,
        migrations: VolumeMigrations,
        operations: OperationRegistry,
    ) -> None:
        self._volumes = volumes
        self._snapshots = snapshots
        self._migrations = migrations
        self._operations = operations

    def table(self) -> Sequence[Route]:
        base = "/1.0/storage-pools/{pool}/volumes/{type}/{volume}/snapshots"
        one = f"{base}/{{snapshot}}"
        put = schema.VolumeSnapshotPut
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List snapshots", result=list[schema.VolumeSnapshot]),
            Route("POST", base, self.create, Access.PROJECT, "Create a snapshot", schema.VolumeSnapshotsPost, is_async=True),
            Route("GET", one, self.get, Access.PROJECT, "Get a snapshot", result=schema.VolumeSnapshot),
            Route("PUT", one, self.put, Access.PROJECT, "Replace a snapshot's settings", put),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a snapshot", put),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a snapshot", schema.VolumePost, is_async=True),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a snapshot", is_async=True),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Oldest first; URLs do not say the project, as in LXD."""
        volume = await self._find(request)
        found = await self._volumes.snapshots(volume)

        def url(snapshot: entities.VolumeSnapshot) -> str:
            return volume_path(volume.pool, volume.type, f"{volume.name}/snapshots/{snapshot.name}")

        return listing.answer(request, found, url=url, render=lambda s: volume_views.one_of_snapshots(volume, s))

    async def get(self, request: Request) -> web.StreamResponse:
        volume = await self._find(request)
        found = await self._volumes.find_snapshot(volume, _snapshot(request))
        return response.sync(volume_views.snapshot(volume, found), etag=[found.description, found.expires_at])

    async def create(self, request: Request) -> web.StreamResponse:
        """Of the volume as it is now."""
        body = await request.body(schema.VolumeSnapshotsPost)
        volume = volume_views.custom(await self._find(request))
        if body.name:
            await self._snapshots.require_free(volume, names.snapshot(body.name))
        expires_at = None if body.expires_at is None else expiry.read(body.expires_at)

        async def work(_: Operation) -> None:
            await self._snapshots.create(
                volume,
                body.name,
                description=body.description,
                expires_at=expires_at,
                caller=request.caller,
            )

        return self._start(request, "Creating storage volume snapshot", volume, work)

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace description and expiry; without one it is kept for ever."""
        body = await request.body(schema.VolumeSnapshotPut)
        return await self._change(request, body.description or "", body.expires_at or clock.NEVER)

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(schema.VolumeSnapshotPut)
        return await self._change(request, body.description, body.expires_at)

    async def _change(self, request: Request, description: str | None, expires_at: str | None) -> web.StreamResponse:
        """None stays as it is; so does the expiry of an instance's, which is that of its snapshot."""
        volume = await self._find(request)
        found = await self._volumes.find_snapshot(volume, _snapshot(request))
        request.check_etag([found.description, found.expires_at])
        await self._snapshots.update(
            volume,
            found.name,
            description=found.description if description is None else description,
            expires_at=found.expires_at if expires_at is None or volume.type != CUSTOM else expiry.read(expires_at),
            caller=request.caller,
        )
        return response.empty()

    async def rename(self, request: Request) -> web.StreamResponse:
        """Give it another name, or send it to another server."""
        body = await request.body(schema.VolumePost)
        volume = volume_views.custom(await self._find(request))
        name = _snapshot(request)
        if body.migration:
            return response.operation(await self._migrations.send(request, volume, body, snapshot=name))
        await self._volumes.find_snapshot(volume, name)
        await self._snapshots.require_free(volume, names.snapshot(body.name))

        async def work(_: Operation) -> None:
            await self._snapshots.rename(volume, name, body.name, caller=request.caller)

        return self._start(request, "Renaming storage volume snapshot", volume, work)

    async def delete(self, request: Request) -> web.StreamResponse:
        volume = volume_views.custom(await self._find(request))
        name = _snapshot(request)
        await self._volumes.find_snapshot(volume, name)

        async def work(_: Operation) -> None:
            await self._snapshots.delete(volume, name, caller=request.caller)

        return self._start(request, "Deleting storage volume snapshot", volume, work)

    async def _find(self, request: Request) -> entities.StorageVolume:
        return await volume_views.find(request, self._volumes)

    def _start(self, request: Request, what: str, volume: entities.StorageVolume, work: Work) -> web.StreamResponse:
        resources = {"storage_volumes": [volume_url(volume.pool, volume.type, volume.name, volume.project)]}
        spec = OperationSpec(what, work, project=request.project, resources=resources, caller=request.caller)
        return response.operation(self._operations.start(spec))


def _snapshot(request: Request) -> str:
    return names.snapshot(request.path("snapshot"))
