"""Mounting into a running container, confined below its root. Runs in a worker of the zygote; imports next to nothing.

The mount is a copy of one of the host, taken from a copy of all the host's mounts that belongs to the container's user namespace:
there the kernel has locked what a mount forbids, so that the container's root cannot allow it again. It is attached by
descriptor, and what happens in it is never passed on to the host. In between, only the target is looked up in the guest, by
openat2 with RESOLVE_IN_ROOT, so neither a link nor a race leads out.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from atoll.host import mount_options, syscalls

_WITHIN = syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS


def attach(init: int, *, source: str, target: str, options: list[str], is_file: bool, foreign: bool) -> None:
    """Show `source` of the host at `target` in the mount namespace of the process behind pidfd `init`; `foreign`: that process
    is in a user namespace of its own.

    Missing directories of the target, and the target itself, are made as the guest's root.
    """
    if foreign:
        _become_guest(init, source, options)
    tree = _copy(source, options)
    syscalls.setns(init, syscalls.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    if foreign:
        syscalls.set_fs_ids(0, 0)
    syscalls.move_mount(tree, _make_target(root, target, is_file=is_file))
    kind, below = mount_options.propagation(options)
    if kind:  # only now: what it is moved to may share it, and takes nothing that is unbindable
        syscalls.mount_setattr(tree, 0, propagation=kind, recursive=below)


def detach(init: int, *, source: str, target: str, foreign: bool) -> None:
    """Unmount `source` from `target`, and let the place go if it is empty; nothing wrong if something else, or nothing, is
    mounted there. `foreign` as for `attach`."""
    try:
        wanted = os.stat(source)
    except OSError:
        return
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # the host's: the guest's could be anything
    syscalls.setns(init, syscalls.CLONE_NEWNS)
    root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    os.fchdir(proc)
    try:
        place = syscalls.openat2(root, target, os.O_PATH, resolve=_WITHIN)
        if not os.path.samestat(os.fstat(place), wanted):
            return
        syscalls.umount(f"self/fd/{place}", syscalls.MNT_DETACH)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ELOOP):
            raise
        return
    if foreign:  # what the guest's root may not remove, it must not lead this process to
        syscalls.setns(init, syscalls.CLONE_NEWUSER)
        syscalls.set_fs_ids(0, 0)
    _remove_place(root, target)


def _remove_place(root: int, target: str) -> None:
    """An empty directory or file, which a mount most likely was the reason for; another kind of mount can take its place then."""
    parent, _, name = target.strip("/").rpartition("/")
    with contextlib.suppress(OSError):  # in use, not empty, or not to be written to
        folder = syscalls.openat2(root, parent or ".", os.O_PATH | os.O_DIRECTORY, resolve=_WITHIN)
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=folder)
        elif stat.S_ISREG(found.st_mode) and not found.st_size:
            os.unlink(name, dir_fd=folder)


def _copy(source: str, options: list[str]) -> int:
    """A detached copy of what is mounted at `source`, with these options. The host sees nothing of what happens in it, and it
    sees what the host mounts below only if it is asked to be `shared` or `slave`."""
    tree = syscalls.open_tree(source, recursive="rbind" in options)
    follows = mount_options.propagation(options)[0] in (syscalls.MS_SHARED, syscalls.MS_SLAVE)
    kept = syscalls.MS_SLAVE if follows else syscalls.MS_PRIVATE
    syscalls.mount_setattr(tree, mount_options.attributes(options), propagation=kept, recursive=True)
    return tree


def _become_guest(init: int, source: str, options: list[str]) -> None:
    """This process is in the guest's user namespace from then on, and among copies of the host's mounts in which all is locked.
    What the options forbid beyond what the mount does, and mounts below that are not to be seen, are decided before."""
    if "rbind" not in options or mount_options.attributes(options):
        tree = _copy(source, options)
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount_setattr("/", 0, propagation=syscalls.MS_SLAVE, recursive=True)
        syscalls.move_mount(tree, source)
    syscalls.setns(init, syscalls.CLONE_NEWUSER)
    syscalls.unshare(syscalls.CLONE_NEWNS)


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
