"""Changing and renaming instances, and what a change of a profile means for the instances that have it.

A running instance takes what can be taken live (limits, devices that can be hotplugged); a change that cannot be applied to it
is refused before anything is written.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from atoll.db import instances as rows
from atoll.db import profiles as profile_rows
from atoll.db import storage as storage_rows
from atoll.db.engine import Transaction
from atoll.domain import architectures, names
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance, Profile
from atoll.domain.errors import AtollError, BadRequest, Conflict, NotFound
from atoll.domain.image_metadata import Trigger
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.host import folders
from atoll.services.guest.events import GuestEvents
from atoll.services.instances import cloud_init, devlxd, disk_limits, records, requirements, root_size, templates
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources, volume_of
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.expand import Expanded, expand
from atoll.services.instances.state import InstanceRunner
from atoll.services.networks import NetworkService
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

log = logging.getLogger(__name__)

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
                architecture=architectures.canonical(change.architecture),
            )
            self._core.check_config(change.config)
            expanded = await self._checked(loaded, change)
            async with Reverter(f"update instance {loaded.machine.key}") as undo:
                volatile = await self._apply(loaded, expanded, undo)
                async with self._core.database.write() as tx:
                    volatile |= await self._idmap(tx, loaded, expanded)
                    volatile |= cloud_init.id_after(loaded.record.config, loaded.expanded, expanded)
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
        return expanded

    async def _apply(self, loaded: Loaded, expanded: Expanded, undo: Reverter) -> dict[str, str]:
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

    async def _idmap(self, tx: Transaction, loaded: Loaded, expanded: Expanded) -> dict[str, str]:
        """Volatile changes for the ids of the next start, where the new configuration says something else about them."""
        if not _differ(loaded.expanded.config, expanded.config, _ID_KEYS):
            return {}
        return await self._runner.idmaps.choose(tx, loaded.machine, expanded.config)

    # --- profiles ------------------------------------------------------------------------------------------------------

    def check_profile(self, config: Mapping[str, str]) -> None:
        """BadRequest for what a profile may not have."""
        if any(key.startswith("volatile.") for key in config):
            raise BadRequest("Volatile keys can only be set on instances")
        self._core.check_config(config)

    async def change_profile(self, profile: Profile, new: Profile) -> None:
        """Write a profile's new content and bring all running instances that have it there: all of it or, when one cannot follow,
        nothing."""
        held: frozenset[MachineId] = frozenset()
        while True:
            async with self._core.hold(*held):
                async with self._core.database.read() as tx:
                    users = frozenset(MachineId(*each) for each in await self._users(tx, profile))
                if users <= held:
                    await self._change_profile_held(profile, new, users)
                    return
            held = users  # some came meanwhile

    @staticmethod
    async def _users(tx: Transaction, profile: Profile) -> list[tuple[str, str]]:
        return (await profile_rows.users(tx, [profile.id])).get(profile.id, [])

    async def _change_profile_held(self, profile: Profile, new: Profile, users: frozenset[MachineId]) -> None:
        changes = await self._changes_of(profile, new, users)
        volatile: dict[int, dict[str, str]] = {}
        async with Reverter(f"change profile {profile.name}") as undo:
            for loaded, expanded in changes:
                with _naming(loaded):
                    volatile[loaded.record.id] = await self._apply(loaded, expanded, undo)
            async with self._core.database.write() as tx:
                for loaded, expanded in changes:
                    with _naming(loaded):
                        more = await self._idmap(tx, loaded, expanded)
                        more |= cloud_init.id_after(loaded.record.config, loaded.expanded, expanded)
                    await rows.patch_config(tx, loaded.record.id, {**volatile[loaded.record.id], **more})
                await profile_rows.update(tx, profile.id, new.description, new.config, new.devices)
            undo.success()
        for loaded, expanded in changes:
            self._guests.changed(loaded.machine, loaded.expanded, expanded)
            if loaded.expanded.devices != expanded.devices:
                await self._networks.reserve(loaded.record, expanded, {})

    async def _changes_of(self, profile: Profile, new: Profile, users: frozenset[MachineId]) -> list[tuple[Loaded, Expanded]]:
        """What becomes of each user of a profile, in a fixed number of statements for each project. BadRequest if one cannot."""
        changes: list[tuple[Loaded, Expanded]] = []
        for project in sorted({machine.project for machine in users}):
            async with self._core.database.read() as tx:
                available = {**await self._core.profiles_in(tx, project), profile.name: new}
            for loaded in await self._core.load_all(project):
                if loaded.machine in users:
                    record = loaded.record
                    expanded = expand(record.config, record.devices, [available[each] for each in record.profiles])
                    with _naming(loaded):
                        _require_same_pool(loaded, expanded)
                    changes.append((loaded, expanded))
        return changes

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
                    waiting = loaded.record.config.get(templates.APPLY) or Trigger.RENAME.value
                    await rows.patch_config(tx, loaded.record.id, {templates.APPLY: waiting, **cloud_init.new_id()})
                undo.add(self._rename_rows_back, loaded, new)
                await self.rename_files(loaded, new)
                async with self._core.database.write() as tx:
                    await rows.set_phase(tx, loaded.record.id, "")
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
            before = {key: loaded.record.config.get(key, "") for key in (templates.APPLY, cloud_init.INSTANCE_ID)}
            await rows.patch_config(tx, loaded.record.id, before)
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


def _differ(old: Mapping[str, str], new: Mapping[str, str], prefixes: tuple[str, ...]) -> bool:
    """Whether any key that begins so differs."""
    return any(old.get(key, "") != new.get(key, "") for key in {*old, *new} if key.startswith(prefixes))


def _require_same_pool(loaded: Loaded, expanded: Expanded) -> None:
    pool = expanded.root_disk()[1].get("pool", "")
    if pool != loaded.pool:
        raise BadRequest(f'Cannot update root disk device pool name to "{pool}"', hint="move the instance instead")


@contextlib.contextmanager
def _naming(loaded: Loaded) -> Iterator[None]:
    """Errors inside say which instance they are about."""
    try:
        yield
    except AtollError as error:
        raise type(error)(f"Instance {loaded.record.name!r}: {error.message}", hint=error.hint) from error


def change_of(record: Instance) -> Change:
    """What a PUT of the record as it is would say: the base that a PATCH starts from."""
    return Change(record.description, record.architecture, record.ephemeral, record.config, record.devices, record.profiles)
