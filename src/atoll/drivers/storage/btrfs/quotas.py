"""Sizes of volumes. All functions block and raise OSError.

A size limits all that a volume refers to, what it shares with its image and snapshots included. The file system counts from
the first size on that is set in the pool: from then on each commit looks up who else has what was changed, so that a snapshot
of a volume that shares its data with a hundred others takes hundreds of milliseconds instead of ten. A subvolume that a guest
makes in its volume is not counted.

The kernel's simple quotas (6.7) would cost nothing, but they count what a volume wrote, not what it holds: each restore and each
copy would begin at zero, and the file system could not be mounted by older kernels any more.
"""

from __future__ import annotations

from pathlib import Path

from atoll.host import btrfs, btrfs_quota


def set_size(data: Path, size: int | None) -> None:
    """Limit a volume, or no more."""
    with btrfs.opened(data) as subvolume:
        if not btrfs_quota.is_enabled(subvolume):
            if not size:
                return
            btrfs_quota.enable(subvolume)
        btrfs_quota.limit(subvolume, size or None)


def copy_size(source: Path, target: Path) -> None:
    """Give one volume the limit of another."""
    with btrfs.opened(source) as origin, btrfs.opened(target) as copy:
        size = btrfs_quota.limit_of(origin, btrfs.id_of(origin))
        if size is not None:
            btrfs_quota.limit(copy, size)


def usage(data: Path) -> int | None:
    """Bytes that a volume refers to; None if nobody counts them or it is not there."""
    try:
        with btrfs.opened(data) as subvolume:
            found = btrfs_quota.usage(subvolume, btrfs.id_of(subvolume))
    except FileNotFoundError:
        return None
    return found.referenced if found is not None else None


def is_counted(root: Path) -> bool:
    """Whether the pool counts at all."""
    with btrfs.opened(root) as pool:
        return btrfs_quota.is_enabled(pool)
