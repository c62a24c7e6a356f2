"""Driver `dir`: a volume is a directory, a copy is a copy. Works on any file system of the host.

An instance's root has plain ids and is not shifted here: the instance driver asks for an idmapped mount of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

from atoll.domain.idmap import IdMap
from atoll.drivers.storage import blocking, plain_mounts, source
from atoll.drivers.storage.contract import Capabilities, Fill, Mounted, Pause, Pool, Resources, VolumeId, VolumeKind
from atoll.drivers.storage.folders import Folders
from atoll.drivers.storage.plain import PlainVolumes, tree_of
from atoll.drivers.storage.rubbish import Rubbish
from atoll.drivers.storage.sizes import Sizes
from atoll.drivers.storage.streams import WithoutStreams
from atoll.host import disk


class DirDriver(WithoutStreams):
    """See `contract.StorageDriver`."""

    name = "dir"
    capabilities = Capabilities(idmapped=False)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sizes = Sizes(pool.root)
        self._folders = Folders(pool, self._sizes.remove)
        self._rubbish = Rubbish(self._sizes.remove)
        self._volumes = PlainVolumes(self._folders, self._rubbish, self._sizes)

    @classmethod
    async def check(cls, root: Path) -> str | None:
        parent = await blocking.call("look at the pool's folder", disk.existing_parent, root)
        return None if parent.is_dir() else f"{parent} is not a directory"

    async def create_pool(self) -> Mapping[str, str]:
        return await blocking.call("create the storage pool", source.create, self._pool)

    async def delete_pool(self) -> None:
        await self._rubbish.drain()
        await blocking.call("delete the storage pool", source.delete, self._pool)

    async def open(self) -> None:
        await blocking.call("open the storage pool", source.attach, self._pool)
        await blocking.call("open the storage pool", self._folders.make)
        await blocking.call("open the storage pool", self._sizes.load)
        self.capabilities = replace(type(self).capabilities, quotas=self._sizes.enforced)

    async def close(self) -> None:
        await self._rubbish.drain()
        await blocking.call("close the storage pool", source.detach_if_idle, self._pool)

    async def resources(self) -> Resources:
        return await blocking.call("measure the storage pool", source.resources, self._pool)

    async def create(self, volume: VolumeId, fill: Fill | None = None, *, size: int | None = None) -> None:
        await self._volumes.create(volume, fill, size=size)

    async def clone(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        await self._volumes.copy(source, target, live=_may_change(source), snapshots=snapshots)

    async def delete(self, *volumes: VolumeId) -> None:
        await self._volumes.delete(*volumes)

    async def rename(self, volume: VolumeId, target: VolumeId) -> None:
        await blocking.call("rename a volume", self._folders.rename, volume, target)

    async def snapshot(self, snapshot: VolumeId) -> None:
        await self._volumes.copy(snapshot.parent, snapshot, live=True)

    async def snapshot_paused(self, snapshot: VolumeId, pause: Pause) -> None:
        """See `contract.CopyingSnapshots`."""
        await self._volumes.copy(snapshot.parent, snapshot, live=True, pause=pause)

    async def restore(self, snapshot: VolumeId) -> None:
        await self._volumes.restore(snapshot)

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        return await blocking.call("mount a volume", plain_mounts.mount, self._folders, volume, idmap)

    async def unmount(self, volume: VolumeId) -> None:
        await blocking.call("unmount a volume", plain_mounts.unmount, self._folders, volume)

    def open_rootfs(self, volume: VolumeId) -> AbstractAsyncContextManager[Path]:
        return plain_mounts.open_rootfs(self._folders, volume)

    def data(self, volume: VolumeId) -> Path:
        return self._folders.data(volume)

    async def usage(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        return await blocking.call("measure volumes", self._usage, volumes) if self._sizes.enforced else {}

    def _usage(self, volumes: Sequence[VolumeId]) -> dict[VolumeId, int]:
        found = {volume: self._sizes.usage(self._tree(volume)) for volume in volumes}
        return {volume: used for volume, used in found.items() if used is not None}

    async def set_size(self, volume: VolumeId, size: int | None) -> None:
        await blocking.call("limit a volume", self._folders.require, volume)
        await blocking.call("limit a volume", self._sizes.set_size, [self._tree(volume)], size)

    def _tree(self, volume: VolumeId) -> Path:
        return tree_of(volume, self._folders.data(volume))

    async def audit(self, known: Collection[VolumeId]) -> Sequence[str]:
        return await blocking.call("audit the storage pool", self._audit, known)

    async def inventory(self) -> Sequence[VolumeId]:
        return await blocking.call("look through the storage pool", lambda: list(self._folders.scan()))

    def _audit(self, known: Collection[VolumeId]) -> list[str]:
        return [
            *self._folders.clear_aside(),
            *self._folders.settle_renames(known),
            *self._folders.compare(known),
        ]


def _may_change(volume: VolumeId) -> bool:
    """Whether a guest may write to it during a copy: the driver does not see whether a plain directory is in use."""
    return not volume.snapshot and volume.kind is not VolumeKind.IMAGE
