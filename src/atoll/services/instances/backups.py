"""Backups of instances: a file each, laid out as LXD's, that can be exported and kept anywhere.

A stopped instance is held while it is packed; of a running one a snapshot is packed that exists only for that. Backups are packed
one after the other, for each takes all that the host has.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.db import backups as rows
from atoll.db import instances as instance_rows
from atoll.db import projects as project_rows
from atoll.db import settings
from atoll.db import storage as storage_rows
from atoll.domain import clock, compression, names
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.compression import Algorithm, Compression
from atoll.domain.entities import Backup, Snapshot
from atoll.domain.errors import AtollError, BadRequest, Conflict, NotFound
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import StorageDriver, VolumeId
from atoll.host import archive_pack
from atoll.host.archive_sandbox import Bind
from atoll.host.threads import in_thread
from atoll.services.instances import backup_index
from atoll.services.instances.backup_files import ARCHIVE, BackupFiles
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work

log = logging.getLogger(__name__)

CREATING, DELETING, RENAMING = "creating", "deleting", "renaming from "
"""Phases of a record; the last is followed by the name that the file may still have."""

PROGRESS = "create_backup_progress"
EXPIRY_SECONDS = 60.0
"""How often expired backups are looked for."""

_KEY = "backups.compression_algorithm"


@dataclass(frozen=True, slots=True)
class Order:
    """A backup to make. Without `name` the next free `backupN`; `expires_at` is empty for never."""

    name: str = ""
    expires_at: str = ""
    instance_only: bool = False
    compression: str = ""


class BackupService:
    """Use cases of instances' backups."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations
        self._files = BackupFiles(core.paths)
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
        packing = await self._compression(project, order.compression)
        loaded, present = await self.find_all(project, name)
        backup = names.backup(order.name) if order.name else _next_name({each.name for each in present})
        async with self._core.database.write() as tx:
            row_id = await rows.create(
                tx,
                loaded.record.id,
                backup,
                created_at=clock.rfc3339(),
                expires_at=order.expires_at,
                instance_only=order.instance_only,
                phase=CREATING,
            )

        async def work(operation: Operation) -> None:
            async with Reverter(f"back up {loaded.machine.key}") as undo:
                undo.add(self._forget, row_id)
                await self._make(loaded, backup, packing, operation, instance_only=order.instance_only)
                undo.add(self._files.remove, loaded.machine.key, backup)
                async with self._core.database.write() as tx:
                    await rows.set_phase(tx, row_id, "")
                undo.success()
            self._core.tell("instance-backup-created", loaded.record, suffix=f"/backups/{backup}", caller=caller)

        return self._start("Backing up instance", loaded, backup, work, caller)

    async def _compression(self, project: str, wished: str) -> Compression:
        """What is wished for, else what the project says, else the server, else gzip."""
        async with self._core.database.read() as tx:
            configured = (await project_rows.find(tx, project)).config.get(_KEY) or (await settings.load(tx)).get(_KEY, "")
        chosen = compression.parse(wished or configured or compression.GZIP.algorithm.value)
        if chosen.algorithm is Algorithm.SQUASHFS:
            raise BadRequest("A backup cannot be a squashfs", hint="choose another compression algorithm")
        return chosen

    async def _make(
        self, loaded: Loaded, backup: str, packing: Compression, operation: Operation, *, instance_only: bool
    ) -> None:
        """Pack the file and put it in its place."""
        key = loaded.machine.key
        async with self._turn, AsyncExitStack() as stack:
            stage = await self._files.stage(key)
            stack.push_async_callback(self._files.discard, stage)
            loaded, content = await stack.enter_async_context(self._unchanging(loaded))
            snapshots = [] if instance_only else await self._hold_snapshots(stack, loaded)
            subject = await self._subject(loaded, snapshots)
            driver = self._core.storage.driver(loaded.pool)
            members = [await _text(stage, "index.yaml", backup_index.index(subject), "backup/index.yaml")]
            for snapshot in snapshots:
                folder = f"backup/snapshots/{snapshot.name}"
                members += await _volume(stack, driver, loaded.volume.at(snapshot.name), folder)
                members.append(await _text(stage, "snapshot.yaml", backup_index.snapshot(subject), f"{folder}/backup.yaml"))
            members += await _volume(stack, driver, content, "backup/container")
            members.append(await _text(stage, "backup.yaml", backup_index.instance(subject), "backup/container/backup.yaml"))
            tops = ["backup/index.yaml", *(f"backup/snapshots/{each.name}" for each in snapshots), "backup/container"]
            await archive_pack.pack_tar(members, tops, stage / ARCHIVE, compression=packing, progress=_report(operation))
            await self._files.publish(stage, key, backup)

    @asynccontextmanager
    async def _unchanging(self, loaded: Loaded) -> AsyncIterator[tuple[Loaded, VolumeId]]:
        """The instance as it is now, and a volume with its content that nobody changes meanwhile."""
        record = loaded.record
        async with self._core.hold(loaded.machine):
            loaded = await self._core.load(record.project, record.name)
            driver = self._core.storage.driver(loaded.pool)
            if not self._core.status(loaded.record).is_running:
                await driver.unmount(loaded.volume)  # a start that was cut off may have left it mounted with shifted ids
                yield loaded, loaded.volume
                return
            taken = loaded.volume.at(f"backup-{secrets.token_hex(4)}")
            async with self._core.database.write() as tx:  # until it is gone a row says so: after a kill it is removed
                row_id = await instance_rows.create_snapshot(
                    tx, loaded.record, taken.snapshot, created_at=clock.rfc3339(), expires_at="", phase=CREATING
                )
        async with Reverter(f"snapshot {loaded.machine.key} for its backup", step_seconds=600.0) as always:
            always.add(self._forget_snapshot, loaded, row_id, taken)
            async with self._core.hold(loaded.machine):
                await driver.snapshot(taken)
            yield loaded, taken

    async def _forget_snapshot(self, loaded: Loaded, row_id: int, taken: VolumeId) -> None:
        async with self._core.hold(loaded.machine):
            await self._core.storage.driver(loaded.pool).delete(taken)
            async with self._core.database.write() as tx:
                await instance_rows.delete_snapshot(tx, row_id)

    async def _hold_snapshots(self, stack: AsyncExitStack, loaded: Loaded) -> list[Snapshot]:
        """The instance's snapshots, oldest first; none of them is removed before the stack is left."""
        for snapshot in sorted(await self._whole_snapshots(loaded), key=lambda each: each.name):
            await stack.enter_async_context(self._core.hold_snapshot(loaded.machine, snapshot.name))
        return await self._whole_snapshots(loaded)

    async def _whole_snapshots(self, loaded: Loaded) -> list[Snapshot]:
        async with self._core.database.read() as tx:
            return [each for each in await instance_rows.snapshots_of(tx, loaded.record.id) if not each.phase]

    async def _subject(self, loaded: Loaded, snapshots: list[Snapshot]) -> backup_index.Subject:
        record = loaded.record
        async with self._core.database.read() as tx:
            return backup_index.Subject(
                loaded=loaded,
                status=self._core.status(record),
                snapshots=snapshots,
                pool=await storage_rows.pool(tx, loaded.pool),
                volume=await storage_rows.volume(tx, loaded.pool, record.project, "container", record.name),
                profiles=await self._core.profiles_in(tx, record.project),
            )

    # --- renaming, deleting --------------------------------------------------------------------------------------------

    async def rename(self, project: str, name: str, backup: str, new: str, *, caller: Caller) -> Operation:
        """The operation that gives one another name. Conflict if that is taken, or the backup not whole."""
        names.backup(new)
        loaded, found = await self.find(project, name, backup)
        _require_whole(found)

        async def work(_: Operation) -> None:
            async with self._core.database.write() as tx:
                await rows.rename(tx, found.id, new)
                await rows.set_phase(tx, found.id, RENAMING + backup)
            await self._finish_rename(loaded.machine.key, found.id, backup, new)
            context = {"old_name": backup}
            self._core.tell("instance-backup-renamed", loaded.record, suffix=f"/backups/{new}", context=context, caller=caller)

        return self._start("Renaming instance backup", loaded, backup, work, caller)

    async def _finish_rename(self, key: str, row_id: int, old: str, new: str) -> None:
        """The file's part. Can be repeated."""
        await self._files.rename(key, old, new)
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, row_id, "")

    async def delete(self, project: str, name: str, backup: str, *, caller: Caller) -> Operation:
        """The operation that removes one."""
        loaded, found = await self.find(project, name, backup)
        _require_whole(found)

        async def work(_: Operation) -> None:
            await self._delete(loaded.machine.key, found)
            self._core.tell("instance-backup-deleted", loaded.record, suffix=f"/backups/{backup}", caller=caller)

        return self._start("Removing instance backup", loaded, backup, work, caller)

    async def _delete(self, key: str, backup: Backup) -> None:
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, backup.id, DELETING)
        await self._files.remove(key, backup.name)
        await self._forget(backup.id)

    async def _forget(self, row_id: int) -> None:
        async with self._core.database.write() as tx:
            await rows.delete(tx, row_id)

    def _start(self, description: str, loaded: Loaded, backup: str, work: Work, caller: Caller) -> Operation:
        record = loaded.record
        resources = instance_resources(record.name)
        resources["backups"] = [f"/1.0/backups/{backup}"]  # not its URL: clients cut the name out of it by this prefix
        return self._operations.start(
            OperationSpec(description, work, project=record.project, resources=resources, caller=caller)
        )

    # --- unasked -------------------------------------------------------------------------------------------------------

    async def expire(self) -> None:
        """For as long as the daemon runs: remove what has expired."""
        while True:
            await asyncio.sleep(EXPIRY_SECONDS)
            async with self._core.database.read() as tx:
                expired = await rows.expired(tx, clock.rfc3339())
            for backup in expired:
                try:
                    loaded = await self._core.load(backup.project, backup.instance)
                    await self._delete(loaded.machine.key, backup)
                except AtollError as error:
                    log.warning("Expired backup %s/%s stays: %s", backup.instance, backup.name, error)
                else:
                    self._core.tell("instance-backup-deleted", loaded.record, suffix=f"/backups/{backup.name}", caller=DAEMON)

    async def repair(self) -> list[str]:
        """On start: remove or finish what a kill cut off. One sentence for each."""
        done: list[str] = []
        listed = {(each.record.project, each.record.name): each for each in await self._core.load_all(None)}
        async with self._core.database.read() as tx:
            unfinished = await rows.unfinished(tx)
        for backup in unfinished:
            key = listed[(backup.project, backup.instance)].machine.key
            done.append(await self._settle(key, backup))
        for folder in await self._files.leftovers([each.machine.key for each in listed.values()]):
            await self._files.discard(folder)
        return done

    async def _settle(self, key: str, backup: Backup) -> str:
        if backup.phase.startswith(RENAMING):
            old = backup.phase.removeprefix(RENAMING)
            await self._finish_rename(key, backup.id, old, backup.name)
            return f"finished renaming backup {old} of {key} to {backup.name}"
        await self._delete(key, backup)
        return f"removed backup {key}/{backup.name}: its {backup.phase.removesuffix('ing')}ion was cut off"


def _require_whole(backup: Backup) -> None:
    if backup.phase:
        raise Conflict("The backup is being worked on")


def _next_name(taken: set[str]) -> str:
    return next(f"backup{i}" for i in range(len(taken) + 1) if f"backup{i}" not in taken)


async def _text(stage: Path, name: str, content: bytes, member: str) -> Bind:
    """A file of the daemon's own in the archive."""
    path = stage / name
    await in_thread(path.write_bytes, content)
    return Bind(path, member)


async def _volume(stack: AsyncExitStack, driver: StorageDriver, volume: VolumeId, folder: str) -> list[Bind]:
    """A volume's root file system, and what stands beside it, in a folder of the archive."""
    data = driver.data(volume)
    rootfs = await stack.enter_async_context(driver.open_rootfs(volume))
    beside = [name for name in ("metadata.yaml", "templates") if await in_thread((data / name).exists)]
    return [*(Bind(data / name, f"{folder}/{name}") for name in beside), Bind(rootfs, f"{folder}/rootfs")]


def _report(operation: Operation) -> Callable[[int], None]:
    return lambda written: operation.progress(PROGRESS, f"Backup: {written / 1e6:.2f}MB")
