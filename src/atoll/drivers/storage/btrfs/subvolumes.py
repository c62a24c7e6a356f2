"""Subvolumes with what is nested in them: a guest may make subvolumes of its own, and be at it while its volume is copied.

All functions block and raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from atoll.domain.errors import BadRequest
from atoll.host import btrfs, confined

DEEPEST = 32
"""How many subvolumes may be one in the other: each costs open descriptors while they are copied."""


def nested(subvolume: int) -> list[btrfs.Child]:
    """The subvolumes directly below the one that the descriptor is of."""
    return btrfs.children(subvolume, btrfs.id_of(subvolume))


def copy(source: int, folder: int, name: str, *, readonly: bool, sealed: bool = False) -> None:
    """A snapshot of the subvolume `source` in the directory `folder`, and of those below it, each at its place.

    One call of the kernel if none is below; then it is there whole or not at all. Those below are taken one after the other
    and are read-only if their sources are, or if `sealed`. One that appears or is moved meanwhile may be missing.
    """
    _copy(source, folder, name, readonly=readonly, sealed=sealed, depth=0)


def _copy(source: int, folder: int, name: str, *, readonly: bool, sealed: bool, depth: int) -> None:
    below = nested(source)
    btrfs.snapshot(source, folder, name, readonly=readonly and not below)
    if not below:
        return
    if depth >= DEEPEST:
        raise BadRequest(f"More than {DEEPEST} subvolumes are nested in each other")
    with confined.directory(folder, name) as target:
        own = btrfs.id_of(target)
        for child in below:
            with contextlib.suppress(FileNotFoundError), btrfs.opened_inode(source, child.id) as origin:
                _copy_child(origin, target, own, child, sealed=sealed, depth=depth + 1)
        btrfs.set_readonly(target, readonly=readonly)


def _copy_child(origin: int, target: int, own: int, child: btrfs.Child, *, sealed: bool, depth: int) -> None:
    """Put a copy in the place of the child's placeholder in `target`, the subvolume with id `own`: in the directory of the same
    inode, for a snapshot has the inodes of its source. FileNotFoundError if the child came there after the snapshot."""
    with btrfs.opened_inode(target, own, child.folder) as folder:
        if os.lstat(child.name, dir_fd=folder).st_ino != btrfs.PLACEHOLDER_INODE:
            raise FileNotFoundError(errno.ENOENT, "no subvolume was there", child.name)
        os.rmdir(child.name, dir_fd=folder)
        _copy(origin, folder, child.name, readonly=sealed or btrfs.is_readonly(origin), sealed=sealed, depth=depth)


def walk(subvolume: int, prefix: str = "") -> Iterator[tuple[str, bool]]:
    """(path, read-only) of all subvolumes below the one that the descriptor is of, outer ones first."""
    own = btrfs.id_of(subvolume)
    for child in btrfs.children(subvolume, own):
        path = prefix + btrfs.folder_path(subvolume, own, child.folder) + child.name
        with btrfs.opened_inode(subvolume, child.id) as below:
            yield path, btrfs.is_readonly(below)
            yield from walk(below, f"{path}/")


def opened_all(subvolume: int) -> Iterator[int]:
    """The descriptor itself and, each only until the next is asked for, those of all subvolumes below."""
    yield subvolume
    for child in nested(subvolume):
        with btrfs.opened_inode(subvolume, child.id) as below:
            yield from opened_all(below)


def remove(path: Path) -> None:
    """Remove a subvolume with all that are below it, or a folder that may hold some; nothing wrong if it is not there.

    Those below are found by their ids, whatever a guest named them and however deep it hid them.
    """
    if not btrfs.is_subvolume(path):
        _remove_folder(path)
        return
    with btrfs.opened(path) as top:
        _remove_below(top, btrfs.id_of(top))
    with btrfs.opened(path.parent) as folder:
        btrfs.destroy(folder, path.name)


def _remove_below(filesystem: int, subvolume: int) -> None:
    """Innermost first; each that holds others is made writable for it."""
    found = [(subvolume, child) for child in btrfs.children(filesystem, subvolume)]
    for _, child in found:  # it grows while we go
        found.extend((child.id, below) for below in btrfs.children(filesystem, child.id))
    for holder in dict.fromkeys(holder for holder, _ in found):
        with btrfs.opened_inode(filesystem, holder) as descriptor:
            btrfs.set_readonly(descriptor, readonly=False)
    for holder, child in reversed(found):
        with btrfs.opened_inode(filesystem, holder, child.folder) as folder:
            btrfs.destroy(folder, child.name)


def _remove_folder(path: Path) -> None:
    if not path.is_symlink() and path.is_dir():
        for entry in path.iterdir():
            if btrfs.is_subvolume(entry) or (not entry.is_symlink() and entry.is_dir()):
                remove(entry)
    confined.remove_tree(path)
