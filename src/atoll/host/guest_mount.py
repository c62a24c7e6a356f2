"""Mounting into a running container, confined below its root. Runs in a worker of the zygote; imports next to nothing.

The mount is made detached, while still in the host's namespaces, and attached by descriptor: in between, only the target is
looked up in the guest, by openat2 with RESOLVE_IN_ROOT, so neither a link nor a race leads out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from atoll.host import syscalls

_ATTRIBUTES = {
    "ro": syscalls.MOUNT_ATTR_RDONLY,
    "nosuid": syscalls.MOUNT_ATTR_NOSUID,
    "nodev": syscalls.MOUNT_ATTR_NODEV,
    "noexec": syscalls.MOUNT_ATTR_NOEXEC,
    "noatime": syscalls.MOUNT_ATTR_NOATIME,
}
_IGNORED = {"bind", "rbind", "rw", "defaults", "optional", "create=dir", "create=file"}


def attach(
    init: int, *, source: str, target: str, fstype: str, options: list[str], is_file: bool, userns: int, owner: list[int]
) -> None:
    """Mount `source` at `target` in the mount namespace of the process behind pidfd `init`.

    `userns` is a descriptor of the user namespace whose map the mount shall have, -1 for none. Missing directories of the
    target, and the target itself, are made as `owner`: the host's user and group id of the guest's root. (Through an
    idmapped mount, ids that its map does not have can create nothing.)
    """
    tree = _detached(source, fstype, options, userns)
    syscalls.setns(init, syscalls.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    powers = syscalls.capabilities()
    syscalls.set_fs_ids(owner[0], owner[1])
    syscalls.set_capabilities(powers)  # those over files went with uid 0; the guest's root enters every folder of its own
    place = _make_target(root, target, is_file=is_file)
    syscalls.set_fs_ids(0, 0)
    syscalls.move_mount(tree, place)


def detach(init: int, *, target: str) -> None:
    """Unmount what is at `target`; nothing wrong if nothing is mounted there."""
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the host's: the guest's could be anything
    syscalls.setns(init, syscalls.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(proc)
    try:
        place = syscalls.openat2(root, target, os.O_PATH | os.O_NOFOLLOW, resolve=_WITHIN)
        syscalls.umount(f"self/fd/{place}", syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL):
            raise


_WITHIN = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def _detached(source: str, fstype: str, options: list[str], userns: int) -> int:
    attributes = 0
    for option in options:
        attributes |= _ATTRIBUTES.get(option, 0)
    recursive = "rbind" in options
    if recursive or "bind" in options:
        tree = syscalls.open_tree(source, recursive=recursive)
    else:
        tree = syscalls.new_mount(fstype, source, [o for o in options if o not in _ATTRIBUTES and o not in _IGNORED])
    if attributes:
        syscalls.mount_setattr(tree, attributes, recursive=recursive)
    if userns >= 0:
        syscalls.mount_setattr(tree, syscalls.MOUNT_ATTR_IDMAP, userns=userns, recursive=recursive)
    return tree


def _make_target(root: int, target: str, *, is_file: bool) -> int:
    """An O_PATH descriptor of the target, made if it is missing; each step is looked up below the guest's root."""
    parts = [part for part in target.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise OSError(errno.EINVAL, f"Not a place to mount at: {target!r}")
    place = root
    for number, part in enumerate(parts, 1):
        path = "/".join(parts[:number])
        try:
            found = syscalls.openat2(root, path, os.O_PATH, resolve=_WITHIN)
        except FileNotFoundError:
            _make(place, part, is_file=is_file and number == len(parts))
            found = syscalls.openat2(root, path, os.O_PATH, resolve=_WITHIN)
        place = found
    if stat.S_ISDIR(os.fstat(place).st_mode) == is_file:
        raise OSError(errno.ENOTDIR if not is_file else errno.EISDIR, f"{target}: not what is to be mounted there")
    return place


def _make(directory: int, name: str, *, is_file: bool) -> None:
    """Make an empty file or a directory; one that appeared meanwhile is as good."""
    with contextlib.suppress(FileExistsError):
        if is_file:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o644, dir_fd=directory))
        else:
            os.mkdir(name, 0o755, dir_fd=directory)
