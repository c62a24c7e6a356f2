"""What a backup says of itself: `index.yaml` of the whole, `backup.yaml` of the instance and of each snapshot, as LXD 5.0 lays
them out. Pure: from records to plain data to text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.domain import clock, yaml_text
from atoll.domain.entities import Profile, Snapshot, StoragePool, StorageVolume, VolumeSnapshot
from atoll.domain.status import InstanceStatus
from atoll.drivers.storage.contract import Stream
from atoll.services.instances.core import Loaded
from atoll.services.instances.expand import expand_record

Tree = dict[str, Any]

_UNIX_ZERO = "1970-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Subject:
    """All that a backup describes. `profiles` are those that the project has, `volume_snapshots` those of the volume that go with
    the instance's; both by name."""

    loaded: Loaded
    status: InstanceStatus
    snapshots: Sequence[Snapshot]
    pool: StoragePool
    volume: StorageVolume
    profiles: Mapping[str, Profile]
    volume_snapshots: Mapping[str, VolumeSnapshot] = field(default_factory=dict)


def index(subject: Subject, *, optimized: bool = False) -> bytes:
    """`backup/index.yaml`. An optimized archive has a header that lists its streams."""
    record = subject.loaded.record
    return yaml_text.dump(
        {
            "name": record.name,
            "backend": subject.pool.driver,
            "pool": subject.pool.name,
            "snapshots": [snapshot.name for snapshot in subject.snapshots],
            "optimized": optimized,
            "optimized_header": optimized,
            "type": record.type,
            "config": _config(subject),
        }
    )


def instance(subject: Subject) -> bytes:
    """`backup.yaml` of the instance."""
    return yaml_text.dump(_config(subject))


def tree(subject: Subject) -> Tree:
    """The same as plain data."""
    return _config(subject)


def header(streams: Sequence[tuple[str, Stream]]) -> bytes:
    """`backup/optimized_header.yaml`: each stream with the snapshot that it is of, "" for the instance."""
    return yaml_text.dump(
        {
            "subvolumes": [
                {"path": each.path, "snapshot": snapshot, "readonly": each.readonly, "uuid": each.uuid}
                for snapshot, each in streams
            ]
        }
    )


def snapshot(subject: Subject) -> bytes:
    """`backup.yaml` of a snapshot, which knows of no snapshots."""
    tree = _config(subject)
    return yaml_text.dump({key: value for key, value in tree.items() if key not in ("snapshots", "volume_snapshots")})


def _config(subject: Subject) -> Tree:
    record = subject.loaded.record
    return {
        "container": _instance(subject),
        "snapshots": [_snapshot(each, subject.profiles) for each in subject.snapshots],
        "pool": _pool(subject.pool, record.member),
        "profiles": [_profile(subject.profiles[name]) for name in record.profiles if name in subject.profiles],
        "volume": _volume(subject.volume),
        "volume_snapshots": [_volume_snapshot(each, subject.volume_snapshots.get(each.name)) for each in subject.snapshots],
    }


def _instance(subject: Subject) -> Tree:
    record, expanded = subject.loaded.record, subject.loaded.expanded
    return {
        "architecture": record.architecture,
        "config": dict(sorted(record.config.items())),
        "devices": _devices(record.devices),
        "ephemeral": record.ephemeral,
        "profiles": list(record.profiles),
        "stateful": record.stateful,
        "description": record.description,
        "created_at": record.created_at,
        "expanded_config": dict(sorted(expanded.config.items())),
        "expanded_devices": _devices(expanded.devices),
        "name": record.name,
        "status": subject.status.value,
        "status_code": subject.status.code,
        "last_used_at": record.last_used_at or _UNIX_ZERO,
        "location": record.member,
        "type": record.type,
        "project": record.project,
    }


def _snapshot(record: Snapshot, profiles: Mapping[str, Profile]) -> Tree:
    expanded = expand_record(record, profiles)
    return {
        "expires_at": record.expires_at or clock.NEVER,
        "architecture": record.architecture,
        "config": dict(sorted(record.config.items())),
        "created_at": record.created_at,
        "devices": _devices(record.devices),
        "ephemeral": record.ephemeral,
        "expanded_config": dict(sorted(expanded.config.items())),
        "expanded_devices": _devices(expanded.devices),
        "last_used_at": record.last_used_at or clock.NEVER,
        "name": record.name,
        "profiles": list(record.profiles),
        "stateful": record.stateful,
        "size": -1,
    }


def _pool(pool: StoragePool, member: str) -> Tree:
    return {
        "config": dict(pool.config),
        "description": pool.description,
        "name": pool.name,
        "driver": pool.driver,
        "used_by": [],
        "status": "Created",
        "locations": [member],
    }


def _profile(profile: Profile) -> Tree:
    return {
        "config": dict(profile.config),
        "description": profile.description,
        "devices": _devices(profile.devices),
        "name": profile.name,
        "used_by": [],
    }


def _volume(volume: StorageVolume) -> Tree:
    return {
        "config": dict(volume.config),
        "description": volume.description,
        "name": volume.name,
        "type": volume.type,
        "used_by": [],
        "location": volume.member,
        "content_type": volume.content_type,
        "project": volume.project,
        "created_at": volume.created_at or clock.NEVER,
    }


def _volume_snapshot(record: Snapshot, volume: VolumeSnapshot | None) -> Tree:
    return {
        "description": volume.description if volume is not None else record.description,
        "expires_at": record.expires_at or clock.NEVER,
        "name": record.name,
        "config": dict(volume.config) if volume is not None else {},
        "content_type": "filesystem",
        "created_at": record.created_at or clock.NEVER,
    }


def _devices(devices: Mapping[str, Mapping[str, str]]) -> Tree:
    return {name: dict(sorted(device.items())) for name, device in sorted(devices.items())}
