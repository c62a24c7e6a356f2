"""Restoring a snapshot: the instance gets its content, configuration, devices and profiles back.

The instance's row says from the first step on what is being restored. Until the content is exchanged nothing has changed but that
a running instance was stopped; the exchange is one step of the storage driver, and can be repeated.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping

from atoll.db import instance_volumes
from atoll.db import instances as rows
from atoll.domain.caller import Caller
from atoll.domain.entities import Instance, Snapshot
from atoll.domain.errors import Conflict
from atoll.domain.undo import Reverter
from atoll.drivers.instance.contract import MachineId
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import expand_record
from atoll.services.instances.state import POWER, InstanceRunner
from atoll.services.networks import NetworkService

log = logging.getLogger(__name__)

RESTORING, RESTORING_RUNNING = "restoring ", "restoring while running "
"""Phases of an instance's row, each followed by the snapshot's name."""

_PRESENT = ("volatile.uuid", "volatile.idmap.", "volatile.last_state.")
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
            self._core.tell("instance-restored", loaded.record, context={"snapshot": name}, caller=caller)
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
        expanded = expand_record(record, available)
        root, device = expanded.root_disk()
        if device.get("pool") != loaded.pool:
            record = dataclasses.replace(record, devices={**record.devices, root: {**device, "pool": loaded.pool}})
            expanded = expand_record(record, available)
        return Loaded(record, expanded)

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
        """On start: finish what was cut off; what still runs had not been touched. One sentence for each."""
        done: list[str] = []
        for loaded in await self._core.load_repairable(pool):
            kind = next((each for each in (RESTORING_RUNNING, RESTORING) if loaded.record.phase.startswith(each)), None)
            if kind is None:
                continue
            name = loaded.record.phase.removeprefix(kind)
            if self._core.status(loaded.record).is_running:
                await self._set_phase(loaded, "")
                done.append(f"gave up restoring {loaded.machine.key}/{name}: it was cut off before anything changed")
                continue
            _, snapshot = await self._core.load_snapshot(loaded.record.project, loaded.record.name, name)
            await self._core.storage.driver(loaded.pool).restore(loaded.volume.at(name))
            await self._write(loaded, snapshot, await self._plan(loaded, snapshot), running=kind == RESTORING_RUNNING)
            done.append(f"finished restoring {loaded.machine.key}/{name}")
        return done


def restored_config(present: Mapping[str, str], taken: Mapping[str, str]) -> dict[str, str]:
    """The snapshot's configuration, but what tells of the instance's identity and of its last run is kept; so are MAC addresses
    where the snapshot has none, as one that was copied with its instance."""
    kept = {key: value for key, value in present.items() if _is_present(key)}
    own = {key: value for key, value in present.items() if key.startswith("volatile.") and key.endswith(_IDENTITY)}
    return {**own, **{key: value for key, value in taken.items() if not _is_present(key)}, **kept}


def _is_present(key: str) -> bool:
    return key.startswith(_PRESENT) or (key.startswith("volatile.") and any(part in key for part in _PRESENT_OF_DEVICES))
