"""What backups have in common, whatever they are of: a record and a file that change together, so that a kill at any moment
leaves what `BackupRecords.settle` finishes or removes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atoll.db import projects as project_rows
from atoll.db import settings
from atoll.db.backups import Table
from atoll.db.engine import Database
from atoll.domain import clock, compression
from atoll.domain.compression import Compression
from atoll.domain.entities import Backup, VolumeBackup
from atoll.domain.errors import Conflict
from atoll.domain.undo import Reverter
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.operations import Operation

CREATING, DELETING, RENAMING = "creating", "deleting", "renaming from "
"""Phases of a record; the last is followed by the name that the file may still have."""

PROGRESS = "create_backup_progress"
_KEY = "backups.compression_algorithm"

Record = Backup | VolumeBackup
Finish = Callable[[str, str], Awaitable[None]]
"""Takes the owner's key and the backup's name."""


@dataclass(frozen=True, slots=True)
class Order:
    """A backup to make. Without `name` the next free `backupN`; `expires_at` is empty for never; `alone` leaves snapshots out;
    `optimized` is passed over where the pool's driver has no form of its own."""

    name: str = ""
    expires_at: str = ""
    alone: bool = False
    compression: str = ""
    optimized: bool = False


class BackupRecords:
    """Records and files of one kind of owners' backups. `key` is the owner's folder, see `BackupFiles`."""

    def __init__(self, database: Database, table: Table, files: BackupFiles) -> None:
        self._database = database
        self._table = table
        self._files = files

    async def begin(self, owner_id: int, name: str, order: Order, *, optimized: bool) -> int:
        """The record of a backup that is going to be made. Conflict if the name is taken."""
        async with self._database.write() as tx:
            return await self._table.create(
                tx,
                owner_id,
                name,
                created_at=clock.rfc3339(),
                expires_at=order.expires_at,
                alone=order.alone,
                optimized_storage=optimized,
                phase=CREATING,
            )

    @asynccontextmanager
    async def making(self, row_id: int) -> AsyncIterator[Finish]:
        """The block makes the file and then calls what it is given: the backup is whole. After a failure nothing is left."""
        async with Reverter("make a backup") as undo:
            undo.add(self._forget, row_id)

            async def finish(key: str, name: str) -> None:
                undo.add(self._files.remove, key, name)
                async with self._database.write() as tx:
                    await self._table.set_phase(tx, row_id, "")

            yield finish
            undo.success()

    async def compression(self, project: str, wished: str) -> Compression:
        """What is wished for, else what the project says, else the server, else gzip. BadRequest for what is none."""
        async with self._database.read() as tx:
            configured = (await project_rows.find(tx, project)).config.get(_KEY) or (await settings.load(tx)).get(_KEY, "")
        return compression.parse(wished or configured or compression.GZIP.algorithm.value)

    async def rename(self, key: str, backup: Record, new: str) -> None:
        """Record and file. Conflict if the name is taken."""
        async with self._database.write() as tx:
            await self._table.rename(tx, backup.id, new)
            await self._table.set_phase(tx, backup.id, RENAMING + backup.name)
        await self._finish_rename(key, backup.id, backup.name, new)

    async def _finish_rename(self, key: str, row_id: int, old: str, new: str) -> None:
        """The file's part. Can be repeated."""
        await self._files.rename(key, old, new)
        async with self._database.write() as tx:
            await self._table.set_phase(tx, row_id, "")

    async def delete(self, key: str, backup: Record) -> None:
        """File and record."""
        async with self._database.write() as tx:
            await self._table.set_phase(tx, backup.id, DELETING)
        await self._files.remove(key, backup.name)
        await self._forget(backup.id)

    async def _forget(self, row_id: int) -> None:
        async with self._database.write() as tx:
            await self._table.delete(tx, row_id)

    async def settle(self, key: str, backup: Record) -> str:
        """On start: finish or remove one that a kill cut off. Says what was done."""
        if backup.phase.startswith(RENAMING):
            old = backup.phase.removeprefix(RENAMING)
            await self._finish_rename(key, backup.id, old, backup.name)
            return f"finished renaming backup {old} of {key} to {backup.name}"
        await self.delete(key, backup)
        return f"removed backup {key}/{backup.name}: its {backup.phase.removesuffix('ing')}ion was cut off"


def require_whole(backup: Record) -> None:
    """Conflict while something is done to it."""
    if backup.phase:
        raise Conflict("The backup is being worked on")


def next_name(taken: Collection[str]) -> str:
    """The first free `backupN`."""
    return next(f"backup{i}" for i in range(len(taken) + 1) if f"backup{i}" not in taken)


def report(operation: Operation) -> Callable[[int], None]:
    """Tells the operation how many bytes are written."""
    return lambda written: operation.progress(PROGRESS, f"Backup: {written / 1e6:.2f}MB")
