"""What source and target tell each other of a custom volume, to and from records. Pure, and as wary as `description`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from atoll.domain import backup_metadata, names
from atoll.domain import migration_header as wire
from atoll.domain.entities import StorageVolume, VolumeSnapshot
from atoll.domain.idmap import IdMap
from atoll.domain.volume_backup_metadata import CustomEntry, VolumeBackup
from atoll.services import volume_backup_content
from atoll.services.instances import restoring
from atoll.services.migration import description, handshake

LAST_IDMAP = "volatile.idmap.last"
"""What the ids of a volume's files are shifted by on LXD's disk."""


def offer(snapshots: Sequence[VolumeSnapshot]) -> wire.Header:
    """What a volume with those snapshots is offered with."""
    return wire.Header(
        snapshot_names=tuple(each.name for each in snapshots),
        snapshots=tuple(snapshot(each) for each in snapshots),
        index_version=handshake.INDEX_VERSION,
    )


def snapshot(record: VolumeSnapshot) -> wire.Snapshot:
    """A snapshot's record as it is told. What instances alone have is empty."""
    return wire.Snapshot(
        name=record.name,
        config=description.pairs(record.config),
        ephemeral=False,
        architecture=0,
        stateful=False,
        created_at=description.seconds(record.created_at),
        last_used_at=0,
        expires_at=description.seconds(record.expires_at),
    )


def index(volume: StorageVolume, snapshots: Sequence[VolumeSnapshot]) -> bytes:
    """LXD's index of what is sent."""
    return description.index(
        {
            "volume": volume_backup_content.volume(volume),
            "volume_snapshots": [volume_backup_content.snapshot(volume, each) for each in snapshots],
        }
    )


def parse_index(data: bytes) -> VolumeBackup:
    """The reverse of `index`, names and times valid. Empty for an index that says nothing."""
    backup = description.read_index(data, VolumeBackup)
    entries = [msgspec.structs.replace(each, name=each.name.rpartition("/")[2]) for each in backup.volume_snapshots]
    backup_metadata.check_snapshot_names([each.name for each in entries], "index")
    for entry in (*entries, *([backup.volume] if backup.volume is not None else ())):
        backup_metadata.check_time(entry.created_at, "index")
        backup_metadata.check_time(entry.expires_at, "index")
    return VolumeBackup(backup.volume, entries)


def entries(told: Sequence[wire.Snapshot], index: VolumeBackup) -> list[CustomEntry]:
    """The snapshots that were told, with what the index says of each. BadRequest for names and times that cannot be."""
    described = {each.name: each for each in index.volume_snapshots}
    return [described.get(names.snapshot(each.name)) or _entry(each) for each in told]


def _entry(told: wire.Snapshot) -> CustomEntry:
    return CustomEntry(
        name=told.name,
        created_at=description.time(told.created_at),
        expires_at=description.time(told.expires_at),
        config={each.key: each.value for each in told.config},
    )


def shift_of(config: Mapping[str, str]) -> IdMap | None:
    """What the ids of files with that configuration are shifted by; None for plain ones. BadRequest for what is no map."""
    return restoring.parse_shift(LAST_IDMAP, config.get(LAST_IDMAP, ""))


def missing(told: Sequence[wire.Snapshot], present: Sequence[VolumeSnapshot]) -> list[wire.Snapshot]:
    """Those that a copy lacks. As LXD does, by name alone: it does not tell when snapshots of volumes were taken."""
    there = {each.name for each in present}
    return [each for each in told if each.name not in there]


def extra(told: Sequence[wire.Snapshot], present: Sequence[VolumeSnapshot]) -> list[VolumeSnapshot]:
    """The snapshots that a copy has and its source does not have."""
    wanted = {each.name for each in told}
    return [each for each in present if each.name not in wanted]


def same(told: Sequence[wire.Snapshot], present: Sequence[VolumeSnapshot]) -> list[str]:
    """The names of the snapshots that a copy surely has from its source: they were taken in the same second, too."""
    taken = {(each.name, each.created_at) for each in told}
    return [each.name for each in present if (each.name, description.seconds(each.created_at)) in taken]
