"""Custom storage volumes. What is done to their snapshots and to their settings is in modules beside this one."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from atoll import config as keys
from atoll.db import instance_volumes, volume_disks
from atoll.db import projects as project_rows
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import clock, content_types, names
from atoll.domain.caller import Caller
from atoll.domain.content_types import ContentType
from atoll.domain.entities import DEFAULT_PROJECT, StoragePool, StorageVolume, VolumeSnapshot
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host.threads import in_thread
from atoll.services import settling, volume_contents
from atoll.services.events import EventHub, with_project
from atoll.services.locks import KeyedLocks
from atoll.services.settling import Half
from atoll.services.storage import StorageService
from atoll.services.volume_contents import VolumeContents
from atoll.services.volume_contents import volume_id as volume_id
from atoll.services.volume_urls import volume_path, volume_url

CUSTOM = "custom"
CREATING, DELETING = "creating", "deleting"
"""Phases of volumes and snapshots; what a kill leaves of either is removed. Others belong to whoever copies and moves."""

_TYPES = (CUSTOM, "container", "image", "virtual-machine")
_TAKEN = "Volume by that name already exists"
DELETE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class NewVolume:
    """A custom volume to make. `project` is the request's, which may have another's volumes; without `created_at` it is now.
    `empty`: it is not made of anything."""

    pool: str
    project: str
    name: str
    description: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "filesystem"
    created_at: str = ""
    empty: bool = False


WriteRest = Callable[[Transaction, StorageVolume], Awaitable[None]]
"""Writes what belongs to the row of a new volume: those of its snapshots."""


class VolumeService:
    """Use cases of custom volumes; volumes of instances and images are only looked at here."""

    def __init__(self, database: Database, hub: EventHub, storage: StorageService) -> None:
        self._database = database
        self._hub = hub
        self._storage = storage
        self._locks = KeyedLocks()
        self.contents = VolumeContents(database, storage)
        self.of_daemon: Callable[[], Collection[tuple[str, str]]] = tuple
        """Tells (pool, volume) of project default that the daemon itself keeps something on. Set once, by `runtime.parts`."""
        self.before_forgetting: Callable[[StorageVolume], Awaitable[None]] = _nothing
        """Removes what others keep of a volume that goes (its backups). Set once, by `runtime.parts`."""

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

    async def snapshots_in(self, pool: str) -> dict[int, list[VolumeSnapshot]]:
        """The snapshots of all volumes of a pool, by their volumes' ids."""
        async with self._database.read() as tx:
            return await rows.snapshots_in(tx, pool=pool)

    async def find(self, pool: str, project: str, type: str, name: str) -> StorageVolume:
        """One volume. NotFound if there is none."""
        _check_type(type)
        async with self._database.read() as tx:
            await rows.pool(tx, pool)
            owner = await self._owner(tx, project) if type == CUSTOM else DEFAULT_PROJECT if type == "image" else project
            return await rows.volume(tx, pool, owner, type, name)

    async def snapshots(self, volume: StorageVolume) -> list[VolumeSnapshot]:
        """A volume's snapshots, oldest first, without those that are just being made or removed."""
        async with self._database.read() as tx:
            return [each for each in await rows.volume_snapshots(tx, volume.id) if not each.phase]

    @asynccontextmanager
    async def hold(self, *volumes: StorageVolume) -> AsyncIterator[list[StorageVolume]]:
        """Nothing else happens to these volumes meanwhile; they are given as they are now, which may be in another place.
        NotFound if one is gone, Conflict if something is half done to it."""
        async with self._locks.hold(*(volume.id for volume in volumes)):
            async with self._database.read() as tx:
                present = [await rows.volume_by_id(tx, volume.id) for volume in volumes]
            for volume in present:
                if volume.phase:
                    raise Conflict(f"Storage volume is busy: {volume.phase.partition(' ')[0]}")
            yield present

    async def settle(
        self, listed: Iterable[StorageVolume], put_right: Callable[[StorageVolume], Awaitable[Sequence[str]]]
    ) -> list[str]:
        """See `settling.each`."""

        def half(volume: StorageVolume) -> Half:
            async def settle() -> Sequence[str]:
                async with self._database.read() as tx:
                    present = await rows.find_volume(tx, volume.id)
                return [] if present is None else await put_right(present)

            return Half(f"volume {volume.name} of pool {volume.pool}", [volume.id], settle)

        return await settling.each(self._locks, [half(volume) for volume in listed])

    async def find_snapshot(self, volume: StorageVolume, name: str) -> VolumeSnapshot:
        """One snapshot. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.volume_snapshot(tx, volume.id, name)

    async def check_attachable(self, tx: Transaction, pool: str, project: str, name: str) -> None:
        """Before a device is written down: NotFound if there is no such pool or volume, BadRequest if no instance can have it."""
        await rows.pool(tx, pool)
        volume_contents.refuse_disk(await rows.volume(tx, pool, await self._owner(tx, project), CUSTOM, name))

    async def to_attach(self, pool: str, project: str, name: str) -> tuple[StorageVolume, Path]:
        """A custom volume that an instance is about to have, and where its files are. BadRequest if it is not for instances."""
        volume = await self.find(pool, project, CUSTOM, name)
        self.refuse_daemons(volume, "cannot be given to instances")
        volume_contents.refuse_disk(volume)
        return volume, self._storage.driver(pool).data(volume_id(volume))

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
                found = await volume_disks.find_all(tx)
            for disk in found:
                used_id = custom.get((disk.pool, disk.source, owners[disk.project]))
                url = with_project(f"/1.0/{disk.kind}/{disk.name}", disk.project)
                if used_id is not None and url not in used[used_id]:
                    used[used_id].append(url)
        return used

    def _is_daemons(self, volume: StorageVolume) -> bool:
        return volume.type == CUSTOM and volume.project == DEFAULT_PROJECT and (volume.pool, volume.name) in self.of_daemon()

    async def owner(self, project: str) -> str:
        """The project that has the volumes of one. NotFound if there is none of that name."""
        async with self._database.read() as tx:
            return await self._owner(tx, project)

    async def _owner(self, tx: Transaction, project: str) -> str:
        if project == DEFAULT_PROJECT:
            return project
        return (await project_rows.find(tx, project)).owner_of("storage.volumes")

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def create(self, new: NewVolume, *, caller: Caller) -> None:
        """An empty volume."""
        if content_types.parse(new.content_type).is_fixed:
            raise BadRequest("ISO volumes are made by importing the file")
        async with self.creating(dataclasses.replace(new, empty=True), caller=caller) as volume:
            await self.contents.create(volume)

    @asynccontextmanager
    async def creating(self, new: NewVolume, *, caller: Caller, rest: WriteRest | None = None) -> AsyncIterator[StorageVolume]:
        """The row of a new volume, which the block makes in the pool; afterwards it is whole. `rest` writes the other rows of it
        in the same transaction. Whatever fails, nothing is left; nor after a kill, once the daemon has started again."""
        names.volume(new.name)
        content_types.parse(new.content_type)
        await self.require_absent(new.pool, await self.owner(new.project), new.name)
        async with AsyncExitStack() as stack:
            async with self._database.write() as tx:
                volume = await self._write(tx, new)
                await stack.enter_async_context(self._locks.hold(volume.id))  # before anybody sees the row
                if rest is not None:
                    await rest(tx, volume)
            undo = await stack.enter_async_context(Reverter(f"create volume {new.name}", step_seconds=DELETE_SECONDS))
            undo.add(self.finish_delete, volume)
            yield volume
            async with self._database.write() as tx:
                await rows.settle_volume(tx, volume.id)
            undo.success()
        self.tell("storage-volume-created", volume, caller=caller, type=CUSTOM)

    async def _write(self, tx: Transaction, new: NewVolume) -> StorageVolume:
        """The row of a volume that is going to be made."""
        record = await rows.pool(tx, new.pool)
        owner = await self._owner(tx, new.project)
        await self.require_free(tx, new.pool, owner, new.name)
        self._storage.driver(new.pool)  # Unavailable if the pool is being deleted
        config = _with_defaults(record, new)
        keys.volume_table(record.driver, new.content_type).validate(config)
        row_id = await rows.create_volume(
            tx,
            new.pool,
            owner,
            CUSTOM,
            new.name,
            config=config,
            created_at=new.created_at or clock.rfc3339(),
            description=new.description,
            content_type=new.content_type,
            phase=CREATING,
        )
        return await rows.volume_by_id(tx, row_id)

    async def require_absent(self, pool: str, owner: str, name: str) -> None:
        """Conflict if there is such a volume on disk that the database does not know: what is made in its place, and then fails,
        must not take it along."""
        async with self._database.read() as tx:
            await rows.pool(tx, pool)
            await self.require_free(tx, pool, owner, name)
        own = VolumeId(VolumeKind.CUSTOM, owner, name)
        driver = self._storage.driver(pool)
        if await in_thread(_is_there, driver.data(own), driver.data(own.at("-")).parent):
            raise Conflict(f"Storage volume {name!r} is on disk but not in the database", hint="recover it with `atolld recover`")

    async def require_free(self, tx: Transaction, pool: str, owner: str, name: str) -> None:
        """Conflict if the project `owner` has a custom volume of that name in the pool."""
        if any(each.name == name for each in await rows.volumes(tx, pool=pool, project=owner, type=CUSTOM)):
            raise Conflict(_TAKEN)

    async def apply_size(self, volume: StorageVolume) -> None:
        """See `VolumeContents.settle`, for a volume with all its snapshots."""
        async with self._database.read() as tx:
            snapshots = [each.name for each in await rows.volume_snapshots(tx, volume.id)]
        await self.contents.settle(volume, snapshots)

    async def _forget_row(self, row_id: int) -> None:
        async with self._database.write() as tx:
            await rows.delete_volume(tx, row_id)

    async def delete(self, volume: StorageVolume, *, caller: Caller) -> None:
        """With its snapshots and backups; only an unused one."""
        if volume.type != CUSTOM:
            raise BadRequest(f"Storage volumes of type {volume.type!r} can't be deleted with the storage API")
        async with self.hold(volume) as (volume,):
            await self.require_unused(volume)
            snapshots = await self.snapshots(volume)
            self._storage.driver(volume.pool)  # before anything is noted: what is not there cannot be deleted
            async with self._database.write() as tx:
                await rows.set_volume_phase(tx, volume.id, DELETING)
            await self.finish_delete(volume)
        for snapshot in snapshots:
            self.tell("storage-volume-snapshot-deleted", volume, f"/snapshots/{snapshot.name}", caller=caller)
        self.tell("storage-volume-deleted", volume, caller=caller)

    async def finish_delete(self, volume: StorageVolume) -> None:
        """Remove files and then the row, also one whose deletion was cut off."""
        driver = self._storage.driver(volume.pool)
        async with self._database.read() as tx:
            snapshots = await rows.volume_snapshots(tx, volume.id)
        own = volume_id(volume)
        await driver.delete(*(own.at(snapshot.name) for snapshot in snapshots), own)
        await self.before_forgetting(volume)
        await self._forget_row(volume.id)

    async def require_unused(self, volume: StorageVolume) -> None:
        """BadRequest if somebody has it as a disk, or the daemon keeps something on it."""
        if users := await self.used_by(volume):
            raise BadRequest("The storage volume is still in use", hint=f"by {users[0]}")

    def refuse_daemons(self, volume: StorageVolume, what: str) -> None:
        """BadRequest, which says `what`, if the daemon itself keeps something on it."""
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
            if volume.content.is_disk:
                raise BadRequest("Only volumes that are file systems can be used by the server")
            if await self.snapshots(volume):
                raise BadRequest("Volumes used by the server itself cannot have snapshots")
            await self.require_unused(volume)
            yield self._storage.driver(pool).data(volume_id(volume))

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: remove what is half made or half removed. On start add the records that instances' snapshots lack, too.
        One sentence for each."""
        async with self._database.read() as tx:
            half = [v for v in await rows.volumes(tx, pool=pool, type=CUSTOM) if v.phase in (CREATING, DELETING)]
        done = await self.settle(half, self._remove_half)
        if pool is None:
            async with self._database.write() as tx:
                added = await instance_volumes.add_missing(tx)
            done += [f"added the records of the volumes of {len(added)} snapshots"] if added else []
        return done

    async def _remove_half(self, volume: StorageVolume) -> Sequence[str]:
        if volume.phase not in (CREATING, DELETING):
            return ()
        await self.finish_delete(volume)
        return [f"removed volume {volume.name} of pool {volume.pool}: its {volume.phase} was cut off"]

    def tell(self, action: str, volume: StorageVolume, suffix: str = "", *, caller: Caller, **context: str) -> None:
        """A lifecycle event of a volume, or of what its path has after its name."""
        url = volume_path(volume.pool, volume.type, f"{volume.name}{suffix}")
        self._hub.lifecycle(action, url, project=volume.project, context=context, caller=caller)


async def _nothing(_: StorageVolume) -> None:
    return


def _is_there(data: Path, snapshots: Path) -> bool:
    """Whether a volume or snapshots of it are on disk. Blocks."""
    return os.path.lexists(data) or (snapshots.is_dir() and bool(os.listdir(snapshots)))


def _with_defaults(pool: StoragePool, new: NewVolume) -> dict[str, str]:
    """What a new volume is configured with: what was asked for, and for the rest what its pool says in `volume.*`. A disk that is
    made of another one has its size."""
    table = keys.volume_table(pool.driver, new.content_type)
    defaults = {key.removeprefix("volume."): value for key, value in pool.config.items() if key.startswith("volume.")}
    if not new.empty and ContentType(new.content_type).is_disk:
        defaults.pop("size", None)
    return {**{key: value for key, value in defaults.items() if value and table.find(key) is not None}, **new.config}


def _check_type(type: str) -> None:
    if type not in _TYPES:
        raise BadRequest(f"Invalid storage volume type {type[:40]!r}")
