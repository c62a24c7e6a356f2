"""/1.0/storage-pools/POOL/volumes."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.snapshots import expiry
from atoll.api.schema import objects as schema
from atoll.domain import clock, entities, names
from atoll.domain.errors import BadRequest, Unsupported
from atoll.services.events import with_project
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.volumes import CUSTOM, VolumeService


class VolumeRoutes:
    """Routes of storage volumes and their snapshots."""

    def __init__(self, volumes: VolumeService, operations: OperationRegistry) -> None:
        self._volumes = volumes
        self._operations = operations

    def table(self) -> Sequence[Route]:
        """The routes."""
        base = "/1.0/storage-pools/{pool}/volumes"
        one = f"{base}/{{type}}/{{volume}}"
        snapshots = f"{one}/snapshots"
        snapshot = f"{snapshots}/{{snapshot}}"
        put, taken_put = schema.VolumePut, schema.VolumeSnapshotPut
        return (
            Route("GET", base, self.list_, Access.PROJECT, "List volumes", result=list[schema.Volume]),
            Route("POST", base, self.create, Access.PROJECT, "Create a custom volume", schema.VolumesPost),
            Route("GET", f"{base}/{{type}}", self.list_, Access.PROJECT, "List volumes of a type", result=list[schema.Volume]),
            Route("POST", f"{base}/{{type}}", self.create, Access.PROJECT, "Create a volume", schema.VolumesPost),
            Route("GET", one, self.get, Access.PROJECT, "Get a volume", result=schema.Volume),
            Route("PUT", one, self.put, Access.PROJECT, "Replace or restore a volume", put),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a volume", put),
            Route("POST", one, self.post, Access.PROJECT, "Rename a volume", schema.VolumePost),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a volume"),
            Route("GET", f"{one}/state", self.state, Access.PROJECT, "Get a volume's use of space", result=dict),
            Route("GET", snapshots, self.snapshots, Access.PROJECT, "List snapshots", result=list[schema.VolumeSnapshot]),
            Route("POST", snapshots, self.snap, Access.PROJECT, "Create a snapshot", schema.VolumeSnapshotsPost, is_async=True),
            Route("GET", snapshot, self.get_snapshot, Access.PROJECT, "Get a snapshot", result=schema.VolumeSnapshot),
            Route("PUT", snapshot, self.put_snapshot, Access.PROJECT, "Change a snapshot", taken_put),
            Route("PATCH", snapshot, self.put_snapshot, Access.PROJECT, "Change a snapshot", taken_put),
            Route("POST", snapshot, self.rename_snapshot, Access.PROJECT, "Rename a snapshot", schema.VolumePost, is_async=True),
            Route("DELETE", snapshot, self.delete_snapshot, Access.PROJECT, "Delete a snapshot", is_async=True),
        )

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def list_(self, request: Request) -> web.StreamResponse:
        """Of a pool and project, of one type or all; snapshots are listed beside custom volumes, as LXD does."""
        kind = request.raw.match_info.get("type")
        found = await self._volumes.find_all(_pool(request), request.scope, kind)
        found = [v for v in found if v.type == "image" or request.caller.may_use(v.project)]
        used = await self._volumes.used_by_all(found) if request.recursion else {}
        return listing.answer(request, found, url=_url, render=lambda v: _volume(v, request.visible(used.get(v.id, []))))

    async def get(self, request: Request) -> web.StreamResponse:
        """One."""
        volume = await self._find(request)
        return response.sync(_volume(volume, request.visible(await self._volumes.used_by(volume))), etag=_tag(volume))

    async def create(self, request: Request) -> web.StreamResponse:
        """An empty custom volume."""
        body = await request.body(schema.VolumesPost)
        if (request.raw.match_info.get("type") or body.type or CUSTOM) != CUSTOM:
            raise BadRequest("type: only custom volumes can be created here")
        if body.source and body.source.get("name"):
            raise Unsupported("Copying volumes is not supported in this release")
        pool = _pool(request)
        await self._volumes.create(
            pool,
            request.project,
            body.name,
            content_type=body.content_type,
            description=body.description,
            config=body.config or {},
            caller=request.caller,
        )
        return response.created(f"/1.0/storage-pools/{pool}/volumes/custom/{body.name}")

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace, or restore a snapshot."""
        body = await request.body(schema.VolumePut)
        volume = await self._find(request)
        request.check_etag(_tag(volume))
        if body.restore:
            await self._volumes.restore(_custom(volume), body.restore, caller=request.caller)
        else:
            await self._volumes.update(volume, body.description or "", body.config or {}, caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(schema.VolumePut)
        volume = await self._find(request)
        request.check_etag(_tag(volume))
        description = volume.description if body.description is None else body.description
        await self._volumes.update(volume, description, {**volume.config, **(body.config or {})}, caller=request.caller)
        return response.empty()

    async def post(self, request: Request) -> web.StreamResponse:
        """Give it another name."""
        body = await request.body(schema.VolumePost)
        volume = _custom(await self._find(request))
        if body.migration or body.pool not in ("", volume.pool) or body.project not in ("", volume.project):
            raise Unsupported("Moving volumes is not supported in this release")
        await self._volumes.rename(volume, body.name, caller=request.caller)
        return response.created(f"/1.0/storage-pools/{volume.pool}/volumes/custom/{body.name}")

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one with its snapshots."""
        await self._volumes.delete(await self._find(request), caller=request.caller)
        return response.empty()

    async def state(self, request: Request) -> web.StreamResponse:
        """Bytes used."""
        used = await self._volumes.usage(await self._find(request))
        return response.sync({"usage": {"used": used}} if used is not None else {"usage": None})

    async def _find(self, request: Request) -> entities.StorageVolume:
        return await self._volumes.find(
            _pool(request), request.project, request.path("type"), names.volume(request.path("volume"))
        )

    # --- snapshots -----------------------------------------------------------------------------------------------------

    async def snapshots(self, request: Request) -> web.StreamResponse:
        """Oldest first."""
        volume = await self._find(request)
        found = await self._volumes.snapshots(volume)
        base = f"/1.0/storage-pools/{volume.pool}/volumes/{volume.type}/{volume.name}/snapshots"
        return listing.answer(
            request,
            found,
            url=lambda s: with_project(f"{base}/{s.name}", volume.project),
            render=lambda s: _snapshot(volume, s),
        )

    async def get_snapshot(self, request: Request) -> web.StreamResponse:
        """One."""
        volume = await self._find(request)
        found = await self._volumes.find_snapshot(volume, _snapshot_name(request))
        return response.sync(_snapshot(volume, found), etag=[found.description, found.expires_at])

    async def snap(self, request: Request) -> web.StreamResponse:
        """Of the volume as it is now."""
        body = await request.body(schema.VolumeSnapshotsPost)
        volume = _custom(await self._find(request))
        if body.name:
            names.snapshot(body.name)

        async def work(_: Operation) -> None:
            await self._volumes.create_snapshot(
                volume,
                body.name,
                description=body.description,
                expires_at=expiry(body.expires_at),
                caller=request.caller,
            )

        return self._start(request, "Snapshotting storage volume", volume, work)

    async def put_snapshot(self, request: Request) -> web.StreamResponse:
        """Change description and expiry."""
        body = await request.body(schema.VolumeSnapshotPut)
        volume = await self._find(request)
        found = await self._volumes.find_snapshot(volume, _snapshot_name(request))
        request.check_etag([found.description, found.expires_at])
        await self._volumes.update_snapshot(
            volume,
            found.name,
            description=found.description if body.description is None else body.description,
            expires_at=found.expires_at if body.expires_at is None else expiry(body.expires_at),
            caller=request.caller,
        )
        return response.empty()

    async def rename_snapshot(self, request: Request) -> web.StreamResponse:
        """Give it another name."""
        body = await request.body(schema.VolumePost)
        volume = _custom(await self._find(request))
        name = _snapshot_name(request)
        await self._volumes.find_snapshot(volume, name)

        async def work(_: Operation) -> None:
            await self._volumes.rename_snapshot(volume, name, body.name, caller=request.caller)

        return self._start(request, "Renaming storage volume snapshot", volume, work)

    async def delete_snapshot(self, request: Request) -> web.StreamResponse:
        """Remove it."""
        volume = _custom(await self._find(request))
        name = _snapshot_name(request)
        await self._volumes.find_snapshot(volume, name)

        async def work(_: Operation) -> None:
            await self._volumes.delete_snapshot(volume, name, caller=request.caller)

        return self._start(request, "Deleting storage volume snapshot", volume, work)

    def _start(self, request: Request, what: str, volume: entities.StorageVolume, work: Work) -> web.StreamResponse:
        resources = {"storage_volumes": [_url(volume)]}
        spec = OperationSpec(what, work, project=volume.project, resources=resources, caller=request.caller)
        return response.operation(self._operations.start(spec))


def _pool(request: Request) -> str:
    return names.storage_pool(request.path("pool"))


def _snapshot_name(request: Request) -> str:
    return names.snapshot(request.path("snapshot"))


def _custom(volume: entities.StorageVolume) -> entities.StorageVolume:
    if volume.type != CUSTOM:
        raise BadRequest(f"Storage volumes of type {volume.type!r} are managed with what they belong to")
    return volume


def _tag(volume: entities.StorageVolume) -> list[object]:
    return [volume.name, volume.type, volume.config]


def _url(volume: entities.StorageVolume) -> str:
    return with_project(f"/1.0/storage-pools/{volume.pool}/volumes/{volume.type}/{volume.name}", volume.project)


def _volume(volume: entities.StorageVolume, used_by: list[str]) -> schema.Volume:
    return schema.Volume(
        name=volume.name,
        type=volume.type,
        content_type=volume.content_type,
        description=volume.description,
        config=dict(volume.config),
        used_by=used_by,
        location=volume.member,
        project=volume.project,
        created_at=volume.created_at or clock.NEVER,
    )


def _snapshot(volume: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.VolumeSnapshot:
    return schema.VolumeSnapshot(
        name=found.name,
        description=found.description,
        config=dict(found.config),
        content_type=volume.content_type,
        expires_at=found.expires_at or clock.NEVER,
        created_at=found.created_at or clock.NEVER,
    )
