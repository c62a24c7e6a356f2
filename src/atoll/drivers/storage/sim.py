"""Driver `sim`: volumes that exist in memory only, for tests of what is above at any number of instances.

No I/O at all, but for the folder of a volume's small files (metadata.yaml, templates), which `mount`, `open_rootfs` and a
`fill` make when they need it.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.errors import Conflict, NotFound
from atoll.domain.idmap import IdMap
from atoll.drivers.storage.contract import Capabilities, Fill, Mounted, Pause, Pool, Resources, VolumeId, VolumeKind
from atoll.drivers.storage.streams import WithoutStreams
from atoll.host import threads

GIB = 1 << 30


class SimStorage(WithoutStreams):
    """See `contract.StorageDriver`. `sizes` is open to tests."""

    name = "sim"
    capabilities = Capabilities(quotas=True, idmapped=True)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self.sizes: dict[VolumeId, int | None] = {}
        self._mounted: dict[VolumeId, IdMap | None] = {}

    @classmethod
    async def check(cls, root: Path) -> str | None:
        return None

    async def create_pool(self) -> Mapping[str, str]:
        return {"source": str(self._pool.root)}

    async def delete_pool(self) -> None:
        self.sizes.clear()
        await threads.in_thread(shutil.rmtree, self._pool.root, ignore_errors=True)

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def resources(self) -> Resources:
        return Resources(space_total=100 * GIB, space_used=GIB, inodes_total=0, inodes_used=0)

    async def create(self, volume: VolumeId, fill: Fill | None = None, *, size: int | None = None) -> None:
        self._require_absent(volume)
        if fill is not None:
            try:
                await fill(await self._folder(volume))
            except BaseException:
                await self._remove_folder(volume)
                raise
        self.sizes[volume] = size

    async def clone(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        self._require_absent(target)
        for each in (source, *(source.at(name) for name in snapshots)):
            self._require(each)
        for name in snapshots:
            self.sizes[target.at(name)] = self.sizes[source.at(name)]
        self.sizes[target] = self.sizes[source]

    async def delete(self, *volumes: VolumeId) -> None:
        for volume in volumes:
            self._require_idle(volume)
            self.sizes.pop(volume, None)
            if volume.kind is VolumeKind.CUSTOM:  # what is on disk without a row is not overwritten
                await self._remove_folder(volume)

    async def rename(self, volume: VolumeId, target: VolumeId) -> None:
        self._require(volume)
        self._require_idle(volume)
        self._require_absent(target)
        self.sizes[target] = self.sizes.pop(volume)
        if not volume.snapshot:
            for snapshot in [known for known in self.sizes if known.snapshot and known.parent == volume]:
                self.sizes[target.at(snapshot.snapshot)] = self.sizes.pop(snapshot)

    async def snapshot(self, snapshot: VolumeId) -> None:
        await self.clone(snapshot.parent, snapshot)

    async def snapshot_paused(self, snapshot: VolumeId, pause: Pause) -> None:
        """See `contract.CopyingSnapshots`."""
        async with pause():
            await self.snapshot(snapshot)

    async def restore(self, snapshot: VolumeId) -> None:
        self._require(snapshot)
        self._require_idle(snapshot.parent)

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        self._require(volume)
        self._mounted[volume] = idmap
        return Mounted(self.data(volume) / "rootfs", shifted=idmap is not None)

    async def unmount(self, volume: VolumeId) -> None:
        self._mounted.pop(volume, None)

    @asynccontextmanager
    async def open_rootfs(self, volume: VolumeId) -> AsyncIterator[Path]:
        self._require(volume)
        folder = await self._folder(volume)
        yield folder if volume.kind is VolumeKind.CUSTOM else folder / "rootfs"

    def data(self, volume: VolumeId) -> Path:
        if volume.snapshot:
            return self._pool.root / f"{volume.kind.folder}-snapshots" / volume.key / volume.snapshot
        return self._pool.root / volume.kind.folder / volume.key

    async def usage(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        return {volume: 0 for volume in volumes if volume in self.sizes}

    async def set_size(self, volume: VolumeId, size: int | None) -> None:
        self._require(volume)
        self.sizes[volume] = size

    async def audit(self, known: Collection[VolumeId]) -> Sequence[str]:
        """Memory is lost with the process: the volumes that the database knows are taken to be there."""
        for volume in known:
            self.sizes.setdefault(volume, None)
        return []

    async def inventory(self) -> Sequence[VolumeId]:
        return list(self.sizes)

    async def _folder(self, volume: VolumeId) -> Path:
        data = self.data(volume)
        below = data if volume.kind is VolumeKind.CUSTOM else data / "rootfs"
        await threads.in_thread(below.mkdir, parents=True, exist_ok=True)
        return data

    async def _remove_folder(self, volume: VolumeId) -> None:
        await threads.in_thread(shutil.rmtree, self.data(volume), ignore_errors=True)

    def _require(self, volume: VolumeId) -> None:
        if volume not in self.sizes:
            raise NotFound(f"Storage volume {volume.name!r} does not exist")

    def _require_absent(self, volume: VolumeId) -> None:
        if volume in self.sizes:
            raise Conflict(f"Storage volume {volume.name!r} already exists")

    def _require_idle(self, volume: VolumeId) -> None:
        if volume in self._mounted:
            raise Conflict(f"Storage volume {volume.name!r} is in use")
