"""What a backup of a custom volume says of itself, read as strictly as `backup_metadata` reads those of instances."""

from __future__ import annotations

import msgspec

from atoll.domain import content_types, names
from atoll.domain.backup_metadata import INDEX, check_snapshot_names, check_time, convert
from atoll.domain.content_types import ContentType
from atoll.domain.errors import BadRequest

TYPE = "custom"
FILESYSTEM = "filesystem"


class CustomEntry(msgspec.Struct, frozen=True):
    """The volume, or a snapshot of it."""

    name: str = ""
    description: str = ""
    content_type: str = ""
    created_at: str = ""
    expires_at: str = ""
    config: dict[str, str] = {}


class VolumeBackup(msgspec.Struct, frozen=True):
    """What is said of the volume and its snapshots, which are in the order in which they were made."""

    volume: CustomEntry | None = None
    volume_snapshots: list[CustomEntry] = []


class VolumeIndex(msgspec.Struct, frozen=True):
    """`index.yaml`."""

    name: str = ""
    backend: str = ""
    pool: str = ""
    type: str = ""
    optimized: bool = False
    optimized_header: bool = False
    snapshots: list[str] = []
    config: VolumeBackup = VolumeBackup()

    @property
    def content(self) -> ContentType:
        """What the volume holds."""
        return content_types.parse(self.volume.content_type)

    @property
    def volume(self) -> CustomEntry:
        """The volume itself; `parse_index` has made sure that it is described."""
        assert self.config.volume is not None
        return self.config.volume

    def in_order(self) -> list[CustomEntry]:
        """The snapshots that the archive has, oldest first. BadRequest if one of them is not described."""
        described = {entry.name: entry for entry in self.config.volume_snapshots}
        if missing := [name for name in self.snapshots if name not in described]:
            raise BadRequest(f"{INDEX}: snapshot {missing[0]!r} of the archive is not described")
        return [described[name] for name in self.snapshots]


def parse_index(data: bytes) -> VolumeIndex:
    """An archive's index, its names and times valid. BadRequest if it is not that of a custom volume."""
    index = convert(data, VolumeIndex, INDEX)
    if index.type != TYPE:
        raise BadRequest("The archive is no backup of a custom volume")
    names.volume(index.name)
    if index.config.volume is None:
        raise BadRequest("Valid volume config not found in index")
    entries = [msgspec.structs.replace(each, name=_own_name(each.name)) for each in index.config.volume_snapshots]
    check_snapshot_names(index.snapshots, INDEX)
    check_snapshot_names([each.name for each in entries], INDEX)
    for entry in (index.config.volume, *entries):
        if content_types.parse(entry.content_type or index.config.volume.content_type) is not index.content:
            raise BadRequest(f"{INDEX}: the volume and its snapshots are of different content types")
        check_time(entry.created_at, INDEX)
        check_time(entry.expires_at, INDEX)
    found = msgspec.structs.replace(index, config=VolumeBackup(index.config.volume, entries))
    found.in_order()
    return found


def _own_name(name: str) -> str:
    """A snapshot's name without the volume's, which old servers wrote before it."""
    return name.rpartition("/")[2]
