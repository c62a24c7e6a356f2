"""Snapshots of custom volumes that nobody asks for: by schedule, and their end by expiry."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from datetime import datetime

from atoll.db import snapshot_plans
from atoll.db.engine import Database
from atoll.domain import clock
from atoll.domain.caller import DAEMON
from atoll.domain.errors import NotFound
from atoll.services import batch, schedules
from atoll.services.operations import OperationRegistry
from atoll.services.volume_snapshots import VolumeSnapshots
from atoll.services.volumes import CUSTOM, VolumeService

log = logging.getLogger(__name__)


class VolumeSnapshotTasks:
    """Jobs of the scheduler; each takes one statement to find what is due."""

    def __init__(
        self, database: Database, volumes: VolumeService, snapshots: VolumeSnapshots, operations: OperationRegistry
    ) -> None:
        self._database = database
        self._volumes = volumes
        self._snapshots = snapshots
        self._operations = operations

    async def expire(self, _: Sequence[datetime]) -> None:
        """Remove what has expired."""
        async with self._database.read() as tx:
            found = await snapshot_plans.expired_of_volumes(tx, clock.rfc3339())
        pieces = [(f"{each.pool}/{each.volume}/{each.name}", functools.partial(self._remove, *each)) for each in found]
        await batch.run(self._operations, "Cleaning up expired volume snapshots", pieces, at_once=schedules.AT_ONCE)

    async def _remove(self, pool: str, project: str, volume: str, snapshot: str) -> None:
        try:
            await self._snapshots.delete(await self._volumes.find(pool, project, CUSTOM, volume), snapshot, caller=DAEMON)
        except NotFound:
            log.debug("Somebody else removed %s/%s/%s", pool, volume, snapshot)

    async def take(self, minutes: Sequence[datetime]) -> None:
        """Take what is due: one of each volume, however many of its minutes passed."""
        if not minutes:
            return
        async with self._database.read() as tx:
            plans = await snapshot_plans.scheduled_volumes(tx)
        pieces = [
            (f"{plan.pool}/{plan.name}", functools.partial(self._take, plan.pool, plan.project, plan.name))
            for plan in plans
            if schedules.is_due(plan.schedule, minutes)
        ]
        await batch.run(self._operations, "Creating scheduled volume snapshots", pieces, at_once=schedules.AT_ONCE)

    async def _take(self, pool: str, project: str, name: str) -> None:
        try:
            volume = await self._volumes.find(pool, project, CUSTOM, name)
        except NotFound:
            return
        await self._snapshots.create(volume, "", description="", expires_at=None, caller=DAEMON)
