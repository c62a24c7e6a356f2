"""Backups of custom volumes in the database."""

from __future__ import annotations

from typing import Any

from atoll.db.backups import Table
from atoll.db.engine import Transaction
from atoll.domain.entities import VolumeBackup
from atoll.domain.errors import NotFound

TABLE = Table("storage_volumes_backups", owner="storage_volume_id", alone="volume_only")

_SELECT = """SELECT b.id, storage_pools.name, projects.name, v.name, b.name, b.created_at, b.expires_at, b.volume_only,
    b.optimized_storage, b.phase FROM storage_volumes_backups b JOIN storage_volumes v ON v.id = b.storage_volume_id
    JOIN storage_pools ON storage_pools.id = v.storage_pool_id JOIN projects ON projects.id = v.project_id"""


async def of(tx: Transaction, volume_id: int) -> list[VolumeBackup]:
    """All of a volume, oldest first."""
    return await _find(tx, "b.storage_volume_id = ?", volume_id)


async def find(tx: Transaction, volume_id: int, name: str) -> VolumeBackup:
    """One. NotFound if there is none."""
    found = await _find(tx, "b.storage_volume_id = ? AND b.name = ?", volume_id, name)
    if not found:
        raise NotFound("Storage volume backup not found")
    return found[0]


async def expired(tx: Transaction, now: str) -> list[VolumeBackup]:
    """Whole ones that were to be kept until `now` (RFC 3339) at most."""
    return await _find(tx, "b.expires_at != '' AND b.expires_at <= ? AND b.phase = ''", now)


async def unfinished(tx: Transaction) -> list[VolumeBackup]:
    """Those to which something was being done."""
    return await _find(tx, "b.phase != ''")


async def _find(tx: Transaction, where: str, *parameters: Any) -> list[VolumeBackup]:
    found = await tx.query(f"{_SELECT} WHERE {where} ORDER BY b.created_at, b.id", *parameters)
    return [VolumeBackup(*(*head, bool(alone), bool(optimized), phase)) for *head, alone, optimized, phase in found]
