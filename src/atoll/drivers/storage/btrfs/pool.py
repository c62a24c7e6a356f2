"""Where a btrfs pool is: config key `source`.

(none)              a file of `size` below the daemon's `disks`, attached as a loop device; `source` becomes its path
/dev/…              a block device without file system, which gets one; `source` becomes the file system's uuid
/another/path       a directory on btrfs: an empty subvolume, or a path where one is made
"""

from __future__ import annotations

import os
import shutil
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from enum import Enum, auto
from pathlib import Path

from atoll.config import units
from atoll.config.storage import pool_table
from atoll.domain.errors import BadRequest, Conflict, HostError
from atoll.domain.undo import Reverter
from atoll.drivers.storage import blocking, source
from atoll.drivers.storage.btrfs import subvolumes
from atoll.drivers.storage.contract import Pool, Resources
from atoll.drivers.storage.folders import FOLDERS
from atoll.host import btrfs, btrfs_disk, confined, disk, loop, mount

GIB = 1 << 30
_SMALLEST = 110 << 20
"""What mkfs.btrfs needs, rounded up."""


class Kind(Enum):
    """What the pool is on."""

    LOOP = auto()
    DEVICE = auto()
    FOLDER = auto()


def kind_of(pool: Pool) -> Kind:
    """By its `source`."""
    given = pool.config.get("source", "")
    if given in ("", str(pool.file)):
        return Kind.LOOP
    with suppress(ValueError):
        uuid.UUID(given)
        return Kind.DEVICE
    try:
        return Kind.DEVICE if stat.S_ISBLK(os.stat(given).st_mode) else Kind.FOLDER
    except OSError:  # not there, or not to be looked at: creating it there will tell
        return Kind.FOLDER


# --- create and delete -------------------------------------------------------------------------------------------------


async def create(pool: Pool) -> dict[str, str]:
    """Make the pool; returns the config that was decided. It is not mounted, and nothing is left after a failure."""
    if pool.root.is_dir() and any(pool.root.iterdir()):
        raise Conflict(f"The folder {pool.root} of the storage pool is not empty")
    given = pool.config.get("source", "")
    remembered = {"volatile.initial_source": given} if given else {}
    match kind_of(pool):
        case Kind.LOOP:
            return {**remembered, **await _create_file(pool)}
        case Kind.DEVICE:
            return {**remembered, **await _create_on_device(pool)}
        case Kind.FOLDER:
            decided = await blocking.call("create the storage pool", _create_in_folder, pool)
            return {**remembered, **decided}


async def _create_file(pool: Pool) -> dict[str, str]:
    size = pool_table("btrfs").number(pool.config, "size") or default_size(pool)
    file = pool.file
    if size < _SMALLEST:
        raise BadRequest(f"A btrfs pool needs at least {_SMALLEST >> 20}MiB")
    async with Reverter(f"create storage pool {pool.name}") as undo:
        await blocking.call("create the storage pool", _make_file, file, size)
        undo.add(file.unlink)
        await btrfs_disk.make(file, pool.name)
        undo.success()
    return {"source": str(file), "size": pool.config.get("size") or f"{size // GIB}GiB"}


def _make_file(file: Path, size: int) -> None:
    file.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        hint = "it may hold a pool that the database has lost; if not, remove it"
        raise Conflict(f"The file {file} exists already", hint=hint) from error
    try:
        os.ftruncate(descriptor, size)
    except BaseException:
        file.unlink()
        raise
    finally:
        os.close(descriptor)


def default_size(pool: Pool) -> int:
    """A fifth of what is free, in whole GiB, from 5 to 30."""
    free = shutil.disk_usage(disk.existing_parent(pool.disks)).free
    return min(max(free // 5 // GIB, 5), 30) * GIB


async def _create_on_device(pool: Pool) -> dict[str, str]:
    device = Path(pool.config["source"])
    if not device.is_absolute():
        raise BadRequest(f"The source {str(device)!r} of a new storage pool must be a path")
    await btrfs_disk.make(device, pool.name)
    found = await blocking.call("create the storage pool", btrfs_disk.uuid_on, device)
    return {"source": str(found), "size": ""}


def _create_in_folder(pool: Pool) -> dict[str, str]:
    place = source.path_of(pool)
    made = _take_place(place, ours=place == pool.root)
    try:
        return {**source.create(pool), "size": ""}
    except BaseException:
        if made:
            subvolumes.remove(place)
        raise


def _take_place(place: Path, *, ours: bool) -> bool:
    """Make sure that an empty subvolume is there; whether it was made. The pool's own folder is replaced by one."""
    if not place.is_absolute() or ".." in place.parts:
        raise BadRequest(f"The source {str(place)!r} of a storage pool must be an absolute path")
    if btrfs.is_subvolume(place):
        with btrfs.opened(place) as subvolume:
            if subvolumes.nested(subvolume) or os.listdir(subvolume):
                raise BadRequest(f"Requested Btrfs subvolume '{place}' exists but is not empty")
        return False
    if disk.filesystem(disk.existing_parent(place)) != "btrfs":
        hint = None if os.path.lexists(place) else "nothing is there: a device has to be, and a folder is made on btrfs alone"
        raise BadRequest(f"Provided path '{place}' does not reside on a btrfs file system", hint=hint)
    if ours and place.is_dir():
        place.rmdir()
    elif os.path.lexists(place):
        raise BadRequest(f"Provided path '{place}' is not a btrfs subvolume")
    elif not place.parent.is_dir():
        raise BadRequest(f"Source path '{place.parent}' does not exist or is not a directory")
    with btrfs.opened(place.parent) as folder:
        btrfs.create(folder, place.name)
    return True


def delete(pool: Pool) -> None:
    """Remove all that the pool holds and its file; a directory or device of the administrator's stays, empty. Blocks."""
    kind = kind_of(pool)
    if kind is not Kind.LOOP and pool.root.exists():
        for name in FOLDERS:
            subvolumes.remove(pool.root / name)
    if kind is Kind.FOLDER:
        source.delete(pool)
        return
    mount.unmount_below(pool.root, itself=False)
    mount.unmount(pool.root)
    confined.remove_tree(pool.root)
    if kind is Kind.LOOP:
        pool.file.unlink(missing_ok=True)


# --- open and close ----------------------------------------------------------------------------------------------------


async def attach(pool: Pool) -> None:
    """Mount the pool on its folder unless it is. HostError for a file system that is something else's."""
    kind = kind_of(pool)
    if kind is Kind.FOLDER:
        await blocking.call("open the storage pool", source.attach, pool)
    elif not await blocking.call("open the storage pool", _is_mounted, pool):
        await (_mount_file(pool) if kind is Kind.LOOP else _mount_device(pool))
        await blocking.call("open the storage pool", _require_own, pool)


async def _mount_file(pool: Pool) -> None:
    attached = loop.attached(pool.file)
    device = await blocking.call("open the storage pool", attached.__enter__)
    try:
        await btrfs_disk.mount(device, pool.root, options(pool.config))
    finally:
        await blocking.call("open the storage pool", attached.__exit__, None, None, None)


async def _mount_device(pool: Pool) -> None:
    given = pool.config["source"]
    device: Path | None = Path(given)
    if not given.startswith("/"):  # else the pool was not made here
        device = await blocking.call("open the storage pool", btrfs_disk.device_of, uuid.UUID(given))
    if device is None:
        raise HostError(f"No block device holds the file system {given} of storage pool {pool.name!r}")
    await btrfs_disk.mount(device, pool.root, options(pool.config))


def _require_own(pool: Pool) -> None:
    """A new pool is empty, every other has folders."""
    found = set(os.listdir(pool.root))
    if found and found.isdisjoint(FOLDERS):
        mount.unmount(pool.root)
        given = pool.config.get("source") or pool.file
        raise HostError(f"The file system on {given} is not that of a storage pool")


def _is_mounted(pool: Pool) -> bool:
    """Makes the folder, too, if it is missing."""
    pool.root.mkdir(parents=True, exist_ok=True)
    real = pool.root.resolve()
    return any(entry.target == real for entry in mount.mounts_below(pool.root))


def options(config: Mapping[str, str]) -> str:
    """What the pool is mounted with."""
    return pool_table("btrfs").text(config, "btrfs.mount_options")


def resources(pool: Pool) -> Resources:
    """Space of the file system. What it keeps for its own trees is free until it is used; inodes have no fixed number. Blocks."""
    found = os.statvfs(pool.root)
    return Resources(found.f_blocks * found.f_frsize, (found.f_blocks - found.f_bfree) * found.f_frsize, 0, 0)


def detach_if_idle(pool: Pool) -> None:
    """Undo `attach` unless something is mounted below or in use; then it stays, and `attach` finds it. Blocks."""
    if kind_of(pool) is Kind.FOLDER:
        source.detach_if_idle(pool)
    elif len(mount.mounts_below(pool.root)) == 1:
        with suppress(HostError):
            mount.unmount(pool.root)


# --- change ------------------------------------------------------------------------------------------------------------


async def adjust(pool: Pool, config: Mapping[str, str]) -> None:
    """Take an open pool on to new settings."""
    size, present = config.get("size", ""), pool.config.get("size", "")
    if size != present:
        if kind_of(pool) is not Kind.LOOP:
            raise BadRequest("Only a pool in a loop file has a size")
        if not size or units.parse_size(size) < units.parse_size(present):
            raise BadRequest("A storage pool can't shrink")
        await blocking.call("grow the storage pool", _grow, pool, units.parse_size(size))
    if options(config) != options(pool.config):
        await btrfs_disk.remount(pool.root, options(config))


def _grow(pool: Pool, size: int) -> None:
    """Each step can be repeated: a kill in between leaves a larger file, which the next change takes up."""
    file = pool.file
    if size > file.stat().st_size:
        os.truncate(file, size)
    loop.take_on_size(file)
    with btrfs.opened(pool.root) as filesystem:
        btrfs_disk.grow(filesystem)
