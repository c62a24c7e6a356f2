"""/1.0/storage-pools/POOL/volumes."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import image_transfer, listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes import volume_views
from atoll.api.routes.volume_migrations import VolumeMigrations
from atoll.api.schema import objects as schema
from atoll.domain import entities, names
from atoll.domain.errors import BadRequest
from atoll.services.operations import Operation
from atoll.services.volume_backup_import import Wish
from atoll.services.volume_copy import Source, Target, VolumeCopier
from atoll.services.volume_move import Destination, VolumeMover
from atoll.services.volume_settings import VolumeSettings
from atoll.services.volume_snapshots import VolumeSnapshots
from atoll.services.volume_uploads import FileKind, VolumeUploads
from atoll.services.volume_urls import volume_path
from atoll.services.volumes import CUSTOM, NewVolume, VolumeService


class VolumeRoutes:
    """Routes of storage volumes."""

    def __init__(
        self,
        volumes: VolumeService,
        copier: VolumeCopier,
        mover: VolumeMover,
        uploads: VolumeUploads,
        snapshots: VolumeSnapshots,
        settings: VolumeSettings,
        migrations: VolumeMigrations,
    ) -> None:
        self._volumes = volumes
        self._copier = copier
        self._mover = mover
        self._uploads = uploads
        self._snapshots = snapshots
        self._settings = settings
        self._migrations = migrations

    def table(self) -> Sequence[Route]:
        base = "/1.0/storage-pools/{pool}/volumes"
        one = f"{base}/{{type}}/{{volume}}"
        put = schema.VolumePut
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
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Of a pool and project, of one type or all, with their snapshots; by type and name, as LXD lists them."""
        kind = request.raw.match_info.get("type")
        found = await self._volumes.find_all(_pool(request), request.scope, kind)
        found = [v for v in found if v.type == "image" or request.caller.may_use(v.project)]
        used = await self._volumes.used_by_all(found) if request.recursion else {}
        snapshots = await self._volumes.snapshots_in(_pool(request))
        listed: list[schema.Volume] = []
        for volume in found:
            listed.append(volume_views.volume(volume, request.visible(used.get(volume.id, []))))
            listed += [volume_views.listed_snapshot(volume, each) for each in snapshots.get(volume.id, ())]
        listed.sort(key=lambda each: (each.type, each.name))
        return listing.answer(request, listed, url=lambda v: volume_views.listed_url(_pool(request), v), render=lambda v: v)

    async def get(self, request: Request) -> web.StreamResponse:
        volume = await self._find(request)
        return response.sync(volume_views.volume(volume, request.visible(await self._volumes.used_by(volume))), etag=_tag(volume))

    async def create(self, request: Request) -> web.StreamResponse:
        """An empty custom volume, a copy of another one, or what a file, which is the body, holds."""
        if request.raw.headers.get("Content-Type") == "application/octet-stream":  # `content_type` would say so of none
            return response.operation(await self._import(request))
        body = await request.body(schema.VolumesPost)
        _require_custom(request.raw.match_info.get("type") or body.type or CUSTOM)
        source = body.source or schema.VolumeSource()
        if source.type not in ("", "none", "copy", "migration"):
            raise BadRequest(f"source.type: unknown source type {source.type[:40]!r}")
        if source.type == "migration":
            return response.operation(await self._migrations.receive(request, body, source))
        if source.name:
            return response.operation(await self._copy(request, body, source))
        pool = _pool(request)
        kind = body.content_type or "filesystem"
        new = NewVolume(pool, request.project, body.name, body.description, body.config or {}, kind)
        await self._volumes.create(new, caller=request.caller)
        return response.empty()  # as LXD answers, without the address of what is new

    async def _copy(self, request: Request, body: schema.VolumesPost, source: schema.VolumeSource) -> Operation:
        """A copy, or with `refresh` one that is brought up to date if it is there."""
        name, slash, snapshot = source.name.partition("/")
        subject = Source(
            pool=names.storage_pool(source.pool) if source.pool else _pool(request),
            project=request.usable(source.project or request.project),
            name=names.volume(name),
            snapshot=names.snapshot(snapshot) if slash else "",
            volume_only=source.volume_only,
        )
        target = Target(_pool(request), request.project, body.name, body.description, body.config, body.content_type)
        if source.refresh and (present := await self._copier.find_target(target)) is not None:
            return await self._copier.refresh(present, subject, caller=request.caller)
        return await self._copier.copy(target, subject, caller=request.caller)

    async def _import(self, request: Request) -> Operation:
        _require_custom(request.raw.match_info.get("type") or CUSTOM)
        kind, wish = _file_kind(_header(request, "type")), Wish(_pool(request), request.project, _header(request, "name"))
        return await self._uploads.start(kind, wish, image_transfer.chunks(request.raw), caller=request.caller)

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace, or restore a snapshot; both if a configuration is given with it."""
        body = await request.body(schema.VolumePut)
        volume = await self._find(request)
        request.check_etag(_tag(volume))
        if body.restore:
            await self._snapshots.restore(volume_views.custom(volume), body.restore, caller=request.caller)
        if body.config is not None or not body.restore:
            await self._settings.update(volume, *body.replacing(), caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(schema.VolumePut)
        volume = await self._find(request)
        request.check_etag(_tag(volume))
        changed = body.changing(volume.description, volume.config)
        await self._settings.update(volume, *changed, caller=request.caller)
        return response.empty()

    async def post(self, request: Request) -> web.StreamResponse:
        """Give it another name, move it to another pool or project, or send it to another server."""
        body = await request.body(schema.VolumePost)
        volume = volume_views.custom(await self._find(request))
        if body.migration:
            return response.operation(await self._migrations.send(request, volume, body))
        owner = await self._volumes.owner(request.usable(body.project)) if body.project else volume.project
        pool = names.storage_pool(body.pool) if body.pool else volume.pool
        if (pool, owner) == (volume.pool, volume.project):
            await self._mover.rename(volume, body.name, caller=request.caller)
            return response.created(volume_path(volume.pool, CUSTOM, body.name))
        destination = Destination(name=body.name, pool=pool, project=owner, volume_only=body.volume_only)
        return response.operation(await self._mover.move(volume, destination, asking=request.project, caller=request.caller))

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one with its snapshots."""
        await self._volumes.delete(await self._find(request), caller=request.caller)
        return response.empty()

    async def state(self, request: Request) -> web.StreamResponse:
        """Bytes used, and the size that it is limited to."""
        volume = await self._find(request)
        usage = await self._volumes.contents.usage(volume)
        return response.sync({"usage": None if usage.used is None else {"used": usage.used, "total": usage.total or 0}})

    async def _find(self, request: Request) -> entities.StorageVolume:
        return await volume_views.find(request, self._volumes)


def _pool(request: Request) -> str:
    return names.storage_pool(request.path("pool"))


def _require_custom(type: str) -> None:
    if type != CUSTOM:
        raise BadRequest(f"Currently not allowed to create storage volumes of type {type[:40]!r}")


def _tag(volume: entities.StorageVolume) -> list[object]:
    return [volume.name, volume.type, volume.config]


def _header(request: Request, name: str) -> str:
    """What LXD's clients call X-LXD-NAME, and Incus's X-Incus-NAME."""
    return next((found for maker in ("LXD", "Incus") if (found := request.raw.headers.get(f"X-{maker}-{name}"))), "")


def _file_kind(text: str) -> FileKind:
    try:
        return FileKind(text or FileKind.BACKUP)
    except ValueError as error:
        raise BadRequest(f"Invalid type of file {text[:40]!r}") from error
