"""Stacks as mounts. Functions block.

For a shifted mount the whole `layers/` folder is bound with mapped ids on a private mount point, the overlay is made of paths
below that, and the bind is detached again: the overlay keeps clones of it. So one mount is left for each running instance,
and layers are named by the descriptor of the folder, which keeps the kernel's page of mount options from limiting the depth.

Device files work in the root of a privileged instance only. An unprivileged one cannot make any (its /dev is a file system
of its own), so that one it finds in its root was planted in the image, and would be open to it: its root is a root's.
"""

from __future__ import annotations

import os
from pathlib import Path

from atoll.domain.idmap import IdMap
from atoll.drivers.storage.overlay.layers import TREE, WORK, Stack
from atoll.host import confined, mount


def mount_shifted(layers: Path, stage: Path, target: Path, stack: Stack, idmap: IdMap, namespace: int) -> None:
    """Mount a stack, its first layer writable, with ids shifted by the map that `namespace` has. `stage` is a new folder."""
    mount.idmapped_bind(layers, stage, namespace)
    try:
        with mount.credentials_of_root(idmap):
            mount_plain(stage, target, stack, writable=True)
    finally:
        mount.unmount(stage, lazy=True)
        stage.rmdir()


def mount_plain(layers: Path, target: Path, stack: Stack, *, writable: bool, devices: bool = False) -> None:
    """Mount a stack with the ids that `layers` shows; its first layer takes the changes if `writable`."""
    if not writable and len(stack) == 1:
        mount.bind(layers / stack[0] / TREE, target, readonly=True)
        return
    with confined.directory(layers) as folder:
        trees = [f"/proc/self/fd/{folder}/{layer}/{TREE}" for layer in stack]
        if not writable:
            mount.overlay(target, trees)
        elif len(stack) > 1:
            work = f"/proc/self/fd/{folder}/{stack[0]}/{WORK}"
            mount.overlay(target, trees[1:], upper=trees[0], work=work, devices=devices)
        else:
            raise ValueError("a writable stack needs a layer below its first")


def end_private_mount(target: Path) -> None:
    """Unmount a stack from a private folder and remove that; a program that still uses the mount keeps it until it ends."""
    mount.unmount(target, lazy=True)
    target.rmdir()


def is_mounted_for(rootfs: Path, upper: Path, idmap: IdMap | None) -> bool:
    """Whether an overlay is mounted there, and shows its root directory's owner as that map shifts it."""
    if not mount.is_overlay(rootfs):
        return False
    owner = upper.stat().st_uid
    return os.lstat(rootfs).st_uid == (owner if idmap is None else _shifted(idmap, owner))


def _shifted(idmap: IdMap, uid: int) -> int:
    for entry in idmap.ranges:
        if entry.users and entry.inside <= uid < entry.inside + entry.count:
            return entry.outside + uid - entry.inside
    return -1
