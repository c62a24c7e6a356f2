"""Volumes that are plain directories, copied whole: all of driver `dir`, and the custom volumes of driver `overlay`.

A copy is made aside and put in place in one step. It shares blocks with its source where the file system can (btrfs, xfs).
What a guest writes to is a tree with a size, see `sizes`: the root of an instance, all of a custom volume.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from atoll.drivers.storage import blocking
from atoll.drivers.storage.contract import Fill, Pause, VolumeId, VolumeKind
from atoll.drivers.storage.folders import ROOTFS, Folders, close_to_guest
from atoll.drivers.storage.rubbish import Rubbish
from atoll.drivers.storage.sizes import Sizes
from atoll.host import disk, trees


class PlainVolumes:
    """Makes, copies and removes whole directories in a pool's folders."""

    def __init__(self, folders: Folders, rubbish: Rubbish, sizes: Sizes | None = None) -> None:
        self._folders = folders
        self._rubbish = rubbish
        self._sizes = sizes or Sizes(folders.root)

    async def create(self, volume: VolumeId, fill: Fill | None, *, size: int | None = None) -> None:
        """A new volume; an image is flushed to the disk, for all its clones rest on it."""
        with self._folders.making(volume):
            made = await blocking.call("create a volume", self._begin, volume, size)
            try:
                if fill is not None:
                    await fill(made)
                await blocking.call("create a volume", self._finish, made, volume)
            except BaseException:
                await self._rubbish.remove([made])
                raise

    def _begin(self, volume: VolumeId, size: int | None) -> Path:
        self._folders.require_absent(volume)
        made = self._folders.temporary()
        if volume.kind is VolumeKind.CUSTOM:
            os.chmod(made, 0o711)  # the mode that a guest sees on the volume's root
        else:
            (made / ROOTFS).mkdir(mode=0o755)
        if volume.kind is not VolumeKind.IMAGE:
            self._sizes.begin(tree_of(volume, made), size=size)
        return made

    def _finish(self, made: Path, volume: VolumeId) -> None:
        if volume.kind is VolumeKind.IMAGE:
            disk.flush_filesystem(made)
        self._folders.publish(made, volume)

    async def copy(
        self, source: VolumeId, target: VolumeId, *, live: bool, snapshots: Sequence[str] = (), pause: Pause | None = None
    ) -> None:
        """A new volume or snapshot like the source, which a guest may write to meanwhile if `live`, with these snapshots; of one
        moment if the guest can be paused."""
        await blocking.call("copy a volume", self._folders.require_absent, target)
        if snapshots:
            await self._copy_snapshots(source, target, snapshots)
        try:
            made = await self._copied(source, live=live, pause=pause, sized=not target.snapshot)
            try:
                await blocking.call("copy a volume", self._folders.publish, made, target)
            except BaseException:
                await self._rubbish.remove([made])
                raise
        except BaseException:
            gone = self._folders.withdraw_snapshots(target) if snapshots else None
            await self._rubbish.remove([gone] if gone is not None else [])
            raise

    async def _copy_snapshots(self, source: VolumeId, target: VolumeId, names: Sequence[str]) -> None:
        """Copies of a volume's snapshots as all those of another."""
        made = await blocking.call("copy a volume", self._folders.temporary)
        try:
            for name in names:
                await self._copy_to(source.at(name), made / name, live=False)
            await blocking.call("copy a volume", self._folders.publish_snapshots, made, target)
        except BaseException:
            await self._rubbish.remove([made])
            raise

    async def restore(self, snapshot: VolumeId) -> None:
        """Replace the volume by a copy of its snapshot, in one step."""
        await blocking.call("restore a snapshot", self._folders.require, snapshot.parent)
        made = await self._copied(snapshot, live=False, sized=True)
        try:
            await blocking.call("restore a snapshot", self._replace, made, snapshot.parent)
        finally:  # after the exchange it is the old content
            await self._rubbish.remove([made])

    def _replace(self, made: Path, volume: VolumeId) -> None:
        self._sizes.inherit(tree_of(volume, self._folders.data(volume)), tree_of(volume, made))
        self._folders.exchange(made, volume)

    async def _copied(self, source: VolumeId, *, live: bool, sized: bool, pause: Pause | None = None) -> Path:
        """A copy of the volume's folder, made aside; `sized` if it can have a size."""
        made = await blocking.call("copy a volume", self._folders.temporary)
        try:
            if sized:
                await blocking.call("copy a volume", self._begin_copy, tree_of(source, made))
            await self._copy_to(source, made, live=live, pause=pause)
        except BaseException:
            await self._rubbish.remove([made])
            raise
        return made

    def _begin_copy(self, tree: Path) -> None:
        tree.mkdir(mode=0o700, exist_ok=True)
        self._sizes.begin(tree)

    async def _copy_to(self, source: VolumeId, made: Path, *, live: bool, pause: Pause | None = None) -> None:
        data = await blocking.call("copy a volume", self._folders.require, source)
        await (trees.copy_live(data, made, pause) if live else trees.copy_still(data, made))
        if source.kind is not VolumeKind.CUSTOM:
            await blocking.call("copy a volume", close_to_guest, made)

    async def delete(self, *volumes: VolumeId) -> None:
        """Remove volumes and snapshots."""
        await self._rubbish.remove(await blocking.call("delete a volume", self._folders.withdraw_volumes, volumes))


def tree_of(volume: VolumeId, data: Path) -> Path:
    """What of a volume in that folder has a size. The daemon's own files beside an instance's root do not count."""
    return data if volume.kind is VolumeKind.CUSTOM else data / ROOTFS
