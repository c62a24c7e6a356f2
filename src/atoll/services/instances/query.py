"""Looking at instances: lists with state in one pass over the host, one with all it has."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.db import instances as rows
from atoll.domain.entities import Snapshot
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineId, MachineState
from atoll.services.instances.core import InstanceCore, Loaded

USAGE_SECONDS = 10.0
"""How long a volume's usage counts as known; walking for it is never part of a list."""


@dataclass(frozen=True, slots=True)
class Full:
    """An instance with everything that recursion=2 shows."""

    loaded: Loaded
    state: MachineState
    disk: Mapping[str, int]  # device name -> bytes used, where the pool knows
    snapshots: Sequence[Snapshot]


class InstanceQuery:
    """Use cases of looking."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core
        self._usage: dict[tuple[str, object], tuple[float, int]] = {}

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
        """As `find_all`, with state and snapshots: a fixed number of statements and one pass over the host."""
        listed = await self._core.load_all(project)
        async with self._core.database.read() as tx:
            snapshots = await rows.snapshots_in(tx, project)
        states = await self._core.driver.state([loaded.machine for loaded in listed])
        disks = await self._disk_usage(listed)
        return [
            Full(
                loaded,
                states.get(loaded.machine, MachineState(InstanceStatus.STOPPED)),
                disks.get(loaded.machine, {}),
                snapshots.get(loaded.record.id, ()),
            )
            for loaded in listed
        ]

    async def state(self, loaded: Loaded) -> tuple[MachineState, Mapping[str, int]]:
        """One instance's figures and disk usage by device."""
        states, disks = await asyncio.gather(self._core.driver.state([loaded.machine]), self._disk_usage([loaded]))
        return (
            states.get(loaded.machine, MachineState(InstanceStatus.STOPPED)),
            disks.get(loaded.machine, {}),
        )

    async def _disk_usage(self, listed: Sequence[Loaded]) -> dict[MachineId, dict[str, int]]:
        by_pool: dict[str, list[Loaded]] = {}
        now = time.monotonic()
        result: dict[MachineId, dict[str, int]] = {}
        for loaded in listed:
            if (known := self._usage.get((loaded.pool, loaded.volume))) and now - known[0] < USAGE_SECONDS:
                result[loaded.machine] = {loaded.expanded.root_disk()[0]: known[1]}
            else:
                by_pool.setdefault(loaded.pool, []).append(loaded)
        for pool, members in by_pool.items():
            usage = await self._core.storage.driver(pool).usage([each.volume for each in members])
            for each in members:
                if each.volume in usage:
                    self._usage[(pool, each.volume)] = now, usage[each.volume]
                    result[each.machine] = {each.expanded.root_disk()[0]: usage[each.volume]}
        return result
