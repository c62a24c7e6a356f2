"""What backups have in common, whatever they are of: a record and a file that change together, so that a kill at any moment
leaves what `BackupRecords.settle` finishes or removes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.db import projects as project_rows
from atoll.db import settings
from atoll.db.backups import Table
from atoll.db.engine import Database, Transaction
from atoll.domain import clock, compression
from atoll.domain.compression import Compression
from atoll.domain.entities import Backup, VolumeBackup
from atoll.domain.errors import AtollError, Conflict
from atoll.domain.undo import Reverter
from atoll.services.instances.backup_files import BackupFiles
from atoll.services.operations import Operation

log = logging.getLogger(__name__)

CREATING, DELETING, RENAMING = "creating", "deleting", "renaming from "
"""Phases of a record; the last is followed by the name that the file may still have."""

PROGRESS = "create_backup_progress"
_KEY = "backups.compression_algorithm"
_BUSY = "The backup is being worked on"

Record = Backup | VolumeBackup
Finish = Callable[[Path, str, str], Awaitable[None]]
"""Takes the hidden folder with the archive, the owner's key and the backup's name."""


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
        self._at_work: set[int] = set()
        """Rows of those that somebody makes, renames or removes."""

    async def begin(self, owner_id: int, name: str, order: Order, *, optimized: bool) -> int:
        """The record of a backup that is going to be made. Conflict if the name is taken."""
        with ExitStack() as stack, _unless_taken(name):
            async with self._database.write() as tx:
                row_id = await self._table.create(
                    tx,
                    owner_id,
                    name,
                    created_at=clock.rfc3339(),
                    expires_at=order.expires_at,
                    alone=order.alone,
                    optimized_storage=optimized,
                    phase=CREATING,
                )
                self._at_work.add(row_id)  # before anybody sees it
                stack.callback(self.done, row_id)
            stack.pop_all()  # what is written is not done
        return row_id

    def done(self, row_id: int) -> None:
        """What `begin` began is over, however it ended."""
        self._at_work.discard(row_id)

    @asynccontextmanager
    async def making(self, row_id: int) -> AsyncIterator[Finish]:
        """The block makes the archive and calls what it is given: the backup is whole. After a failure nothing is left."""
        async with Reverter("make a backup") as undo:
            undo.add(self._forget, row_id)

            async def finish(folder: Path, key: str, name: str) -> None:
                undo.success()
                undo.add(self._remove, key, name, row_id)
                await self._files.publish(folder, key, name)
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
        """Record and file. Conflict if the name is taken, or something was done to it since it was looked at."""
        with self._working_on(backup.id):
            async with self._database.write() as tx:
                await self._require_unchanged(tx, backup)
                with _unless_taken(new):
                    await self._table.rename(tx, backup.id, new)
                await self._table.set_phase(tx, backup.id, RENAMING + backup.name)
            await self._finish_rename(key, backup.id, backup.name, new)

    @contextmanager
    def _working_on(self, row_id: int) -> Iterator[None]:
        """Nobody else does while the block runs. Conflict if somebody is at work on it already."""
        if row_id in self._at_work:
            raise Conflict(_BUSY)
        self._at_work.add(row_id)
        try:
            yield
        finally:
            self._at_work.discard(row_id)

    async def _require_unchanged(self, tx: Transaction, backup: Record) -> None:
        if await self._table.present(tx, backup.id) != (backup.name, backup.phase):
            raise Conflict("The backup was changed meanwhile")

    async def _finish_rename(self, key: str, row_id: int, old: str, new: str) -> None:
        """The file's part. Can be repeated."""
        await self._files.rename(key, old, new)
        async with self._database.write() as tx:
            await self._table.set_phase(tx, row_id, "")

    async def delete(self, key: str, backup: Record) -> None:
        """File and record. Conflict if something was done to it since it was looked at."""
        with self._working_on(backup.id):
            async with self._database.write() as tx:
                await self._require_unchanged(tx, backup)
                await self._table.set_phase(tx, backup.id, DELETING)
            await self._remove(key, backup.name, backup.id)

    async def _remove(self, key: str, name: str, row_id: int) -> None:
        """The record goes last: as long as there is a file, `settle` finds it."""
        await self._files.remove(key, name)
        await self._forget(row_id)

    async def _forget(self, row_id: int) -> None:
        async with self._database.write() as tx:
            await self._table.delete(tx, row_id)

    async def settle(self, unfinished: Iterable[tuple[str, Record]]) -> list[str]:
        """Of these, each behind its owner's key, finish or remove what nobody is at work on: a kill cut it off, or it failed. One
        sentence for each; what cannot be settled now is logged, and tried again."""
        done: list[str] = []
        for key, backup in unfinished:
            if backup.id in self._at_work:
                continue
            try:
                done += await self._settle(key, backup)
            except AtollError as error:
                log.error("What is half done to backup %s/%s cannot be settled now: %s", key, backup.name, error)
        return done

    async def _settle(self, key: str, backup: Record) -> list[str]:
        with self._working_on(backup.id):
            async with self._database.read() as tx:
                if await self._table.present(tx, backup.id) != (backup.name, backup.phase):
                    return []  # whoever was at work on it when it was looked at has come to an end
            if backup.phase.startswith(RENAMING):
                old = backup.phase.removeprefix(RENAMING)
                await self._finish_rename(key, backup.id, old, backup.name)
                return [f"finished renaming backup {old} of {key} to {backup.name}"]
            await self._remove(key, backup.name, backup.id)
            return [f"removed backup {key}/{backup.name}: its {backup.phase.removesuffix('ing')}ion was cut off"]


@contextmanager
def _unless_taken(name: str) -> Iterator[None]:
    """Says what it is that exists already."""
    try:
        yield
    except Conflict as error:
        raise Conflict(f"Backup {name!r} already exists") from error


def require_whole(backup: Record) -> None:
    """Conflict while something is done to it."""
    if backup.phase:
        raise Conflict(_BUSY)


def next_name(taken: Collection[str]) -> str:
    """The first free `backupN`."""
    return next(f"backup{i}" for i in range(len(taken) + 1) if f"backup{i}" not in taken)


def report(operation: Operation) -> Callable[[int], None]:
    """Tells the operation how many bytes are written."""
    return lambda written: operation.progress(PROGRESS, f"Backup: {written / 1e6:.2f}MB")
