"""Snapshots of instances: take, look at, rename, delete, let expire."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from atoll import config as keys
from atoll.db import instances as rows
from atoll.domain import clock, names, snapshot_names
from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest, Conflict, Unavailable
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services import expiry
from atoll.services.instances import pauses
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.snapshot_restore import SnapshotRestore
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work

CREATING, DELETING = "creating", "deleting"
"""Phases of a record that is not whole."""

FREEZE_MS = "atoll_freeze_ms"
"""Metadata of the operation that took a snapshot of a running instance: for how long its guest was paused, in milliseconds."""

_FEW = 16
_DELETE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Order:
    """A snapshot to take. Without a name `snapshots.pattern` says it; `expires_at` is kept as it is ("" for never), None leaves
    it to `snapshots.expiry`."""

    name: str = ""
    expires_at: str | None = None
    stateful: bool = False


class SnapshotService:
    """Use cases of snapshots."""

    def __init__(self, core: InstanceCore, restorer: SnapshotRestore, operations: OperationRegistry) -> None:
        self._core = core
        self._restorer = restorer
        self._operations = operations

    async def find_all(self, project: str, name: str) -> tuple[Loaded, list[Snapshot]]:
        """An instance with its snapshots, oldest first; without those that are being made or removed."""
        loaded, present = await self._find_rows(project, name)
        return loaded, [each for each in present if not each.phase]

    async def _find_rows(self, project: str, name: str) -> tuple[Loaded, list[Snapshot]]:
        async with self._core.database.read() as tx:
            loaded = await self._core.load_in(tx, project, name)
            return loaded, await rows.snapshots_of(tx, loaded.record.id)

    async def _find_names(self, project: str, name: str) -> tuple[Loaded, Collection[str]]:
        """An instance with the names that its snapshots have: there may be a thousand of them."""
        async with self._core.database.read() as tx:
            loaded = await self._core.load_in(tx, project, name)
            return loaded, await rows.snapshot_names(tx, loaded.record.id)

    async def sizes(self, loaded: Loaded, snapshots: Collection[Snapshot]) -> Mapping[str, int]:
        """Bytes that each takes for itself, by name; of those where the pool knows."""
        volumes = [loaded.volume.at(each.name) for each in snapshots]
        asked = [[each] for each in volumes] if len(volumes) <= _FEW else [volumes]  # a driver waits for a single figure
        try:
            driver = self._core.storage.driver(loaded.pool)
            used = await asyncio.gather(*(driver.usage(some) for some in asked))
        except Unavailable:
            return {}  # a pool that is away must not keep snapshots from being looked at
        return {volume.snapshot: size for some in used for volume, size in some.items()}

    # --- taking --------------------------------------------------------------------------------------------------------

    async def create(self, project: str, name: str, order: Order, *, caller: Caller) -> Operation:
        """The operation that takes one. Refused before it starts: a bad or taken name, a bad pattern, a stateful one."""
        if order.stateful:
            raise BadRequest("Stateful snapshots need CRIU, which is not supported in this release")
        loaded, taken = await self._find_names(project, name)
        _name_for(order, loaded, taken)

        async def work(_: Operation) -> Mapping[str, Any]:
            return await self.take(loaded.machine, order, caller=caller)

        return self._start("Snapshotting instance", loaded, work, caller)

    async def take(self, machine: MachineId, order: Order, *, caller: Caller) -> Mapping[str, Any]:
        """Take it now. Returns what an operation tells of it."""
        async with self._core.hold(machine):
            return await self.take_held(machine, order, caller=caller)

    async def take_held(self, machine: MachineId, order: Order, *, caller: Caller) -> Mapping[str, Any]:
        """As `take`, for a caller that holds the instance's lock."""
        loaded, taken = await self._find_names(machine.project, machine.name)
        if loaded.record.phase:
            raise Conflict(f"Instance is busy: {loaded.record.phase}")
        name = _name_for(order, loaded, taken)
        driver = self._core.storage.driver(loaded.pool)
        target = loaded.volume.at(name)
        async with self._core.database.write() as tx:
            row_id = await rows.create_snapshot(
                tx, loaded.record, name, created_at=clock.rfc3339(), expires_at=_expiry_of(order, loaded), phase=CREATING
            )
        async with Reverter(f"snapshot {machine.key}/{name}", step_seconds=_DELETE_SECONDS) as undo:
            undo.add(self._finish_remove, loaded, name, row_id)
            paused = await pauses.snapshot_volume(self._core, loaded, target)
            await folders.link_snapshots(self._core.paths, machine.key, driver.data(target).parent)
            await self._set_phase(row_id, "")
            undo.success()
        self._core.tell("instance-snapshot-created", loaded.record, suffix=f"/snapshots/{name}", caller=caller)
        return {} if paused is None else {FREEZE_MS: round(paused * 1000, 1)}

    async def _set_phase(self, row_id: int, phase: str) -> None:
        async with self._core.database.write() as tx:
            await rows.set_snapshot_phase(tx, row_id, phase)

    # --- changing ------------------------------------------------------------------------------------------------------

    async def delete(self, project: str, name: str, snapshot: str, *, caller: Caller) -> Operation:
        """The operation that removes one."""
        loaded, _ = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            await self.remove(loaded.machine, snapshot, caller=caller)

        return self._start("Deleting snapshot", loaded, work, caller, snapshot)

    async def remove(self, machine: MachineId, snapshot: str, *, caller: Caller) -> None:
        """Remove it now. What a kill cuts off is finished by `repair`; what fails can be tried again."""
        async with self._core.hold(machine), self._core.hold_snapshot(machine, snapshot):
            loaded, found = await self._core.load_snapshot(machine.project, machine.name, snapshot)
            async with Reverter(f"remove snapshot {machine.key}/{snapshot}") as undo:
                undo.add(self._set_phase, found.id, "")
                await self._set_phase(found.id, DELETING)
                await self._finish_remove(loaded, snapshot, found.id)
                undo.success()
        self._core.tell("instance-snapshot-deleted", loaded.record, suffix=f"/snapshots/{snapshot}", caller=caller)

    async def _finish_remove(self, loaded: Loaded, name: str, row_id: int) -> None:
        """The row goes last: as long as there is anything of it, `repair` finds it. Can be repeated."""
        driver = self._core.storage.driver(loaded.pool)
        volume = loaded.volume.at(name)
        await driver.delete(volume)
        await folders.link_snapshots(self._core.paths, loaded.machine.key, driver.data(volume).parent)
        async with self._core.database.write() as tx:
            await rows.delete_snapshot(tx, row_id)

    def is_busy(self, machine: MachineId, snapshot: str) -> bool:
        """Whether removing it would have to wait."""
        return self._core.is_held(machine) or self._core.is_held(machine, snapshot)

    async def rename(self, project: str, name: str, snapshot: str, new: str, *, caller: Caller) -> Operation:
        """The operation that gives one another name."""
        names.snapshot(new)
        loaded, taken = await self._find_names(project, name)
        await self._core.load_snapshot(project, name, snapshot)
        _require_free(new, taken)

        async def work(_: Operation) -> None:
            async with self._core.hold(loaded.machine), self._core.hold_snapshot(loaded.machine, snapshot):
                _loaded, found = await self._core.load_snapshot(project, name, snapshot)
                driver = self._core.storage.driver(loaded.pool)
                async with Reverter(f"rename snapshot {snapshot}") as undo:
                    async with self._core.database.write() as tx:  # the commit may fail, too
                        await rows.rename_snapshot(tx, found.id, new)
                        await driver.rename(loaded.volume.at(snapshot), loaded.volume.at(new))
                        undo.add(driver.rename, loaded.volume.at(new), loaded.volume.at(snapshot))
                    undo.success()
            self._core.tell(
                "instance-snapshot-renamed",
                loaded.record,
                suffix=f"/snapshots/{new}",
                context={"old_name": f"{name}/{snapshot}"},
                caller=caller,
            )

        return self._start("Renaming snapshot", loaded, work, caller, snapshot)

    async def update_later(self, project: str, name: str, snapshot: str, *, expires_at: str, caller: Caller) -> Operation:
        """The operation that changes when it expires."""
        loaded, found = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            async with self._core.database.write() as tx:
                await rows.update_snapshot(tx, found.id, expires_at=expires_at)
            self._core.tell("instance-snapshot-updated", loaded.record, suffix=f"/snapshots/{snapshot}", caller=caller)

        return self._start("Updating snapshot", loaded, work, caller, snapshot)

    async def restore(self, project: str, name: str, snapshot: str, *, stateful: bool, caller: Caller) -> Operation:
        """The operation that makes the instance as it was; one that runs is stopped for it and started again.

        `snapshot` is its name, alone or as NAME/SNAPSHOT, which is what clients send.
        """
        snapshot = snapshot.removeprefix(f"{name}/")
        if stateful:
            raise BadRequest("Stateful restore needs CRIU, which is not supported in this release")
        loaded, _ = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            await self._restorer.restore(loaded.machine, snapshot, caller=caller)

        return self._start("Restoring snapshot", loaded, work, caller)

    def _start(self, description: str, loaded: Loaded, work: Work, caller: Caller, snapshot: str = "") -> Operation:
        record = loaded.record
        resources = instance_resources(record.name)
        if snapshot:
            resources["instances_snapshots"] = [f"{resources['instances'][0].partition('?')[0]}/snapshots/{snapshot}"]
        return self._operations.start(
            OperationSpec(description, work, project=record.project, resources=resources, caller=caller)
        )

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: remove snapshots whose making or removal was cut off, finish restores. On start alone, when nobody else
        pauses any: let guests go on. One sentence for each."""
        done = [] if pool is not None else await pauses.repair(self._core)
        done += await self._restorer.repair(pool)
        async with self._core.database.read() as tx:
            half = {each for each, found in (await rows.snapshots_in(tx)).items() if any(one.phase for one in found)}
        listed = [each for each in await self._core.load_repairable(pool) if each.record.id in half] if half else []
        return [*done, *await self._core.settle(listed, self._put_right)]

    async def _put_right(self, loaded: Loaded) -> Sequence[str]:
        """Not what is there to be read: that is held for itself, while the instance need not be."""
        _, present = await self._find_rows(loaded.record.project, loaded.record.name)
        done: list[str] = []
        for snapshot in (each for each in present if each.phase and not self._core.is_held(loaded.machine, each.name)):
            await self._finish_remove(loaded, snapshot.name, snapshot.id)
            what = "removal" if snapshot.phase == DELETING else "making"
            done.append(f"removed snapshot {loaded.machine.key}/{snapshot.name}: its {what} was cut off")
        return done


def _name_for(order: Order, loaded: Loaded, taken: Collection[str]) -> str:
    """BadRequest for a name or pattern that is none, Conflict for a name that is taken."""
    if order.name:
        _require_free(names.snapshot(order.name), taken)
        return order.name
    pattern = loaded.expanded.config.get("snapshots.pattern", "")
    return snapshot_names.choose(pattern, taken, datetime.now().astimezone())


def _require_free(name: str, taken: Collection[str]) -> None:
    if name in taken:
        raise Conflict(f"Snapshot {name!r} already exists")


def _expiry_of(order: Order, loaded: Loaded) -> str:
    if order.expires_at is not None:
        return order.expires_at
    return expiry.after_now(keys.INSTANCE.get(loaded.expanded.config, "snapshots.expiry"))
