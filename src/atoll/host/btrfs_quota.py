"""Quotas of btrfs: a limit for the data of each subvolume. All functions block and raise OSError.

Every subvolume has a group of its own, with its id, from the moment that quotas are on. `referenced` is all that is in it,
also what it shares with others; `exclusive` what only it has. The numbers are those of the last commit, up to 30 s old.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

from atoll.host import btrfs

_QUOTA_TREE = 8
_STATUS, _INFO, _LIMIT = 240, 242, 244
_STATUS_ON = 1
_LIMIT_REFERENCED = 1
_ENABLE = 1
_QUOTA_CTL = btrfs.request("rw", 40, 16)
_QGROUP_CREATE = btrfs.request("w", 42, 16)
_QGROUP_LIMIT = btrfs.request("r", 43, 48)
_QUOTA_RESCAN_WAIT = btrfs.request("", 46, 0)
_LEVEL_SHIFT = 48


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes in a subvolume."""

    referenced: int
    exclusive: int


def is_enabled(filesystem: int) -> bool:
    """Whether the file system counts at all."""
    for _, _, item in _items(filesystem, _STATUS):
        _version, _generation, flags = struct.unpack_from("=QQQ", item)
        return bool(flags & _STATUS_ON)
    return False


def enable(filesystem: int) -> None:
    """Count from now on, and wait until what is there has been counted: that reads all metadata of the file system."""
    btrfs.call(filesystem, _QUOTA_CTL, struct.pack("=QQ", _ENABLE, 0))
    btrfs.call(filesystem, _QUOTA_RESCAN_WAIT, b"")


def limit(subvolume: int, size: int | None) -> None:
    """What the subvolume that the descriptor is of may refer to at most, in bytes; None: anything."""
    value = btrfs.LARGEST if size is None else size
    btrfs.call(subvolume, _QGROUP_LIMIT, struct.pack("=6Q", 0, _LIMIT_REFERENCED, value, 0, 0, 0))


def limit_of(filesystem: int, subvolume: int) -> int | None:
    """The limit of the subvolume with that id."""
    for _, _, item in _items(filesystem, _LIMIT, subvolume):
        flags, referenced = struct.unpack_from("=QQ", item)
        if flags & _LIMIT_REFERENCED and referenced not in (0, btrfs.LARGEST):
            return int(referenced)
    return None


def usage(filesystem: int, subvolume: int) -> Usage | None:
    """How much is in the subvolume with that id; None if nobody counts."""
    for _, _, item in _items(filesystem, _INFO, subvolume):
        _generation, referenced, _, exclusive, _ = struct.unpack_from("=5Q", item)
        return Usage(referenced, exclusive)
    return None


def groups(filesystem: int) -> set[int]:
    """The ids of the subvolumes that have a group, also of those that are gone: kernels before 6.11 leave theirs behind."""
    return {group for _, group, _ in _items(filesystem, _INFO) if group >> _LEVEL_SHIFT == 0}


def remove_group(filesystem: int, subvolume: int) -> None:
    """Remove the group of a subvolume that is gone; one that is still being freed is left."""
    try:
        btrfs.call(filesystem, _QGROUP_CREATE, struct.pack("=QQ", 0, subvolume))
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOENT):
            raise


def _items(filesystem: int, kind: int, subvolume: int | None = None) -> list[tuple[int, int, bytes]]:
    try:
        return list(btrfs.search(filesystem, _QUOTA_TREE, 0, kind, subvolume))
    except FileNotFoundError:  # there is no such tree before quotas are on for the first time
        return []
