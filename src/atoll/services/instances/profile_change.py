"""What a change of a profile means for the instances that have it.

A profile that is valid is written, whatever becomes of its instances; then each is brought to it by itself. One that cannot
follow is named, stays as it is for as long as it runs, and does not start until its configuration is possible again. Refused is
only what would take the root disk from instances, or move it to another pool: no file would follow.

An instance to which something else is being done is waited for, but not for ever: the others are held meanwhile.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from atoll.db import instances as rows
from atoll.db import profiles as profile_rows
from atoll.db.engine import Transaction
from atoll.domain.entities import Profile
from atoll.domain.errors import AtollError, BadRequest, Conflict
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.services.guest.events import GuestEvents
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import Expanded, expand
from atoll.services.instances.update import InstanceUpdater
from atoll.services.networks import NetworkService

Failures = dict[MachineId, AtollError]
"""Instances that could not follow, and why."""

PATIENCE = 5.0
"""Seconds in which instances that are busy may become free, all together."""


class ProfileChanger:
    """Use case of a profile that instances have."""

    def __init__(self, core: InstanceCore, updater: InstanceUpdater, networks: NetworkService, guests: GuestEvents) -> None:
        self._core = core
        self._updater = updater
        self._networks = networks
        self._guests = guests

    def check(self, config: Mapping[str, str]) -> None:
        """BadRequest for what a profile may not have."""
        if any(key.startswith("volatile.") for key in config):
            raise BadRequest("Volatile keys can only be set on instances")
        self._core.check_config(config)

    async def change(self, profile: Profile, new: Profile) -> Failures:
        """Write a profile's new content and bring the instances that have it there. BadRequest, and nothing is changed, if one
        of them would lose its root disk by it."""
        wanted: frozenset[MachineId] = frozenset()
        while True:
            async with self._hold(wanted) as held:
                async with self._core.database.read() as tx:
                    users = frozenset(MachineId(*each) for each in await self._users(tx, profile))
                if users <= wanted:
                    return await self._change_held(profile, new, users, held)
            wanted = users  # some came meanwhile

    @asynccontextmanager
    async def _hold(self, machines: frozenset[MachineId]) -> AsyncIterator[frozenset[MachineId]]:
        """Nothing else happens to those that are given meanwhile: all but what stays busy."""
        deadline = asyncio.get_running_loop().time() + PATIENCE
        held: set[MachineId] = set()
        async with AsyncExitStack() as stack:
            for machine in sorted(machines, key=lambda each: repr(each.key)):  # as all who hold several
                try:
                    async with asyncio.timeout_at(deadline):
                        await stack.enter_async_context(self._core.hold(machine))
                except TimeoutError:
                    continue
                held.add(machine)
            yield frozenset(held)

    @staticmethod
    async def _users(tx: Transaction, profile: Profile) -> list[tuple[str, str]]:
        return (await profile_rows.users(tx, [profile.id])).get(profile.id, [])

    async def _change_held(
        self, profile: Profile, new: Profile, users: frozenset[MachineId], held: frozenset[MachineId]
    ) -> Failures:
        changes = await self._changes_of(profile, new, users)
        failed: Failures = {machine: Conflict("Instance is busy") for machine in users - held}
        async with self._core.database.write() as tx:
            await profile_rows.update(tx, profile.id, new.description, new.config, new.devices)
            for loaded, expanded in changes:
                try:
                    expanded.root_disk()
                    if volatile := await self._updater.of_next_start(tx, loaded, expanded):
                        await rows.patch_config(tx, loaded.record.id, volatile)
                except AtollError as error:
                    failed[loaded.machine] = error
        for loaded, expanded in changes:
            if loaded.machine not in failed:
                try:
                    await self._follow(loaded, expanded)
                except AtollError as error:
                    failed[loaded.machine] = error
        return failed

    async def _follow(self, loaded: Loaded, expanded: Expanded) -> None:
        """Bring an instance there, above all a running one, or leave it as it is."""
        self._updater.require_free_nics(loaded, expanded)
        async with Reverter(f"update instance {loaded.machine.key}") as undo:
            volatile = await self._updater.apply(loaded, expanded, undo)
            await self._core.patch_volatile(loaded.record, volatile)
            undo.success()
        self._core.tell("instance-updated", loaded.record)
        self._guests.changed(loaded.machine, loaded.expanded, expanded)
        if loaded.expanded.devices != expanded.devices:
            record = (await self._core.load(loaded.record.project, loaded.record.name)).record  # with the addresses of new NICs
            await self._networks.reserve(record, expanded, {})

    async def _changes_of(self, profile: Profile, new: Profile, users: frozenset[MachineId]) -> list[tuple[Loaded, Expanded]]:
        """What becomes of each user of a profile, in a fixed number of statements for each project."""
        changes: list[tuple[Loaded, Expanded]] = []
        for project in sorted({machine.project for machine in users}):
            async with self._core.database.read() as tx:
                available = {**await self._core.profiles_in(tx, project), profile.name: new}
            for loaded in await self._core.load_all(project):
                if loaded.machine in users:
                    record = loaded.record
                    expanded = expand(record.config, record.devices, [available[each] for each in record.profiles])
                    _require_root(loaded, expanded)
                    changes.append((loaded, expanded))
        return changes


def _require_root(loaded: Loaded, expanded: Expanded) -> None:
    """BadRequest if the instance would have no root disk, or one elsewhere."""
    pools = [device.get("pool", "") for device in expanded.root_disks().values()]
    if not pools or (len(pools) == 1 and pools[0] != loaded.pool):
        raise BadRequest(
            "At least one instance relies on this profile's root disk device", hint=f"instance {loaded.record.name!r} does"
        )
