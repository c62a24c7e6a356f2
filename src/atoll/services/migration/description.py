"""What source and target tell each other of an instance, to and from records. Pure.

A description that comes from another server is a stranger's: names are validated here, times and architectures too; what is
merely carried along (configuration, devices) is for the gate that every new instance passes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from atoll.domain import architectures, backup_metadata, clock, names
from atoll.domain import migration_header as wire
from atoll.domain.backup_metadata import InstanceBackup, InstanceEntry
from atoll.domain.entities import Snapshot
from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap, IdRange
from atoll.domain.migration_header import Header

MOST_SNAPSHOTS = 5000

T = TypeVar("T")
_FIELDS = {
    "container": "Container",
    "snapshots": "Snapshots",
    "pool": "Pool",
    "profiles": "Profiles",
    "volume": "Volume",
    "volume_snapshots": "VolumeSnapshots",
}
"""Of a backup's description, and the names that LXD's index has for them."""


# --- told --------------------------------------------------------------------------------------------------------------


def snapshot(record: Snapshot) -> wire.Snapshot:
    """A snapshot's record as it is told."""
    return wire.Snapshot(
        name=record.name,
        config=pairs(record.config),
        profiles=tuple(record.profiles),
        ephemeral=record.ephemeral,
        devices=tuple(wire.Device(name, pairs(device)) for name, device in sorted(record.devices.items())),
        architecture=architectures.find(record.architecture).id,
        stateful=False,
        created_at=seconds(record.created_at),
        last_used_at=seconds(record.last_used_at),
        expires_at=seconds(record.expires_at),
    )


def pairs(config: Mapping[str, str]) -> tuple[wire.Config, ...]:
    """A configuration as it is told."""
    return tuple(wire.Config(key, value) for key, value in sorted(config.items()))


def seconds(time: str) -> int:
    """Seconds since 1970; 0 for no time."""
    return max(int(clock.parse(time)), 0) if time else 0


def index(tree: Mapping[str, Any]) -> bytes:
    """LXD's index of what is sent, from a backup's description as plain data."""
    return json.dumps({"config": {_FIELDS[key]: value for key, value in tree.items() if key in _FIELDS}}).encode()


# --- heard -------------------------------------------------------------------------------------------------------------


def check_offer(header: Header) -> None:
    """BadRequest for an offer with too many snapshots, a name twice, names without descriptions, or a malformed map of ids."""
    if len(header.snapshots) > MOST_SNAPSHOTS:
        raise BadRequest(f"There are more than {MOST_SNAPSHOTS} snapshots")
    told = [each.name for each in header.snapshots]
    if tuple(told) != header.snapshot_names:
        raise BadRequest("The other server names other snapshots than it describes")
    if len(set(told)) != len(told):
        raise BadRequest("The other server names a snapshot twice")
    idmap(header)


def idmap(header: Header) -> IdMap | None:
    """What the files' ids are shifted by; None for plain ones. BadRequest for what is no map."""
    ranges = tuple(IdRange(each.nsid, each.hostid, each.maprange, users=each.isuid, groups=each.isgid) for each in header.idmap)
    if any(each.inside < 0 or each.outside < 0 or each.count <= 0 for each in ranges):
        raise BadRequest("The other server's map of ids is none")
    return IdMap(ranges) if any(each.inside != each.outside for each in ranges) else None


def entry(told: wire.Snapshot) -> InstanceEntry:
    """A snapshot as it was told."""
    return InstanceEntry(
        name=names.snapshot(told.name),
        type="container",
        architecture=architectures.by_id(told.architecture).name,
        created_at=time(told.created_at),
        expires_at=time(told.expires_at),
        ephemeral=told.ephemeral,
        config={each.key: each.value for each in told.config},
        devices={names.device(each.name): {key.key: key.value for key in each.config} for each in told.devices},
        profiles=[names.profile(each) for each in told.profiles],
    )


def time(told: int | None) -> str:
    """A time as it was told; empty for none, which Go tells as one long before 1970."""
    if told is None or told <= 0:
        return ""
    if told > clock.LATEST:
        raise BadRequest("The other server tells of an impossible time")
    return clock.rfc3339(told)


def parse_index(data: bytes) -> InstanceBackup:
    """The reverse of `index`, names and times of snapshots valid. Empty for an index that says nothing. What it says of the
    instance itself is not checked, since nobody uses it: LXD leaves it empty when it sends a snapshot."""
    backup = read_index(data, InstanceBackup)
    backup_metadata.check_snapshot_names([each.name for each in backup.snapshots], "index")
    for entry in backup.snapshots:
        backup_metadata.check_time(entry.created_at, "index")
    return InstanceBackup(snapshots=backup.snapshots, volume=backup.volume, volume_snapshots=backup.volume_snapshots)


def read_index(data: bytes, kind: type[T]) -> T:
    """A backup's description of that kind, of which nothing is validated but its shape."""
    try:
        tree = msgspec.json.decode(data)
        told = tree.get("config") or {}
        found = {ours: _present(told[theirs]) for ours, theirs in _FIELDS.items() if ours != "profiles" and told.get(theirs)}
        return msgspec.convert(found, kind, strict=False)
    except (msgspec.MsgspecError, AttributeError, RecursionError) as error:
        raise BadRequest(f"The other server's index is malformed: {error}") from error


def _present(tree: Any) -> Any:
    """Without the mappings' null values."""
    if isinstance(tree, dict):
        return {key: _present(value) for key, value in tree.items() if value is not None}
    if isinstance(tree, list):
        return [_present(value) for value in tree]
    return tree


def missing(told: Sequence[wire.Snapshot], present: Sequence[Snapshot]) -> list[wire.Snapshot]:
    """The snapshots that a copy lacks. Two are the same if they have the same name and were taken in the same second."""
    there = {(each.name, seconds(each.created_at)) for each in present}
    return [each for each in told if (each.name, each.created_at) not in there]


def extra(told: Sequence[wire.Snapshot], present: Sequence[Snapshot]) -> list[Snapshot]:
    """The snapshots that a copy has and its source does not have."""
    wanted = {(each.name, each.created_at) for each in told}
    return [each for each in present if (each.name, seconds(each.created_at)) not in wanted]
