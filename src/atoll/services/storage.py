"""Storage pools: create, change, delete, open on start, and the drivers of those that are open."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path

from atoll import config as keys
from atoll.db import storage as rows
from atoll.db.engine import Database, Transaction
from atoll.domain import names
from atoll.domain.caller import Caller
from atoll.domain.entities import DEFAULT_PROJECT, StoragePool
from atoll.domain.errors import AtollError, BadRequest, Conflict, NotFound, Unavailable, Unsupported
from atoll.domain.paths import Paths
from atoll.domain.undo import Reverter
from atoll.drivers import storage as drivers
from atoll.drivers.storage.contract import AdjustablePool, Pool, Resources, StorageDriver, VolumeId
from atoll.host.threads import in_thread
from atoll.services import pool_contents, pool_sources, settling
from atoll.services.events import EventHub
from atoll.services.locks import KeyedLocks
from atoll.services.settling import Half
from atoll.services.volume_urls import pool_path, volume_url
from atoll.services.warnings import WarningService

log = logging.getLogger(__name__)

PREFERRED = ("overlay", "btrfs", "dir")
"""Order in which drivers are offered."""

_FIXED_KEYS = ("source", "size")
_ADJUSTABLE_KEYS = ("size",)
"""What an open pool may change if its driver can."""

CREATING, DELETING = "creating", "deleting"
"""Phases of pools; what a kill leaves of either is removed by the next start."""

_UNAVAILABLE = "Storage pool unavailable"
"""LXD's type of the warning."""

_UNLIMITED = "Storage sizes not enforced"
"""Type of the warning; LXD writes it to its log."""

_PLACES = ("places",)
"""Key of the lock that is held while a new pool looks for a free place on the host and takes it."""

_settling: ContextVar[str] = ContextVar("_settling", default="")
"""The pool that this task repairs."""


class StorageService:
    """Use cases of pools, and the way to their drivers for the services of instances, images and volumes."""

    def __init__(self, database: Database, hub: EventHub, paths: Paths, warnings: WarningService) -> None:
        self._database = database
        self._hub = hub
        self._paths = paths
        self._warnings = warnings
        self._open: dict[str, StorageDriver] = {}
        self._unsettled: set[str] = set()
        self._limiting: dict[str, bool] = {}  # by pool, whether a size could be set the last time
        self._locks = KeyedLocks()

    # --- drivers -------------------------------------------------------------------------------------------------------

    def driver(self, pool: str) -> StorageDriver:
        """The driver of an open pool. Unavailable if the pool could not be opened, and while others repair or delete it."""
        if not self.is_available(pool):
            raise Unavailable(f'Storage pool "{pool}" unavailable on this server', hint="the warnings say why")
        return self._open[pool]

    def is_available(self, pool: str) -> bool:
        """Whether the task that asks can use the pool: it is open, and no other task repairs or deletes it."""
        return pool in self._open and (pool not in self._unsettled or _settling.get() == pool)

    async def set_size(self, pool: str, volume: VolumeId, size: int | None) -> None:
        """Limit a volume to `size` bytes; None takes the limit away. Where the pool cannot limit it stays unlimited, as with LXD;
        a warning says why the first time, and is resolved by the first limit that can be set."""
        url = pool_path(pool)
        try:
            await self.driver(pool).set_size(volume, size)
        except Unsupported as error:
            if self._limiting.get(pool) is not False:
                self._limiting[pool] = False
                await self._warnings.raise_(_UNLIMITED, "low", str(error), entity_url=url)
        else:
            if size is not None and not self._limiting.get(pool):
                self._limiting[pool] = True
                await self._warnings.resolve(_UNLIMITED, entity_url=url)

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
        for sentence in await self.settle():
            log.warning("Repaired: %s", sentence)
        async with self._database.read() as tx:
            pools = await rows.pools(tx)
            known = await pool_contents.known_volumes(tx)
        for pool in pools:
            if not pool.phase:
                await self._try(pool, known.get(pool.name, set()))

    async def settle(self) -> list[str]:
        """See `settling`: remove what is left of pools that were being made or deleted."""
        async with self._database.read() as tx:
            half = [pool.name for pool in await rows.pools(tx) if pool.phase]
        halves = [Half(f"storage pool {name}", [name], partial(self._remove_half, name)) for name in half]
        return await settling.each(self._locks, halves)

    async def _remove_half(self, name: str) -> list[str]:
        """Of a pool whose lock is held, if it is half there. One that has come into use since its deletion failed stays."""
        with self._closed(name):
            async with self._database.write() as tx:
                half = [pool for pool in await rows.pools(tx) if pool.name == name and pool.phase]
                if half and half[0].phase == DELETING and await _users(tx, name):
                    await rows.set_pool_phase(tx, half[0].id, "")
                    return [f"storage pool {name} stays: it was not deleted, and is in use"]
            for pool in half:
                await self._make(pool).delete_pool()
                self._open.pop(name, None)
                await self._forget(pool.id)
        return [f"removed storage pool {name}: its {pool.phase} was cut off" for pool in half]

    @contextmanager
    def _closed(self, name: str) -> Iterator[None]:
        """Nobody begins to use the pool while the block runs: whoever writes a volume's row asks for the driver in the same
        transaction."""
        self._unsettled.add(name)
        try:
            yield
        finally:
            self._unsettled.discard(name)

    async def _try(self, pool: StoragePool, known: Collection[VolumeId]) -> bool:
        """Open a pool and repair it, with a warning if that fails. Returns whether it is open."""
        url = pool_path(pool.name)
        try:
            driver = self._make(pool)
            await driver.open()
            for repaired in [*await driver.audit(known), *await pool_contents.remove_lost_images(driver, known)]:
                log.info("Storage pool %s: %s", pool.name, repaired)
        except (AtollError, OSError) as error:  # of a disk that is failing, too
            log.error("Storage pool %s is not available: %s", pool.name, error)
            await self._warnings.raise_(_UNAVAILABLE, "high", str(error), entity_url=url)
            return False
        self._open[pool.name] = driver
        await self._warnings.resolve(_UNAVAILABLE, entity_url=url)
        return True

    async def unavailable(self) -> list[str]:
        """Names of the pools that could not be opened, and that nobody is at work on."""
        known = [pool.name for pool in await self.find_all() if not pool.phase]
        return [name for name in known if name not in self._open and not self._locks.is_held(name)]

    async def with_unfinished(self) -> list[str]:
        """Names of the pools that are open and have anything in them that is being done, or was left half done."""
        async with self._database.read() as tx:
            return [name for name in await rows.pools_with_unfinished(tx) if self.is_available(name)]

    @asynccontextmanager
    async def reopening(self, name: str) -> AsyncIterator[bool]:
        """Try again to open a pool, and tell whether it is open now and was not before. While the block runs only the task that
        runs it can use the pool: this is the time to repair what is in it."""
        async with self._locks.hold(name):
            async with self._database.read() as tx:
                pool = next((each for each in await rows.pools(tx) if each.name == name), None)
                known = await pool_contents.known_volumes(tx)
            if pool is None or pool.phase or name in self._open:  # it goes, or is gone, or somebody was faster
                yield False
                return
            settling = _settling.set(name)
            try:
                with self._closed(name):
                    yield await self._try(pool, known.get(name, set()))
            finally:
                _settling.reset(settling)

    async def stop(self) -> None:
        """Close the pools; those with mounted volumes stay as they are."""
        for driver in self._open.values():
            await driver.close()
        self._open.clear()

    def _make(self, pool: StoragePool) -> StorageDriver:
        return drivers.REGISTRY.create(pool.driver, self._place(pool))

    def path(self, pool: str) -> Path:
        """The pool's folder in the state directory."""
        return self._paths.pools / pool

    def _place(self, pool: StoragePool) -> Pool:
        return Pool(pool.name, self.path(pool.name), pool.config)

    # --- pools ---------------------------------------------------------------------------------------------------------

    async def find_all(self) -> list[StoragePool]:
        """All pools but those that are still being made."""
        async with self._database.read() as tx:
            return [pool for pool in await rows.pools(tx) if pool.phase != CREATING]

    async def find(self, name: str) -> StoragePool:
        """One pool. NotFound if there is none."""
        async with self._database.read() as tx:
            found = await rows.pool(tx, name)
        if found.phase == CREATING:
            raise NotFound("Storage pool not found")
        return found

    def status(self, name: str) -> str:
        """LXD's word for whether a pool can be used."""
        return "Created" if self.is_available(name) else "Unavailable"

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
        async with self._locks.hold(name, _PLACES), Reverter(f"create storage pool {name}") as undo:
            await self._remove_half(name)
            present = await self.find_all()
            if any(pool.name == name for pool in present):
                raise Conflict(f"Storage pool {name!r} already exists")
            await in_thread(pool_sources.refuse_shared, config.get("source", ""), present)
            draft = StoragePool(0, name, driver_name, description, dict(config))
            await in_thread(pool_sources.refuse_remains, self._place(draft))
            driver = self._make(draft)
            async with self._database.write() as tx:
                pool_id = await rows.create_pool(tx, name, driver_name, description, config, phase=CREATING)
            undo.add(self._forget, pool_id)
            decided = await driver.create_pool()
            undo.success()
            undo.add(self._unmake, driver, pool_id)
            full = {key: value for key, value in {**config, **decided}.items() if value}
            opened = self._make(dataclasses.replace(draft, config=full))
            await opened.open()
            undo.add(opened.close)
            async with self._database.write() as tx:
                await rows.update_pool(tx, pool_id, description, full)
                await rows.set_pool_phase(tx, pool_id, "")
            self._open[name] = opened
            undo.success()
        self._tell("storage-pool-created", name, caller)

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
        self._tell("storage-pool-updated", name, caller)

    async def delete(self, name: str, *, caller: Caller) -> None:
        """Delete an unused pool, with its image volumes. BadRequest if something uses it."""
        async with self._locks.hold(name):
            with self._closed(name):
                pool = await self._begin_delete(name)
                driver = self._open.get(name) or self._make(pool)
                async with Reverter(f"delete storage pool {name}") as undo:
                    undo.add(self._set_phase, pool, "")
                    await driver.delete_pool()
                    undo.success()
                self._open.pop(name, None)
            await self._forget(pool.id)
            await self._warnings.resolve(_UNAVAILABLE, entity_url=pool_path(name))
        self._tell("storage-pool-deleted", name, caller)

    def _tell(self, action: str, name: str, caller: Caller) -> None:
        """Pools are of no project; their events are, as LXD has it, the default project's."""
        self._hub.lifecycle(action, pool_path(name), project=DEFAULT_PROJECT, caller=caller)

    async def _unmake(self, driver: StorageDriver, pool_id: int) -> None:
        """The row goes last: as long as there is anything of the pool, `settle` finds it."""
        await driver.delete_pool()
        await self._forget(pool_id)

    async def _begin_delete(self, name: str) -> StoragePool:
        async with self._database.write() as tx:
            pool = await rows.pool(tx, name)
            if users := await _users(tx, name):
                raise BadRequest(f"The storage pool is currently in use by {users[0]}")
            await rows.set_pool_phase(tx, pool.id, DELETING)
        return pool

    async def _set_phase(self, pool: StoragePool, phase: str) -> None:
        async with self._database.write() as tx:
            await rows.set_pool_phase(tx, pool.id, phase)

    async def _forget(self, pool_id: int) -> None:
        async with self._database.write() as tx:
            await rows.delete_pool(tx, pool_id)

    async def resources(self, name: str) -> Resources:
        """Space and inodes of a pool."""
        await self.find(name)
        return await self.driver(name).resources()

    async def used_by(self, pool: StoragePool) -> list[str]:
        """URLs of instances, images, volumes and profiles that use it, and of the snapshots of instances and volumes."""
        async with self._database.read() as tx:
            volumes = await rows.volumes(tx, pool=pool.name)
            snapshots = await rows.snapshots_in(tx, pool=pool.name)
            profiles = await pool_contents.profiles_with(tx, pool.name)
        found = [
            volume_url(pool.name, volume.type, volume.name, volume.project, snapshot=snapshot)
            for volume in volumes
            for snapshot in ("", *(each.name for each in snapshots.get(volume.id, ())))
        ]
        return sorted([*found, *profiles])

    # --- recovery ------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def unknown(self, pool: StoragePool) -> AsyncIterator[StorageDriver]:
        """The driver of a pool that is on this host but not in the database, open while the block runs; a pool that is open
        already stays so. BadRequest for a name, driver or configuration that cannot be, or a source that is not there."""
        names.storage_pool(pool.name)
        if pool.driver not in drivers.REGISTRY.names():
            raise BadRequest("Unknown driver")
        keys.pool_table(pool.driver).validate(pool.config)
        source = pool.config.get("source") or str(self._paths.pools / pool.name)
        if not await in_thread(pool_sources.may_be_pool, source):
            raise BadRequest(f"Failed mounting pool {pool.name!r}: there is no storage pool at {source}")
        async with self._locks.hold(pool.name):
            if pool.name in self._open:
                yield self._open[pool.name]
                return
            others = [each for each in await self.find_all() if each.name != pool.name]
            await in_thread(pool_sources.refuse_shared, source, others)
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


async def _users(tx: Transaction, name: str) -> list[str]:
    """URLs of what keeps a pool from being deleted."""
    volumes = [each for each in await rows.volumes(tx, pool=name) if each.type != "image"]
    found = [volume_url(name, each.type, each.name, each.project) for each in volumes]
    return found or await pool_contents.profiles_with(tx, name)
