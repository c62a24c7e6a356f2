"""Backups of custom volumes: a file each, laid out as LXD's, that can be exported and kept anywhere.

A volume is held while it is packed; of one that machines write to a snapshot is packed that exists only for that. Backups are
packed one after the other, for each takes all that the host has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path

from atoll.db import storage as storage_rows
from atoll.db import volume_backups as rows
from atoll.db.engine import Database
from atoll.domain import clock, names
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.compression import Compression
from atoll.domain.entities import StorageVolume, VolumeBackup
from atoll.domain.errors import AtollError, NotFound
from atoll.domain.paths import Paths
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host import archive_pack
from atoll.host.threads import in_thread
from atoll.services import backup_records, volume_backup_content
from atoll.services.backup_records import BackupRecords, Finish, Order
from atoll.services.instances.backup_files import ARCHIVE, BackupFiles
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.storage import StorageService
from atoll.services.volume_backup_content import Subject
from atoll.services.volume_copy import VolumeCopier
from atoll.services.volume_urls import volume_url
from atoll.services.volumes import CUSTOM, VolumeService, volume_id

log = logging.getLogger(__name__)

KIND = "custom"
"""The folder of their files in that of backups."""


class VolumeBackups:
    """Use cases of custom volumes' backups."""

    def __init__(
        self,
        database: Database,
        paths: Paths,
        storage: StorageService,
        volumes: VolumeService,
        copier: VolumeCopier,
        operations: OperationRegistry,
    ) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._copier = copier
        self._operations = operations
        self._files = BackupFiles(paths, KIND)
        self._records = BackupRecords(database, rows.TABLE, self._files)
        self._turn = asyncio.Lock()

    # --- looking -------------------------------------------------------------------------------------------------------

    async def find_all(self, volume: StorageVolume) -> list[VolumeBackup]:
        """A volume's backups, oldest first."""
        async with self._database.read() as tx:
            return await rows.of(tx, volume.id)

    async def find(self, volume: StorageVolume, backup: str) -> VolumeBackup:
        """One. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.find(tx, volume.id, backup)

    async def file(self, volume: StorageVolume, backup: str, *, caller: Caller) -> Path:
        """The file of a whole one, to be sent. Conflict while it is being made."""
        backup_records.require_whole(await self.find(volume, backup))
        path = self._files.path(key_of(volume), backup)
        if not await in_thread(path.is_file):
            raise NotFound("The file of the backup is not on this server")
        self._volumes.tell("storage-volume-backup-retrieved", volume, f"/backups/{backup}", caller=caller)
        return path

    # --- making --------------------------------------------------------------------------------------------------------

    async def create(self, volume: StorageVolume, order: Order, *, asking: str, caller: Caller) -> Operation:
        """The operation that makes one. Refused before it starts for a bad or taken name, or an unknown compression. `asking`,
        here and below: the project that asks, whose clients hear of the operation."""
        self._volumes.refuse_daemons(volume, "cannot be backed up")
        packing = await self._records.compression(volume.project, order.compression)
        present = await self.find_all(volume)
        backup = names.backup(order.name) if order.name else backup_records.next_name({each.name for each in present})
        optimized = order.optimized and self._storage.driver(volume.pool).capabilities.optimized_backups
        row_id = await self._records.begin(volume.id, backup, order, optimized=optimized)

        async def work(operation: Operation) -> None:
            async with self._records.making(row_id) as finish, self._turn, self._volumes.hold(volume) as (held,):
                await self._make(held, backup, packing, operation, finish, volume_only=order.alone, optimized=optimized)
            self._volumes.tell("storage-volume-backup-created", held, f"/backups/{backup}", caller=caller, type=CUSTOM)

        operation = self._start("Creating custom volume backup", volume, backup, work, asking=asking, caller=caller)
        operation.when_done(partial(self._records.done, row_id))
        return operation

    async def _make(
        self,
        volume: StorageVolume,
        backup: str,
        packing: Compression,
        operation: Operation,
        finish: Finish,
        *,
        volume_only: bool,
        optimized: bool,
    ) -> None:
        """Pack the file of a volume that is held and put it in its place."""
        async with AsyncExitStack() as stack:
            stage = await self._files.stage(key_of(volume))
            stack.push_async_callback(self._files.discard, stage)
            content = await stack.enter_async_context(self._copier.content(volume))
            async with self._database.read() as tx:
                pool = await storage_rows.pool(tx, volume.pool)
            subject = Subject(volume, [] if volume_only else await self._volumes.snapshots(volume), pool)
            driver = self._storage.driver(volume.pool)
            if optimized:
                packed = await volume_backup_content.optimized(driver, subject, content, stage)
            else:
                packed = await volume_backup_content.plain(stack, driver, subject, content, stage)
            report = backup_records.report(operation)
            await archive_pack.pack_tar(packed.members, packed.names, stage / ARCHIVE, compression=packing, progress=report)
            await finish(stage, key_of(volume), backup)

    # --- renaming, deleting --------------------------------------------------------------------------------------------

    async def rename(self, volume: StorageVolume, backup: str, new: str, *, asking: str, caller: Caller) -> Operation:
        """The operation that gives one another name. Conflict if that is taken, or the backup not whole."""
        found = await self.find(volume, backup)
        names.backup(new)
        backup_records.require_whole(found)

        async def work(_: Operation) -> None:
            async with self._volumes.hold(volume) as (held,):
                await self._records.rename(key_of(held), found, new)
            self._volumes.tell("storage-volume-backup-renamed", held, f"/backups/{new}", caller=caller, old_name=backup)

        return self._start("Renaming custom volume backup", volume, backup, work, asking=asking, caller=caller)

    async def delete(self, volume: StorageVolume, backup: str, *, asking: str, caller: Caller) -> Operation:
        """The operation that removes one."""
        found = await self.find(volume, backup)
        backup_records.require_whole(found)

        async def work(_: Operation) -> None:
            await self._delete(volume, found, caller=caller)

        return self._start("Deleting custom volume backup", volume, backup, work, asking=asking, caller=caller)

    async def _delete(self, volume: StorageVolume, backup: VolumeBackup, *, caller: Caller) -> None:
        async with self._volumes.hold(volume) as (held,):
            await self._records.delete(key_of(held), backup)
        self._volumes.tell("storage-volume-backup-deleted", held, f"/backups/{backup.name}", caller=caller)

    def _start(self, what: str, volume: StorageVolume, backup: str, work: Work, *, asking: str, caller: Caller) -> Operation:
        resources = {
            "storage_volumes": [volume_url(volume.pool, CUSTOM, volume.name, volume.project)],
            "backups": [f"/1.0/backups/{backup}"],  # not its URL: clients cut the name out of it by this prefix
        }
        return self._operations.start(OperationSpec(what, work, project=asking, resources=resources, caller=caller))

    # --- when volumes go or move ---------------------------------------------------------------------------------------

    async def remove_all(self, volume: StorageVolume) -> None:
        """The files of a volume that is being deleted; their records go with its own."""
        for backup in await self.find_all(volume):
            await self._files.remove(key_of(volume), backup.name)
            if backup.phase.startswith(backup_records.RENAMING):
                await self._files.remove(key_of(volume), backup.phase.removeprefix(backup_records.RENAMING))
        await self._files.remove_owner(key_of(volume))

    async def follow(self, old: StorageVolume, new: StorageVolume) -> None:
        """The files of a volume that has moved. Can be repeated."""
        await self._files.rename_owner(key_of(old), key_of(new))

    # --- unasked -------------------------------------------------------------------------------------------------------

    async def expire(self, _: Sequence[datetime]) -> None:
        """A job of the scheduler: remove what has expired, and settle what is half done."""
        for sentence in await self._settle():
            log.warning("Repaired: %s", sentence)
        async with self._database.read() as tx:
            expired = await rows.expired(tx, clock.rfc3339())
        for backup in expired:
            try:
                volume = await self._volumes.find(backup.pool, backup.project, CUSTOM, backup.volume)
                await self._delete(volume, backup, caller=DAEMON)
            except AtollError as error:
                log.warning("Expired backup %s/%s stays: %s", backup.volume, backup.name, error)

    async def repair(self) -> list[str]:
        """On start, when all volumes are in their places: remove or finish what a kill cut off. One sentence for each."""
        async with self._database.read() as tx:
            keys = [key_of(each) for each in await storage_rows.volumes(tx, type=CUSTOM)]
        done = await self._settle()
        for folder in await self._files.leftovers(keys):
            await self._files.discard(folder)
        return done

    async def _settle(self) -> list[str]:
        async with self._database.read() as tx:
            unfinished = await rows.unfinished(tx)
        keys = (f"{each.pool}/{VolumeId(VolumeKind.CUSTOM, each.project, each.volume).key}" for each in unfinished)
        return await self._records.settle(zip(keys, unfinished, strict=True))


def key_of(volume: StorageVolume) -> str:
    """Where its backups are, see `BackupFiles`: as LXD has them."""
    return f"{volume.pool}/{volume_id(volume).key}"
