"""Storage pools, volumes and volume snapshots in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from atoll.db import tables
from atoll.db.engine import Transaction
from atoll.domain.entities import StoragePool, StorageVolume, VolumeSnapshot
from atoll.domain.errors import Conflict, NotFound

# --- pools -------------------------------------------------------------------------------------------------------------


async def pools(tx: Transaction) -> list[StoragePool]:
    """All pools, by name."""
    return await _pools(tx, "1")


async def pool(tx: Transaction, name: str) -> StoragePool:
    """One pool. NotFound if there is none."""
    found = await _pools(tx, "storage_pools.name = ?", name)
    if not found:
        raise NotFound("Storage pool not found")
    return found[0]


async def _pools(tx: Transaction, where: str, *parameters: str) -> list[StoragePool]:
    rows, config_rows = await tx.queries(
        (f"SELECT id, name, driver, description, phase FROM storage_pools WHERE {where} ORDER BY name", *parameters),
        tables.select_config("storage_pools", "storage_pool", where, *parameters),
    )
    config = tables.config_of(config_rows)
    return [
        StoragePool(pool_id, name, driver, description, config.get(pool_id, {}), phase)
        for pool_id, name, driver, description, phase in rows
    ]


async def create_pool(
    tx: Transaction,
    name: str,
    driver: str,
    description: str,
    config: Mapping[str, str],
    *,
    phase: str = "",
    node_id: int = 1,
) -> int:
    """Insert; Conflict if the name is taken."""
    pool_id = await tx.insert(
        "INSERT INTO storage_pools (name, driver, description, phase) VALUES (?, ?, ?, ?)", name, driver, description, phase
    )
    await tx.insert("INSERT INTO storage_pools_nodes (storage_pool_id, node_id) VALUES (?, ?)", pool_id, node_id)
    await tables.replace_config(tx, "storage_pools", "storage_pool", pool_id, config)
    return pool_id


async def update_pool(tx: Transaction, pool_id: int, description: str, config: Mapping[str, str]) -> None:
    """Replace description and configuration."""
    await tx.execute("UPDATE storage_pools SET description = ? WHERE id = ?", description, pool_id)
    await tables.replace_config(tx, "storage_pools", "storage_pool", pool_id, config)


async def set_pool_phase(tx: Transaction, pool_id: int, phase: str) -> None:
    """What is being done to it; empty: whole."""
    await tx.execute("UPDATE storage_pools SET phase = ? WHERE id = ?", phase, pool_id)


async def delete_pool(tx: Transaction, pool_id: int) -> None:
    """Remove it; the rows of its image volumes go with it. Conflict while it has other volumes."""
    if await tx.one("SELECT 1 FROM storage_volumes WHERE storage_pool_id = ? AND type != 'image'", pool_id) is not None:
        raise Conflict("The storage pool has volumes")
    await tx.execute("DELETE FROM storage_pools WHERE id = ?", pool_id)


# --- volumes -----------------------------------------------------------------------------------------------------------

_VOLUME = """SELECT storage_volumes.id, storage_pools.name, projects.name, storage_volumes.name, storage_volumes.type,
    storage_volumes.content_type, storage_volumes.description, storage_volumes.created_at, storage_volumes.phase,
    COALESCE(nodes.name, '')
    FROM storage_volumes JOIN storage_pools ON storage_pools.id = storage_volumes.storage_pool_id
    JOIN projects ON projects.id = storage_volumes.project_id LEFT JOIN nodes ON nodes.id = storage_volumes.node_id"""
_IN_POOL = "storage_volumes.storage_pool_id = (SELECT id FROM storage_pools WHERE name = ?)"
_IN_PROJECT = "storage_volumes.project_id = (SELECT id FROM projects WHERE name = ?)"


async def volumes(
    tx: Transaction, *, pool: str | None = None, project: str | None = None, type: str | None = None
) -> list[StorageVolume]:
    """Volumes, as narrowed down."""
    conditions: list[tuple[str, str | None]] = [
        (_IN_POOL, pool),
        (_IN_PROJECT, project),
        ("storage_volumes.type = ?", type),
    ]
    used = [(text, value) for text, value in conditions if value is not None]
    where = " AND ".join(text for text, _ in used) or "1"
    return await _volumes(tx, where, *(value for _, value in used))


async def volume(tx: Transaction, pool: str, project: str, type: str, name: str) -> StorageVolume:
    """One volume. NotFound if there is none."""
    where = f"{_IN_POOL} AND {_IN_PROJECT} AND storage_volumes.type = ? AND storage_volumes.name = ?"
    found = await _volumes(tx, where, pool, project, type, name)
    if not found:
        raise NotFound("Storage volume not found")
    return found[0]


async def volume_by_id(tx: Transaction, volume_id: int) -> StorageVolume:
    """One volume, wherever it is and whatever its name is by now. NotFound if there is none."""
    found = await find_volume(tx, volume_id)
    if found is None:
        raise NotFound("Storage volume not found")
    return found


async def find_volume(tx: Transaction, volume_id: int) -> StorageVolume | None:
    """As `volume_by_id`; None if there is none."""
    found = await _volumes(tx, "storage_volumes.id = ?", volume_id)
    return found[0] if found else None


async def _volumes(tx: Transaction, where: str, *parameters: Any) -> list[StorageVolume]:
    rows, config_rows = await tx.queries(
        (f"{_VOLUME} WHERE {where} ORDER BY projects.name, storage_volumes.type, storage_volumes.name", *parameters),
        tables.select_config("storage_volumes", "storage_volume", where, *parameters),
    )
    config = tables.config_of(config_rows)
    return [StorageVolume(*(*row, config.get(row[0], {}))) for row in rows]


async def create_volume(
    tx: Transaction,
    pool: str,
    project: str,
    type: str,
    name: str,
    *,
    config: Mapping[str, str],
    created_at: str,
    description: str = "",
    content_type: str = "filesystem",
    phase: str = "",
    node_id: int = 1,
) -> int:
    """Insert; Conflict if the name is taken."""
    volume_id = await tx.insert(
        """INSERT INTO storage_volumes (storage_pool_id, node_id, project_id, name, type, content_type, description, created_at,
        phase) VALUES ((SELECT id FROM storage_pools WHERE name = ?), ?, (SELECT id FROM projects WHERE name = ?),
        ?, ?, ?, ?, ?, ?)""",
        pool,
        node_id,
        project,
        name,
        type,
        content_type,
        description,
        created_at,
        phase,
    )
    await tables.add_config(tx, "storage_volumes", "storage_volume", volume_id, config)
    return volume_id


async def update_volume(tx: Transaction, volume_id: int, description: str, config: Mapping[str, str]) -> None:
    """Replace description and configuration."""
    await tx.execute("UPDATE storage_volumes SET description = ? WHERE id = ?", description, volume_id)
    await tables.replace_config(tx, "storage_volumes", "storage_volume", volume_id, config)


async def set_volume_phase(tx: Transaction, volume_id: int, phase: str) -> None:
    """What is being done to it; empty: whole."""
    await tx.execute("UPDATE storage_volumes SET phase = ? WHERE id = ?", phase, volume_id)


async def rename_volume(tx: Transaction, volume_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE storage_volumes SET name = ? WHERE id = ?", name, volume_id)


async def settle_volume(tx: Transaction, volume_id: int) -> None:
    """It and all its snapshots are whole."""
    await set_volume_phase(tx, volume_id, "")
    await tx.execute("UPDATE storage_volumes_snapshots SET phase = '' WHERE storage_volume_id = ?", volume_id)


async def delete_volume(tx: Transaction, volume_id: int) -> None:
    """Remove it with its snapshots."""
    await tx.execute("DELETE FROM storage_volumes WHERE id = ?", volume_id)


# --- snapshots ---------------------------------------------------------------------------------------------------------


async def volume_snapshots(tx: Transaction, volume_id: int) -> list[VolumeSnapshot]:
    """All snapshots of a volume, oldest first."""
    return await _snapshots(tx, "storage_volumes_snapshots.storage_volume_id = ?", volume_id)


async def volume_snapshot(tx: Transaction, volume_id: int, name: str) -> VolumeSnapshot:
    """One snapshot. NotFound if there is none."""
    where = "storage_volumes_snapshots.storage_volume_id = ? AND storage_volumes_snapshots.name = ?"
    found = await _snapshots(tx, where, volume_id, name)
    if not found:
        raise NotFound("Storage volume snapshot not found")
    return found[0]


async def snapshots_in(tx: Transaction, *, pool: str) -> dict[int, list[VolumeSnapshot]]:
    """All whole snapshots in a pool by their volumes' ids, oldest first."""
    of_pool = "SELECT v.id FROM storage_volumes v JOIN storage_pools p ON p.id = v.storage_pool_id WHERE p.name = ?"
    grouped: dict[int, list[VolumeSnapshot]] = defaultdict(list)
    for each in await _snapshots(tx, f"phase = '' AND storage_volume_id IN ({of_pool})", pool):
        grouped[each.volume_id].append(each)
    return grouped


async def pools_with_unfinished(tx: Transaction) -> list[str]:
    """Names of the pools in which there is anything that has a phase: volumes, instances, or snapshots of either."""
    found = await tx.query(
        """SELECT DISTINCT p.name FROM storage_pools p JOIN storage_volumes v ON v.storage_pool_id = p.id WHERE v.id IN (
        SELECT id FROM storage_volumes WHERE phase != ''
        UNION ALL SELECT storage_volume_id FROM storage_volumes_snapshots WHERE phase != ''
        UNION ALL SELECT r.id FROM instances i
            JOIN storage_volumes r ON r.type = 'container' AND r.name = i.name AND r.project_id = i.project_id
            WHERE i.phase != '' OR i.id IN (SELECT instance_id FROM instances_snapshots WHERE phase != ''))"""
    )
    return [name for (name,) in found]


async def unfinished_snapshots(tx: Transaction, *, type: str) -> list[tuple[StorageVolume, VolumeSnapshot]]:
    """Snapshots of volumes of that type to which something was being done, with their volumes."""
    volumes_of_type = "SELECT id FROM storage_volumes WHERE type = ?"
    found = await _snapshots(tx, f"phase != '' AND storage_volume_id IN ({volumes_of_type})", type)
    return [(await volume_by_id(tx, each.volume_id), each) for each in found]


async def _snapshots(tx: Transaction, where: str, *parameters: Any) -> list[VolumeSnapshot]:
    rows, config_rows = await tx.queries(
        (
            f"""SELECT id, storage_volume_id, name, description, created_at, expires_at, phase
            FROM storage_volumes_snapshots WHERE {where} ORDER BY created_at, id""",
            *parameters,
        ),
        tables.select_config("storage_volumes_snapshots", "storage_volume_snapshot", where, *parameters),
    )
    config = tables.config_of(config_rows)
    return [VolumeSnapshot(*(*row, config.get(row[0], {}))) for row in rows]


async def create_volume_snapshot(
    tx: Transaction, volume: StorageVolume, name: str, *, description: str, created_at: str, expires_at: str, phase: str
) -> int:
    """Insert; Conflict if the name is taken."""
    snapshot_id = await tx.insert(
        """INSERT INTO storage_volumes_snapshots (storage_volume_id, name, description, created_at, expires_at, phase)
        VALUES (?, ?, ?, ?, ?, ?)""",
        volume.id,
        name,
        description,
        created_at,
        expires_at,
        phase,
    )
    await tables.replace_config(tx, "storage_volumes_snapshots", "storage_volume_snapshot", snapshot_id, volume.config)
    return snapshot_id


async def update_volume_snapshot(tx: Transaction, snapshot_id: int, *, description: str, expires_at: str) -> None:
    """Replace what may be changed."""
    await tx.execute(
        "UPDATE storage_volumes_snapshots SET description = ?, expires_at = ? WHERE id = ?",
        description,
        expires_at,
        snapshot_id,
    )


async def set_volume_snapshot_phase(tx: Transaction, snapshot_id: int, phase: str) -> None:
    """What is being done to it; empty: whole."""
    await tx.execute("UPDATE storage_volumes_snapshots SET phase = ? WHERE id = ?", phase, snapshot_id)


async def rename_volume_snapshot(tx: Transaction, snapshot_id: int, name: str) -> None:
    """Change the name; Conflict if it is taken."""
    await tx.execute("UPDATE storage_volumes_snapshots SET name = ? WHERE id = ?", name, snapshot_id)


async def delete_volume_snapshot(tx: Transaction, snapshot_id: int) -> None:
    """Remove it."""
    await tx.execute("DELETE FROM storage_volumes_snapshots WHERE id = ?", snapshot_id)
