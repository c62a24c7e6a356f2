"""Moving an instance to another pool, another project or another name on this host, in one piece: its record, its snapshots and
backups stay the same rows all the way, and at no moment is it in both places or in none.

    1. the row's phase says where it goes ("moving to …")            a kill: what is there already is deleted, it stays
    2. its volumes are copied there
    3. one transaction: the rows say it is there, the phase where it was ("moved from …")
    4. what has to go is deleted, and the folders follow             a kill: that is done on start

Within a pool the volumes are renamed as the last part of 3 instead: after a kill the pool's audit gives them the names that the
database has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from atoll.db import instance_copies as copies
from atoll.db import instances as rows
from atoll.db import projects as project_rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import VolumeId
from atoll.host import folders
from atoll.services.instances import copy, root_size, transfer
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources, volume_of
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import expand
from atoll.services.instances.transfer import Place
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.sites import Site

MOVING, MOVED = "moving to ", "moved from "
"""Phases of a row; a `_Site` follows."""


@dataclass(frozen=True, slots=True)
class Destination:
    """Where to; what is empty stays. `instance_only` leaves the snapshots behind, which then are deleted."""

    name: str = ""
    pool: str = ""
    project: str = ""
    instance_only: bool = False


class _Site(Site):
    """Where an instance was, or is to be."""

    __slots__ = ()

    @property
    def volume(self) -> VolumeId:
        return volume_of(self.project, self.name)

    @property
    def machine(self) -> MachineId:
        return MachineId(self.project, self.name)


class InstanceMover:
    """Use cases of moving."""

    def __init__(
        self, core: InstanceCore, devices: DeviceService, networks: NetworkService, operations: OperationRegistry
    ) -> None:
        self._core = core
        self._devices = devices
        self._networks = networks
        self._operations = operations

    async def move(self, project: str, name: str, destination: Destination, *, caller: Caller) -> Operation:
        """The operation that moves a stopped instance. Refused at once if it could not be where it is to go."""
        loaded = await self._core.load(project, name)
        self._check(loaded)
        async with self._core.database.read() as tx:
            await self._plan(tx, loaded, destination)

        async def work(_: Operation) -> None:
            await self._move(loaded, destination, caller=caller)

        spec = OperationSpec("Migrating instance", work, project=project, resources=instance_resources(name), caller=caller)
        return self._operations.start(spec)

    def _check(self, loaded: Loaded) -> None:
        if self._core.status(loaded.record).is_running:
            raise BadRequest("Instance must be stopped to be moved")
        if loaded.record.phase:
            raise Conflict(f"Instance is busy: {loaded.record.phase}")

    async def _plan(self, tx: Transaction, loaded: Loaded, destination: Destination) -> Loaded:
        """The instance as it will be, checked as if it were new there."""
        record = loaded.record
        project, name = destination.project or record.project, names.instance(destination.name or record.name)
        await project_rows.find(tx, project)
        if (project, name) != (record.project, record.name) and (project, name) in await rows.names(tx, project):
            raise Conflict(f"Name {name!r} already in use")
        available = await self._core.profiles_in(tx, project)
        self._core.find_missing(record.profiles, available)
        profiles = [available[each] for each in record.profiles]
        devices = dict(record.devices)
        if destination.pool:
            await storage_rows.pool(tx, destination.pool)
            key, root = loaded.expanded.root_disk()
            devices[key] = {**root, "pool": destination.pool}
        planned = Loaded(
            dataclasses.replace(record, project=project, name=name, devices=devices), expand(record.config, devices, profiles)
        )
        await self._devices.validate(tx, project, devices)
        await storage_rows.pool(tx, planned.pool)
        return planned

    async def _move(self, loaded: Loaded, destination: Destination, *, caller: Caller) -> None:
        record = loaded.record
        machine = MachineId(destination.project or record.project, destination.name or record.name)
        async with self._core.hold(loaded.machine, machine):
            loaded, snapshots = await copy.find_whole(self._core, record.project, record.name)
            self._check(loaded)
            await self._core.require_unread(loaded)
            async with self._core.database.read() as tx:
                planned = await self._plan(tx, loaded, destination)
            kept = [] if destination.instance_only else snapshots
            await self._core.storage.driver(loaded.pool).unmount(loaded.volume)
            if planned.record == loaded.record and len(kept) == len(snapshots):
                return
            async with self._core.hold_snapshots(loaded.machine, [each.name for each in snapshots]):
                if planned.pool == loaded.pool:
                    await self._rename(loaded, planned, snapshots, kept)
                else:
                    await self._carry(loaded, planned, snapshots, kept)
            moved = await self._core.load(machine.project, machine.name)
            await self._networks.release(record.project, record.name)
            await self._networks.reserve(moved.record, moved.expanded, {})
        context = {"old_name": record.name, "old_project": record.project, "storage-pool": moved.pool}
        self._core.tell("instance-renamed", moved.record, caller=caller, context=context)

    # --- within a pool -------------------------------------------------------------------------------------------------

    async def _rename(self, loaded: Loaded, planned: Loaded, present: Sequence[Snapshot], kept: Sequence[Snapshot]) -> None:
        driver = self._core.storage.driver(loaded.pool)
        async with Reverter(f"move instance {loaded.machine.key}") as undo:
            async with self._core.database.write() as tx:
                await self._place(tx, loaded, planned, present, kept)
                if planned.volume != loaded.volume:
                    await driver.rename(loaded.volume, planned.volume)
                    undo.add(driver.rename, planned.volume, loaded.volume)
            undo.success()
        await self._follow(await self._core.load(planned.record.project, planned.record.name))

    # --- to another pool -----------------------------------------------------------------------------------------------

    async def _carry(self, loaded: Loaded, planned: Loaded, present: Sequence[Snapshot], kept: Sequence[Snapshot]) -> None:
        site = _site(planned, kept)
        async with Reverter(f"move instance {loaded.machine.key}") as undo:
            await self._set_phase(loaded, MOVING + site.to_text())
            undo.add(self._stay, loaded, site)
            states = copy.states_of(self._core, loaded, [each.name for each in kept], loaded.volume)
            await transfer.transfer(states, Place(self._core.storage.driver(planned.pool), planned.volume))
            await root_size.apply(self._core, planned)
            async with self._core.database.write() as tx:
                await self._place(tx, loaded, planned, present, kept)
            undo.success()
        await self._follow(await self._core.load(planned.record.project, planned.record.name))

    async def _place(
        self, tx: Transaction, loaded: Loaded, planned: Loaded, present: Sequence[Snapshot], kept: Sequence[Snapshot]
    ) -> None:
        """From the end of the transaction on the instance is in its new place."""
        record = planned.record
        dropped = [each for each in present if each not in kept]
        for snapshot in dropped:
            await rows.delete_snapshot(tx, snapshot.id)
        volume = await copy.volume_row(tx, loaded)
        await copies.place_volume(tx, volume.id, pool=planned.pool, project=record.project, name=record.name)
        await copies.place(tx, record.id, project=record.project, name=record.name)
        await rows.update(
            tx,
            record.id,
            description=record.description,
            architecture=record.architecture,
            ephemeral=record.ephemeral,
            config=record.config,
            devices=record.devices,
            profile_project=await self._core.profile_owner(tx, record.project),
            profiles=record.profiles,
        )
        for snapshot in kept:
            devices = copy.rooted(snapshot.devices, planned)
            if devices != snapshot.devices:
                await copies.set_snapshot_devices(tx, record.id, snapshot.name, devices)
        stale = present if planned.pool != loaded.pool else dropped
        await rows.set_phase(tx, record.id, MOVED + _site(loaded, stale).to_text())

    # --- after the move ------------------------------------------------------------------------------------------------

    async def _follow(self, moved: Loaded) -> None:
        """Let the host follow the rows. Can be repeated after a kill at any step."""
        old = _Site.from_text(moved.record.phase.removeprefix(MOVED))
        driver = self._core.storage.driver(moved.pool)
        if old.pool != moved.pool:
            await self._delete_volumes(old)
        else:
            await driver.delete(*(moved.volume.at(name) for name in old.snapshots))
        key, data = moved.machine.key, driver.data(moved.volume)
        await folders.rename_instance_folders(self._core.paths, old.machine.key, key, data)
        await folders.link_snapshots(self._core.paths, key, driver.data(moved.volume.at("-")).parent)
        await self._set_phase(moved, "")

    async def _stay(self, loaded: Loaded, site: _Site) -> None:
        """Remove what was made at its new place; what cannot be now has the phase to say so until the next start."""
        await self._delete_volumes(site)
        await self._set_phase(loaded, "")

    async def _delete_volumes(self, site: _Site) -> None:
        driver = self._core.storage.driver(site.pool)
        await driver.delete(*(site.volume.at(name) for name in site.snapshots), site.volume)

    async def _set_phase(self, loaded: Loaded, phase: str) -> None:
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, loaded.record.id, phase)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`, of what went from or to the pool: undo what had not reached its new place, finish what had. One
        sentence for each."""
        moving = [each for each in await self._core.load_all(None) if each.record.phase.startswith((MOVING, MOVED))]
        half = [each for each in moving if pool in (None, each.pool, _other_end(each).pool)]
        return await self._core.settle(half, self._put_right, other=lambda loaded: _other_end(loaded).machine)

    async def _put_right(self, loaded: Loaded) -> Sequence[str]:
        if loaded.record.phase.startswith(MOVING):
            await self._stay(loaded, _other_end(loaded))
            return [f"instance {loaded.machine.key} stays where it is: its move was cut off"]
        if loaded.record.phase.startswith(MOVED):
            await self._follow(loaded)
            return [f"finished moving instance {loaded.machine.key}"]
        return ()


def _other_end(loaded: Loaded) -> _Site:
    """Of one that moves: the other end of its way."""
    return _Site.from_text(loaded.record.phase.removeprefix(MOVING).removeprefix(MOVED))


def _site(loaded: Loaded, snapshots: Sequence[Snapshot]) -> _Site:
    record = loaded.record
    return _Site(loaded.pool, record.project, record.name, tuple(each.name for each in snapshots))
