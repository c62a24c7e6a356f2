"""Using volumes that are plain trees of plain ids: nothing is mounted here, the instance driver asks for an idmapped mount.

What there is to do is to let the guest's root group, and nobody else, pass through the volume's folder while it is in use.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from atoll.domain.idmap import IdMap
from atoll.drivers.storage import blocking, folders
from atoll.drivers.storage.contract import Mounted, VolumeId, VolumeKind
from atoll.drivers.storage.folders import ROOTFS, Folders


def mount(pool: Folders, volume: VolumeId, idmap: IdMap | None) -> Mounted:
    """See the contract. Blocks."""
    data = pool.require(volume)
    if volume.kind is VolumeKind.CUSTOM:
        return Mounted(data, shifted=False)
    folders.open_to_guest(data, idmap.root if idmap is not None else 0)
    return Mounted(data / ROOTFS, shifted=False)


def unmount(pool: Folders, volume: VolumeId) -> None:
    """See the contract. Blocks."""
    if volume.kind is not VolumeKind.CUSTOM and not volume.snapshot:
        folders.close_to_guest(pool.data(volume))


@asynccontextmanager
async def open_rootfs(pool: Folders, volume: VolumeId) -> AsyncIterator[Path]:
    """See the contract."""
    data = await blocking.call("open a volume", pool.require, volume)
    yield data if volume.kind is VolumeKind.CUSTOM else data / ROOTFS
