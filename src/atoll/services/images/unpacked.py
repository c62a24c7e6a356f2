"""Images as volumes: each is unpacked once in a pool, and the instances made of it there are clones of that."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from atoll.db import storage as rows
from atoll.db.engine import Database
from atoll.domain import clock
from atoll.domain.entities import DEFAULT_PROJECT
from atoll.domain.undo import Reverter
from atoll.drivers.storage.contract import Fill, StorageDriver, VolumeId, VolumeKind
from atoll.services.locks import KeyedLocks
from atoll.services.storage import StorageService

IMAGE = "image"


class UnpackedImages:
    """The volumes of images in all pools. They belong to no project: they are in the default one for all."""

    def __init__(self, database: Database, storage: StorageService) -> None:
        self._database = database
        self._storage = storage
        # Fingerprints, by the drivers of open pools: what is known here needs no look into the database. A pool of the same
        # name that is opened or made anew has another driver.
        self._known: WeakKeyDictionary[StorageDriver, set[str]] = WeakKeyDictionary()
        self._locks = KeyedLocks()

    async def ensure(self, pool: str, fingerprint: str, fill: Fill) -> VolumeId:
        """The pool's volume of an image, made once however many ask for it at the same time."""
        volume = _volume(fingerprint)
        driver = self._storage.driver(pool)
        known = self._known.setdefault(driver, set())
        if fingerprint in known:
            return volume
        async with self._locks.hold((pool, fingerprint)):
            async with self._database.read() as tx:
                present = await rows.volumes(tx, pool=pool, type=IMAGE)
            if all(row.name != fingerprint for row in present):
                await self._make(driver, pool, fingerprint, fill)
            known.add(fingerprint)
        return volume

    async def _make(self, driver: StorageDriver, pool: str, fingerprint: str, fill: Fill) -> None:
        volume = _volume(fingerprint)
        async with Reverter(f"unpack image {fingerprint[:12]} in {pool}") as undo:
            # A volume without a row is one whose making was cut off before the row: it is made anew.
            await driver.delete(volume)
            await driver.create(volume, fill)
            undo.add(driver.delete, volume)
            async with self._database.write() as tx:
                await rows.create_volume(tx, pool, DEFAULT_PROJECT, IMAGE, fingerprint, config={}, created_at=clock.rfc3339())
            undo.success()

    async def pools_with(self, fingerprint: str) -> list[str]:
        """Where an image is unpacked."""
        async with self._database.read() as tx:
            return [row.pool for row in await rows.volumes(tx, type=IMAGE) if row.name == fingerprint]

    async def forget(self, fingerprint: str) -> None:
        """The image is gone: remove its volumes from all pools."""
        async with self._database.read() as tx:
            volumes = [row for row in await rows.volumes(tx, type=IMAGE) if row.name == fingerprint]
        for row in volumes:
            async with self._locks.hold((row.pool, fingerprint)):
                for known in self._known.values():
                    known.discard(fingerprint)
                if self._storage.is_available(row.pool):  # else it is found without a row and removed when the pool is back
                    await self._storage.driver(row.pool).delete(_volume(fingerprint))
                async with self._database.write() as tx:
                    await rows.delete_volume(tx, row.id)


def _volume(fingerprint: str) -> VolumeId:
    return VolumeId(VolumeKind.IMAGE, DEFAULT_PROJECT, fingerprint)
