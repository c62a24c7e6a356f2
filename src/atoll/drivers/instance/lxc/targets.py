"""Where mounts of a launch go. liblxc takes no links on the way there, which images have (`/var/run`): they are followed
beforehand, below the guest's root. Should the guest's tree change meanwhile, liblxc refuses what it finds."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from atoll.domain.errors import HostError
from atoll.drivers.instance.contract import MountSpec
from atoll.host import syscalls

_WITHIN = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS
_COVERED = ("dev", "proc", "sys")


def followed(rootfs: Path, mounts: Iterable[MountSpec]) -> list[MountSpec]:
    """The mounts, in order, each with a target without links. Blocking."""
    try:
        root = os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"The root file system {rootfs} cannot be opened: {error.strerror}") from error
    try:
        real = os.readlink(f"/proc/self/fd/{root}")
        found: list[MountSpec] = []
        for mount in mounts:
            target = mount.target.strip("/")
            covers = (*_COVERED, *(each.target for each in found))
            if not any(target == cover or target.startswith(f"{cover}/") for cover in covers):
                target = _follow(root, real, target)
            found.append(replace(mount, target=target))
        return found
    finally:
        os.close(root)


def _follow(root: int, real: str, target: str) -> str:
    """As much of the target as exists, by its real name, and the rest."""
    there, rest = target, ""
    while there:
        try:
            place = syscalls.openat2(root, there, os.O_PATH, resolve=_WITHIN)
        except OSError:
            there, _, last = there.rpartition("/")
            rest = f"{last}/{rest}" if rest else last
            continue
        try:
            name = os.readlink(f"/proc/self/fd/{place}")
        finally:
            os.close(place)
        inside = os.path.relpath(name, real)
        return target if inside.startswith("..") else os.path.normpath(f"{inside}/{rest}")
    return target
