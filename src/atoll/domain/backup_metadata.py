"""What a backup says of itself, read strictly: `index.yaml` of an archive and `backup.yaml` of an instance, LXD's and our own.

The text comes from strangers (security invariant I7). Every name in it is validated here, as what it is; what is merely
carried along (configuration, devices) is for the gate that every new instance passes. A null node counts as one that is not
there; keys that are not known are passed over, as LXD does. All else that is not as it should be is a BadRequest that names it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from atoll.domain import clock, names, plain_yaml
from atoll.domain.errors import BadRequest
from atoll.domain.plain_yaml import Limits

LIMITS = Limits(nodes=200_000, depth=12)
INDEX, BACKUP, HEADER = "index.yaml", "backup.yaml", "optimized_header.yaml"
MAX_SUBVOLUMES = 1000
_LONGEST_PATH = 4096

T = TypeVar("T")


class InstanceEntry(msgspec.Struct, frozen=True):
    """An instance, or a snapshot of one, as it was."""

    name: str = ""
    type: str = ""
    architecture: str = ""
    description: str = ""
    created_at: str = ""
    expires_at: str = ""
    ephemeral: bool = False
    stateful: bool = False
    config: dict[str, str] = {}
    devices: dict[str, dict[str, str]] = {}
    profiles: list[str] = []
    expanded_devices: dict[str, dict[str, str]] = {}


class PoolEntry(msgspec.Struct, frozen=True):
    """The storage pool that it was in."""

    name: str = ""
    driver: str = ""
    description: str = ""
    config: dict[str, str] = {}


class VolumeEntry(msgspec.Struct, frozen=True):
    """The root volume, or a snapshot of it."""

    name: str = ""
    description: str = ""
    config: dict[str, str] = {}


class InstanceBackup(msgspec.Struct, frozen=True):
    """`backup.yaml`. Snapshots are in the order in which they were made."""

    container: InstanceEntry = InstanceEntry()
    snapshots: list[InstanceEntry] = []
    pool: PoolEntry = PoolEntry()
    volume: VolumeEntry = VolumeEntry()
    volume_snapshots: list[VolumeEntry] = []

    def volumes(self) -> dict[str, VolumeEntry]:
        """What is said of the volume of each snapshot, by its name; an empty entry if nothing is."""
        told = {each.name: each for each in self.volume_snapshots}
        return {each.name: told.get(each.name, VolumeEntry(name=each.name)) for each in self.snapshots}


class BackupIndex(msgspec.Struct, frozen=True):
    """`index.yaml`. `config` is absent in archives of old servers, which have it in the instance's `backup.yaml` alone."""

    name: str = ""
    backend: str = ""
    pool: str = ""
    type: str = "container"
    optimized: bool = False
    optimized_header: bool = False
    snapshots: list[str] = []
    config: InstanceBackup | None = None


class Subvolume(msgspec.Struct, frozen=True):
    """One of an optimized archive's streams: a volume's (path "/"), or that of a subvolume which a guest made in it."""

    path: str = "/"
    snapshot: str = ""
    readonly: bool = False
    uuid: str = ""


class OptimizedHeader(msgspec.Struct, frozen=True):
    """`optimized_header.yaml`: the streams of an archive whose volumes have subvolumes."""

    subvolumes: list[Subvolume] = []


def parse_index(data: bytes) -> BackupIndex:
    """An archive's index, its names valid and its snapshots those of its `config`."""
    index = convert(data, BackupIndex, INDEX)
    names.instance(index.name)
    check_snapshot_names(index.snapshots, INDEX)
    if index.pool:
        names.storage_pool(index.pool)
    if index.config is not None:
        check(index.config, INDEX)
        require_snapshots(index, index.config)
    return index


def parse_backup(data: bytes) -> InstanceBackup:
    """An instance's own description, its names valid."""
    backup = convert(data, InstanceBackup, BACKUP)
    check(backup, BACKUP)
    return backup


def parse_header(data: bytes) -> OptimizedHeader:
    """The streams of an optimized archive; the paths of subvolumes are absolute and lead nowhere else."""
    header = convert(data, OptimizedHeader, HEADER)
    check_header(header, HEADER)
    return header


def check_header(header: OptimizedHeader, what: str) -> None:
    """BadRequest for paths that are relative or lead elsewhere, and for too many of them."""
    if len(header.subvolumes) > MAX_SUBVOLUMES:
        raise BadRequest(f"{what}: there are more than {MAX_SUBVOLUMES} subvolumes")
    for each in header.subvolumes:
        parts = each.path.split("/")[1:]
        if not each.path.startswith("/") or "\0" in each.path or len(each.path) > _LONGEST_PATH or {".", ".."} & set(parts):
            raise BadRequest(f"{what}: {each.path[:80]!r} is no path of a subvolume")
        if each.path != "/" and "" in parts:
            raise BadRequest(f"{what}: {each.path[:80]!r} is no path of a subvolume")


def require_snapshots(index: BackupIndex, backup: InstanceBackup) -> None:
    """BadRequest unless both know of the same snapshots."""
    described = [each.name for each in backup.snapshots]
    if not set(index.snapshots) <= set(described):
        raise BadRequest(f"{INDEX}: the snapshots of the archive and those that are described differ")


def check(backup: InstanceBackup, what: str) -> None:
    """BadRequest for names and times that cannot be."""
    names.instance(backup.container.name)
    check_snapshot_names([each.name for each in backup.snapshots], what)
    if backup.pool.name:
        names.storage_pool(backup.pool.name)
    for entry in (backup.container, *backup.snapshots):
        for profile in entry.profiles:
            names.profile(profile)
        for device in entry.devices:
            names.device(device)
        for time in (entry.created_at, entry.expires_at):
            check_time(time, what)


def check_snapshot_names(found: Sequence[str], what: str) -> None:
    """BadRequest for names that cannot be, or that are there twice."""
    for name in found:
        names.snapshot(name)
    if len(set(found)) != len(found):
        raise BadRequest(f"{what}: two snapshots have the same name")


def check_time(text: str, what: str) -> None:
    """BadRequest for what is no time; an empty text is none that is told."""
    try:
        if text:
            clock.parse(text)
    except ValueError as error:
        raise BadRequest(f"{what}: {text[:40]!r} is no time") from error


def convert(data: bytes, kind: type[T], what: str) -> T:
    """A stranger's text as that type, with nothing validated but its shape. BadRequest, naming what does not fit."""
    tree = _without_nulls(plain_yaml.load(data, what=what, limits=LIMITS, typed=False))
    try:
        return msgspec.convert(tree, kind, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{what}: {error}") from error


def _without_nulls(tree: Any) -> Any:
    """The tree (which is not deep, see LIMITS) without the mappings' null values."""
    if isinstance(tree, dict):
        return {key: _without_nulls(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_without_nulls(value) for value in tree]
    return tree
