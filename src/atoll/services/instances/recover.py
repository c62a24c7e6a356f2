"""Instances and custom volumes whose records are lost, made known again from what is in storage pools.

An instance is described by the `backup.yaml` in its volume's folder, which has to agree with what is on disk; a custom volume
by its name alone, and by whether it holds files or a disk. Where a volume is decides its project and name, never what a file
says. Each object is recorded in one transaction and nothing on disk changes, so a recovery that was cut off is simply run again.

One reading is shared by `validate`, which tells what would be recovered and what is missing for it, and `recover`, which does it
when nothing is missing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

from atoll import config as keys
from atoll.db import instances as rows
from atoll.db import networks as network_rows
from atoll.db import projects as project_rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import backup_metadata, clock, names
from atoll.domain.backup_metadata import InstanceBackup
from atoll.domain.caller import Caller
from atoll.domain.content_types import ContentType
from atoll.domain.entities import Project, StoragePool
from atoll.domain.errors import AtollError, BadRequest, Conflict
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import StorageDriver, VolumeId, VolumeKind
from atoll.host import confined, disk_image, folders
from atoll.host.threads import in_thread
from atoll.services.instances import restoring
from atoll.services.instances.backup_yaml import NAME
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.create import InstanceCreator, Request
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.idmap_keeper import CURRENT, NEXT

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lost:
    """A volume that the database does not know, with its snapshots; an instance's with its description."""

    pool: str
    volume: VolumeId
    snapshots: tuple[str, ...]
    backup: InstanceBackup | None = None
    content: ContentType = ContentType.FILESYSTEM

    @property
    def type(self) -> str:
        """LXD's word for what it is."""
        return "container" if self.volume.kind is VolumeKind.INSTANCE else "volume"


@dataclass(slots=True)
class Findings:
    """What a search found: volumes, what they need that is not here (in words), and pools that are not in the database."""

    lost: list[Lost] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    pools: list[StoragePool] = field(default_factory=list)


class RecoverService:
    """Use cases of recovery."""

    def __init__(self, core: InstanceCore, devices: DeviceService, creator: InstanceCreator) -> None:
        self._core = core
        self._devices = devices
        self._creator = creator

    async def validate(self, pools: Sequence[StoragePool]) -> Findings:
        """What is lost in these pools (of one that the database knows, only the name counts). BadRequest for a pool that cannot
        be looked into, and for a volume that is not what it says."""
        findings = Findings()
        async with self._core.database.read() as tx:
            known = {pool.name: pool for pool in await storage_rows.pools(tx)}
        for pool in pools:
            async with AsyncExitStack() as stack:
                try:
                    if pool.name in known:
                        driver = self._core.storage.driver(pool.name)
                    else:
                        driver = await stack.enter_async_context(self._core.storage.unknown(pool))
                        findings.pools.append(pool)
                except AtollError as error:
                    raise BadRequest(f"Failed to initialise unknown pool {pool.name[:80]!r}: {error}") from error
                try:
                    findings.lost += await self._search(known.get(pool.name, pool), driver)
                except AtollError as error:
                    raise BadRequest(f"Failed checking volumes on pool {pool.name!r}: {error}") from error
        await self._find_missing(findings)
        return findings

    async def recover(self, pools: Sequence[StoragePool], *, caller: Caller) -> Findings:
        """Record all that is lost in these pools, unless something is missing for it."""
        findings = await self.validate(pools)
        if findings.missing:
            return findings
        for pool in findings.pools:
            await self._core.storage.adopt(_configured(pool, findings.lost))
        for lost in findings.lost:
            if lost.backup is None:
                await self._record_volume(lost)
        for lost in findings.lost:
            if lost.backup is not None:
                await self._record_instance(lost, lost.backup, caller=caller)
        return findings

    # --- searching -----------------------------------------------------------------------------------------------------

    async def _search(self, pool: StoragePool, driver: StorageDriver) -> list[Lost]:
        """The volumes of a pool that are not in the database."""
        async with self._core.database.read() as tx:
            recorded = {(v.type, v.project, v.name) for v in await storage_rows.volumes(tx, pool=pool.name)}
        snapshots: dict[VolumeId, list[str]] = {}
        for volume in await driver.inventory():
            found = snapshots.setdefault(volume.parent, [])
            if volume.snapshot:
                found.append(volume.snapshot)
        lost = []
        for volume, found in sorted(snapshots.items(), key=lambda item: (item[0].kind != VolumeKind.CUSTOM, item[0].key)):
            if volume.kind is VolumeKind.IMAGE or (volume.kind.value, volume.project, volume.name) in recorded:
                continue
            lost.append(await self._look(pool, driver, Lost(pool.name, volume, tuple(sorted(found)))))
        return lost

    async def _look(self, pool: StoragePool, driver: StorageDriver, lost: Lost) -> Lost:
        """The volume, its names valid and its description read."""
        volume = lost.volume
        names.project(volume.project)
        (names.instance if volume.kind is VolumeKind.INSTANCE else names.volume)(volume.name)
        for snapshot in lost.snapshots:
            names.snapshot(snapshot)
        if volume.kind is VolumeKind.CUSTOM:
            holds_disk = await in_thread(disk_image.is_alone, driver.data(volume))
            return replace(lost, content=ContentType.BLOCK) if holds_disk else lost
        label = f"Instance {volume.name!r} in project {volume.project!r}"
        try:
            text = await in_thread(confined.read, driver.data(volume), NAME)
            backup = await in_thread(backup_metadata.parse_backup, text)
        except (AtollError, OSError) as error:
            raise BadRequest(f"Failed parsing backup file of {label[0].lower()}{label[1:]}: {error}") from error
        _check_agreement(label, pool, lost, backup)
        snapshots = [each for each in backup.snapshots if each.name in lost.snapshots]
        return replace(lost, snapshots=tuple(each.name for each in snapshots), backup=backup)

    # --- what is needed ------------------------------------------------------------------------------------------------

    async def _find_missing(self, findings: Findings) -> None:
        async with self._core.database.read() as tx:
            projects = {project.name: project for project in await project_rows.find_all(tx)}
            pools = {pool.name for pool in await storage_rows.pools(tx)} | {pool.name for pool in findings.pools}
            missing: dict[str, None] = {}
            for lost in findings.lost:
                project = projects.get(lost.volume.project)
                if project is None:
                    missing[f'Project "{lost.volume.project}"'] = None
                elif lost.backup is not None:
                    await self._require_absent(tx, lost)
                    missing |= dict.fromkeys(await self._missing_of(tx, project, pools, lost.backup))
        findings.missing += missing

    async def _require_absent(self, tx: Transaction, lost: Lost) -> None:
        if (lost.volume.project, lost.volume.name) in await rows.names(tx, lost.volume.project):
            raise Conflict(f"Instance {lost.volume.name!r} in project {lost.volume.project!r} already has instance DB record")

    async def _missing_of(self, tx: Transaction, project: Project, pools: set[str], backup: InstanceBackup) -> list[str]:
        """Profiles, networks and pools that the instance needs and the server has not."""
        profiles = await self._core.profiles_in(tx, project.name)
        owner = project.owner_of("networks")
        networks = {network.name for network in await network_rows.find_all(tx, owner)}
        devices = [*backup.container.devices.values(), *backup.container.expanded_devices.values()]
        return [
            *(f'Profile "{name}" in project "{project.name}"' for name in backup.container.profiles if name not in profiles),
            *(
                f'Network "{device["network"]}" in project "{owner}"'
                for device in devices
                if device.get("type") == "nic" and device.get("network") and device["network"] not in networks
            ),
            *(
                f'Storage pool "{device["pool"]}"'
                for device in devices
                if device.get("type") == "disk" and device.get("pool") and device["pool"] not in pools
            ),
        ]

    # --- recording -----------------------------------------------------------------------------------------------------

    async def _record_volume(self, lost: Lost) -> None:
        volume, now = lost.volume, clock.rfc3339()
        async with self._core.database.write() as tx:
            await storage_rows.create_volume(
                tx,
                lost.pool,
                volume.project,
                "custom",
                volume.name,
                config={},
                created_at=now,
                content_type=lost.content.value,
            )
            record = await storage_rows.volume(tx, lost.pool, volume.project, "custom", volume.name)
            for name in lost.snapshots:
                await storage_rows.create_volume_snapshot(
                    tx, record, name, description="", created_at=clock.rfc3339(), expires_at="", phase=""
                )
        log.info("Recovered volume %s of project %s in pool %s", volume.name, volume.project, lost.pool)

    async def _record_instance(self, lost: Lost, backup: InstanceBackup, *, caller: Caller) -> None:
        """Its rows; if it runs, it is watched from here on."""
        entry, volume = backup.container, lost.volume
        machine = MachineId(volume.project, volume.name)
        async with self._core.hold(machine):
            await folders.make_instance_folders(self._core.paths, machine.key, self._core.storage.driver(lost.pool).data(volume))
            running = await self._core.driver.adopt([machine], {machine: self._core.paths.run(machine.key)})
            async with self._core.database.read() as tx:
                devices = await restoring.settle_devices(self._core, tx, volume.project, entry, lost.pool)

            async def also(tx: Transaction, loaded: Loaded) -> None:
                await restoring.write_snapshots(self._core, self._devices, tx, loaded, backup, phase="")
                await restoring.keep_created_at(tx, loaded, entry)

            request = Request(
                project=volume.project,
                name=volume.name,
                architecture=entry.architecture,
                description=entry.description,
                ephemeral=entry.ephemeral,
                config=restoring.own_config(entry),
                devices=devices,
                profiles=tuple(entry.profiles),
            )
            loaded = await self._creator.record(request, _volatile(entry.config, backup, running=machine in running), also)
        log.info("Recovered instance %s of project %s in pool %s", volume.name, volume.project, lost.pool)
        self._core.tell("instance-created", loaded.record, caller=caller)


def _check_agreement(label: str, pool: StoragePool, lost: Lost, backup: InstanceBackup) -> None:
    """BadRequest where the description is of something else than what is on disk."""
    if backup.container.type not in ("", "container"):
        raise BadRequest(f"{label} has a different type in its backup file ({backup.container.type[:40]!r})")
    if backup.container.name != lost.volume.name:
        raise BadRequest(f"{label} has a different instance name in its backup file ({backup.container.name!r})")
    if backup.pool.name != pool.name:
        raise BadRequest(f"{label} has pool name mismatch in its backup file ({backup.pool.name!r} doesn't match {pool.name!r})")
    if backup.pool.driver != pool.driver:
        raise BadRequest(f"{label} has pool driver mismatch in its backup file ({backup.pool.driver[:40]!r})")
    if {each.name for each in backup.snapshots} != set(lost.snapshots):
        raise BadRequest(f"{label} has snapshot inconsistency: those in its backup file and on disk are not the same")
    if any(restoring.shift_of(entry) is not None for entry in (backup.container, *backup.snapshots)):
        raise BadRequest(f"{label} has files with the ids of another server", hint="export it there and import it here")
    keys.pool_table(pool.driver).validate(backup.pool.config)


def _configured(pool: StoragePool, lost: Sequence[Lost]) -> StoragePool:
    """A pool with the configuration that an instance in it tells, but where it is as it was stated: no file decides that."""
    told = next((each.backup.pool for each in lost if each.pool == pool.name and each.backup is not None), None)
    if told is None:
        return pool
    stated = {key: value for key, value in pool.config.items() if key == "source"}
    config = {key: value for key, value in told.config.items() if key != "source"} | stated
    return replace(pool, description=told.description, config=config)


def _volatile(config: Mapping[str, str], backup: InstanceBackup, *, running: bool) -> dict[str, str]:
    """What the server noted of the instance: what makes it the same as before, and of one that runs what is true of its run."""
    kept = {"volatile.last_state.power": "RUNNING" if running else "STOPPED", **restoring.kept_volatile(backup.container)}
    if running:
        noted = {key: value for key, value in config.items() if key.startswith("volatile.") and not key.startswith(NEXT)}
        keys.INSTANCE.validate(noted)
        kept = {**noted, **kept}
        if current := config.get(CURRENT, config.get(NEXT, "")):
            kept[CURRENT] = current
    return kept
