"""What the database knows of the contents of pools, and what of a pool's contents it does not know."""

from __future__ import annotations

from collections.abc import Collection

from atoll.db import storage as rows
from atoll.db.engine import Transaction
from atoll.drivers.storage.contract import StorageDriver, VolumeId, VolumeKind
from atoll.services.events import with_project


async def known_volumes(tx: Transaction) -> dict[str, set[VolumeId]]:
    """By pool, all volumes and snapshots that the database knows."""
    known: dict[str, set[VolumeId]] = {}
    by_row: dict[int, tuple[str, VolumeId]] = {}
    for row in await rows.volumes(tx):
        volume = VolumeId(VolumeKind(row.type), row.project, row.name)
        known.setdefault(row.pool, set()).add(volume)
        by_row[row.id] = (row.pool, volume)
    snapshots = await tx.query(
        """SELECT v.id, s.name FROM instances_snapshots s JOIN instances i ON i.id = s.instance_id
        JOIN storage_volumes v ON v.name = i.name AND v.project_id = i.project_id AND v.type = 'container'
        UNION SELECT storage_volume_id, name FROM storage_volumes_snapshots"""
    )
    for row_id, name in snapshots:
        pool, volume = by_row[row_id]
        known[pool].add(volume.at(name))
    return known


async def profiles_with(tx: Transaction, pool: str) -> list[str]:
    """URLs of the profiles that have a disk on it."""
    found = await tx.query(
        """SELECT DISTINCT profiles.name, projects.name FROM profiles_devices_config c
        JOIN profiles_devices d ON d.id = c.profile_device_id JOIN profiles ON profiles.id = d.profile_id
        JOIN projects ON projects.id = profiles.project_id WHERE c.key = 'pool' AND c.value = ? ORDER BY 2, 1""",
        pool,
    )
    return [with_project(f"/1.0/profiles/{name}", project) for name, project in found]


async def remove_lost_images(driver: StorageDriver, known: Collection[VolumeId]) -> list[str]:
    """Unpacked images that the database does not know: their making or their removal was cut off. One sentence for each."""
    lost = [each for each in await driver.inventory() if each.kind is VolumeKind.IMAGE and each not in known]
    for volume in lost:
        await driver.delete(volume)
    return [f"removed image {volume.name[:12]}: its making or removal was cut off" for volume in lost]
