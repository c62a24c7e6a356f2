"""Instances and snapshots from domain objects to wire types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atoll.api.schema import instances as schema
from atoll.domain import clock
from atoll.domain.entities import Backup, Snapshot
from atoll.domain.status import InstanceStatus
from atoll.drivers.instance.contract import MachineState, NicState
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import expand_record
from atoll.services.instances.query import Full


def instance(loaded: Loaded, status: InstanceStatus) -> schema.Instance:
    """At recursion 1."""
    return schema.Instance(*_fields(loaded, status))


def instance_full(full: Full) -> schema.InstanceFull:
    """At recursion 2."""
    snapshots = [snapshot(each, full.loaded) for each in full.snapshots if not each.phase] or None
    backups = [backup(each) for each in full.backups] or None
    return schema.InstanceFull(*(*_fields(full.loaded, full.state.status), backups, state(full.state, full.disk), snapshots))


def _fields(loaded: Loaded, status: InstanceStatus) -> tuple[Any, ...]:
    record, expanded = loaded.record, loaded.expanded
    if record.phase:
        status = InstanceStatus.ERROR if status is InstanceStatus.ERROR else InstanceStatus.STOPPED
    return (
        record.architecture,
        record.config,
        record.devices,
        record.ephemeral,
        list(record.profiles),
        record.stateful,
        record.description,
        record.created_at,
        expanded.config,
        expanded.devices,
        record.name,
        status.value,
        status.code,
        record.last_used_at or "1970-01-01T00:00:00Z",
        record.member,
        record.type,
        record.project,
    )


def etag_subject(loaded: Loaded) -> list[Any]:
    """What a PUT of the instance could change."""
    record = loaded.record
    return [record.architecture, record.config, record.devices, record.ephemeral, record.profiles, record.description]


def snapshot(record: Snapshot, loaded: Loaded, *, size: int | None = None) -> schema.SnapshotInfo:
    """A snapshot; its profiles are those of today, as LXD shows them. `size` in bytes; None: not known."""
    expanded = expand_record(record, loaded.profiles)
    return schema.SnapshotInfo(
        architecture=record.architecture,
        config=dict(record.config),
        created_at=record.created_at,
        devices={name: dict(device) for name, device in record.devices.items()},
        ephemeral=record.ephemeral,
        expanded_config=dict(expanded.config),
        expanded_devices={name: dict(device) for name, device in expanded.devices.items()},
        expires_at=clock.shown(record.expires_at),
        last_used_at=record.last_used_at or clock.NEVER,
        name=record.name,
        profiles=list(record.profiles),
        size=-1 if size is None else size,
        stateful=record.stateful,
    )


def backup(record: Backup) -> schema.InstanceBackup:
    """A backup of an instance."""
    return schema.InstanceBackup(
        name=record.name,
        created_at=record.created_at,
        expires_at=clock.shown(record.expires_at),
        instance_only=record.instance_only,
        container_only=record.instance_only,
        optimized_storage=record.optimized_storage,
    )


def state(machine: MachineState, disk: Mapping[str, int]) -> schema.InstanceState:
    """An instance's figures."""
    return schema.InstanceState(
        status=machine.status.value,
        status_code=machine.status.code,
        disk={name: {"usage": used} for name, used in disk.items()},
        memory={
            "usage": machine.memory,
            "usage_peak": machine.memory_peak,
            "swap_usage": machine.swap,
            "swap_usage_peak": machine.swap_peak,
        },
        network={nic.name: network(nic) for nic in machine.nics} if machine.status.is_running else None,
        pid=machine.pid,
        processes=machine.processes,
        cpu={"usage": machine.cpu_ns},
    )


def network(nic: NicState) -> dict[str, Any]:
    """An interface of a guest."""
    return {
        "addresses": _addresses(nic.addresses),
        "counters": dict(nic.counters),
        "hwaddr": nic.hwaddr,
        "host_name": nic.host_name,
        "mtu": nic.mtu,
        "state": "up" if nic.up else "down",
        "type": nic.kind,
    }


def _addresses(addresses: Sequence[tuple[str, str, int, str]]) -> list[dict[str, str]]:
    return [
        {"family": family, "address": address, "netmask": str(prefix), "scope": scope}
        for family, address, prefix, scope in addresses
    ]
