"""Changing and renaming instances, and what a change of a profile means for the instances that have it.

A running instance takes what can be taken live (limits, devices that can be hotplugged); a change that cannot be applied to it
is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll import config as keys
from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import architectures, names
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance, Profile
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services.instances import records, templates
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources, volume_of
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import Expanded, expand
from atoll.services.instances.state import InstanceRunner
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

RENAMING = "renaming from "
"""Phase of a row whose files may still have the name that follows."""

_LIVE_LIMITS = ("limits.cpu", "limits.memory", "limits.processes", "limits.disk.priority", "limits.hugepages")


@dataclass(frozen=True, slots=True)
class Change:
    """All that a PUT replaces."""

    description: str
    architecture: str
    ephemeral: bool
    config: Mapping[str, str] = field(default_factory=dict)
    devices: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    profiles: tuple[str, ...] = ()


class InstanceUpdater:
    """Use cases of change."""

    def __init__(
        self,
        core: InstanceCore,
        devices: DeviceService,
        runner: InstanceRunner,
        networks: NetworkService,
        operations: OperationRegistry,
    ) -> None:
        self._core = core
        self._devices = devices
        self._runner = runner
        self._networks = networks
        self._operations = operations

    async def update_later(self, loaded: Loaded, change: Change, *, caller: Caller) -> Operation:
        """The operation of a PUT."""
        project, name = loaded.record.project, loaded.record.name

        async def work(_: Operation) -> None:
            await self.update(project, name, change, caller=caller)

        return self._operations.start(
            OperationSpec("Updating instance", work, project=project, resources=instance_resources(name), caller=caller)
        )

    async def update(self, project: str, name: str, change: Change, *, caller: Caller) -> None:
        """Replace the record and bring a running instance to it."""
        async with self._core.hold((await self._core.load(project, name)).machine):
            loaded = await self._core.load(project, name)
            change = dataclasses.replace(
                change,
                config=records.with_frozen_volatile(loaded.record.config, change.config),
                architecture=architectures.canonical(change.architecture),
            )
            records.check_config(change.config)
            expanded = await self._checked(loaded, change)
            async with Reverter(f"update instance {loaded.machine.key}") as undo:
                volatile = await self._apply(loaded, expanded, undo)
                config = {k: v for k, v in {**change.config, **volatile}.items() if v != ""}
                async with self._core.database.write() as tx:
                    await rows.update(
                        tx,
                        loaded.record.id,
                        description=change.description,
                        architecture=change.architecture,
                        ephemeral=change.ephemeral,
                        config=config,
                        devices=change.devices,
                        profile_project=await self._core.profile_owner(tx, project),
                        profiles=change.profiles,
                    )
                undo.success()
            await self._networks.reserve((await self._core.load(project, name)).record, expanded, {})
        self._core.tell("instance-updated", loaded.record, caller=caller)

    async def _checked(self, loaded: Loaded, change: Change) -> Expanded:
        async with self._core.database.read() as tx:
            available = await self._core.profiles_in(tx, loaded.record.project)
            self._core.find_missing(change.profiles, available)
            await self._devices.validate(tx, loaded.record.project, change.devices)
        expanded = expand(change.config, change.devices, [available[name] for name in change.profiles])
        if expanded.root_disk()[1].get("pool") != loaded.pool:
            raise BadRequest("The storage pool of the root disk can't be changed", hint="move the instance instead")
        return expanded

    async def _apply(self, loaded: Loaded, expanded: Expanded, undo: Reverter) -> dict[str, str]:
        """Bring a running instance from its old to its new expanded form. Returns volatile changes."""
        if not self._core.status(loaded.record).is_running:
            return {}
        self._check_live(loaded.expanded.config, expanded.config)
        volatile: dict[str, str] = {}
        if loaded.expanded.devices != expanded.devices:
            volatile = await self._devices.change_running(loaded, loaded.expanded.devices, expanded.devices, undo)
        if _limits_differ(loaded.expanded.config, expanded.config):
            old = self._runner.limits_of(loaded.expanded.config)
            await self._core.driver.set_limits(loaded.machine, self._runner.limits_of(expanded.config))
            undo.add(self._core.driver.set_limits, loaded.machine, old)
        return volatile

    @staticmethod
    def _check_live(old: Mapping[str, str], new: Mapping[str, str]) -> None:
        """Keys that make no sense to change under a running machine."""
        for key in ("security.privileged", "security.nesting", "security.idmap.isolated", "security.idmap.size", "raw.idmap"):
            row = keys.INSTANCE.find(key)
            if old.get(key, "") != new.get(key, "") and row is not None and not row.live:
                log.info("%s takes effect at the next start", key)

    # --- profiles ------------------------------------------------------------------------------------------------------

    async def profile_changed(self, profile: Profile, new: Profile, users: list[tuple[str, str]]) -> None:
        """Bring all running instances that have a profile to its new content; all are checked before any is touched."""
        changes: list[tuple[Loaded, Expanded]] = []
        for project, name in users:
            async with self._core.database.read() as tx:
                loaded = await self._core.load_in(tx, project, name)
                available = {**await self._core.profiles_in(tx, project), profile.name: new}
            record = loaded.record
            expanded = expand(record.config, record.devices, [available[each] for each in record.profiles])
            if expanded.root_disk()[1].get("pool") != loaded.pool:
                raise BadRequest(f"The root disk of instance {name!r} would change its pool")
            changes.append((loaded, expanded))
        async with Reverter(f"apply profile {profile.name}") as undo:
            for loaded, expanded in changes:
                async with self._core.hold(loaded.machine):
                    volatile = await self._apply(loaded, expanded, undo)
                    await self._core.patch_volatile(loaded.record, volatile)
            undo.success()

    # --- rename --------------------------------------------------------------------------------------------------------

    async def rename(self, project: str, name: str, new: str, *, caller: Caller) -> Operation:
        """The operation that gives a stopped instance another name."""
        names.instance(new)
        loaded = await self._core.load(project, name)
        self._core.require_stopped(loaded, "renamed")
        async with self._core.database.read() as tx:
            if (project, new) in await rows.names(tx, project):
                raise Conflict(f"Name {new!r} already in use")

        async def work(_: Operation) -> None:
            await self._rename(project, name, new, caller=caller)

        return self._operations.start(
            OperationSpec("Renaming instance", work, project=project, resources=instance_resources(name), caller=caller)
        )

    async def _rename(self, project: str, name: str, new: str, *, caller: Caller) -> None:
        async with self._core.hold(MachineId(project, name), MachineId(project, new)):
            loaded = await self._core.load(project, name)
            self._core.require_stopped(loaded, "renamed")
            driver = self._core.storage.driver(loaded.pool)
            await driver.unmount(loaded.volume)
            async with Reverter(f"rename instance {loaded.machine.key}") as undo:
                async with self._core.database.write() as tx:
                    # The row's phase names the other name until the files have followed, for `repair` after a kill.
                    await rows.rename(tx, loaded.record.id, new)
                    await rows.set_phase(tx, loaded.record.id, RENAMING + name)
                    await _rename_volume_row(tx, loaded, new)
                undo.add(self._rename_rows_back, loaded, new)
                await self.rename_files(loaded, new)
                async with self._core.database.write() as tx:
                    await rows.set_phase(tx, loaded.record.id, "")
                    if not loaded.record.config.get(templates.APPLY):
                        await rows.patch_config(tx, loaded.record.id, {templates.APPLY: Trigger.RENAME.value})
                undo.success()
            await self._networks.release(project, name)
            renamed = await self._core.load(project, new)
            await self._networks.reserve(renamed.record, renamed.expanded, {})
        self._core.tell("instance-renamed", renamed.record, caller=caller, context={"old_name": name})

    async def rename_files(self, loaded: Loaded, new: str) -> None:
        """Volume and folders; can be repeated."""
        target = volume_of(loaded.record.project, new)
        driver = self._core.storage.driver(loaded.pool)
        await driver.rename(loaded.volume, target)
        new_key = MachineId(loaded.record.project, new).key
        await folders.rename_instance_folders(self._core.paths, loaded.machine.key, new_key, driver.data(target))

    async def repair(self) -> list[str]:
        """On start: let the files follow a row whose renaming was cut off. One sentence for each."""
        done: list[str] = []
        for loaded in await self._core.load_all(None):
            if not loaded.record.phase.startswith(RENAMING):
                continue
            old = loaded.record.phase.removeprefix(RENAMING)
            before = Loaded(dataclasses.replace(loaded.record, name=old), loaded.expanded)
            try:
                await self.rename_files(before, loaded.record.name)
            except NotFound:
                log.debug("The files of %s had their new name already", loaded.machine.key)
            async with self._core.database.write() as tx:
                await rows.set_phase(tx, loaded.record.id, "")
            done.append(f"finished renaming instance {old} to {loaded.record.name}")
        return done

    async def _rename_rows_back(self, loaded: Loaded, new: str) -> None:
        async with self._core.database.write() as tx:
            await rows.rename(tx, loaded.record.id, loaded.record.name)
            await rows.set_phase(tx, loaded.record.id, "")
            await tx.execute(
                "UPDATE storage_volumes SET name = ? WHERE name = ? AND type = 'container' AND project_id ="
                " (SELECT id FROM projects WHERE name = ?)",
                loaded.record.name,
                new,
                loaded.record.project,
            )


async def _rename_volume_row(tx: Transaction, loaded: Loaded, new: str) -> None:
    row = await storage_rows.volume(tx, loaded.pool, loaded.record.project, "container", loaded.record.name)
    await storage_rows.rename_volume(tx, row.id, new)


def _limits_differ(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    return any(old.get(key, "") != new.get(key, "") for key in {*old, *new} if key.startswith(_LIVE_LIMITS))


def change_of(record: Instance) -> Change:
    """What a PUT of the record as it is would say: the base that a PATCH starts from."""
    return Change(record.description, record.architecture, record.ephemeral, record.config, record.devices, record.profiles)
