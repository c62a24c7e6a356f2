"""Custom volumes made of backup files: the upload to a folder of its own, then an operation.

The folder is hidden in that of backups and goes with the operation's end; one that a kill leaves goes on the next start, and the
half-made volume with it, for its row says that it is being created (`VolumeService.repair`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import names
from atoll.domain.backup_metadata import OptimizedHeader
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest, Unsupported
from atoll.domain.paths import Paths
from atoll.domain.volume_backup_metadata import CustomEntry, VolumeIndex
from atoll.drivers.storage.contract import StorageDriver
from atoll.host import archive_backup, archive_image, confined, treesync
from atoll.host.archive_backup import CUSTOM, DISK_SUFFIX
from atoll.host.archive_stream import Progress
from atoll.host.archive_tar import Budget
from atoll.host.threads import in_thread
from atoll.services import budgets, volume_entries
from atoll.services.instances import backup_streams, restoring
from atoll.services.instances.backup_files import UPLOAD, BackupFiles
from atoll.services.intake import Chunks
from atoll.services.operations import Operation, OperationRegistry, OperationSpec
from atoll.services.storage import StorageService
from atoll.services.volume_backups import KIND
from atoll.services.volume_urls import volume_url
from atoll.services.volumes import NewVolume, VolumeService, volume_id

_LAST_IDMAP = "volatile.idmap.last"
_PROGRESS = "create_volume_from_backup_progress"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client says besides the archive. Without `name`: the archive's."""

    pool: str
    project: str
    name: str = ""


@dataclass(frozen=True, slots=True)
class _Archive:
    """A backup's file, the folder that it alone is in, what it says, and what it may unpack to."""

    path: Path
    folder: Path
    index: VolumeIndex
    snapshots: Sequence[CustomEntry]
    budget: Budget
    header: OptimizedHeader = field(default_factory=OptimizedHeader)


class VolumeImporter:
    """The use case of importing a volume's backup."""

    def __init__(
        self,
        database: Database,
        paths: Paths,
        storage: StorageService,
        volumes: VolumeService,
        operations: OperationRegistry,
    ) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._operations = operations
        self._files = BackupFiles(paths, KIND)

    async def start(self, wish: Wish, chunks: Chunks, *, caller: Caller) -> Operation:
        """Take in the archive, and return the operation that makes a volume of it. What is wrong with the archive's description
        or with names is refused before that."""
        if wish.name:
            names.volume(wish.name)
        async with self._database.read() as tx:
            await rows.pool(tx, wish.pool)
        async with self._files.received("backup", chunks) as folder:
            return await self._start(wish, folder, caller=caller)

    async def _start(self, wish: Wish, folder: Path, *, caller: Caller) -> Operation:
        path = folder / UPLOAD
        index = await archive_backup.read_volume_index(path, budgets.SEARCH)
        wish = dataclasses.replace(wish, name=wish.name or index.name)
        snapshots = index.in_order()
        driver = self._storage.driver(wish.pool)
        for entry in (index.volume, *snapshots):
            shift = restoring.parse_shift(_LAST_IDMAP, entry.config.get(_LAST_IDMAP, ""))
            if shift is not None and index.optimized:
                raise Unsupported(
                    "The backup is optimized and its files have the ids of the host that it comes from",
                    hint="export it without --optimized-storage",
                )
            volume_entries.own_config(driver, entry, index.content)
        header = await self._check_optimized(index, driver, path)
        budget = await budgets.of_pool(driver)
        if not index.optimized:
            path = await archive_backup.as_tar(path, folder, budget)
        archive = _Archive(path, folder, index, snapshots, budget, header)
        await self._volumes.require_absent(wish.pool, await self._volumes.owner(wish.project), wish.name)

        async def work(operation: Operation) -> None:
            async with self._files.using(folder):
                await self._make(wish, archive, operation, caller=caller)

        resources = {"storage_volumes": [volume_url(wish.pool, "custom", wish.name, wish.project)]}
        spec = OperationSpec("Restoring custom volume backup", work, project=wish.project, resources=resources, caller=caller)
        return self._operations.start(spec)

    async def _check_optimized(self, index: VolumeIndex, driver: StorageDriver, path: Path) -> OptimizedHeader:
        if not index.optimized:
            return OptimizedHeader()
        if not driver.capabilities.optimized_backups or driver.name != index.backend:
            raise BadRequest(
                f"Optimized backup storage driver {index.backend[:40]!r} differs from the target storage pool driver"
                f" {driver.name!r}"
            )
        return await archive_backup.read_header(path, budgets.SEARCH) if index.optimized_header else OptimizedHeader()

    async def _make(self, wish: Wish, archive: _Archive, operation: Operation, *, caller: Caller) -> None:
        entry, driver = archive.index.volume, self._storage.driver(wish.pool)

        async def write_snapshots(tx: Transaction, volume: StorageVolume) -> None:
            await volume_entries.write_snapshots(tx, driver, volume, archive.snapshots)

        created_at = restoring.settled_time(entry.created_at)
        content = archive.index.content
        config = volume_entries.own_config(driver, entry, content)
        new = NewVolume(wish.pool, wish.project, wish.name, entry.description, config, content, created_at)
        creating = self._volumes.creating(new, caller=caller, rest=write_snapshots)
        async with creating as volume:
            if archive.index.optimized:
                taken = [each.name for each in archive.snapshots]
                await backup_streams.receive(
                    archive.path, CUSTOM, archive.header, driver, volume_id(volume), taken, folder=archive.folder,
                    budget=archive.budget,
                )  # fmt: skip
            else:
                await self._unpack(archive, driver, volume, operation)
            await self._volumes.apply_size(volume)

    async def _unpack(self, archive: _Archive, driver: StorageDriver, volume: StorageVolume, operation: Operation) -> None:
        """The oldest snapshot first, each later state over it."""
        own = volume_id(volume)
        for number, entry in enumerate((*archive.snapshots, archive.index.volume)):
            snapshot = entry.name if number < len(archive.snapshots) else ""
            await self._place(archive, driver, volume, snapshot, entry, operation, anew=number == 0)
            if snapshot:
                await driver.snapshot(own.at(snapshot))

    async def _place(
        self,
        archive: _Archive,
        driver: StorageDriver,
        volume: StorageVolume,
        snapshot: str,
        entry: CustomEntry,
        operation: Operation,
        *,
        anew: bool,
    ) -> None:
        """Make the volume what a folder or a disk of the archive is: `anew`, or by changing what differs."""
        shifted = restoring.parse_shift(_LAST_IDMAP, entry.config.get(_LAST_IDMAP, ""))
        file, place, budget, progress = archive.path, CUSTOM.place(snapshot), archive.budget, _report(operation)

        async def fill(target: Path) -> None:
            if volume.content.is_disk:
                await archive_image.extract(file, f"{place}{DISK_SUFFIX}", target, budget, progress)
            else:
                await archive_backup.unpack_custom(file, place, target, shifted=shifted, budget=budget, progress=progress)

        if anew:
            await driver.create(volume_id(volume), fill)
            return
        if volume.content.is_disk:
            async with driver.open_rootfs(volume_id(volume)) as data:
                await fill(data)
            return
        stage = archive.folder / "volume"
        await in_thread(stage.mkdir, 0o711)
        await fill(stage)
        async with driver.open_rootfs(volume_id(volume)) as data:
            await treesync.sync(stage, data, read_content=True)
        await in_thread(confined.remove_tree, stage)


def _report(operation: Operation) -> Progress:
    return lambda read: operation.progress(_PROGRESS, f"Backup: {read / 1e6:.2f}MB")
