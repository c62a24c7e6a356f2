"""Instances and their snapshots in the database. A list takes a fixed number of statements, whatever its length."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atoll.db import instance_volumes, tables
from atoll.db.engine import Row, Transaction
from atoll.domain.entities import Devices, Instance, Snapshot
from atoll.domain.errors import NotFound

_COLUMNS = """instances.id, projects.name, instances.name, instances.type, instances.architecture, instances.ephemeral,
    instances.stateful, instances.description, instances.created_at, instances.last_used_at, instances.phase, nodes.name"""
_FROM = """FROM instances JOIN projects ON projects.id = instances.project_id JOIN nodes ON nodes.id = instances.node_id"""
_IN_PROJECT = "instances.project_id = (SELECT id FROM projects WHERE name = ?)"
_PROFILES = """SELECT ip.instance_id, profiles.name FROM instances_profiles ip
    JOIN instances ON instances.id = ip.instance_id JOIN profiles ON profiles.id = ip.profile_id"""


@dataclass(frozen=True, slots=True)
class NewInstance:
    """What a new row has."""

    project: str
    name: str
    type: str
    architecture: str
    ephemeral: bool
    description: str
    created_at: str
    config: Mapping[str, str]
    devices: Devices
    profiles: tuple[str, ...]
    profile_project: str
    phase: str
    stateful: bool = False


async def find_all(tx: Transaction, project: str | None = None) -> list[Instance]:
    """All instances of a project, or of all projects, by project and name."""
    if project is None:
        return await _find(tx, "1")
    return await _find(tx, _IN_PROJECT, project)


async def find(tx: Transaction, project: str, name: str) -> Instance:
    """One instance. NotFound if there is none."""
    found = await _find(tx, f"{_IN_PROJECT} AND instances.name = ?", project, name)
    if not found:
        raise NotFound("Instance not found")
    return found[0]


async def names(tx: Transaction, project: str | None = None) -> list[tuple[str, str]]:
    """(project, name) of all instances of a project, or of all projects."""
    where, parameters = ("1", ()) if project is None else (_IN_PROJECT, (project,))
    rows = await tx.query(
        f"SELECT projects.name, instances.name {_FROM} WHERE {where} ORDER BY projects.name, instances.name", *parameters
    )
    return [(row[0], row[1]) for row in rows]


async def _find(tx: Transaction, where: str, *parameters: Any) -> list[Instance]:
    return collect(await tx.queries(*_select(where, *parameters)))


def select(project: str, name: str) -> tuple[tables.Statement, ...]:
    """The statements whose results `collect` makes one instance of (or none): to run them beside others in one hop."""
    return _select(f"{_IN_PROJECT} AND instances.name = ?", project, name)


def _select(where: str, *parameters: Any) -> tuple[tables.Statement, ...]:
    return (
        (f"SELECT {_COLUMNS} {_FROM} WHERE {where} ORDER BY projects.name, instances.name", *parameters),
        tables.select_config("instances", "instance", where, *parameters),
        tables.select_devices("instances", "instance", where, *parameters),
        (f"{_PROFILES} WHERE {where} ORDER BY ip.instance_id, ip.apply_order", *parameters),
    )


def collect(results: Sequence[list[Row]]) -> list[Instance]:
    """Instances from the results of the statements of `select`."""
    rows, config_rows, device_rows, profile_rows = results
    config, devices = tables.config_of(config_rows), tables.devices_of(device_rows)
    profiles: dict[int, list[str]] = defaultdict(list)
    for instance_id, name in profile_rows:
        profiles[instance_id].append(name)
    return [_instance(row, config, devices, profiles) for row in rows]


def _instance(
    row: Row,
    config: Mapping[int, dict[str, str]],
    devices: Mapping[int, dict[str, dict[str, str]]],
    profiles: Mapping[int, list[str]],
) -> Instance:
    number, project, name, kind, architecture, ephemeral, stateful, *rest = row
    values: Row = (number, project, name, kind, architecture, bool(ephemeral), bool(stateful), *rest)
    return Instance(*(*values, config.get(number, {}), devices.get(number, {}), tuple(profiles.get(number, ()))))


async def create(tx: Transaction, new: NewInstance, *, node_id: int = 1) -> int:
    """Insert; Conflict if the name is taken, NotFound for an unknown profile."""
    instance_id = await tx.insert(
        """INSERT INTO instances (node_id, project_id, name, type, architecture, ephemeral, stateful, description, created_at,
        phase) VALUES (?, (SELECT id FROM projects WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?)""",
        node_id,
        new.project,
        new.name,
        new.type,
        new.architecture,
        int(new.ephemeral),
        int(new.stateful),
        new.description,
        new.created_at,
        new.phase,
    )
    await tables.add_config(tx, "instances", "instance", instance_id, new.config)
    await tables.add_devices(tx, "instances", "instance", instance_id, new.devices)
    await _add_profiles(tx, instance_id, new.profile_project, new.profiles)
    return instance_id


async def set_profiles(tx: Transaction, instance_id: int, profile_project: str, profiles: tuple[str, ...]) -> None:
    """These, in this order, are now its profiles. NotFound for an unknown one."""
    await tx.execute("DELETE FROM instances_profiles WHERE instance_id = ?", instance_id)
    await _add_profiles(tx, instance_id, profile_project, profiles)


async def _add_profiles(tx: Transaction, instance_id: int, profile_project: str, profiles: tuple[str, ...]) -> None:
    for order, name in enumerate(profiles, start=1):
        added = await tx.execute(
            """INSERT INTO instances_profiles (instance_id, profile_id, apply_order) SELECT ?, id, ? FROM profiles
            WHERE name = ? AND project_id = (SELECT id FROM projects WHERE name = ?)""",
            instance_id,
            order,
            name,
            profile_project,
        )
        if not added:
            raise NotFound(f"Profile {name!r} not found")


async def update(
    tx: Transaction,
    instance_id: int,
    *,
    description: str,
    architecture: str,
    ephemeral: bool,
    config: Mapping[str, str],
    devices: Devices,
    profile_project: str,
    profiles: tuple[str, ...],
) -> None:
    """Replace all but the name."""
    await tx.execute(
        "UPDATE instances SET description = ?, architecture = ?, ephemeral = ? WHERE id = ?",
        description,
        architecture,
        int(ephemeral),
        instance_id,
    )
    await tables.replace_config(tx, "instances", "instance", instance_id, config)
    await tables.replace_devices(tx, "instances", "instance", instance_id, devices)
    await set_profiles(tx, instance_id, profile_project, profiles)


async def patch_config(tx: Transaction, instance_id: int, changes: Mapping[str, str]) -> None:
    """Set some keys; an empty value removes one."""
    await tables.patch_config(tx, "instances", "instance", instance_id, changes)


async def values_of(tx: Transaction, *keys: str) -> dict[tuple[str, str], dict[str, str]]:
    """By (project, name), these keys of every instance's own configuration; instances that have none of them are left out."""
    marks = ", ".join("?" * len(keys))
    found: dict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for project, name, key, value in await tx.query(
        f"SELECT projects.name, instances.name, c.key, c.value FROM instances_config c"
        f" JOIN instances ON instances.id = c.instance_id JOIN projects ON projects.id = instances.project_id"
        f" WHERE c.key IN ({marks})",
        *keys,
    ):
        found[project, name][key] = value
    return found


async def having(tx: Transaction, pattern: str) -> list[tuple[str, str]]:
    """(project, name) of the instances whose own configuration has a key of that pattern (of LIKE)."""
    found = await tx.query(
        """SELECT DISTINCT projects.name, instances.name FROM instances_config c
        JOIN instances ON instances.id = c.instance_id JOIN projects ON projects.id = instances.project_id
        WHERE c.key LIKE ?""",
        pattern,
    )
    return [(project, name) for project, name in found]


async def set_phase(tx: Transaction, instance_id: int, phase: str) -> None:
    """What is being done to it; empty: whole."""
    await tx.execute("UPDATE instances SET phase = ? WHERE id = ?", phase, instance_id)


async def touch(tx: Transaction, instance_id: int, now: str) -> None:
    """It was used."""
    await tx.execute("UPDATE instances SET last_used_at = ? WHERE id = ?", now, instance_id)


async def set_created_at(tx: Transaction, instance_id: int, created_at: str) -> None:
    """When it was made, if that was before there was this row."""
    await tx.execute("UPDATE instances SET created_at = ? WHERE id = ?", created_at, instance_id)


async def rename(tx: Transaction, instance_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE instances SET name = ? WHERE id = ?", name, instance_id)


async def delete(tx: Transaction, instance_id: int) -> None:
    """Remove it with its snapshots and backups."""
    await tx.execute("DELETE FROM instances WHERE id = ?", instance_id)


_SNAPSHOT_COLUMNS = """instances_snapshots.id, instances_snapshots.instance_id, instances_snapshots.name,
    instances_snapshots.architecture, instances_snapshots.ephemeral, instances_snapshots.stateful,
    instances_snapshots.description, instances_snapshots.created_at, instances_snapshots.last_used_at,
    instances_snapshots.expires_at, instances_snapshots.phase, instances_snapshots.profiles"""


async def snapshots_of(tx: Transaction, instance_id: int) -> list[Snapshot]:
    """Snapshots of one instance, oldest first."""
    return await _snapshots(tx, "instances_snapshots.instance_id = ?", instance_id)


async def snapshot_names(tx: Transaction, instance_id: int) -> set[str]:
    """Names of the snapshots of one instance, of those that are being made or removed, too."""
    return {name for (name,) in await tx.query("SELECT name FROM instances_snapshots WHERE instance_id = ?", instance_id)}


async def snapshots_in(tx: Transaction, project: str | None = None) -> dict[int, list[Snapshot]]:
    """By instance id, the snapshots of all instances of a project, or of all projects."""
    where, parameters = (
        ("1", ()) if project is None else (f"instance_id IN (SELECT id FROM instances WHERE {_IN_PROJECT})", (project,))
    )
    grouped: dict[int, list[Snapshot]] = defaultdict(list)
    for snapshot in await _snapshots(tx, where, *parameters):
        grouped[snapshot.instance_id].append(snapshot)
    return grouped


async def find_snapshot(tx: Transaction, instance_id: int, name: str) -> Snapshot:
    """One snapshot. NotFound if there is none."""
    found = await _snapshots(tx, "instances_snapshots.instance_id = ? AND instances_snapshots.name = ?", instance_id, name)
    if not found:
        raise NotFound("Instance snapshot not found")
    return found[0]


async def _snapshots(tx: Transaction, where: str, *parameters: Any) -> list[Snapshot]:
    rows, config_rows, device_rows = await tx.queries(
        (f"SELECT {_SNAPSHOT_COLUMNS} FROM instances_snapshots WHERE {where} ORDER BY created_at, id", *parameters),
        tables.select_config("instances_snapshots", "instance_snapshot", where, *parameters),
        tables.select_devices("instances_snapshots", "instance_snapshot", where, *parameters),
    )
    config, devices = tables.config_of(config_rows), tables.devices_of(device_rows)
    return [_snapshot(row, config, devices) for row in rows]


def _snapshot(row: Row, config: Mapping[int, dict[str, str]], devices: Mapping[int, dict[str, dict[str, str]]]) -> Snapshot:
    *head, ephemeral, stateful = row[:6]
    values: Row = (*head, bool(ephemeral), bool(stateful), *row[6:11], tuple(json.loads(row[11])))
    return Snapshot(*(*values, config.get(row[0], {}), devices.get(row[0], {})))


async def create_snapshot(
    tx: Transaction, instance: Instance, name: str, *, created_at: str, expires_at: str, phase: str, stateful: bool = False
) -> int:
    """Insert a snapshot with the instance's present record, and one of its volume; Conflict if the name is taken."""
    snapshot_id = await tx.insert(
        """INSERT INTO instances_snapshots (instance_id, name, architecture, ephemeral, stateful, description, created_at,
        last_used_at, expires_at, profiles, phase) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        instance.id,
        name,
        instance.architecture,
        int(instance.ephemeral),
        int(stateful),
        instance.description,
        created_at,
        instance.last_used_at,
        expires_at,
        json.dumps(list(instance.profiles)),
        phase,
    )
    await tables.replace_config(tx, "instances_snapshots", "instance_snapshot", snapshot_id, instance.config)
    await tables.replace_devices(tx, "instances_snapshots", "instance_snapshot", snapshot_id, instance.devices)
    await instance_volumes.add_snapshot(tx, snapshot_id)
    return snapshot_id


async def update_snapshot(tx: Transaction, snapshot_id: int, *, expires_at: str) -> None:
    """Change when it expires."""
    await tx.execute("UPDATE instances_snapshots SET expires_at = ? WHERE id = ?", expires_at, snapshot_id)


async def set_snapshot_phase(tx: Transaction, snapshot_id: int, phase: str) -> None:
    """What is being done to it; empty: whole."""
    await tx.execute("UPDATE instances_snapshots SET phase = ? WHERE id = ?", phase, snapshot_id)


async def rename_snapshot(tx: Transaction, snapshot_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await instance_volumes.rename_snapshot(tx, snapshot_id, name)
    await tx.execute("UPDATE instances_snapshots SET name = ? WHERE id = ?", name, snapshot_id)


async def delete_snapshot(tx: Transaction, snapshot_id: int) -> None:
    """Remove its record."""
    await instance_volumes.delete_snapshot(tx, snapshot_id)
    await tx.execute("DELETE FROM instances_snapshots WHERE id = ?", snapshot_id)
