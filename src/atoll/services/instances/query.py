"""Reading instances: lists, with the state of all in one pass over the host; and single ones with all their details."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.db import backups as backup_rows
from atoll.db import instances as rows
from atoll.domain.entities import Backup, Snapshot
from atoll.domain.errors import Unavailable
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineId, MachineState
from atoll.drivers.storage.contract import VolumeId
from atoll.services.instances import disk_limits
from atoll.services.instances.core import InstanceCore, Loaded


@dataclass(frozen=True, slots=True)
class Full:
    """An instance with everything that recursion=2 shows."""

    loaded: Loaded
    state: MachineState
    disk: Mapping[str, int]  # device name -> bytes used, where the pool knows
    snapshots: Sequence[Snapshot]
    backups: Sequence[Backup]


class InstanceQuery:
    """Use cases of looking."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def names(self, project: str | None) -> list[tuple[str, str]]:
        """(project, name) of all instances of a project, or of all projects."""
        async with self._core.database.read() as tx:
            return await rows.names(tx, project)

    async def find(self, project: str, name: str) -> Loaded:
        """One instance. NotFound if there is none."""
        return await self._core.load(project, name)

    async def find_all(self, project: str | None) -> list[Loaded]:
        """All instances of a project, or of all projects."""
        return await self._core.load_all(project)

    def status(self, loaded: Loaded) -> InstanceStatus:
        """From memory."""
        return self._core.status(loaded.record)

    async def find_all_full(self, project: str | None) -> list[Full]:
        """As `find_all`, with state, snapshots and backups: a fixed number of statements and one pass over the host."""
        listed = await self._core.load_all(project)
        async with self._core.database.read() as tx:
            snapshots = await rows.snapshots_in(tx, project)
            backups = await backup_rows.find_all(tx, project)
        states = await self._core.driver.state([loaded.machine for loaded in listed])
        disks = await self._disk_usage(listed)
        return [
            Full(
                loaded,
                states.get(loaded.machine, MachineState(InstanceStatus.STOPPED)),
                disks.get(loaded.machine, {}),
                snapshots.get(loaded.record.id, ()),
                backups.get((loaded.record.project, loaded.record.name), ()),
            )
            for loaded in listed
        ]

    async def find_full(self, loaded: Loaded) -> Full:
        """One instance, with all that `find_all_full` gives of it."""
        async with self._core.database.read() as tx:
            snapshots = await rows.snapshots_of(tx, loaded.record.id)
            backups = await backup_rows.of(tx, loaded.record.id)
        return Full(loaded, *await self.state(loaded), snapshots, backups)

    async def state(self, loaded: Loaded) -> tuple[MachineState, Mapping[str, int]]:
        """One instance's figures and disk usage by device."""
        states, disks = await asyncio.gather(self._core.driver.state([loaded.machine]), self._disk_usage([loaded]))
        return (
            states.get(loaded.machine, MachineState(InstanceStatus.STOPPED)),
            disks.get(loaded.machine, {}),
        )

    async def _disk_usage(self, listed: Sequence[Loaded]) -> dict[MachineId, dict[str, int]]:
        """By device, of root disks and custom volumes, where the pool knows cheaply; each pool is asked once."""
        by_pool: dict[str, list[tuple[MachineId, str, VolumeId]]] = {}
        owners = {name: await self._core.volume_owner(name) for name in {loaded.record.project for loaded in listed}}
        for loaded in listed:
            for name, device in loaded.expanded.devices.items():
                volume = disk_limits.volume_of_disk(loaded, device, owner=owners[loaded.record.project])
                if volume is not None:
                    by_pool.setdefault(device.get("pool", ""), []).append((loaded.machine, name, volume))
        result: dict[MachineId, dict[str, int]] = {}
        for pool, wanted in by_pool.items():
            try:
                usage = await self._core.storage.driver(pool).usage(list({volume for _, _, volume in wanted}))
            except Unavailable:
                continue  # a pool that is away must not keep instances from being looked at
            for machine, name, volume in wanted:
                if volume in usage:
                    result.setdefault(machine, {})[name] = usage[volume]
        return result
