"""Snapshots of instances: create, look at, rename, delete, restore."""

from __future__ import annotations

from atoll.db import instances as rows
from atoll.domain import clock, names
from atoll.domain.caller import Caller
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest, Conflict
from atoll.domain.status import StateAction
from atoll.domain.undo import Reverter
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.state import InstanceRunner
from atoll.services.operations import Operation, OperationRegistry, OperationSpec, Work


class SnapshotService:
    """Use cases of snapshots."""

    def __init__(self, core: InstanceCore, runner: InstanceRunner, operations: OperationRegistry) -> None:
        self._core = core
        self._runner = runner
        self._operations = operations

    async def find_all(self, project: str, name: str) -> tuple[Loaded, list[Snapshot]]:
        """An instance with its snapshots, oldest first."""
        async with self._core.database.read() as tx:
            loaded = await self._core.load_in(tx, project, name)
            return loaded, await rows.snapshots_of(tx, loaded.record.id)

    async def create(
        self, project: str, name: str, snapshot: str, *, expires_at: str, stateful: bool, caller: Caller
    ) -> Operation:
        """The operation that makes one; without a name the next free `snapN`."""
        if stateful:
            raise BadRequest("Stateful snapshots need CRIU, which is not supported in this release")
        if snapshot:
            names.snapshot(snapshot)
        loaded, present = await self.find_all(project, name)
        if any(each.name == snapshot for each in present):
            raise Conflict(f"Snapshot {snapshot!r} already exists")

        async def work(_: Operation) -> None:
            await self._create(project, name, snapshot, expires_at=expires_at, caller=caller)

        return self._start("Snapshotting instance", loaded, work, caller)

    async def _create(self, project: str, name: str, snapshot: str, *, expires_at: str, caller: Caller) -> None:
        machine = (await self._core.load(project, name)).machine
        async with self._core.hold(machine):
            loaded, present = await self.find_all(project, name)
            snapshot = snapshot or _next_name({each.name for each in present})
            driver = self._core.storage.driver(loaded.pool)
            target = loaded.volume.at(snapshot)
            async with self._core.database.write() as tx:
                row_id = await rows.create_snapshot(
                    tx, loaded.record, snapshot, created_at=clock.rfc3339(), expires_at=expires_at, phase="creating"
                )
            async with Reverter(f"snapshot {machine.key}/{snapshot}") as undo:
                undo.add(self._forget, row_id)
                await driver.snapshot(target)
                undo.add(driver.delete, target)
                async with self._core.database.write() as tx:
                    await rows.set_snapshot_phase(tx, row_id, "")
                undo.success()
        self._core.tell("instance-snapshot-created", loaded.record, suffix=f"/snapshots/{snapshot}", caller=caller)

    async def _forget(self, row_id: int) -> None:
        async with self._core.database.write() as tx:
            await rows.delete_snapshot(tx, row_id)

    async def delete(self, project: str, name: str, snapshot: str, *, caller: Caller) -> Operation:
        """The operation that removes one."""
        loaded, _ = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            async with self._core.hold(loaded.machine), self._core.hold_snapshot(loaded.machine, snapshot):
                _loaded, found = await self._core.load_snapshot(project, name, snapshot)
                await self._core.storage.driver(loaded.pool).delete(loaded.volume.at(snapshot))
                await self._forget(found.id)
            self._core.tell("instance-snapshot-deleted", loaded.record, suffix=f"/snapshots/{snapshot}", caller=caller)

        return self._start("Deleting snapshot", loaded, work, caller, snapshot)

    async def rename(self, project: str, name: str, snapshot: str, new: str, *, caller: Caller) -> Operation:
        """The operation that gives one another name."""
        names.snapshot(new)
        loaded, _ = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            async with self._core.hold(loaded.machine), self._core.hold_snapshot(loaded.machine, snapshot):
                _loaded, found = await self._core.load_snapshot(project, name, snapshot)
                driver = self._core.storage.driver(loaded.pool)
                async with self._core.database.write() as tx, Reverter(f"rename snapshot {snapshot}") as undo:
                    await rows.rename_snapshot(tx, found.id, new)
                    await driver.rename(loaded.volume.at(snapshot), loaded.volume.at(new))
                    undo.add(driver.rename, loaded.volume.at(new), loaded.volume.at(snapshot))
                    undo.success()
            self._core.tell(
                "instance-snapshot-renamed",
                loaded.record,
                suffix=f"/snapshots/{new}",
                context={"old_name": snapshot},
                caller=caller,
            )

        return self._start("Renaming snapshot", loaded, work, caller, snapshot)

    async def update_later(self, project: str, name: str, snapshot: str, *, expires_at: str, caller: Caller) -> Operation:
        """The operation that changes when it expires."""
        loaded, found = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            async with self._core.database.write() as tx:
                await rows.update_snapshot(tx, found.id, expires_at=expires_at)
            self._core.tell("instance-snapshot-updated", loaded.record, suffix=f"/snapshots/{snapshot}", caller=caller)

        return self._start("Updating snapshot", loaded, work, caller, snapshot)

    async def restore(self, project: str, name: str, snapshot: str, *, stateful: bool, caller: Caller) -> Operation:
        """The operation that makes the instance as it was; one that runs is stopped for it and started again.

        `snapshot` is its name, alone or as NAME/SNAPSHOT, which is what clients send.
        """
        snapshot = snapshot.removeprefix(f"{name}/")
        if stateful:
            raise BadRequest("Stateful restore needs CRIU, which is not supported in this release")
        loaded, _ = await self._core.load_snapshot(project, name, snapshot)

        async def work(_: Operation) -> None:
            await self._restore(loaded, snapshot, caller=caller)

        return self._start("Restoring snapshot", loaded, work, caller)

    async def _restore(self, loaded: Loaded, name: str, *, caller: Caller) -> None:
        was_running = self._core.status(loaded.record).is_running
        if was_running:
            await self._runner.act(loaded.machine, StateAction.STOP, timeout=0, force=True, caller=caller)
        async with self._core.hold(loaded.machine):
            project, instance = loaded.record.project, loaded.record.name
            present, snapshot = await self._core.load_snapshot(project, instance, name)
            await self._core.storage.driver(loaded.pool).restore(loaded.volume.at(name))
            volatile = {k: v for k, v in present.record.config.items() if k.startswith("volatile.")}
            own = {k: v for k, v in snapshot.config.items() if not k.startswith("volatile.")}
            async with self._core.database.write() as tx:
                available = await self._core.profiles_in(tx, project)
                await rows.update(
                    tx,
                    present.record.id,
                    description=snapshot.description,
                    architecture=snapshot.architecture,
                    ephemeral=snapshot.ephemeral,
                    config={**own, **volatile},
                    devices=snapshot.devices,
                    profile_project=await self._core.profile_owner(tx, project),
                    profiles=tuple(each for each in snapshot.profiles if each in available),
                )
        self._core.tell("instance-restored", loaded.record, context={"snapshot": name}, caller=caller)
        if was_running:
            await self._runner.act(loaded.machine, StateAction.START, timeout=0, force=False, caller=caller)

    def _start(self, description: str, loaded: Loaded, work: Work, caller: Caller, snapshot: str = "") -> Operation:
        record = loaded.record
        resources = instance_resources(record.name)
        if snapshot:
            resources["instances_snapshots"] = [f"{resources['instances'][0].partition('?')[0]}/snapshots/{snapshot}"]
        return self._operations.start(
            OperationSpec(description, work, project=record.project, resources=resources, caller=caller)
        )

    async def repair(self) -> list[str]:
        """On start: remove snapshots whose making was cut off. One sentence for each."""
        done: list[str] = []
        for loaded in await self._core.load_all(None):
            async with self._core.database.read() as tx:
                half = [s for s in await rows.snapshots_of(tx, loaded.record.id) if s.phase]
            for snapshot in half:
                await self._core.storage.driver(loaded.pool).delete(loaded.volume.at(snapshot.name))
                await self._forget(snapshot.id)
                done.append(f"removed snapshot {loaded.machine.key}/{snapshot.name}: its making was cut off")
        return done


def _next_name(taken: set[str]) -> str:
    return next(f"snap{i}" for i in range(len(taken) + 1) if f"snap{i}" not in taken)
