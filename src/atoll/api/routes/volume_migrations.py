"""The parts of POST …/volumes/custom and POST …/volumes/custom/NAME (or of a snapshot) that bring volumes to other servers."""

from __future__ import annotations

from atoll.api.request import Request
from atoll.api.routes import instance_migrations
from atoll.api.schema import objects as schema
from atoll.domain import names
from atoll.domain.entities import StorageVolume
from atoll.services.migration.volume_source import VolumeMigrationSource, VolumeOrder
from atoll.services.migration.volume_target import VolumeMigrationTarget, VolumeOffer
from atoll.services.operations import Operation
from atoll.services.volume_copy import Target


class VolumeMigrations:
    """Reads requests; the callers answer with the operation."""

    def __init__(self, source: VolumeMigrationSource, target: VolumeMigrationTarget) -> None:
        self._source = source
        self._target = target

    async def send(self, request: Request, volume: StorageVolume, body: schema.VolumePost, *, snapshot: str = "") -> Operation:
        """A volume or a snapshot, to whoever connects, or with `target` to an operation of another server."""
        target = instance_migrations.peer(body.target) if body.target is not None else None
        order = VolumeOrder(volume, request.project, snapshot, volume_only=body.volume_only, target=target)
        return await self._source.start(order, caller=request.caller)

    async def receive(self, request: Request, body: schema.VolumesPost, source: schema.VolumeSource) -> Operation:
        """From an operation of another server, or in mode "push" from whoever connects."""
        pool = names.storage_pool(request.path("pool"))
        new = Target(pool, request.project, body.name, body.description, body.config, body.content_type)
        peer = instance_migrations.source_peer(source)
        offer = VolumeOffer(peer, volume_only=source.volume_only, refresh=source.refresh)
        return await self._target.start(new, offer, caller=request.caller)
