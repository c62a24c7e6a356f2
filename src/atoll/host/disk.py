"""File systems of the host: space, kind, flushing. Functions block."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from atoll.host import syscalls

MAGIC = {
    0xEF53: "ext4",
    0x58465342: "xfs",
    0x9123683E: "btrfs",
    0x2FC12FC1: "zfs",
    0xF2F52010: "f2fs",
    0xCA451A4E: "bcachefs",
    0x01021994: "tmpfs",
    0x794C7630: "overlay",
    0x6969: "nfs",
    0x65735546: "fuse",
    0x00C36400: "ceph",
    0x73717368: "squashfs",
}
"""Names of `f_type` numbers (linux/magic.h); ext2 and ext3 share ext4's."""


@dataclass(frozen=True, slots=True)
class Space:
    """Bytes and inodes of a file system: in all, and in use (what is kept for root counts as used)."""

    total: int
    used: int
    inodes_total: int
    inodes_used: int


def space(path: Path) -> Space:
    """Space of the file system that holds `path`. A file system without fixed inodes (btrfs) reports 0 of them."""
    stat = os.statvfs(path)
    return Space(
        total=stat.f_blocks * stat.f_frsize,
        used=(stat.f_blocks - stat.f_bavail) * stat.f_frsize,
        inodes_total=stat.f_files,
        inodes_used=stat.f_files - stat.f_ffree,
    )


def filesystem(path: Path) -> str:
    """The file system's name, or its magic number in hexadecimal when it has no name here."""
    magic = syscalls.filesystem_magic(path)
    return MAGIC.get(magic, hex(magic))


def flush_filesystem(path: Path) -> None:
    """syncfs(2): all of the file system that holds `path` is on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        syscalls.syncfs(descriptor)
    finally:
        os.close(descriptor)


def existing_parent(path: Path) -> Path:
    """`path` itself, or the nearest folder above it that exists."""
    while not path.exists():
        path = path.parent
    return path
