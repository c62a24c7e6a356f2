"""/1.0/instances: lists, creation, change, deletion."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from aiohttp import web

from atoll.api import image_sources, image_transfer, listing, render, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.routes.instance_copies import InstanceCopies, refuse_member
from atoll.api.routes.instance_migrations import InstanceMigrations
from atoll.api.schema import instances as schema
from atoll.domain import names
from atoll.domain.errors import BadRequest
from atoll.services.events import with_project
from atoll.services.images.pull import ImagePuller
from atoll.services.images.service import ImageService
from atoll.services.instances.backup_import import BackupImporter, Wish
from atoll.services.instances.core import Loaded
from atoll.services.instances.create import InstanceCreator
from atoll.services.instances.create import Request as NewInstance
from atoll.services.instances.query import Full, InstanceQuery
from atoll.services.instances.snapshots import SnapshotService
from atoll.services.instances.update import Change, InstanceUpdater, change_of
from atoll.services.operations import Operation

_TYPES = {"containers": "container", "virtual-machines": "virtual-machine"}


class InstanceRoutes:
    """Routes of instances themselves."""

    def __init__(
        self,
        query: InstanceQuery,
        creator: InstanceCreator,
        updater: InstanceUpdater,
        snapshots: SnapshotService,
        images: ImageService,
        copies: InstanceCopies,
        importer: BackupImporter,
        puller: ImagePuller,
        migrations: InstanceMigrations,
    ) -> None:
        self._query = query
        self._creator = creator
        self._updater = updater
        self._snapshots = snapshots
        self._images = images
        self._copies = copies
        self._importer = importer
        self._puller = puller
        self._migrations = migrations

    def table(self) -> Sequence[Route]:
        path = "/1.0/instances/{name}"
        return (
            Route("GET", "/1.0/instances", self.list_, Access.PROJECT, "List instances", result=list[schema.Instance]),
            Route(
                "POST", "/1.0/instances", self.create, Access.PROJECT, "Create an instance", schema.InstancesPost, is_async=True
            ),
            Route("GET", path, self.get, Access.PROJECT, "Get an instance", result=schema.Instance),
            Route("PUT", path, self.put, Access.PROJECT, "Replace an instance", schema.InstancePut, is_async=True),
            Route("PATCH", path, self.patch, Access.PROJECT, "Change an instance", schema.InstancePut),
            Route("POST", path, self.post, Access.PROJECT, "Rename or move an instance", schema.InstancePost, is_async=True),
            Route("DELETE", path, self.delete, Access.PROJECT, "Delete an instance", is_async=True),
        )

    # --- lists ---------------------------------------------------------------------------------------------------------

    async def list_(self, request: Request) -> web.StreamResponse:
        """URLs, objects or objects with state; filtered."""
        kind = _TYPES.get(request.family) or request.query("instance-type")
        scope = request.scope
        if request.recursion == 0 and not request.query("filter") and not kind:
            base = f"/1.0/{request.family or 'instances'}"
            found = await self._query.names(scope)
            return response.sync([with_project(f"{base}/{name}", p) for p, name in found if request.caller.may_use(p)])
        if request.recursion < 2:
            listed = [each for each in await self._query.find_all(scope) if _visible(request, each, kind)]
            return listing.answer(
                request,
                listed,
                url=lambda each: _url(request, each),
                render=lambda each: render.instance(each, self._query.status(each)),
            )
        full = [each for each in await self._query.find_all_full(scope) if _visible(request, each.loaded, kind)]
        return listing.answer(request, full, url=lambda each: _url(request, each.loaded), render=_full)

    async def get(self, request: Request) -> web.StreamResponse:
        """One; recursion=1 adds state and snapshots."""
        loaded = await self._find(request)
        tag = render.etag_subject(loaded)
        if request.recursion == 0:
            return response.sync(render.instance(loaded, self._query.status(loaded)), etag=tag)
        return response.sync(_full(await self._query.find_full(loaded)), etag=tag)

    async def _find(self, request: Request) -> Loaded:
        return await self._query.find(request.project, names.instance(request.path("name")))

    # --- creation ------------------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> web.StreamResponse:
        """From an image, from nothing, from another instance, or from another server's."""
        if request.raw.headers.get("Content-Type") == "application/octet-stream":  # `content_type` would say so of none
            return response.operation(await self._import(request))
        refuse_member(request)
        body = await request.body(schema.InstancesPost)
        new = _new_instance(request, body)
        source = body.source
        caller = request.caller
        match source.type:
            case "none":
                operation = await self._creator.empty(new, caller=caller)
            case "image":
                if source.server:
                    remote = image_sources.remote(source)
                    return response.operation(await self._creator.from_elsewhere(new, remote, self._puller, caller=caller))
                project = request.usable(source.project or new.project)
                image = await self._images.resolve(
                    project, alias=source.alias, fingerprint=source.fingerprint, properties=source.properties
                )
                operation = await self._creator.from_image(new, image, caller=caller)
            case "copy":
                operation = await self._copies.copy(request, new, source)
            case "migration":
                operation = await self._migrations.receive(request, new, source)
            case other:
                raise BadRequest(f"source.type: unknown source type {other[:40]!r}")
        return response.operation(operation)

    async def _import(self, request: Request) -> Operation:
        """From a backup, which is the body."""
        headers = request.raw.headers
        wish = Wish(request.project, name=headers.get("X-LXD-name", ""), pool=headers.get("X-LXD-pool", ""))
        return await self._importer.start(wish, image_transfer.chunks(request.raw), caller=request.caller)

    # --- change --------------------------------------------------------------------------------------------------------

    async def put(self, request: Request) -> web.StreamResponse:
        """Replace, or restore a snapshot."""
        body = await request.body(schema.InstancePut)
        loaded = await self._find(request)
        request.check_etag(render.etag_subject(loaded))
        record = loaded.record
        if body.restore:
            operation = await self._snapshots.restore(
                record.project, record.name, body.restore, stateful=bool(body.stateful), caller=request.caller
            )
            return response.operation(operation)
        change = Change(
            description=body.description or "",
            architecture=body.architecture or record.architecture,
            ephemeral=bool(body.ephemeral),
            config=body.config or {},
            devices=body.devices or {},
            profiles=tuple(body.profiles or ()),
        )
        return response.operation(await self._updater.update_later(loaded, change, caller=request.caller))

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change only what is given; a config key with an empty value goes."""
        body = await request.body(schema.InstancePut)
        loaded = await self._find(request)
        request.check_etag(render.etag_subject(loaded))
        base = change_of(loaded.record)
        given = {
            field: getattr(body, field)
            for field in ("description", "architecture", "ephemeral")
            if getattr(body, field) is not None
        }
        change = dataclasses.replace(
            base,
            **given,
            config={**base.config, **(body.config or {})},
            devices={**base.devices, **(body.devices or {})},
            profiles=tuple(body.profiles) if body.profiles is not None else base.profiles,
        )
        await self._updater.update(loaded.record.project, loaded.record.name, change, caller=request.caller)
        return response.empty()

    async def post(self, request: Request) -> web.StreamResponse:
        """Rename, move to another pool or project, or offer to another server."""
        refuse_member(request)
        body = await request.body(schema.InstancePost)
        loaded = await self._find(request)
        if body.migration and not (body.pool or body.project):
            operation = await self._migrations.send(request, loaded.record.name, body)
        elif body.migration or body.pool or body.project:
            operation = await self._copies.move(request, loaded, body)
        else:
            operation = await self._updater.rename(loaded.record.project, loaded.record.name, body.name, caller=request.caller)
        return response.operation(operation)

    async def delete(self, request: Request) -> web.StreamResponse:
        """Delete a stopped instance."""
        loaded = await self._find(request)
        operation = await self._creator.delete(loaded.record.project, loaded.record.name, caller=request.caller)
        return response.operation(operation)


def _visible(request: Request, loaded: Loaded, kind: str) -> bool:
    return request.caller.may_use(loaded.record.project) and (not kind or loaded.record.type == kind)


def _url(request: Request, loaded: Loaded) -> str:
    return with_project(f"/1.0/{request.family or 'instances'}/{loaded.record.name}", loaded.record.project)


def _full(full: Full) -> schema.InstanceFull:
    return render.instance_full(full)


def _new_instance(request: Request, body: schema.InstancesPost) -> NewInstance:
    return NewInstance(
        project=request.project,
        name=body.name,
        type=_TYPES.get(request.family) or body.type or "container",
        architecture=body.architecture,
        description=body.description,
        ephemeral=body.ephemeral,
        config=body.config or {},
        devices=body.devices or {},
        profiles=tuple(body.profiles) if body.profiles is not None else None,
        instance_type=body.instance_type,
    )
