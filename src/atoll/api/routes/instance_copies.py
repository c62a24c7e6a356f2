"""The parts of POST /1.0/instances and POST /1.0/instances/NAME that copy, refresh and move instances on this host."""

from __future__ import annotations

import dataclasses

from atoll.api.request import Request
from atoll.api.schema import instances as schema
from atoll.domain.errors import BadRequest
from atoll.services.instances.copy import InstanceCopier, Source
from atoll.services.instances.core import Loaded
from atoll.services.instances.create import Request as NewInstance
from atoll.services.instances.move import Destination, InstanceMover
from atoll.services.instances.refresh import InstanceRefresher
from atoll.services.operations import Operation


class InstanceCopies:
    """Reads requests; the callers answer with the operation."""

    def __init__(self, copier: InstanceCopier, refresher: InstanceRefresher, mover: InstanceMover) -> None:
        self._copier = copier
        self._refresher = refresher
        self._mover = mover

    async def copy(self, request: Request, new: NewInstance, source: schema.InstanceSource) -> Operation:
        """A copy, or with `refresh` one that is brought up to date if it is there."""
        if not source.source:
            raise BadRequest("source.source: must specify a source instance")
        name, _, snapshot = source.source.partition("/")
        subject = Source(
            project=request.usable(source.project or new.project),
            name=name,
            snapshot=snapshot,
            instance_only=source.instance_only or source.container_only,
            allow_inconsistent=source.allow_inconsistent,
        )
        if source.refresh:
            if (target := await self._refresher.find_target(new.project, new.name)) is not None:
                return await self._refresher.refresh(target, subject, caller=request.caller)
            new = without_volatile(new)
        return await self._copier.copy(new, subject, caller=request.caller)

    async def move(self, request: Request, loaded: Loaded, body: schema.InstancePost) -> Operation:
        """To another pool or project."""
        destination = Destination(
            name=body.name,
            pool=body.pool,
            project=request.usable(body.project) if body.project else "",
            instance_only=body.instance_only or body.container_only,
        )
        record = loaded.record
        return await self._mover.move(record.project, record.name, destination, caller=request.caller)


def refuse_member(request: Request) -> None:
    """A member of a cluster can only be chosen where there is one."""
    if request.query("target"):
        raise BadRequest("Target only allowed when clustered")


def without_volatile(new: NewInstance) -> NewInstance:
    """LXD's client sends the source's own keys, its MAC addresses among them, with each refresh; here the source stays."""
    config = {key: value for key, value in new.config.items() if not key.startswith("volatile.")}
    return dataclasses.replace(new, config=config)
