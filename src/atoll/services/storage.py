"""Storage pools: create, change, delete, open on start, and the drivers of those that are open."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from atoll import config as keys
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import clock, names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT, StoragePool
from atoll.domain.errors import AtollError, BadRequest, Conflict, Unavailable
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers import storage as drivers
from atoll.drivers.storage.contract import AdjustablePool, Fill, Pool, Resources, StorageDriver, VolumeId, VolumeKind
from atoll.host.threads import in_thread
from atoll.services.events import EventHub
from atoll.services.locks import KeyedLocks
from atoll.services.warnings import WarningService

log = logging.getLogger(__name__)

PREFERRED = ("overlay", "btrfs", "dir")
"""Order in which drivers are offered."""

_FIXED_KEYS = ("source", "size")
_ADJUSTABLE_KEYS = ("size",)
"""What an open pool may change if its driver can."""


class StorageService:
    """Use cases of pools, and the way to their drivers for the services of instances, images and volumes."""

    def __init__(self, database: Database, hub: EventHub, paths: Paths, warnings: WarningService) -> None:
        self._database = database
        self._hub = hub
        self._paths = paths
        self._warnings = warnings
        self._open: dict[str, StorageDriver] = {}
        self._unpacked: set[tuple[str, str]] = set()
        self._locks = KeyedLocks()

    # --- drivers -------------------------------------------------------------------------------------------------------

    def driver(self, pool: str) -> StorageDriver:
        """The driver of an open pool. Unavailable if the pool could not be opened."""
        driver = self._open.get(pool)
        if driver is None:
            raise Unavailable(f"Storage pool {pool!r} is not available", hint="see the warnings")
        return driver

    async def supported(self) -> list[str]:
        """Names of the drivers that work on this host, the preferred one first."""
        known = drivers.REGISTRY.names()
        ordered = [name for name in PREFERRED if name in known] + [n for n in known if n not in PREFERRED and n != "sim"]
        return [name for name in ordered if await drivers.REGISTRY.find(name).check(self._paths.pools) is None]

    def active_drivers(self) -> list[str]:
        """Names of the drivers of the open pools."""
        return sorted({driver.name for driver in self._open.values()})

    async def start(self) -> None:
        """Open all pools and let them repair what a kill left; one that fails leaves the others working, with a warning."""
        async with self._database.read() as tx:
            pools = await rows.pools(tx)
            known = await _known_volumes(tx)
        for pool in pools:
            url = f"/1.0/storage-pools/{pool.name}"
            try:
                driver = self._make(pool)
                await driver.open()
                for repaired in await driver.audit(known.get(pool.name, set())):
                    log.info("Storage pool %s: %s", pool.name, repaired)
            except AtollError as error:
                log.error("Storage pool %s is not available: %s", pool.name, error)
                await self._warnings.raise_("Storage pool unavailable", "high", str(error), entity_url=url)
            else:
                self._open[pool.name] = driver
                await self._warnings.resolve("Storage pool unavailable", entity_url=url)

    async def stop(self) -> None:
        """Close the pools; those with mounted volumes stay as they are."""
        for driver in self._open.values():
            await driver.close()
        self._open.clear()

    def _make(self, pool: StoragePool) -> StorageDriver:
        return drivers.REGISTRY.create(pool.driver, Pool(pool.name, self._paths.pools / pool.name, pool.config))

    # --- pools ---------------------------------------------------------------------------------------------------------

    async def find_all(self) -> list[StoragePool]:
        """All pools."""
        async with self._database.read() as tx:
            return await rows.pools(tx)

    async def find(self, name: str) -> StoragePool:
        """One pool. NotFound if there is none."""
        async with self._database.read() as tx:
            return await rows.pool(tx, name)

    def status(self, name: str) -> str:
        """LXD's word for whether it can be used."""
        return "Created" if name in self._open else "Unavailable"

    async def create(self, name: str, driver_name: str, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Make the pool on the host and then its row."""
        names.storage_pool(name)
        if not driver_name:
            raise BadRequest("No driver provided")
        kind = drivers.REGISTRY.find(driver_name)
        keys.pool_table(driver_name).validate(config)
        reason = await kind.check(self._paths.pools)
        if reason is not None:
            raise BadRequest(f"Storage driver {driver_name!r} can't be used here: {reason}")
        async with self._locks.hold(name), Reverter(f"create storage pool {name}") as undo:
            async with self._database.read() as tx:
                if any(pool.name == name for pool in await rows.pools(tx)):
                    raise Conflict(f"Storage pool {name!r} already exists")
            draft = StoragePool(0, name, driver_name, description, dict(config))
            driver = self._make(draft)
            decided = await driver.create_pool()
            undo.add(driver.delete_pool)
            full = {key: value for key, value in {**config, **decided}.items() if value}
            opened = self._make(StoragePool(0, name, driver_name, description, full))
            await opened.open()
            undo.add(opened.close)
            async with self._database.write() as tx:
                await rows.create_pool(tx, name, driver_name, description, full)
            self._open[name] = opened
            undo.success()
        self._hub.lifecycle("storage-pool-created", f"/1.0/storage-pools/{name}", context={"driver": driver_name}, caller=caller)

    async def update(self, name: str, description: str, config: Mapping[str, str], *, caller: Caller) -> None:
        """Replace description and configuration; what the pool is made of cannot change."""
        async with self._locks.hold(name):
            async with self._database.read() as tx:
                pool = await rows.pool(tx, name)
            keys.pool_table(pool.driver).validate(config)
            driver = self._open.get(name)
            adjustable = isinstance(driver, AdjustablePool)
            for key in _FIXED_KEYS:
                if config.get(key, "") != pool.config.get(key, "") and not (adjustable and key in _ADJUSTABLE_KEYS):
                    raise BadRequest(f"Storage pool key {key!r} cannot be changed")
            if isinstance(driver, AdjustablePool):
                await driver.adjust(config)
            async with self._database.write() as tx:
                await rows.update_pool(tx, pool.id, description, config)
        self._hub.lifecycle("storage-pool-updated", f"/1.0/storage-pools/{name}", caller=caller)

    async def delete(self, name: str, *, caller: Caller) -> None:
        """Only an unused one; its image volumes go with it."""
        async with self._locks.hold(name):
            async with self._database.read() as tx:
                pool = await rows.pool(tx, name)
                if users := await self._users(tx, pool):
                    raise BadRequest(f"The storage pool is currently in use by {users[0]}")
            driver = self._open.get(name) or self._make(pool)
            await driver.delete_pool()
            self._open.pop(name, None)
            self._unpacked = {each for each in self._unpacked if each[0] != name}
            async with self._database.write() as tx:
                await rows.delete_pool(tx, pool.id)
        self._hub.lifecycle("storage-pool-deleted", f"/1.0/storage-pools/{name}", caller=caller)

    async def resources(self, name: str) -> Resources:
        """Space and inodes of a pool."""
        await self.find(name)
        return await self.driver(name).resources()

    async def used_by(self, pool: StoragePool) -> list[str]:
        """URLs of volumes, instances and profiles that use it."""
        async with self._database.read() as tx:
            return await self._users(tx, pool, images=True)

    async def _users(self, tx: Transaction, pool: StoragePool, *, images: bool = False) -> list[str]:
        found = [
            volume_url(pool.name, volume.type, volume.name, volume.project)
            for volume in await rows.volumes(tx, pool=pool.name)
            if images or volume.type != "image"
        ]
        return found + await _profiles_with_pool(tx, pool.name)

    # --- recovery ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def unknown(self, pool: StoragePool) -> AsyncIterator[StorageDriver]:
        """The driver of a pool that is on this host but not in the database, open while the block runs; a pool that is open
        already stays so. BadRequest for a name, driver or configuration that cannot be, or a source that is not there."""
        names.storage_pool(pool.name)
        if pool.driver not in drivers.REGISTRY.names():
            raise BadRequest("Unknown driver")
        keys.pool_table(pool.driver).validate(pool.config)
        source = Path(pool.config.get("source") or self._paths.pools / pool.name)
        if not source.is_absolute() or not await in_thread(_may_be_pool, source):
            raise BadRequest(f"Failed mounting pool {pool.name!r}: there is no storage pool at {source}")
        async with self._locks.hold(pool.name):
            if pool.name in self._open:
                yield self._open[pool.name]
                return
            driver = self._make(pool)
            await driver.open()
            try:
                yield driver
            finally:
                if self._open.get(pool.name) is not driver:
                    await driver.close()

    async def adopt(self, pool: StoragePool) -> None:
        """Make a pool that is on this host one of the database's, and open it."""
        async with self.unknown(pool) as driver:
            async with self._database.write() as tx:
                await rows.create_pool(tx, pool.name, pool.driver, pool.description, pool.config)
            self._open[pool.name] = driver

    # --- image volumes -------------------------------------------------------------------------------------------------

    async def ensure_image(self, pool: str, fingerprint: str, fill: Fill) -> VolumeId:
        """The pool's volume of an image, made once however many ask for it at the same time."""
        volume = VolumeId(VolumeKind.IMAGE, DEFAULT_PROJECT, fingerprint)
        driver = self.driver(pool)
        if (pool, fingerprint) in self._unpacked:
            return volume
        async with self._locks.hold((pool, fingerprint)):
            async with self._database.read() as tx:
                present = await rows.volumes(tx, pool=pool, type="image")
            if any(row.name == fingerprint for row in present):
                self._unpacked.add((pool, fingerprint))
                return volume
            async with Reverter(f"unpack image {fingerprint[:12]} in {pool}") as undo:
                # A volume without a row is one whose making was cut off before the row: it is made anew.
                await driver.delete(volume)
                await driver.create(volume, fill)
                undo.add(driver.delete, volume)
                async with self._database.write() as tx:
                    await rows.create_volume(
                        tx, pool, DEFAULT_PROJECT, "image", fingerprint, config={}, created_at=clock.rfc3339()
                    )
                undo.success()
            self._unpacked.add((pool, fingerprint))
        return volume

    async def pools_with_image(self, fingerprint: str) -> list[str]:
        """Where an image is unpacked."""
        async with self._database.read() as tx:
            return [row.pool for row in await rows.volumes(tx, type="image") if row.name == fingerprint]

    async def forget_image(self, fingerprint: str) -> None:
        """The image is gone: remove its volumes from all pools."""
        async with self._database.read() as tx:
            volumes = [v for v in await rows.volumes(tx, type="image") if v.name == fingerprint]
        for row in volumes:
            async with self._locks.hold((row.pool, fingerprint)):
                self._unpacked.discard((row.pool, fingerprint))
                await self.driver(row.pool).delete(VolumeId(VolumeKind.IMAGE, DEFAULT_PROJECT, fingerprint))
                async with self._database.write() as tx:
                    await rows.delete_volume(tx, row.id)

    def path(self, pool: str) -> Path:
        """The pool's folder in the state directory."""
        return self._paths.pools / pool


def volume_url(pool: str, kind: str, name: str, project: str) -> str:
    """URL of whatever a volume belongs to: an instance or image itself, else the custom volume."""
    suffix = "" if project == DEFAULT_PROJECT else f"?project={project}"
    if kind in ("container", "virtual-machine"):
        return f"/1.0/instances/{name}{suffix}"
    if kind == "image":
        return f"/1.0/images/{name}{suffix}"
    return f"/1.0/storage-pools/{pool}/volumes/{kind}/{name}{suffix}"


async def _profiles_with_pool(tx: Transaction, pool: str) -> list[str]:
    found = await tx.query(
        """SELECT DISTINCT profiles.name, projects.name FROM profiles_devices_config c
        JOIN profiles_devices d ON d.id = c.profile_device_id JOIN profiles ON profiles.id = d.profile_id
        JOIN projects ON projects.id = profiles.project_id WHERE c.key = 'pool' AND c.value = ? ORDER BY 2, 1""",
        pool,
    )
    return [f"/1.0/profiles/{name}" + ("" if project == DEFAULT_PROJECT else f"?project={project}") for name, project in found]


async def _known_volumes(tx: Transaction) -> dict[str, set[VolumeId]]:
    """By pool, all volumes and snapshots that the database knows."""
    known: dict[str, set[VolumeId]] = {}
    by_owner: dict[tuple[str, str], tuple[str, VolumeId]] = {}
    for row in await rows.volumes(tx):
        volume = VolumeId(VolumeKind(row.type), row.project, row.name)
        known.setdefault(row.pool, set()).add(volume)
        by_owner[(row.type, f"{row.project}/{row.name}")] = (row.pool, volume)
    snapshots = await tx.query(
        """SELECT 'container', projects.name || '/' || instances.name, s.name FROM instances_snapshots s
        JOIN instances ON instances.id = s.instance_id JOIN projects ON projects.id = instances.project_id
        UNION ALL SELECT 'custom', projects.name || '/' || v.name, s.name FROM storage_volumes_snapshots s
        JOIN storage_volumes v ON v.id = s.storage_volume_id JOIN projects ON projects.id = v.project_id"""
    )
    for kind, owner, name in snapshots:
        if (kind, owner) in by_owner:
            pool, volume = by_owner[(kind, owner)]
            known[pool].add(volume.at(name))
    return known


def _may_be_pool(source: Path) -> bool:
    """Whether a folder has what a pool has; of anything else, whether it is there. Blocks."""
    return any((source / kind.folder).is_dir() for kind in VolumeKind) if source.is_dir() else source.exists()
