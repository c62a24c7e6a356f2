"""What the database keeps: frozen records of the objects that the API manages. Times are UTC seconds, 0 meaning never."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from atoll.domain.content_types import ContentType

Config = Mapping[str, str]
Devices = Mapping[str, Mapping[str, str]]

DEFAULT_PROJECT = "default"


@dataclass(frozen=True, slots=True)
class Project:
    """A name space for instances and, as its `features.*` say, for images, profiles, networks and volumes."""

    id: int
    name: str
    description: str
    config: Config

    def has(self, feature: str) -> bool:
        """Whether it has its own objects of that feature ("images", "profiles", "networks", "storage.volumes")."""
        return self.name == DEFAULT_PROJECT or self.config.get(f"features.{feature}", "").lower() in ("true", "1", "yes", "on")

    def owner_of(self, feature: str) -> str:
        """The name of the project whose objects of that feature this project uses."""
        return self.name if self.has(feature) else DEFAULT_PROJECT

    @property
    def borrows_images(self) -> bool:
        """Whether it uses another project's images with profiles of its own."""
        return self.has("profiles") and not self.has("images")


@dataclass(frozen=True, slots=True)
class Profile:
    """Configuration and devices to apply to instances."""

    id: int
    project: str
    name: str
    description: str
    config: Config
    devices: Devices


@dataclass(frozen=True, slots=True)
class Certificate:
    """An entry of the trust store; `certificate` is PEM."""

    id: int
    fingerprint: str
    type: str
    name: str
    certificate: str
    restricted: bool
    projects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Instance:
    """A machine's record. `phase` is empty for a whole one, else what was being done to it ("creating", "deleting")."""

    id: int
    project: str
    name: str
    type: str
    architecture: str
    ephemeral: bool
    stateful: bool
    description: str
    created_at: str
    last_used_at: str
    phase: str
    member: str
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)
    profiles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """An instance's record as it was at a moment."""

    id: int
    instance_id: int
    name: str
    architecture: str
    ephemeral: bool
    stateful: bool
    description: str
    created_at: str
    last_used_at: str
    expires_at: str
    phase: str
    profiles: tuple[str, ...]
    config: Config = field(default_factory=dict)
    devices: Devices = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Backup:
    """An instance's backup, a file of its own. `phase` is empty for a whole one, else what was being done to it."""

    id: int
    project: str
    instance: str
    name: str
    created_at: str
    expires_at: str
    instance_only: bool
    optimized_storage: bool
    phase: str


@dataclass(frozen=True, slots=True)
class VolumeBackup:
    """A custom volume's backup, as `Backup`."""

    id: int
    pool: str
    project: str
    volume: str
    name: str
    created_at: str
    expires_at: str
    volume_only: bool
    optimized_storage: bool
    phase: str


@dataclass(frozen=True, slots=True)
class ImageAlias:
    """A name for an image."""

    name: str
    description: str
    target: str
    type: str


@dataclass(frozen=True, slots=True)
class ImageSource:
    """Where an image came from. `project`: the server's, empty for its default one."""

    server: str
    protocol: str
    certificate: str
    alias: str
    image_type: str
    project: str = ""


@dataclass(frozen=True, slots=True)
class Image:
    """An image of a project; its files are shared by all projects that have it. `format` is unified, split or squashfs."""

    id: int
    project: str
    fingerprint: str
    type: str
    filename: str
    size: int
    public: bool
    architecture: str
    creation_date: int
    expiry_date: int
    upload_date: int
    last_use_date: int
    cached: bool
    auto_update: bool
    format: str
    properties: Config = field(default_factory=dict)
    aliases: tuple[ImageAlias, ...] = ()
    profiles: tuple[str, ...] = ()
    source: ImageSource | None = None


@dataclass(frozen=True, slots=True)
class StoragePool:
    """A storage pool. `phase` tells what is being done to it; empty: whole."""

    id: int
    name: str
    driver: str
    description: str
    config: Config
    phase: str = ""


@dataclass(frozen=True, slots=True)
class StorageVolume:
    """A storage volume's record; `type` is container, virtual-machine, image or custom."""

    id: int
    pool: str
    project: str
    name: str
    type: str
    content_type: str
    description: str
    created_at: str
    phase: str
    member: str
    config: Config = field(default_factory=dict)

    @property
    def content(self) -> ContentType:
        """What it holds."""
        return ContentType(self.content_type)


@dataclass(frozen=True, slots=True)
class VolumeSnapshot:
    """A custom volume's snapshot record."""

    id: int
    volume_id: int
    name: str
    description: str
    created_at: str
    expires_at: str
    phase: str
    config: Config = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Network:
    """A managed network."""

    id: int
    project: str
    name: str
    type: str
    description: str
    state: str
    config: Config


@dataclass(frozen=True, slots=True)
class Warning:
    """Something a person should know of; `status` is new, acknowledged or resolved."""

    uuid: str
    member: str
    project: str
    entity_url: str
    type: str
    severity: str
    status: str
    first_seen_at: str
    last_seen_at: str
    count: int
    last_message: str
