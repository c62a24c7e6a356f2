"""Refreshing a copy: it becomes what its source is now, with the snapshots that the source has; its own configuration stays.

While it lasts the row's phase says so. Snapshots that are being added or removed have phases of their own, which
`SnapshotService.repair` settles. A root file system that was cut off half-way is brought to a whole state by refreshing again;
where the pool's driver refreshes in one step, there is no half-way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from atoll.db import instance_copies as copies
from atoll.db import instances as rows
from atoll.db.engine import Transaction
from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import Refreshing
from atoll.host import folders
from atoll.services.instances import copy, root_size, templates, transfer
from atoll.services.instances.copy import Source
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.create import CREATING, DELETING
from atoll.services.instances.transfer import Place
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

REFRESHING = "refreshing"


@dataclass(frozen=True, slots=True)
class Difference:
    """What makes the snapshots of a copy those of its source, oldest first."""

    missing: tuple[Snapshot, ...] = ()
    extra: tuple[Snapshot, ...] = ()


def compare(source: Sequence[Snapshot], target: Sequence[Snapshot]) -> Difference:
    """Two snapshots are the same if name and time of creation are; one of another time is replaced."""
    there = {(each.name, each.created_at) for each in target}
    wanted = {(each.name, each.created_at) for each in source}
    return Difference(
        missing=tuple(each for each in source if (each.name, each.created_at) not in there),
        extra=tuple(each for each in target if (each.name, each.created_at) not in wanted),
    )


@dataclass(frozen=True, slots=True)
class Steps:
    """Where a refresh comes from: `write` the records of the snapshots to come, with phase "creating"; `bring` those snapshots
    and the content; `settle` what is written when all is there."""

    write: Callable[[Transaction], Awaitable[None]]
    bring: Callable[[], Awaitable[None]]
    settle: Callable[[Transaction], Awaitable[None]]


class InstanceRefresher:
    """The use case."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations

    async def find_target(self, project: str, name: str) -> Loaded | None:
        """The instance that is to be refreshed; None: there is none, so that a refresh is a copy."""
        try:
            return await self._core.load(project, name)
        except NotFound:
            return None

    async def refresh(self, target: Loaded, source: Source, *, caller: Caller) -> Operation:
        """The operation that does it. BadRequest if the target runs."""
        if source.snapshot:
            raise BadRequest("Only instances can be refreshed from, not snapshots")
        if source.machine == target.machine:
            raise BadRequest("An instance cannot be refreshed from itself")
        await self._core.load(source.project, source.name)
        self.check(target)

        async def work(_: Operation) -> None:
            async with self._core.hold(source.machine, target.machine):
                await self._refresh(target, source)
            self._core.tell("instance-updated", target.record, caller=caller)

        record = target.record
        spec = OperationSpec(
            "Refreshing instance", work, project=record.project, resources=instance_resources(record.name), caller=caller
        )
        return self._operations.start(spec)

    def check(self, target: Loaded) -> None:
        """BadRequest or Conflict unless it can be refreshed now."""
        if self._core.status(target.record).is_running:
            raise BadRequest("Cannot refresh a running instance")
        if target.record.phase:
            raise Conflict(f"Instance is busy: {target.record.phase}")

    async def _refresh(self, target: Loaded, wanted: Source) -> None:
        source, source_snapshots = await copy.find_whole(self._core, wanted.project, wanted.name)
        target, target_snapshots = await copy.find_whole(self._core, target.record.project, target.record.name)
        self.check(target)
        difference = Difference() if wanted.instance_only else compare(source_snapshots, target_snapshots)

        async def write(tx: Transaction) -> None:
            await copy.write_snapshots(self._core, tx, source, target, difference.missing)

        async def bring() -> None:
            await self._bring(source, target, wanted, [each.name for each in difference.missing])

        async def settle(tx: Transaction) -> None:
            await copy.copy_volume_record(self._core, tx, source, target)

        await self.change(target, difference.extra, Steps(write, bring, settle))

    async def change(self, target: Loaded, extra: Sequence[Snapshot], steps: Steps) -> None:
        """Make `target`, whose lock is held, without these snapshots, what the steps make of it."""
        driver = self._core.storage.driver(target.pool)
        async with Reverter(f"refresh {target.machine.key}") as undo:
            undo.add(self._set_phase, target, "")
            await self._begin(target, extra)
            await self._remove(target, extra)
            undo.add(self._remove_half_made, target)
            async with self._core.database.write() as tx:
                await steps.write(tx)
            await driver.unmount(target.volume)
            await steps.bring()
            await root_size.apply(self._core, target)
            place = driver.data(target.volume.at("-")).parent
            await folders.link_snapshots(self._core.paths, target.machine.key, place)
            async with self._core.database.write() as tx:
                await copies.settle_snapshots(tx, target.record.id)
                await steps.settle(tx)
                await rows.set_phase(tx, target.record.id, "")
                await rows.patch_config(tx, target.record.id, {templates.APPLY: Trigger.COPY.value})
            undo.success()

    async def _begin(self, target: Loaded, extra: Sequence[Snapshot]) -> None:
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, target.record.id, REFRESHING)
            for snapshot in extra:
                await rows.set_snapshot_phase(tx, snapshot.id, DELETING)

    async def _remove(self, target: Loaded, snapshots: Sequence[Snapshot]) -> None:
        driver = self._core.storage.driver(target.pool)
        await driver.delete(*(target.volume.at(snapshot.name) for snapshot in snapshots))
        async with self._core.database.write() as tx:
            for snapshot in snapshots:
                await rows.delete_snapshot(tx, snapshot.id)

    async def _remove_half_made(self, target: Loaded) -> None:
        async with self._core.database.read() as tx:
            half = [each for each in await rows.snapshots_of(tx, target.record.id) if each.phase == CREATING]
        await self._remove(target, half)

    async def _bring(self, source: Loaded, target: Loaded, wanted: Source, names: Sequence[str]) -> None:
        driver = self._core.storage.driver(target.pool)
        async with copy.content(self._core, source, wanted, pool=target.pool if isinstance(driver, Refreshing) else "") as volume:
            if source.pool == target.pool and isinstance(driver, Refreshing):
                await driver.refresh(volume, target.volume, snapshots=names)
            else:
                states = copy.states_of(self._core, source, names, volume)
                await transfer.refresh(states, Place(driver, target.volume))

    async def _set_phase(self, target: Loaded, phase: str) -> None:
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, target.record.id, phase)

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: say which refreshes were cut off. One sentence for each."""

        async def put_right(loaded: Loaded) -> Sequence[str]:
            if loaded.record.phase != REFRESHING:
                return ()
            await self._set_phase(loaded, "")
            return [f"instance {loaded.machine.key}: its refresh was cut off; refresh it again"]

        half = [each for each in await self._core.load_repairable(pool) if each.record.phase == REFRESHING]
        return await self._core.settle(half, put_right)
