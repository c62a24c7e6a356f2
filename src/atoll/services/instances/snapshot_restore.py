"""Restoring a snapshot: the instance gets its content, configuration, devices and profiles back.

The instance's row says from the first step on what is being restored. Until the content is exchanged nothing has changed but that
a running instance was stopped; the exchange is one step of the storage driver, and can be repeated.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from functools import partial

from atoll.db import instance_volumes
from atoll.db import instances as rows
from atoll.domain.caller import DAEMON, Caller
from atoll.domain.entities import Instance, Snapshot
from atoll.domain.errors import Conflict
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances import nic_addresses, records
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import expand_record
from atoll.services.instances.state import POWER, InstanceRunner
from atoll.services.networks import NetworkService

log = logging.getLogger(__name__)

RESTORING, RESTORING_RUNNING = "restoring ", "restoring while running "
"""Phases of an instance's row, each followed by the snapshot's name."""

_UUID = "volatile.uuid"
_PRESENT = (_UUID, "volatile.idmap.", "volatile.last_state.")
_PRESENT_OF_DEVICES = (".host_name", ".last_state.", ".apply_quota")
_IDENTITY = (".hwaddr", "cloud-init.instance-id")


class SnapshotRestore:
    """Use case of restoring."""

    def __init__(self, core: InstanceCore, runner: InstanceRunner, networks: NetworkService) -> None:
        self._core = core
        self._runner = runner
        self._networks = networks

    async def restore(self, machine: MachineId, name: str, *, caller: Caller) -> None:
        """Restore now. An instance that runs, or is paused, is stopped by force for it and started again."""
        async with self._core.hold(machine), self._core.hold_snapshot(machine, name):
            loaded, snapshot = await self._core.load_snapshot(machine.project, machine.name, name)
            if loaded.record.phase:
                raise Conflict(f"Instance is busy: {loaded.record.phase}")
            planned = await self._plan(loaded, snapshot)
            running = self._core.status(loaded.record).is_running
            async with Reverter(f"restore {machine.key}/{name}") as undo:
                undo.add(self._resume, loaded, running, caller)
                await self._set_phase(loaded, f"{RESTORING_RUNNING if running else RESTORING}{name}")
                if running:
                    await self._runner.halt_held(loaded)
                    self._core.tell("instance-stopped", loaded.record, caller=caller)
                await self._core.storage.driver(loaded.pool).restore(loaded.volume.at(name))
                await self._write(loaded, snapshot, planned, running=running)
                undo.success()
            self._core.tell("instance-restored", loaded.record, context={"snapshot": f"{machine.name}/{name}"}, caller=caller)
            if running:
                await self._start(loaded, caller)

    async def _resume(self, loaded: Loaded, running: bool, caller: Caller) -> None:
        """Undo: the instance as it was."""
        await self._set_phase(loaded, "")
        if running and not self._core.status(loaded.record).is_running:
            await self._start(loaded, caller)

    async def _start(self, loaded: Loaded, caller: Caller) -> None:
        await self._runner.start_held(await self._core.load(loaded.record.project, loaded.record.name))
        self._core.tell("instance-started", loaded.record, caller=caller)

    async def _set_phase(self, loaded: Loaded, phase: str) -> None:
        async with self._core.database.write() as tx:
            await rows.set_phase(tx, loaded.record.id, phase)

    async def _plan(self, loaded: Loaded, snapshot: Snapshot) -> Loaded:
        """The instance as it will be. BadRequest if it would have no root disk.

        Profiles that are gone are left out. The root disk stays in the pool where the volume is now.
        """
        async with self._core.database.read() as tx:
            available = await self._core.profiles_in(tx, loaded.record.project)
        if gone := [name for name in snapshot.profiles if name not in available]:
            log.warning("Restoring %s without profiles that are gone: %s", loaded.machine.key, ", ".join(gone))
        record = dataclasses.replace(
            loaded.record,
            description=snapshot.description,
            architecture=snapshot.architecture,
            ephemeral=snapshot.ephemeral,
            config=restored_config(loaded.record.config, snapshot.config),
            devices=snapshot.devices,
            profiles=tuple(name for name in snapshot.profiles if name in available),
        )
        root, device = expand_record(record, available).root_disk()
        if device.get("pool") != loaded.pool:
            record = dataclasses.replace(record, devices={**record.devices, root: {**device, "pool": loaded.pool}})
        expanded = expand_record(record, available)
        addresses = nic_addresses.after(loaded.expanded.devices, expanded, self._networks.new_hwaddr)
        record = dataclasses.replace(record, config=records.without_empty({**record.config, **addresses}))
        return Loaded(record, expand_record(record, available))

    async def _write(self, loaded: Loaded, snapshot: Snapshot, planned: Loaded, *, running: bool) -> None:
        """The record, the volume's record and the end of the phase, at once; a running one is to be started, now or by the next
        start of the daemon."""
        record: Instance = planned.record
        power = {POWER: "RUNNING"} if running else {}
        async with self._core.database.write() as tx:
            await rows.update(
                tx,
                record.id,
                description=record.description,
                architecture=record.architecture,
                ephemeral=record.ephemeral,
                config={**record.config, **power},
                devices=record.devices,
                profile_project=await self._core.profile_owner(tx, record.project),
                profiles=record.profiles,
            )
            await instance_volumes.restore(tx, snapshot.id)
            await rows.set_phase(tx, record.id, "")
        await self._networks.reserve(record, planned.expanded, {})

    async def repair(self, pool: str | None = None) -> list[str]:
        """See `settling`: finish what was cut off; what still runs had not been touched. What ran is started, but on start, when
        that comes later. One sentence for each."""
        half = [each for each in await self._core.load_repairable(pool) if _restored_kind(each)]
        return await self._core.settle(half, partial(self._put_right, may_start=pool is not None))

    async def _put_right(self, loaded: Loaded, *, may_start: bool) -> Sequence[str]:
        kind = _restored_kind(loaded)
        if not kind:
            return ()
        name = loaded.record.phase.removeprefix(kind)
        if self._core.status(loaded.record).is_running:
            await self._set_phase(loaded, "")
            return [f"gave up restoring {loaded.machine.key}/{name}: it was cut off before anything changed"]
        _, snapshot = await self._core.load_snapshot(loaded.record.project, loaded.record.name, name)
        await self._core.storage.driver(loaded.pool).restore(loaded.volume.at(name))
        running = kind == RESTORING_RUNNING
        await self._write(loaded, snapshot, await self._plan(loaded, snapshot), running=running)
        if running and may_start:
            await self._start(loaded, DAEMON)
        return [f"finished restoring {loaded.machine.key}/{name}"]


def _restored_kind(loaded: Loaded) -> str:
    """Which phase of a restore it is in, if in any."""
    return next((each for each in (RESTORING_RUNNING, RESTORING) if loaded.record.phase.startswith(each)), "")


def restored_config(present: Mapping[str, str], taken: Mapping[str, str]) -> dict[str, str]:
    """The snapshot's configuration, but what tells of the instance's identity and of its last run is kept. MAC addresses are the
    snapshot's if it was taken of this very instance. One that came with a copy, from another server or out of a backup, has
    those of another instance, which may be running."""
    kept = {key: value for key, value in present.items() if _is_present(key)}
    own = {key: value for key, value in present.items() if _is_identity(key)}
    is_own = taken.get(_UUID) == present.get(_UUID)
    restored = {key: value for key, value in taken.items() if not _is_present(key) and (is_own or not _is_identity(key))}
    return {**own, **restored, **kept}


def _is_identity(key: str) -> bool:
    return key.startswith("volatile.") and key.endswith(_IDENTITY)


def _is_present(key: str) -> bool:
    return key.startswith(_PRESENT) or (key.startswith("volatile.") and any(part in key for part in _PRESENT_OF_DEVICES))
