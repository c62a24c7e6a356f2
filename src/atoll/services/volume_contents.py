"""The data of volumes, by what they hold: a folder of files that the pool's driver limits, or a folder with the one file that is
a disk. Drivers know of folders alone, so that a disk is copied, frozen, sent and removed by each of them as any volume is.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll import config as keys
from atoll.config.table import KeyTable
from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain.content_types import DISK_SIZE, ContentType, disk_size
from atoll.domain.entities import StorageVolume
from atoll.domain.errors import BadRequest
from atoll.drivers.storage import blocking
from atoll.drivers.storage.contract import StorageDriver, VolumeId, VolumeKind
from atoll.host import disk_image
from atoll.host.threads import in_thread
from atoll.services.storage import StorageService

Undo = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes that a volume takes (None: the pool does not know), and may take at most (None: as much as there is)."""

    used: int | None
    total: int | None


class VolumeContents:
    """What is done to a volume's data as its configuration says. The caller holds the volume."""

    def __init__(self, database: Database, storage: StorageService) -> None:
        self._database = database
        self._storage = storage

    async def create(self, volume: StorageVolume) -> None:
        """Make an empty volume."""
        driver, size = self._driver(volume), await self._size(volume)
        if not volume.content.is_disk:
            await driver.create(volume_id(volume), size=size)
            if size is not None and not driver.capabilities.quotas:
                await self._limit(volume, size)
            return

        async def fill(data: Path) -> None:
            await blocking.call("make a disk", disk_image.make, data, disk_size(size or DISK_SIZE))

        await driver.create(volume_id(volume), fill)

    async def settle(self, volume: StorageVolume, snapshots: Sequence[str] = ()) -> None:
        """Give a volume that was made of something, with these snapshots, the size that it is configured with. BadRequest for a
        disk that would be cut off, or one that is none: it may come from a stranger."""
        driver, size = self._driver(volume), await self._size(volume)
        if not volume.content.is_disk:
            await self._limit(volume, size)
            return
        for snapshot in snapshots:
            async with driver.open_rootfs(volume_id(volume).at(snapshot)) as data:
                await in_thread(disk_image.measure, data)
        async with driver.open_rootfs(volume_id(volume)) as data:
            await in_thread(disk_image.settle, data)
            if size is not None and not volume.content.is_fixed:
                await blocking.call("resize a disk", _grow, data, disk_size(size))

    async def resize(self, volume: StorageVolume, config: Mapping[str, str]) -> Undo | None:
        """Change the data to the size in a configuration that the volume is going to have. Returns the way back; None if there
        was nothing to do."""
        if config.get("size", "") == volume.config.get("size", ""):
            return None
        if volume.content.is_fixed:
            raise BadRequest("The size of an ISO volume is that of its file")
        size = (await self.table(volume)).number(config, "size") or None
        driver = self._driver(volume)
        if not volume.content.is_disk:
            await self._limit(volume, size)
            return functools.partial(self._limit, volume, await self._size(volume))
        if size is None:
            return None  # it stays as large as it is
        async with driver.open_rootfs(volume_id(volume)) as data:
            before = await blocking.call("resize a disk", _grow, data, disk_size(size))
            return functools.partial(in_thread, disk_image.resize, data, before)

    async def require_fits(self, volume: StorageVolume, origin: StorageVolume) -> None:
        """Before a volume becomes like another: BadRequest for a disk that is configured to be smaller than that one."""
        if not volume.content.is_disk or volume.content.is_fixed:
            return
        size, wanted = await self._size(volume), (await self.usage(origin)).total or 0
        if size is not None and disk_size(size) < wanted:
            raise BadRequest("Block volumes cannot be shrunk", hint=f"the source has {wanted} bytes")

    async def _limit(self, volume: StorageVolume, size: int | None) -> None:
        await self._storage.set_size(volume.pool, volume_id(volume), size)

    async def usage(self, volume: StorageVolume) -> Usage:
        """What it takes."""
        driver, own = self._driver(volume), volume_id(volume)
        if not volume.content.is_disk:
            return Usage((await driver.usage([own])).get(own), await self._size(volume))
        async with driver.open_rootfs(own) as data:
            found = await in_thread(disk_image.measure, data)
        return Usage(found.used, found.size)

    async def table(self, volume: StorageVolume) -> KeyTable:
        """The keys that such a volume can have in its pool."""
        async with self._database.read() as tx:
            pool = await rows.pool(tx, volume.pool)
        return keys.volume_table(pool.driver, volume.content_type)

    async def _size(self, volume: StorageVolume) -> int | None:
        """As configured, in bytes; None: not at all."""
        return (await self.table(volume)).number(volume.config, "size") or None

    def _driver(self, volume: StorageVolume) -> StorageDriver:
        return self._storage.driver(volume.pool)


def _grow(data: Path, size: int) -> int:
    """Returns the size before. BadRequest for a disk that is larger already. Blocks."""
    before = disk_image.measure(data).size
    if size < before:
        raise BadRequest("Block volumes cannot be shrunk", hint=f"this one has {before} bytes")
    if size > before:
        disk_image.resize(data, size)
    return before


def volume_id(volume: StorageVolume) -> VolumeId:
    """Its name for the pool's driver."""
    return VolumeId(VolumeKind(volume.type), volume.project, volume.name)


def refuse_disk(volume: StorageVolume) -> None:
    """BadRequest for a volume that containers cannot have: they use files."""
    if volume.content.is_disk:
        name = {ContentType.BLOCK: "block", ContentType.ISO: "ISO"}[volume.content]
        raise BadRequest(f"Custom {name} volumes cannot be used on containers")
