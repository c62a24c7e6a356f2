"""Custom volumes and snapshots as a stranger describes them, and what of that becomes a record here."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from atoll import config as keys
from atoll.db import storage as rows
from atoll.db.engine import Transaction
from atoll.domain import clock
from atoll.domain.entities import StorageVolume
from atoll.domain.volume_backup_metadata import CustomEntry
from atoll.drivers.storage.contract import StorageDriver
from atoll.services.instances import restoring
from atoll.services.volumes import CREATING


def own_config(driver: StorageDriver, entry: CustomEntry, content_type: str) -> dict[str, str]:
    """What a client could have set, as far as the pool's driver knows it. BadRequest for values that cannot be."""
    table = keys.volume_table(driver.name, content_type)
    known = {key: value for key, value in entry.config.items() if table.find(key) is not None and not key.startswith("volatile.")}
    table.validate(known)
    return known


async def write_snapshots(tx: Transaction, driver: StorageDriver, volume: StorageVolume, entries: Sequence[CustomEntry]) -> None:
    """Records of a volume's snapshots that are going to be made, with phase "creating"."""
    for entry in entries:
        await rows.create_volume_snapshot(
            tx,
            dataclasses.replace(volume, config=own_config(driver, entry, volume.content_type)),
            entry.name,
            description=entry.description,
            created_at=restoring.settled_time(entry.created_at) or clock.rfc3339(),
            expires_at=restoring.settled_time(entry.expires_at),
            phase=CREATING,
        )
