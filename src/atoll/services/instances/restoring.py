"""How a backup becomes an instance: what its description asks for here, and its volumes put into the pool.

Nothing of the description reaches the host: names are valid as such (`domain.backup_metadata`), the project is the
request's, the pool one that exists here, and configuration and devices pass the gate of every new instance, those of the
snapshots too, for a restore brings them back.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from atoll import config as keys
from atoll.db import instance_copies
from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import architectures, clock
from atoll.domain.backup_metadata import InstanceBackup, InstanceEntry, OptimizedHeader, VolumeEntry
from atoll.domain.entities import Instance
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.idmap import IdMap
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import StorageDriver, VolumeId
from atoll.host import archive_backup, confined, treesync
from atoll.host.archive_backup import INSTANCE
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import Budget
from atoll.host.threads import in_thread
from atoll.services.instances import backup_streams, idmaps, templates
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.create import CREATING
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import expand, is_root_disk
from atoll.services.operations import Operation

PROGRESS = "create_instance_from_backup_progress"

_KEPT_VOLATILE = re.compile(r"volatile\.(?:uuid|base_image|cloud-init\.instance-id|[^/]{1,64}\.(?:hwaddr|name))")
"""What makes it the same instance as before. All else told of the host it was on."""

_IDENTITY = re.compile(r"volatile\.(?:uuid|cloud-init\.instance-id|.*\.hwaddr)")
"""Of that, what no two instances have in common."""

_UUID = "volatile.uuid"
_LAST_IDMAP = "volatile.last_state.idmap"
_SIDE_FILES = ("metadata.yaml", "templates")


def own_config(entry: InstanceEntry) -> dict[str, str]:
    """The configuration that a client could have given."""
    return {key: value for key, value in entry.config.items() if not key.startswith("volatile.")}


def kept_volatile(entry: InstanceEntry) -> dict[str, str]:
    """Of the server's own keys, those that stay. BadRequest for values that cannot be."""
    kept = {key: value for key, value in entry.config.items() if _KEPT_VOLATILE.fullmatch(key)}
    keys.INSTANCE.validate(kept)
    return kept


def _waiting(entry: InstanceEntry) -> dict[str, str]:
    """The templates that a snapshot's instance was still to be given at its next start: whoever restores it gets them then."""
    waiting = {key: value for key, value in entry.config.items() if key == templates.APPLY}
    keys.INSTANCE.validate(waiting)
    return waiting


def shift_of(entry: InstanceEntry) -> IdMap | None:
    """The map that the ids of its files are shifted by; None for plain ids. BadRequest for a text that is no map."""
    return parse_shift(_LAST_IDMAP, entry.config.get(_LAST_IDMAP, ""))


def parse_shift(key: str, text: str) -> IdMap | None:
    """The map that is the value of that key, see `shift_of`."""
    idmap = idmaps.from_json(text)
    if idmap is None and text not in ("", "[]", "null"):
        raise BadRequest(f"{key}: {text[:80]!r} is no map of ids")
    for each in idmap.ranges if idmap is not None else ():
        if not all(isinstance(number, int) and 0 <= number < 1 << 32 for number in (each.inside, each.outside, each.count)):
            raise BadRequest(f"{key}: {text[:80]!r} is no map of ids")
    return idmap


async def settle_devices(
    core: InstanceCore, tx: Transaction, project: str, entry: InstanceEntry, pool: str
) -> dict[str, dict[str, str]]:
    """The entry's own devices, with a root disk in that pool unless its profiles have just that."""
    available = await core.profiles_in(tx, project)
    present = [available[name] for name in entry.profiles if name in available]
    expanded = expand({}, entry.devices, present)
    roots = [(name, device) for name, device in expanded.devices.items() if is_root_disk(device)]
    devices = {name: dict(device) for name, device in entry.devices.items()}
    if not roots:
        devices["root"] = {"type": "disk", "path": "/", "pool": pool}
    elif roots[0][1].get("pool") != pool:
        devices[roots[0][0]] = {**roots[0][1], "pool": pool}
    return devices


@dataclass(frozen=True, slots=True)
class Archive:
    """A backup's file, with what it says, the folder that it alone is in, and what it may unpack to. `header` is of an optimized
    one."""

    path: Path
    folder: Path
    backup: InstanceBackup
    budget: Budget
    optimized: bool = False
    header: OptimizedHeader = field(default_factory=OptimizedHeader)


class ArchiveOrigin:
    """A backup, as `create.Origin` of an instance."""

    trigger = Trigger.CREATE
    machines: Sequence[MachineId] = ()

    def __init__(self, core: InstanceCore, devices: DeviceService, archive: Archive, files: BackupFiles) -> None:
        self._core = core
        self._devices = devices
        self._archive = archive
        self._files = files

    async def make(self, loaded: Loaded, operation: Operation) -> None:
        """Rows of the snapshots, then volumes: the oldest snapshot first, each made of the one before."""
        driver = self._core.storage.driver(loaded.pool)
        what = f"restore the backup of {loaded.machine.key}"
        async with self._files.using(self._archive.folder), Reverter(what, step_seconds=600.0) as undo:
            async with self._core.database.write() as tx:
                await write_snapshots(self._core, self._devices, tx, loaded, self._archive.backup, phase=CREATING)
            for entry in self._archive.backup.snapshots:
                undo.add(driver.delete, loaded.volume.at(entry.name))
            undo.add(driver.delete, loaded.volume)
            if self._archive.optimized:
                await self._receive(driver, loaded.volume)
            else:
                await self._unpack(driver, loaded.volume, operation)
            undo.success()

    async def settle(self, tx: Transaction, loaded: Loaded) -> Mapping[str, str]:
        """It is the instance that it was, or if that is here, another one like it."""
        kept = kept_volatile(self._archive.backup.container)
        here = await rows.values_of(tx, _UUID)
        if kept.get(_UUID) in {values[_UUID] for values in here.values()}:
            kept = {key: value for key, value in kept.items() if not _IDENTITY.fullmatch(key)}
        await rows.patch_config(tx, loaded.record.id, {"volatile.apply_template": "", **kept})
        await instance_copies.settle_snapshots(tx, loaded.record.id)
        await keep_created_at(tx, loaded, self._archive.backup.container)
        return kept

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def _receive(self, driver: StorageDriver, volume: VolumeId) -> None:
        archive = self._archive
        snapshots = [entry.name for entry in archive.backup.snapshots]
        await backup_streams.receive(
            archive.path, INSTANCE, archive.header, driver, volume, snapshots, folder=archive.folder, budget=archive.budget
        )

    async def _unpack(self, driver: StorageDriver, volume: VolumeId, operation: Operation) -> None:
        archive = self._archive
        self._archive = replace(archive, path=await archive_backup.as_tar(archive.path, archive.folder, archive.budget))
        entries = archive.backup.snapshots
        for entry in entries:
            folder = f"{archive_backup.SNAPSHOTS}/{entry.name}"
            await self._place(driver, volume, folder, entry, operation, anew=entry is entries[0])
            await driver.snapshot(volume.at(entry.name))
        own = self._archive.backup.container
        await self._place(driver, volume, archive_backup.VOLUME, own, operation, anew=not entries)

    async def _place(
        self, driver: StorageDriver, volume: VolumeId, folder: str, entry: InstanceEntry, operation: Operation, *, anew: bool
    ) -> None:
        """Make the volume what a folder of the archive is: `anew`, or by changing what differs."""
        archive, shifted = self._archive, shift_of(entry)

        async def fill(target: Path) -> None:
            await archive_backup.unpack_volume(
                archive.path, folder, target, shifted=shifted, budget=archive.budget, progress=_report(operation)
            )

        if anew:
            await driver.create(volume, fill)
            return
        stage = archive.folder / "volume"
        await in_thread((stage / "rootfs").mkdir, parents=True)
        await fill(stage)
        async with driver.open_rootfs(volume) as rootfs:
            await treesync.sync(stage / "rootfs", rootfs, read_content=True)
        await in_thread(_replace_side_files, stage, driver.data(volume))
        await in_thread(confined.remove_tree, stage)


async def keep_created_at(tx: Transaction, loaded: Loaded, entry: InstanceEntry) -> None:
    """It was made when its description says it was."""
    if created_at := settled_time(entry.created_at):
        await rows.set_created_at(tx, loaded.record.id, created_at)


async def write_snapshots(
    core: InstanceCore, devices: DeviceService, tx: Transaction, loaded: Loaded, backup: InstanceBackup, *, phase: str
) -> None:
    """Rows of the snapshots, each with the volume's configuration of its time; in the end the volume has its own."""
    record = loaded.record
    volume = await storage_rows.volume(tx, loaded.pool, record.project, record.type, record.name)
    driver = (await storage_rows.pool(tx, loaded.pool)).driver
    volumes = backup.volumes()
    for entry in backup.snapshots:
        described = volumes[entry.name]
        await storage_rows.update_volume(tx, volume.id, described.description, volume_config(driver, described))
        await rows.create_snapshot(
            tx,
            await _checked_snapshot(core, devices, tx, loaded, entry),
            entry.name,
            created_at=settled_time(entry.created_at) or clock.rfc3339(),
            expires_at=settled_time(entry.expires_at),
            phase=phase,
        )
    await storage_rows.update_volume(tx, volume.id, backup.volume.description, volume_config(driver, backup.volume))


async def _checked_snapshot(
    core: InstanceCore, devices: DeviceService, tx: Transaction, loaded: Loaded, entry: InstanceEntry
) -> Instance:
    """A snapshot's entry as the instance that it is of was then. What no client could have given it is a BadRequest."""
    config = own_config(entry)
    core.check_config(config)
    settled = await settle_devices(core, tx, loaded.record.project, entry, loaded.pool)
    await devices.validate(tx, loaded.record.project, settled)
    return replace(
        loaded.record,
        architecture=architectures.canonical(entry.architecture or loaded.record.architecture),
        ephemeral=entry.ephemeral,
        description=entry.description,
        config={**config, **kept_volatile(entry), **_waiting(entry)},
        devices=settled,
        profiles=tuple(entry.profiles),
        last_used_at="",
    )


def require_plain(backup: InstanceBackup) -> None:
    """Unsupported where files cannot be unpacked one by one and have shifted ids."""
    if any(shift_of(entry) is not None for entry in (backup.container, *backup.snapshots)):
        raise Unsupported(
            "The backup is optimized and its files have the ids of the host that it comes from",
            hint="export it without --optimized-storage",
        )


def volume_config(driver: str, entry: VolumeEntry) -> dict[str, str]:
    """A volume's configuration, as a client may set it; what drivers noted for themselves is left out."""
    config = {key: value for key, value in entry.config.items() if not key.startswith("volatile.")}
    keys.volume_table(driver, "filesystem").validate(config)
    return config


def settled_time(text: str) -> str:
    """A valid time as the database keeps it; empty for never."""
    seconds = clock.parse(text)
    return clock.rfc3339(seconds) if seconds else ""


def _replace_side_files(source: Path, target: Path) -> None:
    """Put what stands beside the root file system of one volume (which is settled) into the place of another's."""
    for name in _SIDE_FILES:
        confined.remove_tree(target / name)
    if (source / "metadata.yaml").exists():
        confined.write(target, "metadata.yaml", (source / "metadata.yaml").read_bytes(), mode=0o644)
    if (source / "templates").exists():
        (target / "templates").mkdir(mode=0o755)
        for file in (source / "templates").iterdir():
            confined.write(target, f"templates/{file.name}", file.read_bytes(), mode=0o644)


def _report(operation: Operation) -> Progress:
    return lambda read: operation.progress(PROGRESS, f"Backup: {read / 1e6:.2f}MB")
