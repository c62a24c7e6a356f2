"""Loads from the database all that a backup says of an instance."""

from __future__ import annotations

from collections.abc import Collection

from atoll.db import instances as instance_rows
from atoll.db import storage as storage_rows
from atoll.services.instances.backup_index import Subject
from atoll.services.instances.core import InstanceCore, Loaded


async def load(core: InstanceCore, loaded: Loaded, *, snapshots: Collection[str] | None = None) -> Subject:
    """The subject, with its whole snapshots, or those of them that are named. NotFound if it is gone."""
    record = loaded.record
    async with core.database.read() as tx:
        volume = await storage_rows.volume(tx, loaded.pool, record.project, record.type, record.name)
        present = [each for each in await instance_rows.snapshots_of(tx, record.id) if not each.phase]
        return Subject(
            loaded=loaded,
            status=core.status(record),
            snapshots=[each for each in present if snapshots is None or each.name in snapshots],
            pool=await storage_rows.pool(tx, loaded.pool),
            volume=volume,
            profiles=await core.profiles_in(tx, record.project),
            volume_snapshots={each.name: each for each in await storage_rows.volume_snapshots(tx, volume.id)},
        )
