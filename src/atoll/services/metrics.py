"""Figures of all running instances for monitoring: counted at most every few seconds, however many ask."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from atoll.config import units
from atoll.db import storage as storage_rows
from atoll.domain.errors import AtollError
from atoll.drivers.storage.contract import Resources, StorageDriver, VolumeId
from atoll.host import disk
from atoll.host.threads import in_thread
from atoll.services import metrics_text
from atoll.services.instances import disk_limits
from atoll.services.instances.core import InstanceCore, Loaded
from atoll.services.instances.expand import is_root_disk
from atoll.services.metrics_text import Filesystem, Measured

HOLDS_SECONDS = 8.0
"""How long figures are given out before they are counted anew; LXD's."""


@dataclass(frozen=True, slots=True)
class _Place:
    """A disk of an instance on a volume of a pool."""

    loaded: Loaded
    path: str
    pool: str
    volume: VolumeId
    size: str  # as configured; "" for none


@dataclass(frozen=True, slots=True)
class _PoolView:
    """What a pool says of itself and of the volumes asked about."""

    resources: Resources
    fstype: str
    quotas: bool
    usage: Mapping[VolumeId, int]


class MetricsService:
    """Counts and renders. One count serves all who ask within HOLDS_SECONDS; the text of each set of projects is kept as long."""

    def __init__(self, core: InstanceCore, clock: Callable[[], float] = time.monotonic) -> None:
        self._core = core
        self._clock = clock
        self._turn = asyncio.Lock()
        self._counted: Sequence[Measured] = ()
        self._texts: dict[frozenset[str] | None, bytes] = {}
        self._until = 0.0

    async def text(self, projects: frozenset[str] | None) -> bytes:
        """The figures of the running instances of those projects; None: of all."""
        async with self._turn:
            if self._clock() >= self._until:
                self._counted, self._texts = await self._count(), {}
                self._until = self._clock() + HOLDS_SECONDS
            if projects not in self._texts:
                shown = [each for each in self._counted if projects is None or each.project in projects]
                self._texts[projects] = (await in_thread(metrics_text.render, shown)).encode()
            return self._texts[projects]

    async def _count(self) -> list[Measured]:
        """One pass over the host, a fixed number of statements."""
        core = self._core
        running = [loaded for loaded in await core.load_all(None) if core.status(loaded.record).is_running]
        if not running:
            return []
        measures = await core.driver.measure([loaded.machine for loaded in running])
        filesystems = await self._filesystems(running)
        return [
            Measured(
                loaded.record.project,
                loaded.record.name,
                "container",
                measures[loaded.machine],
                filesystems.get(loaded.record.id, ()),
                core.facts.memory_total,
            )
            for loaded in running
            if loaded.machine in measures
        ]

    async def _filesystems(self, running: Sequence[Loaded]) -> dict[int, list[Filesystem]]:
        """By instance. Taken from the pools, each asked once: a look into guests could be held up by them."""
        async with self._core.database.read() as tx:
            custom = await storage_rows.volumes(tx, type="custom")
        sizes = {(each.pool, each.project, each.name): each.config.get("size", "") for each in custom}
        places = [place for loaded in running for place in _places(loaded, sizes)]
        views: dict[str, _PoolView] = {}
        for pool in sorted({place.pool for place in places}):
            try:
                views[pool] = await self._view(pool, [place.volume for place in places if place.pool == pool])
            except (AtollError, OSError):
                continue  # a pool that is away must not keep anything else from being counted
        found: dict[int, list[Filesystem]] = {}
        for place in places:
            if place.pool in views:
                found.setdefault(place.loaded.record.id, []).append(_filesystem(place, views[place.pool]))
        return found

    async def _view(self, pool: str, volumes: list[VolumeId]) -> _PoolView:
        driver: StorageDriver = self._core.storage.driver(pool)
        fstype = await in_thread(disk.filesystem, self._core.paths.pools / pool)
        usage = await driver.usage(volumes) if driver.capabilities.quotas else {}
        return _PoolView(await driver.resources(), fstype, driver.capabilities.quotas, usage)


def _places(loaded: Loaded, sizes: Mapping[tuple[str, str, str], str]) -> list[_Place]:
    """The disks of an instance that are volumes and mounted somewhere."""
    found = []
    for device in loaded.expanded.devices.values():
        volume, pool = disk_limits.volume_of_disk(loaded, device), device.get("pool", "")
        if volume is not None and device.get("path"):
            own = device.get("size", "") if is_root_disk(device) else sizes.get((pool, volume.project, volume.name), "")
            found.append(_Place(loaded, device["path"], pool, volume, own))
    return found


def _filesystem(place: _Place, view: _PoolView) -> Filesystem:
    """The whole pool, or what a quota leaves of it."""
    total = view.resources.space_total
    free = max(0, total - view.resources.space_used)
    if view.quotas and place.size:
        size = min(units.parse_size(place.size), total)
        free = min(free, max(0, size - view.usage.get(place.volume, 0)))
        total = size
    return Filesystem(place.path, view.fstype, total, free, free)
