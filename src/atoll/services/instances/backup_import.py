"""Instances made of backup files: the upload to a folder of its own, then an operation.

The folder is hidden in that of backups and goes with the operation's end; one that a kill leaves goes on the next start, and
the half-made instance with it, for its row says that it is being created (`create.InstanceCreator.repair`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import backup_metadata, names
from atoll.domain.backup_metadata import BackupIndex, InstanceBackup, OptimizedHeader
from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest, NotFound, Unsupported
from atoll.host import archive_backup
from atoll.services import budgets
from atoll.services.instances import restoring
from atoll.services.instances.backup_files import UPLOAD, BackupFiles
from atoll.services.instances.core import InstanceCore
from atoll.services.instances.create import InstanceCreator, Request
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import expand
from atoll.services.instances.restoring import Archive, ArchiveOrigin
from atoll.services.intake import Chunks
from atoll.services.operations import Operation


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client says besides the archive. Without `name` or `pool`: the archive's."""

    project: str
    name: str = ""
    pool: str = ""


class BackupImporter:
    """The use case of importing a backup."""

    def __init__(self, core: InstanceCore, devices: DeviceService, creator: InstanceCreator) -> None:
        self._core = core
        self._devices = devices
        self._creator = creator
        self._files = BackupFiles(core.paths)

    async def start(self, wish: Wish, chunks: Chunks, *, caller: Caller) -> Operation:
        """Take in the archive, and return the operation that makes an instance of it. What is wrong with the archive's
        description, with names, or with what it needs here, is refused before that."""
        if wish.name:
            names.instance(wish.name)
        if wish.pool:
            names.storage_pool(wish.pool)
            await self._require_pool(wish.pool)
        async with self._files.received("backup", chunks) as folder:
            return await self._start(wish, folder, caller=caller)

    async def _require_pool(self, pool: str) -> None:
        async with self._core.database.read() as tx:
            await storage_rows.pool(tx, pool)

    async def _start(self, wish: Wish, folder: Path, *, caller: Caller) -> Operation:
        path = folder / UPLOAD
        index = await archive_backup.read_index(path, budgets.SEARCH)
        if index.type != "container":
            raise Unsupported("Virtual machines are not supported in this release")
        backup = _in_order(index, index.config or await archive_backup.read_backup(path, budgets.SEARCH))
        async with self._core.database.read() as tx:
            pool = wish.pool or await self._choose_pool(tx, wish.project, index)
            devices = await restoring.settle_devices(self._core, tx, wish.project, backup.container, pool)
        header = await self._check_optimized(index, backup, pool, path)
        budget = await budgets.of_pool(self._core.storage.driver(pool))
        archive = Archive(path, folder, backup, budget, optimized=index.optimized, header=header)
        entry = backup.container
        request = Request(
            project=wish.project,
            name=wish.name or index.name,
            architecture=entry.architecture,
            description=entry.description,
            ephemeral=entry.ephemeral,
            config=restoring.own_config(entry),
            devices=devices,
            profiles=tuple(entry.profiles),
        )
        for each in (entry, *backup.snapshots):
            restoring.kept_volatile(each)
            restoring.shift_of(each)
        origin = ArchiveOrigin(self._core, self._devices, archive, self._files)
        base_image = entry.config.get("volatile.base_image", "")
        return await self._creator.start(request, origin, caller=caller, base_image=base_image, description="Restoring backup")

    async def _choose_pool(self, tx: Transaction, project: str, index: BackupIndex) -> str:
        """The archive's, if there is one of that name, else that of the default profile."""
        pools = {pool.name for pool in await storage_rows.pools(tx)}
        if index.pool in pools:
            return index.pool
        default = (await self._core.profiles_in(tx, project)).get("default")
        try:
            chosen = expand({}, {}, [default] if default is not None else []).root_disk()[1].get("pool", "")
        except BadRequest as error:
            raise BadRequest(
                f"The backup's storage pool {index.pool!r} doesn't exist, and the default profile has no root disk",
                hint="name a storage pool",
            ) from error
        if chosen not in pools:
            raise NotFound("Storage pool not found")
        return chosen

    async def _check_optimized(self, index: BackupIndex, backup: InstanceBackup, pool: str, path: Path) -> OptimizedHeader:
        if not index.optimized:
            return OptimizedHeader()
        driver = self._core.storage.driver(pool)
        if not driver.capabilities.optimized_backups or driver.name != index.backend:
            raise BadRequest(
                f"Optimized backup storage driver {index.backend[:40]!r} differs from the target storage pool driver"
                f" {driver.name!r}"
            )
        restoring.require_plain(backup)
        return await archive_backup.read_header(path, budgets.SEARCH) if index.optimized_header else OptimizedHeader()


def _in_order(index: BackupIndex, backup: InstanceBackup) -> InstanceBackup:
    """What is described, with the snapshots that are in the archive, in the order of their making."""
    backup_metadata.require_snapshots(index, backup)
    described = {entry.name: entry for entry in backup.snapshots}
    return msgspec.structs.replace(backup, snapshots=[described[name] for name in index.snapshots])
