"""The contract of device drivers.

A device driver is stateless: it is given the device's merged configuration and context and says what has to be there.

When called, in this order
    validate    when a row is about to be written; pure (the key tables in atoll.config have checked keys and values already)
    prepare     before a machine starts or the device is hotplugged: make what the host needs, return what the launch gets and
                which volatile keys to store
    started     after the machine started or the device was hotplugged: what needs the interface to exist (limits, filters)
    attached    before the device is removed from a running machine: what `prepare` gave it
    update      the device's configuration changed and all changed keys are in `live`: apply it to the running machine
    release     after the machine stopped, or the device was removed: undo `prepare`; must succeed when half of it is gone

Hotplug itself (attach_nic, attach_mount) is done by the instance driver with what `prepare` returned.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atoll.domain.idmap import IdMap
from atoll.drivers.instance.contract import MachineId, MountSpec, NicSpec


@dataclass(frozen=True, slots=True)
class VolumeSource:
    """A custom volume's folder, which only the host's root can reach. Its files have plain ids; `mapped`: a machine sees them
    shifted by its own map."""

    path: Path
    mapped: bool = True


@dataclass(frozen=True, slots=True)
class DeviceContext:
    """What a device may know of its surroundings."""

    machine: MachineId
    name: str
    config: Mapping[str, str]  # keys inherited from the managed network are merged in
    volatile: Mapping[str, str]  # the instance's `volatile.NAME.*`, without that prefix
    run_dir: Path
    idmap: IdMap | None = None  # of the machine; None: privileged
    volume: VolumeSource | None = None  # for disks that are one
    seed: Mapping[str, str] = field(default_factory=dict)  # for disks with cloud-init's files: name -> text
    allowed_sources: tuple[Path, ...] | None = None  # for disks: folders of the host a source has to lie in; None: any


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a device adds to the launch, and volatile keys (without prefix) to store; an empty value removes a key."""

    nics: tuple[NicSpec, ...] = ()
    mounts: tuple[MountSpec, ...] = ()
    volatile: Mapping[str, str] = field(default_factory=dict)


class DeviceDriver(Protocol):
    """Constructed without arguments."""

    live: frozenset[str]
    hotplug: bool

    def validate(self, context: DeviceContext) -> None:
        """BadRequest, naming device and key, for combinations that the key tables cannot see."""

    async def prepare(self, context: DeviceContext) -> Prepared:
        """Make ready; HostError or BadRequest leaves nothing behind."""

    async def started(self, context: DeviceContext) -> None:
        """The machine has it now."""

    def attached(self, context: DeviceContext) -> Prepared:
        """What the running machine has of the device, by the keys that `prepare` gave; pure. Names and places are all that
        counts of it."""

    async def update(self, context: DeviceContext, old: Mapping[str, str]) -> None:
        """Live keys changed; `context.config` is the new configuration."""

    async def release(self, context: DeviceContext) -> Mapping[str, str]:
        """Undo `prepare`; returns volatile keys to change, as Prepared.volatile."""
