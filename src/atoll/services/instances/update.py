"""Changing and renaming instances.

A running instance takes what can be taken live (limits, devices that can be hotplugged); a change that cannot be applied to it
is refused before anything is written.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from atoll.db import instances as rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import architectures, names
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance
from atoll.domain.errors import BadRequest, Conflict, NotFound
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services.guest.events import GuestEvents
from atoll.services.instances import (
    cloud_init,
    devlxd,
    disk_limits,
    nic_addresses,
    records,
    requirements,
    root_size,
    templates,
)
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources, volume_of
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import Expanded, expand
from atoll.services.instances.state import InstanceRunner
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

RENAMING = "renaming from "
"""Phase of a row whose files may still have the name that follows."""

_LIVE_LIMITS = (
    "limits.cpu",
    "limits.memory",
    "limits.processes",
    "limits.disk.priority",
    "limits.hugepages",
    "limits.network.priority",
)
_ID_KEYS = ("security.privileged", "security.idmap.", "raw.idmap")


@dataclass(frozen=True, slots=True)
class Change:
    """All that a PUT of an instance replaces."""

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
        guests: GuestEvents,
    ) -> None:
        self._core = core
        self._devices = devices
        self._runner = runner
        self._networks = networks
        self._operations = operations
        self._guests = guests

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
            config = records.with_frozen_volatile(loaded.record.config, records.without_empty(change.config))
            change = dataclasses.replace(
                change,
                config=await self._with_own_addresses(loaded.record, config),
                devices=records.whole_devices(change.devices),
                architecture=architectures.canonical(change.architecture),
            )
            self._core.check_config(change.config)
            expanded = await self._checked(loaded, change)
            async with Reverter(f"update instance {loaded.machine.key}") as undo:
                volatile = await self.apply(loaded, expanded, undo)
                async with self._core.database.write() as tx:
                    volatile = {**await self.of_next_start(tx, loaded, expanded), **volatile}
                    config = {k: v for k, v in {**change.config, **volatile}.items() if v != ""}
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
            self._guests.changed(loaded.machine, loaded.expanded, expanded)
            await self._networks.reserve((await self._core.load(project, name)).record, expanded, {})
        self._core.tell("instance-updated", loaded.record, caller=caller)

    async def _with_own_addresses(self, record: Instance, config: dict[str, str]) -> dict[str, str]:
        """Without MAC addresses that are another instance's: a client that refreshes a copy sends those of its source."""
        present = record.config
        addresses = [key for key in config if key.startswith("volatile.") and key.endswith(".hwaddr")]
        new = [key for key in addresses if config[key] != present.get(key)]
        if not new:
            return config
        async with self._core.database.read() as tx:
            found = await rows.values_of(tx, *new)
        others = [values for place, values in found.items() if place != (record.project, record.name)]
        taken = {key for values in others for key, value in values.items() if config[key] == value}
        own = {key: present[key] for key in taken if key in present}
        return {**{key: value for key, value in config.items() if key not in taken}, **own}

    async def _checked(self, loaded: Loaded, change: Change) -> Expanded:
        async with self._core.database.read() as tx:
            available = await self._core.profiles_in(tx, loaded.record.project)
            self._core.find_missing(change.profiles, available)
            expanded = expand(change.config, change.devices, [available[name] for name in change.profiles])
            _require_same_pool(loaded, expanded)
            await self._devices.validate(tx, loaded.record.project, change.devices)
            await self._devices.validate_together(tx, loaded, expanded.devices)
        await self._devices.require_sources(loaded, expanded.devices)
        self.require_free_nics(loaded, expanded)
        return expanded

    def require_free_nics(self, loaded: Loaded, expanded: Expanded) -> None:
        """Conflict if a NIC that changes would have an address or a name that another NIC has on its bridge."""
        old, new = loaded.expanded.devices, expanded.devices
        changed = {name: "update" if name in old else "add" for name in new if new[name] != old.get(name)}
        self._networks.require_free(loaded.record, expanded, changed)

    async def apply(self, loaded: Loaded, expanded: Expanded, undo: Reverter) -> dict[str, str]:
        """Bring an instance, above all a running one, from its old to its new expanded form. Returns volatile changes."""
        await root_size.change(self._core, loaded, expanded, undo)
        if not self._core.status(loaded.record).is_running:
            return {}
        old, new = loaded.expanded, expanded
        if _differ(old.config, new.config, ("linux.kernel_modules",)):
            await requirements.load_modules(new.config)
        volatile: dict[str, str] = {}
        if old.devices != new.devices:
            volatile = await self._devices.change_running(loaded, old.devices, new.devices, undo)
        await devlxd.follow(self._core, loaded, new.config, undo)
        if _differ(old.config, new.config, _LIVE_LIMITS) or disk_limits.wanted(old.devices) != disk_limits.wanted(new.devices):
            undo.add(self._runner.apply_limits, loaded, old)
            await self._runner.apply_limits(loaded, new)
        return volatile

    async def of_next_start(self, tx: Transaction, loaded: Loaded, expanded: Expanded) -> dict[str, str]:
        """Volatile changes for the next start: its ids, where the new configuration says something else about them, the addresses
        of its NICs, whether the guest sets itself up anew, and a size that cannot be set yet. What `apply` has found counts
        more."""
        volatile = cloud_init.id_after(loaded.record.config, loaded.expanded, expanded)
        volatile |= root_size.put_off(self._core, loaded, expanded)
        volatile |= nic_addresses.after(loaded.expanded.devices, expanded, self._networks.new_hwaddr)
        if _differ(loaded.expanded.config, expanded.config, _ID_KEYS):
            volatile = {**volatile, **await self._runner.idmaps.choose(tx, loaded.machine, expanded.config)}
        return volatile

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
            if loaded.record.phase:
                raise Conflict(f"Instance is busy: {loaded.record.phase}")
            await self._core.require_unread(loaded)
            driver = self._core.storage.driver(loaded.pool)
            await driver.unmount(loaded.volume)
            async with Reverter(f"rename instance {loaded.machine.key}") as undo:
                async with self._core.database.write() as tx:
                    # The row's phase names the other name until the files have followed, for `repair` after a kill.
                    await rows.rename(tx, loaded.record.id, new)
                    await rows.set_phase(tx, loaded.record.id, RENAMING + name)
                    await _rename_volume_row(tx, loaded, new)
                    waiting = loaded.record.config.get(templates.APPLY) or Trigger.RENAME.value
                    await rows.patch_config(tx, loaded.record.id, {templates.APPLY: waiting, **cloud_init.new_id()})
                undo.add(self._rename_rows_back, loaded, new)
                await self._rename_files(loaded, new, undo)
                async with self._core.database.write() as tx:
                    await rows.set_phase(tx, loaded.record.id, "")
                undo.success()
            await self._networks.release(project, name)
            renamed = await self._core.load(project, new)
            await self._networks.reserve(renamed.record, renamed.expanded, {})
        self._core.tell("instance-renamed", renamed.record, caller=caller, context={"old_name": name})

    async def _rename_files(self, loaded: Loaded, new: str, undo: Reverter) -> None:
        """Volume and folders."""
        driver, target = self._core.storage.driver(loaded.pool), volume_of(loaded.record.project, new)
        new_key = MachineId(loaded.record.project, new).key
        undo.add(self._rename_folders, new_key, loaded.machine.key, driver.data(loaded.volume))  # after the volume is back
        await driver.rename(loaded.volume, target)
        undo.add(driver.rename, target, loaded.volume)
        await self._rename_folders(loaded.machine.key, new_key, driver.data(target))

    async def _rename_folders(self, key: str, new: str, data: Path) -> None:
        """Let them follow the volume; can be repeated."""
        await folders.rename_instance_folders(self._core.paths, key, new, data)

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: let the files follow a row whose renaming was cut off, and set sizes that were put off. One sentence
        for each."""
        half = [each for each in await self._core.load_repairable(pool) if each.record.phase.startswith(RENAMING)]
        done = await self._core.settle(half, self._put_right, other=lambda loaded: _before(loaded).machine)
        return done + await root_size.settle(self._core, pool)

    async def _put_right(self, loaded: Loaded) -> Sequence[str]:
        if not loaded.record.phase.startswith(RENAMING):
            return ()
        before = _before(loaded)
        driver = self._core.storage.driver(loaded.pool)
        with suppress(NotFound):  # it has the new name already: the pool's audit sees to that
            await driver.rename(before.volume, loaded.volume)
        await self._rename_folders(before.machine.key, loaded.machine.key, driver.data(loaded.volume))
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, loaded.record.id, "")
        return [f"finished renaming instance {before.record.name} to {loaded.record.name}"]

    async def _rename_rows_back(self, loaded: Loaded, new: str) -> None:
        async with self._core.database.write() as tx:
            await rows.rename(tx, loaded.record.id, loaded.record.name)
            await rows.set_phase(tx, loaded.record.id, "")
            before = {key: loaded.record.config.get(key, "") for key in (templates.APPLY, cloud_init.INSTANCE_ID)}
            await rows.patch_config(tx, loaded.record.id, before)
            await tx.execute(
                "UPDATE storage_volumes SET name = ? WHERE name = ? AND type = 'container' AND project_id ="
                " (SELECT id FROM projects WHERE name = ?)",
                loaded.record.name,
                new,
                loaded.record.project,
            )


def _before(loaded: Loaded) -> Loaded:
    """One that is being renamed, by its old name."""
    return Loaded(dataclasses.replace(loaded.record, name=loaded.record.phase.removeprefix(RENAMING)), loaded.expanded)


async def _rename_volume_row(tx: Transaction, loaded: Loaded, new: str) -> None:
    row = await storage_rows.volume(tx, loaded.pool, loaded.record.project, "container", loaded.record.name)
    await storage_rows.rename_volume(tx, row.id, new)


def _differ(old: Mapping[str, str], new: Mapping[str, str], prefixes: tuple[str, ...]) -> bool:
    """Whether any key that begins so differs."""
    return any(old.get(key, "") != new.get(key, "") for key in {*old, *new} if key.startswith(prefixes))


def _require_same_pool(loaded: Loaded, expanded: Expanded) -> None:
    pool = expanded.root_disk()[1].get("pool", "")
    if pool != loaded.pool:
        raise BadRequest(f'Cannot update root disk device pool name to "{pool}"', hint="move the instance instead")


def change_of(record: Instance) -> Change:
    """What a PUT of the record as it is would say: the base that a PATCH starts from."""
    return Change(record.description, record.architecture, record.ephemeral, record.config, record.devices, record.profiles)
