"""Custom storage volumes and their snapshots."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from atoll import config as keys
from atoll.db import projects as project_rows
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import clock, names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT, StorageVolume, VolumeSnapshot
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.services.events import EventHub, with_project
from atoll.services.locks import KeyedLocks
from atoll.services.storage import StorageService, volume_url

CUSTOM = "custom"
_TYPES = (CUSTOM, "container", "image", "virtual-machine")

_DISKS = """SELECT p.value, s.value, 'instances', instances.name, projects.name FROM instances_devices d
    JOIN instances_devices_config p ON p.instance_device_id = d.id AND p.key = 'pool'
    JOIN instances_devices_config s ON s.instance_device_id = d.id AND s.key = 'source'
    JOIN instances ON instances.id = d.instance_id JOIN projects ON projects.id = instances.project_id
    UNION SELECT p.value, s.value, 'profiles', profiles.name, projects.name FROM profiles_devices d
    JOIN profiles_devices_config p ON p.profile_device_id = d.id AND p.key = 'pool'
    JOIN profiles_devices_config s ON s.profile_device_id = d.id AND s.key = 'source'
    JOIN profiles ON profiles.id = d.profile_id JOIN projects ON projects.id = profiles.project_id ORDER BY 3, 5, 4"""
"""Pool and source of every disk that is a volume, and who has it."""


class VolumeService:
    """Use cases of custom volumes; volumes of instances and images are only looked at here."""

    def __init__(self, database: Database, hub: EventHub, storage: StorageService) -> None:
        self._database = database
        self._hub = hub
        self._storage = storage
        self._locks = KeyedLocks()
        self.of_daemon: Callable[[], Collection[tuple[str, str]]] = tuple
        """Tells (pool, volume) of project default that the daemon itself keeps something on; set once, by who knows."""

    # --- looking -------------------------------------------------------------------------------------------------------

    async def find_all(self, pool: str, project: str | None, type: str | None = None) -> list[StorageVolume]:
        """Volumes of a pool: custom ones of the project that owns its volumes, instances' of the project, images'."""
        if type is not None:
            _check_type(type)
        async with self._database.read() as tx:
            await rows.pool(tx, pool)
            owner = await self._owner(tx, project) if project is not None else None
            found = await rows.volumes(tx, pool=pool, type=type)
        visible = {"custom": owner, "image": DEFAULT_PROJECT}
        return [v for v in found if project is None or v.project == visible.get(v.type, project)]

    async def find(self, pool: str, project: str, type: str, name: str) -> StorageVolume:
        """One volume. NotFound if there is none."""
        _check_type(type)
        async with self._database.read() as tx:
            await rows.pool(tx, pool)
            owner = await self._owner(tx, project) if type == CUSTOM else DEFAULT_PROJECT if type == "image" else project
            return await rows.volume(tx, pool, owner, type, name)

    async def snapshots(self, volume: StorageVolume) -> list[VolumeSnapshot]:
        """A volume's snapshots, oldest first."""
        async with self._database.read() as tx:
            return await rows.volume_snapshots(tx, volume.id)

    async def find_snapshot(self, volume: StorageVolume, name: str) -> VolumeSnapshot:
        """One snapshot. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.volume_snapshot(tx, volume.id, name)

    async def data_path(self, pool: str, project: str, name: str) -> Path:
        """Where a custom volume's files are."""
        volume = await self.find(pool, project, CUSTOM, name)
        self._refuse_daemons(volume, "cannot be given to instances")
        return self._storage.driver(pool).data(_volume_id(volume))

    async def usage(self, volume: StorageVolume) -> int | None:
        """Bytes used, where the pool knows."""
        own = _volume_id(volume)
        return (await self._storage.driver(volume.pool).usage([own])).get(own)

    async def used_by(self, volume: StorageVolume) -> list[str]:
        """URLs of the instances and profiles that have it as a disk; an instance's volume is used by the instance."""
        return (await self.used_by_all([volume]))[volume.id]

    async def used_by_all(self, volumes: Sequence[StorageVolume]) -> dict[int, list[str]]:
        """As `used_by`, by the volumes' ids, in a fixed number of statements."""
        used = {v.id: [] if v.type == CUSTOM else [volume_url(v.pool, v.type, v.name, v.project)] for v in volumes}
        custom = {(v.pool, v.name, v.project): v.id for v in volumes if v.type == CUSTOM}
        for daemons in (v for v in volumes if self._is_daemons(v)):
            used[daemons.id].append("/1.0")
        if custom:
            async with self._database.read() as tx:
                owners = {project.name: project.owner_of("storage.volumes") for project in await project_rows.find_all(tx)}
                found = await tx.query(_DISKS)
            for pool, source, kind, name, project in found:
                volume_id = custom.get((pool, source, owners[project]))
                if volume_id is not None:
                    used[volume_id].append(with_project(f"/1.0/{kind}/{name}", project))
        return used

    def _is_daemons(self, volume: StorageVolume) -> bool:
        return volume.type == CUSTOM and volume.project == DEFAULT_PROJECT and (volume.pool, volume.name) in self.of_daemon()

    async def _owner(self, tx: Transaction, project: str) -> str:
        if project == DEFAULT_PROJECT:
            return project
        return (await project_rows.find(tx, project)).owner_of("storage.volumes")

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def create(
        self,
        pool: str,
        project: str,
        name: str,
        *,
        content_type: str,
        description: str,
        config: Mapping[str, str],
        caller: Caller,
    ) -> None:
        """An empty volume."""
        names.volume(name)
        content_type = content_type or "filesystem"
        if content_type == "block":
            raise Unsupported("Block volumes are not supported in this release")
        if content_type != "filesystem":
            raise BadRequest(f"Invalid content type {content_type[:40]!r}")
        async with self._database.write() as tx:
            record = await rows.pool(tx, pool)
            owner = await self._owner(tx, project)
            keys.volume_table(record.driver, content_type).validate(config)
            row_id = await rows.create_volume(
                tx,
                pool,
                owner,
                CUSTOM,
                name,
                config=config,
                created_at=clock.rfc3339(),
                description=description,
                content_type=content_type,
                phase="creating",
            )
        async with Reverter(f"create volume {name}") as undo:
            undo.add(self._forget_row, row_id)
            await self._storage.driver(pool).create(VolumeId(VolumeKind.CUSTOM, owner, name))
            undo.add(self._storage.driver(pool).delete, VolumeId(VolumeKind.CUSTOM, owner, name))
            async with self._database.write() as tx:
                await rows.set_volume_phase(tx, row_id, "")
            undo.success()
        self._tell("storage-volume-created", pool, owner, name, caller)

    async def _forget_row(self, row_id: int) -> None:
        async with self._database.write() as tx:
            await rows.delete_volume(tx, row_id)

    async def update(self, volume: StorageVolume, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Replace description and configuration."""
        async with self._locks.hold(volume.id), self._database.write() as tx:
            record = await rows.pool(tx, volume.pool)
            keys.volume_table(record.driver, volume.content_type).validate(config)
            if config.get("size", "") != volume.config.get("size", ""):
                await self._storage.driver(volume.pool).set_size(
                    _volume_id(volume), keys.volume_table(record.driver, volume.content_type).number(config, "size")
                )
            await rows.update_volume(tx, volume.id, description, config)
        self._tell("storage-volume-updated", volume.pool, volume.project, volume.name, caller)

    async def rename(self, volume: StorageVolume, new: str, *, caller: Caller) -> None:
        """Only an unused one."""
        names.volume(new)
        async with self._locks.hold(volume.id):
            self._refuse_daemons(volume, "cannot be renamed")
            await self._require_unused(volume)
            driver = self._storage.driver(volume.pool)
            target = dataclasses.replace(_volume_id(volume), name=new)
            async with self._database.write() as tx, Reverter(f"rename volume {volume.name}") as undo:
                await rows.rename_volume(tx, volume.id, new)
                await driver.rename(_volume_id(volume), target)
                undo.add(driver.rename, target, _volume_id(volume))
                undo.success()
        self._tell("storage-volume-renamed", volume.pool, volume.project, new, caller, old_name=volume.name)

    async def delete(self, volume: StorageVolume, *, caller: Caller) -> None:
        """With its snapshots; only an unused one."""
        if volume.type != CUSTOM:
            raise BadRequest(f"Storage volumes of type {volume.type!r} can't be deleted with the storage API")
        async with self._locks.hold(volume.id):
            await self._require_unused(volume)
            async with self._database.write() as tx:
                await rows.set_volume_phase(tx, volume.id, "deleting")
            await self.finish_delete(volume)
        self._tell("storage-volume-deleted", volume.pool, volume.project, volume.name, caller)

    async def finish_delete(self, volume: StorageVolume) -> None:
        """Remove files and then the row, also one whose deletion was cut off."""
        driver = self._storage.driver(volume.pool)
        for snapshot in await self.snapshots(volume):
            await driver.delete(_volume_id(volume).at(snapshot.name))
        await driver.delete(_volume_id(volume))
        await self._forget_row(volume.id)

    async def _require_unused(self, volume: StorageVolume) -> None:
        if users := await self.used_by(volume):
            raise BadRequest("The storage volume is still in use", hint=f"by {users[0]}")

    def _refuse_daemons(self, volume: StorageVolume, what: str) -> None:
        if self._is_daemons(volume):
            raise BadRequest(f"Volumes used by the server itself {what}")

    @asynccontextmanager
    async def claimed(self, pool: str, name: str) -> AsyncIterator[Path]:
        """The data of a volume of project default that nobody uses, for the daemon itself; nobody changes it meanwhile.

        NotFound if there is none, BadRequest if it is used, has snapshots, or is no file system.
        """
        volume = await self.find(pool, DEFAULT_PROJECT, CUSTOM, name)
        async with self._locks.hold(volume.id):
            volume = await self.find(pool, DEFAULT_PROJECT, CUSTOM, name)
            if volume.content_type != "filesystem":
                raise BadRequest("Only volumes that are file systems can be used by the server")
            if await self.snapshots(volume):
                raise BadRequest("Volumes used by the server itself cannot have snapshots")
            await self._require_unused(volume)
            yield self._storage.driver(pool).data(_volume_id(volume))

    async def repair(self) -> list[str]:
        """On start: finish or undo what a kill left half done. One sentence for each."""
        async with self._database.read() as tx:
            half = [v for v in await rows.volumes(tx, type=CUSTOM) if v.phase]
        for volume in half:
            await self.finish_delete(volume)
        return [f"removed volume {v.name} of pool {v.pool}: its {v.phase} was cut off" for v in half]

    # --- snapshots -----------------------------------------------------------------------------------------------------

    async def create_snapshot(
        self, volume: StorageVolume, name: str, *, description: str, expires_at: str, caller: Caller
    ) -> None:
        """A read-only snapshot of the volume as it is."""
        async with self._locks.hold(volume.id):
            self._refuse_daemons(volume, "cannot have snapshots")
            name = name or await self._next_snapshot_name(volume)
            names.snapshot(name)
            target = _volume_id(volume).at(name)
            driver = self._storage.driver(volume.pool)
            async with self._database.write() as tx:
                snapshot_id = await rows.create_volume_snapshot(
                    tx,
                    volume,
                    name,
                    description=description or volume.description,
                    created_at=clock.rfc3339(),
                    expires_at=expires_at,
                    phase="creating",
                )
            async with Reverter(f"snapshot volume {volume.name}") as undo:
                undo.add(self._forget_snapshot_row, snapshot_id)
                await driver.snapshot(target)
                undo.add(driver.delete, target)
                async with self._database.write() as tx:
                    await rows.set_volume_snapshot_phase(tx, snapshot_id, "")
                undo.success()
        self._tell("storage-volume-snapshot-created", volume.pool, volume.project, f"{volume.name}/snapshots/{name}", caller)

    async def _forget_snapshot_row(self, snapshot_id: int) -> None:
        async with self._database.write() as tx:
            await rows.delete_volume_snapshot(tx, snapshot_id)

    async def _next_snapshot_name(self, volume: StorageVolume) -> str:
        taken = {snapshot.name for snapshot in await self.snapshots(volume)}
        return next(f"snap{i}" for i in range(len(taken) + 1) if f"snap{i}" not in taken)

    async def update_snapshot(
        self, volume: StorageVolume, name: str, *, description: str, expires_at: str, caller: Caller
    ) -> None:
        """Replace what may be changed."""
        async with self._database.write() as tx:
            snapshot = await rows.volume_snapshot(tx, volume.id, name)
            await rows.update_volume_snapshot(tx, snapshot.id, description=description, expires_at=expires_at)
        self._tell("storage-volume-snapshot-updated", volume.pool, volume.project, f"{volume.name}/snapshots/{name}", caller)

    async def rename_snapshot(self, volume: StorageVolume, name: str, new: str, *, caller: Caller) -> None:
        """Change its name."""
        names.snapshot(new)
        async with self._locks.hold(volume.id):
            snapshot = await self.find_snapshot(volume, name)
            driver = self._storage.driver(volume.pool)
            own = _volume_id(volume)
            async with self._database.write() as tx, Reverter(f"rename snapshot {name}") as undo:
                await rows.rename_volume_snapshot(tx, snapshot.id, new)
                await driver.rename(own.at(name), own.at(new))
                undo.add(driver.rename, own.at(new), own.at(name))
                undo.success()
        self._tell("storage-volume-snapshot-renamed", volume.pool, volume.project, f"{volume.name}/snapshots/{new}", caller)

    async def delete_snapshot(self, volume: StorageVolume, name: str, *, caller: Caller) -> None:
        """Remove it."""
        async with self._locks.hold(volume.id):
            snapshot = await self.find_snapshot(volume, name)
            await self._storage.driver(volume.pool).delete(_volume_id(volume).at(name))
            await self._forget_snapshot_row(snapshot.id)
        self._tell("storage-volume-snapshot-deleted", volume.pool, volume.project, f"{volume.name}/snapshots/{name}", caller)

    async def restore(self, volume: StorageVolume, name: str, *, caller: Caller) -> None:
        """Make the volume as the snapshot was."""
        async with self._locks.hold(volume.id):
            await self.find_snapshot(volume, name)
            await self._storage.driver(volume.pool).restore(_volume_id(volume).at(name))
        self._tell("storage-volume-restored", volume.pool, volume.project, volume.name, caller)

    def _tell(self, action: str, pool: str, project: str, name: str, caller: Caller, **context: str) -> None:
        url = f"/1.0/storage-pools/{pool}/volumes/custom/{name}"
        self._hub.lifecycle(action, url, project=project, context=context, caller=caller)


def _check_type(type: str) -> None:
    if type not in _TYPES:
        raise BadRequest(f"Invalid storage volume type {type[:40]!r}")


def _volume_id(volume: StorageVolume) -> VolumeId:
    return VolumeId(VolumeKind(volume.type), volume.project, volume.name)
