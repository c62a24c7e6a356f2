"""Renaming custom volumes, and moving them to another pool or project, in one piece: record, snapshots and backups stay the same
rows, and the disks of instances and profiles that say where the volume is change in the same transaction.

    1. the row's phase says where it goes ("moving to …")            a kill: what is there already is deleted, it stays
    2. the volume is copied there with its snapshots
    3. one transaction: the rows say it is there, the phase where it was ("moved from …")
    4. what was copied is deleted, and the backups' folder follows   a kill: that is done on start

Within a pool the volume is renamed as the last part of 3 instead: after a kill the pool's audit gives it the name that the
database has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from atoll import config as keys
from atoll.db import instance_copies as copies
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.db.volume_disks import Disk
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services.instances import transfer
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.sites import Site
from atoll.services.storage import StorageService
from atoll.services.volume_backups import VolumeBackups
from atoll.services.volume_copy import VolumeCopier
from atoll.services.volume_urls import volume_url
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CUSTOM, VolumeService, volume_id

MOVING, MOVED = "moving to ", "moved from "
"""Phases of a row; a site follows."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to; what is empty stays. `project` is one that has volumes of its own. `volume_only` leaves the snapshots behind,
    which then are deleted."""

    name: str = ""
    pool: str = ""
    project: str = ""
    volume_only: bool = False


class VolumeMover:
    """Use cases of moving."""

    def __init__(
        self,
        database: Database,
        storage: StorageService,
        volumes: VolumeService,
        users: VolumeUsers,
        copier: VolumeCopier,
        backups: VolumeBackups,
        operations: OperationRegistry,
    ) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._users = users
        self._copier = copier
        self._backups = backups
        self._operations = operations

    async def rename(self, volume: StorageVolume, new: str, *, caller: Caller) -> None:
        """Another name in the same pool and project. BadRequest while a running instance has it."""
        await self._plan(volume, Destination(name=names.volume(new)))
        await self._move(volume, Destination(name=new), caller=caller)

    async def move(self, volume: StorageVolume, destination: Destination, *, asking: str, caller: Caller) -> Operation:
        """The operation, of the project that is `asking`, that moves it. Refused at once if it could not be where it is to go."""
        planned = await self._plan(volume, destination)

        async def work(_: Operation) -> None:
            await self._move(volume, destination, caller=caller)

        resources = {"storage_volumes": [volume_url(planned.pool, CUSTOM, planned.name, planned.project)]}
        spec = OperationSpec("Moving storage volume", work, project=asking, resources=resources, caller=caller)
        return self._operations.start(spec)

    async def _plan(self, volume: StorageVolume, destination: Destination) -> StorageVolume:
        """The volume as it will be. Refused if a running instance has it, or something of that name is there."""
        name = names.volume(destination.name or volume.name)
        planned = dataclasses.replace(
            volume, name=name, pool=destination.pool or volume.pool, project=destination.project or volume.project
        )
        self._volumes.refuse_daemons(volume, "cannot be renamed")
        async with self._database.read() as tx:
            pool = await rows.pool(tx, planned.pool)
        await self._volumes.require_absent(planned.pool, planned.project, name)
        if planned.project != volume.project:
            await self._volumes.require_unused(volume)  # those who have it would not see it any more
        await self._users.require_stopped(volume)
        table = keys.volume_table(pool.driver, volume.content_type)
        return dataclasses.replace(planned, config={k: v for k, v in volume.config.items() if table.find(k) is not None})

    async def _move(self, volume: StorageVolume, destination: Destination, *, caller: Caller) -> None:
        async with self._volumes.hold(volume) as (volume,), self._users.at_rest(volume):
            planned = await self._plan(volume, destination)
            if planned.pool == volume.pool:
                disks = await self._rename(volume, planned)
            else:
                disks = await self._carry(volume, planned, volume_only=destination.volume_only)
        self._users.tell(disks, caller=caller)
        self._tell(volume, planned, caller)

    def _tell(self, old: StorageVolume, new: StorageVolume, caller: Caller) -> None:
        """To another pool or project LXD copies and deletes: whoever follows the events of that one hears of a new volume."""
        if (old.pool, old.project) == (new.pool, new.project):
            self._volumes.tell("storage-volume-renamed", new, caller=caller, old_name=old.name)
        else:
            self._volumes.tell("storage-volume-created", new, caller=caller, type=CUSTOM)
            self._volumes.tell("storage-volume-deleted", old, caller=caller)

    async def _rename(self, volume: StorageVolume, planned: StorageVolume) -> list[Disk]:
        driver = self._storage.driver(volume.pool)
        async with Reverter(f"rename volume {volume.name}") as undo:
            async with self._database.write() as tx:
                disks = await self._place(tx, volume, planned, Site(volume.pool, volume.project, volume.name))
                await driver.rename(volume_id(volume), volume_id(planned))
                undo.add(driver.rename, volume_id(planned), volume_id(volume))
            undo.success()
        await self._follow(planned.id)
        return disks

    async def _carry(self, volume: StorageVolume, planned: StorageVolume, *, volume_only: bool) -> list[Disk]:
        present = [each.name for each in await self._volumes.snapshots(volume)]
        kept = [] if volume_only else present
        site = Site(planned.pool, planned.project, planned.name, tuple(kept))
        old = Site(volume.pool, volume.project, volume.name, tuple(present))
        async with Reverter(f"move volume {volume.name}", step_seconds=3600.0) as undo:
            await self._set_phase(volume, MOVING + site.to_text())
            undo.add(self._stay, volume, site)
            states = self._copier.states(volume, kept, volume_id(volume))
            await transfer.transfer(states, Place(self._storage.driver(planned.pool), volume_id(planned)))
            await self._volumes.apply_size(planned)
            async with self._database.write() as tx:
                for snapshot in await rows.volume_snapshots(tx, volume.id):
                    if snapshot.name not in kept:
                        await rows.delete_volume_snapshot(tx, snapshot.id)
                disks = await self._place(tx, volume, planned, old)
            undo.success()
        await self._follow(planned.id)
        return disks

    async def _place(self, tx: Transaction, volume: StorageVolume, planned: StorageVolume, old: Site) -> list[Disk]:
        """From the end of the transaction on the volume is in its new place."""
        await copies.place_volume(tx, volume.id, pool=planned.pool, project=planned.project, name=planned.name)
        await rows.update_volume(tx, volume.id, volume.description, planned.config)
        await rows.set_volume_phase(tx, volume.id, MOVED + old.to_text())
        return await self._users.repoint(tx, volume, pool=planned.pool, name=planned.name)

    # --- after the move ------------------------------------------------------------------------------------------------

    async def _follow(self, row_id: int) -> None:
        """Let the host follow the rows. Can be repeated after a kill at any step."""
        async with self._database.read() as tx:
            moved = await rows.volume_by_id(tx, row_id)
        old = Site.from_text(moved.phase.removeprefix(MOVED))
        if old.pool != moved.pool:
            await self._delete(old)
        await self._backups.follow(dataclasses.replace(moved, pool=old.pool, project=old.project, name=old.name), moved)
        await self._set_phase(moved, "")

    async def _stay(self, volume: StorageVolume, site: Site) -> None:
        """Remove what was made at its new place; what cannot be now has the phase to say so until the next start."""
        await self._delete(site)
        await self._set_phase(volume, "")

    async def _delete(self, site: Site) -> None:
        driver = self._storage.driver(site.pool)
        place = VolumeId(VolumeKind.CUSTOM, site.project, site.name)
        await driver.delete(*(place.at(name) for name in site.snapshots), place)

    async def _set_phase(self, volume: StorageVolume, phase: str) -> None:
        async with self._database.write() as tx:
            await rows.set_volume_phase(tx, volume.id, phase)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`, of what went from or to the pool: undo what had not reached its new place, finish what had. One
        sentence for each."""
        async with self._database.read() as tx:
            moving = [volume for volume in await rows.volumes(tx, type=CUSTOM) if volume.phase.startswith((MOVING, MOVED))]
        half = [each for each in moving if pool in (None, each.pool, _other_end(each).pool)]
        return await self._volumes.settle(half, self._put_right)

    async def _put_right(self, volume: StorageVolume) -> Sequence[str]:
        if volume.phase.startswith(MOVING):
            await self._stay(volume, _other_end(volume))
            return [f"volume {volume.name} stays in pool {volume.pool}: its move was cut off"]
        if volume.phase.startswith(MOVED):
            await self._follow(volume.id)
            return [f"finished moving volume {volume.name} to pool {volume.pool}"]
        return ()


def _other_end(volume: StorageVolume) -> Site:
    """Of one that moves: the other end of its way."""
    return Site.from_text(volume.phase.removeprefix(MOVING).removeprefix(MOVED))
