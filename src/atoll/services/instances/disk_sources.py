"""What disks are made from that only services know: custom volumes, and the files that cloud-init reads."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from atoll.config.values import parse_bool
from atoll.db import instances as rows
from atoll.db import profiles as profile_rows
from atoll.db import projects as project_rows
from atoll.db import volume_disks
from atoll.db.engine import Transaction
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import Conflict, NotFound
from atoll.domain.idmap import IdMap
from atoll.drivers.device.contract import VolumeSource
from atoll.drivers.device.disk import CLOUD_INIT
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances import cloud_init, idmaps
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.idmap_keeper import NEXT
from atoll.services.volumes import VolumeService

Device = Mapping[str, str]


class DiskSources:
    """Looks up the sources of disks that are prepared."""

    def __init__(self, core: InstanceCore, volumes: VolumeService) -> None:
        self._core = core
        self._volumes = volumes
        self._taking: dict[tuple[int, MachineId], IdMap | None] = {}
        """By a volume's id and who just gets it, with which map: whether its devices are written yet cannot be told."""

    async def check(self, tx: Transaction, project: str, device: Device) -> None:
        """Before a device is written down: BadRequest if it is a volume that no instance can have. One that is not there may be
        named by a profile, or by the snapshot of an instance."""
        with suppress(NotFound):
            await self.require(tx, project, device)

    async def require(self, tx: Transaction, project: str, device: Device) -> None:
        """As `check`; NotFound if it is a volume that is not there."""
        if _is_volume(device):
            await self._volumes.check_attachable(tx, device["pool"], project, device["source"])

    async def volume(self, loaded: Loaded, device: Device, idmap: IdMap | None) -> VolumeSource | None:
        """The custom volume that a device is, for an instance with that map; None for other devices. Conflict if an instance with
        another map has the volume and it is not said that its files are for several."""
        if not _is_volume(device):
            return None
        volume, path = await self._volumes.to_attach(device["pool"], loaded.record.project, device["source"])
        shifted, unmapped = (parse_bool(volume.config.get(f"security.{key}") or "false") for key in ("shifted", "unmapped"))
        if not shifted and not unmapped:
            self._take(volume, loaded.machine, idmap)
            await self._require_one_map(volume, loaded.machine, idmap)
        return VolumeSource(path, mapped=not unmapped)

    def seed(self, loaded: Loaded, device: Device) -> dict[str, str]:
        """By name, the files of a device that is cloud-init's configuration; none for other devices."""
        is_one = device.get("type") == "disk" and device.get("source") == CLOUD_INIT
        return cloud_init.seed(loaded.record.name, loaded.expanded.config) if is_one else {}

    def _take(self, volume: StorageVolume, machine: MachineId, idmap: IdMap | None) -> None:
        """Conflict if an instance with another map gets the volume in this moment. Who is no longer held has been given it, which
        its devices tell from then on, or has not."""
        self._taking = {key: taken for key, taken in self._taking.items() if self._core.is_held(key[1])}
        for (volume_id, user), taken in self._taking.items():
            if volume_id == volume.id and user != machine and taken != idmap:
                raise _not_identical(user, volume)
        self._taking[volume.id, machine] = idmap

    async def _require_one_map(self, volume: StorageVolume, machine: MachineId, idmap: IdMap | None) -> None:
        """The files of a volume belong to the ids of one map, unless its owner says otherwise: an isolated instance would not be
        isolated from the others any more."""
        async with self._core.database.read() as tx:
            users = await _users(tx, volume)
            maps = await rows.values_of(tx, NEXT) if users - {machine} else {}
        for user in sorted(users - {machine}, key=lambda each: each.key):
            text = maps.get((user.project, user.name), {}).get(NEXT)
            if text is not None and idmaps.from_json(text) != idmap and await self._has(user, volume):
                raise _not_identical(user, volume)

    async def _has(self, machine: MachineId, volume: StorageVolume) -> bool:
        """Whether the instance really has it: its own device may stand in the place of its profile's."""
        devices = (await self._core.load(machine.project, machine.name)).expanded.devices.values()
        return any((each.get("pool"), each.get("source")) == (volume.pool, volume.name) for each in devices)


def _not_identical(user: MachineId, volume: StorageVolume) -> Conflict:
    return Conflict(
        f'Idmaps of container "{user.name}" and storage volume "{volume.name}" are not identical',
        hint="set security.shifted=true of the volume to share it all the same",
    )


def _is_volume(device: Device) -> bool:
    return device.get("type") == "disk" and bool(device.get("pool") and device.get("source"))


async def _users(tx: Transaction, volume: StorageVolume) -> set[MachineId]:
    """Instances that have a volume as a disk, by themselves or by a profile."""
    owners = {project.name: project.owner_of("storage.volumes") for project in await project_rows.find_all(tx)}
    disks = [disk for disk in await volume_disks.find_all(tx) if (disk.pool, disk.source) == (volume.pool, volume.name)]
    users = {MachineId(disk.project, disk.name) for disk in disks if disk.kind == "instances"}
    for disk in (each for each in disks if each.kind == "profiles"):
        profile = await profile_rows.find(tx, disk.project, disk.name)
        users |= {MachineId(*member) for member in (await profile_rows.users(tx, [profile.id])).get(profile.id, [])}
    return {user for user in users if owners[user.project] == volume.project}
