"""Backups of instances: a file each, laid out as LXD's, that can be exported and kept anywhere.

A stopped instance is held while it is packed; of a running one a snapshot is packed that exists only for that. Backups are packed
one after the other, for each takes all that the host has.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path

from atoll.db import backups as rows
from atoll.domain import clock, names
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.compression import Compression
from atoll.domain.entities import Backup
from atoll.domain.errors import AtollError, Conflict, NotFound
from atoll.drivers.instance.contract import MachineId
from atoll.host import archive_pack
from atoll.host.threads import in_thread
from atoll.services import backup_records
from atoll.services.backup_records import BackupRecords, Finish, Order
from atoll.services.instances import backup_content, backup_subject, copy
from atoll.services.instances.backup_files import ARCHIVE, BackupFiles
from atoll.services.instances.copy import Source
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work

log = logging.getLogger(__name__)


class BackupService:
    """Use cases of instances' backups."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations
        self._files = BackupFiles(core.paths)
        self._records = BackupRecords(core.database, rows.TABLE, self._files)
        self._turn = asyncio.Lock()

    # --- looking -------------------------------------------------------------------------------------------------------

    async def find_all(self, project: str, name: str) -> tuple[Loaded, list[Backup]]:
        """An instance with its backups, oldest first."""
        async with self._core.database.read() as tx:
            loaded = await self._core.load_in(tx, project, name)
            return loaded, await rows.of(tx, loaded.record.id)

    async def find(self, project: str, name: str, backup: str) -> tuple[Loaded, Backup]:
        """An instance with one of its backups. NotFound if there is none."""
        async with self._core.database.read() as tx:
            loaded = await self._core.load_in(tx, project, name)
            return loaded, await rows.find(tx, loaded.record.id, backup)

    async def file(self, project: str, name: str, backup: str, *, caller: Caller) -> Path:
        """The file of a whole one, to be sent. Conflict while it is being made."""
        loaded, found = await self.find(project, name, backup)
        if found.phase:
            raise Conflict("The backup is being worked on")
        path = self._files.path(loaded.machine.key, backup)
        if not await in_thread(path.is_file):
            raise NotFound("The file of the backup is not on this server")
        self._core.tell("instance-backup-retrieved", loaded.record, suffix=f"/backups/{backup}", caller=caller)
        return path

    # --- making --------------------------------------------------------------------------------------------------------

    async def create(self, project: str, name: str, order: Order, *, caller: Caller) -> Operation:
        """The operation that makes one. Refused before it starts for a bad or taken name, or an unknown compression."""
        packing = await self._records.compression(project, order.compression)
        loaded, present = await self.find_all(project, name)
        backup = names.backup(order.name) if order.name else backup_records.next_name({each.name for each in present})
        optimized = order.optimized and self._core.storage.driver(loaded.pool).capabilities.optimized_backups
        row_id = await self._records.begin(loaded.record.id, backup, order, optimized=optimized)

        async def work(operation: Operation) -> None:
            async with self._records.making(row_id) as finish:
                await self._make(loaded, backup, packing, operation, finish, instance_only=order.alone, optimized=optimized)
            self._core.tell("instance-backup-created", loaded.record, suffix=f"/backups/{backup}", caller=caller)

        operation = self._start("Backing up instance", loaded, backup, work, caller)
        operation.when_done(partial(self._records.done, row_id))
        return operation

    async def _make(
        self,
        loaded: Loaded,
        backup: str,
        packing: Compression,
        operation: Operation,
        finish: Finish,
        *,
        instance_only: bool,
        optimized: bool,
    ) -> None:
        """Pack the file and put it in its place."""
        key = loaded.machine.key
        async with self._turn, AsyncExitStack() as stack:
            stage = await self._files.stage(key)
            stack.push_async_callback(self._files.discard, stage)
            wanted = Source(loaded.record.project, loaded.record.name, instance_only=instance_only)
            still = await stack.enter_async_context(copy.unchanging(self._core, wanted))
            sent = {each.name for each in still.snapshots}
            subject = await backup_subject.load(self._core, still.loaded, snapshots=sent)
            driver = self._core.storage.driver(still.loaded.pool)
            if optimized:
                packed = await backup_content.optimized(driver, subject, still.content, stage)
            else:
                packed = await backup_content.plain(stack, driver, subject, still.content, stage)
            report = backup_records.report(operation)
            await archive_pack.pack_tar(packed.members, packed.names, stage / ARCHIVE, compression=packing, progress=report)
            await finish(stage, key, backup)

    # --- renaming, deleting --------------------------------------------------------------------------------------------

    async def rename(self, project: str, name: str, backup: str, new: str, *, caller: Caller) -> Operation:
        """The operation that gives one another name. Conflict if that is taken, or the backup not whole."""
        names.backup(new)
        loaded, found = await self.find(project, name, backup)
        backup_records.require_whole(found)

        async def work(_: Operation) -> None:
            await self._records.rename(loaded.machine.key, found, new)
            context = {"old_name": f"{name}/{backup}"}
            self._core.tell("instance-backup-renamed", loaded.record, suffix=f"/backups/{new}", context=context, caller=caller)

        return self._start("Renaming instance backup", loaded, backup, work, caller)

    async def delete(self, project: str, name: str, backup: str, *, caller: Caller) -> Operation:
        """The operation that removes one."""
        loaded, found = await self.find(project, name, backup)
        backup_records.require_whole(found)

        async def work(_: Operation) -> None:
            await self._records.delete(loaded.machine.key, found)
            self._core.tell("instance-backup-deleted", loaded.record, suffix=f"/backups/{backup}", caller=caller)

        return self._start("Removing instance backup", loaded, backup, work, caller)

    def _start(self, description: str, loaded: Loaded, backup: str, work: Work, caller: Caller) -> Operation:
        record = loaded.record
        resources = instance_resources(record.name)
        resources["backups"] = [f"/1.0/backups/{backup}"]  # not its URL: clients cut the name out of it by this prefix
        return self._operations.start(
            OperationSpec(description, work, project=record.project, resources=resources, caller=caller)
        )

    # --- unasked -------------------------------------------------------------------------------------------------------

    async def expire(self, _: Sequence[datetime]) -> None:
        """A job of the scheduler: remove what has expired, and settle what is half done."""
        for sentence in await self._settle():
            log.warning("Repaired: %s", sentence)
        async with self._core.database.read() as tx:
            expired = await rows.expired(tx, clock.rfc3339())
        for backup in expired:
            try:
                loaded = await self._core.load(backup.project, backup.instance)
                await self._records.delete(loaded.machine.key, backup)
            except AtollError as error:
                log.warning("Expired backup %s/%s stays: %s", backup.instance, backup.name, error)
            else:
                self._core.tell("instance-backup-deleted", loaded.record, suffix=f"/backups/{backup.name}", caller=DAEMON)

    async def repair(self) -> list[str]:
        """On start: remove or finish what a kill cut off. One sentence for each."""
        done = await self._settle()
        for folder in await self._files.leftovers([each.machine.key for each in await self._core.load_all(None)]):
            await self._files.discard(folder)
        return done

    async def _settle(self) -> list[str]:
        async with self._core.database.read() as tx:
            unfinished = await rows.unfinished(tx)
        keys = (MachineId(each.project, each.instance).key for each in unfinished)
        return await self._records.settle(zip(keys, unfinished, strict=True))
