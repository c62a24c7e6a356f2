"""Snapshots of custom volumes. A row stands in the database with a phase before anything is made or removed in the pool, so that
`repair` removes what a kill leaves. A restore that is cut off has changed all of the volume's files or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain import clock, names, snapshot_names
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.undo import Reverter
from atoll.services import expiry
from atoll.services.storage import StorageService
from atoll.services.volume_contents import volume_id
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CREATING, CUSTOM, DELETE_SECONDS, DELETING, VolumeService

RESTORING = "restoring"
"""Phase of a volume."""


class VolumeSnapshots:
    """Use cases of snapshots; they are looked at with `VolumeService`."""

    def __init__(self, database: Database, storage: StorageService, volumes: VolumeService, users: VolumeUsers) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._users = users

    async def create(self, volume: StorageVolume, name: str, *, description: str, expires_at: str | None, caller: Caller) -> None:
        """A read-only snapshot of the volume as it is. Without a name, and without an expiry, the volume's `snapshots.*` keys
        tell them; an empty expiry is never."""
        async with self._volumes.hold(volume) as (volume,):
            self._refuse(volume)
            name = names.snapshot(name) if name else await self._next_name(volume)
            if expires_at is None:
                table = await self._volumes.contents.table(volume)
                expires_at = expiry.after_now(table.get(volume.config, "snapshots.expiry"))
            async with self._database.write() as tx:
                row_id = await rows.create_volume_snapshot(
                    tx,
                    volume,
                    name,
                    description=description or volume.description,
                    created_at=clock.rfc3339(),
                    expires_at=expires_at,
                    phase=CREATING,
                )
            await self._make(volume, name, row_id)
        self._volumes.tell("storage-volume-snapshot-created", volume, f"/snapshots/{name}", caller=caller, type=CUSTOM)

    async def require_free(self, volume: StorageVolume, name: str) -> None:
        """Conflict if the volume has a snapshot of that name."""
        async with self._database.read() as tx:
            if any(each.name == name for each in await rows.volume_snapshots(tx, volume.id)):
                raise Conflict(f'Snapshot "{name}" already in use')

    def _refuse(self, volume: StorageVolume) -> None:
        self._volumes.refuse_daemons(volume, "cannot have snapshots")
        if volume.content.is_fixed:
            raise BadRequest("ISO volumes never change: they cannot have snapshots")

    async def _make(self, volume: StorageVolume, name: str, row_id: int) -> None:
        target, driver = volume_id(volume).at(name), self._storage.driver(volume.pool)
        async with Reverter(f"snapshot volume {volume.name}", step_seconds=DELETE_SECONDS) as undo:
            undo.add(self._finish_delete, volume, name, row_id)
            await driver.snapshot(target)
            async with self._database.write() as tx:
                await rows.set_volume_snapshot_phase(tx, row_id, "")
            undo.success()

    async def _next_name(self, volume: StorageVolume) -> str:
        taken = {snapshot.name for snapshot in await self._volumes.snapshots(volume)}
        return snapshot_names.choose(volume.config.get("snapshots.pattern", ""), taken, datetime.now().astimezone())

    async def update(self, volume: StorageVolume, name: str, *, description: str, expires_at: str, caller: Caller) -> None:
        """Replace what may be changed."""
        async with self._database.write() as tx:
            snapshot = await rows.volume_snapshot(tx, volume.id, name)
            await rows.update_volume_snapshot(tx, snapshot.id, description=description, expires_at=expires_at)
        self._volumes.tell("storage-volume-snapshot-updated", volume, f"/snapshots/{name}", caller=caller)

    async def rename(self, volume: StorageVolume, name: str, new: str, *, caller: Caller) -> None:
        """Change its name."""
        names.snapshot(new)
        async with self._volumes.hold(volume) as (volume,):
            snapshot = await self._volumes.find_snapshot(volume, name)
            driver = self._storage.driver(volume.pool)
            own = volume_id(volume)
            async with Reverter(f"rename snapshot {name}") as undo:
                async with self._database.write() as tx:  # the commit may fail, too
                    await rows.rename_volume_snapshot(tx, snapshot.id, new)
                    await driver.rename(own.at(name), own.at(new))
                    undo.add(driver.rename, own.at(new), own.at(name))
                undo.success()
        self._volumes.tell("storage-volume-snapshot-renamed", volume, f"/snapshots/{new}", caller=caller, old_name=name)

    async def delete(self, volume: StorageVolume, name: str, *, caller: Caller) -> None:
        """Remove it."""
        async with self._volumes.hold(volume) as (volume,):
            snapshot = await self._volumes.find_snapshot(volume, name)
            self._storage.driver(volume.pool)  # before anything is noted: what is not there cannot be deleted
            async with self._database.write() as tx:
                await rows.set_volume_snapshot_phase(tx, snapshot.id, DELETING)
            await self._finish_delete(volume, name, snapshot.id)
        self._volumes.tell("storage-volume-snapshot-deleted", volume, f"/snapshots/{name}", caller=caller)

    async def _finish_delete(self, volume: StorageVolume, name: str, row_id: int) -> None:
        """The row goes last: as long as there is anything of it, `repair` finds it. Can be repeated."""
        await self._storage.driver(volume.pool).delete(volume_id(volume).at(name))
        async with self._database.write() as tx:
            await rows.delete_volume_snapshot(tx, row_id)

    # --- going back ----------------------------------------------------------------------------------------------------

    async def restore(self, volume: StorageVolume, snapshot: str, *, caller: Caller) -> None:
        """Make the volume's files as the snapshot was, in one step; its size is as configured now. BadRequest if a running
        instance has it."""
        async with self._volumes.hold(volume) as (held,), self._users.at_rest(held):
            await self._volumes.find_snapshot(held, snapshot)
            async with Reverter(f"restore volume {held.name}") as undo:
                undo.add(self._set_phase, held, "")
                await self._set_phase(held, RESTORING)
                await self._storage.driver(held.pool).restore(volume_id(held).at(snapshot))
                await self._settle(held)
                undo.success()
        self._volumes.tell("storage-volume-restored", held, caller=caller, snapshot=snapshot)

    async def _settle(self, volume: StorageVolume) -> None:
        """After the files were restored, or not."""
        if volume.content.is_disk:  # what it was may be smaller
            await self._volumes.contents.settle(volume)
        await self._set_phase(volume, "")

    async def _set_phase(self, volume: StorageVolume, phase: str) -> None:
        async with self._database.write() as tx:
            await rows.set_volume_phase(tx, volume.id, phase)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`, of volumes that are not half made: remove snapshots that were half made or half removed, and finish
        restores. One sentence for each."""
        async with self._database.read() as tx:
            found = {volume.id: volume for volume, _ in await rows.unfinished_snapshots(tx, type=CUSTOM)}
            found |= {volume.id: volume for volume in await rows.volumes(tx, type=CUSTOM) if volume.phase == RESTORING}
        return await self._volumes.settle([each for each in found.values() if pool in (None, each.pool)], self._put_right)

    async def _put_right(self, volume: StorageVolume) -> Sequence[str]:
        if volume.phase not in ("", RESTORING):
            return ()  # its snapshots go with it, or are of what is still to be settled
        done: list[str] = []
        async with self._database.read() as tx:
            present = await rows.volume_snapshots(tx, volume.id)
        for snapshot in (each for each in present if each.phase):
            await self._finish_delete(volume, snapshot.name, snapshot.id)
            done.append(f"removed snapshot {volume.name}/{snapshot.name} of pool {volume.pool}: its {snapshot.phase} was cut off")
        if volume.phase == RESTORING:
            await self._settle(volume)
            done.append(f"settled volume {volume.name} of pool {volume.pool}: its restore was cut off")
        return done
