"""What the storage API shows of instances' snapshots: beside each there is a snapshot of the instance's volume, with the volume's
description and configuration of that time, which a restore brings back.

All functions name it by the id of the instance's snapshot; nothing is wrong if it is not there.
"""

from __future__ import annotations

from atoll.db.engine import Transaction

_OWNERS = """instances_snapshots s JOIN instances i ON i.id = s.instance_id
    JOIN storage_volumes v ON v.name = i.name AND v.project_id = i.project_id AND v.type IN ('container', 'virtual-machine')"""
_TWIN = f"""(SELECT t.id FROM {_OWNERS}
    JOIN storage_volumes_snapshots t ON t.storage_volume_id = v.id AND t.name = s.name WHERE s.id = ?)"""
_ABSENT = "NOT EXISTS (SELECT 1 FROM storage_volumes_snapshots t WHERE t.storage_volume_id = v.id AND t.name = s.name)"
_VOLUME = f"(SELECT v.id FROM {_OWNERS} WHERE s.id = ?)"


async def add_snapshot(tx: Transaction, snapshot_id: int) -> None:
    """After the instance's snapshot."""
    await tx.execute(
        f"""INSERT INTO storage_volumes_snapshots (storage_volume_id, name, description, created_at)
        SELECT v.id, s.name, v.description, s.created_at FROM {_OWNERS} WHERE s.id = ?""",
        snapshot_id,
    )
    await tx.execute(
        f"""INSERT INTO storage_volumes_snapshots_config (storage_volume_snapshot_id, key, value)
        SELECT {_TWIN}, key, value FROM storage_volumes_config WHERE storage_volume_id = {_VOLUME}""",
        snapshot_id,
        snapshot_id,
    )


async def add_missing(tx: Transaction) -> list[int]:
    """Where an instance's snapshot has none beside it, one that says so, with the volume's present configuration. The ids of
    those snapshots."""
    found = [row[0] for row in await tx.query(f"SELECT s.id FROM {_OWNERS} WHERE {_ABSENT}")]
    for snapshot_id in found:
        await add_snapshot(tx, snapshot_id)
        await tx.execute(f"UPDATE storage_volumes_snapshots SET description = 'Auto repaired' WHERE id = {_TWIN}", snapshot_id)
    return found


async def has_all(tx: Transaction, instance_id: int) -> bool:
    """Whether there is one beside each of an instance's snapshots."""
    return await tx.one(f"SELECT 1 FROM {_OWNERS} WHERE s.instance_id = ? AND {_ABSENT} LIMIT 1", instance_id) is None


async def rename_snapshot(tx: Transaction, snapshot_id: int, name: str) -> None:
    """Before the instance's snapshot. Conflict if the name is taken."""
    await tx.execute(f"UPDATE storage_volumes_snapshots SET name = ? WHERE id = {_TWIN}", name, snapshot_id)


async def delete_snapshot(tx: Transaction, snapshot_id: int) -> None:
    """Before the instance's snapshot."""
    await tx.execute(f"DELETE FROM storage_volumes_snapshots WHERE id = {_TWIN}", snapshot_id)


async def restore(tx: Transaction, snapshot_id: int) -> None:
    """Give the instance's volume the description and configuration that it had."""
    if await tx.one(f"SELECT {_TWIN}", snapshot_id) == (None,):
        return
    await tx.execute(
        f"""UPDATE storage_volumes SET description = (SELECT description FROM storage_volumes_snapshots WHERE id = {_TWIN})
        WHERE id = {_VOLUME}""",
        snapshot_id,
        snapshot_id,
    )
    await tx.execute(f"DELETE FROM storage_volumes_config WHERE storage_volume_id = {_VOLUME}", snapshot_id)
    await tx.execute(
        f"""INSERT INTO storage_volumes_config (storage_volume_id, key, value)
        SELECT {_VOLUME}, key, value FROM storage_volumes_snapshots_config WHERE storage_volume_snapshot_id = {_TWIN}""",
        snapshot_id,
        snapshot_id,
    )
