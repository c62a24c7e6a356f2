"""Snapshots of custom volumes. A row stands in the database with a phase before anything is made or removed in the pool, so that
`repair` removes what a kill leaves. A restore that is cut off has changed all of the volume's files or none.
"""

from __future__ import annotations

import logging
from datetime import datetime

from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain import clock, names, snapshot_names
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume, VolumeSnapshot
from atoll.domain.errors import AtollError, BadRequest
from atoll.domain.undo import Reverter
from atoll.services import expiry
from atoll.services.storage import StorageService
from atoll.services.volume_contents import volume_id
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CREATING, CUSTOM, DELETING, VolumeService

log = logging.getLogger(__name__)

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
        self._volumes.tell("storage-volume-snapshot-created", volume, f"/snapshots/{name}", caller=caller)

    def _refuse(self, volume: StorageVolume) -> None:
        self._volumes.refuse_daemons(volume, "cannot have snapshots")
        if volume.content.is_fixed:
            raise BadRequest("ISO volumes never change: they cannot have snapshots")

    async def _make(self, volume: StorageVolume, name: str, row_id: int) -> None:
        target, driver = volume_id(volume).at(name), self._storage.driver(volume.pool)
        async with Reverter(f"snapshot volume {volume.name}") as undo:
            undo.add(self._forget, row_id)
            await driver.snapshot(target)
            undo.add(driver.delete, target)
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
            async with self._database.write() as tx, Reverter(f"rename snapshot {name}") as undo:
                await rows.rename_volume_snapshot(tx, snapshot.id, new)
                await driver.rename(own.at(name), own.at(new))
                undo.add(driver.rename, own.at(new), own.at(name))
                undo.success()
        self._volumes.tell("storage-volume-snapshot-renamed", volume, f"/snapshots/{new}", caller=caller)

    async def delete(self, volume: StorageVolume, name: str, *, caller: Caller) -> None:
        """Remove it."""
        async with self._volumes.hold(volume) as (volume,):
            snapshot = await self._volumes.find_snapshot(volume, name)
            self._storage.driver(volume.pool)  # before anything is noted: what is not there cannot be deleted
            async with self._database.write() as tx:
                await rows.set_volume_snapshot_phase(tx, snapshot.id, DELETING)
            await self._finish_delete(volume, snapshot)
        self._volumes.tell("storage-volume-snapshot-deleted", volume, f"/snapshots/{name}", caller=caller)

    async def _finish_delete(self, volume: StorageVolume, snapshot: VolumeSnapshot) -> None:
        await self._storage.driver(volume.pool).delete(volume_id(volume).at(snapshot.name))
        await self._forget(snapshot.id)

    async def _forget(self, row_id: int) -> None:
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
        self._volumes.tell("storage-volume-restored", held, caller=caller)

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
        """On start, and when a pool that was away is back, half-made volumes being gone: remove snapshots that were half made or
        half removed, and finish restores. One sentence for each."""
        async with self._database.read() as tx:
            half = [each for each in await rows.unfinished_snapshots(tx, type=CUSTOM) if pool in (None, each[0].pool)]
            restored = [volume for volume in await rows.volumes(tx, pool=pool, type=CUSTOM) if volume.phase == RESTORING]
        done = [
            await self._repair(volume, snapshot) for volume, snapshot in half if volume.phase not in (CREATING, DELETING)
        ]  # those that are left of volumes go with them
        return [sentence for sentence in [*done, *[await self._repair(volume) for volume in restored]] if sentence]

    async def _repair(self, volume: StorageVolume, snapshot: VolumeSnapshot | None = None) -> str:
        """Says what was done; nothing if its pool is not available: when it is back, this is tried again."""
        try:
            if snapshot is None:
                await self._settle(volume)
                return f"settled volume {volume.name} of pool {volume.pool}: its restore was cut off"
            await self._finish_delete(volume, snapshot)
        except AtollError as error:
            log.error("What a kill left of volume %s cannot be repaired: %s", volume.name, error)
            return ""
        return f"removed snapshot {volume.name}/{snapshot.name} of pool {volume.pool}: its {snapshot.phase} was cut off"
