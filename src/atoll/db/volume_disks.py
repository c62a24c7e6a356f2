"""Disks that are custom volumes: which instances and profiles have one, and what they say of where it is."""

from __future__ import annotations

from dataclasses import dataclass

from atoll.db.engine import Transaction

_DISKS = """SELECT p.value, s.value, 'instances', instances.name, projects.name, d.id FROM instances_devices d
    JOIN instances_devices_config p ON p.instance_device_id = d.id AND p.key = 'pool'
    JOIN instances_devices_config s ON s.instance_device_id = d.id AND s.key = 'source'
    JOIN instances ON instances.id = d.instance_id JOIN projects ON projects.id = instances.project_id
    UNION SELECT p.value, s.value, 'profiles', profiles.name, projects.name, d.id FROM profiles_devices d
    JOIN profiles_devices_config p ON p.profile_device_id = d.id AND p.key = 'pool'
    JOIN profiles_devices_config s ON s.profile_device_id = d.id AND s.key = 'source'
    JOIN profiles ON profiles.id = d.profile_id JOIN projects ON projects.id = profiles.project_id ORDER BY 3, 5, 4"""


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk that is a volume. `kind` ("instances", "profiles"), `name` and `project` are those of whoever has it."""

    pool: str
    source: str
    kind: str
    name: str
    project: str
    id: int


async def find_all(tx: Transaction) -> list[Disk]:
    """All of them, in one statement."""
    return [Disk(*row) for row in await tx.query(_DISKS)]


async def repoint(tx: Transaction, disk: Disk, *, pool: str, source: str) -> None:
    """The disk is that volume from now on."""
    table, owner = f"{disk.kind}_devices_config", f"{disk.kind.removesuffix('s')}_device_id"
    for key, value in (("pool", pool), ("source", source)):
        await tx.execute(f"UPDATE {table} SET value = ? WHERE {owner} = ? AND key = ?", value, disk.id, key)
