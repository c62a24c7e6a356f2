"""The instances when the daemon starts and ends: adopt what runs, start what should, stop all when the host goes down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from atoll import config as keys
from atoll.domain import clock
from atoll.domain.caller import DAEMON
from atoll.domain.errors import AtollError
from atoll.domain.status import StateAction
from atoll.drivers.instance.contract import MachineId
from atoll.host import facts, mount
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.device_repair import DeviceRepair
from atoll.services.instances.devices import DeviceService
from atoll.services.instances.state import POWER, InstanceRunner
from atoll.services.warnings import WarningService

log = logging.getLogger(__name__)

GUARD_SECONDS = 60.0

AT_ONCE = 8
"""Instances started or stopped at the same time; more only make each other slower."""


class InstanceLifecycle:
    """Use cases of daemon start and end."""

    def __init__(self, core: InstanceCore, runner: InstanceRunner, devices: DeviceService, warnings: WarningService) -> None:
        self._core = core
        self._runner = runner
        self._devices = devices
        self._device_repair = DeviceRepair(core, devices)
        self._warnings = warnings

    async def adopt(self) -> None:
        """Find the machines that run, and put away after those that stopped while nobody looked."""
        listed = await self._core.load_all(None)
        run_dirs = {loaded.machine: self._core.paths.run(loaded.machine.key) for loaded in listed}
        running = await self._core.driver.adopt(list(run_dirs), run_dirs)
        stopped = [loaded for loaded in listed if loaded.machine not in running]
        for loaded in await in_thread(self._with_remains, stopped):
            await self._put_away(loaded)
        log.info("%d of %d instances run", len(running), len(listed))

    def _with_remains(self, stopped: list[Loaded]) -> list[Loaded]:
        """Those that ran when the daemon last looked, or with something mounted: a start or stop of theirs was cut off."""
        places = {folder for entry in mount.mounts_below(Path("/")) for folder in entry.target.parents}
        return [loaded for loaded in stopped if _was_up(loaded) or not places.isdisjoint(self._folders(loaded))]

    def _folders(self, loaded: Loaded) -> list[Path]:
        """Where things of an instance are mounted, as the kernel names it."""
        folders = [self._core.paths.devices(loaded.machine.key)]
        with contextlib.suppress(AtollError):  # its pool is not available
            folders.append(self._core.storage.driver(loaded.pool).data(loaded.volume))
        return [folder.resolve() for folder in folders]

    async def _put_away(self, loaded: Loaded) -> None:
        """What its start made goes; that it was running stays known for autostart."""
        self._runner.shutting_down = True
        try:
            await self._runner.after_stop(loaded)
        except AtollError as error:
            log.warning("Instance %s could not be put away: %s", loaded.machine.key, error)
        finally:
            self._runner.shutting_down = False

    async def guard(self) -> None:
        """For ever: look now and then whether what runs is still as it was set up. First of all give what was found running its
        devices and limits: a guest that rebooted while no daemon looked has those of its launch."""
        running = await self._running()
        await self._device_repair.run(running)
        for loaded in running:
            await self._limit(loaded.machine)
        while True:
            await asyncio.sleep(GUARD_SECONDS)
            running = await self._running()
            if await self._runner.balancer.refresh([each.machine for each in running]):
                log.info("CPUs came or went; the machines were balanced anew")
            try:
                for sentence in await self._devices.repair(running):
                    log.warning("Repaired: %s", sentence)
            except AtollError as error:
                log.error("Looking after running instances: %s", error)

    async def _running(self) -> list[Loaded]:
        return [each for each in await self._core.load_all(None) if self._core.status(each.record).is_running]

    async def _limit(self, machine: MachineId) -> None:
        async with self._core.hold(machine):
            try:
                loaded = await self._core.load(machine.project, machine.name)
                await self._runner.apply_limits(loaded, loaded.expanded)
            except AtollError as error:
                log.warning("Setting the limits of %s: %s", machine.key, error)

    async def autostart(self, pool: str | None = None) -> None:
        """Start what `boot.autostart` says, or what ran when the host went down: by priority, those of one in parallel, then one
        by one those after which `boot.autostart.delay` wants a pause. Those in pools that are not available wait for the call
        with their pool, which is made when it is."""
        listed = await self._core.load_repairable(pool)
        over = [loaded for loaded in listed if self._is_over(loaded)]
        for loaded in over:
            await self._discard(loaded)
        wanted = [loaded for loaded in listed if loaded not in over and self._should_start(loaded)]
        for group in _by_priority(wanted, "boot.autostart.priority"):
            limit = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._start_one(loaded, limit) for loaded in group if not _delay(loaded)))
            for loaded in (each for each in group if _delay(each)):
                await self._start_one(loaded, limit)
                await asyncio.sleep(_delay(loaded))

    def _is_over(self, loaded: Loaded) -> bool:
        """Whether it is ephemeral and was stopped while no daemon looked, and not because the host went down."""
        if not loaded.record.ephemeral or not _was_up(loaded) or loaded.record.phase:
            return False
        return not self._core.status(loaded.record).is_running and clock.parse(loaded.record.last_used_at) > facts.booted_at()

    async def _discard(self, loaded: Loaded) -> None:
        try:
            await self._runner.discard(loaded.machine)
        except AtollError as error:
            log.error("Instance %s is ephemeral and has stopped, but cannot be deleted: %s", loaded.machine.key, error)

    def _should_start(self, loaded: Loaded) -> bool:
        if self._core.status(loaded.record).is_running or loaded.record.phase:
            return False
        autostart = loaded.expanded.config.get("boot.autostart", "")
        if autostart:
            return bool(keys.INSTANCE.get(loaded.expanded.config, "boot.autostart"))
        return _was_up(loaded)

    async def _start_one(self, loaded: Loaded, limit: asyncio.Semaphore) -> None:
        record = loaded.record
        async with limit:
            try:
                await self._runner.act(loaded.machine, StateAction.START, timeout=0, force=False, caller=DAEMON)
            except AtollError as error:
                log.error("Instance %s could not be started: %s", loaded.machine.key, error)
                await self._warnings.raise_(
                    "Failed to start instance",
                    "low",
                    str(error),
                    project=record.project,
                    entity_url=f"/1.0/instances/{record.name}",
                )

    async def stop_all(self, *, force: bool) -> None:
        """The host goes down: stop everything by priority, those of one in parallel; what does not stop in its time is killed."""
        self._runner.shutting_down = True
        running = [each for each in await self._core.load_all(None) if self._core.status(each.record).is_running]
        for group in _by_priority(running, "boot.stop.priority"):
            limit = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._stop_one(loaded, limit, force=force) for loaded in group))

    async def _stop_one(self, loaded: Loaded, limit: asyncio.Semaphore, *, force: bool) -> None:
        seconds = float(keys.INSTANCE.get(loaded.expanded.config, "boot.host_shutdown_timeout") or 30)
        async with limit:
            for attempt_force in (force, True):
                if not self._core.status(loaded.record).is_running:
                    return
                try:
                    await self._runner.act(loaded.machine, StateAction.STOP, timeout=seconds, force=attempt_force, caller=DAEMON)
                except AtollError as error:
                    log.warning("Stopping %s: %s", loaded.machine.key, error)


def _delay(loaded: Loaded) -> int:
    return keys.INSTANCE.number(loaded.expanded.config, "boot.autostart.delay") or 0


def _was_up(loaded: Loaded) -> bool:
    return loaded.record.config.get(POWER) == "RUNNING"


def _by_priority(listed: Iterable[Loaded], key: str) -> list[list[Loaded]]:
    """Groups of equal priority, the highest first."""
    groups: dict[int, list[Loaded]] = {}
    for loaded in listed:
        groups.setdefault(int(loaded.expanded.config.get(key) or 0), []).append(loaded)
    return [groups[priority] for priority in sorted(groups, reverse=True)]
