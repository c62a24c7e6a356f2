"""Running instances and their devices after the daemon was away: what was cut off half way, and what a guest's reboot undid.

The database says what an instance has. A hotplug that a kill cut off may have mounted what no device stands for, or unmounted
what one does; a change of a profile may not have come to all who have it; and a guest that rebooted while nobody looked came up
without what was plugged in since its start, and with the NICs that were taken from it. NICs that were plugged in, and that a
profile has no more, stay in the guest until it stops. (A disk that was taken from it cannot come back: it would have been mounted
from a place of the host that has gone, so the reboot ended, and the machine is started anew.)
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from atoll.domain.errors import AtollError
from atoll.drivers.instance.contract import MachineId, NicSpec
from atoll.host.threads import in_thread
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.devices import DeviceService

log = logging.getLogger(__name__)


class DeviceRepair:
    """Brings the devices of running instances to what the database says."""

    def __init__(self, core: InstanceCore, devices: DeviceService) -> None:
        self._core = core
        self._devices = devices

    async def run(self, running: Sequence[Loaded]) -> None:
        """Look at all in one pass, and then mend the few. What cannot be mended is logged."""
        try:
            left = await in_thread(lambda: {each.machine for each in running if self._devices.left_behind(each)})
            lacking = await self._lacking(running)
            surplus = await self._surplus(running)
        except AtollError as error:
            log.error("The devices of running instances cannot be looked at: %s", error)
            return
        for machine in sorted(left | set(lacking) | set(surplus), key=lambda each: each.key):
            try:
                async with self._core.hold(machine):
                    await self._mend(machine)
            except AtollError as error:
                log.warning("The devices of %s: %s", machine.key, error)

    async def _lacking(self, listed: Sequence[Loaded]) -> Mapping[MachineId, frozenset[str]]:
        found = await self._core.driver.lacking({each.machine: self._devices.plugged(each) for each in listed})
        names = {each.machine: found.get(each.machine, frozenset()) | self._devices.unprepared(each) for each in listed}
        return {machine: lacked for machine, lacked in names.items() if lacked}

    async def _surplus(self, listed: Sequence[Loaded]) -> Mapping[MachineId, Sequence[NicSpec]]:
        wanted = {each.machine: self._devices.plugged(each) for each in listed}
        return await self._core.driver.surplus(wanted, {each: self._core.paths.run(each.key) for each in wanted})

    async def _mend(self, machine: MachineId) -> None:
        loaded = await self._core.load(machine.project, machine.name)
        if not self._core.status(loaded.record).is_running:
            return
        for name, device in (await in_thread(self._devices.left_behind, loaded)).items():
            await self._devices.unplug(loaded, name, device)
            log.warning("Repaired: took the disk %s, which was half added or removed, from %s", name, machine.key)
        for nic in (await self._surplus([loaded])).get(machine, ()):
            await self._core.driver.detach_nic(machine, nic)
            log.warning("Repaired: took %s, which its reboot brought back, from %s", nic.host_name, machine.key)
        devices = loaded.expanded.devices
        lacking = (await self._lacking([loaded])).get(machine, frozenset())
        for name in sorted(lacking, key=lambda each: devices[each].get("path", "")):
            changes = await self._devices.plug(loaded, name, devices[name], devices)
            await self._core.patch_volatile(loaded.record, changes)
        if lacking:  # a disk that is not required may have no source still
            for name in sorted(lacking - (await self._lacking([loaded])).get(machine, frozenset())):
                log.warning("Repaired: %s lacked its device %s", machine.key, name)
