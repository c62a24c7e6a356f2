"""Wire types of projects, profiles, storage, networks and warnings."""

from __future__ import annotations

import msgspec

from atoll.api.schema.common import Body, Config, DescriptionConfig, Devices, PushTarget


class ProjectsPost(Body):
    """POST /1.0/projects."""

    name: str
    description: str = ""
    config: Config | None = None


class Project(msgspec.Struct):
    """A project."""

    name: str
    description: str
    config: Config
    used_by: list[str]


class ProfilesPost(Body):
    """POST /1.0/profiles."""

    name: str
    description: str = ""
    config: Config | None = None
    devices: Devices | None = None


class ProfilePut(DescriptionConfig):
    """PUT and PATCH of a profile."""

    devices: Devices | None = None


class Profile(msgspec.Struct):
    """A profile."""

    name: str
    description: str
    config: Config
    devices: Devices
    used_by: list[str]


class StoragePoolsPost(Body):
    """POST /1.0/storage-pools."""

    name: str
    driver: str = ""
    description: str = ""
    config: Config | None = None


class StoragePool(msgspec.Struct):
    """A storage pool."""

    name: str
    description: str
    driver: str
    config: Config
    used_by: list[str]
    status: str
    locations: list[str]


class VolumeSource(Body):
    """Where a new volume comes from: a copy of one on the same server (`name`, `pool`, `project`), or one of another server."""

    type: str = ""
    name: str = ""
    pool: str = ""
    project: str = ""
    volume_only: bool = False
    refresh: bool = False
    mode: str = ""
    operation: str = ""
    certificate: str = ""
    secrets: dict[str, str] | None = None


class VolumesPost(Body):
    """POST …/volumes."""

    name: str
    type: str = ""
    content_type: str = ""
    description: str = ""
    config: Config | None = None
    source: VolumeSource | None = None


class VolumePut(DescriptionConfig):
    """PUT and PATCH of a volume."""

    restore: str = ""


class VolumePost(Body):
    """POST of a volume: its new name, pool or project; or with `migration` where it is sent."""

    name: str = ""
    pool: str = ""
    project: str = ""
    migration: bool = False
    volume_only: bool = False
    target: PushTarget | None = None


class Volume(msgspec.Struct):
    """A storage volume."""

    name: str
    type: str
    content_type: str
    description: str
    config: Config
    used_by: list[str]
    location: str
    project: str
    created_at: str


class VolumeSnapshotsPost(Body):
    """POST …/snapshots of a volume."""

    name: str = ""
    description: str = ""
    expires_at: str | None = None


class VolumeSnapshotPut(Body):
    """PUT of a volume's snapshot."""

    description: str | None = None
    expires_at: str | None = None


class VolumeSnapshot(msgspec.Struct):
    """A volume's snapshot. Among others its name is "VOLUME/SNAPSHOT", and one without an expiry has null for it."""

    name: str
    description: str
    config: Config
    content_type: str
    expires_at: str | None
    created_at: str


class VolumeBackupsPost(Body):
    """POST …/backups of a volume. `null` counts as a field that is not there."""

    name: str = ""
    expires_at: str | None = None
    volume_only: bool = False
    optimized_storage: bool = False
    compression_algorithm: str = ""


class VolumeBackup(msgspec.Struct):
    """A volume's backup."""

    name: str
    created_at: str
    expires_at: str
    volume_only: bool
    optimized_storage: bool


class NetworksPost(Body):
    """POST /1.0/networks."""

    name: str
    type: str = ""
    description: str = ""
    config: Config | None = None


class Network(msgspec.Struct):
    """A network."""

    name: str
    description: str
    type: str
    managed: bool
    status: str
    config: Config
    used_by: list[str]
    locations: list[str]


class Lease(msgspec.Struct):
    """An address in use."""

    hostname: str
    hwaddr: str
    address: str
    type: str
    location: str


class WarningPut(Body):
    """PUT and PATCH of a warning."""

    status: str


class Warning(msgspec.Struct):
    """A warning."""

    uuid: str
    location: str
    project: str
    type: str
    count: int
    first_seen_at: str
    last_seen_at: str
    last_message: str
    severity: str
    status: str
    entity_url: str
