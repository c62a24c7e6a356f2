"""Copies of single directory entries between directory descriptors, with owner, mode, times, attributes and holes.

A name is never resolved further than to the entry itself, so that whoever changes the tree meanwhile cannot lead out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from atoll.domain.errors import HostError

NO_FOLLOW = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
VANISHED = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE, errno.ENXIO)
"""What a call says about an entry that went, or became one of another type, between two calls."""

_FICLONE = 0x40049409
_CHUNK = 64 << 20
_COMPARED = 256 << 10
"""Bytes compared at once: fits the processor's cache, and is reused by the allocator; 1 MiB is eight times slower."""
_NO_CLONES = (errno.EOPNOTSUPP, errno.EINVAL, errno.EXDEV, errno.ENOTTY)

Check = Callable[[], None]
"""Called between pieces of work; raises to end it."""


def failed(source: Path, error: OSError) -> HostError:
    """That a copy of `source` failed, with the file it failed at where that is known."""
    place = f" ({error.filename})" if error.filename is not None else ""
    return HostError(f"Cannot copy {source}: {error.strerror or error}{place}")


def new_file(origin: int, found: os.stat_result, target: int, name: str, check: Check) -> None:
    """Make `name` in the directory `target` like the open regular file `origin`, which had these facts."""
    copy = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW, 0o600, dir_fd=target)
    try:
        if not _clone(origin, copy):
            _copy_data(origin, copy, found.st_size, check)
        _copy_facts(origin, found, copy)
    finally:
        os.close(copy)


def update_file(origin: int, found: os.stat_result, target: int, name: str, check: Check) -> None:
    """Make `name`, an earlier copy of `origin` without holes, like it again: only what differs is written."""
    copy = os.open(name, os.O_RDWR | NO_FOLLOW, dir_fd=target)
    try:
        if not _clone(origin, copy):
            _copy_differences(origin, copy, found.st_size, check)
        os.ftruncate(copy, found.st_size)
        for attribute in set(os.listxattr(copy)) - set(os.listxattr(origin)):
            os.removexattr(copy, attribute)
        _copy_facts(origin, found, copy)
    finally:
        os.close(copy)


def _copy_facts(origin: int, found: os.stat_result, copy: int) -> None:
    copy_owner(found, copy)
    copy_xattrs(origin, copy)  # after the owner: changing that drops security.capability
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns))


def _clone(origin: int, copy: int) -> bool:
    """Share all blocks, where the file system can."""
    try:
        fcntl.ioctl(copy, _FICLONE, origin)
    except OSError as error:
        if error.errno not in _NO_CLONES:
            raise
        return False
    return True


def _copy_data(origin: int, copy: int, size: int, check: Check) -> None:
    for start, end in extents(origin, size):
        _copy_range(origin, copy, start, end, check)
    os.ftruncate(copy, size)


def extents(descriptor: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Where a file has data and no hole, from `start` to `size`."""
    position = start
    while position < size:
        try:
            begin = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return  # only a hole is left, or it was cut meanwhile
        position = min(os.lseek(descriptor, begin, os.SEEK_HOLE), size)
        if begin < position:
            yield begin, position


def _copy_range(origin: int, copy: int, start: int, end: int, check: Check) -> None:
    while start < end:
        check()
        try:
            done = os.copy_file_range(origin, copy, min(end - start, _CHUNK), start, start)
        except OSError as error:
            if error.errno not in _NO_CLONES:
                raise
            os.lseek(copy, start, os.SEEK_SET)  # between file systems of two kinds
            done = os.sendfile(copy, origin, start, min(end - start, _CHUNK))
        if done == 0:
            return
        start += done


def _copy_differences(origin: int, copy: int, size: int, check: Check) -> None:
    for position in range(0, size, _COMPARED):
        check()
        wanted = os.pread(origin, min(_COMPARED, size - position), position)
        if os.pread(copy, len(wanted), position) != wanted:
            os.pwrite(copy, wanted, position)


def new_special(source: int, target: int, name: str, found: os.stat_result, *, new: str = "") -> None:
    """Make a symbolic link, device (a whiteout is one), fifo or socket as it is in `source`, with the name `new` if given."""
    copy = new or name
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), copy, dir_fd=target)
    else:
        os.mknod(copy, found.st_mode, found.st_rdev, dir_fd=target)
    set_owner(target, copy, found)
    copy_entry_xattrs(source, name, target, copy)
    os.utime(copy, ns=(found.st_atime_ns, found.st_mtime_ns), dir_fd=target, follow_symlinks=False)


def set_owner(folder: int, name: str, found: os.stat_result) -> None:
    """Owner and mode of an entry of any type."""
    os.chown(name, found.st_uid, found.st_gid, dir_fd=folder, follow_symlinks=False)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=folder)


def copy_entry_xattrs(source: int, name: str, target: int, copy: str) -> None:
    """Give an entry the attributes of another one, and no others: it may have inherited some from its directory.

    Links and devices may carry trusted.* and security.* attributes; there is no f*xattr call for them, the l* ones take
    a path, here through the directory's descriptor with the name as the last part, which they do not follow."""
    wanted, present = _xattrs(f"/proc/self/fd/{source}/{name}"), _xattrs(f"/proc/self/fd/{target}/{copy}")
    for attribute in present.keys() - wanted.keys():
        os.removexattr(f"/proc/self/fd/{target}/{copy}", attribute, follow_symlinks=False)
    for attribute, value in wanted.items():
        if present.get(attribute) != value:
            os.setxattr(f"/proc/self/fd/{target}/{copy}", attribute, value, follow_symlinks=False)


def _xattrs(path: str) -> dict[str, bytes]:
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def copy_xattrs(source: int, target: int) -> None:
    """All extended attributes of one open file or directory to another."""
    for attribute in os.listxattr(source):
        try:
            value = os.getxattr(source, attribute)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed meanwhile
                raise
        else:
            os.setxattr(target, attribute, value)


def copy_directory_facts(source: int, found: os.stat_result, target: int) -> None:
    """Attributes, owner, mode and times of a directory; attributes that the source no longer has go."""
    for attribute in set(os.listxattr(target)) - set(os.listxattr(source)):
        with contextlib.suppress(OSError):  # one that the kernel makes by itself
            os.removexattr(target, attribute)
    copy_xattrs(source, target)
    copy_owner(found, target)


def copy_owner(found: os.stat_result, descriptor: int) -> None:
    """Owner, mode and times of an open file or directory."""
    os.fchown(descriptor, found.st_uid, found.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(found.st_mode))
    os.utime(descriptor, ns=(found.st_atime_ns, found.st_mtime_ns))
