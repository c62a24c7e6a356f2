"""What an instance really has: its profiles' configuration and devices with its own on top. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atoll.domain.entities import Instance, Profile, Snapshot
from atoll.domain.errors import BadRequest


@dataclass(frozen=True, slots=True)
class Expanded:
    """The merged configuration and devices."""

    config: Mapping[str, str]
    devices: Mapping[str, Mapping[str, str]]

    def root_disk(self) -> tuple[str, Mapping[str, str]]:
        """Name and configuration of the device that is the root file system. BadRequest unless there is exactly one."""
        roots = list(self.root_disks().items())
        if not roots:
            raise BadRequest(
                "No root device could be found",
                hint="add one to a profile or the instance: a disk device with path=/ and a pool",
            )
        if len(roots) > 1:
            raise BadRequest(f"More than one root disk device: {', '.join(name for name, _ in roots)}")
        return roots[0]

    def root_disks(self) -> dict[str, Mapping[str, str]]:
        """All devices that are a root file system; a change of a profile can give an instance more than one."""
        return {name: device for name, device in self.devices.items() if is_root_disk(device)}


def is_root_disk(device: Mapping[str, str]) -> bool:
    """Whether a device is a root file system."""
    return device.get("type") == "disk" and device.get("path") == "/" and not device.get("source")


def expand(config: Mapping[str, str], devices: Mapping[str, Mapping[str, str]], profiles: Sequence[Profile]) -> Expanded:
    """Later profiles win over earlier ones, the own values over all; a device is replaced whole."""
    merged: dict[str, str] = {}
    merged_devices: dict[str, Mapping[str, str]] = {}
    for profile in profiles:
        merged.update(profile.config)
        merged_devices.update(profile.devices)
    merged.update(config)
    merged_devices.update(devices)
    return Expanded(merged, dict(sorted(merged_devices.items())))


def expand_record(record: Instance | Snapshot, profiles: Mapping[str, Profile]) -> Expanded:
    """Of an instance or snapshot, with its project's profiles by name; one that is gone (a snapshot's) counts as empty."""
    listed = [profiles[name] for name in record.profiles if name in profiles]
    return expand(record.config, record.devices, listed)
