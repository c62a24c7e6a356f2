"""Changing what is said of a volume: its description and configuration, and with these the size of its data.

The data changes first. After a kill in between, a limit is the new one until it is set again, and a disk is larger than it has to
be.
"""

from __future__ import annotations

from collections.abc import Mapping

from atoll.config.table import KeyTable
from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain.caller import Caller
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest
from atoll.domain.undo import Reverter
from atoll.services.volume_users import VolumeUsers
from atoll.services.volumes import CUSTOM, VolumeService

_OWNERSHIP = ("security.shifted", "security.unmapped")
"""How the ids of files are shown to instances."""


class VolumeSettings:
    """The use case of changing settings."""

    def __init__(self, database: Database, volumes: VolumeService, users: VolumeUsers) -> None:
        self._database = database
        self._volumes = volumes
        self._users = users

    async def update(self, volume: StorageVolume, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Replace description and configuration. A size changes at once, also of a volume in use; how ids are shown does not."""
        async with self._volumes.hold(volume) as (volume,):
            table = await self._volumes.contents.table(volume)
            table.validate(config)
            if volume.type == CUSTOM:
                await self._check_users(table, volume, config)
            else:
                _check_foreign(volume, config)
            async with Reverter(f"update volume {volume.name}") as undo:
                if (back := await self._volumes.contents.resize(volume, config)) is not None:
                    undo.add(back)
                async with self._database.write() as tx:
                    await rows.update_volume(tx, volume.id, description, config)
                undo.success()
        self._volumes.tell("storage-volume-updated", volume, caller=caller)

    async def _check_users(self, table: KeyTable, volume: StorageVolume, config: Mapping[str, str]) -> None:
        """BadRequest if running instances would see other ids."""
        known = [key for key in _OWNERSHIP if table.find(key) is not None]
        differs = any(table.flag(config, key) != table.flag(volume.config, key) for key in known)
        if differs and await self._users.is_running(volume):
            raise BadRequest("Cannot modify shifting with running instances using the volume")


def _check_foreign(volume: StorageVolume, config: Mapping[str, str]) -> None:
    """BadRequest for what an instance or image says of its volume itself."""
    if config.get("size", "") != volume.config.get("size", ""):
        hint = "an instance's volume has the size of its root disk"
        raise BadRequest('Volume "size" property is not valid for volume type', hint=hint)
    for key in _OWNERSHIP:
        if config.get(key) and key not in volume.config:
            raise BadRequest(f'Invalid option "{key}"', hint="it is for custom volumes")
