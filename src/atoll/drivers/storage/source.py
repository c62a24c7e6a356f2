"""Where a folder pool's files are: in the pool's own folder, or in another directory of the host that is bound onto it.

Config key `source`: an existing, empty directory, absolute, apart from the daemon's own. Without it, or when it names the pool's
own folder, the pool lives in its own folder. All functions block.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from atoll.domain.errors import BadRequest, Conflict, HostError
from atoll.drivers.storage.contract import Pool, Resources
from atoll.drivers.storage.folders import FOLDERS, Folders
from atoll.host import confined, disk, mount


def path_of(pool: Pool) -> Path:
    """The directory that holds the pool's files."""
    return Path(pool.config.get("source") or pool.root)


def validate(pool: Pool) -> None:
    """BadRequest if `source` cannot be the pool's."""
    source = path_of(pool)
    if source == pool.root:
        return
    if not source.is_absolute() or ".." in source.parts:
        raise BadRequest(f"The source {str(source)!r} of a storage pool must be an absolute path")
    if not source.is_dir():
        raise BadRequest(f"Source path '{source}' does not exist or is not a directory")
    real, state = source.resolve(), pool.root.parent.parent.resolve()
    if real == pool.root.resolve():
        return
    if real.is_relative_to(state) or state.is_relative_to(real):
        raise BadRequest(f"Source path '{source}' overlaps the daemon's own directories")
    if any(real.iterdir()):
        raise BadRequest(f"Source path '{source}' isn't empty")


def create(pool: Pool) -> dict[str, str]:
    """Make the pool's folders; returns the config that was decided. Nothing is left after a failure."""
    validate(pool)
    existed = pool.root.exists()
    if existed and any(pool.root.iterdir()):
        raise Conflict(f"The folder {pool.root} of the storage pool is not empty")
    try:
        _bind(pool)
        Folders(pool).make()
    except BaseException:
        delete(pool, keep_root=existed)
        raise
    return {"source": str(path_of(pool))}


def attach(pool: Pool) -> None:
    """Bind the source onto the pool's folder if it is elsewhere and not bound yet. HostError if the pool is not there: an empty
    place is where a file system should be mounted and is not."""
    source = path_of(pool)
    if source != pool.root and not any((source / name).is_dir() for name in FOLDERS):
        raise HostError(f"The source {str(source)!r} of storage pool {pool.name!r} does not hold it", hint="is it mounted?")
    _bind(pool)


def _bind(pool: Pool) -> None:
    source = path_of(pool)
    pool.root.mkdir(parents=True, exist_ok=True)
    if not os.path.samefile(source, pool.root):
        mount.bind(source, pool.root)


def detach_if_idle(pool: Pool) -> None:
    """Undo `attach` unless something is mounted below or in use; then it stays, and `attach` finds it."""
    if path_of(pool) != pool.root and len(mount.mounts_below(pool.root)) == 1:
        with suppress(HostError):
            mount.unmount(pool.root)


def delete(pool: Pool, *, extra: Sequence[str] = (), keep_root: bool = False) -> None:
    """Remove the pool's folders and the driver's `extra` ones with all in them; a `source` itself stays, empty."""
    if not pool.root.exists():
        return
    mount.unmount_below(pool.root, itself=False)
    for name in (*FOLDERS, *extra):
        confined.remove_tree(pool.root / name)
    if path_of(pool) != pool.root:
        mount.unmount(pool.root)
    if not keep_root:
        confined.remove_tree(pool.root)


def resources(pool: Pool) -> Resources:
    """Space and inodes of the file system that the pool is on."""
    space = disk.space(pool.root)
    return Resources(space.total, space.used, space.inodes_total, space.inodes_used)
