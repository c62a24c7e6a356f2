"""Snapshots of instances that nobody asks for: by schedule, at an instance's start, and their end by expiry.

A run takes one statement to find what is due, whatever the number of instances; only those that are due are looked at closer.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from datetime import datetime

from atoll import config as keys
from atoll.db import snapshot_plans
from atoll.domain import clock
from atoll.domain.caller import DAEMON
from atoll.domain.errors import AtollError, NotFound
from atoll.drivers.instance.contract import MachineId
from atoll.services import batch, schedules
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.snapshots import Order, SnapshotService
from atoll.services.operations import OperationRegistry
from atoll.services.warnings import WarningService

log = logging.getLogger(__name__)

WARNING = "Scheduled snapshot failed"


class SnapshotTasks:
    """Jobs of the scheduler, and what a start of an instance calls."""

    def __init__(
        self, core: InstanceCore, snapshots: SnapshotService, operations: OperationRegistry, warnings: WarningService
    ) -> None:
        self._core = core
        self._snapshots = snapshots
        self._operations = operations
        self._warnings = warnings

    async def expire(self, _: Sequence[datetime]) -> None:
        """Remove what has expired; what something is being done to comes later."""
        async with self._core.database.read() as tx:
            found = await snapshot_plans.expired_of_instances(tx, clock.rfc3339())
        pieces = [
            (f"{machine.key}/{each.name}", functools.partial(self._remove, machine, each.name))
            for each in found
            if not self._snapshots.is_busy(machine := MachineId(each.project, each.instance), each.name)
        ]
        await batch.run(self._operations, "Cleaning up expired instance snapshots", pieces, at_once=schedules.AT_ONCE)

    async def _remove(self, machine: MachineId, snapshot: str) -> None:
        try:
            await self._snapshots.remove(machine, snapshot, caller=DAEMON)
        except NotFound:
            log.debug("Somebody else removed %s/%s", machine.key, snapshot)

    async def take(self, minutes: Sequence[datetime]) -> None:
        """Take what is due by schedule: one of each instance, however many of its minutes passed."""
        if not minutes:
            return
        async with self._core.database.read() as tx:
            plans = await snapshot_plans.scheduled_instances(tx)
        pieces = [
            (machine.key, functools.partial(self._take, machine))
            for plan in plans
            if schedules.is_due(plan.schedule, minutes) and (machine := MachineId(plan.project, plan.name))
        ]
        await batch.run(self._operations, "Creating scheduled instance snapshots", pieces, at_once=schedules.AT_ONCE)

    async def _take(self, machine: MachineId) -> None:
        """One by schedule; of an instance that is stopped only if `snapshots.schedule.stopped` says so."""
        try:
            loaded = await self._core.load(machine.project, machine.name)
        except NotFound:
            return
        running = self._core.status(loaded.record).is_running
        if running or keys.INSTANCE.flag(loaded.expanded.config, "snapshots.schedule.stopped"):
            await self._try(loaded, held=False)

    async def take_at_start(self, loaded: Loaded) -> None:
        """The snapshot that `@startup` asks for. Called before a start, with the instance's lock held. Never fails."""
        text = loaded.expanded.config.get("snapshots.schedule", "")
        if "@" not in text or not schedules.read(text).at_startup:
            return
        try:
            await self._try(loaded, held=True)
        except AtollError as error:
            log.warning("The snapshot at the start of %s failed: %s", loaded.machine.key, error)

    async def _try(self, loaded: Loaded, *, held: bool) -> None:
        """Take one; a failure leaves a warning until one succeeds."""
        take = self._snapshots.take_held if held else self._snapshots.take
        project = loaded.record.project
        try:
            await take(loaded.machine, Order(), caller=DAEMON)
        except AtollError as error:
            await self._warnings.raise_(WARNING, "moderate", str(error), project=project, entity_url=loaded.url)
            raise
        await self._warnings.resolve(WARNING, project=project, entity_url=loaded.url)
