"""The btrfs driver. Ids on disk are plain: the instance driver asks for an idmapped mount of an instance's root."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from uuid import UUID

from atoll.domain.errors import Conflict, Unsupported
from atoll.domain.idmap import IdMap
from atoll.drivers.storage import blocking, folders, plain_mounts
from atoll.drivers.storage.btrfs import arriving, quotas, receiving, sending
from atoll.drivers.storage.btrfs import pool as place
from atoll.drivers.storage.btrfs.folders import SubvolumeFolders
from atoll.drivers.storage.contract import (
    Capabilities,
    Fill,
    Mounted,
    Pool,
    Resources,
    StorageDriver,
    Stream,
    VolumeId,
    VolumeKind,
)
from atoll.drivers.storage.plain import PlainVolumes
from atoll.drivers.storage.rubbish import Rubbish
from atoll.drivers.storage.subvolume_streams import Part, Receiver, Sink
from atoll.host import btrfs, btrfs_quota, process


class BtrfsDriver:
    """See `contract.StorageDriver`, `contract.AdjustablePool` and `contract.Refreshing`."""

    name = "btrfs"
    capabilities = Capabilities(quotas=True, optimized_backups=True, idmapped=False)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._folders = SubvolumeFolders(pool)
        self._rubbish = Rubbish(self._folders.remove)
        self._plain = PlainVolumes(self._folders, self._rubbish)
        self._mounted: set[VolumeId] = set()

    @classmethod
    async def check(cls, root: Path) -> str | None:
        return await blocking.call("look for btrfs", _reason_against)

    # --- the pool ------------------------------------------------------------------------------------------------------

    async def create_pool(self) -> Mapping[str, str]:
        return await place.create(self._pool)

    async def delete_pool(self) -> None:
        await self._rubbish.drain()
        await blocking.call("delete the storage pool", place.delete, self._pool)

    async def open(self) -> None:
        await place.attach(self._pool)
        await blocking.call("open the storage pool", self._folders.make)

    async def close(self) -> None:
        await self._rubbish.drain()
        await blocking.call("close the storage pool", place.detach_if_idle, self._pool)

    async def adjust(self, config: Mapping[str, str]) -> None:
        """See the contract."""
        await place.adjust(self._pool, config)
        self._pool = Pool(self._pool.name, self._pool.root, config)

    async def resources(self) -> Resources:
        return await blocking.call("measure the storage pool", place.resources, self._pool)

    # --- volumes -------------------------------------------------------------------------------------------------------

    async def create(self, volume: VolumeId, fill: Fill | None = None, *, size: int | None = None) -> None:
        await self._plain.create(volume, fill)
        if not size:
            return
        try:
            await self.set_size(volume, size)
        except BaseException:
            await self.delete(volume)
            raise

    async def clone(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        await blocking.call("copy a volume", self._clone, source, target, snapshots)

    def _clone(self, source: VolumeId, target: VolumeId, snapshots: Sequence[str]) -> None:
        self._folders.require_absent(target)
        self._copy_snapshots(source, target, snapshots)
        try:
            self._folders.copy(source, target)
        except BaseException:
            self._drop(target.at(name) for name in snapshots)
            raise

    def _copy_snapshots(self, source: VolumeId, target: VolumeId, names: Sequence[str]) -> None:
        """All of them or none."""
        made: list[VolumeId] = []
        try:
            for name in names:
                self._folders.copy(source.at(name), target.at(name))
                made.append(target.at(name))
        except BaseException:
            self._drop(made)
            raise

    def _drop(self, volumes: Iterable[VolumeId]) -> None:
        for volume in volumes:
            gone = self._folders.delete(volume)
            if gone is not None:
                self._folders.remove(gone)

    async def refresh(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        """See `contract.Refreshing`."""
        await blocking.call("copy snapshots", self._copy_snapshots, source, target, snapshots)
        await self._rubbish.remove([await blocking.call("refresh a volume", self._replace, target, source)])

    async def delete(self, *volumes: VolumeId) -> None:
        for volume in volumes:
            gone = await blocking.call("delete a volume", self._folders.delete, volume)
            self._mounted.discard(volume)
            await self._rubbish.remove([gone] if gone is not None else [])

    async def rename(self, volume: VolumeId, target: VolumeId) -> None:
        await blocking.call("rename a volume", self._folders.rename, volume, target)

    async def snapshot(self, snapshot: VolumeId) -> None:
        await blocking.call("make a snapshot", self._folders.copy, snapshot.parent, snapshot)

    async def restore(self, snapshot: VolumeId) -> None:
        await self._rubbish.remove([await blocking.call("restore a snapshot", self._replace, snapshot.parent, snapshot)])

    def _replace(self, volume: VolumeId, source: VolumeId) -> Path:
        """Put a copy of another in the volume's place, in one step; returns where the old volume is now."""
        data = self._folders.require(volume)
        if volume in self._mounted:
            raise Conflict(f"Storage volume {folders.label(volume)} is in use")
        with btrfs.opened(self._folders.require(source)) as origin:
            made = self._folders.copied(origin)
        try:
            self._folders.close(made, volume)
            quotas.copy_size(data, made)
            self._folders.exchange(made, volume)
        except BaseException:
            self._folders.remove(made)
            raise
        return made

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        mounted = await blocking.call("mount a volume", plain_mounts.mount, self._folders, volume, idmap)
        if volume.kind is VolumeKind.INSTANCE:
            self._mounted.add(volume)
        return mounted

    async def unmount(self, volume: VolumeId) -> None:
        await blocking.call("unmount a volume", plain_mounts.unmount, self._folders, volume)
        self._mounted.discard(volume)

    def open_rootfs(self, volume: VolumeId) -> AbstractAsyncContextManager[Path]:
        return plain_mounts.open_rootfs(self._folders, volume)

    def data(self, volume: VolumeId) -> Path:
        return self._folders.data(volume)

    # --- sizes ---------------------------------------------------------------------------------------------------------

    async def usage(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        return await blocking.call("measure volumes", self._usage, volumes)

    def _usage(self, volumes: Sequence[VolumeId]) -> dict[VolumeId, int]:
        if not quotas.is_counted(self._pool.root):
            return {}
        found = {volume: quotas.usage(self._folders.data(volume)) for volume in volumes}
        return {volume: used for volume, used in found.items() if used is not None}

    async def set_size(self, volume: VolumeId, size: int | None) -> None:
        data = await blocking.call("limit a volume", self._folders.require, volume)
        await blocking.call("limit a volume", quotas.set_size, data, size)

    # --- streams -------------------------------------------------------------------------------------------------------

    async def send(self, volume: VolumeId, target: Path, *, parent: VolumeId | None) -> Sequence[Stream]:
        return await sending.send(self._folders, volume, target, parent=parent)

    async def receive(self, volume: VolumeId, source: Path, *, parent: VolumeId | None, nested: Sequence[Stream] = ()) -> None:
        await receiving.receive(self._folders, volume, source, parent=parent, nested=nested)

    def at_rest(self, volume: VolumeId) -> AbstractAsyncContextManager[Sequence[Part]]:
        """See `subvolume_streams.SubvolumeStreams`, as for those below."""
        return sending.at_rest(self._folders, volume)

    async def stream(self, part: Part, base: Part | None, sink: Sink) -> None:
        await sending.stream(part, base, sink)

    async def origins(self, snapshots: Collection[VolumeId]) -> Mapping[UUID, Path] | None:
        return await blocking.call("receive a volume", arriving.origins, self._folders, snapshots)

    def receiver(self, volume: VolumeId, known: Mapping[UUID, Path]) -> Receiver:
        return arriving.Arrivals(self._folders, self._rubbish, volume, known)

    async def forget(self, snapshots: Collection[VolumeId]) -> None:
        await blocking.call("receive a volume", arriving.forget, self._folders, snapshots)

    async def take_over(self, source: StorageDriver, states: Sequence[VolumeId], target: VolumeId) -> bool:
        """See `contract.TakingOver`: by streams, one after the other, so that the longest of them has to fit in this pool."""
        if not isinstance(source, BtrfsDriver):
            return False
        places = [*(target.at(state.snapshot) for state in states[:-1]), target]
        scratch = await blocking.call("receive a volume", self._folders.temporary, "transfer")
        try:
            parents: list[tuple[VolumeId, VolumeId] | None] = [None, *zip(states, places, strict=True)]
            for state, place, parent in zip(states, places, parents, strict=False):
                sent = await source.send(state, scratch / "volume.bin", parent=parent[0] if parent else None)
                await self.receive(place, sent[0].file, parent=parent[1] if parent else None, nested=sent[1:])
                for stream in sent:
                    await blocking.call("receive a volume", stream.file.unlink)
        finally:
            await blocking.call("receive a volume", self._folders.remove, scratch)
        return True

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def audit(self, known: Collection[VolumeId]) -> Sequence[str]:
        return await blocking.call("audit the storage pool", self._audit, known)

    async def inventory(self) -> Sequence[VolumeId]:
        return await blocking.call("look through the storage pool", lambda: list(self._folders.scan()))

    def _audit(self, known: Collection[VolumeId]) -> list[str]:
        self._forget_groups()
        return [
            *self._folders.clear_aside(),
            *self._folders.settle_renames(known),
            *self._folders.freeze(known),
            *self._folders.compare(known),
        ]

    def _forget_groups(self) -> None:
        """Kernels before 6.11 keep the quota group of a subvolume that is gone."""
        with btrfs.opened(self._pool.root) as filesystem:
            for group in btrfs_quota.groups(filesystem):
                if group >= btrfs.ROOT_INODE and not btrfs.exists(filesystem, group):
                    btrfs_quota.remove_group(filesystem, group)


def _reason_against() -> str | None:
    """Why no pool can be made on this host."""
    known = Path("/proc/filesystems").read_text().split()
    module = Path("/lib/modules") / os.uname().release / "kernel/fs/btrfs"
    if "btrfs" not in known and not module.exists():
        return "the kernel has no btrfs"
    try:
        process.find("mkfs.btrfs")
    except Unsupported as error:
        return f"{error}; {error.hint}"
    return None
