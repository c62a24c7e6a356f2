"""/1.0/storage-pools/POOL/volumes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aiohttp import web

from atoll.api import image_transfer, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.snapshots import expiry
from atoll.api.schema import objects as schema
from atoll.domain import clock, entities, names
from atoll.domain.errors import BadRequest, Forbidden, Unsupported
from atoll.services.events import with_project
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.storage import volume_url
from atoll.services.volume_backup_import import VolumeImporter, Wish
from atoll.services.volume_copy import Source, Target, VolumeCopier
from atoll.services.volume_move import Destination, VolumeMover
from atoll.services.volumes import CUSTOM, NewVolume, VolumeService


class VolumeRoutes:
    """Routes of storage volumes and their snapshots."""

    def __init__(
        self,
        volumes: VolumeService,
        copier: VolumeCopier,
        mover: VolumeMover,
        importer: VolumeImporter,
        operations: OperationRegistry,
    ) -> None:
        self._volumes = volumes
        self._copier = copier
        self._mover = mover
        self._importer = importer
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
            Route("POST", base, self.create, Access.PROJECT, "Create, copy or import a custom volume", schema.VolumesPost),
            Route("GET", f"{base}/{{type}}", self.list_, Access.PROJECT, "List volumes of a type", result=list[schema.Volume]),
            Route("POST", f"{base}/{{type}}", self.create, Access.PROJECT, "Create, copy or import a volume", schema.VolumesPost),
            Route("GET", one, self.get, Access.PROJECT, "Get a volume", result=schema.Volume),
            Route("PUT", one, self.put, Access.PROJECT, "Replace or restore a volume", put),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a volume", put),
            Route("POST", one, self.post, Access.PROJECT, "Rename or move a volume", schema.VolumePost),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a volume"),
            Route("GET", f"{one}/state", self.state, Access.PROJECT, "Get a volume's use of space", result=dict),
            Route("GET", snapshots, self.snapshots, Access.PROJECT, "List snapshots", result=list[schema.VolumeSnapshot]),
            Route("POST", snapshots, self.snap, Access.PROJECT, "Create a snapshot", schema.VolumeSnapshotsPost, is_async=True),
            Route("GET", snapshot, self.get_snapshot, Access.PROJECT, "Get a snapshot", result=schema.VolumeSnapshot),
            Route("PUT", snapshot, self.put_snapshot, Access.PROJECT, "Replace a snapshot's settings", taken_put),
            Route("PATCH", snapshot, self.patch_snapshot, Access.PROJECT, "Change a snapshot", taken_put),
            Route("POST", snapshot, self.rename_snapshot, Access.PROJECT, "Rename a snapshot", schema.VolumePost, is_async=True),
            Route("DELETE", snapshot, self.delete_snapshot, Access.PROJECT, "Delete a snapshot", is_async=True),
        )

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def list_(self, request: Request) -> web.StreamResponse:
        """Of a pool and project, of one type or all, each with its snapshots behind it, as LXD lists them."""
        kind = request.raw.match_info.get("type")
        found = await self._volumes.find_all(_pool(request), request.scope, kind)
        found = [v for v in found if v.type == "image" or request.caller.may_use(v.project)]
        used = await self._volumes.used_by_all(found) if request.recursion else {}
        snapshots = await self._volumes.snapshots_in(_pool(request))
        listed: list[schema.Volume] = []
        for volume in found:
            listed.append(_volume(volume, request.visible(used.get(volume.id, []))))
            listed += [_listed_snapshot(volume, each) for each in snapshots.get(volume.id, ())]
        return listing.answer(request, listed, url=lambda v: _listed_url(_pool(request), v), render=lambda v: v)

    async def get(self, request: Request) -> web.StreamResponse:
        """One."""
        volume = await self._find(request)
        return response.sync(_volume(volume, request.visible(await self._volumes.used_by(volume))), etag=_tag(volume))

    async def create(self, request: Request) -> web.StreamResponse:
        """An empty custom volume, a copy of another one, or what a backup, which is the body, holds."""
        if request.raw.headers.get("Content-Type") == "application/octet-stream":  # `content_type` would say so of none
            return response.operation(await self._import(request))
        body = await request.body(schema.VolumesPost)
        _require_custom(request.raw.match_info.get("type") or body.type or CUSTOM)
        source = body.source or schema.VolumeSource()
        if source.type not in ("", "none", "copy", "migration"):
            raise BadRequest(f"source.type: unknown source type {source.type[:40]!r}")
        if source.type == "migration":
            raise Unsupported("Migration is not supported in this release")
        if source.name:
            return response.operation(await self._copy(request, body, source))
        pool = _pool(request)
        kind = body.content_type or "filesystem"
        new = NewVolume(pool, request.project, body.name, body.description, body.config or {}, kind)
        await self._volumes.create(new, caller=request.caller)
        return response.created(f"/1.0/storage-pools/{pool}/volumes/custom/{body.name}")

    async def _copy(self, request: Request, body: schema.VolumesPost, source: schema.VolumeSource) -> Operation:
        """A copy, or with `refresh` one that is brought up to date if it is there."""
        name, slash, snapshot = source.name.partition("/")
        subject = Source(
            pool=names.storage_pool(source.pool) if source.pool else _pool(request),
            project=_usable(request, source.project or request.project),
            name=names.volume(name),
            snapshot=names.snapshot(snapshot) if slash else "",
            volume_only=source.volume_only,
        )
        target = Target(_pool(request), request.project, body.name, body.description, body.config, body.content_type)
        if source.refresh and (present := await self._copier.find_target(target)) is not None:
            return await self._copier.refresh(present, subject, caller=request.caller)
        return await self._copier.copy(target, subject, caller=request.caller)

    async def _import(self, request: Request) -> Operation:
        headers = request.raw.headers
        _require_custom(request.raw.match_info.get("type") or CUSTOM)
        if kind := headers.get("X-LXD-type", ""):
            raise Unsupported(f"Volumes cannot be imported from files of type {kind[:40]!r} in this release")
        wish = Wish(_pool(request), request.project, headers.get("X-LXD-name", ""))
        return await self._importer.start(wish, image_transfer.chunks(request.raw), caller=request.caller)

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace, or restore a snapshot."""
        body = await request.body(schema.VolumePut)
        volume = await self._find(request)
        request.check_etag(_tag(volume))
        if body.restore:
            await self._copier.restore(_custom(volume), body.restore, caller=request.caller)
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
        """Give it another name, or move it to another pool or project."""
        body = await request.body(schema.VolumePost)
        volume = _custom(await self._find(request))
        if body.migration:
            raise Unsupported("Migration is not supported in this release")
        owner = await self._volumes.owner(_usable(request, body.project)) if body.project else volume.project
        pool = names.storage_pool(body.pool) if body.pool else volume.pool
        if (pool, owner) == (volume.pool, volume.project):
            await self._mover.rename(volume, body.name, caller=request.caller)
            return response.created(f"/1.0/storage-pools/{volume.pool}/volumes/custom/{body.name}")
        destination = Destination(name=body.name, pool=pool, project=owner, volume_only=body.volume_only)
        return response.operation(await self._mover.move(volume, destination, caller=request.caller))

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one with its snapshots."""
        await self._volumes.delete(await self._find(request), caller=request.caller)
        return response.empty()

    async def state(self, request: Request) -> web.StreamResponse:
        """Bytes used, and the size that it is limited to."""
        volume = await self._find(request)
        used = await self._volumes.usage(volume)
        total = await self._volumes.size(volume) or 0
        return response.sync({"usage": {"used": used, "total": total} if used is not None else None})

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
        expires_at = None if body.expires_at is None else expiry(body.expires_at)

        async def work(_: Operation) -> None:
            await self._volumes.create_snapshot(
                volume,
                body.name,
                description=body.description,
                expires_at=expires_at,
                caller=request.caller,
            )

        return self._start(request, "Snapshotting storage volume", volume, work)

    async def put_snapshot(self, request: Request) -> web.StreamResponse:
        """Replace description and expiry; without one it is kept for ever."""
        body = await request.body(schema.VolumeSnapshotPut)
        return await self._change_snapshot(request, body.description or "", body.expires_at or clock.NEVER)

    async def patch_snapshot(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(schema.VolumeSnapshotPut)
        return await self._change_snapshot(request, body.description, body.expires_at)

    async def _change_snapshot(self, request: Request, description: str | None, expires_at: str | None) -> web.StreamResponse:
        """None stays as it is; so does the expiry of an instance's, which is that of its snapshot."""
        volume = await self._find(request)
        found = await self._volumes.find_snapshot(volume, _snapshot_name(request))
        request.check_etag([found.description, found.expires_at])
        await self._volumes.update_snapshot(
            volume,
            found.name,
            description=found.description if description is None else description,
            expires_at=found.expires_at if expires_at is None or volume.type != CUSTOM else expiry(expires_at),
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


def _require_custom(type: str) -> None:
    if type != CUSTOM:
        raise BadRequest(f"Currently not allowed to create storage volumes of type {type[:40]!r}")


def _usable(request: Request, project: str) -> str:
    if not request.caller.may_use(names.project(project)):
        raise Forbidden("Not authorized")
    return project


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


def _listed_snapshot(volume: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.Volume:
    """A snapshot among volumes; that of an instance's is used by the instance's."""
    owner = volume_url(volume.pool, volume.type, f"{volume.name}/snapshots/{found.name}", volume.project)
    described = dataclasses.replace(
        volume,
        name=f"{volume.name}/{found.name}",
        description=found.description,
        config=found.config,
        created_at=found.created_at,
    )
    return _volume(described, [owner] if volume.type not in (CUSTOM, "image") else [])


def _listed_url(pool: str, listed: schema.Volume) -> str:
    path = listed.name.replace("/", "/snapshots/")
    return with_project(f"/1.0/storage-pools/{pool}/volumes/{listed.type}/{path}", listed.project)


def _snapshot(volume: entities.StorageVolume, found: entities.VolumeSnapshot) -> schema.VolumeSnapshot:
    return schema.VolumeSnapshot(
        name=found.name,
        description=found.description,
        config=dict(found.config),
        content_type=volume.content_type,
        expires_at=clock.shown(found.expires_at),
        created_at=found.created_at or clock.NEVER,
    )
