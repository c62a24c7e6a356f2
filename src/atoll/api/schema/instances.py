"""Wire types of instances."""

from __future__ import annotations

from typing import Any

import msgspec

from atoll.api.schema.common import Body, Config, Devices, PushTarget


class InstanceSource(Body):
    """Where a new instance comes from."""

    type: str = ""
    alias: str = ""
    certificate: str = ""
    fingerprint: str = ""
    properties: dict[str, str] | None = None
    server: str = ""
    secret: str = ""
    protocol: str = ""
    base_image: str = msgspec.field(name="base-image", default="")
    mode: str = ""
    operation: str = ""
    secrets: dict[str, str] | None = None
    source: str = ""
    project: str = ""
    live: bool = False
    instance_only: bool = False
    container_only: bool = False
    refresh: bool = False
    allow_inconsistent: bool = False


class InstancesPost(Body):
    """POST /1.0/instances."""

    name: str = ""
    type: str = ""
    architecture: str = ""
    description: str = ""
    config: Config | None = None
    devices: Devices | None = None
    profiles: list[str] | None = None
    ephemeral: bool = False
    stateful: bool = False
    restore: str = ""
    instance_type: str = ""
    source: InstanceSource = msgspec.field(default_factory=InstanceSource)


class InstancePut(Body):
    """PUT and PATCH of an instance; for PATCH what is absent (or null) stays."""

    architecture: str | None = None
    config: Config | None = None
    devices: Devices | None = None
    ephemeral: bool | None = None
    profiles: list[str] | None = None
    stateful: bool | None = None
    description: str | None = None
    restore: str | None = None


class InstancePost(Body):
    """POST of an instance: rename, or with `migration` move."""

    name: str = ""
    migration: bool = False
    live: bool = False
    instance_only: bool = False
    container_only: bool = False
    allow_inconsistent: bool = False
    target: PushTarget | None = None
    pool: str = ""
    project: str = ""


class InstanceStatePut(Body):
    """PUT of an instance's state. `timeout` in seconds: -1 waits for ever, 0 is the daemon's choice."""

    action: str
    timeout: int = 0
    force: bool = False
    stateful: bool = False


class InstancesStatePut(Body):
    """PUT /1.0/instances: the same for all of a project."""

    state: InstanceStatePut | None = None


class InstanceExecPost(Body):
    """POST …/exec."""

    command: list[str] | None = None
    environment: dict[str, str] | None = None
    wait_for_websocket: bool = msgspec.field(name="wait-for-websocket", default=False)
    interactive: bool = False
    width: int = 0
    height: int = 0
    record_output: bool = msgspec.field(name="record-output", default=False)
    user: int = 0
    group: int = 0
    cwd: str = ""


class InstanceWaitPost(Body):
    """POST …/wait. Conditions are words (running, stopped, ipv4, ipv6, agent, cloud-init), tcp=PORT or exec=COMMAND; `timeout` is
    in seconds, 0 for none."""

    for_: list[str] = msgspec.field(name="for", default_factory=list)
    timeout: float = 0.0


class InstanceConsolePost(Body):
    """POST …/console. Sizes in characters."""

    width: int = 0
    height: int = 0
    type: str = ""


class SnapshotsPost(Body):
    """POST …/snapshots."""

    name: str = ""
    stateful: bool = False
    expires_at: str | None = None


class SnapshotPut(Body):
    """PUT of a snapshot."""

    expires_at: str | None = None


class InstanceBackupsPost(Body):
    """POST …/backups."""

    name: str = ""
    expires_at: str | None = None
    instance_only: bool = False
    container_only: bool = False
    optimized_storage: bool = False
    compression_algorithm: str = ""


class InstanceBackup(msgspec.Struct):
    """A backup of an instance."""

    name: str
    created_at: str
    expires_at: str
    instance_only: bool
    container_only: bool
    optimized_storage: bool


class Instance(msgspec.Struct):
    """An instance at recursion 1."""

    architecture: str
    config: Config
    devices: Devices
    ephemeral: bool
    profiles: list[str]
    stateful: bool
    description: str
    created_at: str
    expanded_config: Config
    expanded_devices: Devices
    name: str
    status: str
    status_code: int
    last_used_at: str
    location: str
    type: str
    project: str


class SnapshotInfo(msgspec.Struct):
    """A snapshot of an instance."""

    architecture: str
    config: Config
    created_at: str
    devices: Devices
    ephemeral: bool
    expanded_config: Config
    expanded_devices: Devices
    expires_at: str
    last_used_at: str
    name: str
    profiles: list[str]
    size: int
    stateful: bool


class InstanceState(msgspec.Struct):
    """An instance's figures; bytes and nanoseconds."""

    status: str
    status_code: int
    disk: dict[str, dict[str, int]] | None
    memory: dict[str, int]
    network: dict[str, dict[str, Any]] | None
    pid: int
    processes: int
    cpu: dict[str, int]


class InstanceFull(Instance):
    """An instance at recursion 2."""

    backups: list[InstanceBackup] | None = None
    state: InstanceState | None = None
    snapshots: list[SnapshotInfo] | None = None
