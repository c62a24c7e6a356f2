"""What a copy or a moved instance has of another's records, in a fixed number of statements whatever the number of snapshots."""

from __future__ import annotations

import json
from collections.abc import Sequence

from atoll.db import tables
from atoll.db.engine import Transaction
from atoll.domain.entities import Devices

_NAMED = "IN (SELECT value FROM json_each(?))"
_LASTING = "(c.key NOT GLOB 'volatile.*' OR c.key = 'volatile.base_image')"
_CONFIG = """INSERT INTO instances_snapshots_config (instance_snapshot_id, key, value)
    SELECT new.id, c.key, c.value FROM instances_snapshots_config c
    JOIN instances_snapshots old ON old.id = c.instance_snapshot_id
    JOIN instances_snapshots new ON new.instance_id = ? AND new.name = old.name"""
_DEVICES = """INSERT INTO instances_snapshots_devices (instance_snapshot_id, name)
    SELECT new.id, d.name FROM instances_snapshots_devices d
    JOIN instances_snapshots old ON old.id = d.instance_snapshot_id
    JOIN instances_snapshots new ON new.instance_id = ? AND new.name = old.name"""
_DEVICES_CONFIG = """INSERT INTO instances_snapshots_devices_config (instance_snapshot_device_id, key, value)
    SELECT copy.id, c.key, c.value FROM instances_snapshots_devices_config c
    JOIN instances_snapshots_devices d ON d.id = c.instance_snapshot_device_id
    JOIN instances_snapshots old ON old.id = d.instance_snapshot_id
    JOIN instances_snapshots new ON new.instance_id = ? AND new.name = old.name
    JOIN instances_snapshots_devices copy ON copy.instance_snapshot_id = new.id AND copy.name = d.name"""


async def copy_snapshots(tx: Transaction, source: int, target: int, names: Sequence[str], *, phase: str) -> None:
    """Records of snapshots of one instance as those of another: the same times and configuration, but for what is volatile,
    which tells of the source alone."""
    if not names:
        return
    listed = json.dumps(list(names))
    await tx.execute(
        f"""INSERT INTO instances_snapshots (instance_id, name, architecture, ephemeral, stateful, description, created_at,
        last_used_at, expires_at, profiles, phase)
        SELECT ?, name, architecture, ephemeral, 0, description, created_at, last_used_at, expires_at, profiles, ?
        FROM instances_snapshots WHERE instance_id = ? AND name {_NAMED} ORDER BY created_at, id""",
        target,
        phase,
        source,
        listed,
    )
    for statement in (f"{_CONFIG} AND {_LASTING}", _DEVICES, _DEVICES_CONFIG):
        await tx.execute(f"{statement} WHERE old.instance_id = ? AND old.name {_NAMED}", target, source, listed)


async def set_snapshot_devices(tx: Transaction, instance_id: int, snapshot: str, devices: Devices) -> None:
    """Replace the devices of one snapshot's record."""
    found = await tx.one("SELECT id FROM instances_snapshots WHERE instance_id = ? AND name = ?", instance_id, snapshot)
    if found is not None:
        await tables.replace_devices(tx, "instances_snapshots", "instance_snapshot", found[0], devices)


async def settle_snapshots(tx: Transaction, instance_id: int) -> None:
    """All snapshots of the instance are whole."""
    await tx.execute("UPDATE instances_snapshots SET phase = '' WHERE instance_id = ?", instance_id)


async def copy_volume_snapshots(tx: Transaction, source: int, target: int, names: Sequence[str], *, phase: str = "") -> None:
    """Records of the snapshots of one volume as those of another."""
    if not names:
        return
    listed = json.dumps(list(names))
    await tx.execute(
        f"""INSERT INTO storage_volumes_snapshots (storage_volume_id, name, description, created_at, expires_at, phase)
        SELECT ?, name, description, created_at, expires_at, ? FROM storage_volumes_snapshots
        WHERE storage_volume_id = ? AND name {_NAMED} ORDER BY created_at, id""",
        target,
        phase,
        source,
        listed,
    )
    await tx.execute(
        f"""INSERT INTO storage_volumes_snapshots_config (storage_volume_snapshot_id, key, value)
        SELECT new.id, c.key, c.value FROM storage_volumes_snapshots_config c
        JOIN storage_volumes_snapshots old ON old.id = c.storage_volume_snapshot_id
        JOIN storage_volumes_snapshots new ON new.storage_volume_id = ? AND new.name = old.name
        WHERE old.storage_volume_id = ? AND old.name {_NAMED}""",
        target,
        source,
        listed,
    )


async def place(tx: Transaction, instance_id: int, *, project: str, name: str) -> None:
    """The instance is of that project and has that name now; Conflict if it is taken."""
    await tx.execute(
        "UPDATE instances SET project_id = (SELECT id FROM projects WHERE name = ?), name = ? WHERE id = ?",
        project,
        name,
        instance_id,
    )


async def place_volume(tx: Transaction, volume_id: int, *, pool: str, project: str, name: str) -> None:
    """The same for a volume, with the pool that it is in now."""
    await tx.execute(
        """UPDATE storage_volumes SET storage_pool_id = (SELECT id FROM storage_pools WHERE name = ?),
        project_id = (SELECT id FROM projects WHERE name = ?), name = ? WHERE id = ?""",
        pool,
        project,
        name,
        volume_id,
    )
