"""Mounts: binds, idmapped binds, overlays; what is mounted where.

All functions block (call them inside `threads.in_thread`) and raise HostError with the kernel's reason. An idmapped mount
shows files with other owners than the disk has; nothing on the disk changes.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import HostError, Unsupported
from atoll.domain.idmap import IdMap
from atoll.host import syscalls

log = logging.getLogger(__name__)

MS_RDONLY = 0x1
MS_NODEV = 0x4
BUSY_SECONDS = 1.0
LONGEST_OPTIONS = 4095
"""mount(2) takes one page of options, its final zero included."""

OVERLAY_OPTIONS = ("redirect_dir=on", "metacopy=off", "index=off", "nfs_export=off", "xino=off")
"""Chosen, not left to the kernel's build and module parameters, because layers outlive them:

redirect_dir=on   a guest may rename directories of its image (off: rename gives EXDEV). The path kept in the upper is one of
                  the overlay itself and names are looked up in the layers below, so it stays true when an upper is frozen,
                  copied or cloned, and it cannot lead out of the layers. Guests cannot write trusted.overlay.* themselves.
metacopy=off      an upper holds whole files, so that a copy of an upper is worth something by itself.
index=off         an index ties an upper to the inodes of its lowers and to its place; ours are copied and shared.
nfs_export=off    needs the index.
xino=off          all layers are on one file system, where inode numbers are stable and unique without it.

`userxattr` is not set: the mounter is root of the host and marks are kept in trusted.overlay.*, which no guest can forge.
An overlay cannot be the upper of another: a guest that nests (Docker inside) puts its layers on a custom volume.
"""

_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of mountinfo. `options` are of the mount, `super_options` of the file system."""

    mount_id: int
    parent_id: int
    device: str
    root: str
    target: Path
    options: frozenset[str]
    kind: str
    source: str
    super_options: str


@contextmanager
def _reported(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise HostError(f"Cannot {what}: {error.strerror or error}") from error


def bind(source: Path, target: Path, *, readonly: bool = False, recursive: bool = False) -> None:
    """Show `source`, a directory or file, at `target` too."""
    with _reported(f"bind {source} to {target}"):
        tree = syscalls.open_tree(source, recursive=recursive)
        try:
            if readonly:
                syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_RDONLY, recursive=recursive)
            syscalls.move_mount(tree, target)
        finally:
            os.close(tree)


def idmapped_bind(source: Path, target: Path, namespace: int, *, readonly: bool = False) -> None:
    """Show `source` at `target` with owners shifted by a user namespace (see `userns.opened`)."""
    attributes = syscalls.MOUNT_ATTR_IDMAP | (syscalls.MOUNT_ATTR_RDONLY if readonly else 0)
    with _reported(f"bind {source} to {target} with mapped ids"):
        tree = syscalls.open_tree(source)
        try:
            syscalls.mount_setattr(tree, attributes, userns=namespace)
            syscalls.move_mount(tree, target)
        finally:
            os.close(tree)


def overlay(
    target: Path, lower: Sequence[str], *, upper: str | None = None, work: str | None = None, devices: bool = False
) -> None:
    """Mount an overlay of `lower`, topmost first, under `upper`. Without upper it is read-only and needs two lowers at least.

    Paths may be /proc/self/fd/N/… ones. Device files in it work only with `devices`.

    The kernel keeps the mounter's credentials for copying up: see `credentials_of_root`.
    """
    paths = [*lower, *(path for path in (upper, work) if path is not None)]
    if any(set(path) & set(":,\\") for path in paths):
        raise Unsupported("An overlay's layers may not have ':', ',' or '\\' in their paths")
    options = [f"lowerdir={':'.join(lower)}", *([f"upperdir={upper}", f"workdir={work}"] if upper is not None else [])]
    text = ",".join([*options, *OVERLAY_OPTIONS])
    if len(os.fsencode(text)) > LONGEST_OPTIONS:
        raise Unsupported(f"An overlay of {len(lower)} layers is too deep for the kernel's mount options")
    with _reported(f"mount an overlay on {target}"):
        flags = (MS_RDONLY if upper is None else 0) | (0 if devices else MS_NODEV)
        syscalls.mount("overlay", target, "overlay", flags, text)


@contextmanager
def credentials_of_root(idmap: IdMap | None) -> Iterator[None]:
    """This thread acts on files as the root of that map, with all its capabilities; restored on exit.

    Needed around `overlay` over idmapped layers: an overlay copies up with its mounter's ids, and uid 0 of the host has no
    place in an idmapped upper, so that the overlay would come up read-only. Changing the ids drops the file capabilities
    (DAC_OVERRIDE and friends), which copying up needs: they are raised again. Do all of it within one in_thread call.
    """
    if idmap is None:
        yield
        return
    before = syscalls.capabilities()
    try:
        with _reported("take the ids of the instance's root"):
            syscalls.set_fs_ids(idmap.root, idmap.root_group)
            syscalls.set_capabilities(before)
        yield
    finally:
        syscalls.set_fs_ids(0, 0)
        syscalls.set_capabilities(before)


def unmount(target: Path, *, lazy: bool = False) -> None:
    """Unmount; nothing wrong if nothing is mounted there. A busy mount is tried again for a second, then HostError.

    `lazy` detaches at once whatever still uses it.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            syscalls.umount(target, syscalls.UMOUNT_NOFOLLOW | (syscalls.MNT_DETACH if lazy else 0))
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise HostError(f"Cannot unmount {target}: {error.strerror}") from error
            time.sleep(0.02)  # blocks: callers come in a thread
        else:
            return


def is_overlay(target: Path) -> bool:
    """Whether an overlay is mounted exactly there: cheap, by device numbers; not for binds of the same file system."""
    try:
        return os.lstat(target).st_dev != os.lstat(target.parent).st_dev
    except FileNotFoundError:
        return False


def is_same(one: int, other: int) -> bool:
    """Whether two descriptors are of the same mount. A subvolume of btrfs is, though its device number is another."""
    return _mount_id(one) == _mount_id(other)


def _mount_id(descriptor: int) -> str:
    facts = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    return next(line for line in facts.splitlines() if line.startswith("mnt_id:"))


def parse_mountinfo(text: str) -> list[Entry]:
    """The lines of /proc/PID/mountinfo, in the kernel's order (a mount stands after what it is mounted on)."""
    return [_entry(line) for line in text.splitlines() if line]


def _entry(line: str) -> Entry:
    front, _, back = line.partition(" - ")
    number, parent, device, root, target, options, *_tags = front.split(" ")
    kind, source, super_options = (*back.split(" "), "", "")[:3]
    return Entry(
        mount_id=int(number),
        parent_id=int(parent),
        device=device,
        root=_unescape(root),
        target=Path(_unescape(target)),
        options=frozenset(options.split(",")),
        kind=kind,
        source=_unescape(source),
        super_options=super_options,
    )


def _unescape(text: str) -> str:
    return _ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), text)


def mounts_below(path: Path) -> list[Entry]:
    """Mounts at `path` and below it in this process's namespace, in the kernel's order: unmount them in reverse.

    The kernel knows no links: targets are told as paths below what `path` resolves to.
    """
    text = Path("/proc/thread-self/mountinfo").read_bytes()
    real = path.resolve()
    return [entry for entry in parse_mountinfo(os.fsdecode(text)) if entry.target.is_relative_to(real)]


def unmount_below(path: Path, *, itself: bool = True) -> list[Path]:
    """Detach all that is mounted below `path`, and on it unless not `itself`; returns what it was, innermost first."""
    real = path.resolve()
    targets = [entry.target for entry in reversed(mounts_below(path)) if itself or entry.target != real]
    for target in targets:
        unmount(target, lazy=True)
    return targets
