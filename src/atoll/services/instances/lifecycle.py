"""The instances when the daemon starts and ends: adopt what runs, start what should, stop all when the host goes down."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path

from atoll import config as keys
from atoll.domain.caller import DAEMON
from atoll.domain.errors import AtollError
from atoll.domain.status import StateAction
from atoll.host import mount
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded
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
        """For ever: look now and then whether what runs is still as it was set up."""
        while True:
            await asyncio.sleep(GUARD_SECONDS)
            running = [each for each in await self._core.load_all(None) if self._core.status(each.record).is_running]
            try:
                for sentence in await self._devices.repair(running):
                    log.warning("Repaired: %s", sentence)
            except AtollError as error:
                log.error("Looking after running instances: %s", error)

    async def autostart(self) -> None:
        """Start what `boot.autostart` says, or what ran when the host went down: by priority, those of one in parallel."""
        wanted = [loaded for loaded in await self._core.load_all(None) if self._should_start(loaded)]
        for group in _by_priority(wanted, "boot.autostart.priority"):
            limit = asyncio.Semaphore(AT_ONCE)
            await asyncio.gather(*(self._start_one(loaded, limit) for loaded in group))

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
                return
        delay = keys.INSTANCE.get(loaded.expanded.config, "boot.autostart.delay") or 0
        await asyncio.sleep(delay)

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


def _was_up(loaded: Loaded) -> bool:
    return loaded.record.config.get(POWER) == "RUNNING"


def _by_priority(listed: Iterable[Loaded], key: str) -> list[list[Loaded]]:
    """Groups of equal priority, the highest first."""
    groups: dict[int, list[Loaded]] = {}
    for loaded in listed:
        groups.setdefault(int(loaded.expanded.config.get(key) or 0), []).append(loaded)
    return [groups[priority] for priority in sorted(groups, reverse=True)]
