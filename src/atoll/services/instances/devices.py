"""The devices of an instance: checked before a row is written, prepared before a start, released after a stop, hotplugged."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

from atoll import config as keys
from atoll.db.engine import Transaction
from atoll.domain import names
from atoll.domain.errors import AtollError, BadRequest, Unsupported
from atoll.domain.idmap import IdMap
from atoll.domain.undo import Reverter
from atoll.drivers import device as drivers
from atoll.drivers.device import disk, nic_filters
from atoll.drivers.device.contract import DeviceContext, DeviceDriver, Prepared
from atoll.drivers.instance.contract import MachineId, MountSpec, NicSpec, Plugged
from atoll.host.threads import in_thread
from atoll.services.instances import idmaps
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.disk_sources import DiskSources
from atoll.services.instances.expand import is_root_disk
from atoll.services.instances.idmap_keeper import CURRENT
from atoll.services.networks import NetworkService
from atoll.services.volumes import VolumeService

log = logging.getLogger(__name__)

Device = Mapping[str, str]

_GUARDING = ("security.", "limits.")
"""Keys of a NIC whose effect are firewall rules."""


@dataclass(frozen=True, slots=True)
class PreparedAll:
    """What all devices of an instance add to its launch."""

    nics: list[NicSpec] = field(default_factory=list)
    mounts: list[MountSpec] = field(default_factory=list)
    volatile: dict[str, str] = field(default_factory=dict)
    contexts: list[tuple[DeviceDriver, DeviceContext]] = field(default_factory=list)


class DeviceService:
    """Use cases of devices."""

    def __init__(self, core: InstanceCore, networks: NetworkService, volumes: VolumeService) -> None:
        self._core = core
        self._networks = networks
        self._sources = DiskSources(core, volumes)
        self._drivers: dict[str, DeviceDriver] = {}

    # --- before a row is written ---------------------------------------------------------------------------------------

    async def validate(self, tx: Transaction, project: str, devices: Mapping[str, Device]) -> None:
        """Keys, values and references of devices, as an instance or a profile is about to have them. BadRequest names them."""
        refuse_shared_paths(devices)
        for name, device in devices.items():
            names.device(name)
            inherited = await self._networks.inherit(tx, project, device)
            nictype = inherited.get("nictype", "") if device.get("network") else ""
            keys.validate_device(name, device, nictype=nictype)
            await self._networks.check_nic(tx, project, device)
            if is_root_disk(device):
                await self._check_root(tx, name, device)
            else:
                await self._sources.check(tx, project, device)
                place = MachineId(project, "new")
                run_dir = self._core.paths.devices(place.key)
                self.driver_of(name, inherited).validate(DeviceContext(place, name, inherited, {}, run_dir))

    async def _check_root(self, tx: Transaction, name: str, device: Device) -> None:
        pool = device.get("pool")
        if not pool:
            raise BadRequest(f"Device {name!r}: the root disk needs a pool")
        if await tx.one("SELECT 1 FROM storage_pools WHERE name = ?", pool) is None:
            raise BadRequest(f"Device {name!r}: storage pool {pool!r} doesn't exist")

    async def validate_together(self, tx: Transaction, loaded: Loaded, devices: Mapping[str, Device]) -> None:
        """The expanded devices that an instance is about to have. BadRequest if two disks have one path, NotFound for a volume
        that it has not had before and that is not there."""
        refuse_shared_paths(devices)
        for name, device in devices.items():
            if device != loaded.expanded.devices.get(name):
                await self._sources.require(tx, loaded.record.project, device)

    async def require_sources(self, loaded: Loaded, devices: Mapping[str, Device]) -> None:
        """NotFound for a disk that an instance has not had before, of what is not there on the host."""
        for name, device in devices.items():
            if device.get("type") == "disk" and device != loaded.expanded.devices.get(name):
                await disk.require_source(name, device)

    def driver_of(self, name: str, device: Device) -> DeviceDriver:
        """The driver of a device. Unsupported for kinds that this release cannot do."""
        kind = device.get("type", "")
        if kind == "nic":
            kind = f"nic:{device.get('nictype', 'bridged')}"
        if kind not in self._drivers:
            if kind not in drivers.REGISTRY.names():
                raise Unsupported(f"Device {name!r}: devices of type {kind!r} are not supported in this release")
            self._drivers[kind] = drivers.REGISTRY.create(kind)
        return self._drivers[kind]

    # --- around a run --------------------------------------------------------------------------------------------------

    async def prepare(self, loaded: Loaded, idmap: IdMap | None, undo: Reverter) -> PreparedAll:
        """Make all devices ready for a start with that map; what was made is undone with `undo`."""
        refuse_shared_paths(loaded.expanded.devices)
        self._networks.require_free(loaded.record, loaded.expanded, dict.fromkeys(loaded.expanded.devices, "start"))
        result = PreparedAll()
        nic_number = 0
        for name, device in _outer_first(loaded.expanded.devices):
            if is_root_disk(device):
                continue
            if device.get("type") == "nic":
                device = {"name": f"eth{nic_number}", **device}
                nic_number += 1
            driver, context = await self._context(loaded, name, device)
            context = await self._with_source(loaded, context, idmap)
            prepared = await driver.prepare(context)
            context = _prepared_context(context, prepared)
            undo.add(self._release, driver, context)
            self._collect(result, name, prepared)
            result.contexts.append((driver, context))
        await self._networks.reserve(loaded.record, loaded.expanded, result.volatile)
        return result

    @staticmethod
    def _collect(result: PreparedAll, name: str, prepared: Prepared) -> None:
        result.nics.extend(prepared.nics)
        result.mounts.extend(prepared.mounts)
        for key, value in prepared.volatile.items():
            result.volatile[f"volatile.{name}.{key}"] = value

    async def started(self, prepared: PreparedAll) -> None:
        """The machine runs: what needs its interfaces."""
        for driver, context in prepared.contexts:
            await driver.started(context)

    async def repair(self, running: Sequence[Loaded]) -> list[str]:
        """Put back the firewall rules of NICs that somebody flushed. A sentence for each."""
        guarded: dict[str, tuple[DeviceDriver, DeviceContext]] = {}
        for loaded in running:
            for name, device in loaded.expanded.devices.items():
                host_name = loaded.record.config.get(f"volatile.{name}.host_name", device.get("host_name", ""))
                if host_name and device.get("type") == "nic" and any(k.startswith(_GUARDING) for k in device):
                    guarded[host_name] = await self._context(loaded, name, device)
        lost = await nic_filters.lost(set(guarded))
        for host_name in lost:
            driver, context = guarded[host_name]
            await driver.started(context)
        return [f"restored the firewall rules of {host_name}" for host_name in sorted(lost)]

    async def release(self, loaded: Loaded) -> dict[str, str]:
        """After a stop: undo what `prepare` made. Failures are logged and passed over. Returns volatile changes."""
        changes: dict[str, str] = {}
        for name, device in loaded.expanded.devices.items():
            if is_root_disk(device):
                continue
            try:
                driver, context = await self._context(loaded, name, device)
                volatile = await driver.release(context)
            except AtollError as error:
                log.warning("Releasing device %s of %s: %s", name, loaded.machine.key, error)
                continue
            changes.update({f"volatile.{name}.{key}": value for key, value in volatile.items()})
        for name, device in (await in_thread(self.left_behind, loaded)).items():
            await self._release(*self._plain(loaded, name, device))
        return changes

    @staticmethod
    async def _release(driver: DeviceDriver, context: DeviceContext) -> None:
        await driver.release(context)

    async def _context(self, loaded: Loaded, name: str, device: Device) -> tuple[DeviceDriver, DeviceContext]:
        async with self._core.database.read() as tx:
            merged = await self._networks.inherit(tx, loaded.record.project, device)
        return self._plain(loaded, name, merged)

    def _plain(self, loaded: Loaded, name: str, device: Device) -> tuple[DeviceDriver, DeviceContext]:
        """Without what its network gives it."""
        prefix = f"volatile.{name}."
        volatile = {k.removeprefix(prefix): v for k, v in loaded.record.config.items() if k.startswith(prefix)}
        context = DeviceContext(
            machine=loaded.machine,
            name=name,
            config=device,
            volatile=volatile,
            run_dir=self._core.paths.devices(loaded.machine.key),
        )
        return self.driver_of(name, device), context

    async def _with_source(self, loaded: Loaded, context: DeviceContext, idmap: IdMap | None) -> DeviceContext:
        """The context of `prepare`, on a machine with that map."""
        volume = await self._sources.volume(loaded, context.config, idmap)
        return replace(context, idmap=idmap, volume=volume, seed=self._sources.seed(loaded, context.config))

    def plugged(self, loaded: Loaded) -> Plugged:
        """What a running instance should have of its devices. Without a look at the database."""
        listed = [self._plain(loaded, name, device) for name, device in loaded.expanded.devices.items()]
        found = [driver.attached(context) for driver, context in listed if not is_root_disk(context.config)]
        return Plugged([nic for each in found for nic in each.nics], [mount for each in found for mount in each.mounts])

    def unprepared(self, loaded: Loaded) -> frozenset[str]:
        """NICs of a running instance that were never made: a kill came before the change that brings them had reached it."""
        listed = [(name, self._plain(loaded, name, device)) for name, device in loaded.expanded.devices.items()]
        return frozenset(
            name
            for name, (driver, context) in listed
            if context.config.get("type") == "nic" and not driver.attached(context).nics
        )

    def left_behind(self, loaded: Loaded) -> dict[str, Device]:
        """By name, disks that something is left of on the host but that the instance has not, or not like that. Blocking."""
        found = disk.strays(self._core.paths.devices(loaded.machine.key), loaded.expanded.devices)
        return {name: {"type": "disk", "source": "/", "path": f"/{target}"} for name, target in found.items()}

    # --- hotplug -------------------------------------------------------------------------------------------------------

    async def change_running(
        self, loaded: Loaded, old: Mapping[str, Device], new: Mapping[str, Device], undo: Reverter
    ) -> dict[str, str]:
        """Take a running instance from its old expanded devices to the new ones, each step taken back by `undo`. Returns
        volatile changes."""
        refuse_shared_paths(new)
        changes: dict[str, str] = {}
        live = {name for name in old if name in new and self._is_live(name, old[name], new[name])}
        live -= _below_others(old, new, live)
        for name, device in reversed(_outer_first(old)):
            if name not in live:
                changes.update(await self.unplug(loaded, name, device))
                undo.add(self._plug_back, loaded, name, old)
        for name, device in _outer_first(new):
            if name not in live:
                plugged = await self.plug(loaded, name, device, new)
                changes.update(plugged)
                undo.add(self.unplug, _with_volatile(loaded, plugged), name, device)
            elif old[name] != device:
                await self._update_live(loaded, name, device, old[name])
                undo.add(self._update_live, loaded, name, old[name], device)
        return changes

    async def _update_live(self, loaded: Loaded, name: str, device: Device, before: Device) -> None:
        driver, context = await self._context(loaded, name, device)
        await driver.update(context, before)

    async def _plug_back(self, loaded: Loaded, name: str, devices: Mapping[str, Device]) -> None:
        """It may have other names on the host than before."""
        await self._core.patch_volatile(loaded.record, await self.plug(loaded, name, devices[name], devices))

    def _is_live(self, name: str, old: Device, new: Device) -> bool:
        """Whether a device can be changed in place: it is the same, or only keys changed that its driver takes live."""
        if old == new or (is_root_disk(old) and is_root_disk(new)):
            return True
        if old.get("type") != new.get("type"):
            return False
        changed = {key for key in {*old, *new} if old.get(key) != new.get(key)}
        return changed <= self.driver_of(name, new).live

    async def plug(self, loaded: Loaded, name: str, device: Device, all_devices: Mapping[str, Device]) -> dict[str, str]:
        """Give a running instance a device; `all_devices` are those that it will have. Returns volatile changes."""
        if is_root_disk(device):
            return {}
        if device.get("type") == "nic" and "name" not in device:
            device = {**device, "name": _free_nic_name(all_devices)}
        driver, context = await self._context(loaded, name, device)
        if not driver.hotplug:
            raise BadRequest(f"Device {name!r} can't be added while the instance runs")
        context = await self._with_source(loaded, context, idmaps.from_json(loaded.record.config.get(CURRENT, "")))
        async with Reverter(f"plug {name} into {loaded.machine.key}") as undo:
            prepared = await driver.prepare(context)
            context = _prepared_context(context, prepared)
            undo.add(self._release, driver, context)
            for nic in prepared.nics:
                await self._core.driver.attach_nic(loaded.machine, nic, userns_root=0)
                undo.add(self._core.driver.detach_nic, loaded.machine, nic)
            for mount in prepared.mounts:
                await self._core.driver.attach_mount(loaded.machine, mount)
                undo.add(self._core.driver.detach_mount, loaded.machine, mount)
            await driver.started(context)
            undo.success()
        return {f"volatile.{name}.{key}": value for key, value in prepared.volatile.items()}

    async def unplug(self, loaded: Loaded, name: str, device: Device) -> dict[str, str]:
        """Take a device from a running instance. Returns volatile changes."""
        if is_root_disk(device):
            return {}  # it has another: whoever changes devices makes sure of it
        driver, context = await self._context(loaded, name, device)
        if not driver.hotplug:
            raise BadRequest(f"Device {name!r} can't be removed while the instance runs")
        attached = driver.attached(context)
        for nic in attached.nics:
            await self._core.driver.detach_nic(loaded.machine, nic)
        for mount in attached.mounts:
            await self._core.driver.detach_mount(loaded.machine, mount)
        await driver.release(context)
        prefix = f"volatile.{name}."
        return {key: "" for key in loaded.record.config if key.startswith(prefix)}


def refuse_shared_paths(devices: Mapping[str, Device]) -> None:
    """BadRequest if two disks have one path."""
    places = [disk.target_of(device) for device in devices.values() if device.get("type") == "disk" and device.get("path")]
    for place in places:
        if places.count(place) > 1:
            raise BadRequest(f"More than one disk device uses the same path {'/' + place!r}")


def _outer_first(devices: Mapping[str, Device]) -> list[tuple[str, Device]]:
    """Disks behind all else, those within the path of another behind that one."""
    return sorted(devices.items(), key=lambda item: _depth(item[1]))


def _depth(device: Device) -> int:
    return disk.target_of(device).count("/") + 1 if device.get("type") == "disk" and device.get("path") else 0


def _below_others(old: Mapping[str, Device], new: Mapping[str, Device], live: Set[str]) -> set[str]:
    """Of the disks that could stay, those within the path of one that goes or comes: they have to be mounted on it anew."""
    moving = [devices[name] for devices in (old, new) for name in devices if name not in live]
    over = {disk.target_of(device) + "/" for device in moving if _depth(device)} - {"./"}
    return {name for name in live if _depth(new[name]) and disk.target_of(new[name]).startswith(tuple(over))}


def _with_volatile(loaded: Loaded, changes: Mapping[str, str]) -> Loaded:
    return replace(loaded, record=replace(loaded.record, config={**loaded.record.config, **changes}))


def _prepared_context(context: DeviceContext, prepared: Prepared) -> DeviceContext:
    """The context of what follows `prepare`: the names that it chose are in it."""
    return replace(context, volatile={**context.volatile, **prepared.volatile})


def _free_nic_name(devices: Mapping[str, Device]) -> str:
    """The first ethN that no NIC has: neither by name nor by its place among those without one."""
    nics = [device for device in devices.values() if device.get("type") == "nic"]
    taken = {device["name"] for device in nics if "name" in device}
    taken |= {f"eth{number}" for number, _ in enumerate(nics[:-1])}
    return next(f"eth{number}" for number in range(len(nics) + 1) if f"eth{number}" not in taken)
