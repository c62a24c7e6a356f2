"""The overlay driver: stacks on disk (`volumes`), their mounts (`mounting`), custom volumes as plain directories."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

from atoll.domain.entities import DEFAULT_PROJECT
from atoll.domain.errors import Conflict, NotFound
from atoll.domain.idmap import IdMap
from atoll.drivers.storage import blocking, folders, source
from atoll.drivers.storage.contract import Capabilities, Fill, Mounted, Pause, Pool, Resources, VolumeId, VolumeKind
from atoll.drivers.storage.folders import ROOTFS, Folders
from atoll.drivers.storage.layer_streams import Layer, LayerArrival
from atoll.drivers.storage.overlay import arriving, layer_digests, layer_marks, mounting, probe
from atoll.drivers.storage.overlay.layers import DEEPEST, LayerStore, read_stack
from atoll.drivers.storage.overlay.usage import Usage
from atoll.drivers.storage.overlay.volumes import StackedVolumes
from atoll.drivers.storage.plain import PlainVolumes
from atoll.drivers.storage.rubbish import Rubbish
from atoll.drivers.storage.sizes import Sizes
from atoll.drivers.storage.streams import WithoutStreams
from atoll.host import confined, mount, threads, trees, userns


class OverlayDriver(WithoutStreams):
    """See `contract.StorageDriver`."""

    name = "overlay"
    capabilities = Capabilities(idmapped=True)

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._sizes = Sizes(pool.root)
        self._folders = Folders(pool, self._sizes.remove)
        self._layers = LayerStore(pool.root / "layers", self._sizes)
        self._stacks = StackedVolumes(self._folders, self._layers)
        self._rubbish = Rubbish(self._sizes.remove)
        self._plain = PlainVolumes(self._folders, self._rubbish, self._sizes)
        self._opened: dict[VolumeId, _Opened] = {}
        self._syncing: dict[VolumeId, asyncio.Future[None]] = {}
        self._usage = Usage(lambda volume: self._own_trees(volume)[:1])

    @classmethod
    async def check(cls, root: Path) -> str | None:
        return await probe.reason_against(root)

    async def create_pool(self) -> Mapping[str, str]:
        config = await blocking.call("create the storage pool", source.create, self._pool)
        await blocking.call("create the storage pool", self._stacks.load)
        return config

    async def delete_pool(self) -> None:
        await self._rubbish.drain()
        await blocking.call("delete the storage pool", source.delete, self._pool, extra=("layers",))

    async def open(self) -> None:
        await blocking.call("open the storage pool", source.attach, self._pool)
        await blocking.call("open the storage pool", self._folders.make)
        await blocking.call("open the storage pool", self._stacks.load)
        await blocking.call("open the storage pool", self._sizes.load)
        self.capabilities = replace(type(self).capabilities, quotas=self._sizes.enforced)

    async def close(self) -> None:
        await self._usage.stop()
        await self._rubbish.drain()
        await asyncio.gather(*self._syncing.values())
        await blocking.call("close the storage pool", source.detach_if_idle, self._pool)

    async def resources(self) -> Resources:
        return await blocking.call("measure the storage pool", source.resources, self._pool)

    async def create(self, volume: VolumeId, fill: Fill | None = None, *, size: int | None = None) -> None:
        if volume.kind is VolumeKind.CUSTOM:
            await self._plain.create(volume, fill, size=size)
            return
        with self._folders.making(volume):
            made = await blocking.call("create a volume", self._stacks.begin, volume, size)
            try:
                if fill is not None:
                    await fill(made)
                await blocking.call("create a volume", self._stacks.finish, made, volume)
            except BaseException:
                await self._rubbish.remove([made])
                raise

    async def clone(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        if source.kind is VolumeKind.CUSTOM:
            await self._plain.copy(source, target, live=not source.snapshot, snapshots=snapshots)
            return
        if snapshots:
            await blocking.call("copy a volume", self._stacks.clone_snapshots, source, target, snapshots)
        try:
            await self._clone(source, target)
        except BaseException:
            if snapshots:
                await self._rubbish.remove(await blocking.call("copy a volume", self._stacks.delete_snapshots, target, snapshots))
            raise

    async def _clone(self, source: VolumeId, target: VolumeId) -> None:
        if source.snapshot or source.kind is VolumeKind.IMAGE:
            await blocking.call("copy a volume", self._stacks.clone_frozen, source, target)
        elif self._in_use(source):
            await self._copy_live(source, target, None)
        else:
            await self._settled(source)
            await self._limit_depth(source)
            await blocking.call("copy a volume", self._stacks.clone_freezing, source, target)

    async def snapshot(self, snapshot: VolumeId) -> None:
        if snapshot.kind is VolumeKind.CUSTOM:
            await self._plain.copy(snapshot.parent, snapshot, live=True)
        elif self._in_use(snapshot.parent):
            await self._copy_live(snapshot.parent, snapshot, None)
        else:
            await self._settled(snapshot.parent)
            await self._limit_depth(snapshot.parent)
            await blocking.call("make a snapshot", self._stacks.snapshot_frozen, snapshot)

    async def snapshot_paused(self, snapshot: VolumeId, pause: Pause) -> None:
        """See `contract.CopyingSnapshots`."""
        if snapshot.kind is VolumeKind.INSTANCE and self._in_use(snapshot.parent):
            await self._copy_live(snapshot.parent, snapshot, pause)
        else:
            await self.snapshot(snapshot)

    async def _copy_live(self, source: VolumeId, target: VolumeId, pause: Pause | None) -> None:
        """Clone or snapshot an instance in use: its upper is copied, what is below is shared."""
        await blocking.call("copy a volume", self._folders.require_absent, target)
        stack = await blocking.call("copy a volume", self._stacks.stack, source)
        made = await blocking.call("copy a volume", self._folders.temporary)
        try:
            if not target.snapshot:
                await blocking.call("copy a volume", self._sizes.begin, made)
            await trees.copy_live(self._layers.tree(stack[0]), made, pause)
            await blocking.call("copy a volume", self._stacks.clone_with, source, target, made)
        except BaseException:
            await self._rubbish.remove([made])
            raise

    async def refresh(self, source: VolumeId, target: VolumeId, *, snapshots: Sequence[str] = ()) -> None:
        """See `contract.Refreshing`: the target gets a stack like the source's in the place of its own."""
        self._require_idle(target)
        await self._settled(target)
        for name in snapshots:
            await blocking.call("copy a snapshot", self._stacks.clone_snapshot, source.at(name), target.at(name))
        if self._in_use(source):
            gone = await self._refresh_live(source, target)
        elif source.snapshot:
            gone = await blocking.call("refresh a volume", self._stacks.replace_frozen, target, source)
        else:
            await self._settled(source)
            await self._limit_depth(source)
            gone = await blocking.call("refresh a volume", self._stacks.replace_freezing, target, source)
        self._usage.forget(target)
        await self._rubbish.remove(gone)

    async def _refresh_live(self, source: VolumeId, target: VolumeId) -> list[Path]:
        stack = await blocking.call("refresh a volume", self._stacks.stack, source)
        made = await blocking.call("refresh a volume", self._folders.temporary)
        try:
            await blocking.call("refresh a volume", self._sizes.begin, made)
            await trees.copy_live(self._layers.tree(stack[0]), made)
            return await blocking.call("refresh a volume", self._stacks.replace_with, target, source, made)
        except BaseException:
            await self._rubbish.remove([made])
            raise

    async def _limit_depth(self, instance: VolumeId) -> None:
        """Before an instance's stack grows: make it one layer again if it is as high as it may be."""
        stack = await blocking.call("read a volume's layers", self._stacks.stack, instance)
        if len(stack) < DEEPEST:
            return
        made = await blocking.call("flatten a volume", self._folders.temporary)
        try:
            async with self.open_rootfs(instance) as rootfs:
                await trees.copy_still(rootfs, made)
            gone = await blocking.call("flatten a volume", self._stacks.flatten, instance, made)
        except BaseException:
            await self._rubbish.remove([made])
            raise
        await self._rubbish.remove(gone)

    async def delete(self, *volumes: VolumeId) -> None:
        plain = [volume for volume in volumes if volume.kind is VolumeKind.CUSTOM]
        stacked = [volume for volume in volumes if volume.kind is not VolumeKind.CUSTOM]
        for volume in stacked:
            self._require_idle(volume)
            self._usage.forget(volume)
        if plain:
            await self._plain.delete(*plain)
        await self._rubbish.remove(await blocking.call("delete a volume", self._stacks.delete_all, stacked))

    async def rename(self, volume: VolumeId, target: VolumeId) -> None:
        self._require_idle(volume)
        await self._settled(volume)
        await blocking.call("rename a volume", self._folders.rename, volume, target)

    async def restore(self, snapshot: VolumeId) -> None:
        if snapshot.kind is VolumeKind.CUSTOM:
            await self._plain.restore(snapshot)
            return
        self._require_idle(snapshot.parent)
        await self._settled(snapshot.parent)
        await self._rubbish.remove(await blocking.call("restore a snapshot", self._stacks.restore, snapshot))

    async def mount(self, volume: VolumeId, idmap: IdMap | None) -> Mounted:
        if volume.kind is VolumeKind.CUSTOM:
            return Mounted(await blocking.call("mount a volume", self._folders.require, volume), shifted=False)
        if volume in self._opened:
            raise Conflict(f"The files of {folders.label(volume)} are being worked on", hint="try again in a moment")
        await self._settled(volume)
        if idmap is None:
            return await blocking.call("mount a volume", self._mount, volume, None, -1)
        async with userns.opened(idmap) as namespace:
            return await blocking.call("mount a volume", self._mount, volume, idmap, namespace)

    def _mount(self, volume: VolumeId, idmap: IdMap | None, namespace: int) -> Mounted:
        data = self._folders.require(volume)
        stack, rootfs = read_stack(data), data / ROOTFS
        if not mounting.is_mounted_for(rootfs, self._layers.tree(stack[0]), idmap):
            self._unmount(volume)
            if idmap is None:
                mounting.mount_plain(self._layers.root, rootfs, stack, writable=True, devices=True)
            else:
                stage = self._folders.temporary("stage")
                mounting.mount_shifted(self._layers.root, stage, rootfs, stack, idmap, namespace)
        folders.open_to_guest(data, idmap.root if idmap is not None else 0)
        return Mounted(rootfs, shifted=idmap is not None)

    async def unmount(self, volume: VolumeId) -> None:
        """Detached when it returns. The end of an overlay's life writes the whole file system below it to disk, hundreds of
        milliseconds on a busy host: that goes on behind, and whatever needs the layers at rest waits for it (`_settled`)."""
        if volume.kind is VolumeKind.CUSTOM:
            return
        root = await blocking.call("unmount a volume", self._detach, volume)
        if root is not None:
            done = self._syncing[volume] = threads.waiting_thread(os.close, root)
            done.add_done_callback(lambda _: self._syncing.pop(volume, None))

    async def _settled(self, volume: VolumeId) -> None:
        """Wait until no mount that was ended still writes to the volume's layers."""
        if syncing := self._syncing.get(volume):
            await asyncio.shield(syncing)

    def _detach(self, volume: VolumeId) -> int | None:
        """Take the mount away; the descriptor that is returned is the last that holds it."""
        data = self._folders.data(volume)
        rootfs = data / ROOTFS
        held = None
        if mount.is_overlay(rootfs):
            held = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                mount.unmount(rootfs, lazy=True)
            except BaseException:
                os.close(held)
                raise
        folders.close_to_guest(data)
        return held

    def _unmount(self, volume: VolumeId) -> None:
        if (held := self._detach(volume)) is not None:
            os.close(held)

    @asynccontextmanager
    async def open_rootfs(self, volume: VolumeId) -> AsyncIterator[Path]:
        if volume.kind is VolumeKind.CUSTOM:
            yield await blocking.call("open a volume", self._folders.require, volume)
            return
        await self._settled(volume)
        opened = self._opened.setdefault(volume, _Opened())
        opened.users += 1
        try:
            async with opened.lock:
                if opened.path is None:
                    await blocking.call("open a volume", self._open_rootfs, volume, opened)
                rootfs = opened.path
            assert rootfs is not None
            yield rootfs
        finally:
            opened.users -= 1
            async with opened.lock:
                await self._close_rootfs(volume, opened)

    async def _close_rootfs(self, volume: VolumeId, opened: _Opened) -> None:
        """The last user unmounts. One that comes meanwhile counts already, waits for the lock and then mounts anew."""
        path = opened.path
        if opened.users == 0:
            opened.path = None
            if path is not None and path != self.data(volume) / ROOTFS:
                await blocking.call("close a volume", mounting.end_private_mount, path)
        if opened.users == 0 and self._opened.get(volume) is opened:  # two that leave together both come here
            del self._opened[volume]

    def _open_rootfs(self, volume: VolumeId, opened: _Opened) -> None:
        """Sets `opened.path` itself: a caller that is cancelled meanwhile must still find what to unmount."""
        data = self._folders.require(volume)
        stack, rootfs = read_stack(data), data / ROOTFS
        if mount.is_overlay(rootfs):
            if mounting.is_mounted_for(rootfs, self._layers.tree(stack[0]), None):
                opened.path = rootfs
                return
            raise Conflict(f"The root of {folders.label(volume)} is mounted with shifted ids", hint="take a snapshot of it")
        target = self._folders.temporary("open")
        writable = not volume.snapshot and volume.kind is VolumeKind.INSTANCE
        try:
            mounting.mount_plain(self._layers.root, target, stack, writable=writable)
        except BaseException:
            target.rmdir()
            raise
        opened.path = target

    def data(self, volume: VolumeId) -> Path:
        return self._folders.data(volume)

    async def usage(self, volumes: Sequence[VolumeId]) -> Mapping[VolumeId, int]:
        counted = await blocking.call("measure volumes", self._counted, volumes) if self._sizes.enforced else {}
        walked = [each for each in volumes if each.kind is VolumeKind.INSTANCE and each not in counted]
        return {**await self._usage.of(walked), **counted}

    def _counted(self, volumes: Sequence[VolumeId]) -> dict[VolumeId, int]:
        """Of volumes with a size, or ready for one; the file system keeps count."""
        found: dict[VolumeId, int] = {}
        for volume in volumes:
            with suppress(NotFound):  # it may go meanwhile
                used = None if volume.snapshot else self._sizes.usage(self._own_trees(volume)[0])
                if used is not None:
                    found[volume] = used
        return found

    def _own_trees(self, volume: VolumeId) -> Sequence[Path]:
        """What only this volume writes to, the files first: of an instance the topmost layer. What it shares counts as the
        image's or snapshot's."""
        data = self._folders.require(volume)
        return [data] if volume.kind is VolumeKind.CUSTOM else self._layers.parts(read_stack(data)[0])

    async def set_size(self, volume: VolumeId, size: int | None) -> None:
        trees = await blocking.call("limit a volume", self._own_trees, volume)
        await blocking.call("limit a volume", self._sizes.set_size, trees, size)

    # --- to and from other servers -------------------------------------------------------------------------------------

    async def stacks(self, states: Sequence[VolumeId]) -> Mapping[VolumeId, Sequence[str]]:
        """See `layer_streams.LayerStreams`, as for those below."""
        for state in states:
            await self._settled(state)
        return {state: await blocking.call("send a volume", self._stacks.stack, state) for state in states}

    async def layer(self, name: str) -> Layer:
        tree = self._layers.tree(name)
        return Layer(name, tree, await blocking.call("send a volume", layer_marks.opaque, tree))

    @asynccontextmanager
    async def image(self, fingerprint: str) -> AsyncIterator[str | None]:
        try:
            image = VolumeId(VolumeKind.IMAGE, DEFAULT_PROJECT, fingerprint)
            stack = await blocking.call("find an image", self._stacks.hold_image, image)
        except NotFound:
            yield None
            return
        try:
            yield stack[-1] if len(stack) == 1 else None
        finally:
            await self._rubbish.remove(await blocking.call("find an image", self._stacks.release, stack))

    async def digest(self, name: str) -> str:
        return await layer_digests.digest(self._layers.root / name, self._layers.tree(name))

    def arriving(self, volume: VolumeId) -> AbstractAsyncContextManager[LayerArrival]:
        return arriving.arriving(self._folders, self._layers, self._stacks, self._rubbish)

    # --- after a kill --------------------------------------------------------------------------------------------------

    async def audit(self, known: Collection[VolumeId]) -> Sequence[str]:
        return await blocking.call("audit the storage pool", self._audit, known)

    async def inventory(self) -> Sequence[VolumeId]:
        return await blocking.call("look through the storage pool", lambda: list(self._folders.scan()))

    def _audit(self, known: Collection[VolumeId]) -> list[str]:
        repairs = [*self._folders.clear_aside(), *self._folders.settle_renames(known), *self._unmount_unknown(known)]
        found, gone = self._stacks.audit()
        for path in gone:
            confined.remove_tree(path)
        return [*repairs, *found, *self._folders.compare(known)]

    def _unmount_unknown(self, known: Collection[VolumeId]) -> list[str]:
        """The mounts of known volumes stay: their machines may be running."""
        root = self._pool.root.resolve()  # the kernel tells mounts by resolved paths
        expected = {root / self._folders.data(volume).relative_to(self._pool.root) / ROOTFS for volume in known}
        stale = [entry.target for entry in mount.mounts_below(self._pool.root / "containers") if entry.target not in expected]
        for target in reversed(stale):
            mount.unmount(target, lazy=True)
        return [f"unmounted {target}, which belongs to no known volume" for target in stale]

    def _in_use(self, volume: VolumeId) -> bool:
        return volume in self._opened or mount.is_overlay(self.data(volume) / ROOTFS)

    def _require_idle(self, volume: VolumeId) -> None:
        if volume.kind is not VolumeKind.CUSTOM and self._in_use(volume):
            raise Conflict(f"Storage volume {folders.label(volume)} is in use")


class _Opened:
    """A root that the host works on: where it is mounted, and by how many at once."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.users = 0
        self.lock = asyncio.Lock()
