"""The layout of a pool on btrfs: that of other folder pools, with a subvolume for each volume and for what is made aside."""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection
from pathlib import Path

from atoll.domain.errors import Conflict
from atoll.drivers.storage import folders
from atoll.drivers.storage.btrfs import subvolumes
from atoll.drivers.storage.contract import VolumeId, VolumeKind
from atoll.drivers.storage.folders import Folders, label
from atoll.host import btrfs


class SubvolumeFolders(Folders):
    """One pool's folders. Volumes are writable subvolumes; snapshots and images read-only ones."""

    def temporary(self, prefix: str = "tmp") -> Path:
        """A new private subvolume, to be filled and published, or discarded."""
        path = self.aside / f"{prefix}-{secrets.token_hex(8)}"
        with btrfs.opened(self.aside) as folder:
            btrfs.create(folder, path.name)
        path.chmod(0o700)
        return path

    def publish(self, made: Path, volume: VolumeId) -> None:
        """As of other pools; a snapshot or an image is read-only from then on. (One that is read-only already could not
        be moved; the audit makes up for a kill between the two steps.)"""
        super().publish(made, volume)
        if _is_frozen(volume):
            _set_readonly(self.data(volume))

    def withdraw(self, path: Path) -> Path | None:
        """As of other pools. A read-only subvolume has to be writable for it."""
        if btrfs.is_subvolume(path):
            with btrfs.opened(path) as subvolume:
                btrfs.set_readonly(subvolume, readonly=False)
        return super().withdraw(path)

    def remove(self, path: Path) -> None:
        """Remove what was taken out of sight."""
        subvolumes.remove(path)

    def copy(self, source: VolumeId, target: VolumeId) -> None:
        """A new volume or snapshot like the source, which a guest may be using. One call of the kernel, in place, unless
        there are nested subvolumes: then it is made aside."""
        data = self.require(source)
        self.require_absent(target)
        place = self.data(target)
        if target.snapshot:
            place.parent.mkdir(mode=0o700, exist_ok=True)
        with btrfs.opened(data) as origin:
            if subvolumes.nested(origin):
                self._copy_aside(origin, target)
                return
            try:
                with btrfs.opened(place.parent) as folder:
                    subvolumes.copy(origin, folder, place.name, readonly=_is_frozen(target))
            except FileExistsError as error:
                raise Conflict(f"Storage volume {label(target)} already exists") from error
        if not _is_frozen(target):
            self.close(place, target)

    def _copy_aside(self, origin: int, target: VolumeId) -> None:
        made = self.copied(origin)
        try:
            self.close(made, target)
            self.publish(made, target)
        except BaseException:
            self.remove(made)
            raise

    def copied(self, origin: int, *, sealed: bool = False) -> Path:
        """A writable copy of a subvolume with those below it, made aside; read-only, all of it, if `sealed`."""
        made = self.aside / f"tmp-{secrets.token_hex(8)}"
        try:
            with btrfs.opened(self.aside) as folder:
                subvolumes.copy(origin, folder, made.name, readonly=sealed, sealed=sealed)
        except BaseException:
            self.remove(made)
            raise
        return made

    @staticmethod
    def close(place: Path, volume: VolumeId) -> None:
        """The copy of an instance that runs may have the owner that lets its guest in."""
        if volume.kind is VolumeKind.CUSTOM:
            return
        found = os.stat(place)
        if (found.st_uid, found.st_gid, found.st_mode & 0o777) != (0, 0, folders.CLOSED):
            folders.close_to_guest(place)

    def delete(self, volume: VolumeId) -> Path | None:
        """Remove a volume or snapshot at once, or, if subvolumes are nested in it, take it out of sight: it is returned, to be
        removed. Nothing wrong if it is not there."""
        data, gone = self.data(volume), None
        if btrfs.is_subvolume(data) and not _has_nested(data):
            with btrfs.opened(data.parent) as folder:
                btrfs.destroy(folder, data.name)
        else:
            gone = self.withdraw(data)
        folders.remove_empty(self.snapshots(volume.parent))
        return gone

    def freeze(self, known: Collection[VolumeId]) -> list[str]:
        """Part of an audit: what must be read-only and is not, because a kill came between. One sentence for each."""
        return [
            f"made {label(volume)} read-only again"
            for volume in known
            if _is_frozen(volume) and btrfs.is_subvolume(self.data(volume)) and _set_readonly(self.data(volume))
        ]


def _is_frozen(volume: VolumeId) -> bool:
    return bool(volume.snapshot) or volume.kind is VolumeKind.IMAGE


def _has_nested(path: Path) -> bool:
    with btrfs.opened(path) as subvolume:
        return bool(subvolumes.nested(subvolume))


def _set_readonly(path: Path) -> bool:
    """Whether there was something to change."""
    with btrfs.opened(path) as subvolume:
        if btrfs.is_readonly(subvolume):
            return False
        btrfs.set_readonly(subvolume, readonly=True)
        return True
