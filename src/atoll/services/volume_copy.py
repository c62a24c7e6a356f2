"""Copying custom volumes: with their snapshots or without, or one snapshot; within a pool, to another one, to another project.
And refreshing a copy, which becomes what its source is now.

A copy's rows stand in the database with a phase before anything is made in the pool, so that `VolumeService.repair` removes
what a kill leaves. A refresh adds and removes snapshots likewise; one that was cut off half-way in the volume's own files is
brought to a whole state by refreshing again, which `repair` here says.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from atoll import config as keys
from atoll.db import instance_copies as copies
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import clock, names
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume, VolumeSnapshot
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import VolumeId
from atoll.services.instances import transfer
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work
from atoll.services.storage import StorageService
from atoll.services.volume_urls import volume_url
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CREATING, CUSTOM, DELETING, NewVolume, VolumeService, volume_id

REFRESHING = "refreshing"


@dataclass(frozen=True, slots=True)
class Source:
    """What is copied: a volume, or one snapshot of it. `volume_only` leaves its snapshots out."""

    pool: str
    project: str
    name: str
    snapshot: str = ""
    volume_only: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What is made. Without a description, a configuration (None) or a content type: the source's."""

    pool: str
    project: str
    name: str
    description: str = ""
    config: Mapping[str, str] | None = None
    content_type: str = ""


class VolumeCopier:
    """Use cases of copying."""

    def __init__(
        self,
        database: Database,
        storage: StorageService,
        volumes: VolumeService,
        users: VolumeUsers,
        operations: OperationRegistry,
    ) -> None:
        self._database = database
        self._storage = storage
        self._volumes = volumes
        self._users = users
        self._operations = operations

    # --- a new volume --------------------------------------------------------------------------------------------------

    async def copy(self, target: Target, source: Source, *, caller: Caller) -> Operation:
        """The operation that makes a copy. Refused at once if there is no such source, or the name is taken."""
        names.volume(target.name)
        origin, config, description = await self._find_source(source)
        if target.content_type not in ("", origin.content_type):
            raise BadRequest("Volume content types do not match")
        if await self.find_target(target) is not None:
            raise Conflict("Volume by that name already exists")
        config = config if target.config is None else target.config
        known = await self.known(target.pool, origin.content_type, config)

        async def work(_: Operation) -> None:
            await self._copy(origin, target, source, known, target.description or description, caller=caller)

        return self._start(target, work, caller)

    async def find_target(self, target: Target) -> StorageVolume | None:
        """The volume that is there already, if one is."""
        try:
            return await self._volumes.find(target.pool, target.project, CUSTOM, target.name)
        except NotFound:
            return None

    async def _find_source(self, source: Source) -> tuple[StorageVolume, Mapping[str, str], str]:
        """The volume, with the configuration and description that a copy gets."""
        origin = await self._volumes.find(source.pool, source.project, CUSTOM, source.name)
        if not source.snapshot:
            return origin, origin.config, origin.description
        snapshot = await self._volumes.find_snapshot(origin, source.snapshot)
        return origin, snapshot.config, snapshot.description

    async def known(self, pool: str, content_type: str, config: Mapping[str, str]) -> dict[str, str]:
        """A configuration as far as that pool's driver knows the keys. What is volatile is the source's alone."""
        async with self._database.read() as tx:
            table = keys.volume_table((await rows.pool(tx, pool)).driver, content_type)
        return {key: value for key, value in config.items() if table.find(key) is not None and not key.startswith("volatile.")}

    async def _copy(
        self,
        origin: StorageVolume,
        target: Target,
        source: Source,
        config: Mapping[str, str],
        description: str,
        *,
        caller: Caller,
    ) -> None:
        async with self._volumes.hold(origin) as (origin,):
            present = [] if source.snapshot or source.volume_only else await self._volumes.snapshots(origin)
            copied = [each.name for each in present]

            async def write_snapshots(tx: Transaction, new: StorageVolume) -> None:
                await copies.copy_volume_snapshots(tx, origin.id, new.id, copied)

            new = NewVolume(target.pool, target.project, target.name, description, config, origin.content_type)
            creating = self._volumes.creating(new, caller=caller, rest=write_snapshots)
            async with creating as volume, self.content(origin, source.snapshot, pool=volume.pool) as content:
                await self._make(origin, content, copied, volume)

    async def _make(self, origin: StorageVolume, content: VolumeId, copied: Sequence[str], volume: StorageVolume) -> None:
        driver = self._storage.driver(volume.pool)
        if origin.pool == volume.pool:
            await driver.clone(content, volume_id(volume), snapshots=copied)
        else:
            await transfer.transfer(self.states(origin, copied, content), Place(driver, volume_id(volume)))
        await self._volumes.apply_size(volume)

    def states(self, origin: StorageVolume, snapshots: Sequence[str], last: VolumeId) -> list[Place]:
        """Those snapshots of a volume, oldest first, and last what has its content."""
        driver, is_disk = self._storage.driver(origin.pool), origin.content.is_disk
        volumes = [*(volume_id(origin).at(name) for name in snapshots), last]
        return [Place(driver, volume, is_disk) for volume in volumes]

    @asynccontextmanager
    async def content(self, origin: StorageVolume, snapshot: str = "", *, pool: str = "") -> AsyncIterator[VolumeId]:
        """A volume with the content of one that is held, or of that snapshot of it, to be copied to that pool (empty: to be
        read): itself, or if machines write to it a snapshot that is there for this alone."""
        own = volume_id(origin)
        if snapshot:
            yield own.at(snapshot)
        elif pool == origin.pool or not await self._users.is_running(origin):
            yield own  # within its pool the driver copies what is in use
        else:
            async with self._momentary(origin) as taken:
                yield taken

    @asynccontextmanager
    async def _momentary(self, origin: StorageVolume) -> AsyncIterator[VolumeId]:
        """Until it is gone a row says so: after a kill it is removed."""
        taken = volume_id(origin).at(f"copy-{secrets.token_hex(4)}")
        async with self._database.write() as tx:
            row_id = await rows.create_volume_snapshot(
                tx, origin, taken.snapshot, description="", created_at=clock.rfc3339(), expires_at="", phase=CREATING
            )

        async def forget() -> None:
            await self._storage.driver(origin.pool).delete(taken)
            async with self._database.write() as tx:
                await rows.delete_volume_snapshot(tx, row_id)

        async with Reverter(f"snapshot volume {origin.name} for its copy", step_seconds=600.0) as always:
            always.add(forget)
            await self._storage.driver(origin.pool).snapshot(taken)
            yield taken

    # --- a copy that is there ------------------------------------------------------------------------------------------

    async def refresh(self, target: StorageVolume, source: Source, *, caller: Caller) -> Operation:
        """The operation that makes a volume what its source is, with its snapshots; configuration and description stay.
        BadRequest if a running instance has it."""
        if source.snapshot:
            raise BadRequest("Only volumes can be refreshed from, not snapshots")
        origin, _, _ = await self._find_source(source)
        if origin.id == target.id:
            raise BadRequest("A volume cannot be refreshed from itself")
        if origin.content_type != target.content_type:
            raise BadRequest("Volume content types do not match")
        self._volumes.refuse_daemons(target, "cannot be refreshed")

        async def work(_: Operation) -> None:
            async with self._volumes.hold(origin, target) as (source_now, target_now):
                async with self._users.at_rest(target_now):
                    await self._refresh(source_now, target_now, volume_only=source.volume_only)
            self._volumes.tell("storage-volume-updated", target_now, caller=caller)

        return self._start(Target(target.pool, target.project, target.name), work, caller)

    async def _refresh(self, origin: StorageVolume, target: StorageVolume, *, volume_only: bool) -> None:
        await self._volumes.contents.require_fits(target, origin)
        wanted = [] if volume_only else await self._volumes.snapshots(origin)
        there = await self._volumes.snapshots(target)
        # As LXD does, by name alone: times of creation are not the same where a volume was copied by an older server.
        missing = [each.name for each in wanted if each.name not in {one.name for one in there}]
        extra = [] if volume_only else [each for each in there if each.name not in {one.name for one in wanted}]

        async def write(tx: Transaction) -> None:
            await copies.copy_volume_snapshots(tx, origin.id, target.id, missing, phase=CREATING)

        async def bring() -> None:
            async with self.content(origin) as content:
                place = Place(self._storage.driver(target.pool), volume_id(target))
                await transfer.refresh(self.states(origin, missing, content), place)

        await self.change(target, extra, write, bring)

    async def change(
        self,
        target: StorageVolume,
        extra: Sequence[VolumeSnapshot],
        write: Callable[[Transaction], Awaitable[None]],
        bring: Callable[[], Awaitable[None]],
    ) -> None:
        """Refresh `target`, which is held: without these snapshots, with what `bring` brings of content and of snapshots whose
        records are written before, with phase "creating"."""
        async with Reverter(f"refresh volume {target.name}") as undo:
            undo.add(self._set_phase, target, "")
            await self._begin(target, extra)
            await self._remove(target, extra)
            undo.add(self._remove_half_made, target)
            async with self._database.write() as tx:
                await write(tx)
            await bring()
            if target.content.is_disk:
                await self._volumes.apply_size(target)
            async with self._database.write() as tx:
                await rows.settle_volume(tx, target.id)
            undo.success()

    async def _begin(self, target: StorageVolume, extra: Sequence[VolumeSnapshot]) -> None:
        async with self._database.write() as tx:
            await rows.set_volume_phase(tx, target.id, REFRESHING)
            for snapshot in extra:
                await rows.set_volume_snapshot_phase(tx, snapshot.id, DELETING)

    async def _remove(self, target: StorageVolume, snapshots: Sequence[VolumeSnapshot]) -> None:
        for snapshot in snapshots:
            await self._storage.driver(target.pool).delete(volume_id(target).at(snapshot.name))
        async with self._database.write() as tx:
            for snapshot in snapshots:
                await rows.delete_volume_snapshot(tx, snapshot.id)

    async def _remove_half_made(self, target: StorageVolume) -> None:
        async with self._database.read() as tx:
            half = [each for each in await rows.volume_snapshots(tx, target.id) if each.phase == CREATING]
        await self._remove(target, half)

    async def _set_phase(self, volume: StorageVolume, phase: str) -> None:
        async with self._database.write() as tx:
            await rows.set_volume_phase(tx, volume.id, phase)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: say which refreshes were cut off. One sentence for each."""
        async with self._database.read() as tx:
            half = [volume for volume in await rows.volumes(tx, pool=pool, type=CUSTOM) if volume.phase == REFRESHING]
        return await self._volumes.settle(half, self._put_right)

    async def _put_right(self, volume: StorageVolume) -> Sequence[str]:
        if volume.phase != REFRESHING:
            return ()
        await self._set_phase(volume, "")
        return [f"volume {volume.name} of pool {volume.pool}: its refresh was cut off; refresh it again"]

    def _start(self, target: Target, work: Work, caller: Caller) -> Operation:
        resources = {"storage_volumes": [volume_url(target.pool, CUSTOM, target.name, target.project)]}
        spec = OperationSpec("Copying storage volume", work, project=target.project, resources=resources, caller=caller)
        return self._operations.start(spec)
