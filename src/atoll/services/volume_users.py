"""The users of a custom volume: profiles that have it as a disk, and instances, by themselves or by a profile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from atoll.db import projects as project_rows
from atoll.db import volume_disks
from atoll.db.engine import Transaction
from atoll.db.volume_disks import Disk
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest
from atoll.services.instances.core import InstanceCore, Loaded


class VolumeUsers:
    """Looks at who uses a volume, and takes the disks along when it moves."""

    def __init__(self, core: InstanceCore) -> None:
        self._core = core

    async def is_running(self, volume: StorageVolume) -> bool:
        """Whether a running instance has it."""
        return any(self._core.status(each.record).is_running for each in await self._instances(volume))

    @asynccontextmanager
    async def at_rest(self, volume: StorageVolume) -> AsyncIterator[None]:
        """Nothing happens to the instances that have it while the block runs. BadRequest if one of them runs."""
        machines = [each.machine for each in await self._instances(volume)]
        async with self._core.hold(*machines):
            await self.require_stopped(volume)
            yield

    async def require_stopped(self, volume: StorageVolume) -> None:
        """BadRequest if a running instance has it."""
        if await self.is_running(volume):
            raise BadRequest("Volume is still in use by running instances")

    async def _instances(self, volume: StorageVolume) -> list[Loaded]:
        async with self._core.database.read() as tx:
            owners = await _owners(tx)
        return [
            loaded
            for loaded in await self._core.load_all(None)
            if owners[loaded.record.project] == volume.project
            and any(
                (device.get("pool"), device.get("source")) == (volume.pool, volume.name)
                for device in loaded.expanded.devices.values()
            )
        ]

    async def repoint(self, tx: Transaction, volume: StorageVolume, *, pool: str, name: str) -> list[Disk]:
        """Let the devices of instances and profiles say where the volume is now; returns those that were changed."""
        owners = await _owners(tx)
        found = [
            disk
            for disk in await volume_disks.find_all(tx)
            if (disk.pool, disk.source, owners[disk.project]) == (volume.pool, volume.name, volume.project)
        ]
        for disk in found:
            await volume_disks.repoint(tx, disk, pool=pool, source=name)
        return found

    def tell(self, disks: Sequence[Disk], *, caller: Caller) -> None:
        """That the instances and profiles with these disks changed."""
        for kind, name, project in sorted({(disk.kind, disk.name, disk.project) for disk in disks}):
            action = f"{kind.removesuffix('s')}-updated"
            self._core.hub.lifecycle(action, f"/1.0/{kind}/{name}", project=project, caller=caller)


async def _owners(tx: Transaction) -> dict[str, str]:
    """By project, the project that has its volumes."""
    return {project.name: project.owner_of("storage.volumes") for project in await project_rows.find_all(tx)}
