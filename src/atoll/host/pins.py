"""Sources of disks at places of the daemon's own: what a machine's mounts are made from.

A pin has all that is decided on the host already: which mounts below the source it has, what may be done in it, the map of its
ids. A machine's mount is a copy of it, made where the machine's user namespace is in force: the kernel then locks what the pin
forbids, so that the root of an unprivileged machine cannot allow it again.

Nothing that happens in a pin, or in copies of it, is passed on to the source: a machine's mounts never show on the host, and
unmounting a pin leaves mounted what is below the source. At most the other way: see `Manner.follows`.

All functions block and raise HostError with the kernel's reason.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import HostError, Unsupported
from atoll.host import mount, mount_options, process, syscalls

FILESYSTEMS = frozenset(
    ("btrfs", "erofs", "exfat", "ext2", "ext3", "ext4", "f2fs", "iso9660", "ntfs", "squashfs", "udf", "vfat", "xfs")
)  # fmt: skip
"""What is looked for, and mounted, on block devices."""

_NOT_WRITABLE = (errno.EBUSY, errno.EROFS, errno.EACCES)
_PLACE, _NOTE = "disk.", "at."
_DRIVERS = {"ntfs": "ntfs3"}
_NEVER_WRITTEN = frozenset(("erofs", "iso9660", "squashfs"))


@dataclass(frozen=True, slots=True)
class Manner:
    """How a source is shown. `namespace` is a descriptor of the user namespace whose map its ids are shifted by, -1 for none."""

    recursive: bool = False
    options: tuple[str, ...] = ()  # words of mount options
    follows: bool = False  # what is mounted below the source later is mounted below the pin, too
    namespace: int = -1


def pin(source: int, place: Path, manner: Manner) -> None:
    """Show a folder or file, by an O_PATH descriptor of it, at `place`, an empty one of the same kind."""
    try:
        tree = syscalls.open_tree(f"/proc/self/fd/{source}", recursive=manner.recursive)
    except OSError as error:
        raise HostError(f"Cannot bind {os.readlink(f'/proc/self/fd/{source}')}: {error.strerror}") from error
    _attach(tree, place, manner)


def pin_device(device: int, place: Path, filesystem: str, manner: Manner) -> None:
    """Mount the file system of a block device, by an O_PATH descriptor of it, at `place`, an empty folder."""
    source = os.readlink(f"/proc/self/fd/{device}")
    words = mount_options.of_filesystem(manner.options)
    readonly = bool(mount_options.attributes(manner.options) & syscalls.MOUNT_ATTR_RDONLY)
    try:
        if os.stat(source).st_rdev != os.fstat(device).st_rdev:
            raise HostError(f"{source} is another device by now")
        tree = _mount(source, filesystem, words, readonly=readonly or filesystem in _NEVER_WRITTEN)
    except OSError as error:
        hint = "it is write-protected, or mounted read-only for others" if error.errno in _NOT_WRITABLE else None
        raise HostError(f"Cannot mount {source} ({filesystem}): {error.strerror}", hint=hint) from error
    _attach(tree, place, manner)


def _mount(source: str, filesystem: str, words: list[str], *, readonly: bool) -> int:
    kind = _DRIVERS.get(filesystem, filesystem)
    try:
        return syscalls.new_mount(kind, source, [*words, "ro"] if readonly else words)
    except OSError as error:
        if not readonly or error.errno != errno.EBUSY:
            raise
    return syscalls.new_mount(kind, source, words)  # others have it writable: then only this mount of it is read-only


def _attach(tree: int, place: Path, manner: Manner) -> None:
    kept = syscalls.MS_SLAVE if manner.follows else syscalls.MS_PRIVATE
    attributes = mount_options.attributes(manner.options)
    try:
        syscalls.mount_setattr(tree, attributes, propagation=kept, recursive=True)
        if manner.namespace >= 0:
            _shift(tree, manner.namespace)
        syscalls.move_mount(tree, place)
        syscalls.mount_setattr(place, 0, propagation=kept, recursive=True)  # what it is moved to may have shared it again
    except OSError as error:
        raise HostError(f"Cannot mount at {place}: {error.strerror}") from error
    finally:
        os.close(tree)


def _shift(tree: int, namespace: int) -> None:
    try:
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, userns=namespace, recursive=True)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EPERM):
            raise
        raise Unsupported(
            "Shifting its ids is refused by the kernel",
            hint="a file system of it has no idmapped mounts, or its ids are shifted already",
        ) from error


def place_name(name: str) -> str:
    """The name of the place of what has that name, which may be a segment of a path."""
    return f"{_PLACE}{name}"


def make_place(place: Path, note: str, *, is_file: bool) -> None:
    """Make an empty place, in the place of whatever is there, and note beside it what it is for, in at most 4095 bytes: a place
    that is found later may be the remains of work that was cut off."""
    unpin(place)
    try:
        # Searchable: the guest's root, nobody on the host, resolves this path when it mounts from here.
        place.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        _note(place).symlink_to(note)
        if is_file:
            place.touch(mode=0o600)
        else:
            place.mkdir(mode=0o700)
    except OSError as error:
        raise HostError(f"Cannot make {place}: {error.strerror}") from error


def noted(folder: Path) -> dict[str, str]:
    """By name, the notes beside the places in a folder."""
    try:
        notes = [entry.name for entry in os.scandir(folder) if entry.name.startswith(_NOTE)]
    except FileNotFoundError:
        return {}
    return {name.removeprefix(_NOTE): os.readlink(folder / name) for name in notes}


def unpin(place: Path) -> None:
    """Unmount and remove a place, whatever of it is there."""
    mount.unmount(place, lazy=True)
    try:
        if place.is_dir():
            place.rmdir()
        else:
            place.unlink(missing_ok=True)
        _note(place).unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"Cannot remove {place}: {error.strerror}") from error


def _note(place: Path) -> Path:
    return place.with_name(_NOTE + place.name.removeprefix(_PLACE))


async def filesystem_of(device: int, name: str) -> str:
    """Which of FILESYSTEMS a block device has, by a descriptor of it; `name` is for errors. Unsupported for none of them."""
    wanted = ",".join(sorted(FILESYSTEMS))
    probe = ["blkid", "-p", "-n", wanted, "-s", "TYPE", "-o", "value", "--", f"/proc/self/fd/{device}"]
    done = await process.run(probe, check=False, pass_fds=[device])
    found = done.stdout.decode(errors="replace").strip()
    if done.code != 0 or found not in FILESYSTEMS:
        raise Unsupported(
            f"Block device {name!r} has no file system that can be mounted", hint=f"known are {wanted.replace(',', ', ')}"
        )
    return found


def write_folder(place: Path, files: Mapping[str, str]) -> None:
    """Make `place` a folder of these files that root alone may read, in place of one that is there."""
    remove_folder(place)
    place.mkdir(mode=0o700, parents=True)
    for name, text in files.items():
        with open(place / name, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(text)


def remove_folder(place: Path) -> None:
    """Remove what `write_folder` made."""
    if place.is_dir():
        shutil.rmtree(place)
