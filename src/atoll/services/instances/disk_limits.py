"""`limits.read`, `limits.write` and `limits.max` of disks: what they say, and on which disk of the host it holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from atoll.config import devices as device_keys
from atoll.config.units import DiskRate
from atoll.domain.errors import HostError, Unsupported
from atoll.drivers.instance.contract import DiskLimit
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.host import blockdev
from atoll.host.threads import in_thread
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import Expanded, is_root_disk
from atoll.services.storage import StorageService

_TABLE = device_keys.device_table("disk")
_KEYS = ("limits.read", "limits.write", "limits.max")


def wanted(devices: Mapping[str, Mapping[str, str]]) -> dict[str, DiskLimit]:
    """By device name, the limit of each disk that has one. `limits.max` is for what the other two do not say. Pure."""
    found = {}
    for name, device in devices.items():
        if device.get("type") == "disk" and any(device.get(key) for key in _KEYS):
            read, write, most = (_TABLE.get(device, key) or DiskRate() for key in _KEYS)
            read, write = (read if any(read) else most), (write if any(write) else most)
            found[name] = DiskLimit(read.bytes_per_second, read.iops, write.bytes_per_second, write.iops)
    return found


def average(limits: Iterable[DiskLimit]) -> DiskLimit:
    """What holds on a disk of the host that several devices are on: LXD takes the mean of those that say something. Pure."""
    listed = list(limits)

    def mean(name: str) -> int:
        said = [value for each in listed if (value := getattr(each, name))]
        return sum(said) // len(said) if said else 0

    return DiskLimit(mean("read_bytes"), mean("read_requests"), mean("write_bytes"), mean("write_requests"))


def volume_of_disk(loaded: Loaded, device: Mapping[str, str], *, owner: str = "") -> VolumeId | None:
    """The volume of a pool that a disk is; None for other devices and for sources of the host. `owner` is the project that has
    the custom volumes of the instance's, if that is another."""
    if is_root_disk(device):
        return loaded.volume
    if device.get("type") == "disk" and device.get("pool") and device.get("source"):
        return VolumeId(VolumeKind.CUSTOM, owner or loaded.record.project, device["source"])
    return None


async def by_disk(loaded: Loaded, expanded: Expanded, storage: StorageService, *, owner: str = "") -> dict[str, DiskLimit]:
    """By `major:minor` of the host's disk, the limits of the instance's devices on it. Unsupported, naming the device, where a
    limited device is on none; one that may be missing, and is, limits nothing. `owner` as of `volume_of_disk`."""
    found: dict[str, list[DiskLimit]] = {}
    for name, limit in wanted(expanded.devices).items():
        device = expanded.devices[name]
        volume = volume_of_disk(loaded, device, owner=owner)
        path = storage.driver(device["pool"]).data(volume) if volume is not None else Path(device["source"])
        try:
            disk = await in_thread(blockdev.disk_of, path)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not _TABLE.flag(device, "required"):
                continue
            raise HostError(f"Device {name!r}: {path} cannot be looked at: {error.strerror}") from error
        if disk is None:
            raise Unsupported(f"Device {name!r}: what it is on is no disk whose traffic can be limited", hint="unset limits.*")
        found.setdefault(disk, []).append(limit)
    return {disk: average(limits) for disk, limits in found.items()}
