"""The parts of POST /1.0/instances and POST /1.0/instances/NAME (or of a snapshot) that bring instances to other servers."""

from __future__ import annotations

from atoll.api.request import Request
from atoll.api.routes.instance_copies import without_volatile
from atoll.api.schema import instances as schema
from atoll.api.schema import objects
from atoll.api.schema.common import PushTarget
from atoll.domain.errors import BadRequest
from atoll.services.instances.copy import Source
from atoll.services.instances.create import Request as NewInstance
from atoll.services.migration.channels import Peer
from atoll.services.migration.source import MigrationSource, Order
from atoll.services.migration.target import MigrationTarget, Offer
from atoll.services.operations import Operation


class InstanceMigrations:
    """Reads requests; the callers answer with the operation."""

    def __init__(self, source: MigrationSource, target: MigrationTarget) -> None:
        self._source = source
        self._target = target

    async def send(self, request: Request, name: str, body: schema.InstancePost, *, snapshot: str = "") -> Operation:
        """An instance or a snapshot, to whoever connects, or with `target` to an operation of another server."""
        order = Order(
            source=Source(
                project=request.project,
                name=name,
                snapshot=snapshot,
                instance_only=body.instance_only or body.container_only,
                allow_inconsistent=body.allow_inconsistent,
            ),
            live=body.live,
            target=peer(body.target) if body.target is not None else None,
        )
        return await self._source.start(order, caller=request.caller)

    async def receive(self, request: Request, new: NewInstance, source: schema.InstanceSource) -> Operation:
        """From an operation of another server, or in mode "push" from whoever connects."""
        offer = Offer(
            peer=source_peer(source),
            instance_only=source.instance_only or source.container_only,
            live=source.live,
            refresh=source.refresh,
        )
        return await self._target.start(without_volatile(new) if source.refresh else new, offer, caller=request.caller)


def source_peer(source: schema.InstanceSource | objects.VolumeSource) -> Peer | None:
    """The operation of another server that something is fetched from; None: in mode "push", whoever has it connects."""
    if source.mode not in ("", "pull", "push"):
        raise BadRequest(f"source.mode: unknown mode {source.mode[:40]!r}")
    return None if source.mode == "push" else peer(source)


def peer(told: schema.InstanceSource | objects.VolumeSource | PushTarget) -> Peer:
    """An operation of another server, as a request names it."""
    return Peer(operation=told.operation, certificate=told.certificate, secrets=told.secrets or {})
