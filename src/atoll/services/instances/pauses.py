"""Snapshots of the volumes of running instances, which some storage drivers can only make of one moment if the guest is paused.

While a guest is paused a file in the instance's run folder says so: what a kill of the daemon left frozen is thawed on its start.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from atoll.domain.errors import AtollError
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineId
from atoll.drivers.storage.contract import CopyingSnapshots, VolumeId
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded

log = logging.getLogger(__name__)

MARK = "paused"


async def snapshot_volume(core: InstanceCore, loaded: Loaded, target: VolumeId) -> float | None:
    """Make the snapshot `target` of the volume of an instance, whose lock is held. Returns for how many seconds its guest was
    paused for it; None for an instance that does not run."""
    driver = core.storage.driver(loaded.pool)
    status = core.status(loaded.record)
    if status is InstanceStatus.RUNNING and isinstance(driver, CopyingSnapshots):
        pause = _Pause(core, loaded.machine)
        await driver.snapshot_paused(target, pause.entered)
        return pause.seconds
    await driver.snapshot(target)
    return 0.0 if status.is_running else None


class _Pause:
    """Freezes and thaws a running machine; `seconds` is for how long altogether."""

    def __init__(self, core: InstanceCore, machine: MachineId) -> None:
        self._core = core
        self._machine = machine
        self._mark = core.paths.run(machine.key) / MARK
        self.seconds = 0.0

    @asynccontextmanager
    async def entered(self) -> AsyncIterator[None]:
        """The guest does not run while the block does."""
        await in_thread(self._mark.touch)
        start = time.monotonic()
        try:
            await self._core.driver.freeze(self._machine)
            yield
        finally:
            await self._thaw()
            self.seconds += time.monotonic() - start
            await in_thread(self._mark.unlink, missing_ok=True)

    async def _thaw(self) -> None:
        """Also after a freeze that failed half-way; a guest that ended meanwhile needs none."""
        try:
            await self._core.driver.thaw(self._machine)
        except AtollError as error:
            if self._core.driver.status(self._machine).is_running:
                raise
            log.info("%s ended while it was paused: %s", self._machine.key, error)


async def repair(core: InstanceCore) -> list[str]:
    """On start: let those go on that a kill left paused. One sentence for each."""
    done: list[str] = []
    runs = core.paths.run("-").parent
    marked = {mark.parent.name: mark for mark in await in_thread(lambda: list(runs.glob(f"*/{MARK}")))}
    for loaded in await core.load_all(None) if marked else ():
        if loaded.machine.key in marked and core.status(loaded.record) is InstanceStatus.FROZEN:
            await core.driver.thaw(loaded.machine)
            done.append(f"thawed {loaded.machine.key}: a snapshot of it was cut off")
    for mark in marked.values():
        await in_thread(mark.unlink, missing_ok=True)
    return done
